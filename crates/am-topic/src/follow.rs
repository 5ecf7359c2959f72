//! Readers that follow others: a message comes to them when those let it go.

use crate::layout::{READERS, Topic};

/// Readers that one reader can follow.
pub const LEADERS_MAX: usize = if cfg!(loom) { 1 } else { 8 };

/// A reader, as others follow it: its seat, and how many had that seat before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReaderId {
    pub(crate) seat: usize,
    pub(crate) turn: u64,
}

impl ReaderId {
    /// Makes it of what [`to_raw`](Self::to_raw) returned, in whichever process.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self { seat: (raw & 0xff) as usize, turn: raw >> 8 }
    }

    /// Returns it as a number to hand to others.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        self.turn << 8 | self.seat as u64
    }
}

/// Why a reader cannot follow another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLeader {
    /// The other one left, or never was.
    #[error("the reader that is to be followed is not there")]
    Gone,
    /// It follows as many as it can.
    #[error("a reader can follow {LEADERS_MAX} others")]
    TooMany,
}

/// Those that a reader follows.
#[derive(Debug)]
pub(crate) struct Leaders<'a> {
    topic: Topic<'a>,
    ids: [Option<ReaderId>; LEADERS_MAX],
    /// All of them have let go what lies below.
    limit: u64,
}

impl<'a> Leaders<'a> {
    /// Follows nobody.
    pub fn none(topic: Topic<'a>) -> Self {
        Self { topic, ids: [None; LEADERS_MAX], limit: u64::MAX }
    }

    /// Follows one more.
    pub fn add(&mut self, id: ReaderId) -> Result<(), NoLeader> {
        let cursor = self.topic.cursor_of(id).ok_or(NoLeader::Gone)?;
        let free = self.ids.iter_mut().find(|seen| seen.is_none()).ok_or(NoLeader::TooMany)?;
        *free = Some(id);
        self.limit = self.limit.min(cursor);
        Ok(())
    }

    /// Tells whether all let go of this number, without looking twice for what is known.
    #[inline]
    pub fn let_go(&mut self, number: u64) -> bool {
        if number >= self.limit {
            self.limit = self.look();
        }
        number < self.limit
    }

    /// As [`let_go`](Self::let_go), and remembers nothing.
    #[inline]
    pub fn have_let_go(&self, number: u64) -> bool {
        number < self.limit || number < self.look()
    }

    /// Tells whether all of them are there still; who is gone stays gone.
    pub fn are_there(&self) -> bool {
        self.ids.iter().flatten().all(|&id| self.topic.cursor_of(id).is_some())
    }

    /// The lowest cursor of those who are there; who left keeps nobody.
    #[cold]
    fn look(&self) -> u64 {
        let cursors = self.ids.iter().flatten().filter_map(|&id| self.topic.cursor_of(id));
        cursors.fold(u64::MAX, u64::min)
    }
}

impl Topic<'_> {
    /// Tells whether that reader is there still: it may leave at any time, but whoever has its seat next is another.
    #[must_use]
    pub fn has_reader(&self, id: ReaderId) -> bool {
        self.cursor_of(id).is_some()
    }

    /// The cursor of that reader; `None` when it is gone.
    fn cursor_of(&self, id: ReaderId) -> Option<u64> {
        if id.seat >= READERS {
            return None;
        }
        let seat = self.seat(id.seat);
        // Acquire (M7): the leader's looks come before ours; and a cursor of the next one in this seat comes with its
        // owner and its turn.
        let cursor = seat.cursor().load();
        let is_there = seat.owner().load() & 1 == 1 && seat.turn().load() == id.turn;
        is_there.then_some(cursor)
    }
}
