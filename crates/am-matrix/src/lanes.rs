//! What a thread has in an attachment: its lanes and its caches, claimed at its first call.

use crate::error::Error;
use crate::matrix::Inner;
use crate::part::Part;
use am_cache::Cache;
use am_layout::SECTORS;
use am_layout::roster::RosterLane;
use am_tlsf::Lane;
use crossbeam_utils::CachePadded;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Sectors whose blocks are cached: the small and the medium one. Large blocks cost more to touch
/// than to carve.
pub(crate) const CACHED_SECTORS: usize = 2;
/// Granules of the longest block that is parked, whatever the segment says of its limits: each length has
/// a magazine, in private memory.
pub(crate) const LEN_CACHED_MAX: u32 = 1024;
/// Granules that a cache parks at first, at the most.
pub(crate) const LIMIT_FIRST: u32 = 4096;

/// How often a thread goes by an old number of threads at work before it counts them again.
const LOOKS_SPARED: u32 = 15;

/// One thread's lanes and caches, one per sector, and how many blocks its guards hold.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Used only as [`with_cache`](Self::with_cache) asks; those of shared lanes never.
    caches: UnsafeCell<[Cache; CACHED_SECTORS]>,
    lanes: [Lane<'static>; SECTORS],
    /// Blocks that this thread took from the sectors for its guards and caches, less those it gave
    /// back or away, wrapping: a guard may be dropped by another thread than the one that made it, so
    /// only the sum over threads counts. What passes between guards and caches is not counted.
    held: AtomicU32,
    /// How many threads were at work when this one last looked, and how often it was asked since.
    at_work: Cell<(u32, u32)>,
    /// The caches are in use by [`with_cache`](Self::with_cache), further up on this stack.
    busy: Cell<bool>,
    shared: bool,
}

// SAFETY: the lanes are atomics; of the caches and what goes with them, `with_cache` says who may use them.
unsafe impl Sync for Lanes {}

impl Lanes {
    /// Lanes that tell by a roster's lane, which this thread claimed, and empty caches.
    pub(crate) fn of(
        lane: RosterLane<'static>,
        caches: [Cache; CACHED_SECTORS],
    ) -> CachePadded<Self> {
        let lanes = std::array::from_fn(|sector| Lane::telling(lane.intent(sector)));
        Self::with(lanes, caches, false)
    }

    /// Lanes for all threads that have none of their own; they have no cache.
    pub(crate) fn shared(lane: RosterLane<'static>) -> CachePadded<Self> {
        let lanes = std::array::from_fn(|sector| Lane::sharing(lane.intent(sector)));
        Self::with(lanes, [const { Cache::new(0, 0) }; CACHED_SECTORS], true)
    }

    fn with(
        lanes: [Lane<'static>; SECTORS],
        caches: [Cache; CACHED_SECTORS],
        shared: bool,
    ) -> CachePadded<Self> {
        let caches = UnsafeCell::new(caches);
        CachePadded::new(Self {
            caches,
            lanes,
            held: AtomicU32::new(0),
            at_work: Cell::new((1, LOOKS_SPARED)),
            busy: Cell::new(false),
            shared,
        })
    }

    /// The lane for a sector.
    #[inline]
    pub(crate) fn lane(&self, sector: usize) -> &Lane<'static> {
        &self.lanes[sector]
    }

    /// Acts on the cache of a sector; `None` when there is none, or it is being acted on already: a cache
    /// grows by the global allocator, and that may use a matrix itself.
    ///
    /// # Safety
    /// The calling thread is the one that these lanes belong to, or nobody will use them any more; and
    /// `act` does not use a [`small_cache`](Self::small_cache) of these lanes but by way of [`own`].
    #[inline]
    pub(crate) unsafe fn with_cache<T>(
        &self,
        sector: usize,
        act: impl FnOnce(&mut Cache, &Lane<'static>) -> T,
    ) -> Option<T> {
        if self.shared || sector >= CACHED_SECTORS || self.busy.replace(true) {
            return None;
        }
        let paused = pause(self);
        // SAFETY: the caller is the only one who uses the caches now, shared ones are never used, and until
        // they are no longer busy this thread finds no way to them.
        let caches = unsafe { &mut *self.caches.get() };
        let result = act(&mut caches[sector], &self.lanes[sector]);
        resume(paused, self);
        self.busy.set(false);
        Some(result)
    }

    /// The small sector's cache, of lanes that a thread has alone.
    ///
    /// # Safety
    /// As [`with_cache`](Self::with_cache) while the reference is used; and the lanes are not shared.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub(crate) unsafe fn small_cache(&self) -> &mut Cache {
        // SAFETY: promised by the caller.
        let caches = unsafe { &mut *self.caches.get() };
        &mut caches[0]
    }

