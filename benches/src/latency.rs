//! `latency`: how long single calls take, and the worst of them.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::value_parser;
use hdrhistogram::Histogram;
use quanta::Clock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Job, Reading, Task};
use crate::client::touch;
use crate::heap::{Access, Heap, Sectors, Setup};
use crate::peers::Peer;
use crate::random::Lcg;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, Row, Seen, Sheet};
use crate::stats::figure;
use crate::workload::{ENDURANCE_LIVE_MAX, ENDURANCE_SIZES, Workload};

/// What is reported of every distribution: name and quantile.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];
/// The two calls.
const CALLS: [&str; 2] = ["allocate", "free"];
/// Turns before anything is recorded.
const WARM_UP_TURNS: usize = 100 * ENDURANCE_LIVE_MAX;
/// Turns between two looks at the time.
const TURNS_PER_LOOK: usize = 256;
/// Longest call that is told from longer ones, in ticks of the clock: seconds.
pub const TICKS_MAX: u64 = 1 << 36;
/// Pairs of stamps that measure the clock itself.
const CLOCK_PAIRS: usize = 10_000;

/// Options of the measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Numbers of threads, 1 to 16
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = value_parser!(u32).range(1..=16))]
    threads: Vec<u32>,
}

impl Options {
    /// Returns the usual options.
    pub fn usual() -> Self {
        Self { threads: vec![1, 2] }
    }
}

/// The endurance workload with a time stamp before and after every call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    threads: u32,
    /// Seconds of recording.
    pub seconds: f64,
}

impl Job for Latency {
    /// Figures: `allocate p50` … `free max`, in nanoseconds, the clock included; `clock`, what two
    /// stamps cost; `allocs_refused`, `frees_refused`.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let heap = H::create(&Setup {
            id,
            segment_bytes: Workload::Endurance.segment_bytes(),
            request_bytes_max: Workload::Endurance.request_bytes_max(),
            sectors: Sectors::Usual,
            thread_caches: true,
        })?;
        let clock = Clock::new();
        let clock_ticks = stamp_cost(&clock)?;
        let mut all = Calls::new()?;
        let barrier = Barrier::new(self.threads as usize);
        let recorded: Vec<Result<Calls>> = thread::scope(|scope| {
            let work = |thread| {
                let (heap, clock, barrier) = (&heap, &clock, &barrier);
                move || work(heap, clock, barrier, thread, self.seconds)
            };
            let threads: Vec<_> = (0..self.threads).map(|n| scope.spawn(work(n))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        for calls in recorded {
            all.add(&calls?)?;
        }
        let mut reading = all.reading(&clock);
        reading.set("clock", clock.delta_as_nanos(0, clock_ticks) as f64);
        reading.faults.extend(heap.audit());
        Ok(reading)
    }
}

/// The two distributions of a thread, in ticks, and what was refused.
struct Calls {
    ticks: [Histogram<u64>; 2],
    refused: [u64; 2],
}

impl Calls {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, TICKS_MAX, 3);
        Ok(Self { ticks: [histogram()?, histogram()?], refused: [0; 2] })
    }

    #[inline]
    fn record(&mut self, call: usize, ticks: u64, succeeded: bool) {
        self.ticks[call].saturating_record(ticks);
        self.refused[call] += u64::from(!succeeded);
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        for call in 0..CALLS.len() {
            self.ticks[call].add(&other.ticks[call])?;
            self.refused[call] += other.refused[call];
        }
        Ok(())
    }

    fn reading(&self, clock: &Clock) -> Reading {
        let mut reading = Reading::default();
        for (number, call) in CALLS.iter().enumerate() {
            for (name, quantile) in QUANTILES {
                let ticks = self.ticks[number].value_at_quantile(quantile);
                reading.set(&format!("{call} {name}"), clock.delta_as_nanos(0, ticks) as f64);
            }
            if self.refused[number] > 0 {
                reading.faults.push(format!("{call} refused {} times", self.refused[number]));
            }
        }
        reading.set("allocs_refused", self.refused[0] as f64);
        reading.set("frees_refused", self.refused[1] as f64);
        reading
    }
}

/// Reads the clock; calls before it are over, and calls after it have not begun.
#[inline(always)]
pub fn stamp(clock: &Clock) -> u64 {
    fence();
    let ticks = clock.raw();
    fence();
    ticks
}

