//! The roster: who uses the segment, and what each thread is about to do.
//!
//! The first line says how many lanes were ever in use, so that nobody looks at the others.
//!
//! * A **slot** stands for one participant, an attachment that some process made. Its state word
//!   says whether it is taken, and how often it was; whether its holder still lives, the kernel
//!   knows: a living holder has a lock on the byte of the segment's file where the state lies.
//! * A **lane** stands for one thread. It names its owner, and for each sector the thread's
//!   *intent*: the granules `[at, end)` that may be in limbo because of it. An end of 0 means that
//!   the thread is in no operation there.
//!
//! | slot word | meaning |
//! |---|---|
//! | 0 | state: 2 × times taken + 1 while taken |
//! | 1 | process id of the holder, in its own namespace; for people |
//! | 2, 3 | when it was taken, in milliseconds since 1970, low and high half; for people |
//!
//! | lane word | meaning |
//! |---|---|
//! | 0 | owner: 0 nobody, slot + 1, [`RECOVERER`]; with [`SHARED`] when several threads share it |
//! | 2 + 2 *s* | sector *s*: first granule of the intent; in a shared lane, operations in flight |
//! | 3 + 2 *s* | sector *s*: granule behind the intent; 0 for none |

use crate::Word;
use crate::geometry::SECTORS;
use core::ops::Range;

/// Participants that a segment can have at once.
#[cfg(not(loom))]
pub const SLOTS: usize = 128;
/// Participants that a segment can have at once.
#[cfg(loom)]
pub const SLOTS: usize = 1;
/// Threads that can have a lane of their own at once, over all participants.
#[cfg(not(loom))]
pub const LANES: usize = 512;
/// Threads that can have a lane of their own at once, over all participants.
#[cfg(loom)]
pub const LANES: usize = 4;
/// Words of a slot, and of a lane: a cache line each.
#[cfg(not(loom))]
pub const LINE_WORDS: usize = 16;
/// Words of a slot, and of a lane.
#[cfg(loom)]
pub const LINE_WORDS: usize = 8;
/// Words of the roster: a line of its own, the slots, the lanes.
pub const ROSTER_WORDS: usize = (1 + SLOTS + LANES) * LINE_WORDS;
/// Word of the first slot's state.
pub const SLOTS_AT: usize = LINE_WORDS;

/// Owner of the lane of whoever recovers.
pub const RECOVERER: u32 = 0x7fff_ffff;
/// Bit in a lane's owner: threads without a lane of their own share this one.
pub const SHARED: u32 = 0x8000_0000;

const STATE: usize = 0;
const PID: usize = 1;
const SINCE: usize = 2;
const OWNER: usize = 0;
const INTENTS: usize = 2;
const _: () = assert!(INTENTS + 2 * SECTORS <= LINE_WORDS);

/// The roster of a segment: a view over its words.
#[derive(Clone, Copy, Debug)]
pub struct Roster<'a> {
    /// How many lanes were ever in use; those behind have told nothing yet.
    lanes_used: &'a Word,
    slots: &'a [Word],
    lanes: &'a [Word],
}

/// One participant's slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a>(&'a [Word]);

/// What a slot's state word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState(u32);

impl SlotState {
    /// Tells whether somebody has the slot.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.0 & 1 == 1
    }

    /// The state of the same slot when it is taken the next time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 | 1).wrapping_add(2) | 1)
    }

    /// The state of the same slot when its holder is gone.
    #[must_use]
    pub const fn left(self) -> Self {
        Self(self.0 & !1)
    }
}

impl<'a> Roster<'a> {
    /// Looks at `words` as a roster; `None` when there are too few for a slot and a lane.
    #[must_use]
    pub fn new(words: &'a [Word]) -> Option<Self> {
        let (own, rest) = words.split_at_checked(SLOTS_AT)?;
        let (slots, lanes) = rest.split_at_checked(SLOTS * LINE_WORDS)?;
        (lanes.len() >= LINE_WORDS).then_some(Self { lanes_used: &own[0], slots, lanes })
    }

    /// Returns the slot of that number.
    #[must_use]
    pub fn slot(&self, number: usize) -> Option<Slot<'a>> {
        self.slots.chunks_exact(LINE_WORDS).nth(number).map(Slot)
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'a>> + use<'a> {
        self.slots.chunks_exact(LINE_WORDS).map(Slot)
    }

    /// Every lane that was ever in use.
    pub fn lanes(&self) -> impl Iterator<Item = RosterLane<'a>> + use<'a> {
        let used = self.lanes_used.load() as usize;
        self.lanes.chunks_exact(LINE_WORDS).take(used).map(RosterLane)
    }

    /// Takes the first lane of these numbers that nobody has.
    #[must_use]
    pub fn claim(&self, numbers: Range<usize>, owner: u32) -> Option<RosterLane<'a>> {
        let lanes = self.lanes.chunks_exact(LINE_WORDS).map(RosterLane).enumerate();
        for (number, lane) in lanes.take(numbers.end).skip(numbers.start) {
            // Before the lane tells anything, so that whoever looks, looks at it too. It only ever
            // grows, so that an exchange is lost at most once per lane.
            let used = number as u32 + 1;
            for _ in 0..LANES {
                let seen = self.lanes_used.load();
                if seen >= used || self.lanes_used.cas(seen, used).is_ok() {
                    break;
                }
            }
            if lane.claim(owner) {
                return Some(lane);
            }
        }
        None
    }
}

