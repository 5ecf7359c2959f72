//! Claimed numbers: from the exchange on the tail to the message that everybody may read.
//!
//! A message lies in a block of its own, or if it is short in its slot's cell, which has no owner but the claimer.
//! A claimed slot goes through these steps, each one store; a death between two of them leaves what the
//! recoverer makes of it (M4):
//!
//! 1. the tail says who claimed it; and its state, in a lossy topic, or when somebody else claims meanwhile (M2);
//! 2. the caller makes the old message's block its own;
//! 3. the slot [forgets](Claim::forget) the old message, or leaves it to its holders;
//! 4. the slot [tells](Claim::tell) of the new message, whose block is the caller's own still;
//! 5. the caller lets the block go, so that it is nobody's;
//! 6. the state says that it is published.

use crate::layout::{LEFT, Orphan, Topic};
use crate::slot::{ABORTED, Entry, PUBLISHED, Place, Seq, Slot, state};
use am_layout::Wide;
use am_layout::mutation::{self, Mutation};
use core::marker::PhantomData;
use core::ops::Range;

/// What a poster claimed one number after the other, nobody else in between.
///
/// Of it everything below `to` is finished: published or aborted. So those slots are marked, and when the ring
/// comes round they are free again, which the poster need not look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    from: u64,
    to: u64,
    /// Those from `to` up to here are told, and published with the rest of their batch.
    told: u64,
    /// How many of the last claim's are published, and the last of them.
    published: u64,
    last: u64,
}

impl Own {
    /// Nothing yet.
    pub const NONE: Self =
        Self { from: u64::MAX, to: u64::MAX, told: u64::MAX, published: 0, last: 0 };

    /// Tells whether nobody claimed between what is finished and `next`, the tail's number.
    #[inline]
    pub fn reaches(&self, next: u64) -> bool {
        self.to == next || (mutation::is(Mutation::OwnForgetsOthers) && self.to < next)
    }

    /// Tells whether this number is finished, and all up to what is: then it was this poster's.
    #[inline]
    pub fn has(&self, number: u64) -> bool {
        self.from <= number && number < self.to
    }

    /// The next claim begins with `number`.
    #[inline]
    pub fn begin(&mut self, number: u64) {
        if !self.reaches(number) {
            self.from = number;
        }
        self.to = number;
        self.told = number;
        self.published = 0;
    }

    /// Everything below `number` is finished.
    #[inline]
    fn finish(&mut self, number: u64) {
        self.to = number;
        self.told = number;
    }
}

/// Numbers that a poster claimed together, lent one after the other; those that are not published are aborted.
#[derive(Debug)]
pub struct Claims<'p, 'a> {
    topic: &'p Topic<'a>,
    code: u64,
    /// Those not lent yet.
    left: Range<u64>,
    /// A reader may look at what these overwrite.
    overruns: bool,
    own: &'p mut Own,
}

/// One claimed number, of which nobody but its claimer writes the slot. Dropping it aborts it.
#[derive(Debug)]
pub struct Claim<'p, 'a> {
    topic: &'p Topic<'a>,
    code: u64,
    number: u64,
    slot: Slot<'a>,
    overruns: bool,
    own: &'p mut Own,
}

impl<'p, 'a> Claims<'p, 'a> {
    #[inline]
    pub(crate) fn new(
        topic: &'p Topic<'a>,
        code: u64,
        numbers: Range<u64>,
        overruns: bool,
        own: &'p mut Own,
    ) -> Self {
        // Else they need not be marked: they are finished in order, so that those that are not when somebody
        // claims next are the last ones, and that one marks them before the tail moves on (M2).
        for number in numbers.clone().filter(|_| overruns) {
            topic.mark_overrun(number, code);
        }
        Self { topic, code, left: numbers, overruns, own }
    }

