//! Giving back what the dead left behind, beside live traffic.
//!
//! A thread that dies inside an operation leaves limbo: granules that belong to nobody. It told
//! which ones that may be, in its lane's intent (I9). So a recoverer looks there, and there only.
//! But the limbo that it finds there may be a living thread's by now. The proof that it is not:
//!
//! 1. *suspect* the range: say so in the sector's control words – full barrier;
//! 2. *first look*: no living lane's intent concerns the range;
//! 3. read the words: what is in limbo there?
//! 4. *second look*: still no living lane's intent concerns the range, and none said that it dealt
//!    with it in the meantime.
//!
//! Had a living thread owned a granule of it at step 3, then it came by it before step 1, and the
//! first look saw its intent; or after, and then it saw the suspicion and said so before it took its
//! intent back, unless the second look saw that intent still (E8). So what is in limbo at step 3 is
//! nobody's, and stays so: the dead do nothing, and of recoverers there is one at a time. No step
//! waits: a look that fails is tried again a few times, then left to a later recovery.

use crate::ripple::{Range, give_back};
use am_layout::mutation::{self, Mutation};
use am_layout::roster::{Roster, Told};
use am_layout::{Event, Seen, State, head};
use am_tlsf::{Headers, Lane, Sector};

/// Looks at one suspect before it is left to a later recovery.
#[cfg(not(loom))]
const LOOKS_MAX: u32 = 16;
#[cfg(loom)]
const LOOKS_MAX: u32 = 2;
/// Lengths of the sector that the dead's intents may add up to, in one recovery.
const RANGES_MAX: u64 = 8;

/// Something of the dead's that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Granules that an operation which never ended had in hand went back.
    Limbo {
        /// First granule.
        at: u32,
        /// Length in granules.
        len: u32,
    },
    /// A block that a guard held went back.
    Held {
        /// Granule of the head.
        at: u32,
        /// Length in granules.
        len: u32,
    },
    /// A block that was parked in a thread cache went back.
    Cached {
        /// Granule of the head.
        at: u32,
        /// Length in granules.
        len: u32,
    },
    /// A range was left to a later recovery: a living thread may be concerned by it.
    Deferred {
        /// Whose it was, as lanes and headers name owners.
        owner: u32,
    },
}

/// One sector as a recoverer sees it. Of all recoverers of a segment only one may be at work.
#[derive(Debug)]
pub struct Recoverer<'r, 's, 'w, H, D> {
    sector: &'r Sector<'s, H>,
    /// The recoverer's own lane, which is in no operation.
    lane: &'r Lane<'w>,
    roster: Roster<'w>,
    /// Number of the sector in the roster.
    number: usize,
    /// Tells of an owner, as lanes and headers name it, whether it is dead.
    dead: D,
}

/// What a piece of the sector is, to a recoverer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A block in somebody's hands, or a free one, behind whose end the next piece begins.
    Block { end: u32 },
    /// A head in flight, or the dead's: `word` is what its word says.
    Orphan { range: Range, word: u32 },
    /// Granules that no head covers. `left` is the head before them.
    Gap { range: Range, left: Option<u32> },
}

/// Whether the header of a block in this state says whose it is.
fn is_owned(state: State) -> bool {
    match state {
        State::Held => true,
        State::Cached => !mutation::is(Mutation::RecoverForgetsCached),
        _ => false,
    }
}

/// A look was disturbed: somebody living may be concerned.
struct Disturbed;

impl<'r, 's, 'w, H: Headers, D: Fn(u32) -> bool> Recoverer<'r, 's, 'w, H, D> {
    /// Makes a recoverer for the sector that the roster calls `number` (below `SECTORS`).
    ///
    /// `dead` must give the same answers throughout, those of a list made before: everything that the dead
    /// of the list did must happen before the recoverer looks (E9). Who dies meanwhile is not on it.
    pub fn new(
        sector: &'r Sector<'s, H>,
        lane: &'r Lane<'w>,
        roster: Roster<'w>,
        number: usize,
        dead: D,
    ) -> Self {
        Self { sector, lane, roster, number, dead }
    }

