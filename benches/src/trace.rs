//! `trace`: one and the same sequence of allocations and frees on a segment that is nearly full.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::value_parser;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Job, Reading, Task};
use crate::client::touch;
use crate::heap::{Heap, Sectors, Setup};
use crate::peers::Peer;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, NONE, Seen, Sheet};
use crate::stats::figure;

const MIB: usize = 1 << 20;
/// Sizes, in bytes; what the distribution gives beyond is put to the border.
const SIZE_MIN: usize = 32;
const SIZE_MAX: usize = MIB;
/// Median size, in bytes, and the deviation of its logarithm: the mean is about 6 KiB, and half of
/// all bytes are in blocks above 55 KiB.
const SIZE_MEDIAN: f64 = 1024.0;
const SIZE_SIGMA: f64 = 2.0;
/// The same trace on every machine.
const SEED: u64 = 0x0a70_3a7e;
/// How close the search for the largest block comes, in bytes.
const LARGEST_WITHIN: usize = 256;

/// Options of the measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Live payload in percent of the segment
    #[arg(long, value_delimiter = ',', default_value = "70,90", value_parser = value_parser!(u32).range(1..=100))]
    occupancy: Vec<u32>,
    /// Size of the segment in MiB [default: 256; with --quick 32]
    #[arg(long, value_parser = value_parser!(u32).range(8..=65536))]
    segment_mib: Option<u32>,
    /// Operations after the segment is filled [default: 1000000; with --quick 50000]
    #[arg(long, value_parser = value_parser!(u32).range(1000..=1_000_000_000))]
    operations: Option<u32>,
}

impl Options {
    /// Returns the usual options.
    pub fn usual() -> Self {
        Self { occupancy: vec![70, 90], segment_mib: None, operations: None }
    }
}

/// A trace on one heap, by one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    sectors: Sectors,
    segment_bytes: usize,
    occupancy_percent: u32,
    operations: usize,
}

/// One step: block number `block` is allocated with `bytes`, or freed if those are 0.
struct Step {
    block: u32,
    bytes: u32,
}

/// The steps, and how many of them only fill the segment.
struct Steps {
    all: Vec<Step>,
    filling: usize,
    blocks: usize,
}

impl Trace {
    /// Returns how long it may take, in seconds.
    pub fn limit_s(&self) -> f64 {
        // Twenty microseconds an operation, and the filling.
        60.0 + self.operations as f64 * 20e-6
    }

    /// Makes the steps. They do not depend on what a heap does: all get the same.
    fn steps(&self) -> Result<Steps> {
        let mut random = Pcg64::seed_from_u64(SEED);
        let sizes = LogNormal::new(SIZE_MEDIAN.ln(), SIZE_SIGMA).context("no such distribution")?;
        let target = self.segment_bytes / 100 * self.occupancy_percent as usize;
        let mut steps = Steps { all: Vec::new(), filling: 0, blocks: 0 };
        let (mut live, mut unused, mut live_bytes) = (Vec::new(), Vec::new(), 0);
        while steps.filling == 0 || steps.all.len() < steps.filling + self.operations {
            let bytes = (sizes.sample(&mut random) as usize).clamp(SIZE_MIN, SIZE_MAX);
            while live_bytes + bytes > target {
                steps.filling = if steps.filling == 0 { steps.all.len() } else { steps.filling };
                let (block, freed) = live.swap_remove(random.random_range(0..live.len()));
                live_bytes -= freed;
                unused.push(block);
                steps.all.push(Step { block, bytes: 0 });
            }
            let block = unused.pop().unwrap_or_else(|| {
                steps.blocks += 1;
                (steps.blocks - 1) as u32
            });
            live.push((block, bytes));
            live_bytes += bytes;
            steps.all.push(Step { block, bytes: bytes as u32 });
        }
        Ok(steps)
    }
}

/// A heap in the middle of a trace.
struct Course<'h, H: Heap> {
    heap: &'h H,
    blocks: Vec<Option<(H::Block<'h>, usize)>>,
    live_bytes: usize,
    operations: u64,
    allocs_refused: u64,
    frees_refused: u64,
}

