//! Claimed numbers: from the exchange on the tail to the message that everybody may read.
//!
//! A message lies in a block of its own, or if it is short in its slot's cell, which has no owner but the claimer.
//! A claimed slot goes through these steps, each one store; a death between two of them leaves what the
//! recoverer makes of it (M4):
//!
//! 1. its state says who claimed it;
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

/// Numbers that a poster claimed together; those never taken out are aborted.
#[derive(Debug)]
pub struct Claims<'p, 'a> {
    topic: &'p Topic<'a>,
    code: u64,
    left: Range<u64>,
    /// A reader may look at what these overwrite.
    overruns: bool,
    /// The poster's number is in use meanwhile.
    _poster: PhantomData<&'p mut ()>,
}

/// One claimed number, of which nobody but its claimer writes the slot. Dropping it aborts it.
#[derive(Debug)]
pub struct Claim<'p, 'a> {
    topic: &'p Topic<'a>,
    code: u64,
    number: u64,
    slot: Slot<'a>,
    overruns: bool,
    _poster: PhantomData<&'p mut ()>,
}

impl<'p, 'a> Claims<'p, 'a> {
    #[inline]
    pub(crate) fn new(
        topic: &'p Topic<'a>,
        code: u64,
        numbers: Range<u64>,
        overruns: bool,
    ) -> Self {
        // A single one need not be marked: if it is not published by then, whoever claims next marks it, before
        // the tail moves on (M2). Of several, published in any order, it could not be told which are whose.
        let marks = overruns || numbers.end - numbers.start > 1;
        for number in numbers.clone().filter(|_| marks) {
            topic.mark_own(number, code, overruns);
        }
        Self { topic, code, left: numbers, overruns, _poster: PhantomData }
    }
}

impl Topic<'_> {
    /// Marks a slot as its claimer's.
    #[inline]
    fn mark_own(&self, number: u64, code: u64, overruns: bool) {
        let state_word = self.slot(number).state();
        if overruns && !mutation::is(Mutation::MarkWithoutBarrier) {
            // Full barrier (M5): then look who holds what is overwritten.
            state_word.swap_full(state(number, code));
        } else {
            // Release (M2): whoever sees it marked knows whose it is.
            state_word.store_beside_cas(state(number, code));
        }
    }
}

impl<'p, 'a> Iterator for Claims<'p, 'a> {
    type Item = Claim<'p, 'a>;

    #[inline]
    fn next(&mut self) -> Option<Claim<'p, 'a>> {
        let number = self.left.next()?;
        Some(Claim {
            topic: self.topic,
            code: self.code,
            number,
            slot: self.topic.slot(number),
            overruns: self.overruns,
            _poster: PhantomData,
        })
    }
}

impl Drop for Claims<'_, '_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<'p, 'a> Claim<'p, 'a> {
    /// The only number of a claim.
    #[inline]
    pub(crate) fn new(topic: &'p Topic<'a>, code: u64, number: u64, overruns: bool) -> Self {
        // It need not be marked, as said in `Claims::new`.
        if overruns {
            topic.mark_own(number, code, overruns);
        }
        let slot = topic.slot(number);
        Self { topic, code, number, slot, overruns, _poster: PhantomData }
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
        self.topic.cell_of(self.number)
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
        let old = Place::from_raw(self.slot.place().load());
        let Some(place) = old.filter(|place| !place.is_in_cell()) else { return Ok(None) };
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
    #[inline]
    pub fn publish(self) -> Seq {
        let seq = self.seq();
        let published = state(self.number, PUBLISHED);
        if mutation::is(Mutation::PostWithoutRelease) {
            self.slot.state().store_relaxed(published);
        } else {
            // Release (M1): whoever sees it published sees entry and payload. A helper may mark it at this
            // moment, and then finds it published, or is overwritten.
            self.slot.state().store_beside_cas(published);
        }
        core::mem::forget(self);
        seq
    }
}

impl Drop for Claim<'_, '_> {
    fn drop(&mut self) {
        // Release: as a publication. What the slot still names, whoever has it next takes back.
        self.slot.state().store_beside_cas(state(self.number, ABORTED));
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
