//! A reader: a cursor, and what it promises the posters.

use crate::follow::{Leaders, NoLeader, ReaderId};
use crate::hold::let_go;
use crate::layout::{Flow, READERS, Seat, Shape, Topic};
use crate::slot::{ABORTED, Entry, PUBLISHED, Seq, Slot, parts, state};
use am_layout::Wide;
use am_layout::mutation::{self, Mutation};

/// Where a reader begins. What was posted before it joined, and is gone, it has not missed, unless it asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that is there.
    Earliest,
    /// With the first that is posted after it joined.
    Latest,
    /// With this message, or the oldest that is there if it is gone: a reader has missed those between, then.
    At(Seq),
}

impl Start {
    /// The slot number to begin with, when the oldest message and the next one have these.
    pub(crate) fn number(self, oldest: u64, next: u64, shape: &Shape) -> u64 {
        match self {
            Start::Earliest => oldest,
            Start::Latest => next,
            Start::At(seq) => seq.slot_number(shape).clamp(oldest, next),
        }
    }
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
    id: ReaderId,
    leaders: Leaders<'a>,
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
        let number = (0..READERS).find(|&number| {
            let seat = self.seat(number);
            seat.owner().load_relaxed() == 0 && seat.owner().cas(0, owner).is_ok()
        })?;
        let seat = self.seat(number);
        let turn = seat.turn().load().wrapping_add(1) & (u64::MAX >> 8);
        if !mutation::is(Mutation::TurnAfterOwner) {
            // The one before is gone for its followers, before the cursor counts as another's (M7).
            seat.turn().store(turn);
        }
        seat.hold().store(0);
        let oldest = self.oldest(self.load_tail().next);
        if mutation::is(Mutation::SeatWithoutRelease) {
            seat.cursor().store_relaxed(oldest);
        } else {
            // Release (M7): whoever follows the one before, and sees this cursor, sees whose the seat is by now.
            seat.cursor().store(oldest);
        }
        // Release: with its cursor and turn. From here on the cursor counts for whoever looks.
        seat.owner().store(owner | 1);
        if mutation::is(Mutation::TurnAfterOwner) {
            seat.turn().store(turn);
        }
        if !mutation::is(Mutation::JoinForgetsToTell) {
            // Full barrier (M3): then look at the tail.
            self.joins().increment_full();
        }
        // After the barrier (M3): whoever claims more than the one batch that `oldest` allows for knows of
        // this reader.
        let next = self.load_tail().next;
        let oldest = self.oldest(next);
        let cursor = start.number(oldest, next, self.shape());
        seat.cursor().store(cursor);
        let id = ReaderId { seat: number, turn };
        let leaders = Leaders::none(*self);
        let missed = match start {
            Start::At(seq) => cursor.saturating_sub(seq.slot_number(self.shape())),
            Start::Earliest | Start::Latest => 0,
        };
        Some(Reader { topic: *self, seat, id, leaders, cursor, missed, holds: false })
    }
}

impl<'a> Reader<'a> {
    /// Returns the number of the message that comes next.
    #[must_use]
    #[inline]
    pub fn cursor(&self) -> Seq {
        Seq::from_slot_number(self.cursor, self.topic.shape())
    }

    /// Returns how many messages this reader will never see: overrun before it came to them, or claimed by a
    /// poster that did not finish them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Returns how others follow this reader.
    #[must_use]
    pub fn id(&self) -> ReaderId {
        self.id
    }

    /// Returns the number of this reader's seat, among all [seats](crate::SEATS) of the topic.
    #[must_use]
    pub fn seat_number(&self) -> u32 {
        self.id.seat as u32
    }

    /// Follows another reader: what that has not let go does not come to this one.
    ///
    /// When the other one leaves, or is recovered from, this one goes on by itself: see
    /// [`follows_all`](Self::follows_all).
    ///
    /// # Errors
    /// [`NoLeader`] when the other one is not there, or this one follows too many.
    pub fn follow(&mut self, id: ReaderId) -> Result<(), NoLeader> {
        self.leaders.add(id)
    }

    /// Tells whether every reader that this one follows is there still: then all of them have let go what came
    /// to this one.
    #[must_use]
    pub fn follows_all(&self) -> bool {
        self.leaders.are_there()
    }