impl Slot<'_> {
    /// Reads the state.
    #[must_use]
    pub fn state(&self) -> SlotState {
        SlotState(self.0[STATE].load())
    }

    /// Changes the state if it is still `from`; tells whether it did.
    #[must_use]
    pub fn change(&self, from: SlotState, to: SlotState) -> bool {
        self.0[STATE].cas(from.0, to.0).is_ok()
    }

    /// Writes down, for people, whose slot it is.
    pub fn describe(&self, pid: u32, since_ms: u64) {
        self.0[PID].store_relaxed(pid);
        self.0[SINCE].store_relaxed(since_ms as u32);
        self.0[SINCE + 1].store_relaxed((since_ms >> 32) as u32);
    }

    /// Process id of the holder in its own namespace: an allegation.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0[PID].load_relaxed()
    }

    /// When the slot was taken, in milliseconds since 1970: an allegation.
    #[must_use]
    pub fn since_ms(&self) -> u64 {
        u64::from(self.0[SINCE].load_relaxed()) | u64::from(self.0[SINCE + 1].load_relaxed()) << 32
    }
}

/// One thread's lane, as everybody sees it.
#[derive(Clone, Copy, Debug)]
pub struct RosterLane<'a>(&'a [Word]);

impl<'a> RosterLane<'a> {
    /// Reads the owner, [`SHARED`] bit included; 0 for nobody.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.0[OWNER].load()
    }

    /// Takes the lane if nobody has it; tells whether it did.
    fn claim(&self, owner: u32) -> bool {
        self.0[OWNER].load() == 0 && self.0[OWNER].cas(0, owner).is_ok()
    }

    /// Gives the lane up. Its owner is in no operation, or dead with nothing left to recover.
    pub fn release(&self) {
        for sector in 0..SECTORS {
            self.forget(sector);
        }
        self.0[OWNER].store(0);
    }

    /// Reads what the lane's threads are about to do in `sector`, and whose lane it is.
    ///
    /// # Panics
    /// When there is no such sector.
    #[must_use]
    pub fn told(&self, sector: usize) -> (u32, Told) {
        let Intent { at, end } = self.intent(sector);
        // The range may change between two loads. One end of it alone is not to be believed: the
        // smaller of two looks at the beginning covers whatever was meant when the end was read.
        let before = at.load();
        let end = end.load();
        let at = before.min(at.load());
        // The owner last: who sees an intent (acquire) sees whose it is, and of which kind.
        let owner = self.owner();
        let told = match owner & SHARED {
            0 if end == 0 => Told::Nothing,
            0 => Told::Range(at, end),
            _ if before == 0 => Told::Nothing,
            _ => Told::Anything,
        };
        (owner, told)
    }

    /// Takes back what a dead thread told of `sector`: nothing of it is in limbo any more.
    ///
    /// # Panics
    /// When there is no such sector.
    pub fn forget(&self, sector: usize) {
        let Intent { at, end } = self.intent(sector);
        end.store(0);
        at.store(0);
    }

    /// The intent for `sector`, below [`SECTORS`].
    ///
    /// # Panics
    /// When there is no such sector.
    #[must_use]
    pub fn intent(&self, sector: usize) -> Intent<'a> {
        assert!(sector < SECTORS, "no sector {sector}");
        let at = INTENTS + 2 * sector;
        Intent { at: &self.0[at], end: &self.0[at + 1] }
    }
}

/// What a thread is about to do in one sector: the two words of a lane.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// First granule; in a shared lane the number of operations in flight.
    pub at: &'a Word,
    /// Granule behind the last; 0 for none.
    pub end: &'a Word,
}

/// What a lane says of one sector, read by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// In no operation.
    Nothing,
    /// Granules `[at, end)` may be in limbo, or more than were.
    Range(u32, u32),
    /// Anything may be in limbo: threads without a lane of their own are at work.
    Anything,
}

impl Told {
    /// Tells whether a granule of `[at, end)` is concerned.
    #[must_use]
    pub fn concerns(self, at: u32, end: u32) -> bool {
        match self {
            Told::Nothing => false,
            Told::Range(first, behind) => first < end && at < behind,
            Told::Anything => true,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words() -> Vec<Word> {
        (0..ROSTER_WORDS).map(|_| Word::new(0)).collect()
    }

    #[test]
    fn slot_state_of_every_turn_differs_from_the_last() {
        let fresh = SlotState(0);
        assert!(!fresh.is_taken());
        let first = fresh.next();
        assert!(first.is_taken() && !first.left().is_taken());
        let second = first.left().next();
        assert!(second.is_taken() && second != first);
        assert!(SlotState(u32::MAX - 1).next().is_taken());
    }

    #[test]
    fn lane_is_claimed_once_until_it_is_released() {
        let words = words();
        let roster = Roster::new(&words).unwrap();
        assert_eq!(roster.lanes().count(), 0);
        let lane = roster.claim(2..LANES, 3).unwrap();
        assert_eq!(roster.lanes().count(), 3);
        assert!(!lane.claim(4));
        lane.intent(1).at.store(10);
        lane.intent(1).end.store(12);
        assert_eq!(lane.told(1), (3, Told::Range(10, 12)));
        assert!(Told::Range(10, 12).concerns(11, 30) && !Told::Range(10, 12).concerns(12, 30));
        lane.release();
        assert_eq!(lane.told(1), (0, Told::Nothing));
        assert!(lane.claim(4));
    }

    #[test]
    fn lane_that_is_shared_tells_of_anything_while_somebody_operates() {
        let words = words();
        let lane = Roster::new(&words).unwrap().claim(LANES - 1..LANES, 3 | SHARED).unwrap();
        assert_eq!(lane.told(0), (3 | SHARED, Told::Nothing));
        lane.intent(0).at.increment_full();
        assert_eq!(lane.told(0), (3 | SHARED, Told::Anything));
    }
}