    /// Gives back everything that dead owners left in the sector, and repairs hints.
    ///
    /// `found` is told of each range that went back, and of each that had to be left to a later
    /// recovery, because a living thread may be concerned by it. Owners of whom nothing is left are
    /// done with, in this sector. Lock-free, bounded: a walk over the sector, and two looks at the
    /// roster per range found.
    pub fn recover(&self, mut found: impl FnMut(Found)) {
        // A recoverer that died may have left its suspicion, which costs the living time.
        self.sector.acquit();
        // Before an intent of the dead is taken back: until the walk at the end, hints may be missing (E16).
        if !mutation::is(Mutation::RecoverForgetsLoose) {
            self.sector.loosen();
        }
        self.collect_limbo(&mut found);
        self.sweep(&mut found);
    }

    /// The first half of [`recover`](Self::recover): what the dead's intents tell of.
    pub fn collect_limbo(&self, found: &mut (impl FnMut(Found) + ?Sized)) {
        // Each intent is followed through its whole range. Where the dead's intents overlap more than
        // they do by themselves, somebody scribbled, and the rest waits.
        let mut budget = RANGES_MAX * u64::from(self.sector.len());
        for lane in self.roster.lanes() {
            let (owner, told) = lane.told(self.number);
            if !(self.dead)(owner) {
                continue;
            }
            let (at, end) = match told {
                Told::Nothing => continue,
                Told::Range(at, end) => (at, end.min(self.sector.len())),
                Told::Anything => (0, self.sector.len()),
            };
            let len = u64::from(end.saturating_sub(at));
            if len > budget {
                found(Found::Deferred { owner });
            } else if self.collect(owner, at, end, found) {
                // Nothing of it is in limbo any more, so it need not be looked at again.
                lane.forget(self.number);
            }
            budget = budget.saturating_sub(len);
        }
    }

    /// Judges one range, as if it had looked like limbo a moment ago: the proof must hold whatever made
    /// it suspect. For the models.
    #[cfg(loom)]
    pub fn judge(&self, at: u32, len: u32, found: &mut (impl FnMut(Found) + ?Sized)) {
        self.settle(0, Range { head: at, len }, found);
    }

    /// Looks for limbo in `[at, end)` and gives back what is nobody's; tells whether none is left.
    fn collect(
        &self,
        owner: u32,
        at: u32,
        end: u32,
        found: &mut (impl FnMut(Found) + ?Sized),
    ) -> bool {
        let mut all = true;
        let mut place = at;
        // Bounded: every piece ends behind where it begins.
        while place < end {
            let (range, next) = match self.piece_at(place, end) {
                Piece::Block { end } => (None, end),
                Piece::Orphan { range, .. } | Piece::Gap { range, .. } => {
                    (Some(range), range.end())
                }
            };
            if let Some(range) = range {
                all &= self.settle(owner, range, found);
            }
            place = next.max(place + 1);
        }
        all
    }

    /// The second half of [`recover`](Self::recover): walks the sector, gives back blocks that the dead
    /// held or had parked, lets unmerged neighbours merge, and repairs hints.
    pub fn sweep(&self, found: &mut (impl FnMut(Found) + ?Sized)) {
        let mut at = 0;
        while at < self.sector.len() {
            let len = match self.sector.seen_at(at) {
                Seen::Head(state @ (State::Held | State::Cached), len) => {
                    let owner = self.sector.headers.owner(at);
                    if (self.dead)(owner) && is_owned(state) {
                        self.settle(owner, Range { head: at, len }, found);
                    }
                    len
                }
                Seen::Head(_, len) => len,
                _ => 1,
            };
            at = at.saturating_add(len.max(1));
        }
        crate::heal::repair(self.sector, self.lane);
    }

    /// Gives back what is nobody's in `range`, piece by piece; tells whether nothing is left.
    fn settle(&self, owner: u32, range: Range, found: &mut (impl FnMut(Found) + ?Sized)) -> bool {
        let (mut at, end) = (range.head, range.end());
        let mut disturbed = 0;
        // Bounded: every turn goes on behind a piece, or counts as disturbed.
        while at < end && disturbed < LOOKS_MAX {
            match self.prove(Range { head: at, len: end - at }) {
                Ok(None) => return true,
                // What lies before it is somebody's, or a living thread's limbo: go on behind it.
                Ok(Some(piece)) => match self.give_back(piece, found) {
                    Some(back) => at = back.end().max(at + 1),
                    None => disturbed += 1,
                },
                Err(Disturbed) => disturbed += 1,
            }
        }
        if at < end {
            found(Found::Deferred { owner });
        }
        at >= end
    }

