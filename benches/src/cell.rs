//! One cell of the benchmark: one peer, one workload, one number of threads, in one process.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::heap::Heap;
use crate::peers::Peer;
use crate::workload::{Batch, Client, Endurance, Load, Pair64, Tally, Workload};

/// Turns between two looks at the phase.
const TURNS_PER_LOOK: usize = 64;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellSpec {
    /// The allocator.
    pub peer: Peer,
    /// The workload.
    pub workload: Workload,
    /// Threads, each with its own blocks.
    pub threads: u32,
    /// Size of the segment or arena, in bytes.
    pub segment_bytes: usize,
    /// Seconds of warm-up after every thread has done its first round of turns.
    pub warmup_s: f64,
    /// Seconds of counting.
    pub seconds: f64,
    /// Fill and check whole payloads instead of measuring.
    pub verify: bool,
    /// Names the segment.
    pub id: Uuid,
}

/// What a cell found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Real, successful allocations and frees, and the failures apart; failures include the warm-up.
    #[serde(flatten)]
    pub tally: Tally,
    /// Seconds between the start and the end of counting.
    pub elapsed_s: f64,
    /// What the peer's own check said after everything was freed.
    pub audit: Vec<String>,
}

impl Sample {
    /// Returns millions of operations per second; an allocation is one, a free is one.
    pub fn mops(&self) -> f64 {
        (self.tally.allocs + self.tally.frees) as f64 / self.elapsed_s / 1e6
    }
}

/// Runs `spec` on a heap of type `H`.
///
/// # Errors
/// When the heap cannot be created.
pub fn run<H: Heap + Sync>(spec: &CellSpec) -> Result<Sample> {
    let heap = H::create(spec.id, spec.segment_bytes)?;
    let (tally, elapsed_s) = match (spec.workload, spec.verify) {
        (Workload::Endurance, false) => drive::<H, Endurance, false>(&heap, spec),
        (Workload::Endurance, true) => drive::<H, Endurance, true>(&heap, spec),
        (Workload::Pair64, false) => drive::<H, Pair64, false>(&heap, spec),
        (Workload::Pair64, true) => drive::<H, Pair64, true>(&heap, spec),
        (Workload::Batch, false) => drive::<H, Batch, false>(&heap, spec),
        (Workload::Batch, true) => drive::<H, Batch, true>(&heap, spec),
    };
    Ok(Sample { tally, elapsed_s, audit: heap.audit() })
}

/// Where the cell is: what the threads look at every `TURNS_PER_LOOK` turns.
struct Phase(AtomicU8);

const WARM_UP: u8 = 0;
const COUNT: u8 = 1;
const STOP: u8 = 2;

impl Phase {
    fn set(&self, phase: u8) {
        // Relaxed: a signal, publishes nothing.
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        // Relaxed: as in `set`.
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs the threads and returns their sum and the seconds of counting.
fn drive<H: Heap + Sync, L: Load, const VERIFY: bool>(heap: &H, spec: &CellSpec) -> (Tally, f64) {
    let phase = Phase(AtomicU8::new(WARM_UP));
    let barrier = Barrier::new(spec.threads as usize + 1);
    thread::scope(|scope| {
        let (phase, barrier) = (&phase, &barrier);
        let threads: Vec<_> = (0..spec.threads)
            .map(|thread| {
                scope
                    .spawn(move || work::<H, L, VERIFY>(heap, thread, spec.threads, phase, barrier))
            })
            .collect();
        barrier.wait(); // all threads exist
        barrier.wait(); // all threads hold their blocks
        thread::sleep(Duration::from_secs_f64(spec.warmup_s));
        let start = Instant::now();
        phase.set(COUNT);
        thread::sleep(Duration::from_secs_f64(spec.seconds));
        phase.set(STOP);
        let elapsed_s = start.elapsed().as_secs_f64();
        let mut sum = Tally::default();
        for thread in threads {
            // An explicit join also waits for the thread's destructors, which flush its cache; the
            // end of the scope alone does not.
            sum.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        (sum, elapsed_s)
    })
}

/// One thread: warm up, count, free what is left.
fn work<H: Heap, L: Load, const VERIFY: bool>(
    heap: &H,
    thread: u32,
    threads: u32,
    phase: &Phase,
    barrier: &Barrier,
) -> Tally {
    let mut load = L::new(thread);
    let mut client = Client::<H, VERIFY>::new(heap, thread, threads);
    barrier.wait();
    for _ in 0..L::WARM_UP_TURNS {
        load.step(&mut client);
    }
    barrier.wait();
    let turns = |phase_now: u8, load: &mut L, client: &mut Client<'_, H, VERIFY>| {
        while phase.get() == phase_now {
            for _ in 0..TURNS_PER_LOOK {
                load.step(client);
            }
        }
    };
    turns(WARM_UP, &mut load, &mut client);
    let before = client.tally;
    turns(COUNT, &mut load, &mut client);
    let counted = client.tally;
    client.drain();
    Tally {
        allocs: counted.allocs - before.allocs,
        frees: counted.frees - before.frees,
        ..client.tally
    }
}
