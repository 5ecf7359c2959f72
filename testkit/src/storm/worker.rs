//! What every process of a storm does: the endurance mix, with guards, in every way there is.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use am_matrix::{Block, Error, Matrix};
use anyhow::{Context, Result};
use fastrand::Rng;

use crate::pattern;
use crate::product;

/// A worker frees a block rather than hold more than this many.
const LIVE_MAX: usize = 200;
/// Blocks of one batch, at most.
const BATCH_MAX: usize = 16;

/// What one process did; in shared memory, so that it outlives the process.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Tally {
    /// Calls that did what they should.
    pub operations: AtomicU64,
    /// Allocations refused as exhausted or contended: with so many processes some are.
    pub refused: AtomicU64,
    /// Blocks whose payload was not what their owner wrote.
    pub corrupted: AtomicU64,
    /// Blocks that this process recovered.
    pub recovered: AtomicU64,
    /// Recoveries that had to leave something to a later one.
    pub deferred: AtomicU64,
    /// Recoveries that did nothing because another process recovered.
    pub busy: AtomicU64,
    /// Times that this process could not become a participant.
    pub turned_away: AtomicU64,
}

impl Tally {
    /// Recovers what the dead left, and counts it.
    pub fn recover(&self, matrix: &Matrix) {
        let recovered = product::recover(matrix);
        self.recovered.fetch_add(recovered.blocks, Relaxed);
        self.deferred.fetch_add(u64::from(recovered.deferred > 0), Relaxed);
        self.busy.fetch_add(u64::from(recovered.busy), Relaxed);
    }
}

/// One thread's work.
pub struct Worker<'m> {
    matrix: &'m Matrix,
    tally: &'m Tally,
    rng: Rng,
    /// Names the worker in its blocks' patterns.
    number: u32,
    sequence: u64,
    verify: bool,
    live: Vec<Live<'m>>,
}

/// A block that its worker has yet to free.
struct Live<'m> {
    block: Block<'m>,
    key: u64,
}

impl<'m> Worker<'m> {
    /// Makes a worker; no two of a storm have the same `number` (below 2²⁴).
    #[must_use]
    pub fn new(matrix: &'m Matrix, tally: &'m Tally, seed: u64, number: u32, verify: bool) -> Self {
        let live = Vec::with_capacity(LIVE_MAX + BATCH_MAX);
        Self { matrix, tally, rng: Rng::with_seed(seed), number, sequence: 0, verify, live }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// A call failed that may not.
    pub fn step(&mut self) -> Result<()> {
        match self.rng.u32(..1000) {
            0..20 => self.give_and_take(),
            20..40 => self.shrink(),
            40..60 => self.grow(),
            60..70 => self.allocate_batch(),
            70..80 => self.free_batch(),
            80..100 => self.allocate_and_ack(),
            100..102 => self.trim(),
            102..700 if self.live.len() < LIVE_MAX => self.allocate(),
            _ => self.free(),
        }
    }

    /// Returns how many blocks the worker has.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Frees everything, and checks it first.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn drain(&mut self) -> Result<()> {
        while !self.live.is_empty() {
            self.free()?;
        }
        Ok(())
    }

    /// Mostly the sizes of the endurance run; some of every sector.
    fn size(&mut self) -> usize {
        match self.rng.u32(..1000) {
            0..5 => self.rng.usize(128 << 10..256 << 10),
            5..20 => self.rng.usize(4 << 10..32 << 10),
            20..50 => self.rng.usize(544..4096),
            _ => self.rng.usize(32..544),
        }
    }

    fn allocate(&mut self) -> Result<()> {
        let size = self.size();
        match self.matrix.allocate(size) {
            Ok(block) => self.keep(block),
            Err(error) => return self.refused(error).context("allocate"),
        }
        Ok(())
    }

