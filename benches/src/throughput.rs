//! Threads that work against one heap for a while: how many operations do they get done?

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::child::{Job, Reading};
use crate::client::{Client, Live, Tally};
use crate::heap::{BlockOf, Heap, Sectors, Setup};
use crate::workload::{Batch, Endurance, Larson, Load, Pair64, Workload};

/// Turns between two looks at the phase.
const TURNS_PER_LOOK: usize = 64;
/// Looks between two rotations, where blocks rotate.
const LOOKS_PER_ROTATION: usize = 16;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throughput {
    /// The workload.
    pub workload: Workload,
    /// Threads, each with its own blocks.
    pub threads: u32,
    /// Seconds of warm-up after every thread has done its first round of turns.
    pub warmup_s: f64,
    /// Seconds of counting.
    pub seconds: f64,
    /// Fill and check whole payloads instead of measuring.
    pub verify: bool,
}

impl Job for Throughput {
    /// Figures: `mops` (millions of allocations and frees per second), `allocs_refused`,
    /// `frees_refused` (warm-up included), and `corrupted` of a verifying run.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let heap = H::create(&Setup {
            id,
            segment_bytes: self.workload.segment_bytes(),
            request_bytes_max: self.workload.request_bytes_max(),
            sectors: Sectors::Usual,
            thread_caches: true,
        })?;
        let (tally, elapsed_s) = match (self.workload, self.verify) {
            (Workload::Endurance, false) => drive::<H, Endurance, false>(&heap, self),
            (Workload::Endurance, true) => drive::<H, Endurance, true>(&heap, self),
            (Workload::Pair64, false) => drive::<H, Pair64, false>(&heap, self),
            (Workload::Pair64, true) => drive::<H, Pair64, true>(&heap, self),
            (Workload::Batch, false) => drive::<H, Batch, false>(&heap, self),
            (Workload::Batch, true) => drive::<H, Batch, true>(&heap, self),
            (Workload::Larson, false) => drive::<H, Larson, false>(&heap, self),
            (Workload::Larson, true) => drive::<H, Larson, true>(&heap, self),
        }?;
        let mut reading = Reading::of_tally(&tally);
        reading.set("mops", (tally.allocs + tally.frees) as f64 / elapsed_s / 1e6);
        reading.faults.extend(heap.audit());
        Ok(reading)
    }
}

/// Where the run is: what the threads look at every `TURNS_PER_LOOK` turns.
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

/// Where threads leave what they hold, and find what another left: one place per thread.
struct Rotation<B>(Vec<Mutex<Vec<Live<B>>>>);

impl<B> Rotation<B> {
    fn new(threads: u32) -> Self {
        Self((0..threads).map(|_| Mutex::new(Vec::new())).collect())
    }

    /// Exchanges `held` for what lies at place `number`, modulo their count.
    fn exchange(&self, number: usize, held: &mut Vec<Live<B>>) {
        let place = &self.0[number % self.0.len()];
        std::mem::swap(held, &mut place.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn into_all(self) -> impl Iterator<Item = Live<B>> {
        self.0
            .into_iter()
            .flat_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all threads of a run share.
struct Stage<'h, H: Heap> {
    heap: &'h H,
    threads: u32,
    phase: Phase,
    barrier: Barrier,
    rotation: Rotation<BlockOf<'h, H>>,
}

/// Runs the threads and returns their sum and the seconds of counting.
fn drive<H: Heap, L: Load, const VERIFY: bool>(
    heap: &H,
    spec: &Throughput,
) -> Result<(Tally, f64)> {
    // Before the threads: what binds a thread to the heap fails here first, where nobody waits.
    let access = heap.enter()?;
    let stage = Stage {
        heap,
        threads: spec.threads,
        phase: Phase(AtomicU8::new(WARM_UP)),
        barrier: Barrier::new(spec.threads as usize + 1),
        rotation: Rotation::new(spec.threads),
    };
    let (mut sum, elapsed_s) = thread::scope(|scope| {
        let stage = &stage;
        let threads: Vec<_> = (0..spec.threads)
            .map(|thread| scope.spawn(move || work::<H, L, VERIFY>(stage, thread)))
            .collect();
        stage.barrier.wait(); // all threads exist
        stage.barrier.wait(); // all threads hold their blocks
        thread::sleep(Duration::from_secs_f64(spec.warmup_s));
        let start = Instant::now();
        stage.phase.set(COUNT);
        thread::sleep(Duration::from_secs_f64(spec.seconds));
        stage.phase.set(STOP);
        let elapsed_s = start.elapsed().as_secs_f64();
        let mut sum = Tally::default();
        for thread in threads {
            // An explicit join also waits for the thread's destructors, which flush its cache; the
            // end of the scope alone does not.
            sum.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        (sum, elapsed_s)
    });
    let mut last = Client::<_, VERIFY>::new(access, spec.threads, spec.threads + 1);
    last.live.extend(stage.rotation.into_all());
    last.drain();
    sum.add(&Tally { frees: 0, ..last.tally });
    Ok((sum, elapsed_s))
}

/// One thread: warm up, count, free what is left.
fn work<'h, H: Heap, L: Load, const VERIFY: bool>(stage: &Stage<'h, H>, thread: u32) -> Tally {
    let mut load = L::new(thread);
    stage.barrier.wait();
    let access = stage.heap.enter().expect("a thread cannot enter the heap");
    let mut client = Client::<_, VERIFY>::new(access, thread, stage.threads);
    for _ in 0..L::WARM_UP_TURNS {
        load.step(&mut client);
    }
    stage.barrier.wait();
    let mut looks = thread as usize;
    let mut turns = |phase_now: u8, client: &mut Client<H::Access<'h>, VERIFY>| {
        while stage.phase.get() == phase_now {
            for _ in 0..TURNS_PER_LOOK {
                load.step(client);
            }
            looks += 1;
            if L::ROTATES && looks.is_multiple_of(LOOKS_PER_ROTATION) {
                stage.rotation.exchange(looks / LOOKS_PER_ROTATION, &mut client.live);
            }
        }
    };
    turns(WARM_UP, &mut client);
    let before = client.tally;
    turns(COUNT, &mut client);
    let counted = client.tally;
    client.drain();
    Tally {
        allocs: counted.allocs - before.allocs,
        frees: counted.frees - before.frees,
        ..client.tally
    }
}
