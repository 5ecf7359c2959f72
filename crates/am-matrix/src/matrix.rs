//! The matrix: sectors over one arena, and the way from bytes to granules and back.

use crate::arena::{Arena, BlockHeaders, head_words, read_geometry};
use crate::attachment::{self, Attachment};
use crate::block::{Block, Place};
use crate::error::Error;
use crate::lanes::{self, LEN_CACHED_MAX, LIMIT_FIRST, Lanes};
use crate::liveness::{Immortal, Liveness};
use crate::part::{Part, parts};
use crate::recovery::{Recovery, recover_first, recover_left_behind};
use crate::release::not_allocated;
use crate::request::Request;
use am_cache::Cache;
use am_layout::names::Names;
use am_layout::roster::{Roster, RosterLane};
use am_layout::{Geometry, OFFSET_UNIT_BYTES, Offset, SECTOR_ALIGN_BYTES, SECTORS, State};
use am_ripple::WrongState;
use am_tlsf::{Lane, Sector};
use crossbeam_utils::CachePadded;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Looks for a free slot before attaching fails, when all are taken.
const ROOM_TRIES: u32 = 100;
/// Pause between two of them.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// No attachment's id, as a word.
static NOBODY: AtomicU32 = AtomicU32::new(0);

/// Where a request goes when its sector has no block for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spill {
    /// Nowhere: a full sector is an error that names it, and stays a fault domain.
    #[default]
    Off,
    /// To the sectors with larger granules, nearest first.
    Larger,
    /// To any sector: larger ones first, then smaller ones.
    Any,
}

/// A handle to an allocator in an arena.
///
/// Cloning is cheap; clones, threads and processes may use the same arena at once. Allocation and
/// [`ack`](Self::ack) are lock-free, bounded, and make no system call, with three exceptions: a thread's
/// first call claims its lane, which takes memory from the heap; a cache that keeps more blocks of a length
/// than ever before, or gives more back at once, grows by the heap too; and an allocation that is about to fail asks the kernel who of
/// the other participants is dead.
#[derive(Clone)]
pub struct Matrix {
    pub(crate) inner: Arc<Inner>,
    pub(crate) spill: Spill,
    pub(crate) cached: bool,
    /// Payload bytes up to which the small sector's cache is asked first.
    pub(crate) short_bytes: u64,
    /// The word that says for whom caches are looked up at once: the attachment's, which `inner` keeps
    /// alive, or [`NOBODY`] without caches.
    quick: &'static AtomicU32,
}

/// What the handles of one attachment share.
pub(crate) struct Inner {
    /// Views into the attachment's arena; the attachment stands below and lives as long.
    pub parts: [Option<Part<'static>>; SECTORS],
    /// First 32-byte unit of each sector; the largest number when it is absent.
    starts: [u32; SECTORS],
    pub geometry: Geometry,
    first_recovery: Recovery,
    attachment: Attachment,
}

impl Matrix {
    /// Writes a geometry into an arena of zeroes and makes every sector one free block.
    ///
    /// Nobody else may use the arena before this returns.
    ///
    /// # Errors
    /// [`Error::BadGeometry`] when the geometry does not fit the arena, [`Error::NotEmpty`] when
    /// the arena was formatted before.
    pub fn format(arena: Arena, geometry: &Geometry) -> Result<Self, Error> {
        geometry.validate(arena.len_bytes() as u64)?;
        let head = head_words(&arena)?;
        if head.iter().any(|word| word.load() != 0) {
            return Err(Error::NotEmpty);
        }
        geometry.write(head);
        let matrix = Self::attach(arena)?;
        for part in matrix.parts() {
            am_ripple::format(&part.sector, matrix.lanes()?.lane(part.id as usize));
        }
        Ok(matrix)
    }

    /// Uses an arena that a formatter has finished, and that no other process shares.
    ///
    /// The geometry is read once, validated, and kept in private memory.
    ///
    /// # Errors
    /// [`Error::TooShort`] or [`Error::BadGeometry`] when the arena holds no valid matrix.
    pub fn attach(arena: Arena) -> Result<Self, Error> {
        Self::attach_with(arena, Box::new(Immortal::new()))
    }