    /// Lends the next number, if there is one.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: it lends one at a time, in order"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<Claim<'_, 'a>> {
        let number = self.left.next()?;
        let slot = self.topic.slot(number);
        let (topic, code, overruns) = (self.topic, self.code, self.overruns);
        Some(Claim { topic, code, number, slot, overruns, own: self.own })
    }

    /// Makes messages that lie in their slots' cells [ready](Claim::ready), one number after the other; returns how many.
    ///
    /// `write` gets where the slot stands, which is no business of its but to be fetched from, and the cell; it puts a message into
    /// the cell, and tells of it; it ends with `None`. The number is lent by
    /// [`next`](Self::next) then; and so is one whose slot names a block, which the caller has to make its own.
    #[inline(always)]
    pub fn fill_cells(
        &mut self,
        mut write: impl FnMut(*const Wide, &'a [Wide]) -> Option<Entry>,
    ) -> u64 {
        let first = self.left.start;
        if self.own.told != first {
            return 0;
        }
        for (slot, cell) in self.topic.ring().walk(first) {
            if self.left.is_empty() || slot.block().is_some() {
                break;
            }
            let Some(entry) = write(slot.as_ptr(), cell) else { break };
            slot.tell(&entry);
            self.left.start += 1;
        }
        self.own.told = self.left.start;
        self.left.start - first
    }

    /// Lets everybody read those messages that are [ready](Claim::ready), in order; the other numbers are aborted.
    /// Returns how many of this claim's are published by now, and the last one's number.
    #[inline]
    pub fn publish(self) -> (u64, Option<Seq>) {
        finish_told(self.topic, self.own);
        let (count, last) = (self.own.published, self.own.last);
        (count, (count > 0).then(|| Seq::from_slot_number(last, self.topic.shape())))
    }
}

impl Drop for Claims<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        abort(self.topic, self.own, self.left.end);
    }
}

/// Publishes those that are told.
#[inline]
fn finish_told(topic: &Topic<'_>, own: &mut Own) {
    if own.told > own.to {
        own.published += own.told - own.to;
        own.last = own.told - 1;
    }
    if mutation::is(Mutation::FinishFromTheRight) {
        for number in (own.to..own.told).rev() {
            finish(topic.slot(number), number, PUBLISHED);
        }
        return own.finish(own.told);
    }
    for (number, (slot, _)) in (own.to..own.told).zip(topic.ring().walk(own.to)) {
        finish(slot, number, PUBLISHED);
    }
    own.finish(own.told);
}

/// Aborts what is not finished below `end`.
#[inline]
fn abort(topic: &Topic<'_>, own: &mut Own, end: u64) {
    for number in own.to..end {
        finish(topic.slot(number), number, ABORTED);
    }
    own.finish(end);
}

/// The slot's state says what became of its number.
#[inline]
fn finish(slot: Slot<'_>, number: u64, code: u64) {
    if mutation::is(Mutation::PostWithoutRelease) {
        slot.state().store_relaxed(state(number, code));
    } else {
        // Release (M1): whoever sees it published sees entry and payload. A helper may mark it at this
        // moment, and then finds it finished, or is overwritten.
        slot.state().store_beside_cas(state(number, code));
    }
}

impl Topic<'_> {
    /// Marks a slot as its claimer's, whose old message somebody may look at.
    #[inline]
    fn mark_overrun(&self, number: u64, code: u64) {
        let state_word = self.slot(number).state();
        if mutation::is(Mutation::MarkWithoutBarrier) {
            state_word.store_beside_cas(state(number, code));
        } else {
            // Full barrier (M5): then look who holds what is overwritten.
            state_word.swap_full(state(number, code));
        }
    }
}

impl<'p, 'a> Claim<'p, 'a> {
    /// The only number of a claim.
    #[inline]
    pub(crate) fn new(
        topic: &'p Topic<'a>,
        code: u64,
        number: u64,
        overruns: bool,
        own: &'p mut Own,
    ) -> Self {
        // Else it need not be marked, as said in `Claims::new`.
        if overruns {
            topic.mark_overrun(number, code);
        }
        Self { topic, code, number, slot: topic.slot(number), overruns, own }
    }

    /// Returns the message's number.
    #[must_use]
    #[inline]
    pub fn seq(&self) -> Seq {
        Seq::from_slot_number(self.number, self.topic.shape())
    }

