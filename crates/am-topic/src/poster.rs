//! A poster: claims numbers, and knows how far it may go.

use crate::claim::{Claim, Claims, Orphaned, Own};
use crate::layout::{Flow, LEFT, POSTERS, Tail, Topic};
use crate::slot::{FIRST_POSTER, Place, parts, state};
use am_layout::mutation::{self, Mutation};
use am_layout::order_loads;
use core::ops::Range;

/// Exchanges on the tail that one claim loses to others before it gives up.
const TRIES_MAX: u32 = if cfg!(loom) { 3 } else { 1 << 20 };

/// The topic has no room: a reader of a lossless topic has to go on first, or a poster to finish what it
/// claimed a whole turn ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room: the message that would be overwritten is not read, or not finished")]
pub struct NoRoom;

/// One poster of a topic; one thread's at a time.
#[derive(Debug)]
pub struct Poster<'a> {
    topic: Topic<'a>,
    number: usize,
    gate: Gate,
    own: Own,
}

/// How far readers let posters go, as last seen.
#[derive(Debug)]
struct Gate {
    /// No reader's cursor is below this number…
    cursor: u64,
    /// … if nobody joined since there had been so many.
    joins: u64,
}

impl<'a> Topic<'a> {
    /// Makes a poster for an owner, as headers name it (not 0); `None` when there are too many.
    ///
    /// Lock-free.
    #[must_use]
    pub fn poster(&self, owner: u32) -> Option<Poster<'a>> {
        let number = (0..POSTERS).find(|&number| {
            let poster = self.poster_slot(number);
            // Full barrier: see `Recoverer`.
            poster.load_relaxed() == 0 && poster.cas_full(0, owner.into()).is_ok()
        })?;
        // Nothing is known of the readers yet: the first claim looks.
        let gate = Gate { cursor: 0, joins: u64::MAX };
        Some(Poster { topic: *self, number, gate, own: Own::NONE })
    }

    /// Records who claimed the messages before the tail: before anybody moves the tail on, so that it is
    /// known of every slot whose it is (M2).
    #[inline]
    pub(crate) fn record(&self, tail: Tail) {
        if mutation::is(Mutation::ClaimForgetsRecord) {
            return;
        }
        // All mark from the left, claimer and helpers, so that those unmarked are the last ones: a helper that
        // stops half-way must not leave one behind that is marked.
        if !self.is_marked(tail.next.wrapping_sub(1)) {
            self.record_all(tail);
        }
    }

    #[inline]
    fn is_marked(&self, number: u64) -> bool {
        parts(self.slot(number).state().load()).0 >= number
    }

    #[cold]
    fn record_all(&self, tail: Tail) {
        let oldest = tail.next.saturating_sub(self.shape().batch_max());
        let marked = |&number: &u64| self.is_marked(number);
        let unmarked = (oldest..tail.next).rev().find(marked).map_or(oldest, |number| number + 1);
        if mutation::is(Mutation::RecordFromTheRight) {
            (unmarked..tail.next).rev().for_each(|number| self.mark(number, tail.last));
        } else {
            (unmarked..tail.next).for_each(|number| self.mark(number, tail.last));
        }
    }

    /// Marks a claimed slot for its claimer, if nobody did.
    #[cold]
    fn mark(&self, number: u64, code: u64) {
        let slot = self.slot(number);
        let seen = slot.state().load();
        if parts(seen).0 < number {
            // Lost: the claimer, or another helper, was here.
            let _ = slot.state().cas(seen, state(number, code));
        }
    }

    /// Tells whether the messages of a turn ago, whose slots these numbers will have, are published or
    /// aborted: else their claimer writes them yet.
    #[inline]
    fn is_finished(&self, numbers: Range<u64>) -> bool {
        if mutation::is(Mutation::ClaimForgetsToWait) {
            return true;
        }
        let slots = self.shape().slots();
        numbers.into_iter().all(|number| {
            let (seen, code) = parts(self.slot(number).state().load());
            seen + slots == number && code < FIRST_POSTER
        })
    }

    /// The lowest cursor of all readers; the tail's number when there is none.
    fn lowest_cursor(&self, next: u64) -> u64 {
        let readers = self.seats().filter_map(|seat| seat.gate());
        let groups = self.groups().filter_map(|group| group.gate());
        readers.chain(groups).fold(next, u64::min)
    }
}

impl Gate {
    /// Tells whether every reader is done with what message `last` overwrites, when there were `joins` and the
    /// next message is `next`.
    #[inline]
    fn passes(&mut self, topic: &Topic<'_>, last: u64, joins: u64, next: u64) -> bool {
        let slots = topic.shape().slots();
        if last < self.cursor.saturating_add(slots) && joins == self.joins {
            return true;
        }
        self.look(topic, joins, next);
        last < self.cursor.saturating_add(slots)
    }

    #[cold]
    fn look(&mut self, topic: &Topic<'_>, joins: u64, next: u64) {
        *self = Self { cursor: topic.lowest_cursor(next), joins };
    }
}

impl<'a> Poster<'a> {
    /// Returns this poster's number in the topic, from 0.
    #[must_use]
    #[inline]
    pub fn number(&self) -> usize {
        self.number
    }

    /// How this poster marks what is its.
    #[inline]
    fn code(&self) -> u64 {
        self.number as u64 + FIRST_POSTER
    }

