//! Who is attached, and giving back what the dead left behind.

use crate::attachment::{Attachment, dead, leave, lock_byte, owner};
use crate::error::SectorId;
use crate::liveness::Liveness;
use crate::matrix::Matrix;
use crate::names::settle_dead;
use crate::part::Part;
use crate::topics::recover_topics;
use am_layout::names::Names;
use am_layout::roster::{LANES, RECOVERER, Roster, RosterLane, SHARED, SLOTS, SlotState, Told};
use am_layout::{GUARD_BYTES, SECTORS, Seen, State};
use am_ripple::{Found, Recoverer};
use am_tlsf::{Headers, Lane};
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tries to become the recoverer, by an attachment that leaves forgotten guards behind.
const LEAVE_TRIES: u32 = 1000;
/// The byte of the segment whose lock its one recoverer holds: the first of the head.
pub(crate) const RECOVERY_LOCK_BYTE: u64 = GUARD_BYTES as u64;

/// A participant: one attachment that some process made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// Its place in the segment's roster, below 128.
    pub slot: u32,
    /// Its process, as that process saw its own id when it attached: in another PID namespace
    /// another number, and by now perhaps another process's. For people; nothing decides by it.
    pub pid: u32,
    /// When it attached, by the clock of that moment. For people, too.
    pub since: SystemTime,
    /// Whether it lives. The dead stay listed until they are recovered.
    pub alive: bool,
    /// Whether it is the handle that was asked; of one that was inherited by fork, none is.
    pub own: bool,
    /// Blocks that its guards hold.
    pub blocks: u64,
    /// Bytes of those blocks, headers included.
    pub bytes: u64,
    /// Blocks that its threads' caches keep.
    pub cached_blocks: u64,
    /// Bytes of those blocks, headers included.
    pub cached_bytes: u64,
}

/// A range that an operation which never ended had in hand, and that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limbo {
    /// The sector.
    pub sector: SectorId,
    /// Where the range begins, in bytes from the segment's base.
    pub at_bytes: u64,
    /// How many bytes.
    pub len_bytes: u64,
}

/// What [`Matrix::recover`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Participants found dead, with what their guards held before.
    pub dead: Vec<Participant>,
    /// Ranges that were in limbo, and went back.
    pub limbo: Vec<Limbo>,
    /// Blocks that the dead's guards held, and that went back.
    pub blocks: u64,
    /// Blocks that the dead's thread caches kept, and that went back.
    pub cached: u64,
    /// Bytes that went back, limbo included.
    pub bytes: u64,
    /// Messages that posters of topics had claimed and not finished: readers count each as missed.
    pub claims: u64,
    /// Readers whose seats in topics are free now.
    pub readers: u64,
    /// Posters whose numbers in topics are free now.
    pub posters: u64,
    /// Ranges that could not be told from a living thread's, and were left to a later recovery.
    pub deferred: u32,
    /// Whether another recovery was at work, or this handle was inherited by fork, so that nothing was
    /// done.
    pub busy: bool,
}

impl Recovery {
    /// Tells whether nothing was to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Blocks, and their bytes.
#[derive(Clone, Copy, Default)]
struct Sums {
    blocks: u64,
    bytes: u64,
}

/// What one participant owns.
#[derive(Clone, Copy, Default)]
struct Owned {
    held: Sums,
    cached: Sums,
}

/// What a recoverer works on.
struct Field<'f> {
    parts: &'f [Option<Part<'f>>; SECTORS],
    roster: Roster<'f>,
    names: Names<'f>,
    liveness: &'f dyn Liveness,
    /// The slot of the handle that recovers, if it has one already.
    own: Option<usize>,
}

impl Matrix {
    /// Returns who is attached, in the order of the slots.
    ///
    /// Walks every sector to count what each holds, and asks the kernel once per participant. Beside
    /// live traffic a picture that was true part by part.
    #[must_use]
    pub fn participants(&self) -> Vec<Participant> {
        self.field().participants()
    }

    /// Returns what this handle recovered when it attached.
    ///
    /// Whoever supervises others and wants to know what their deaths left should ask here, or call
    /// [`recover`](Self::recover) before it lets new ones attach, which recover too.
    #[must_use]
    pub fn recovered_first(&self) -> &Recovery {
        self.first_recovery()
    }