    /// Uses an arena that several processes share, and tells by `liveness` which of them live.
    ///
    /// What dead participants left is recovered first, so far as that can be done now. The handle and
    /// its clones are one participant until the last of them is dropped.
    ///
    /// # Errors
    /// As [`attach`](Self::attach); [`Error::TooManyParticipants`], [`Error::TooManyThreads`] or
    /// [`Error::Locks`] when the handle cannot become one.
    pub fn attach_with(arena: Arena, liveness: Box<dyn Liveness>) -> Result<Self, Error> {
        let geometry = read_geometry(&arena)?;
        let roster = attachment::roster(&arena)?;
        let names = attachment::names(&arena)?;
        let views = parts(&arena, &geometry, 0)?;
        let first_recovery = await_room(&views, roster, names, &*liveness);
        let attachment = Attachment::new(arena, liveness)?;
        let views = parts(attachment.arena(), &geometry, attachment.owner())?;
        let mut starts = [u32::MAX; SECTORS];
        for (start, part) in starts.iter_mut().zip(&views) {
            *start = part.as_ref().map_or(u32::MAX, |part| part.first_unit);
        }
        // SAFETY: only the lifetime changes. The words lie in the arena, at an address that moving
        // the arena does not change, and `Inner` keeps it as long as the views.
        let parts = unsafe {
            std::mem::transmute::<[Option<Part<'_>>; SECTORS], [Option<Part<'static>>; SECTORS]>(
                views,
            )
        };
        let inner = Arc::new(Inner { parts, starts, geometry, first_recovery, attachment });
        // The thread that attaches will most likely use it: its lane is claimed now, not later.
        lanes::mine(&inner)?;
        let short_bytes = inner.short_bytes();
        let quick = inner.attachment().alive();
        Ok(Self { inner, spill: Spill::Off, cached: true, short_bytes, quick })
    }

    /// Returns a handle to the same matrix with or without thread caches; by default it has them.
    ///
    /// Without, each call works on the sector itself: what is freed merges at once, and may be carved
    /// by anybody at once. With, each thread keeps blocks that it freed for its next requests, and
    /// gives them back when it has too many, when memory is short, when it ends, and on
    /// [`trim`](Self::trim).
    #[must_use]
    pub fn with_thread_caches(mut self, cached: bool) -> Self {
        self.cached = cached;
        self.quick = if cached { self.inner.attachment().alive() } else { &NOBODY };
        self
    }

    /// Gives back what this thread's caches keep.
    ///
    /// Lock-free, bounded by what they keep.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child that inherited this handle.
    pub fn trim(&self) -> Result<(), Error> {
        let lanes = self.lanes()?;
        // SAFETY: this thread's own lanes.
        unsafe { lanes.give_back(&self.inner.parts) };
        Ok(())
    }

    /// Returns a handle to the same matrix with another spill policy.
    #[must_use]
    pub fn with_spill(mut self, spill: Spill) -> Self {
        self.spill = spill;
        self
    }

    /// Returns the arena.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        self.inner.attachment.arena()
    }