impl<'h, H: Heap> Course<'h, H> {
    fn take(&mut self, step: &Step) {
        let place = &mut self.blocks[step.block as usize];
        if step.bytes == 0 {
            // Nothing to free where the allocation was refused.
            let Some((block, bytes)) = place.take() else { return };
            // SAFETY: the block came from this heap with this size, and nobody else has it.
            let freed = unsafe { self.heap.free(block, bytes) };
            self.frees_refused += u64::from(!freed);
            self.live_bytes -= bytes;
            self.operations += 1;
            return;
        }
        let bytes = step.bytes as usize;
        match self.heap.alloc(bytes) {
            Some(mut block) => {
                // SAFETY: the block is ours, and longer than 8 bytes.
                unsafe { touch(self.heap.payload(&mut block), step.block) };
                *place = Some((block, bytes));
                self.live_bytes += bytes;
                self.operations += 1;
            }
            None => self.allocs_refused += 1,
        }
    }

    /// Finds the largest block that the heap gives now, in bytes, to within [`LARGEST_WITHIN`].
    fn largest(&mut self, below: usize) -> usize {
        let (mut good, mut bad) = (0, below);
        while bad - good > LARGEST_WITHIN {
            let middle = good + (bad - good) / 2;
            match self.heap.alloc(middle) {
                Some(block) => {
                    // SAFETY: just allocated with this size.
                    let freed = unsafe { self.heap.free(block, middle) };
                    self.frees_refused += u64::from(!freed);
                    good = middle;
                }
                None => bad = middle,
            }
        }
        good
    }
}

impl Job for Trace {
    /// Figures: `mops` and `refused` (allocations) after the filling; at the end `live` and `left`
    /// (MiB of payload, MiB of segment that is no payload), `largest` (MiB in one block) and
    /// `largest_of_left`; `largest_of_free` by the heap's own account, where it keeps one.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let steps = self.steps()?;
        let (sectors, segment_bytes) = (self.sectors, self.segment_bytes);
        let heap = H::create(&Setup { id, segment_bytes, request_bytes_max: SIZE_MAX, sectors })?;
        heap.enter()?;
        let mut course = Course {
            heap: &heap,
            blocks: (0..steps.blocks).map(|_| None).collect(),
            live_bytes: 0,
            operations: 0,
            allocs_refused: 0,
            frees_refused: 0,
        };
        let (filling, measured) = steps.all.split_at(steps.filling);
        filling.iter().for_each(|step| course.take(step));
        (course.operations, course.allocs_refused) = (0, 0);
        let start = Instant::now();
        measured.iter().for_each(|step| course.take(step));
        let elapsed_s = start.elapsed().as_secs_f64();

        let mut reading = Reading::default();
        reading.set("mops", course.operations as f64 / elapsed_s / 1e6);
        reading.set("refused", course.allocs_refused as f64);
        let own = heap.own_account();
        let mib = |bytes: usize| bytes as f64 / MIB as f64;
        let left = segment_bytes - course.live_bytes;
        let largest = course.largest(segment_bytes);
        reading.set("live", mib(course.live_bytes));
        reading.set("left", mib(left));
        reading.set("largest", mib(largest));
        reading.set("largest_of_left", largest as f64 / left as f64);
        if let Some(own) = own {
            reading.set("largest_of_free", own.largest_bytes as f64 / own.free_bytes as f64);
        }
        let blocks = std::mem::take(&mut course.blocks);
        for (block, bytes) in blocks.into_iter().flatten() {
            // SAFETY: the block came from this heap with this size, and nobody else has it.
            course.frees_refused += u64::from(!unsafe { heap.free(block, bytes) });
        }
        if course.frees_refused > 0 {
            reading.faults.push(format!("{} frees refused", course.frees_refused));
        }
        reading.faults.extend(heap.audit());
        Ok(reading)
    }
}

/// Returns why `peer` does not take part, if it does not.
fn excludes(peer: Peer) -> Option<&'static str> {
    match peer {
        // One way of calling is enough: the trace is about space.
        Peer::Ours => Some("the raw offsets stand for both"),
        Peer::OursOffset | Peer::Boost | Peer::Rlsf | Peer::Talc => None,
        Peer::Dpdk | Peer::Slots => Some("blocks of one size only"),
        Peer::Published => Some("crashes"),
        Peer::Mimalloc | Peer::Jemalloc | Peer::Snmalloc | Peer::System => {
            Some("has no segment to fill")
        }
    }
}

