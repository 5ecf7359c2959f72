//! The rounds: every cell once a round, those of one group next to each other and in an order that
//! changes from round to round.

use std::path::PathBuf;

use anyhow::Result;
use clap::value_parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::child::{self, Outcome, Task};
use crate::peers::Peer;
use crate::random::Random;

/// What all measurements have in common.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The peers; AtomicMatrix itself always runs. Default: all that can
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Option<Vec<Peer>>,
    /// Measuring rounds [default: 5, ipc and messages 40; with --quick 2]
    #[arg(long, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Seconds of counting per cell and round [default: 0.5, ipc and messages 0.05; with --quick 0.03]
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// Small and short: to see that it works, not to measure
    #[arg(long)]
    pub quick: bool,
    /// Write the raw figures to this file [default: bench/NAME.json in the target folder]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Parses a duration of 0.01 to 3600 seconds.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be 0.01 to 3600 seconds".to_owned())
    }
}

impl Common {
    /// Returns the same with other defaults; what was asked for stays, and so do quick runs.
    pub fn or(&self, rounds: u32, seconds: f64) -> Self {
        if self.quick {
            return self.clone();
        }
        let (rounds, seconds) = (self.rounds.or(Some(rounds)), self.seconds.or(Some(seconds)));
        Self { rounds, seconds, ..self.clone() }
    }

    /// Returns the number of measuring rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    /// Returns the seconds of counting per cell and round.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.03 } else { 0.5 })
    }

    /// Returns those of `peers` that were asked for. Ours always are.
    pub fn chosen(&self, peers: &[Peer]) -> Vec<Peer> {
        peers.iter().filter(|peer| self.asks_for(**peer)).copied().collect()
    }

    /// Tells whether `peer` was asked for.
    pub fn asks_for(&self, peer: Peer) -> bool {
        peer.is_ours() || self.peers.as_ref().is_none_or(|asked| asked.contains(&peer))
    }

    /// Says which peers were asked for and do not take part, and why: those for which `excludes`
    /// has a reason.
    pub fn left_out(&self, excludes: impl Fn(Peer) -> Option<&'static str>) -> Option<String> {
        let asked = Peer::ALL.into_iter().filter(|peer| self.asks_for(*peer));
        let out: Vec<String> = asked
            .filter_map(|peer| Some(format!("{} ({})", peer.title(), excludes(peer)?)))
            .collect();
        (!out.is_empty()).then(|| format!("Not here: {}.", out.join(", ")))
    }
}

/// One row of a table at one place of its axis, measured once a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The place: a number of threads, a size, ….
    pub group: String,
    /// The row's name.
    pub label: String,
    /// The peer.
    pub peer: Peer,
    /// What to do in measuring rounds; a reason where the peer cannot take part.
    pub task: Result<Task, String>,
    /// What to do once, before them, to see that payloads stay intact.
    pub verify: Option<Task>,
}

impl Cell {
    /// Makes the cell of a peer under its own name; a peer that this build lacks cannot take part.
    pub fn new(group: impl Into<String>, peer: Peer, task: Task) -> Self {
        let task = match peer.skipped_because() {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(task),
        };
        Self { group: group.into(), label: peer.title(), peer, task, verify: None }
    }
}

/// One outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The round, from 1; 0 is the verifying run.
    pub round: u32,
    /// Which cell, by its number.
    pub cell: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// The round number of verifying runs.
pub const VERIFY_ROUND: u32 = 0;

/// Runs all cells one after the other, the verifying runs first.
///
/// # Errors
/// When no child process can be started.
pub fn run(cells: &[Cell], rounds: u32) -> Result<Vec<Record>> {
    let count = |round: u32| cells.iter().filter(|cell| task_of(cell, round).is_some()).count();
    let runs = count(VERIFY_ROUND) + rounds as usize * count(1);
    let bar = ProgressBar::new(runs as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} cells, {eta} left: {msg}")?);
    let mut random = Random::new(1);
    let mut records = Vec::with_capacity(runs);
    for round in VERIFY_ROUND..=rounds {
        for mut group in groups(cells) {
            random.shuffle(&mut group);
            for number in group {
                let cell = &cells[number];
                let Some(task) = task_of(cell, round) else { continue };
                bar.set_message(format!("round {round}, {}, {}", cell.group, cell.label));
                let outcome = child::run(cell.peer, task)?;
                records.push(Record { round, cell: number, outcome });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(records)
}

fn task_of(cell: &Cell, round: u32) -> Option<&Task> {
    let task = cell.task.as_ref().ok()?;
    if round == VERIFY_ROUND { cell.verify.as_ref() } else { Some(task) }
}

/// Returns the numbers of the cells of every group, groups in the order of their first cells.
fn groups(cells: &[Cell]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        match groups.iter_mut().find(|(name, _)| *name == cell.group) {
            Some((_, group)) => group.push(number),
            None => groups.push((&cell.group, vec![number])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
