//! `trace`: one and the same sequence of allocations and frees on heaps that are nearly full.

use std::iter;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::value_parser;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::capacity::{self, Measured};
use crate::child::{Job, Reading, Task};
use crate::client::touch;
use crate::heap::{Access, Heap, Sectors, Setup};
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
/// The sizes by which capacities are found; not those of the trace.
const CAPACITY_SEED: u64 = 0x0a70_3a7f;
/// How close the search for the largest block comes, in bytes.
const LARGEST_WITHIN: usize = 256;

/// Options of the measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Live payload in percent of the capacity
    #[arg(long, value_delimiter = ',', default_value = "70,90", value_parser = value_parser!(u32).range(1..=100))]
    occupancy: Vec<u32>,
    /// What every heap has as much of
    #[arg(long, value_enum, default_value = "capacity")]
    equal: Equal,
    /// So much of it, in MiB [default: 256; with --quick 32]
    #[arg(long, value_parser = value_parser!(u32).range(8..=65536))]
    mib: Option<u32>,
    /// Operations after the heap is filled [default: 1000000; with --quick 50000]
    #[arg(long, value_parser = value_parser!(u32).range(1000..=1_000_000_000))]
    operations: Option<u32>,
}

impl Options {
    /// Returns the usual options.
    pub fn usual() -> Self {
        Self { occupancy: vec![70, 90], equal: Equal::Capacity, mib: None, operations: None }
    }
}

/// What every heap has as much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Equal {
    /// Payload that it can hold; the memory is what it takes
    Capacity,
    /// Memory, with the heap's own tables and headers in it
    Memory,
}

/// A trace on one heap, by one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    sectors: Sectors,
    thread_caches: bool,
    equal: Equal,
    /// Of that.
    bytes: usize,
    occupancy_percent: u32,
    operations: usize,
}

/// One step: block number `block` is allocated with `bytes`, or freed if those are 0.
struct Step {
    block: u32,
    bytes: u32,
}

/// The steps, and how many of them only fill the heap.
struct Steps {
    all: Vec<Step>,
    filling: usize,
    blocks: usize,
}

/// Draws sizes, in bytes.
fn sizes(seed: u64) -> Result<impl Iterator<Item = usize>> {
    let mut random = Pcg64::seed_from_u64(seed);
    let sizes = LogNormal::new(SIZE_MEDIAN.ln(), SIZE_SIGMA).context("no such distribution")?;
    let clamp = |size: f64| (size as usize).clamp(SIZE_MIN, SIZE_MAX);
    Ok(iter::repeat_with(move || clamp(sizes.sample(&mut random))))
}

impl Trace {
    /// Returns how long it may take, in seconds.
    pub fn limit_s(&self) -> f64 {
        // Twenty microseconds an operation, and the fillings.
        120.0 + self.operations as f64 * 20e-6
    }

    /// Returns the memory that the heap gets, and what of it counts as its capacity.
    fn measured<H: Heap>(&self, setup: &Setup) -> Result<Measured> {
        match self.equal {
            Equal::Capacity => {
                capacity::memory_for::<H>(setup, self.bytes, || Ok(Box::new(sizes(CAPACITY_SEED)?)))
            }
            Equal::Memory => Ok(Measured { memory_bytes: self.bytes, capacity_bytes: self.bytes }),
        }
    }

