//! How those who take part in a measurement know of each other, in memory that all of them map.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use super::medium::{ENDS_MAX, Wrong};
use crate::ipc;

/// Keeps what one writes from the lines of the others.
#[repr(C, align(128))]
struct Line(AtomicU64);

/// All zero, nobody is there.
#[repr(C)]
pub struct Control {
    /// [`WAIT`], then [`GO`], then [`STOP`].
    phase: Line,
    /// How many have their ends.
    ready: Line,
    /// How many posters have sent their last, and readers read it.
    posters_done: Line,
    readers_done: Line,
    /// Messages of every poster; valid when it is done.
    sent: [Line; ENDS_MAX],
    /// Messages of every reader so far.
    received: [Line; ENDS_MAX],
    /// What all readers found wrong: lost, repeated, corrupted.
    wrong: [Line; 3],
}

const WAIT: u64 = 0;
const GO: u64 = 1;
const STOP: u64 = 2;

impl Control {
    /// Maps a fresh one, which forked processes share.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn map() -> Result<&'static Self> {
        let start = ipc::map_shared(size_of::<Self>())?;
        // SAFETY: zeroed, page-aligned, long enough, never unmapped; all of it is atomics.
        Ok(unsafe { start.cast::<Self>().as_ref() })
    }

    /// Says that one more has its end.
    pub fn ready(&self) {
        // Relaxed, as all that has no reason beside it: a signal, publishes nothing.
        self.ready.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many have their ends.
    pub fn are_ready(&self) -> u64 {
        self.ready.0.load(Ordering::Relaxed)
    }

    /// Lets the posters begin.
    pub fn go(&self) {
        self.phase.0.store(GO, Ordering::Relaxed);
    }

    /// Makes the posters end.
    pub fn stop(&self) {
        self.phase.0.store(STOP, Ordering::Relaxed);
    }

    /// Tells whether the posters are to wait still.
    pub fn waits(&self) -> bool {
        self.phase.0.load(Ordering::Relaxed) == WAIT
    }

    /// Tells whether the posters are to end.
    pub fn is_over(&self) -> bool {
        self.phase.0.load(Ordering::Relaxed) == STOP
    }

    /// Says how many messages a poster sent in all.
    pub fn poster_is_done(&self, poster: usize, sent: u64) {
        self.sent[poster].0.store(sent, Ordering::Relaxed);
        // Release: publishes the count; pairs with the Acquire in `sent`.
        self.posters_done.0.fetch_add(1, Ordering::Release);
    }

    /// Returns how many messages all posters sent, when all of them are done.
    pub fn sent(&self, posters: usize) -> Option<u64> {
        // Acquire: pairs with the Release in `poster_is_done`.
        let all = self.posters_done.0.load(Ordering::Acquire) == posters as u64;
        all.then(|| self.sent.iter().map(|line| line.0.load(Ordering::Relaxed)).sum())
    }

    /// Says how many messages a reader got so far.
    #[inline(always)]
    pub fn received(&self, reader: usize, count: u64) {
        self.received[reader].0.store(count, Ordering::Relaxed);
    }

    /// Returns how many messages all readers got so far.
    pub fn all_received(&self) -> u64 {
        self.received.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }

    /// Tells whether every reader got a message.
    pub fn all_have_begun(&self, readers: usize) -> bool {
        self.received[..readers].iter().all(|line| line.0.load(Ordering::Relaxed) > 0)
    }

    /// Says that a reader is done, and what it found wrong.
    pub fn reader_is_done(&self, wrong: Wrong) {
        let counts = [wrong.lost, wrong.repeated, wrong.corrupted];
        for (line, count) in self.wrong.iter().zip(counts) {
            line.0.fetch_add(count, Ordering::Relaxed);
        }
        // Release: publishes the counts; whoever reads them waits for the reader's end beside.
        self.readers_done.0.fetch_add(1, Ordering::Release);
    }

    /// Tells whether all readers are done.
    pub fn all_read(&self, readers: usize) -> bool {
        // Acquire: pairs with the Release in `reader_is_done`.
        self.readers_done.0.load(Ordering::Acquire) == readers as u64
    }

    /// Returns what all readers found wrong.
    pub fn wrong(&self) -> Wrong {
        let [lost, repeated, corrupted] =
            [0, 1, 2].map(|n: usize| self.wrong[n].0.load(Ordering::Relaxed));
        Wrong { lost, repeated, corrupted }
    }
}