    /// Claims the next `count` numbers (1 ..= [`batch_max`](crate::Shape::batch_max)).
    ///
    /// Lock-free, bounded: a lost exchange means that another poster went on.
    ///
    /// # Errors
    /// [`NoRoom`] when a reader of a lossless topic has not gone on far enough, another poster has not
    /// finished a message of a turn ago, or a million exchanges were lost to others; nothing is claimed
    /// then.
    #[inline]
    pub fn claim(&mut self, count: u64) -> Result<Claims<'_, 'a>, NoRoom> {
        let (numbers, overruns) = self.take_numbers(count)?;
        let code = self.code();
        Ok(Claims::new(&self.topic, code, numbers, overruns, &mut self.own))
    }

    /// Claims the next number.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    #[inline(always)]
    pub fn claim_one(&mut self) -> Result<Claim<'_, 'a>, NoRoom> {
        let (numbers, overruns) = self.take_numbers(1)?;
        let code = self.code();
        Ok(Claim::new(&self.topic, code, numbers.start, overruns, &mut self.own))
    }

    /// As [`claim`](Self::claim), but claims fewer when there is no room for all.
    ///
    /// # Errors
    /// [`NoRoom`] when there is not even room for one.
    pub fn claim_up_to(&mut self, count: u64) -> Result<Claims<'_, 'a>, NoRoom> {
        let mut count = count.clamp(1, self.topic.shape().batch_max());
        loop {
            match self.take_numbers(count) {
                Ok((numbers, overruns)) => {
                    let (topic, code) = (&self.topic, self.code());
                    return Ok(Claims::new(topic, code, numbers, overruns, &mut self.own));
                }
                Err(NoRoom) => count = self.fewer(count).ok_or(NoRoom)?,
            }
        }
    }

    /// How many numbers there may be room for, when there is none for `count`; `None` for none.
    fn fewer(&self, count: u64) -> Option<u64> {
        let fewer = if self.topic.shape().flow == Flow::Lossless {
            // The gate has just been looked for.
            let end = self.gate.cursor.saturating_add(self.topic.shape().slots());
            end.saturating_sub(self.topic.load_tail().next).min(count - 1)
        } else {
            count / 2
        };
        (fewer > 0).then_some(fewer)
    }

    /// Claims numbers; tells whether a reader may look at what they overwrite.
    #[inline(always)]
    fn take_numbers(&mut self, count: u64) -> Result<(Range<u64>, bool), NoRoom> {
        let topic = &self.topic;
        let count = count.clamp(1, topic.shape().batch_max());
        for _ in 0..TRIES_MAX {
            let tail = topic.load_tail();
            // The tail before the joins: had a reader joined in between, and seen the tail as we did, this
            // exchange is the one that it reckons with; any later one looks again (M3).
            if !mutation::is(Mutation::ClaimForgetsJoins) {
                order_loads();
            }
            let joins = topic.joins().load();
            let last = tail.next + count - 1;
            if !self.gate.passes(topic, last, joins, tail.next)
                && topic.shape().flow == Flow::Lossless
            {
                return Err(NoRoom);
            }
            // What is this poster's own it need not look at: no line of a slot is waited for then.
            let reaches = self.own.reaches(tail.next);
            if !reaches {
                topic.record(tail);
            }
            let turn_ago = tail.next.wrapping_sub(topic.shape().slots());
            let is_free = (reaches && self.own.has(turn_ago))
                || topic.is_finished(tail.next..tail.next + count);
            if !is_free {
                if topic.load_tail() == tail || mutation::is(Mutation::OvertakenFindsNoRoom) {
                    return Err(NoRoom);
                }
                // Another poster claimed these meanwhile: there may be room behind.
                continue;
            }
            let claimed = Tail { next: tail.next + count, last: self.code() };
            // Full barrier (M3, M5).
            if topic.tail().cas_full(tail.raw(), claimed.raw()).is_ok() {
                let overruns = self.gate.cursor.saturating_add(topic.shape().slots()) <= last;
                let numbers = tail.next..claimed.next;
                self.own.begin(tail.next);
                return Ok((numbers, overruns));
            }
        }
        Err(NoRoom)
    }

    /// Takes one message out of the list of those whose slots went on while a reader held them, if the
    /// last holder is gone.
    ///
    /// Wait-free.
    #[must_use]
    #[inline]
    pub fn orphan(&self) -> Option<Orphaned<'_, 'a>> {
        if self.topic.shape().flow == Flow::Lossless {
            return None;
        }
        self.look_for_orphan()
    }

    fn look_for_orphan(&self) -> Option<Orphaned<'_, 'a>> {
        let code = self.code();
        self.topic.orphans().find_map(|orphan| {
            let raw = orphan.place.load();
            if orphan.state.load() != LEFT || self.topic.is_held(raw) {
                return None;
            }
            orphan.state.cas_full(LEFT, code).ok()?;
            match Place::from_raw(orphan.place.load()) {
                // After the barrier (M5): another one was left here meanwhile, or a holder comes to light.
                Some(place) if self.is_held_still(place) => {
                    orphan.state.store(LEFT);
                    None
                }
                Some(place) => Some(Orphaned::new(orphan, place)),
                None => {
                    orphan.state.store(0);
                    None
                }
            }
        })
    }
}

impl Poster<'_> {
    fn is_held_still(&self, place: Place) -> bool {
        !mutation::is(Mutation::OrphanForgetsSecondLook) && self.topic.is_held(place.raw())
    }
}

impl Drop for Poster<'_> {
    fn drop(&mut self) {
        self.topic.poster_slot(self.number).store(0);
    }
}
