//! Tables, the file of raw figures, and the verdict.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::campaign::{Plan, Record, VERIFY_ROUND};
use crate::cell::Sample;
use crate::child::Outcome;
use crate::peers::Peer;
use crate::stats::{Spread, figure};
use crate::workload::Workload;

/// Stands where there is no figure.
const NONE: &str = "–";

/// Creates an empty Markdown table; all columns but the first `left` are aligned right.
pub fn markdown_table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Creates the file of raw figures, if one is wanted; before the run, so that a bad path costs nothing.
///
/// # Errors
/// When the file cannot be created.
pub fn create_json(path: Option<&Path>) -> Result<Option<File>> {
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot create {}", path.display()))
    };
    path.map(create).transpose()
}

/// Writes `value` as JSON, if a file is wanted.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(file: Option<File>, value: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut writer = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut writer, value).context("cannot write the raw figures")?;
    writer.flush().context("cannot write the raw figures")
}

/// All outcomes of one peer at one number of threads.
struct Row<'r> {
    peer: Peer,
    threads: u32,
    records: Vec<&'r Record>,
}

impl<'r> Row<'r> {
    fn new(records: &'r [Record], peer: Peer, threads: u32) -> Self {
        let mine = records.iter().filter(|record| record.peer == peer && record.threads == threads);
        Self { peer, threads, records: mine.collect() }
    }

    /// Returns the rounds that ran to their end, with their samples.
    fn samples(&self) -> impl Iterator<Item = (u32, &'r Sample)> {
        self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Ran(sample) if record.round != VERIFY_ROUND => Some((record.round, sample)),
            _ => None,
        })
    }

    fn mops(&self) -> Option<Spread> {
        Spread::of(self.samples().map(|(_, sample)| sample.mops()))
    }

    /// Returns `self / other` of every round in which both ran.
    fn ratio_to(&self, other: &Row<'_>) -> Option<Spread> {
        Spread::of(self.samples().filter_map(|(round, mine)| {
            let (_, theirs) = other.samples().find(|&(their_round, _)| their_round == round)?;
            Some(mine.mops() / theirs.mops())
        }))
    }

    /// Says how the measuring rounds ended that did not run to their end.
    fn deaths(&self) -> Option<String> {
        let rounds = self.records.iter().filter(|record| record.round != VERIFY_ROUND);
        let deaths: Vec<_> = rounds
            .filter_map(|record| match &record.outcome {
                Outcome::Died { how, after_s, .. } => Some((how, *after_s)),
                Outcome::Ran(_) => None,
            })
            .collect();
        let (how, _) = deaths.first()?;
        let after = Spread::of(deaths.iter().map(|&(_, after_s)| after_s))?;
        let total = self.samples().count() + deaths.len();
        Some(format!("{how} after {:.2} s ({} of {total} rounds)", after.median, deaths.len()))
    }

    /// Says how many allocations and frees were refused in all rounds.
    fn failures(&self) -> String {
        let (allocs, frees) = self.failure_counts();
        match (allocs, frees) {
            (0, 0) => "0".to_owned(),
            (allocs, 0) => format!("{allocs} allocs"),
            (0, frees) => format!("{frees} frees"),
            (allocs, frees) => format!("{allocs} allocs, {frees} frees"),
        }
    }

    fn failure_counts(&self) -> (u64, u64) {
        let all = self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Ran(sample) => Some(&sample.tally),
            Outcome::Died { .. } => None,
        });
        all.fold((0, 0), |(allocs, frees), t| (allocs + t.failed_allocs, frees + t.failed_frees))
    }

    /// Says what the verifying run saw: `ok`, or everything that was wrong.
    fn verified(&self) -> String {
        let Some(run) = self.records.iter().find(|record| record.round == VERIFY_ROUND) else {
            return NONE.to_owned();
        };
        match &run.outcome {
            Outcome::Ran(sample) if sample.tally.corrupted == 0 => "ok".to_owned(),
            Outcome::Ran(sample) => format!("corrupted {}", sample.tally.corrupted),
            Outcome::Died { how, after_s, corrupted: 0 } => format!("{how} after {after_s:.2} s"),
            Outcome::Died { how, after_s, corrupted } => {
                format!("corrupted ≥ {corrupted}, {how} after {after_s:.2} s")
            }
        }
    }

    /// Lists what must not happen to us.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for record in &self.records {
            match &record.outcome {
                Outcome::Died { how, corrupted: 0, .. } => faults.push(how.clone()),
                Outcome::Died { how, corrupted, .. } => {
                    faults.push(format!("{how} after {corrupted} or more blocks were corrupted"));
                }
                Outcome::Ran(sample) => {
                    faults.extend(sample.audit.iter().cloned());
                    if sample.tally.corrupted > 0 {
                        faults.push(format!("{} blocks corrupted", sample.tally.corrupted));
                    }
                }
            }
        }
        let (allocs, frees) = self.failure_counts();
        if allocs + frees > 0 {
            faults.push(format!("refused: {}", self.failures()));
        }
        faults
    }
}

