//! One participant: a slot in the roster, the lanes of its threads, and the arena they work on.

use crate::arena::Arena;
use crate::error::Error;
use crate::lanes::{CACHED_SECTORS, Lanes};
use crate::liveness::Liveness;
use am_cache::Cache;
use am_layout::names::{NAMES_WORDS, Names};
use am_layout::roster::{
    LANES, LINE_WORDS, RECOVERER, ROSTER_WORDS, Roster, RosterLane, SHARED, SLOTS, SLOTS_AT,
    SlotState,
};
use am_layout::{NAMES_AT_BYTES, ROSTER_AT_BYTES};
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lanes that threads leave alone, so that a recoverer finds one whatever the dead hold.
const LANES_FOR_RECOVERY: usize = 8;
/// Lanes behind this number are left to participants that come, one each for their threads to share.
const LANES_FOR_THREADS: usize = LANES - 64;

/// Failing allocations that a recovery which deferred something is not repeated for.
const RELIEF: u32 = 64;

/// A participant: what one attachment is to the others, and what its threads share.
pub(crate) struct Attachment {
    /// The liveness's word, which stands below and lives as long: read at every call. It holds a
    /// number that no other attachment of this process has or had, and 0 in a forked child.
    alive: &'static AtomicU32,
    slot: usize,
    state: SlotState,
    shared: CachePadded<Lanes>,
    threads: Mutex<Threads>,
    /// Failing allocations that do not recover, since the last such recovery had to defer something.
    relieved: AtomicU32,
    /// One thread of this attachment recovers; the kernel's lock keeps the others out.
    pub(crate) recovering: AtomicBool,
    /// One thread of this attachment changes names; the kernel's lock keeps the others out.
    pub(crate) naming: Mutex<()>,
    /// A view into `arena`, which stands below and lives as long.
    roster: Roster<'static>,
    /// As `roster`.
    names: Names<'static>,
    liveness: Box<dyn Liveness>,
    arena: Arena,
}

/// The threads of an attachment that have a lane of their own.
struct Threads {
    live: Vec<Arc<CachePadded<Lanes>>>,
    /// Blocks held by way of those that ended, wrapping.
    held_by_ended: u32,
    /// The slot was left to a recoverer, and with it the lanes.
    abandoned: bool,
}

impl Threads {
    /// With room for as many as there are lanes: no memory is taken under the lock, since the global
    /// allocator may use the matrix itself.
    fn with_room() -> Self {
        Self { live: Vec::with_capacity(LANES), held_by_ended: 0, abandoned: false }
    }
}

impl Attachment {
    /// Takes a free slot and a lane for the threads that will have none of their own.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`], [`Error::TooManyThreads`], [`Error::Locks`].
    pub(crate) fn new(arena: Arena, liveness: Box<dyn Liveness>) -> Result<Self, Error> {
        let roster = roster(&arena)?;
        // SAFETY: only the lifetime changes. The words lie in the arena, at an address that moving
        // the arena does not change, and the attachment keeps it as long as the view.
        let roster = unsafe { std::mem::transmute::<Roster<'_>, Roster<'static>>(roster) };
        let names = names(&arena)?;
        // SAFETY: as above.
        let names = unsafe { std::mem::transmute::<Names<'_>, Names<'static>>(names) };
        // SAFETY: only the lifetime changes. The word belongs to the boxed value, which stays where it
        // is, and which the attachment keeps as long as the reference.
        let alive = unsafe { &*std::ptr::from_ref(liveness.alive()) };
        let (slot, state) = claim_slot(&roster, &*liveness)?;
        let owner = owner(slot) | SHARED;
        let Some(shared) = roster.claim(LANES_FOR_RECOVERY..LANES, owner) else {
            leave(&roster, slot, state);
            return Err(Error::TooManyThreads { maximum: LANES as u32 });
        };
        // Relaxed: the same thread goes on with it, and hands the attachment on with whatever it takes.
        alive.store(next_id(), Relaxed);
        Ok(Self {
            alive,
            slot,
            state,
            shared: Lanes::shared(shared),
            threads: Mutex::new(Threads::with_room()),
            relieved: AtomicU32::new(0),
            recovering: AtomicBool::new(false),
            naming: Mutex::new(()),
            roster,
            names,
            liveness,
            arena,
        })
    }