    /// Returns where everything lies.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.inner.geometry
    }

    /// Allocates a block of `bytes` (0 counts as 1) that the guard owns; dropping it acks.
    ///
    /// From this thread's cache, if it has one: then no locked instruction.
    ///
    /// The payload's content is whatever lay there before. It is aligned to 32 bytes at least.
    /// Lock-free, no system call.
    ///
    /// # Errors
    /// [`Error::Exhausted`], [`Error::Contended`] or [`Error::TooLarge`].
    #[inline(always)]
    pub fn allocate(&self, bytes: usize) -> Result<Block<'_>, Error> {
        match self.take_small(bytes as u64, State::Held) {
            Some((part, place)) => Ok(self.block_in(part, place, bytes)),
            None => Ok(self.block(self.take_or_carve(bytes as u64, State::Held)?, bytes)),
        }
    }

    /// Allocates a block of the layout's size whose payload has the layout's alignment.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), and [`Error::AlignmentTooLarge`] above 4096 bytes.
    pub fn allocate_aligned(&self, layout: Layout) -> Result<Block<'_>, Error> {
        if layout.align() as u64 > SECTOR_ALIGN_BYTES {
            return Err(Error::AlignmentTooLarge { align_bytes: layout.align() });
        }
        let (bytes, align) = (layout.size(), layout.align() as u64);
        if align <= OFFSET_UNIT_BYTES {
            return self.allocate(bytes);
        }
        let request = Request { bytes: bytes as u64, align, state: State::Held };
        Ok(self.block(self.carve(self.lanes()?, request)?, bytes))
    }

    /// Allocates a block of `bytes` zeroes.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_zeroed(&self, bytes: usize) -> Result<Block<'_>, Error> {
        let mut block = self.allocate(bytes)?;
        block.fill(0);
        Ok(block)
    }

    /// Allocates a block of `bytes` that no guard owns: it stays until somebody acks its offset,
    /// or takes it by [`from_offset`](Self::from_offset).
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[inline(always)]
    pub fn allocate_offset(&self, bytes: usize) -> Result<Offset, Error> {
        match self.take_small(bytes as u64, State::Allocated) {
            Some((part, place)) => Ok(part.offset_of(place.granule())),
            None => Ok(self.offset_of(self.take_or_carve(bytes as u64, State::Allocated)?)),
        }
    }

    /// Gives back the block whose payload lies at `offset`, to this thread's cache if it has one, else
    /// to the sector, where free neighbours merge at once.
    ///
    /// Acts only on a block that no guard owns. Lock-free, bounded, no system call. Detected: any
    /// offset that is not the payload of an allocated block, so every double ack until the place is
    /// allocated anew; an offset kept beyond that frees the new block, as with any allocator.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] or [`Error::NotAllocated`]; nothing is changed then.
    #[inline]
    pub fn ack(&self, offset: Offset) -> Result<(), Error> {
        let quick = |cache: &mut Cache, part: &Part<'_>, lane: &Lane<'_>, granule| {
            cache.park_allocated(&part.sector, lane, granule)
        };
        if self.ack_small(offset, quick) { Ok(()) } else { self.ack_slow(offset, false) }
    }

    /// As [`ack`](Self::ack), without a locked instruction where the block is parked.
    ///
    /// A double ack is detected as ever, unless neither of two happens before the other: that is what the
    /// caller rules out.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Safety
    /// Nobody else, in any process, passes this offset to a function that acks or takes it (`ack`,
    /// `ack_unshared`, `from_offset`, `from_offset_unshared`, `value_from_offset`) while this call runs; and what
    /// others do to the block before *happens before* this call, what they do afterwards *happens after* it. A
    /// channel orders them so, or a release store that an acquire load reads; that one call ends before the
    /// other begins by the clock does not. By an unordered store the offset must not come, though to `ack` and
    /// `from_offset` it may.
    #[inline]
    pub unsafe fn ack_unshared(&self, offset: Offset) -> Result<(), Error> {
        let quick = |cache: &mut Cache, part: &Part<'_>, _: &Lane<'_>, granule| {
            cache.park_unshared(&part.sector, granule)
        };
        if self.ack_small(offset, quick) { Ok(()) } else { self.ack_slow(offset, true) }
    }

    /// Takes a block that was given away, by its offset; of several callers exactly one succeeds.
    ///
    /// What the giver wrote is visible, and the block is as long as the giver's was: no length need
    /// be sent along. Wait-free.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] or [`Error::NotAllocated`].
    #[inline]
    pub fn from_offset(&self, offset: Offset) -> Result<Block<'_>, Error> {
        // The function itself is not general enough in the lifetime of the headers.
        #[allow(clippy::redundant_closure)]
        self.take_by(offset, |sector, lane, granule| am_ripple::take(sector, lane, granule))
    }

    /// As [`from_offset`](Self::from_offset), without a locked instruction.
    ///
    /// What was taken before, or is taken afterwards, is told from it as ever, unless neither happens before
    /// the other: that is what the caller rules out. A queue that gives each offset to one receiver is such a
    /// caller.
    ///
    /// # Errors
    /// As [`from_offset`](Self::from_offset).
    ///
    /// # Safety
    /// As [`ack_unshared`](Self::ack_unshared).
    #[inline]
    pub unsafe fn from_offset_unshared(&self, offset: Offset) -> Result<Block<'_>, Error> {
        self.take_by(offset, |sector, _, granule| am_ripple::take_unshared(sector, granule))
    }

    #[inline(always)]
    fn take_by(
        &self,
        offset: Offset,
        take: impl FnOnce(&Sector<'_, BlockHeaders<'_>>, &Lane<'_>, u32) -> Result<u32, WrongState>,
    ) -> Result<Block<'_>, Error> {
        let (part, granule) = self.locate(offset)?;
        let lanes = self.lanes()?;
        let len = take(&part.sector, lanes.lane(part.id as usize), granule)
            .map_err(|wrong| not_allocated(offset, wrong))?;
        lanes.hold(1);
        let bytes = part.sector.headers.bytes(granule).min(part.geometry.usable_bytes(len));
        Ok(self.block(Place::new(part.id as usize, granule, len), bytes as usize))
    }

    /// Says that a block will soon be taken or acked by this offset: what that reads is fetched meanwhile.
    ///
    /// For a receiver that knows of several offsets at once: tell of one a few ahead of the one at hand, and
    /// the lines that the giver wrote last come from its core while another block is dealt with. It changes
    /// nothing, and any offset will do. Wait-free.
    #[inline]
    pub fn prefetch(&self, offset: Offset) {
        if let Some((part, granule)) = self.find(offset) {
            let geometry = &part.geometry;
            self.arena().prefetch(geometry.words_bytes + 4 * u64::from(granule));
            self.arena()
                .prefetch(geometry.data_bytes + (u64::from(granule) << geometry.granule_shift));
        }
    }

    /// Says that a payload will soon be read: its header and first line are fetched meanwhile.
    #[doc(hidden)]
    #[inline]
    pub fn prefetch_payload(&self, offset: Offset) {
        if let Some((part, granule)) = self.find(offset) {
            let geometry = &part.geometry;
            let header = geometry.data_bytes + (u64::from(granule) << geometry.granule_shift);
            self.arena().prefetch_read(header);
            self.arena().prefetch_read(header + 64);
        }
    }

    /// Returns the address of the payload at `offset` in this process.
    ///
    /// It does not say that a block lives there; dereferencing is the caller's `unsafe`.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] when no payload can begin there.
    #[inline]
    pub fn payload_ptr(&self, offset: Offset) -> Result<NonNull<u8>, Error> {
        self.locate(offset)?;
        Ok(self.arena().payload(offset))
    }

    /// The guard of a block that was just taken.
    #[inline(always)]
    pub(crate) fn block(&self, place: Place, bytes: usize) -> Block<'_> {
        self.block_in(self.part_of(place), place, bytes)
    }

    /// As [`block`](Self::block), of a block in the sector `part`.
    #[inline(always)]
    pub(crate) fn block_in(&self, part: &Part<'_>, place: Place, bytes: usize) -> Block<'_> {
        Block::of(self, part.payload(place.granule()), bytes, place)
    }

    /// The sector of a block.
    #[inline]
    pub(crate) fn part_of(&self, place: Place) -> &Part<'_> {
        self.part(place.sector()).expect("a block lies in a sector that exists")
    }

    #[inline]
    pub(crate) fn offset_of(&self, place: Place) -> Offset {
        self.part_of(place).offset_of(place.granule())
    }

    /// Finds the sector and the granule whose block's payload begins at `offset`.
    #[inline]
    pub(crate) fn locate(&self, offset: Offset) -> Result<(&Part<'_>, u32), Error> {
        self.find(offset).ok_or(Error::NotAPayload { offset })
    }

    #[inline]
    fn find(&self, offset: Offset) -> Option<(&Part<'_>, u32)> {
        // The header is one unit before the payload, at the block's first granule.
        let header = offset.to_raw().checked_sub(1)?;
        let [_, medium, large] = self.inner.starts;
        let number = if header >= large { 2 } else { usize::from(header >= medium) };
        let part = self.part(number)?;
        let inside = header.checked_sub(part.first_unit)?;
        let granule = inside >> part.unit_shift;
        let whole = granule << part.unit_shift == inside;
        (whole && granule < part.sector.len()).then_some((part, granule))
    }

    /// One sector; `None` when it is absent.
    #[inline]
    pub(crate) fn part(&self, number: usize) -> Option<&Part<'_>> {
        self.inner.parts[number].as_ref()
    }

    /// Every sector there is.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part<'_>> {
        self.inner.parts.iter().flatten()
    }

    /// Every sector's place, absent ones too.
    pub(crate) fn all_parts(&self) -> &[Option<Part<'_>>; SECTORS] {
        &self.inner.parts
    }

    pub(crate) fn first_recovery(&self) -> &Recovery {
        &self.inner.first_recovery
    }

    #[inline]
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.inner.attachment
    }

    pub(crate) fn claim_lane(&self) -> Option<(RosterLane<'static>, Arc<CachePadded<Lanes>>)> {
        self.inner.claim_lane()
    }

    /// As [`Inner::retire`].
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn retire(&self, lanes: &Arc<CachePadded<Lanes>>, lane: RosterLane<'static>) {
        // SAFETY: promised by the caller.
        unsafe { self.inner.retire(lanes, lane) };
    }

    /// The id by which [`lanes::own`] finds this thread's lanes, if they shall be found so quickly.
    #[inline(always)]
    pub(crate) fn quick_id(&self) -> u32 {
        // Relaxed: as `Attachment::id`.
        self.quick.load(Relaxed)
    }

    /// This thread's lanes.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child that inherited this handle.
    #[inline(always)]
    pub(crate) fn lanes(&self) -> Result<&Lanes, Error> {
        lanes::mine(&self.inner)
    }
}