    /// Tells whether the caches are being acted on, further up on this stack.
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// Gives everything back that the caches have parked.
    ///
    /// # Safety
    /// As [`with_cache`](Self::with_cache).
    pub(crate) unsafe fn give_back(&self, parts: &[Option<Part<'_>>; SECTORS]) {
        for part in parts.iter().flatten() {
            let give_back =
                |cache: &mut Cache, lane: &Lane<'_>| cache.give_back(&part.sector, lane);
            // SAFETY: promised by the caller; the cache calls nothing but the sector.
            let back = unsafe { self.with_cache(part.id as usize, give_back) };
            self.hold(back.unwrap_or(0).wrapping_neg());
        }
    }

    /// How many threads are at work, by `look`, or when that was asked last: it reads a lot of lines.
    ///
    /// # Safety
    /// As [`with_cache`](Self::with_cache).
    pub(crate) unsafe fn at_work(&self, look: impl FnOnce() -> u32) -> u32 {
        let (seen, spared) = self.at_work.get();
        let next = if spared < LOOKS_SPARED { (seen, spared + 1) } else { (look(), 0) };
        self.at_work.set(next);
        next.0
    }

    /// Counts `more` blocks taken (as a wrapping difference).
    #[inline]
    pub(crate) fn hold(&self, more: u32) {
        if self.shared {
            self.held.fetch_add(more, Relaxed);
        } else {
            // Only this thread writes it.
            self.held.store(self.held.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// Counts one block more, of lanes that are not shared.
    #[inline(always)]
    pub(crate) fn hold_one(&self) {
        self.held.store(self.held.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(crate) fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }
}

/// The lanes of one thread in one attachment.
struct Entry {
    matrix: Weak<Inner>,
    id: u32,
    lane: RosterLane<'static>,
    lanes: Arc<CachePadded<Lanes>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        forget();
        if let Some(inner) = self.matrix.upgrade() {
            // SAFETY: this thread's own lanes, which it will use no more.
            unsafe { inner.retire(&self.lanes, self.lane) };
        }
    }
}

/// Attachments whose lanes a thread finds at once.
const RECENT: usize = 4;
/// No attachment's id.
const NOBODY: u32 = u32::MAX;

thread_local! {
    /// The attachments used last, by id, and this thread's own lanes in them.
    static LAST: [Cell<(u32, NonNull<Lanes>)>; RECENT] =
        const { [const { Cell::new((NOBODY, NonNull::dangling())) }; RECENT] };
    /// The attachment whose shared lanes this thread used last.
    static SHARING: Cell<u32> = const { Cell::new(NOBODY) };
    /// This thread's lanes in every attachment it used.
    static ENTRIES: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Returns the lanes that this thread alone has in the attachment of that id, if it has some and used
/// them lately. The caller borrows the attachment.
#[inline(always)]
pub(crate) fn own<'m>(id: u32) -> Option<&'m Lanes> {
    let (last, lanes) = LAST.with(|last| last[id as usize % RECENT].get());
    if last != id {
        return None;
    }
    // SAFETY: `LAST` names the lanes of this thread's entry for the attachment: ids are never used
    // twice, 0 and `NOBODY` are never remembered, and whoever drops an entry forgets `LAST` first. The
    // entry lives until this thread ends or the attachment does, and the caller borrows the attachment
    // on this thread.
    Some(unsafe { lanes.as_ref() })
}

/// Returns this thread's lanes in an attachment; claims them at the first call.
///
/// A thread that finds no lane left, or is being torn down, uses the attachment's shared lanes.
///
/// # Errors
/// [`Error::Forked`] in a child that inherited the attachment.
#[inline]
pub(crate) fn mine(inner: &Arc<Inner>) -> Result<&Lanes, Error> {
    match own(inner.attachment().id()) {
        Some(lanes) => Ok(lanes),
        None => find(inner),
    }
}

/// Makes [`own`] blind to these lanes; returns the attachment's id if it was not.
fn pause(lanes: &Lanes) -> u32 {
    LAST.with(|last| {
        let of_these = last.iter().find(|last| last.get().1 == NonNull::from(lanes));
        of_these.map_or(NOBODY, |last| last.replace((NOBODY, NonNull::dangling())).0)
    })
}

/// Undoes [`pause`].
fn resume(id: u32, lanes: &Lanes) {
    if id != NOBODY {
        LAST.with(|last| last[id as usize % RECENT].set((id, NonNull::from(lanes))));
    }
}

fn forget() {
    LAST.with(|last| last.iter().for_each(|last| last.set((NOBODY, NonNull::dangling()))));
    SHARING.set(NOBODY);
}

#[cold]
#[inline(never)]
fn find(inner: &Arc<Inner>) -> Result<&Lanes, Error> {
    let id = inner.attachment().id();
    if id == 0 {
        return Err(Error::Forked);
    }
    if SHARING.get() == id {
        return Ok(inner.attachment().shared());
    }
    let found = ENTRIES.try_with(|entries| {
        // In use further up on this stack: the shared lanes will do this once.
        let Ok(mut entries) = entries.try_borrow_mut() else { return Entered::Busy };
        if !entries.iter().any(|entry| entry.id == id) {
            // Entries of attachments that are gone go now; there are few.
            entries.retain(|entry| entry.matrix.strong_count() > 0);
            let Some((lane, lanes)) = inner.claim_lane() else { return Entered::NoLane };
            entries.push(Entry { matrix: Arc::downgrade(inner), id, lane, lanes });
        }
        let Some(entry) = entries.iter().find(|entry| entry.id == id) else {
            return Entered::NoLane;
        };
        let lanes = NonNull::from(&**entry.lanes);
        // Not while the caches are in use further up on this stack: then they must not be found.
        if !entry.lanes.is_busy() {
            LAST.with(|last| last[id as usize % RECENT].set((id, lanes)));
        }
        Entered::Own(lanes)
    });
    match found {
        // SAFETY: as in `own`.
        Ok(Entered::Own(lanes)) => return Ok(unsafe { lanes.as_ref() }),
        Ok(Entered::Busy) => {}
        // Remembered, so that the roster is not searched at every call.
        Ok(Entered::NoLane) | Err(_) => SHARING.set(id),
    }
    Ok(inner.attachment().shared())
}

/// What a thread finds of its own in an attachment.
enum Entered {
    Own(NonNull<Lanes>),
    /// It is being looked for further up on this stack.
    Busy,
    /// All lanes are taken.
    NoLane,
}