    /// A number that no other attachment of this process has or had; 0 in a forked child.
    #[inline]
    pub(crate) fn id(&self) -> u32 {
        // Relaxed: it changes by a fork only, which orders everything before it.
        self.alive.load(Relaxed)
    }

    /// The word that holds [`id`](Self::id), alive as long as the attachment.
    #[inline]
    pub(crate) fn alive(&self) -> &'static AtomicU32 {
        self.alive
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(crate) fn roster(&self) -> Roster<'static> {
        self.roster
    }

    /// The directory of names.
    pub(crate) fn names(&self) -> Names<'static> {
        self.names
    }

    pub(crate) fn liveness(&self) -> &dyn Liveness {
        &*self.liveness
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    pub(crate) fn state(&self) -> SlotState {
        self.state
    }

    pub(crate) fn shared(&self) -> &Lanes {
        &self.shared
    }

    /// How the headers of this participant's blocks name it.
    pub(crate) fn owner(&self) -> u32 {
        owner(self.slot)
    }

    /// Claims a lane for the calling thread; `None` when all are taken.
    pub(crate) fn claim_lane(
        &self,
        caches: [Cache; CACHED_SECTORS],
    ) -> Option<(RosterLane<'static>, Arc<CachePadded<Lanes>>)> {
        let lane = self.roster.claim(LANES_FOR_RECOVERY..LANES_FOR_THREADS, self.owner())?;
        let lanes = Arc::new(Lanes::of(lane, caches));
        self.threads().live.push(lanes.clone());
        Some((lane, lanes))
    }

    /// Gives a lane up whose thread ends.
    pub(crate) fn retire(&self, lanes: &Arc<CachePadded<Lanes>>, lane: RosterLane<'static>) {
        if !self.is_ours() {
            return; // inherited by fork: the thread that it belongs to is our parent's
        }
        let mut threads = self.threads();
        threads.held_by_ended = threads.held_by_ended.wrapping_add(lanes.held());
        threads.live.retain(|other| !Arc::ptr_eq(other, lanes));
        if !threads.abandoned {
            lane.release();
        }
    }

    /// Tells whether this process made the attachment, rather than inheriting it by fork.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.id() != 0
    }

    /// Tells whether an allocation that fails should recover first.
    pub(crate) fn is_pressed(&self) -> bool {
        // Relaxed: a hint. Lost counts make it pressed later or sooner.
        let relieved = self.relieved.load(Relaxed);
        self.relieved.store(relieved.saturating_sub(1), Relaxed);
        relieved == 0
    }

    /// Spares the next failing allocations a recovery that would defer the same again.
    pub(crate) fn relieve(&self) {
        self.relieved.store(RELIEF, Relaxed);
    }

    /// Gives the slot up as a dead one does, if guards were forgotten: a recoverer finds what they hold.
    /// Nobody operates through the attachment any more. Tells whether it did.
    pub(crate) fn abandon_if_holding(&self) -> bool {
        let mut threads = self.threads();
        let held = threads.held_by_ended.wrapping_add(self.shared.held());
        let held = threads.live.iter().fold(held, |sum, lanes| sum.wrapping_add(lanes.held()));
        if held != 0 {
            threads.abandoned = true;
            // What cannot be unlocked falls when the locks are dropped.
            let _ = self.liveness.unlock(lock_byte(self.slot));
        }
        held != 0
    }

    /// The lanes of every thread that has some of its own.
    pub(crate) fn live(&self) -> Vec<Arc<CachePadded<Lanes>>> {
        // Room first: no memory is taken under the lock.
        let mut live = Vec::with_capacity(LANES);
        live.extend(self.threads().live.iter().cloned());
        live
    }

    /// How many threads, of all participants, have a lane: an estimate, never 0.
    pub(crate) fn lanes_in_use(&self) -> u32 {
        let threads = self.roster.lanes().filter(|lane| (1..RECOVERER).contains(&lane.owner()));
        (threads.count() as u32).max(1)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attachment {
    /// Leaves: nobody operates through this attachment any more.
    fn drop(&mut self) {
        if self.is_ours() && !self.threads().abandoned {
            leave(&self.roster, self.slot, self.state);
            let _ = self.liveness.unlock(lock_byte(self.slot));
        }
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attachment(slot {}, {:?})", self.slot, self.arena)
    }
}

/// How lanes and headers name the participant in a slot.
pub(crate) const fn owner(slot: usize) -> u32 {
    slot as u32 + 1
}

/// The byte of the segment whose lock says that the slot's holder lives.
pub(crate) const fn lock_byte(slot: usize) -> u64 {
    ROSTER_AT_BYTES + ((SLOTS_AT + slot * LINE_WORDS) * 4) as u64
}

/// The roster of an arena that was formatted.
pub(crate) fn roster(arena: &Arena) -> Result<Roster<'_>, Error> {
    let short = Error::TooShort { bytes: arena.len_bytes() as u64 };
    let words = arena.words(ROSTER_AT_BYTES, ROSTER_WORDS as u64).ok_or(short)?;
    Roster::new(words).ok_or(short)
}

