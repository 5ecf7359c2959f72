//! A magazine: parked blocks of one length.

use alloc::vec::Vec;

/// Most blocks that one refill carves.
const BATCH_MAX: u32 = 64;

/// Room for heads that a magazine begins with; it doubles from there.
const ROOM_FIRST: usize = 16;

/// Heads of parked blocks of one exact length, newest last.
#[derive(Debug, Default)]
pub(crate) struct Magazine {
    heads: Vec<u32>,
    /// Blocks that the next refill asks for, as a power of two.
    batch_log: u8,
}

impl Magazine {
    #[inline(always)]
    pub fn pop(&mut self) -> Option<u32> {
        self.heads.pop()
    }

    /// Room for one more head, if there is some: it is not made here.
    #[inline(always)]
    pub fn room(&mut self) -> Option<Room<'_>> {
        let has_room = self.heads.len() < self.heads.capacity();
        has_room.then_some(Room(&mut self.heads))
    }

    /// Puts a head, and makes room for it first.
    pub fn push(&mut self, head: u32) {
        if self.heads.capacity() == 0 {
            self.heads.reserve(ROOM_FIRST);
        }
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

    /// The next refill asks for one block, as the first did.
    pub fn ask_for_one(&mut self) {
        self.batch_log = 0;
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

/// A free place in a magazine.
pub(crate) struct Room<'m>(&'m mut Vec<u32>);

impl Room<'_> {
    #[inline(always)]
    pub fn fill(self, head: u32) {
        self.0.push(head);
    }
}
