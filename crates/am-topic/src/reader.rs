//! A reader: a cursor, and what it promises the posters.

use crate::layout::{Flow, READERS, Seat, Topic};
use crate::slot::{ABORTED, Entry, PUBLISHED, Seq, parts, state};
use am_layout::mutation::{self, Mutation};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that is there.
    Earliest,
    /// With the first that is posted after it joined.
    Latest,
    /// With this message, or the oldest that is there if it is gone.
    At(Seq),
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A message, which stays as it is until it is [let go](Reader::done).
    Message(Held),
    /// Nothing yet.
    Nothing,
}

/// A message that a reader looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub seq: Seq,
    /// What its slot says, an allegation: check it before use.
    pub entry: Entry,
}

/// One reader of a topic; one thread's at a time.
#[derive(Debug)]
pub struct Reader<'a> {
    topic: Topic<'a>,
    seat: Seat<'a>,
    /// As a slot's number.
    cursor: u64,
    missed: u64,
    /// A message is held; the cursor stands at it.
    holds: bool,
}

impl<'a> Topic<'a> {
    /// Joins as a reader, for an owner as headers name it (not 0); `None` when there are too many.
    ///
    /// Lock-free.
    #[must_use]
    pub fn reader(&self, owner: u32, start: Start) -> Option<Reader<'a>> {
        let owner = u64::from(owner) << 1;
        let seat = (0..READERS).map(|number| self.seat(number)).find(|seat| {
            seat.owner().load_relaxed() == 0 && seat.owner().cas_full(0, owner).is_ok()
        })?;
        seat.hold().store(0);
        seat.cursor().store(self.oldest(self.load_tail().next));
        // Release: with its cursor. From here on the cursor counts for whoever looks.
        seat.owner().store(owner | 1);
        if !mutation::is(Mutation::JoinForgetsToTell) {
            self.joined();
        }
        // After the barrier (M3): whoever claims more than the one batch that `oldest` allows for knows of
        // this reader.
        let next = self.load_tail().next;
        let oldest = self.oldest(next);
        let cursor = match start {
            Start::Earliest => oldest,
            Start::Latest => next,
            Start::At(seq) => seq.slot_number(self.shape()).clamp(oldest, next),
        };
        seat.cursor().store(cursor);
        Some(Reader { topic: *self, seat, cursor, missed: 0, holds: false })
    }

    /// Says that somebody joined. Full barrier.
    fn joined(&self) {
        // Bounded: a lost exchange means that another one joined.
        let mut seen = self.joins().load();
        for _ in 0..=READERS {
            match self.joins().cas_full(seen, seen.wrapping_add(1)) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
        self.joins().swap_full(seen.wrapping_add(1));
    }
}

impl<'a> Reader<'a> {
    /// Returns the number of the message that comes next.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        Seq::from_slot_number(self.cursor, self.topic.shape())
    }

    /// Returns how many messages this reader will never see: overrun before it came to them, or claimed by a
    /// poster that did not finish them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Looks for the next message, and holds it if there is one. Call [`done`](Self::done) before the
    /// next one.
    ///
    /// Wait-free, bounded by the number of slots.
    pub fn next(&mut self) -> Next {
        // Every turn goes on by a message or more.
        for _ in 0..=self.topic.shape().slots() {
            match self.look_at(self.cursor) {
                Look::Message(entry) => {
                    if self.hold(&entry) {
                        return Next::Message(Held { seq: self.cursor(), entry });
                    }
                }
                Look::Nothing => return Next::Nothing,
                Look::Aborted => self.skip_to(self.cursor + 1),
                Look::Overrun => self.skip_to(self.topic.oldest(self.topic.load_tail().next)),
            }
        }
        Next::Nothing
    }

    /// Makes sure that the message under the cursor stays; false when it is gone already.
    fn hold(&mut self, entry: &Entry) -> bool {
        self.holds = true;
        if self.topic.shape().flow == Flow::Lossless {
            // The cursor does it.
            return true;
        }
        // Full barrier (M5): whoever overwrites the message sees this, or we see that it is overwritten.
        if mutation::is(Mutation::HoldWithoutBarrier) {
            self.seat.hold().store(entry.place.raw());
        } else {
            self.seat.hold().swap_full(entry.place.raw());
        }
        if self.topic.slot(self.cursor).state.load() == state(self.cursor, PUBLISHED) {
            return true;
        }
        self.seat.hold().store(0);
        self.holds = false;
        false
    }

    /// Lets the message go that [`next`](Self::next) returned, and goes on behind it.
    pub fn done(&mut self) {
        if core::mem::take(&mut self.holds) {
            self.advance(1);
        }
    }

    /// Lets the message go that [`next`](Self::next) returned; it comes again.
    pub fn put_off(&mut self) {
        if core::mem::take(&mut self.holds) && self.topic.shape().flow == Flow::Lossy {
            self.seat.hold().store(0);
        }
    }

    /// What is `ahead` of the cursor, without holding it; in a lossless topic it stays as it is until the
    /// reader goes on. `None` when it is not there yet, or gone, or will never be.
    #[must_use]
    pub fn peek(&self, ahead: u64) -> Option<Held> {
        let number = self.cursor.checked_add(ahead)?;
        let Look::Message(entry) = self.look_at(number) else { return None };
        // It may have been overwritten while it was read.
        am_layout::order_loads();
        let same = self.topic.slot(number).state.load() == state(number, PUBLISHED);
        let seq = Seq::from_slot_number(number, self.topic.shape());
        same.then_some(Held { seq, entry })
    }

    /// Goes on by `count` messages at once, all of which were [seen](Self::peek); one that is held counts.
    pub fn advance(&mut self, count: u64) {
        self.holds = false;
        self.cursor += count;
        self.tell_cursor();
    }

    fn skip_to(&mut self, number: u64) {
        let number = number.max(self.cursor + 1);
        self.missed += number - self.cursor;
        self.cursor = number;
        self.tell_cursor();
    }

    fn tell_cursor(&self) {
        if self.topic.shape().flow == Flow::Lossy {
            self.seat.hold().store(0);
        }
        // Release (M1): whoever overwrites what lies before comes after our looks at it.
        self.seat.cursor().store(self.cursor);
    }

    fn look_at(&self, number: u64) -> Look {
        let slot = self.topic.slot(number);
        // Acquire (M1): sees entry and payload.
        let (seen, code) = parts(slot.state.load());
        match (seen.cmp(&number), code) {
            (core::cmp::Ordering::Less, _) => Look::Nothing,
            (core::cmp::Ordering::Greater, _) => Look::Overrun,
            (_, PUBLISHED) => slot.entry().map_or(Look::Aborted, Look::Message),
            (_, ABORTED) => Look::Aborted,
            _ => Look::Nothing,
        }
    }
}

/// What a slot has for a reader who wants a certain number.
enum Look {
    Message(Entry),
    Nothing,
    Aborted,
    Overrun,
}

impl Drop for Reader<'_> {
    /// Leaves: nobody waits for this reader any more.
    fn drop(&mut self) {
        self.seat.hold().store(0);
        // Release: after the last look at a message.
        self.seat.owner().store(0);
    }
}