    fn allocate_batch(&mut self) -> Result<()> {
        let (count, size) = (self.rng.usize(2..BATCH_MAX), self.rng.usize(32..544));
        match self.matrix.allocate_many(count, size) {
            Ok(blocks) => blocks.into_iter().for_each(|block| self.keep(block)),
            Err(error) => return self.refused(error).context("allocate_many"),
        }
        Ok(())
    }

    fn free(&mut self) -> Result<()> {
        let Some(live) = self.pick() else { return Ok(()) };
        self.look(&live);
        live.block.free().context("free")?;
        self.done();
        Ok(())
    }

    fn free_batch(&mut self) -> Result<()> {
        let count = self.rng.usize(..BATCH_MAX).min(self.live.len());
        let batch: Vec<_> = self.live.drain(self.live.len() - count..).collect();
        for live in &batch {
            self.look(live);
        }
        self.matrix.free_many(batch.into_iter().map(|live| live.block));
        self.done();
        Ok(())
    }

    /// Gives a block away, and takes it back at once. Between the two it is nobody's.
    fn give_and_take(&mut self) -> Result<()> {
        let Some(Live { block, key }) = self.pick() else { return Ok(()) };
        let (len, offset) = (block.len(), block.into_offset());
        let block = self.matrix.from_offset(offset).context("from_offset")?;
        anyhow::ensure!(block.len() == len, "{offset} had {len} bytes, and now {}", block.len());
        self.done();
        self.live.push(Live { block, key });
        Ok(())
    }

    /// Allocates a block by its offset, and acks it. Between the two it is nobody's.
    fn allocate_and_ack(&mut self) -> Result<()> {
        let size = self.size();
        let offset = match self.matrix.allocate_offset(size) {
            Ok(offset) => offset,
            Err(error) => return self.refused(error).context("allocate_offset"),
        };
        if self.rng.bool() {
            self.matrix.ack(offset).context("ack")?;
        } else {
            // SAFETY: nobody else knows the offset.
            unsafe { self.matrix.ack_unshared(offset) }.context("ack_unshared")?;
        }
        self.done();
        Ok(())
    }

    fn trim(&mut self) -> Result<()> {
        self.matrix.trim().context("trim")?;
        self.done();
        Ok(())
    }

    fn shrink(&mut self) -> Result<()> {
        let Some(mut live) = self.pick() else { return Ok(()) };
        let len = self.rng.usize(1..=live.block.len());
        live.block.shrink(len).context("shrink")?;
        self.done();
        self.live.push(live);
        Ok(())
    }

    fn grow(&mut self) -> Result<()> {
        let Some(mut live) = self.pick() else { return Ok(()) };
        let len = live.block.len() + self.rng.usize(1..256);
        self.look(&live);
        match live.block.try_grow(len) {
            Ok(()) => {
                if self.verify {
                    pattern::fill(&mut live.block, live.key);
                }
                self.done();
            }
            Err(Error::NoRoom { .. }) => {}
            Err(error) => return Err(error).context("try_grow"),
        }
        self.live.push(live);
        Ok(())
    }

    fn keep(&mut self, mut block: Block<'m>) {
        self.sequence += 1;
        let key = pattern::key(self.number, self.sequence);
        if self.verify {
            pattern::fill(&mut block, key);
        }
        self.live.push(Live { block, key });
        self.done();
    }

    fn pick(&mut self) -> Option<Live<'m>> {
        if self.live.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.live.len());
        Some(self.live.swap_remove(at))
    }

    fn look(&self, live: &Live<'_>) {
        if self.verify && !pattern::holds(&live.block, live.key) {
            self.tally.corrupted.fetch_add(1, Relaxed);
            eprintln!("worker {}: {:?} was overwritten", self.number, live.block);
        }
    }

    fn done(&self) {
        self.tally.operations.fetch_add(1, Relaxed);
    }

    fn refused(&self, error: Error) -> Result<()> {
        match error {
            Error::Exhausted { .. } | Error::Contended { .. } => {
                self.tally.refused.fetch_add(1, Relaxed);
                Ok(())
            }
            other => Err(other.into()),
        }
    }
}
