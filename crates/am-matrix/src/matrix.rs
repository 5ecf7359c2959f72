//! The matrix: sectors over one arena, and the way from bytes to granules and back.

use crate::arena::{Arena, BlockHeaders, head_words, read_geometry};
use crate::attachment::{self, Attachment};
use crate::block::{Block, Place};
use crate::error::{Error, SectorId};
use crate::lanes::{self, Lanes};
use crate::liveness::{Immortal, Liveness};
use crate::recovery::{Recovery, recover_first, recover_left_behind};
use am_layout::roster::{Roster, RosterLane};
use am_layout::{
    BadGeometry, CONTROL_AT_BYTES, CONTROL_WORDS, Geometry, OFFSET_UNIT_BYTES, Offset,
    SECTOR_ALIGN_BYTES, SECTORS, SectorGeometry, State,
};
use am_cache::Cache;
use am_ripple::{Carved, NoBlock, Want, WrongState};
use am_tlsf::{Headers, Index, IndexShape, Lane, Sector};
use crossbeam_utils::CachePadded;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// Looks for a free slot before attaching fails, when all are taken.
const ROOM_TRIES: u32 = 100;
/// Pause between two of them.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

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
/// [`ack`](Self::ack) are lock-free, bounded, and make no system call, with two exceptions: a thread's
/// first call claims its lane, which takes memory from the heap; and an allocation that is about to
/// fail asks the kernel who of the other participants is dead.
#[derive(Clone)]
pub struct Matrix {
    inner: Arc<Inner>,
    spill: Spill,
    cached: bool,
}

