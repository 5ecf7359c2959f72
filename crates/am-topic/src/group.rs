//! A group: readers that share its messages. Where each message of it is, the words say (M8).

use crate::hold::let_go;
use crate::layout::{GROUPS, MEMBERS, READERS, Topic};
use crate::reader::Start;
use am_layout::Wide;
use am_layout::mutation::{self, Mutation};

/// The front of a group that keeps nothing.
pub(crate) const CLOSED: u64 = 0;
/// The front's last number was nobody's: skipped, or the group is fresh.
pub(crate) const NOBODY: u64 = 1;
/// Whoever joins says where the group begins.
pub(crate) const OPENING: u64 = 2;
/// Somebody closes the group, which keeps what it has until then; whoever joins makes the front nobody's again.
pub(crate) const CLOSING: u64 = 3;
/// The first member's code.
pub(crate) const FIRST_MEMBER: u64 = 4;
/// Bits of a code in an entry of the returns, and of the attempts. What is left is enough for half a century
/// at ten million messages a second.
const CODE_BITS: u32 = 6;
const ATTEMPTS_BITS: u32 = 4;
/// As many attempts, or more.
pub(crate) const ATTEMPTS_MAX: u8 = (1 << ATTEMPTS_BITS) - 1;
const _: () = assert!(MEMBERS as u64 + FIRST_MEMBER <= 1 << CODE_BITS);
/// Exchanges that opening a group loses to others before it gives up.
const TRIES_MAX: u32 = 1 << 10;

/// Why nobody can join a group, or close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGroup {
    /// All groups have other names.
    #[error("there are {GROUPS} groups already, closed ones included")]
    TooManyGroups,
    /// All its seats are taken.
    #[error("the group has {MEMBERS} members already")]
    TooManyMembers,
    /// It cannot be closed.
    #[error("the group has members still")]
    HasMembers,
}

/// What the front says: the number that is taken next, and who took the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    pub number: u64,
    pub last: u64,
}

impl Front {
    pub fn raw(self) -> u64 {
        self.number << 8 | self.last
    }

    fn from_raw(raw: u64) -> Self {
        Self { number: raw >> 8, last: raw & 0xff }
    }
}

/// What a member took from the front last, and whether it has it still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub number: u64,
    pub has: bool,
}

impl Taken {
    pub fn raw(self) -> u64 {
        self.number << 8 | u64::from(self.has)
    }

    fn from_raw(raw: u64) -> Self {
        Self { number: raw >> 8, has: raw & 1 == 1 }
    }
}

/// An entry of the returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Return {
    pub number: u64,
    /// How often it was delivered before, up to [`ATTEMPTS_MAX`].
    pub attempts: u8,
    /// Whose it is; 0 for nobody's.
    pub code: u64,
}

impl Return {
    pub fn raw(self) -> u64 {
        self.number << (CODE_BITS + ATTEMPTS_BITS)
            | u64::from(self.attempts) << CODE_BITS
            | self.code
    }

    /// `None` for a free entry.
    pub fn from_raw(raw: u64) -> Option<Self> {
        let entry = Self {
            number: raw >> (CODE_BITS + ATTEMPTS_BITS),
            attempts: (raw >> CODE_BITS) as u8 & ATTEMPTS_MAX,
            code: raw & ((1 << CODE_BITS) - 1),
        };
        (raw != 0).then_some(entry)
    }

    /// As it is after one more delivery came to nothing.
    pub fn once_more(self) -> Self {
        Self { attempts: ATTEMPTS_MAX.min(self.attempts + 1), code: 0, ..self }
    }
}

/// One group of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    topic: Topic<'a>,
    index: usize,
    head: &'a [Wide],
    members: &'a [Wide],
    returns: &'a [Wide],
}

/// A member's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberSeat<'a>(&'a [Wide]);

impl<'a> MemberSeat<'a> {
    /// Who is the member, as headers name owners; 0 for nobody.
    pub fn owner(&self) -> &'a Wide {
        &self.0[0]
    }

    /// What it [took](Taken) from the front.
    pub fn taken(&self) -> &'a Wide {
        &self.0[1]
    }

    /// The place that it looks at, in a lossy topic; 0 for none.
    pub fn hold(&self) -> &'a Wide {
        &self.0[2]
    }

    pub fn load_taken(&self) -> Taken {
        Taken::from_raw(self.taken().load())
    }
}