    /// Gives back everything that dead participants left: blocks that their guards held, ranges that
    /// their operations had in hand, and hints they did not come to write. Nothing else: a block that
    /// was given away, or allocated by its offset, stays.
    ///
    /// Attaching does this too, and so does an allocation that finds no block. It runs beside live
    /// traffic, may be killed at any point, and can be repeated at will. It waits for nobody: what
    /// may be a living thread's is left alone and counted as deferred, and while another recovery is
    /// at work it does nothing. Takes a walk over every sector if somebody is dead, else a question
    /// to the kernel per participant.
    pub fn recover(&self) -> Recovery {
        let attachment = self.attachment();
        if !attachment.is_ours() || attachment.recovering.swap(true, AcqRel) {
            return Recovery { busy: true, ..Recovery::default() };
        }
        let recovery = self.field().recover();
        attachment.recovering.store(false, Release);
        recovery
    }

    fn field(&self) -> Field<'_> {
        let attachment = self.attachment();
        Field {
            parts: self.all_parts(),
            roster: attachment.roster(),
            names: attachment.names(),
            liveness: attachment.liveness(),
            own: attachment.is_ours().then_some(attachment.slot()),
        }
    }
}

/// Recovers for who has no slot yet.
pub(crate) fn recover_first(
    parts: &[Option<Part<'_>>; SECTORS],
    roster: Roster<'_>,
    names: Names<'_>,
    liveness: &dyn Liveness,
) -> Recovery {
    Field { parts, roster, names, liveness, own: None }.recover()
}

/// Recovers what an attachment left behind that nobody operates through any more, and frees its slot.
/// If others recover all the time, they do it: to them it is dead.
pub(crate) fn recover_left_behind(parts: &[Option<Part<'_>>; SECTORS], attachment: &Attachment) {
    let (roster, liveness) = (attachment.roster(), attachment.liveness());
    let field = Field { parts, roster, names: attachment.names(), liveness, own: None };
    let (slot, state) = (attachment.slot(), attachment.state());
    for _ in 0..LEAVE_TRIES {
        let recovered = field.exclusively(|| {
            // Not if somebody was faster, for then the slot may be another's by now.
            if roster.slot(slot).is_some_and(|words| words.state() == state) {
                field.recover_from(&[(slot, state)]);
            }
        });
        if recovered.is_some() {
            return;
        }
        std::thread::yield_now();
    }
}

impl<'f> Field<'f> {
    /// Does something as the one recoverer; `None` when somebody else is it.
    fn exclusively<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        if !matches!(self.liveness.try_lock(RECOVERY_LOCK_BYTE), Ok(true)) {
            return None;
        }
        let result = act();
        // Giving up a lock of one's own has no way to fail that closing would not put right.
        let _ = self.liveness.unlock(RECOVERY_LOCK_BYTE);
        Some(result)
    }

    fn participants(&self) -> Vec<Participant> {
        let held = self.held();
        (0..SLOTS).filter_map(|slot| self.participant(slot, &held)).collect()
    }

    fn participant(&self, slot: usize, owned: &[Owned]) -> Option<Participant> {
        let words = self.roster.slot(slot)?;
        let own = self.own == Some(slot);
        if !words.state().is_taken() {
            return None;
        }
        let owned = owned.get(slot).copied().unwrap_or_default();
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(words.since_ms()));
        Some(Participant {
            slot: slot as u32,
            pid: words.pid(),
            since: since.unwrap_or(UNIX_EPOCH),
            alive: own || dead(&self.roster, slot, self.liveness).is_none(),
            own,
            blocks: owned.held.blocks,
            bytes: owned.held.bytes,
            cached_blocks: owned.cached.blocks,
            cached_bytes: owned.cached.bytes,
        })
    }

    /// What each slot's guards hold and its caches keep.
    fn held(&self) -> Vec<Owned> {
        let mut owned = vec![Owned::default(); SLOTS];
        for part in self.parts.iter().flatten() {
            for run in part.sector.runs() {
                let Seen::Head(state @ (State::Held | State::Cached), len) = run.seen else {
                    continue;
                };
                let slot = part.sector.headers.owner(run.at).wrapping_sub(1);
                if let Some(owned) = owned.get_mut(slot as usize) {
                    let sums =
                        if state == State::Held { &mut owned.held } else { &mut owned.cached };
                    sums.blocks += 1;
                    sums.bytes += u64::from(len) << part.geometry.granule_shift;
                }
            }
        }
        owned
    }

    /// The dead, and whether a recoverer died too.
    fn dead(&self) -> (Vec<(usize, SlotState)>, bool) {
        let slots = (0..SLOTS).filter(|&slot| self.own != Some(slot));
        let dead = slots.filter_map(|slot| Some((slot, dead(&self.roster, slot, self.liveness)?)));
        (dead.collect(), self.roster.lanes().any(|lane| lane.owner() == RECOVERER))
    }

    fn recover(&self) -> Recovery {
        if let (dead, false) = self.dead()
            && dead.is_empty()
        {
            return Recovery::default();
        }
        let busy = || Recovery { busy: true, ..Recovery::default() };
        let recovery = self.exclusively(|| match self.dead() {
            // Again, now that nobody else recovers: who was dead may have been recovered since.
            (dead, false) if dead.is_empty() => Recovery::default(),
            (dead, _) => self.recover_from(&dead).unwrap_or_else(busy),
        });
        recovery.unwrap_or_else(busy)
    }

    /// Recovers from these dead; `None` when there is no lane to do it from.
    fn recover_from(&self, dead: &[(usize, SlotState)]) -> Option<Recovery> {
        let held = self.held();
        let participants = dead.iter().filter_map(|&(slot, _)| self.participant(slot, &held));
        let mut recovery = Recovery { dead: participants.collect(), ..Recovery::default() };
        let is_dead = |owner: u32| {
            let owner = owner & !SHARED;
            owner == RECOVERER || dead.iter().any(|&(slot, _)| self::owner(slot) == owner)
        };
        let mine = self.claim_lane(is_dead)?;
        // Before their blocks go: a name that is half made, or half removed, is told by whose its block is.
        settle_dead(self.names, self.parts, is_dead);
        // And what they began in topics: the blocks that this leaves them go back with theirs.
        recover_topics(self.names, self.parts, is_dead, |found| match found {
            am_topic::Found::Claim => recovery.claims += 1,
            am_topic::Found::Reader => recovery.readers += 1,
            am_topic::Found::Poster => recovery.posters += 1,
        });
        let mut deferred = Vec::new();
        for part in self.parts.iter().flatten() {
            let lane = Lane::telling(mine.intent(part.id as usize));
            let bytes = |len: u32| u64::from(len) << part.geometry.granule_shift;
            let sector = part.id as usize;
            let recoverer = Recoverer::new(&part.sector, &lane, self.roster, sector, is_dead);
            recoverer.recover(|found| match found {
                Found::Deferred { owner } => {
                    recovery.deferred += 1;
                    deferred.push(owner & !SHARED);
                }
                Found::Held { len, .. } => {
                    recovery.blocks += 1;
                    recovery.bytes += bytes(len);
                }
                Found::Cached { len, .. } => {
                    recovery.cached += 1;
                    recovery.bytes += bytes(len);
                }
                Found::Limbo { at, len } => {
                    recovery.bytes += bytes(len);
                    recovery.limbo.push(Limbo {
                        sector: part.id,
                        at_bytes: part.geometry.data_bytes + bytes(at),
                        len_bytes: bytes(len),
                    });
                }
            });
        }
        mine.release();
        self.bury(dead, &deferred);
        Some(recovery)
    }

    /// A lane to recover from. Threads leave the first ones to recoverers; if dead recoverers left
    /// all of them in use, a lane that some dead thread left idle will do.
    fn claim_lane(&self, is_dead: impl Fn(u32) -> bool) -> Option<RosterLane<'f>> {
        if let Some(lane) = self.roster.claim(0..LANES, RECOVERER) {
            return Some(lane);
        }
        let idle = |lane: &RosterLane<'_>| {
            is_dead(lane.owner()) && (0..SECTORS).all(|s| lane.told(s).1 == Told::Nothing)
        };
        self.roster.lanes().find(idle)?.release();
        self.roster.claim(0..LANES, RECOVERER)
    }

    /// Gives the slots and lanes of the dead to whoever comes next, but for those of whom something is
    /// left.
    fn bury(&self, dead: &[(usize, SlotState)], deferred: &[u32]) {
        for &(slot, state) in dead.iter().filter(|&&(slot, _)| !deferred.contains(&owner(slot))) {
            leave(&self.roster, slot, state);
        }
        if !deferred.contains(&RECOVERER) {
            for lane in self.roster.lanes().filter(|lane| lane.owner() == RECOVERER) {
                lane.release();
            }
        }
    }
}

const _: () = assert!(LANES > SLOTS && lock_byte(0) > RECOVERY_LOCK_BYTE);