/// What the handles of one attachment share.
pub(crate) struct Inner {
    /// Views into the attachment's arena; the attachment stands below and lives as long.
    parts: [Option<Part<'static>>; SECTORS],
    /// First 32-byte unit of each sector; the largest number when it is absent.
    starts: [u32; SECTORS],
    geometry: Geometry,
    first_recovery: Recovery,
    attachment: Attachment,
}

/// One sector, as this process sees it.
pub(crate) struct Part<'a> {
    pub id: SectorId,
    pub sector: Sector<'a, BlockHeaders<'a>>,
    pub geometry: SectorGeometry,
    first_unit: u32,
    /// Units of 32 bytes per granule, as a power of two.
    unit_shift: u32,
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
        let first_recovery = await_room(&parts(&arena, &geometry, 0)?, roster, &*liveness);
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
        Ok(Self { inner, spill: Spill::Off, cached: true })
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
        let place = match self.take_small(bytes as u64, State::Held) {
            Some(place) => place,
            None => self.take_or_carve(bytes as u64, State::Held)?,
        };
        Ok(self.block(place, bytes))
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
        let place = self.carve(self.lanes()?, bytes as u64, align, State::Held)?;
        Ok(self.block(place, bytes))
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
        let place = match self.take_small(bytes as u64, State::Allocated) {
            Some(place) => place,
            None => self.take_or_carve(bytes as u64, State::Allocated)?,
        };
        Ok(self.offset_of(place))
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
        let (part, granule) = self.locate(offset)?;
        let lanes = self.lanes()?;
        let put = |cache: &mut Cache, lane: &Lane<'_>| {
            cache.put_allocated(&part.sector, lane, granule)
        };
        self.give_up(lanes, part, granule, put).map_err(|wrong| not_allocated(offset, wrong))
    }

    /// As [`ack`](Self::ack), without a locked instruction where the block came from this handle or a
    /// clone of it.
    ///
    /// A double ack is detected as ever, unless two come at the same moment: that is what the caller
    /// rules out.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Safety
    /// From the beginning of this call to its end nobody else, in any process, passes this offset to
    /// `ack`, `ack_unshared`, `from_offset` or `value_from_offset`.
    #[inline]
    pub unsafe fn ack_unshared(&self, offset: Offset) -> Result<(), Error> {
        let (part, granule) = self.locate(offset)?;
        let lanes = self.lanes()?;
        let put = |cache: &mut Cache, lane: &Lane<'_>| cache.put_unshared(&part.sector, lane, granule);
        self.give_up(lanes, part, granule, put).map_err(|wrong| not_allocated(offset, wrong))
    }

    /// Takes a block that was given away, by its offset; of several callers exactly one succeeds.
    ///
    /// What the giver wrote is visible, and the block is as long as the giver's was: no length need
    /// be sent along. Wait-free.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] or [`Error::NotAllocated`].
    pub fn from_offset(&self, offset: Offset) -> Result<Block<'_>, Error> {
        let (part, granule) = self.locate(offset)?;
        let lanes = self.lanes()?;
        let len = am_ripple::take(&part.sector, lanes.lane(part.id as usize), granule)
            .map_err(|wrong| not_allocated(offset, wrong))?;
        lanes.hold(1);
        let bytes = part.sector.headers.bytes(granule).min(part.geometry.usable_bytes(len));
        Ok(self.block(Place::new(part.id as usize, granule, len), bytes as usize))
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
        Block::of(self, self.part_of(place).payload(place.granule()), bytes, place)
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

    /// Takes a block of the small sector out of the thread's cache, if there is one just as long.
    #[inline(always)]
    fn take_small(&self, bytes: u64, state: State) -> Option<Place> {
        let lanes = lanes::own(&self.inner)?;
        if !self.cached || bytes > self.inner.geometry.small_max_bytes {
            return None;
        }
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let cache = unsafe { lanes.small_cache() };
        self.take_from(cache, lanes, 0, bytes, state)
    }

    #[inline(always)]
    fn take_from(
        &self,
        cache: &mut Cache,
        lanes: &Lanes,
        number: usize,
        bytes: u64,
        state: State,
    ) -> Option<Place> {
        let part = self.part(number)?;
        let len = part.geometry.granules_for(bytes.max(1))?;
        let head = cache.take(&part.sector, len, state)?;
        if state == State::Allocated {
            // What a guard asked for, it knows; it is noted when the block is given away.
            part.sector.headers.set_note(head, bytes);
            lanes.hold(1u32.wrapping_neg());
        }
        Some(Place::new(number, head, len))
    }

    /// Takes a block out of the thread's cache, which is refilled if that is worth it, or else carves it.
    #[cold]
    #[inline(never)]
    fn take_or_carve(&self, bytes: u64, state: State) -> Result<Place, Error> {
        let lanes = self.lanes()?;
        // Longer blocks than the medium sector's are in no cache.
        let number = usize::from(bytes > self.inner.geometry.small_max_bytes);
        let take = |cache: &mut Cache, lane: &Lane<'_>| {
            let taken = self.take_from(cache, lanes, number, bytes, state);
            if taken.is_some() {
                return taken;
            }
            let part = self.part(number)?;
            let len = part.geometry.granules_for(bytes.max(1))?;
            lanes.hold(cache.refill(&part.sector, lane, len, || self.share(part)));
            self.take_from(cache, lanes, number, bytes, state)
        };
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let taken = if self.cached { unsafe { lanes.with_cache(number, take) } } else { None };
        match taken {
            Some(Some(place)) => Ok(place),
            _ => self.carve(lanes, bytes, 1, state),
        }
    }

    /// What one thread's cache may park of a sector, in granules.
    #[cold]
    fn share(&self, part: &Part<'_>) -> u32 {
        part.sector.len() / am_cache::SHARE / self.attachment().lanes_in_use()
    }

    /// Routes a request and carves its block.
    #[inline(never)]
    fn carve(&self, lanes: &Lanes, bytes: u64, align: u64, state: State) -> Result<Place, Error> {
        match self.carve_once(lanes, bytes, align, state) {
            Err(error @ (Error::Exhausted { .. } | Error::Contended { .. })) => {
                self.carve_under_pressure(lanes, bytes, align, state, error)
            }
            result => result,
        }
    }

    #[inline]
    fn carve_once(
        &self,
        lanes: &Lanes,
        bytes: u64,
        align: u64,
        state: State,
    ) -> Result<Place, Error> {
        let first = self.route(bytes);
        match self.carve_in(lanes, first, bytes, align, state) {
            Err(error) if self.spill != Spill::Off => {
                self.spill_over(lanes, first, bytes, align, state).ok_or(error)
            }
            result => result,
        }
    }

    /// Before an allocation fails: what the dead held may be enough.
    #[cold]
    #[inline(never)]
    fn carve_under_pressure(
        &self,
        lanes: &Lanes,
        bytes: u64,
        align: u64,
        state: State,
        error: Error,
    ) -> Result<Place, Error> {
        if !self.attachment().is_pressed() {
            return Err(error);
        }
        let recovery = self.recover();
        if recovery.is_empty() {
            return Err(error);
        }
        if recovery.deferred > 0 {
            self.attachment().relieve();
        }
        self.carve_once(lanes, bytes, align, state)
    }

    #[cold]
    fn spill_over(
        &self,
        lanes: &Lanes,
        first: usize,
        bytes: u64,
        align: u64,
        state: State,
    ) -> Option<Place> {
        let larger = first + 1..SECTORS;
        let smaller = (0..first).rev().filter(|_| self.spill == Spill::Any);
        larger
            .chain(smaller)
            .filter(|&sector| self.inner.parts[sector].is_some())
            .find_map(|sector| self.carve_in(lanes, sector, bytes, align, state).ok())
    }

    /// The sector for a payload: by size, or else the nearest that exists, larger ones first.
    #[inline]
    pub(crate) fn route(&self, bytes: u64) -> usize {
        let geometry = &self.inner.geometry;
        let wanted = usize::from(bytes > geometry.small_max_bytes)
            + usize::from(bytes > geometry.medium_max_bytes);
        if self.inner.parts[wanted].is_some() { wanted } else { self.nearest(wanted) }
    }

    #[cold]
    fn nearest(&self, wanted: usize) -> usize {
        let exists = |&sector: &usize| self.inner.parts[sector].is_some();
        (wanted..SECTORS).chain((0..wanted).rev()).find(exists).unwrap_or(wanted)
    }

    #[inline]
    fn carve_in(
        &self,
        lanes: &Lanes,
        number: usize,
        bytes: u64,
        align: u64,
        state: State,
    ) -> Result<Place, Error> {
        let part = self.part(number).expect("routed to a sector that exists");
        let geometry = &part.geometry;
        let fits = geometry.granules_for(bytes.max(1)).filter(|&len| len <= geometry.granules);
        let Some(len) = fits else { return Err(part.too_large(bytes)) };
        let align = (align >> geometry.granule_shift).max(1) as u32;
        let want = if state == State::Held { Want::held(len) } else { Want::allocated(len) };
        let want = want.aligned(align).noted(bytes);
        let lane = lanes.lane(number);
        let carved = match part.carve(lane, &want) {
            Some(carved) => carved,
            None => {
                self.press(lanes, part);
                part.allocate(lane, &want).map_err(|no| part.no_block(bytes, no))?
            }
        };
        lanes.hold(u32::from(state == State::Held));
        Ok(Place::new(number, carved.head, carved.len))
    }

    /// The hints lead to no block: asks all caches for what they keep, and empties the thread's own.
    #[cold]
    fn press(&self, lanes: &Lanes, part: &Part<'_>) {
        part.sector.press();
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let back = unsafe {
            lanes.with_cache(part.id as usize, |cache, lane| cache.give_back(&part.sector, lane))
        };
        lanes.hold(back.unwrap_or(0).wrapping_neg());
    }

    /// Parks the small block of a guard in the thread's cache; false when that needs more thought.
    #[inline(always)]
    pub(crate) fn park_small(&self, place: Place) -> bool {
        let Some(lanes) = lanes::own(&self.inner) else { return false };
        let Some(part) = self.part(0) else { return false };
        if !self.cached || place.sector() != 0 {
            return false;
        }
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let cache = unsafe { lanes.small_cache() };
        cache.has_room(&part.sector) && cache.park(&part.sector, place.granule(), place.len())
    }

    /// Takes the block of a guard back, to the thread's cache or else to its sector.
    #[cold]
    #[inline(never)]
    pub(crate) fn free(&self, place: Place) -> Result<(), Error> {
        let lanes = self.lanes()?;
        let part = self.part_of(place);
        let (at, len) = (place.granule(), place.len());
        let put = |cache: &mut Cache, lane: &Lane<'_>| {
            let parked = cache.put(&part.sector, lane, at, len)?;
            Ok((parked, !cache.has_room(&part.sector)))
        };
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let put = if self.cached { unsafe { lanes.with_cache(place.sector(), put) } } else { None };
        match put {
            Some(Ok((parked, full))) => {
                self.after_put(lanes, part, parked, full);
                Ok(())
            }
            Some(Err(wrong)) => Err(self.not_held(place, wrong)),
            None => {
                let lane = lanes.lane(place.sector());
                am_ripple::ack(&part.sector, lane, at, State::Held)
                    .map_err(|wrong| self.not_held(place, wrong))?;
                lanes.hold(1u32.wrapping_neg());
                Ok(())
            }
        }
    }

    /// A block went past the cache, or the cache is full.
    #[cold]
    #[inline(never)]
    fn after_put(&self, lanes: &Lanes, part: &Part<'_>, parked: bool, full: bool) {
        lanes.hold(u32::from(!parked).wrapping_neg());
        if full {
            let relieve = |cache: &mut Cache, lane: &Lane<'_>| {
                cache.relieve(&part.sector, lane, self.share(part))
            };
            // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
            let back = unsafe { lanes.with_cache(part.id as usize, relieve) };
            lanes.hold(back.unwrap_or(0).wrapping_neg());
        }
    }

    #[cold]
    pub(crate) fn not_held(&self, place: Place, wrong: WrongState) -> Error {
        Error::Corrupt { offset: self.offset_of(place), seen: wrong.seen }
    }

    /// Takes a block that no guard owns, to the thread's cache by `put`, or else to its sector.
    #[inline]
    fn give_up(
        &self,
        lanes: &Lanes,
        part: &Part<'_>,
        granule: u32,
        put: impl FnOnce(&mut Cache, &Lane<'_>) -> Result<bool, WrongState>,
    ) -> Result<(), WrongState> {
        let number = part.id as usize;
        let put = |cache: &mut Cache, lane: &Lane<'_>| {
            Ok((put(cache, lane)?, !cache.has_room(&part.sector)))
        };
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let put = if self.cached { unsafe { lanes.with_cache(number, put) } } else { None };
        match put {
            Some(Ok((parked, full))) => {
                // It is the cache's now, or was nobody's and still is.
                lanes.hold(1);
                if !parked || full {
                    self.after_put(lanes, part, parked, full);
                }
                Ok(())
            }
            Some(Err(wrong)) => Err(wrong),
            None => {
                am_ripple::ack(&part.sector, lanes.lane(number), granule, State::Allocated)?;
                Ok(())
            }
        }
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
    #[inline]
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Claims a lane and a cache for the calling thread; `None` when all are taken.
    pub(crate) fn claim_lane(&self) -> Option<(RosterLane<'static>, Arc<CachePadded<Lanes>>)> {
        let limits = [self.geometry.small_max_bytes, self.geometry.medium_max_bytes];
        let len_max = std::array::from_fn(|number| {
            let geometry = &self.geometry.sectors[number];
            geometry.granules_for(limits[number]).unwrap_or(0).min(geometry.granules)
        });
        self.attachment.claim_lane(len_max)
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
    liveness: &dyn Liveness,
) -> Recovery {
    let full = || roster.slots().all(|slot| slot.state().is_taken());
    let mut recovery = recover_first(parts, roster, liveness);
    for _ in 0..ROOM_TRIES {
        if !full() {
            break;
        }
        std::thread::sleep(ROOM_PAUSE);
        recovery = recover_first(parts, roster, liveness);
    }
    recovery
}

/// The sectors of an arena, for a participant whom headers call `owner`.
fn parts<'a>(
    arena: &'a Arena,
    geometry: &Geometry,
    owner: u32,
) -> Result<[Option<Part<'a>>; SECTORS], Error> {
    let mut parts = [const { None }; SECTORS];
    for (number, part) in parts.iter_mut().enumerate() {
        if geometry.sectors[number].granules > 0 {
            *part = Some(Part::new(arena, geometry, number, owner)?);
        }
    }
    Ok(parts)
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let geometry = &self.inner.geometry;
        let split = (geometry.small_percent, geometry.medium_percent);
        write!(f, "Matrix({:?}, split {split:?}, spill {:?})", self.arena(), self.spill)
    }
}