impl Inner {
    /// Payload bytes up to which the small sector's caches are asked first.
    pub(crate) fn short_bytes(&self) -> u64 {
        self.parts[0].as_ref().map_or(0, |part| {
            self.geometry.small_max_bytes.min(part.geometry.usable_bytes(LEN_CACHED_MAX))
        })
    }

    #[inline]
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Claims a lane and caches for the calling thread; `None` when all are taken.
    pub(crate) fn claim_lane(&self) -> Option<(RosterLane<'static>, Arc<CachePadded<Lanes>>)> {
        let max_bytes = [self.geometry.small_max_bytes, self.geometry.medium_max_bytes];
        let threads = self.attachment.lanes_in_use();
        let caches = std::array::from_fn(|number| match &self.parts[number] {
            Some(part) => {
                let len_max = part.geometry.granules_for(max_bytes[number]).unwrap_or(0);
                Cache::new(
                    len_max.min(part.sector.len()).min(LEN_CACHED_MAX),
                    LIMIT_FIRST.min(part.sector.len() / am_cache::SHARE / threads),
                )
            }
            None => Cache::new(0, 0),
        });
        self.attachment.claim_lane(caches)
    }

    /// What the cache of `lanes` may park of a sector, in granules: its share of a quarter of the sector, or
    /// while there is plenty of free memory, of what is free.
    ///
    /// # Safety
    /// The calling thread is the one that the lanes belong to; they are not shared.
    #[cold]
    pub(crate) unsafe fn share(&self, part: &Part<'_>, lanes: &Lanes) -> u32 {
        // SAFETY: promised by the caller.
        let threads = unsafe { lanes.at_work(|| self.attachment.lanes_in_use()) };
        am_cache::share(part.sector.len(), part.sector.longest_hint(), threads)
    }

