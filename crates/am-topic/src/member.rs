//! A member of a group: takes messages, and is done with them or gives them back.

use crate::follow::{Leaders, NoLeader, ReaderId};
use crate::group::{
    CLOSED, CLOSING, Front, Group, MemberSeat, NOBODY, NoGroup, OPENING, Return, Taken,
};
use crate::hold::let_go;
use crate::layout::{Flow, Topic};
use crate::reader::{Held, Look, Next, Start};
use crate::slot::Seq;
use am_layout::mutation::{self, Mutation};

/// Exchanges on the front that one look loses to others, or uses for numbers without a message, before it
/// gives up.
const TRIES_MAX: u32 = if cfg!(loom) { 3 } else { 1 << 20 };

/// One member of a group; one thread's at a time.
#[derive(Debug)]
pub struct Member<'a> {
    topic: Topic<'a>,
    group: Group<'a>,
    code: u64,
    owner: u32,
    start: Start,
    /// What is below was given up.
    floor: u64,
    leaders: Leaders<'a>,
    /// What is held.
    current: Option<(Delivery<'a>, Held)>,
    /// The returns were looked through when they were so many.
    seen_returns: Option<u64>,
    missed: u64,
}

/// A message that a member has.
#[derive(Clone, Copy, Debug)]
struct Delivery<'a> {
    number: u64,
    attempts: u8,
    /// Its entry of the returns; `None` when the member's taken word has it.
    entry: Option<&'a am_layout::Wide>,
}

impl<'a> Topic<'a> {
    /// Joins the group of that name (not 0), for an owner as headers name it (not 0). A group that is not there
    /// yet is made, and begins at `start`.
    ///
    /// Lock-free.
    ///
    /// # Errors
    /// [`NoGroup`] when there are too many groups, or members.
    pub fn member(&self, name: u64, owner: u32, start: Start) -> Result<Member<'a>, NoGroup> {
        let group = self.group(name).ok_or(NoGroup::TooManyGroups)?;
        let code = group.sit(owner).ok_or(NoGroup::TooManyMembers)?;
        group.open(start);
        // From here on nobody closes it.
        let floor = group.floor().load();
        Ok(Member {
            topic: *self,
            group,
            code,
            owner,
            start,
            floor,
            leaders: Leaders::none(*self),
            current: None,
            seen_returns: None,
            missed: 0,
        })
    }
}