/// Prints the table of `records`.
pub fn print(plan: &Plan, records: &[Record], skipped: &[(Peer, &str)]) {
    let Plan { workload, rounds, seconds, .. } = plan;
    let what = match workload {
        Workload::Endurance => "endurance: up to 200 live blocks of 32–543 B a thread",
        Workload::Pair64 => "pair64: allocate 64 B, free them; one pair is two operations",
        Workload::Batch => "batch: allocate 10 000 blocks of 32–4096 B, free them in random order",
    };
    println!(
        "Workload: {what}; segments and arenas of {} MiB; {rounds} rounds of {seconds} s; \
         median [min–max]; ratios per round\n",
        plan.segment_bytes >> 20
    );
    let mut header = vec!["threads", "peer", "Mop/s", "min–max"];
    if *workload == Workload::Pair64 {
        header.push("M pairs/s");
    }
    header.extend(["ours ÷ peer", "failed", "verified"]);
    let mut table = markdown_table(&header, 2);
    for &threads in &plan.threads {
        let ours = Row::new(records, Peer::Ours, threads);
        for &peer in &plan.peers {
            table.add_row(line(*workload, &ours, &Row::new(records, peer, threads)));
        }
        for (peer, why) in skipped {
            table.add_row([threads.to_string(), peer.title(), format!("skipped: {why}")]);
        }
    }
    println!("{table}\n");
}

fn line(workload: Workload, ours: &Row<'_>, row: &Row<'_>) -> Vec<String> {
    let mops = row.mops();
    let deaths = row.deaths();
    let median = match (mops, &deaths) {
        (Some(mops), None) => figure(mops.median),
        (Some(mops), Some(deaths)) => format!("{}; {deaths}", figure(mops.median)),
        (None, deaths) => deaths.clone().unwrap_or_else(|| NONE.to_owned()),
    };
    let range = mops.map_or_else(|| NONE.to_owned(), |mops| mops.range());
    let mut line = vec![row.threads.to_string(), row.peer.title(), median, range];
    if workload == Workload::Pair64 {
        line.push(mops.map_or_else(|| NONE.to_owned(), |mops| figure(mops.median / 2.0)));
    }
    let ratio = ours.ratio_to(row).filter(|_| row.peer != Peer::Ours);
    line.push(ratio.map_or_else(
        || NONE.to_owned(),
        |ratio| format!("{} [{}]", figure(ratio.median), ratio.range()),
    ));
    line.extend([row.failures(), row.verified()]);
    line
}

/// Lists everything that went wrong with AtomicMatrix itself.
pub fn faults(plan: &Plan, records: &[Record]) -> Vec<String> {
    let mut faults = Vec::new();
    for &peer in plan.peers.iter().filter(|peer| peer.is_ours()) {
        for &threads in &plan.threads {
            let mut seen = Row::new(records, peer, threads).faults();
            seen.dedup();
            let place = format!("{}, {threads} threads", peer.title());
            faults.extend(seen.into_iter().map(|fault| format!("{place}: {fault}")));
        }
    }
    faults
}