    /// The first piece in `range` that is nobody's, proven; `None` when there is none.
    fn prove(&self, range: Range) -> Result<Option<Piece>, Disturbed> {
        self.sector.suspect(range.head, range.end());
        let proven = self.look_twice(range);
        self.sector.acquit();
        proven
    }

    fn look_twice(&self, range: Range) -> Result<Option<Piece>, Disturbed> {
        if !mutation::is(Mutation::RecoverForgetsFirstLook) {
            self.look(range)?;
        }
        let piece = self.orphan_in(range)?;
        if !mutation::is(Mutation::RecoverForgetsSecondLook) {
            self.look(range)?;
        }
        if self.sector.was_touched() && !mutation::is(Mutation::RecoverForgetsTouched) {
            return Err(Disturbed);
        }
        Ok(piece)
    }

    /// Looks whether a living thread tells that it is concerned by `range`.
    fn look(&self, range: Range) -> Result<(), Disturbed> {
        for lane in self.roster.lanes() {
            let (owner, told) = lane.told(self.number);
            if told.concerns(range.head, range.end()) && !(self.dead)(owner) {
                return Err(Disturbed);
            }
        }
        Ok(())
    }

    /// The first piece in `range` that may be nobody's.
    fn orphan_in(&self, range: Range) -> Result<Option<Piece>, Disturbed> {
        let mut at = range.head;
        while at < range.end() {
            match self.piece_at(at, range.end()) {
                Piece::Block { end } => at = end.max(at + 1),
                // It begins or ends outside what was suspected: it is not what was seen before.
                Piece::Orphan { range: orphan, .. }
                    if orphan.head < range.head || orphan.end() > range.end() =>
                {
                    return Err(Disturbed);
                }
                piece => return Ok(Some(piece)),
            }
        }
        Ok(None)
    }

    /// What covers granule `at`; a gap is cut off at `at` and at `end`.
    fn piece_at(&self, at: u32, end: u32) -> Piece {
        // The nearest head at or before `at`. Bounded by the sector's length.
        let mut left = None;
        for granule in (0..=at).rev() {
            if let Seen::Head(state, len) = self.sector.seen_at(granule) {
                if granule + len > at {
                    return self.block_or_orphan(state, Range { head: granule, len });
                }
                left = Some(granule);
                break;
            }
        }
        let is_head = |&granule: &u32| matches!(self.sector.seen_at(granule), Seen::Head(..));
        let behind = (at + 1..end).find(is_head).unwrap_or(end);
        Piece::Gap { range: Range { head: at, len: behind.saturating_sub(at).max(1) }, left }
    }

    fn block_or_orphan(&self, state: State, range: Range) -> Piece {
        let orphan = Piece::Orphan { range, word: head(state, range.len) };
        match state {
            State::Acked | State::Coalescing => orphan,
            _ if is_owned(state) && (self.dead)(self.sector.headers.owner(range.head)) => orphan,
            _ => Piece::Block { end: range.end() },
        }
    }

    /// Takes a piece that is nobody's, lets it flow, and returns it; `None` when it is not what was
    /// seen.
    fn give_back(&self, piece: Piece, found: &mut (impl FnMut(Found) + ?Sized)) -> Option<Range> {
        let range = match piece {
            Piece::Block { .. } => return None,
            Piece::Orphan { range, .. } | Piece::Gap { range, .. } => range,
        };
        let Range { head: at, len } = range;
        self.lane.begin(at, at + len);
        match piece {
            Piece::Block { .. } => {}
            Piece::Gap { left, .. } => {
                if let Some(left) = left {
                    self.sector.headers.set_left(at, left);
                }
                found(Found::Limbo { at, len });
            }
            Piece::Orphan { word, .. } => {
                // Acquire (E2): sees what the dead wrote. One recoverer is at work, so this fails
                // only when somebody scribbled.
                if self.sector.word(at).cas_full(word, head(State::Acked, len)).is_err() {
                    self.lane.abandon();
                    return None;
                }
                found(match Seen::decode(word) {
                    Seen::Head(State::Held, _) => Found::Held { at, len },
                    Seen::Head(State::Cached, _) => Found::Cached { at, len },
                    _ => Found::Limbo { at, len },
                });
            }
        }
        self.sector.count(Event::Recovered);
        give_back(self.sector, self.lane, range);
        Some(range)
    }
}
