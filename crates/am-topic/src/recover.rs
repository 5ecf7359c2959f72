//! What the dead left in a topic: claims, seats, orphans on their way.
//!
//! Of all recoverers of a topic only one may be at work. The dead do nothing, and what is theirs bears their
//! mark: a claimed slot its claimer's number, which nobody else has until it is given up (M2). So no step
//! here races with the living.

use crate::layout::{LEFT, POSTERS, Topic};
use crate::slot::{ABORTED, FIRST_POSTER, Place, parts, state};
use am_layout::mutation::{self, Mutation};
use am_layout::order_loads;

/// Something of the dead's that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A number was claimed, and its message will not come.
    Claim,
    /// A reader, or a member of a group, left its seat.
    Reader,
    /// A poster left its number.
    Poster,
}

/// What a recoverer has to know and do beyond the topic.
pub trait Morgue {
    /// Tells whether an owner is dead.
    fn is_dead(&self, owner: u32) -> bool;
    /// Tells whether a message's block is nobody's: named by a topic only.
    fn is_nobodys(&self, place: Place) -> bool;
    /// Makes a block that is nobody's the dead owner's, whose blocks go back after the recovery.
    fn bequeath(&mut self, place: Place, dead: u32);
}

/// Somebody who gives back what the dead left in a topic.
#[derive(Debug)]
pub struct Recoverer<'a, M> {
    topic: Topic<'a>,
    morgue: M,
}

impl<'a, M: Morgue> Recoverer<'a, M> {
    /// Makes a recoverer.
    pub fn new(topic: Topic<'a>, morgue: M) -> Self {
        Self { topic, morgue }
    }

    /// Ends what the dead began; `found` is told of each thing. Bounded by the number of slots.
    pub fn recover(&mut self, mut found: impl FnMut(Found)) {
        for number in 0..POSTERS {
            let owner = self.topic.poster_slot(number);
            if self.is_dead(owner.load()) {
                self.end_claims(number as u64 + FIRST_POSTER, owner.load() as u32, &mut found);
                // Release: its number is free when nothing bears it any more.
                owner.store(0);
                found(Found::Poster);
            }
        }
        for (number, seat) in self.topic.seats().enumerate() {
            if self.is_dead(seat.owner().load() >> 1) {
                self.topic.forget_seat(number);
                seat.hold().store(0);
                seat.owner().store(0);
                found(Found::Reader);
            }
        }
        for group in self.topic.groups() {
            for code in group.codes().filter(|&code| self.is_dead(group.seat(code).owner().load()))
            {
                self.topic.forget_seat(group.seat_number(code));
                group.leave(code);
                found(Found::Reader);
            }
        }
    }

    fn is_dead(&self, owner: u64) -> bool {
        owner != 0 && u32::try_from(owner).is_ok_and(|owner| self.morgue.is_dead(owner))
    }

    fn end_claims(&mut self, code: u64, dead: u32, found: &mut impl FnMut(Found)) {
        let tail = self.topic.load_tail();
        if tail.last == code {
            self.topic.record(tail);
        }
        if !mutation::is(Mutation::RecoverWithoutBarrier) {
            // Full barrier (M5), for the dead and their helpers: between the marks and the looks who holds what.
            order_loads();
        }
        if !mutation::is(Mutation::RecoverForgetsOrphans) {
            self.end_orphans(code, dead);
        }
        for index in 0..self.topic.shape().slots() {
            let slot = self.topic.slot(index);
            let (number, claimer) = parts(slot.state().load());
            if claimer != code {
                continue;
            }
            if let Some(place) = Place::from_raw(slot.place().load())
                && self.end_place(place, dead)
            {
                slot.place().store(0);
            }
            slot.state().store(state(number, ABORTED));
            found(Found::Claim);
        }
    }

    /// Ends what a dead poster's slot names, the old message or the new one; tells whether the slot shall
    /// forget it.
    fn end_place(&mut self, place: Place, dead: u32) -> bool {
        if place.is_in_cell() || !self.morgue.is_nobodys(place) {
            // Nobody's but the slot's. Or the dead made it its own, or had not let it go: it goes back with the rest of the dead's.
            return true;
        }
        if self.is_held(place) {
            // The old message: whoever has the slot next takes it back.
            return false;
        }
        self.morgue.bequeath(place, dead);
        true
    }

    /// Orphans that the dead were about to list, or to take.
    fn end_orphans(&mut self, code: u64, dead: u32) {
        let topic = self.topic;
        for orphan in topic.orphans().filter(|orphan| orphan.state.load() == code) {
            let place = Place::from_raw(orphan.place.load());
            // About to list it, and its slot names it still: the slot's word counts.
            let place = place.filter(|&place| !self.is_named(place));
            if let Some(place) = place.filter(|&place| self.morgue.is_nobodys(place)) {
                if self.is_held(place) {
                    orphan.state.store(LEFT);
                    continue;
                }
                self.morgue.bequeath(place, dead);
            }
            orphan.place.store(0);
            orphan.state.store(0);
        }
    }

    fn is_named(&self, place: Place) -> bool {
        let mut slots = (0..self.topic.shape().slots()).map(|index| self.topic.slot(index));
        slots.any(|slot| slot.place().load() == place.raw())
    }

    fn is_held(&self, place: Place) -> bool {
        !mutation::is(Mutation::RecoverForgetsHolds) && self.topic.is_held(place.raw())
    }
}
