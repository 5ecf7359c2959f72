//! The workload: what one thread does, and the threads of one process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use atomic_matrix::matrix::core::{BlockHeader, MatrixHandler, RelativePtr};

use crate::Cli;

/// A thread frees a block rather than hold more than this many.
const LIVE_MAX: usize = 200;
/// Bytes of the header in front of every payload.
const HEADER_BYTES: u64 = 32;

/// A block that its thread has yet to free.
struct Live {
    payload: RelativePtr<u8>,
    len_bytes: usize,
    sequence: u64,
}

/// What happened, summed over threads and processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Allocations and frees that succeeded.
    pub operations: u64,
    /// Calls that returned an error.
    pub failed: u64,
    /// Blocks whose payload was not what their owner wrote.
    pub corrupted: u64,
    /// The longest timed part of a thread.
    pub seconds: f64,
}

impl Counts {
    /// Adds what happened beside it.
    pub fn add(&mut self, other: Counts) {
        self.operations += other.operations;
        self.failed += other.failed;
        self.corrupted += other.corrupted;
        self.seconds = self.seconds.max(other.seconds);
    }

    /// One line of `name=value` pairs.
    pub fn to_line(self) -> String {
        let Counts { operations, failed, corrupted, seconds } = self;
        format!("operations={operations} failed={failed} corrupted={corrupted} seconds={seconds}")
    }

    /// Reads [`Counts::to_line`] back.
    pub fn from_line(line: &str) -> Result<Self> {
        let mut counts = Counts::default();
        for pair in line.split(' ') {
            let (name, value) = pair.split_once('=').context("no name=value pair")?;
            match name {
                "operations" => counts.operations = value.parse()?,
                "failed" => counts.failed = value.parse()?,
                "corrupted" => counts.corrupted = value.parse()?,
                "seconds" => counts.seconds = value.parse()?,
                _ => bail!("unknown count {name:?}"),
            }
        }
        Ok(counts)
    }
}

/// One thread of the workload.
struct Worker<'m> {
    handler: &'m MatrixHandler,
    base: *const u8,
    /// The thread's number over all processes.
    number: u32,
    verify: bool,
    rng: u32,
    live: Vec<Live>,
    sequence: u64,
    counts: Counts,
}

impl<'m> Worker<'m> {
    fn new(handler: &'m MatrixHandler, number: u32, cli: &Cli) -> Self {
        Self {
            handler,
            base: handler.mmap.as_ptr(),
            number,
            verify: cli.verify,
            rng: number.wrapping_add(1).wrapping_add(cli.seed),
            live: Vec::with_capacity(LIVE_MAX),
            sequence: 0,
            counts: Counts::default(),
        }
    }

    /// The timed part: steps until told to stop.
    fn run(&mut self, stop: &AtomicBool) {
        let begin = Instant::now();
        // Relaxed: the flag carries no data.
        while !stop.load(Ordering::Relaxed) {
            self.step();
        }
        self.counts.seconds = begin.elapsed().as_secs_f64();
    }

    fn step(&mut self) {
        self.rng = self.rng.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        if self.rng % 10 < 7 && self.live.len() < LIVE_MAX {
            self.allocate((self.rng % 512 + 32) as usize);
        } else if !self.live.is_empty() {
            self.free(self.rng as usize % self.live.len());
        }
    }

    fn allocate(&mut self, len_bytes: usize) {
        let Ok(payload) = self.handler.matrix.allocate(self.base, len_bytes) else {
            self.counts.failed += 1;
            return;
        };
        self.counts.operations += 1;
        self.sequence += 1;
        let block = Live { payload, len_bytes, sequence: self.sequence };
        if self.verify {
            let key = self.key(&block);
            fill(self.payload(&block), key);
        }
        self.live.push(block);
    }

    fn free(&mut self, index: usize) {
        let block = self.live.swap_remove(index);
        if self.verify {
            let key = self.key(&block);
            let intact = holds(self.payload(&block), key);
            self.counts.corrupted += u64::from(!intact);
        }
        let header = RelativePtr::<BlockHeader>::new(block.payload.offset() - HEADER_BYTES);
        match self.handler.matrix.ack(&header, self.base) {
            Ok(()) => self.counts.operations += 1,
            Err(_) => self.counts.failed += 1,
        }
    }

    /// Frees what is left, outside the timed part and not counted into its operations.
    fn drain(&mut self) {
        let timed = self.counts.operations;
        while !self.live.is_empty() {
            self.free(self.live.len() - 1);
        }
        self.counts.operations = timed;
    }

    fn payload(&mut self, block: &Live) -> &mut [u8] {
        // SAFETY: the allocator returned the offset, so it lies inside the mapping at `base`.
        let start = unsafe { self.base.cast_mut().add(block.payload.offset() as usize) };
        // SAFETY: the allocator gave these bytes to this thread alone until the ack, and the slice
        // is gone by then. Should it have given them twice, the check of the pattern says so.
        unsafe { std::slice::from_raw_parts_mut(start, block.len_bytes) }
    }

    /// Names the owner of a block: no two blocks of a run have the same key.
    fn key(&self, block: &Live) -> u64 {
        (u64::from(self.number) << 44 | block.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Eight bytes of the pattern of the block `key`.
fn pattern(key: u64, index: usize) -> [u8; 8] {
    key.rotate_left(index as u32).wrapping_add(index as u64).to_le_bytes()
}

fn fill(payload: &mut [u8], key: u64) {
    let (words, rest) = payload.as_chunks_mut::<8>();
    rest.copy_from_slice(&pattern(key, words.len())[..rest.len()]);
    for (index, word) in words.iter_mut().enumerate() {
        *word = pattern(key, index);
    }
}

fn holds(payload: &[u8], key: u64) -> bool {
    let (words, rest) = payload.as_chunks::<8>();
    *rest == pattern(key, words.len())[..rest.len()]
        && words.iter().enumerate().all(|(index, word)| *word == pattern(key, index))
}

/// Runs the threads of one process. `on_timed` is called between the timed part and the frees,
/// while every thread rests.
///
/// # Errors
/// A thread panicked, or `on_timed` failed.
pub fn run_threads(
    cli: &Cli,
    handler: &MatrixHandler,
    first_number: u32,
    wait: impl FnOnce(),
    on_timed: impl FnOnce() -> Result<()>,
) -> Result<Counts> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..cli.threads {
            let (timed, has_timed): (Sender<()>, Receiver<()>) = channel();
            let (release, released): (Sender<()>, Receiver<()>) = channel();
            let stop = &stop;
            let body = move || {
                let mut worker = Worker::new(handler, first_number + index, cli);
                worker.run(stop);
                // An error of either channel means that the other side gave up: free, and end.
                let _ = timed.send(());
                let _ = released.recv();
                worker.drain();
                worker.counts
            };
            threads.push((scope.spawn(body), has_timed, release));
        }
        wait();
        stop.store(true, Ordering::Relaxed);
        for (_, has_timed, _) in &threads {
            // An error: the thread panicked; the join below says so.
            let _ = has_timed.recv();
        }
        let looked = on_timed();
        let mut counts = Counts::default();
        let mut panics = 0;
        // The collect drops the senders, which releases all threads at once.
        let handles: Vec<_> = threads.into_iter().map(|(handle, _, _)| handle).collect();
        for handle in handles {
            match handle.join() {
                Ok(of_thread) => counts.add(of_thread),
                Err(_) => panics += 1,
            }
        }
        ensure!(panics == 0, "{panics} threads panicked");
        looked.map(|()| counts)
    })
}
