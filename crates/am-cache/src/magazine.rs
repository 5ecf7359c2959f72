//! A magazine: parked blocks of one length.

use alloc::vec::Vec;

/// Most blocks that one refill carves.
const BATCH_MAX: u32 = 64;

/// Heads of parked blocks of one exact length, newest last.
#[derive(Debug, Default)]
pub(crate) struct Magazine {
    heads: Vec<u32>,
    /// Blocks that the next refill asks for, as a power of two.
    batch_log: u8,
}

impl Magazine {
    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        self.heads.pop()
    }

    #[inline]
    pub fn push(&mut self, head: u32) {
        self.heads.push(head);
    }

    pub fn len(&self) -> u32 {
        self.heads.len() as u32
    }

    /// How many blocks a refill asks for now; twice as many the next time.
    pub fn next_batch(&mut self) -> u32 {
        let batch = 1 << self.batch_log;
        if batch < BATCH_MAX {
            self.batch_log += 1;
        }
        batch
    }

    /// A refill found no run that long: the next one asks for less.
    pub fn refill_fell_short(&mut self) {
        self.batch_log = self.batch_log.saturating_sub(2);
    }

    /// Blocks left over: the next refill asks for less.
    pub fn was_too_full(&mut self) {
        self.batch_log = self.batch_log.saturating_sub(1);
    }

    /// Moves the `count` oldest heads to `into`.
    pub fn take_oldest(&mut self, count: u32, into: &mut Vec<u32>) {
        let count = (count as usize).min(self.heads.len());
        into.extend(self.heads.drain(..count));
    }
}