    /// Makes the steps. They do not depend on what a heap does: all get the same.
    fn steps(&self) -> Result<Steps> {
        let (mut random, mut sizes) = (Pcg64::seed_from_u64(!SEED), sizes(SEED)?);
        let target = self.bytes / 100 * self.occupancy_percent as usize;
        let mut steps = Steps { all: Vec::new(), filling: 0, blocks: 0 };
        let (mut live, mut unused, mut live_bytes) = (Vec::new(), Vec::new(), 0);
        while steps.filling == 0 || steps.all.len() < steps.filling + self.operations {
            let Some(bytes) = sizes.next() else { break };
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
struct Course<A: Access> {
    access: A,
    blocks: Vec<Option<(A::Block, usize)>>,
    live_bytes: usize,
    /// The most there ever was.
    peak_bytes: usize,
    operations: u64,
    allocs_refused: u64,
    frees_refused: u64,
}

impl<A: Access> Course<A> {
    fn take(&mut self, step: &Step) {
        let place = &mut self.blocks[step.block as usize];
        if step.bytes == 0 {
            // Nothing to free where the allocation was refused.
            let Some((block, bytes)) = place.take() else { return };
            // SAFETY: the block came from this heap with this size, and nobody else has it.
            let freed = unsafe { self.access.free(block, bytes) };
            self.frees_refused += u64::from(!freed);
            self.live_bytes -= bytes;
            self.operations += 1;
            return;
        }
        let bytes = step.bytes as usize;
        match self.access.alloc(bytes) {
            Some(mut block) => {
                // SAFETY: the block is ours, and longer than 8 bytes.
                unsafe { touch(self.access.payload(&mut block), step.block) };
                *place = Some((block, bytes));
                self.live_bytes += bytes;
                self.peak_bytes = self.peak_bytes.max(self.live_bytes);
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
            match self.access.alloc(middle) {
                Some(block) => {
                    // SAFETY: just allocated with this size.
                    let freed = unsafe { self.access.free(block, middle) };
                    self.frees_refused += u64::from(!freed);
                    good = middle;
                }
                None => bad = middle,
            }
        }
        good
    }
}

impl<A: Access> Course<A> {
    fn new(access: A, blocks: usize) -> Self {
        Self {
            access,
            blocks: (0..blocks).map(|_| None).collect(),
            live_bytes: 0,
            peak_bytes: 0,
            operations: 0,
            allocs_refused: 0,
            frees_refused: 0,
        }
    }

    /// Fills the heap, then takes the measured steps on the clock; sets what they show.
    fn run(&mut self, steps: &Steps, reading: &mut Reading) {
        let (filling, measured) = steps.all.split_at(steps.filling);
        filling.iter().for_each(|step| self.take(step));
        reading.set("refused_filling", self.allocs_refused as f64);
        (self.operations, self.allocs_refused) = (0, 0);
        let start = Instant::now();
        measured.iter().for_each(|step| self.take(step));
        let elapsed_s = start.elapsed().as_secs_f64();
        reading.set("mops", self.operations as f64 / elapsed_s / 1e6);
        reading.set("refused", self.allocs_refused as f64);
    }

    /// Frees what is left; returns how many frees were refused in all.
    fn drain(mut self) -> u64 {
        for (block, bytes) in std::mem::take(&mut self.blocks).into_iter().flatten() {
            // SAFETY: the block came from this heap with this size, and nobody else has it.
            self.frees_refused += u64::from(!unsafe { self.access.free(block, bytes) });
        }
        self.frees_refused
    }
}

impl Job for Trace {
    /// Figures: `refused_filling`, and after the filling `mops` and `refused` (allocations); `peak`,
    /// the most payload there was, in percent of the capacity; at the end `live` and `free` (MiB of
    /// payload, MiB of the capacity that is no payload), `largest` (MiB in one block) and
    /// `largest_of_free`; `own` is that by the heap's own account, where it keeps one; `memory`, the
    /// MiB that the heap was given.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let steps = self.steps()?;
        let Self { sectors, thread_caches, bytes: segment_bytes, .. } = *self;
        let request_bytes_max = SIZE_MAX;
        let setup = Setup { id, segment_bytes, request_bytes_max, sectors, thread_caches };
        let Measured { memory_bytes, capacity_bytes } = self.measured::<H>(&setup)?;
        let heap = H::create(&Setup { segment_bytes: memory_bytes, ..setup })?;
        let mut course = Course::new(heap.enter()?, steps.blocks);
        let mut reading = Reading::default();
        course.run(&steps, &mut reading);

        let mib = |bytes: usize| bytes as f64 / MIB as f64;
        let own = heap.own_account();
        let free = capacity_bytes.saturating_sub(course.live_bytes);
        let largest = course.largest(memory_bytes);
        reading.set("memory", mib(memory_bytes));
        reading.set("peak", course.peak_bytes as f64 / capacity_bytes as f64 * 100.0);
        reading.set("live", mib(course.live_bytes));
        reading.set("free", mib(free));
        reading.set("largest", mib(largest));
        reading.set("largest_of_free", largest as f64 / free as f64);
        if let Some(own) = own {
            reading.set("own", own.largest_bytes as f64 / own.free_bytes as f64);
        }
        let frees_refused = course.drain();
        if frees_refused > 0 {
            reading.faults.push(format!("{frees_refused} frees refused"));
        }
        reading.faults.extend(heap.audit());
        Ok(reading)
    }
}

/// Returns why `peer` does not take part, if it does not.
fn excludes(peer: Peer) -> Option<&'static str> {
    match peer {
        // One way of calling is enough: the trace is about space.
        Peer::Ours | Peer::OursUnshared | Peer::OursCache => Some("the raw offsets stand for it"),
        Peer::OursOffset | Peer::Boost | Peer::Talc | Peer::Published => None,
        Peer::Rlsf | Peer::RlsfFine => None,
        Peer::Dpdk | Peer::Slots | Peer::OursPool | Peer::OursPoolCache => {
            Some("blocks of one size only")
        }
        Peer::Mimalloc | Peer::Jemalloc | Peer::Snmalloc | Peer::System => {
            Some("has no segment to fill")
        }
        _ => Some("carries messages, and is no allocator"),
    }
}

/// The matrices that are compared, and their labels.
fn ours() -> impl Iterator<Item = (Sectors, bool, String)> {
    let sectors = [
        (Sectors::Small, "one sector"),
        (Sectors::Usual, "usual sectors"),
        (Sectors::Spilling, "spilling"),
    ];
    let label = |name: &str, cached| {
        format!("AtomicMatrix, {name}{}", if cached { "" } else { ", uncached" })
    };
    sectors.into_iter().flat_map(move |(sectors, name)| {
        [true, false].map(|cached| (sectors, cached, label(name, cached)))
    })
}

/// Runs the trace on the peers that manage a segment.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common, options: &Options) -> Result<Verdict> {
    let mib = options.mib.unwrap_or(if common.quick { 32 } else { 256 });
    let operations = options.operations.unwrap_or(if common.quick { 50_000 } else { 1_000_000 });
    let mut cells = Vec::new();
    for &occupancy_percent in &options.occupancy {
        let trace = |sectors, thread_caches| {
            Task::Trace(Trace {
                sectors,
                thread_caches,
                equal: options.equal,
                bytes: mib as usize * MIB,
                occupancy_percent,
                operations: operations as usize,
            })
        };
        let group = format!("{occupancy_percent} %");
        for (sectors, cached, label) in ours() {
            let cell = Cell::new(&group, Peer::OursOffset, trace(sectors, cached));
            cells.push(Cell { label, ..cell });
        }
        let peers = [Peer::Boost, Peer::Rlsf, Peer::RlsfFine, Peer::Talc, Peer::Published];
        for peer in common.chosen(&peers) {
            cells.push(Cell::new(&group, peer, trace(Sectors::Usual, true)));
        }
    }
    let what = match options.equal {
        Equal::Capacity => format!("the capacity, {mib} MiB of payload for all"),
        Equal::Memory => format!("the memory, {mib} MiB for all"),
    };
    let title = format!(
        "Trace: sizes log-normal, 32 B–1 MiB, median 1 KiB, σ 2; live payload kept at a percentage \
         of {what}; {operations} operations after the filling, one thread"
    );
    let mut notes = vec![equal_note(options.equal).to_owned(), READING_NOTE.to_owned()];
    notes.extend(common.left_out(excludes));
    run::run("trace", common, cells, notes, |seen| vec![sheet(title, seen)])
}

/// Says what the percentage is of.
fn equal_note(equal: Equal) -> &'static str {
    match equal {
        Equal::Capacity => {
            "Every heap has the same capacity, to within 0.2 %: before the trace, empty heaps of its \
             kind are filled with blocks of the trace's sizes, each until it refuses 256 times in a \
             row, and the memory adapted (`memory`). So nobody pays for his tables and headers with \
             refusals, and what differs is fragmentation. Where a matrix is divided, its capacity is \
             that of all sectors together; the trace's sizes do not come in the proportion of the \
             sectors, so one of them is full before the others."
        }
        Equal::Memory => {
            "Every heap has the same memory, which holds its tables and headers too: at 90 % these \
             alone may be what does not fit."
        }
    }
}