impl<'a> Part<'a> {
    fn new(
        arena: &'a Arena,
        geometry: &Geometry,
        number: usize,
        owner: u32,
    ) -> Result<Self, Error> {
        let plan = geometry.sectors[number];
        let shape = IndexShape::new(plan.granules);
        let broken = |what| Error::BadGeometry(BadGeometry { what });
        if u64::from(plan.index_words) != shape.words() {
            return Err(broken("an index has not the size that its sector needs"));
        }
        let control_at = CONTROL_AT_BYTES + (number * CONTROL_WORDS * 4) as u64;
        let words = |at, count| arena.words(at, count).ok_or(broken("metadata lies outside"));
        let index = Index::new(shape, words(plan.index_bytes, shape.words())?)
            .ok_or(broken("an index is too short"))?;
        let control = words(control_at, CONTROL_WORDS as u64)?;
        let granules = words(plan.words_bytes, plan.granules.into())?;
        let sector = Sector::new(granules, index, control, arena.headers(&plan, owner))
            .ok_or(broken("a sector has too many granules"))?;
        Ok(Self {
            id: SectorId::ALL[number],
            sector,
            geometry: plan,
            first_unit: (plan.data_bytes / OFFSET_UNIT_BYTES) as u32,
            unit_shift: plan.granule_shift - OFFSET_UNIT_BYTES.trailing_zeros(),
        })
    }

