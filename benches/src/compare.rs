//! `peers`: every peer under the same threads and the same workload.

use std::thread;

use anyhow::Result;
use clap::value_parser;

use crate::campaign::{Cell, Common, parse_seconds};
use crate::child::Task;
use crate::peers::Peer;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, NONE, Row, Seen, Sheet};
use crate::stats::figure;
use crate::throughput::Throughput;
use crate::workload::Workload;

/// Options of the comparison.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What every thread does
    #[arg(long, value_enum, default_value = "endurance")]
    workload: Workload,
    /// Numbers of threads, 1 to 16
    #[arg(long, value_delimiter = ',', default_value = "1,2,8", value_parser = value_parser!(u32).range(1..=16))]
    threads: Vec<u32>,
    /// Seconds of warm-up per cell and round [default: 0.1; with --quick 0.01]
    #[arg(long, value_parser = parse_seconds)]
    warmup: Option<f64>,
    /// Seconds of the run that fills and verifies whole payloads, once per peer and number of threads
    /// [default: 0.3; with --quick 0.03]
    #[arg(long, value_parser = parse_seconds)]
    verify: Option<f64>,
}

impl Options {
    /// Returns the usual options for `workload`.
    pub fn of(workload: Workload) -> Self {
        Self { workload, threads: vec![1, 2, 8], warmup: None, verify: None }
    }
}

/// Compares the peers.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common, options: &Options) -> Result<Verdict> {
    let workload = options.workload;
    let mut cells = Vec::new();
    for &threads in &options.threads {
        for peer in common.chosen(&Peer::ALL) {
            cells.push(cell(common, options, threads, peer));
        }
    }
    let title = format!(
        "{}; segments and arenas of {} MiB; {} rounds of {} s; ratios per round",
        workload.title(),
        workload.segment_bytes() >> 20,
        common.rounds(),
        common.seconds()
    );
    run::run(workload.name(), common, cells, Vec::new(), |seen| vec![sheet(title, seen)])
}

fn cell(common: &Common, options: &Options, threads: u32, peer: Peer) -> Cell {
    let pick =
        |given: Option<f64>, full, quick| given.unwrap_or(if common.quick { quick } else { full });
    let measure = Throughput {
        workload: options.workload,
        threads,
        warmup_s: pick(options.warmup, 0.1, 0.01),
        seconds: common.seconds(),
        verify: false,
    };
    let seconds = pick(options.verify, 0.3, 0.03);
    let verify = Throughput { warmup_s: 0.0, seconds, verify: true, ..measure.clone() };
    let mut cell = Cell::new(threads.to_string(), peer, Task::Throughput(measure));
    cell.verify = Some(Task::Throughput(verify));
    if let Some(reason) = options.workload.excludes(peer) {
        cell.task = Err(reason.to_owned());
    }
    cell
}

fn sheet(title: String, seen: &[Seen<'_>]) -> Sheet {
    let bare: Vec<Row> = seen.iter().map(|seen| seen.row("mops", Vec::new())).collect();
    let slots = |group: &str| {
        let is_it = |seen: &&Seen<'_>| seen.cell.peer == Peer::Slots && seen.cell.group == group;
        Some(seen.iter().find(is_it)?.row("mops", Vec::new()))
    };
    let row = |(seen, bare): (&Seen<'_>, &Row)| {
        let own = slots(&bare.group).filter(|_| seen.cell.peer != Peer::Slots);
        let own = own.and_then(|slots| own_cost(bare, &slots));
        let own = own.map_or_else(|| NONE.to_owned(), figure);
        seen.row("mops", vec![own, seen.refusals(), seen.verified()])
    };
    Sheet {
        title,
        axis: "threads".to_owned(),
        unit: "Mop/s".to_owned(),
        more_is_better: true,
        chart: Chart::Ratios,
        columns: ["ns/op above slots", "refused", "verified"].map(String::from).into(),
        rows: seen.iter().zip(&bare).map(row).collect(),
    }
}

/// Returns the median over the rounds of what an operation costs above the loop itself, in
/// nanoseconds of one core.
fn own_cost(row: &Row, slots: &Row) -> Option<f64> {
    let threads: usize = row.group.parse().ok()?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let busy = threads.min(cores) as f64;
    let ns = |mops: f64| busy * 1e3 / mops;
    Some(row.paired(slots, |mine, theirs| ns(mine) - ns(theirs))?.median)
}
