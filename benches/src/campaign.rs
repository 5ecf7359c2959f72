//! The rounds: every peer at every number of threads, in an order that changes from round to round.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use uuid::Uuid;

use crate::cell::CellSpec;
use crate::child::{self, Outcome};
use crate::peers::Peer;
use crate::random::Random;
use crate::workload::Workload;

/// What a campaign runs.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The workload of all cells.
    pub workload: Workload,
    /// Size of every segment and arena, in bytes.
    pub segment_bytes: usize,
    /// The peers that this build can run.
    pub peers: Vec<Peer>,
    /// The numbers of threads.
    pub threads: Vec<u32>,
    /// Measuring rounds.
    pub rounds: u32,
    /// Seconds of counting per cell and round.
    pub seconds: f64,
    /// Seconds of warm-up per cell and round.
    pub warmup_s: f64,
    /// Seconds of every verifying run.
    pub verify_s: f64,
}

/// One outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The round, from 1; 0 is the verifying run.
    pub round: u32,
    /// The peer.
    pub peer: Peer,
    /// The number of threads.
    pub threads: u32,
    /// How the cell ended.
    pub outcome: Outcome,
}

/// The round number of verifying runs.
pub const VERIFY_ROUND: u32 = 0;

impl Plan {
    /// Runs all cells, one after the other, the verifying ones first.
    ///
    /// # Errors
    /// When no child process can be started.
    pub fn run(&self) -> Result<Vec<Record>> {
        let cells = (self.rounds as usize + 1) * self.threads.len() * self.peers.len();
        let bar = ProgressBar::new(cells as u64).with_style(ProgressStyle::with_template(
            "{bar:30} {pos}/{len} cells, {eta} left: {msg}",
        )?);
        let mut random = Random::new(1);
        let mut records = Vec::with_capacity(cells);
        for round in VERIFY_ROUND..=self.rounds {
            for &threads in &self.threads {
                let mut order = self.peers.clone();
                random.shuffle(&mut order);
                for peer in order {
                    bar.set_message(format!("round {round}, {threads} threads, {}", peer.title()));
                    let outcome = child::run(&self.cell(round, threads, peer))?;
                    records.push(Record { round, peer, threads, outcome });
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        Ok(records)
    }

    fn cell(&self, round: u32, threads: u32, peer: Peer) -> CellSpec {
        let verify = round == VERIFY_ROUND;
        CellSpec {
            peer,
            workload: self.workload,
            threads,
            segment_bytes: self.segment_bytes,
            warmup_s: if verify { 0.0 } else { self.warmup_s },
            seconds: if verify { self.verify_s } else { self.seconds },
            verify,
            id: Uuid::new_v4(),
        }
    }
}