    /// Takes a block by the hints only, if it need not be aligned.
    #[inline]
    fn carve(&self, lane: &Lane<'_>, want: &Want) -> Option<Carved> {
        if want.align() == 1 { self.sector.carve(lane, want) } else { None }
    }

    fn allocate(&self, lane: &Lane<'_>, want: &Want) -> Result<Carved, NoBlock> {
        if want.align() == 1 || want.is_held() {
            return am_ripple::allocate(&self.sector, lane, want);
        }
        // Held while it is trimmed to its size, so that no forged offset can free it meanwhile.
        let carved = am_ripple::allocate(&self.sector, lane, &want.but_held())?;
        let _ = am_ripple::give(&self.sector, carved.head);
        Ok(carved)
    }

    /// The payload's offset of the block at granule `head`.
    #[inline]
    pub(crate) fn offset_of(&self, head: u32) -> Offset {
        Offset::from_raw(self.first_unit + (head << self.unit_shift) + 1)
    }

    /// The address of the payload of the block at granule `head`, which lies in the sector.
    #[inline]
    pub(crate) fn payload(&self, head: u32) -> NonNull<u8> {
        self.sector.headers.payload(head)
    }

    #[cold]
    fn too_large(&self, requested_bytes: u64) -> Error {
        let largest_bytes = self.geometry.usable_bytes(self.geometry.granules);
        Error::TooLarge { sector: self.id, requested_bytes, largest_bytes }
    }

    #[cold]
    fn no_block(&self, requested_bytes: u64, no: NoBlock) -> Error {
        let sector = self.id;
        let (NoBlock::Exhausted { largest } | NoBlock::Contended { largest }) = no;
        let largest_free_bytes = if largest == 0 { 0 } else { self.geometry.usable_bytes(largest) };
        match no {
            NoBlock::Exhausted { .. } => {
                Error::Exhausted { sector, requested_bytes, largest_free_bytes }
            }
            NoBlock::Contended { .. } => {
                Error::Contended { sector, requested_bytes, largest_free_bytes }
            }
        }
    }
}

#[cold]
pub(crate) fn not_allocated(offset: Offset, wrong: WrongState) -> Error {
    Error::NotAllocated { offset, seen: wrong.seen }
}