    /// Looks for the next message, and holds it if there is one. Call [`done`](Self::done) before the
    /// next one.
    ///
    /// Wait-free, bounded by the number of slots.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: it ends nowhere, and holds one at a time"
    )]
    #[inline(always)]
    pub fn next(&mut self) -> Next {
        // Every turn goes on by a message or more.
        for _ in 0..=self.topic.shape().slots() {
            if !self.leaders.let_go(self.cursor) {
                return Next::Nothing;
            }
            match self.topic.look_at(self.cursor) {
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
    #[inline(always)]
    fn hold(&mut self, entry: &Entry) -> bool {
        // In a lossless topic the cursor does it.
        self.holds = self.topic.shape().flow == Flow::Lossless
            || self.topic.hold(self.seat.hold(), self.cursor, entry.place);
        self.holds
    }

    /// Lets the message go that [`next`](Self::next) returned, and goes on behind it.
    #[inline]
    pub fn done(&mut self) {
        if core::mem::take(&mut self.holds) {
            self.advance(1);
        }
    }

    /// Lets the message go that [`next`](Self::next) returned; it comes again.
    pub fn put_off(&mut self) {
        if core::mem::take(&mut self.holds) && self.topic.shape().flow == Flow::Lossy {
            let_go(self.seat.hold());
        }
    }

    /// What is `ahead` of the cursor, without holding it; in a lossless topic it stays as it is until the
    /// reader goes on. `None` when it is not there yet, or gone, or will never be.
    #[must_use]
    #[inline(always)]
    pub fn peek(&self, ahead: u64) -> Option<Held> {
        let number = self.cursor.checked_add(ahead)?;
        if !self.leaders.have_let_go(number) {
            return None;
        }
        self.topic.peek(number)
    }

    /// Shows what lies `ahead` of the cursor and behind that, one after the other with its slot's cell, as far as it is
    /// there and `each` wants more; as [`peek`](Self::peek) for each.
    #[inline(always)]
    pub fn peek_on(&self, ahead: u64, mut each: impl FnMut(Held, &'a [Wide]) -> bool) {
        let shape = *self.topic.shape();
        let first = self.cursor.saturating_add(ahead);
        for (number, (slot, cell)) in (first..u64::MAX).zip(self.topic.ring().walk(first)) {
            if !self.leaders.have_let_go(number) {
                return;
            }
            let Look::Message(entry) = look(slot, number) else { return };
            // The cursor keeps it in a lossless topic; in a lossy one it may have been overwritten meanwhile.
            let stays = shape.flow == Flow::Lossless || self.topic.is_still(number);
            let seq = Seq::from_slot_number(number, &shape);
            if !stays || !each(Held { seq, entry }, cell) {
                return;
            }
        }
    }

    /// Goes on by `count` messages at once, all of which were [seen](Self::peek); one that is held counts.
    #[inline(always)]
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

    #[inline]
    fn tell_cursor(&self) {
        if self.topic.shape().flow == Flow::Lossy {
            let_go(self.seat.hold());
        }
        if mutation::is(Mutation::CursorWithoutRelease) {
            self.seat.cursor().store_relaxed(self.cursor);
        } else {
            // Release (M1): whoever overwrites what lies before comes after our looks at it.
            self.seat.cursor().store(self.cursor);
        }
    }
}

impl Topic<'_> {
    /// Looks at message `number` without holding it.
    #[inline(always)]
    pub(crate) fn peek(&self, number: u64) -> Option<Held> {
        let Look::Message(entry) = self.look_at(number) else { return None };
        let seq = Seq::from_slot_number(number, self.shape());
        self.is_still(number).then_some(Held { seq, entry })
    }

    /// Tells whether message `number` was not overwritten while its slot was read.
    #[inline]
    fn is_still(&self, number: u64) -> bool {
        am_layout::order_loads();
        self.slot(number).state().load() == state(number, PUBLISHED)
    }

    #[inline(always)]
    pub(crate) fn look_at(&self, number: u64) -> Look {
        look(self.slot(number), number)
    }
}

#[inline(always)]
fn look(slot: Slot<'_>, number: u64) -> Look {
    // Acquire (M1): sees entry and payload.
    let seen = slot.state().load();
    if seen == state(number, PUBLISHED) {
        return slot.entry().map_or(Look::Aborted, Look::Message);
    }
    let (seen, code) = parts(seen);
    match seen.cmp(&number) {
        core::cmp::Ordering::Greater => Look::Overrun,
        core::cmp::Ordering::Equal if code == ABORTED => Look::Aborted,
        _ => Look::Nothing,
    }
}

/// What a slot has for a reader who wants a certain number.
pub(crate) enum Look {
    Message(Entry),
    Nothing,
    Aborted,
    Overrun,
}

impl Drop for Reader<'_> {
    /// Leaves: nobody waits for this reader any more.
    fn drop(&mut self) {
        self.seat.hold().store(0);
        if mutation::is(Mutation::LeaveWithoutRelease) {
            self.seat.owner().store_relaxed(0);
        } else {
            // Release (M1, M7): after the last look at a message.
            self.seat.owner().store(0);
        }
    }
}