/// The directory of names of an arena that was formatted.
pub(crate) fn names(arena: &Arena) -> Result<Names<'_>, Error> {
    let short = Error::TooShort { bytes: arena.len_bytes() as u64 };
    let words = arena.words(NAMES_AT_BYTES, NAMES_WORDS as u64).ok_or(short)?;
    Names::new(words).ok_or(short)
}

/// Tells whether the holder of a slot is dead; its slot's state then.
pub(crate) fn dead(roster: &Roster<'_>, slot: usize, liveness: &dyn Liveness) -> Option<SlotState> {
    let words = roster.slot(slot)?;
    let state = words.state();
    // A holder locks before it takes the slot, and leaves before it unlocks. So a slot that was
    // taken by the same holder before and after the lock was seen free has a dead one.
    let dead = state.is_taken()
        && matches!(liveness.is_locked_elsewhere(lock_byte(slot)), Ok(false))
        && words.state() == state;
    dead.then_some(state)
}

fn claim_slot(roster: &Roster<'_>, liveness: &dyn Liveness) -> Result<(usize, SlotState), Error> {
    for (number, slot) in roster.slots().enumerate() {
        if slot.state().is_taken() || !liveness.try_lock(lock_byte(number)).map_err(Error::locks)? {
            continue;
        }
        // Only who holds the lock takes the slot. Taken now: its holder died just after it came.
        let state = slot.state();
        if !state.is_taken() {
            slot.describe(std::process::id(), now_ms());
            if slot.change(state, state.next()) {
                return Ok((number, state.next()));
            }
        }
        liveness.unlock(lock_byte(number)).map_err(Error::locks)?;
    }
    Err(Error::TooManyParticipants { maximum: SLOTS as u32 })
}

/// Gives up every lane of a slot's holder, then the slot. Nothing of the holder's is in limbo.
pub(crate) fn leave(roster: &Roster<'_>, slot: usize, state: SlotState) {
    for lane in roster.lanes().filter(|lane| lane.owner() & !SHARED == owner(slot)) {
        lane.release();
    }
    if let Some(words) = roster.slot(slot) {
        // Not ours any more: somebody scribbled, and there is nothing to give up.
        let _ = words.change(state, state.left());
    }
}

/// A number that nobody had before, neither 0 nor the largest.
fn next_id() -> u32 {
    static LAST_ID: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only uniqueness matters. After four billion attachments, one in a microsecond, an hour
    // has passed in doing nothing else; then this process must not attach any more.
    let next =
        LAST_ID.fetch_update(Relaxed, Relaxed, |id| id.checked_add(1).filter(|&id| id < u32::MAX));
    next.expect("a process attaches less than four billion times") + 1
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