/// Runs the trace on the peers that manage a segment.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common, options: &Options) -> Result<Verdict> {
    let segment_mib = options.segment_mib.unwrap_or(if common.quick { 32 } else { 256 });
    let operations = options.operations.unwrap_or(if common.quick { 50_000 } else { 1_000_000 });
    let mut cells = Vec::new();
    for &occupancy_percent in &options.occupancy {
        let trace = |sectors| Trace {
            sectors,
            segment_bytes: segment_mib as usize * MIB,
            occupancy_percent,
            operations: operations as usize,
        };
        let group = format!("{occupancy_percent} %");
        let ours = [
            (Sectors::Small, "AtomicMatrix, one sector"),
            (Sectors::Usual, "AtomicMatrix, usual sectors"),
            (Sectors::Spilling, "AtomicMatrix, usual sectors, spilling"),
        ];
        for (sectors, label) in ours {
            let cell = Cell::new(&group, Peer::OursOffset, Task::Trace(trace(sectors)));
            cells.push(Cell { label: label.to_owned(), ..cell });
        }
        for peer in common.chosen(&[Peer::Boost, Peer::Rlsf, Peer::Talc]) {
            cells.push(Cell::new(&group, peer, Task::Trace(trace(Sectors::Usual))));
        }
    }
    let title = format!(
        "Trace: sizes log-normal, 32 B–1 MiB, median 1 KiB, σ 2; live payload kept at a percentage \
         of a segment of {segment_mib} MiB; {operations} operations after the filling, one thread"
    );
    let mut notes = vec![
        "One and the same trace for all. A heap that refuses an allocation has less to hold from \
         there on: `live` says how much it held in the end. `left` is what of the segment is not \
         live payload: free blocks, headers and tables; `largest` is the largest block that it \
         gives then, found by trying."
            .to_owned(),
    ];
    notes.extend(common.left_out(excludes));
    run::run("trace", common, cells, notes, |seen| vec![sheet(title, seen)])
}

fn sheet(title: String, seen: &[Seen<'_>]) -> Sheet {
    let names = ["refused", "live", "left", "largest", "largest_of_left", "largest_of_free"];
    let text = |seen: &Seen<'_>, name: &str| {
        seen.spread(name).map_or_else(|| NONE.to_owned(), |spread| figure(spread.median))
    };
    let row =
        |seen: &Seen<'_>| seen.row("mops", names.iter().map(|name| text(seen, name)).collect());
    Sheet {
        title,
        axis: "occupancy".to_owned(),
        unit: "Mop/s".to_owned(),
        more_is_better: true,
        chart: Chart::Ratios,
        columns: [
            "refused",
            "live MiB",
            "left MiB",
            "largest MiB",
            "largest ÷ left",
            "largest ÷ free, own account",
        ]
        .map(String::from)
        .into(),
        rows: seen.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_the_occupancy_and_free_only_what_lives() -> Result<()> {
        let trace = Trace {
            sectors: Sectors::Usual,
            segment_bytes: 16 * MIB,
            occupancy_percent: 90,
            operations: 10_000,
        };
        let steps = trace.steps()?;
        let mut live = vec![0; steps.blocks];
        let (mut live_bytes, mut lowest) = (0, usize::MAX);
        for (number, step) in steps.all.iter().enumerate() {
            let bytes = &mut live[step.block as usize];
            assert_eq!(*bytes == 0, step.bytes != 0, "step {number}: allocated or freed twice");
            live_bytes = live_bytes - *bytes + step.bytes as usize;
            *bytes = step.bytes as usize;
            assert!(live_bytes <= trace.segment_bytes / 100 * 90, "step {number}: too full");
            if number >= steps.filling {
                lowest = lowest.min(live_bytes);
            }
        }
        // A few large blocks may go before the next comes.
        assert!(lowest >= trace.segment_bytes / 100 * 60, "{lowest} bytes at the lowest");
        assert!(steps.all.len() >= steps.filling + trace.operations);
        Ok(())
    }
}