    /// Empties the caches of a thread that ends, and gives its lane up.
    ///
    /// # Safety
    /// The calling thread is that thread, and uses these lanes no more.
    pub(crate) unsafe fn retire(&self, lanes: &Arc<CachePadded<Lanes>>, lane: RosterLane<'static>) {
        if self.attachment.is_ours() {
            // SAFETY: promised by the caller.
            unsafe { lanes.give_back(&self.parts) };
            self.attachment.retire(lanes, lane);
        }
    }
}

impl Drop for Inner {
    /// Leaves; what forgotten guards hold goes back as the blocks of a dead participant do.
    fn drop(&mut self) {
        let attachment = &self.attachment;
        if !attachment.is_ours() {
            return;
        }
        for lanes in attachment.live() {
            // SAFETY: this is the last handle, and without one nobody comes to a thread's lanes. What
            // other threads did there happened before they dropped their handles.
            unsafe { lanes.give_back(&self.parts) };
        }
        if attachment.abandon_if_holding() {
            recover_left_behind(&self.parts, attachment);
        }
    }
}

/// Recovers, so that there is a slot; if the dead have them all and somebody else recovers, waits for
/// that, for a while.
fn await_room(
    parts: &[Option<Part<'_>>; SECTORS],
    roster: Roster<'_>,
    names: Names<'_>,
    liveness: &dyn Liveness,
) -> Recovery {
    let full = || roster.slots().all(|slot| slot.state().is_taken());
    let mut recovery = recover_first(parts, roster, names, liveness);
    for _ in 0..ROOM_TRIES {
        if !full() {
            break;
        }
        std::thread::sleep(ROOM_PAUSE);
        recovery = recover_first(parts, roster, names, liveness);
    }
    recovery
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let geometry = &self.inner.geometry;
        let split = (geometry.small_percent, geometry.medium_percent);
        write!(f, "Matrix({:?}, split {split:?}, spill {:?})", self.arena(), self.spill)
    }
}