/// Keeps the processor from moving instructions across a time stamp.
#[inline(always)]
fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Returns the median of what two stamps in a row take, in ticks.
///
/// # Errors
/// When the histogram cannot be made.
pub fn stamp_cost(clock: &Clock) -> Result<u64> {
    let mut ticks = Histogram::<u64>::new_with_bounds(1, TICKS_MAX, 3)?;
    for _ in 0..CLOCK_PAIRS {
        let start = stamp(clock);
        ticks.saturating_record(stamp(clock).saturating_sub(start));
    }
    Ok(ticks.value_at_quantile(0.5))
}

/// One thread of the endurance workload, each call on the clock.
fn work<H: Heap>(
    heap: &H,
    clock: &Clock,
    barrier: &Barrier,
    thread: u32,
    seconds: f64,
) -> Result<Calls> {
    let access = heap.enter()?;
    let mut random = Lcg::new(thread + 1);
    let mut live = Vec::with_capacity(ENDURANCE_LIVE_MAX);
    let mut turn = |calls: &mut Calls| {
        let rng = random.next();
        if rng % 10 < 7 && live.len() < ENDURANCE_LIVE_MAX {
            let bytes = ENDURANCE_SIZES.start + rng as usize % ENDURANCE_SIZES.len();
            let start = stamp(clock);
            let block = access.alloc(bytes);
            calls.record(0, stamp(clock).saturating_sub(start), block.is_some());
            let Some(mut block) = block else { return };
            // SAFETY: the block is this thread's, and longer than 8 bytes.
            unsafe { touch(access.payload(&mut block), rng) };
            live.push((block, bytes));
        } else if !live.is_empty() {
            let (block, bytes) = live.swap_remove(rng as usize % live.len());
            let start = stamp(clock);
            // SAFETY: the block came from this heap with this size, and nobody else has it.
            let freed = unsafe { access.free(block, bytes) };
            calls.record(1, stamp(clock).saturating_sub(start), freed);
        }
    };
    let mut unrecorded = Calls::new()?;
    for _ in 0..WARM_UP_TURNS {
        turn(&mut unrecorded);
    }
    barrier.wait();
    let mut calls = Calls::new()?;
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
    while start.elapsed() < limit {
        for _ in 0..TURNS_PER_LOOK {
            turn(&mut calls);
        }
    }
    for (block, bytes) in live {
        // SAFETY: as above.
        calls.refused[1] += u64::from(!unsafe { access.free(block, bytes) });
    }
    Ok(calls)
}

/// Returns why `peer` does not take part, if it does not.
fn excludes(peer: Peer) -> Option<&'static str> {
    match peer {
        Peer::Slots => Some("no allocator"),
        other => other.excluded_from_sizes(),
    }
}

/// Measures the peers.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common, options: &Options) -> Result<Verdict> {
    let mut cells = Vec::new();
    for &threads in &options.threads {
        let peers = common.chosen(&Peer::ALL);
        for peer in peers.into_iter().filter(|peer| excludes(*peer).is_none()) {
            let task = Task::Latency(Latency { threads, seconds: common.seconds() });
            cells.push(Cell::new(format!("{threads} threads"), peer, task));
        }
    }
    let mut notes = vec![
        "Latency of single calls in the endurance workload. Every call stands between two fenced \
         time stamps, whose own cost is in every figure (see the titles). On a machine with other \
         work the worst calls are those that the kernel interrupted."
            .to_owned(),
    ];
    notes.extend(common.left_out(excludes));
    run::run("latency", common, cells, notes, |seen| {
        let sheet = |&threads: &u32| CALLS.map(|call| sheet(call, threads, seen));
        options.threads.iter().flat_map(sheet).collect()
    })
}

fn sheet(call: &str, threads: u32, seen: &[Seen<'_>]) -> Sheet {
    let place = format!("{threads} threads");
    let here: Vec<&Seen<'_>> = seen.iter().filter(|seen| seen.cell.group == place).collect();
    let row = |name: &str, seen: &Seen<'_>| Row {
        group: name.to_owned(),
        ..seen.row(&format!("{call} {name}"), Vec::new())
    };
    let clock = here.iter().find_map(|seen| seen.spread("clock")).map(|clock| clock.median);
    let clock = clock.map_or_else(|| "unknown".to_owned(), figure);
    Sheet {
        title: format!("Latency of {call}, threads: {threads}; the two stamps alone: {clock} ns"),
        axis: "quantile".to_owned(),
        unit: "ns".to_owned(),
        more_is_better: false,
        chart: Chart::Lines,
        columns: Vec::new(),
        rows: QUANTILES
            .iter()
            .flat_map(|(name, _)| here.iter().map(|seen| row(name, seen)))
            .collect(),
    }
}