impl<'a> Member<'a> {
    /// Returns the number of the message that the group takes next.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        Seq::from_slot_number(self.group.load_front().number, self.topic.shape())
    }

    /// Returns how many messages this member found gone, that now nobody of its group will see.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Returns how often the message that is held was delivered before; 15 for more.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.current.as_ref().map_or(0, |(delivery, _)| delivery.attempts)
    }

    /// As [`Reader::seat_number`](crate::Reader::seat_number).
    #[must_use]
    pub fn seat_number(&self) -> u32 {
        self.group.seat_number(self.code) as u32
    }

    /// As [`Reader::follow`](crate::Reader::follow).
    ///
    /// # Errors
    /// [`NoLeader`].
    pub fn follow(&mut self, id: ReaderId) -> Result<(), NoLeader> {
        self.leaders.add(id)
    }

    /// As [`Reader::follows_all`](crate::Reader::follows_all).
    #[must_use]
    pub fn follows_all(&self) -> bool {
        self.leaders.are_there()
    }

    /// Takes the next message, and holds it if there is one; the one that is held, if it is not
    /// [done](Self::done).
    ///
    /// Lock-free, bounded.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: it ends nowhere, and holds one at a time"
    )]
    pub fn next(&mut self) -> Next {
        for _ in 0..TRIES_MAX {
            if let Some((_, held)) = self.current {
                return Next::Message(held);
            }
            let Some(delivery) = self.take() else { return Next::Nothing };
            self.current = self.hold(delivery).map(|held| (delivery, held));
            if self.current.is_none() {
                self.missed += 1;
                self.end(delivery);
            }
        }
        Next::Nothing
    }

    /// The message is done: nobody of the group gets it again.
    pub fn done(&mut self) {
        if let Some((delivery, _)) = self.current.take() {
            self.let_go();
            self.end(delivery);
        }
    }

    /// Gives the message back: a member of the group gets it again, this one if no other does.
    pub fn give_back(&mut self) {
        if self.current.take().is_some() {
            self.group.hand_back(self.code);
            // Others first: this one looks for it when there is nothing else.
            self.seen_returns = Some(self.group.count().load());
        }
    }

    /// What is `ahead` of what was taken, without taking it. `None` when it is not there yet, or gone, or will
    /// never be.
    #[must_use]
    pub fn peek(&self, ahead: u64) -> Option<Held> {
        let number = self.group.load_front().number.checked_add(ahead)?;
        self.leaders.have_let_go(number).then(|| self.topic.peek(number))?
    }

    fn take(&mut self) -> Option<Delivery<'a>> {
        let count = self.group.count().load();
        if self.seen_returns != Some(count) {
            if let Some(delivery) = self.take_returned() {
                return Some(delivery);
            }
            self.seen_returns = Some(count);
        }
        self.take_kept()
            .or_else(|| self.take_front())
            .or_else(|| self.take_returned())
            .or_else(|| self.take_abandoned())
    }

    /// A message that a member returned.
    fn take_returned(&mut self) -> Option<Delivery<'a>> {
        self.group.entries().find_map(|entry| {
            let raw = entry.load();
            let seen = Return::from_raw(raw).filter(|seen| seen.code == 0)?;
            if seen.number < self.floor {
                // Lost: another one did it.
                let _ = entry.cas(raw, 0);
                return None;
            }
            let mine = Return { code: self.code, ..seen }.raw();
            if mutation::is(Mutation::ReturnedWithoutExchange) {
                entry.store(mine);
            } else {
                // Acquire (M8): the looks of whoever gave it back come before ours. Lost: another one has it.
                entry.cas(raw, mine).ok()?;
            }
            let (number, attempts) = (seen.number, seen.attempts);
            Some(Delivery { number, attempts, entry: Some(entry) })
        })
    }

    /// A message that there was no room for among the returned ones.
    fn take_kept(&self) -> Option<Delivery<'a>> {
        let taken = self.seat().load_taken();
        let kept = Delivery { number: taken.number, attempts: 1, entry: None };
        if taken.has && taken.number < self.floor {
            self.end(kept);
            return None;
        }
        taken.has.then_some(kept)
    }

    /// A message that nobody had before.
    fn take_front(&mut self) -> Option<Delivery<'a>> {
        for _ in 0..TRIES_MAX {
            let front = self.group.load_front();
            if matches!(front.last, CLOSED | OPENING | CLOSING) {
                self.group.open(self.start);
                continue;
            }
            let number = front.number;
            if !self.leaders.let_go(number) {
                return None;
            }
            let moved = match self.topic.look_at(number) {
                Look::Nothing => return None,
                Look::Message(_) => Front { number: number + 1, last: self.code },
                Look::Aborted => Front { number: number + 1, last: NOBODY },
                Look::Overrun => {
                    let oldest = self.topic.oldest(self.topic.load_tail().next);
                    Front { number: oldest.max(number + 1), last: NOBODY }
                }
            };
            if !mutation::is(Mutation::TakeForgetsRecord) {
                self.group.record(front);
            }
            if self.group.move_front(front, moved).is_err() {
                continue;
            }
            if moved.last == self.code {
                self.group.record(moved);
                return Some(Delivery { number, attempts: 0, entry: None });
            }
            self.missed += moved.number - number;
        }
        None
    }

    /// A message that a member left in its seat, for want of room among the returned ones.
    fn take_abandoned(&mut self) -> Option<Delivery<'a>> {
        if mutation::is(Mutation::IdleForgetsSeats) {
            return None;
        }
        let code = self.group.codes().find(|&code| {
            let seat = self.group.seat(code);
            // The seat is ours for a moment, as if a member joined and left.
            seat.load_taken().has
                && seat.owner().load() == 0
                && seat.owner().cas_full(0, self.owner.into()).is_ok()
        })?;
        self.group.leave(code);
        self.take_returned()
    }

    /// Makes sure that the message stays; `None` when it is gone.
    fn hold(&self, delivery: Delivery<'a>) -> Option<Held> {
        let number = delivery.number;
        let Look::Message(entry) = self.topic.look_at(number) else { return None };
        let held = Held { seq: Seq::from_slot_number(number, self.topic.shape()), entry };
        // In a lossless topic the group's gate does it.
        let stays = self.topic.shape().flow == Flow::Lossless
            || self.topic.hold(self.seat().hold(), number, entry.place);
        stays.then_some(held)
    }

    fn let_go(&self) {
        if self.topic.shape().flow == Flow::Lossy {
            let_go(self.seat().hold());
        }
    }

    fn seat(&self) -> MemberSeat<'a> {
        self.group.seat(self.code)
    }

    /// The message is nobody's any more.
    fn end(&self, delivery: Delivery<'a>) {
        let (word, done) = match delivery.entry {
            Some(entry) => (entry, 0),
            None => (self.seat().taken(), Taken { number: delivery.number, has: false }.raw()),
        };
        if mutation::is(Mutation::DoneWithoutRelease) {
            word.store_relaxed(done);
        } else {
            // Release (M8): after our looks at it.
            word.store(done);
        }
    }
}

impl Drop for Member<'_> {
    /// Leaves; what it has goes to another member.
    fn drop(&mut self) {
        self.group.leave(self.code);
    }
}