    /// Returns the slot's cell, which nobody but the caller uses until the message is published or aborted; empty
    /// in a topic without cells.
    #[must_use]
    #[inline]
    pub fn cell(&self) -> &'a [Wide] {
        self.topic.ring().cell(self.number)
    }

    /// Returns the message that the slot had before, which the caller makes its own now, and frees when the
    /// slot has [forgotten](Self::forget) it.
    ///
    /// `None` when there was none, or it lay in the slot's cell, or a reader still holds it: then it is left to the list of
    /// [orphans](crate::Poster::orphan). Wait-free.
    ///
    /// # Errors
    /// [`Full`] when that list is full: the number can only be aborted then.
    #[inline]
    pub fn old(&mut self) -> Result<Option<Place>, Full> {
        let Some(place) = self.slot.block() else { return Ok(None) };
        if !self.overruns || !self.topic.is_held(place.raw()) {
            return Ok(Some(place));
        }
        let orphan = self.topic.orphans().find(|orphan| {
            // Full barrier: nobody else has it.
            orphan.state.load() == 0 && orphan.state.cas_full(0, self.code).is_ok()
        });
        let orphan = orphan.ok_or(Full)?;
        orphan.place.store(place.raw());
        // Before it is listed (M4): then others free it, and its block becomes another message's.
        if !mutation::is(Mutation::ListBeforeForgetting) {
            self.forget();
        }
        if mutation::is(Mutation::ListWithoutRelease) {
            orphan.state.store_relaxed(LEFT);
        } else {
            // Release (M5): the place with it, and the mark.
            orphan.state.store(LEFT);
        }
        if mutation::is(Mutation::ListBeforeForgetting) {
            self.forget();
        }
        Ok(None)
    }

    /// The slot names no message any more.
    #[inline]
    pub fn forget(&mut self) {
        // Release (M4): after the caller made the old block its own.
        self.slot.place().store(0);
    }

    /// The slot names the new message, whose block is the caller's own still.
    #[inline]
    pub fn tell(&mut self, entry: &Entry) {
        self.slot.tell(entry);
    }

    /// Lets everybody read the message, whose block is nobody's by now; returns its number.
    ///
    /// Those of its batch that were lent before are published first, if they are ready, or aborted.
    #[inline(always)]
    pub fn publish(mut self) -> Seq {
        let seq = self.seq();
        self.finish(PUBLISHED);
        self.own.published += 1;
        self.own.last = self.number;
        core::mem::forget(self);
        seq
    }

    /// The message, whose block is nobody's by now, is ready to be [published](Claims::publish) with its batch.
    #[inline]
    pub fn ready(self) {
        if self.own.told == self.number {
            self.own.told = self.number + 1;
        }
        core::mem::forget(self);
    }

    #[inline(always)]
    fn finish(&mut self, code: u64) {
        if self.own.to != self.number {
            self.finish_before();
        }
        finish(self.slot, self.number, code);
        self.own.finish(self.number + 1);
    }
}

impl Claim<'_, '_> {
    /// Those of its batch that were lent before come first (M2).
    #[cold]
    fn finish_before(&mut self) {
        finish_told(self.topic, self.own);
        abort(self.topic, self.own, self.number);
    }
}

impl Drop for Claim<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        // What the slot still names, whoever has it next takes back.
        self.finish(ABORTED);
    }
}

/// As many messages as the topic can list are held by readers whose slots went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("readers hold too many messages that were overrun")]
pub struct Full;

/// A message that the last reader let go after its slot went on; the caller makes it its own, and frees it
/// when it is [forgotten](Self::forget).
#[derive(Debug)]
pub struct Orphaned<'p, 'a> {
    orphan: Orphan<'a>,
    place: Place,
    /// The list's entry bears the poster's code meanwhile.
    _poster: PhantomData<&'p ()>,
}

impl<'a> Orphaned<'_, 'a> {
    #[inline]
    pub(crate) fn new(orphan: Orphan<'a>, place: Place) -> Self {
        Self { orphan, place, _poster: PhantomData }
    }

    /// Returns where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The list names it no more.
    #[inline]
    pub fn forget(self) {
        self.orphan.place.store(0);
        self.orphan.state.store(0);
    }
}