/// Says what the columns are.
const READING_NOTE: &str = "One and the same trace for all. A heap that refuses an allocation has \
    less to hold from there on: `peak` says how much of the capacity was payload at the most, `live` \
    how much in the end. `free` is the rest of the capacity then; `largest` the largest block that \
    the heap still gives, found by trying. *Uncached*: without thread caches; *spilling*: the usual \
    sectors, where a full one's requests go to another; rlsf, *finest*: 64 lists for each power of two \
    in place of 32.";

/// The further columns: a figure, and its title.
const COLUMNS: [(&str, &str); 9] = [
    ("refused_filling", "refused, filling"),
    ("refused", "refused"),
    ("peak", "peak %"),
    ("live", "live MiB"),
    ("free", "free MiB"),
    ("largest", "largest MiB"),
    ("largest_of_free", "largest ÷ free"),
    ("own", "the same, own account"),
    ("memory", "memory MiB"),
];

fn sheet(title: String, seen: &[Seen<'_>]) -> Sheet {
    let text = |seen: &Seen<'_>, name: &str| {
        seen.spread(name).map_or_else(|| NONE.to_owned(), |spread| figure(spread.median))
    };
    let extra = |seen: &Seen<'_>| COLUMNS.iter().map(|(name, _)| text(seen, name)).collect();
    Sheet {
        title,
        axis: "occupancy".to_owned(),
        unit: "Mop/s".to_owned(),
        more_is_better: true,
        chart: Chart::Ratios,
        columns: COLUMNS.iter().map(|(_, title)| (*title).to_owned()).collect(),
        rows: seen.iter().map(|seen| seen.row("mops", extra(seen))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_the_occupancy_and_free_only_what_lives() -> Result<()> {
        let trace = Trace {
            sectors: Sectors::Usual,
            thread_caches: true,
            equal: Equal::Memory,
            bytes: 16 * MIB,
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
            assert!(live_bytes <= trace.bytes / 100 * 90, "step {number}: too full");
            if number >= steps.filling {
                lowest = lowest.min(live_bytes);
            }
        }
        // A few large blocks may go before the next comes.
        assert!(lowest >= trace.bytes / 100 * 60, "{lowest} bytes at the lowest");
        assert!(steps.all.len() >= steps.filling + trace.operations);
        Ok(())
    }
}