impl<'a> Group<'a> {
    pub fn over(
        topic: Topic<'a>,
        index: usize,
        head: &'a [Wide],
        members: &'a [Wide],
        returns: &'a [Wide],
    ) -> Self {
        Self { topic, index, head, members, returns }
    }

    /// The group's name; 0 for none yet. It stays.
    fn name(&self) -> &'a Wide {
        &self.head[0]
    }

    pub fn front(&self) -> &'a Wide {
        &self.head[1]
    }

    /// How often a message was returned: a hint that there may be one.
    pub fn count(&self) -> &'a Wide {
        &self.head[2]
    }

    /// Where the group was opened last: what taken words and entries have below was given up when it was closed.
    /// It does not change while there are members.
    pub fn floor(&self) -> &'a Wide {
        &self.head[3]
    }

    pub fn load_front(&self) -> Front {
        Front::from_raw(self.front().load())
    }

    /// The codes of all seats.
    pub fn codes(&self) -> impl Iterator<Item = u64> + use<> {
        FIRST_MEMBER..FIRST_MEMBER + MEMBERS as u64
    }

    pub fn seat(&self, code: u64) -> MemberSeat<'a> {
        let len = self.members.len() / MEMBERS;
        MemberSeat(&self.members[(code - FIRST_MEMBER) as usize * len..][..len])
    }

    /// A member's number among all [seats](crate::SEATS) of the topic.
    pub fn seat_number(&self, code: u64) -> usize {
        READERS + self.index * MEMBERS + (code - FIRST_MEMBER) as usize
    }

    pub fn entries(&self) -> core::slice::Iter<'a, Wide> {
        self.returns.iter()
    }

    /// The lowest number that the group has not done; `None` when it keeps nothing.
    pub fn gate(&self) -> Option<u64> {
        if mutation::is(Mutation::GateFromBehind) {
            let floor = self.floor().load();
            let returned = self.lowest_returned(floor);
            let taken = self.lowest_taken(self.load_front(), floor);
            let front = self.load_front();
            return (front.last != CLOSED).then(|| front.number.min(taken).min(returned));
        }
        // Acquire, all, in the order in which a number moves (M8): what has left a place by the time that we look
        // there is seen in the next one.
        let front = self.load_front();
        match front.last {
            CLOSED => return None,
            OPENING => return Some(front.number),
            _ => {}
        }
        let floor = self.floor().load();
        let taken = self.lowest_taken(front, floor);
        Some(front.number.min(taken).min(self.lowest_returned(floor)))
    }

    /// The lowest number from `floor` on that a taken word has, or will have: that of the member whom the front
    /// names may not be written yet.
    fn lowest_taken(&self, front: Front, floor: u64) -> u64 {
        let lowest = |code| {
            let taken = self.seat(code).load_taken();
            let is_unwritten = code == front.last && taken.number + 1 < front.number;
            let unwritten = is_unwritten && !mutation::is(Mutation::GateForgetsUnwritten);
            let has = taken.has && taken.number >= floor;
            let written = if has { taken.number } else { u64::MAX };
            if unwritten { written.min(front.number - 1) } else { written }
        };
        self.codes().map(lowest).fold(u64::MAX, u64::min)
    }

    /// The lowest number from `floor` on that an entry has.
    fn lowest_returned(&self, floor: u64) -> u64 {
        let entries = self.entries().filter_map(|entry| Return::from_raw(entry.load()));
        let kept = entries.map(|entry| entry.number).filter(|&number| number >= floor);
        kept.fold(u64::MAX, u64::min)
    }

    /// Tells whether a member looks at the message at this place.
    pub fn is_holding(&self, raw: u64) -> bool {
        self.name().load() != 0 && self.codes().any(|code| self.seat(code).hold().load() == raw)
    }

    /// Records what the last taker took: before anybody moves the front on (M8).
    pub fn record(&self, front: Front) {
        if !self.codes().any(|code| code == front.last) {
            return;
        }
        let taken = self.seat(front.last).taken();
        let (seen, number) = (taken.load(), front.number.saturating_sub(1));
        if Taken::from_raw(seen).number < number {
            let recorded = Taken { number, has: true }.raw();
            if mutation::is(Mutation::RecordWithoutExchange) {
                taken.store(recorded);
            } else {
                // Lost: the taker, or another helper, was here.
                let _ = taken.cas(seen, recorded);
            }
        }
    }

    /// Moves the front on from what was seen, when that is [recorded](Self::record).
    pub fn move_front(&self, seen: Front, moved: Front) -> Result<(), u64> {
        if mutation::is(Mutation::FrontWithoutRelease) {
            self.front().cas_relaxed(seen.raw(), moved.raw())
        } else {
            // Acquire and release (M8): whoever sees the front moved on sees the one before recorded.
            self.front().cas(seen.raw(), moved.raw())
        }
    }

    /// Lists what a member took from the front as its own returned message; false when there is no room.
    fn list(&self, code: u64, number: u64) -> bool {
        let code = if mutation::is(Mutation::ListAsNobodys) { 0 } else { code };
        let entry = Return { number, attempts: 0, code };
        self.entries().any(|free| free.load() == 0 && free.cas(0, entry.raw()).is_ok())
            || mutation::is(Mutation::FullForgetsTaken)
    }

    /// Gives back all that a member has, which is dead or does nothing else. What there is no room for stays
    /// in its taken word.
    pub fn hand_back(&self, code: u64) {
        let front = self.load_front();
        if front.last == code && !mutation::is(Mutation::RecoverForgetsFront) {
            self.record(front);
        }
        let seat = self.seat(code);
        let_go(seat.hold());
        self.hand_back_taken(code, seat);
        for entry in self.entries() {
            if let Some(seen) = Return::from_raw(entry.load()).filter(|seen| seen.code == code) {
                if mutation::is(Mutation::ReturnWithoutRelease) {
                    entry.store_relaxed(seen.once_more().raw());
                } else {
                    // Release (M8): whoever takes it comes after the looks at it.
                    entry.store(seen.once_more().raw());
                }
            }
        }
        self.count().increment_full();
    }

    /// Lists what a member has from the front.
    fn hand_back_taken(&self, code: u64, seat: MemberSeat<'a>) {
        let taken = seat.load_taken();
        if !taken.has {
            return;
        }
        let done = Taken { has: false, ..taken }.raw();
        if mutation::is(Mutation::ListAfterTaken) {
            seat.taken().store(done);
        }
        if !self.is_listed(code, taken.number) && !self.list(code, taken.number) {
            return;
        }
        if mutation::is(Mutation::TakenWithoutRelease) {
            seat.taken().store_relaxed(done);
        } else {
            // Release (M8): after its entry is there, which bears the same code.
            seat.taken().store(done);
        }
    }

    /// Gives back all that a member has, and its seat.
    pub fn leave(&self, code: u64) {
        self.hand_back(code);
        // Release: after all that is given back.
        self.seat(code).owner().store(0);
    }

    fn is_listed(&self, code: u64, number: u64) -> bool {
        let mut entries = self.entries().filter_map(|entry| Return::from_raw(entry.load()));
        entries.any(|entry| entry.code == code && entry.number == number)
    }

    /// Takes a seat; `None` when all are taken.
    pub fn sit(&self, owner: u32) -> Option<u64> {
        self.codes().find(|&code| {
            let seat = self.seat(code).owner();
            let sit = || {
                if mutation::is(Mutation::SitWithoutBarrier) {
                    seat.cas(0, owner.into())
                } else {
                    // Full barrier (M9): then look at the front. Whoever closes the group sees us, or we see that.
                    seat.cas_full(0, owner.into())
                }
            };
            seat.load_relaxed() == 0 && sit().is_ok()
        })
    }

    /// Opens the group, if it is closed, where `start` says, but not before where it was closed. Called by whoever
    /// has a seat.
    pub fn open(&self, start: Start) {
        for _ in 0..TRIES_MAX {
            let front = self.load_front();
            let opened = match front.last {
                // The gate is there; then everybody is told.
                CLOSED => {
                    let oldest = self.topic.oldest(self.topic.load_tail().next);
                    Front { number: oldest.max(front.number), last: OPENING }
                }
                OPENING => self.opened(front, start),
                CLOSING if !mutation::is(Mutation::JoinKeepsClosing) => {
                    Front { last: NOBODY, ..front }
                }
                _ => return,
            };
            // Lost: another one did it.
            let _ = self.front().cas_full(front.raw(), opened.raw());
        }
    }

    fn opened(&self, front: Front, start: Start) -> Front {
        let floor = self.floor().load();
        if floor < front.number && !mutation::is(Mutation::OpenForgetsFloor) {
            // Lost: another one opens it.
            let _ = self.floor().cas(floor, front.number);
        }
        if !mutation::is(Mutation::OpenForgetsToTell) {
            // Full barrier (M9): whoever claims more than the one batch that `oldest` allows for knows of the group.
            self.topic.joins().increment_full();
        }
        let next = self.topic.load_tail().next;
        let number = start.number(self.topic.oldest(next), next, self.topic.shape());
        Front { number: number.max(front.number), last: NOBODY }
    }

    /// Closes the group: it keeps nothing, until somebody joins.
    fn close(&self, owner: u32) -> Result<(), NoGroup> {
        if self.load_front().last == CLOSED {
            return Ok(());
        }
        // A seat of its own, which a death gives back: of two who close it at once one sees the other.
        let code = self.sit(owner).ok_or(NoGroup::HasMembers)?;
        let closed = self.close_from(code);
        // Release: after all that was done in it.
        self.seat(code).owner().store(0);
        closed
    }

    fn close_from(&self, code: u64) -> Result<(), NoGroup> {
        self.is_alone(code)?;
        let front = self.load_front();
        let closed = |front: Front| Front { last: CLOSED, ..front };
        let lost = |_| NoGroup::HasMembers;
        match front.last {
            CLOSED => return Ok(()),
            // Nobody has taken anything yet.
            OPENING => {
                return self.front().cas_full(front.raw(), closed(front).raw()).map_err(lost);
            }
            _ => self.record(front),
        }
        let closing = Front { last: CLOSING, ..front };
        let told = if mutation::is(Mutation::CloseWithoutBarrier) {
            self.front().cas(front.raw(), closing.raw())
        } else {
            // Full barrier (M9): whoever takes a seat sees this, or is seen below.
            self.front().cas_full(front.raw(), closing.raw())
        };
        told.map_err(lost)?;
        if !mutation::is(Mutation::CloseForgetsSecondLook)
            && let Err(members) = self.is_alone(code)
        {
            // Lost: one of them did it.
            let _ = self.front().cas(closing.raw(), Front { last: NOBODY, ..front }.raw());
            return Err(members);
        }
        // Lost: somebody joined.
        self.front().cas_full(closing.raw(), closed(front).raw()).map_err(lost)
    }

    /// Makes sure that all seats but that one are free.
    fn is_alone(&self, code: u64) -> Result<(), NoGroup> {
        let mut others = self.codes().filter(|&other| other != code);
        let free = others.all(|other| self.seat(other).owner().load() == 0);
        free.then_some(()).ok_or(NoGroup::HasMembers)
    }
}

impl<'a> Topic<'a> {
    /// The group of that name (not 0), made if there is none.
    pub(crate) fn group(&self, name: u64) -> Option<Group<'a>> {
        // All look from the first on, and names stay: no two groups have one name.
        self.groups().find(|group| match group.name().load() {
            0 => group.name().cas_full(0, name).map_or_else(|now| now == name, |()| true),
            seen => seen == name,
        })
    }

    /// Closes the group of that name (not 0), for an owner as headers name it (not 0): it keeps nothing any more,
    /// and what it has not done is given up. When somebody joins it again, it does not go back behind what it had
    /// taken.
    ///
    /// Wait-free.
    ///
    /// # Errors
    /// [`NoGroup::HasMembers`], also when another one closes it at the same time; then it lasts, and keeps all.
    pub fn close_group(&self, name: u64, owner: u32) -> Result<(), NoGroup> {
        let group = self.groups().find(|group| group.name().load() == name);
        group.map_or(Ok(()), |group| group.close(owner))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
