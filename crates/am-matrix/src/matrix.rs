//! The matrix: sectors over one arena, and the way from bytes to granules and back.

use crate::arena::{Arena, BlockHeaders, SectorWords, head_words, look, read_geometry};
use crate::block::Block;
use crate::error::{Error, SectorId};
use crate::lanes::Lanes;
use am_layout::{
    COUNTER_WORDS, GUARD_WORDS, Geometry, HEAD_WORDS, HEADER_BYTES, Offset, SECTOR_ALIGN_BYTES,
    SECTORS, Seen, State,
};
use am_ripple::{Carved, NoBlock, Want, WrongState};
use am_tlsf::{Index, IndexShape, Lane, Sector};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

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
/// [`ack`](Self::ack) are lock-free, bounded, and make no system call.
#[derive(Clone, Debug)]
pub struct Matrix {
    inner: Arc<Inner>,
    spill: Spill,
}

#[derive(Debug)]
struct Inner {
    arena: Arena,
    geometry: Geometry,
    sectors: [Option<Part>; SECTORS],
    lanes: Lanes,
}

/// What is private to this process about one sector.
#[derive(Debug)]
struct Part {
    shape: IndexShape,
    words: SectorWords,
}

/// One sector with its lane.
pub(crate) struct Place<'a> {
    pub id: SectorId,
    pub sector: Sector<'a, BlockHeaders<'a>>,
    pub lane: &'a Lane,
    pub geometry: &'a am_layout::SectorGeometry,
}

impl Matrix {
    /// Writes a geometry into an arena of zeroes and makes every sector one free block.
    ///
    /// Nobody else may use the arena before this returns.
    ///
    /// # Errors
    /// [`Error::BadGeometry`] when the geometry does not fit the arena.
    pub fn format(arena: Arena, geometry: &Geometry) -> Result<Self, Error> {
        geometry.validate(arena.len_bytes() as u64)?;
        geometry.write(head_words(&arena)?);
        let matrix = Self::attach(arena)?;
        for place in matrix.places() {
            am_ripple::format(&place.sector, place.lane);
        }
        Ok(matrix)
    }

    /// Uses an arena that a formatter has finished.
    ///
    /// The geometry is read once, validated, and kept in private memory.
    ///
    /// # Errors
    /// [`Error::TooShort`] or [`Error::BadGeometry`] when the arena holds no valid matrix.
    pub fn attach(arena: Arena) -> Result<Self, Error> {
        let geometry = read_geometry(&arena)?;
        let mut sectors = [const { None }; SECTORS];
        for (number, part) in sectors.iter_mut().enumerate() {
            if geometry.sectors[number].granules > 0 {
                *part = Some(Part::new(&arena, &geometry, number)?);
            }
        }
        let inner = Inner { arena, geometry, sectors, lanes: Lanes::new() };
        Ok(Self { inner: Arc::new(inner), spill: Spill::Off })
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
        &self.inner.arena
    }

    /// Returns where everything lies.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.inner.geometry
    }

    /// Allocates a block of `bytes` (0 counts as 1) that the guard owns; dropping it acks.
    ///
    /// The payload's content is whatever lay there before. It is aligned to 32 bytes at least.
    /// Lock-free, no system call.
    ///
    /// # Errors
    /// [`Error::Exhausted`], [`Error::Contended`] or [`Error::TooLarge`].
    #[inline]
    pub fn allocate(&self, bytes: usize) -> Result<Block<'_>, Error> {
        let offset = self.carve(bytes as u64, 1, State::Held)?;
        Ok(Block::of(self, offset, bytes))
    }

    /// Allocates a block of the layout's size whose payload has the layout's alignment.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), and [`Error::AlignmentTooLarge`] above 4096 bytes.
    pub fn allocate_aligned(&self, layout: Layout) -> Result<Block<'_>, Error> {
        if layout.align() as u64 > SECTOR_ALIGN_BYTES {
            return Err(Error::AlignmentTooLarge { align_bytes: layout.align() });
        }
        let offset = self.carve(layout.size() as u64, layout.align() as u64, State::Held)?;
        Ok(Block::of(self, offset, layout.size()))
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
    #[inline]
    pub fn allocate_offset(&self, bytes: usize) -> Result<Offset, Error> {
        self.carve(bytes as u64, 1, State::Allocated)
    }

    /// Gives back the block whose payload lies at `offset`; free neighbours merge at once.
    ///
    /// Acts only on a block that no guard owns. Lock-free, bounded, no system call. Detected: any
    /// offset that is not the payload of an allocated block, so every double ack until the place is
    /// allocated anew; an offset kept beyond that frees the new block, as with any allocator.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] or [`Error::NotAllocated`]; nothing is changed then.
    #[inline]
    pub fn ack(&self, offset: Offset) -> Result<(), Error> {
        self.ack_as(offset, State::Allocated)
    }

    /// Takes a block that was given away, by its offset; of several callers exactly one succeeds.
    ///
    /// What the giver wrote is visible. Wait-free.
    ///
    /// # Errors
    /// [`Error::NotAPayload`] or [`Error::NotAllocated`].
    pub fn from_offset(&self, offset: Offset) -> Result<Block<'_>, Error> {
        let (place, granule) = self.locate(offset)?;
        let len = am_ripple::take(&place.sector, granule).map_err(|w| not_allocated(offset, w))?;
        let bytes = place.sector.headers.bytes(granule).min(place.geometry.usable_bytes(len));
        Ok(Block::of(self, offset, bytes as usize))
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
        Ok(self.inner.arena.payload(offset))
    }

    /// Routes a request and carves its block; returns the payload's offset.
    #[inline]
    fn carve(&self, bytes: u64, align: u64, state: State) -> Result<Offset, Error> {
        let first = self.route(bytes);
        match self.carve_in(first, bytes, align, state) {
            Err(error) if self.spill != Spill::Off => {
                let larger = first + 1..SECTORS;
                let smaller = (0..first).rev().filter(|_| self.spill == Spill::Any);
                larger
                    .chain(smaller)
                    .filter(|&sector| self.inner.sectors[sector].is_some())
                    .find_map(|sector| self.carve_in(sector, bytes, align, state).ok())
                    .ok_or(error)
            }
            result => result,
        }
    }

    /// The sector for a payload: by size, or else the nearest that exists, larger ones first.
    #[inline]
    pub(crate) fn route(&self, bytes: u64) -> usize {
        let geometry = &self.inner.geometry;
        let wanted = usize::from(bytes > geometry.small_max_bytes)
            + usize::from(bytes > geometry.medium_max_bytes);
        let exists = |&sector: &usize| self.inner.sectors[sector].is_some();
        let nearest = || (wanted..SECTORS).chain((0..wanted).rev()).find(exists);
        if exists(&wanted) { wanted } else { nearest().unwrap_or(wanted) }
    }

    fn carve_in(
        &self,
        number: usize,
        bytes: u64,
        align: u64,
        state: State,
    ) -> Result<Offset, Error> {
        let place = self.place(number).expect("routed to a sector that exists");
        let geometry = place.geometry;
        let fits = geometry.granules_for(bytes.max(1)).filter(|&len| len <= geometry.granules);
        let Some(len) = fits else {
            return Err(Error::TooLarge {
                sector: place.id,
                requested_bytes: bytes,
                largest_bytes: geometry.usable_bytes(geometry.granules),
            });
        };
        let align = (align >> geometry.granule_shift).max(1) as u32;
        let want = Want { len, align, state, note: bytes };
        let carved = place.allocate(want).map_err(|no| place.no_block(bytes, no))?;
        Ok(place.offset_of(carved.head))
    }

    #[inline]
    pub(crate) fn ack_as(&self, offset: Offset, state: State) -> Result<(), Error> {
        let (place, granule) = self.locate(offset)?;
        am_ripple::ack(&place.sector, place.lane, granule, state)
            .map(|_| ())
            .map_err(|wrong| not_allocated(offset, wrong))
    }

    /// Finds the sector and the granule whose block's payload begins at `offset`.
    #[inline]
    pub(crate) fn locate(&self, offset: Offset) -> Result<(Place<'_>, u32), Error> {
        let wrong = Error::NotAPayload { offset };
        let header = offset.bytes().checked_sub(HEADER_BYTES as u64).ok_or(wrong)?;
        let number = self.inner.geometry.sector_of(header).ok_or(wrong)?;
        let place = self.place(number).ok_or(wrong)?;
        let inside = header - place.geometry.data_bytes;
        if inside & (place.geometry.granule_bytes() - 1) != 0 {
            return Err(wrong);
        }
        let granule = (inside >> place.geometry.granule_shift) as u32;
        Ok((place, granule))
    }

    /// Looks at one sector through this thread's lane; `None` when it is absent.
    #[inline]
    pub(crate) fn place(&self, number: usize) -> Option<Place<'_>> {
        let inner = &*self.inner;
        let part = inner.sectors[number].as_ref()?;
        let geometry = &inner.geometry.sectors[number];
        // SAFETY: from this arena, which the handle keeps alive.
        let words = unsafe { look(part.words.words) };
        // SAFETY: as above.
        let index = unsafe { look(part.words.index) };
        // SAFETY: as above.
        let counters = unsafe { look(part.words.counters) };
        let index = Index::new(&part.shape, index)?;
        let sector = Sector::new(words, index, counters, inner.arena.headers(geometry))?;
        let lane = inner.lanes.mine(number);
        Some(Place { id: SectorId::ALL[number], sector, lane, geometry })
    }

    /// Looks at every sector there is.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..SECTORS).filter_map(|number| self.place(number))
    }
}

impl Part {
    fn new(arena: &Arena, geometry: &Geometry, number: usize) -> Result<Self, Error> {
        let sector = &geometry.sectors[number];
        let shape = IndexShape::new(sector.granules);
        let outside = |what| Error::BadGeometry(am_layout::BadGeometry { what });
        if u64::from(sector.index_words) != shape.words() {
            return Err(outside("an index has not the size that its sector needs"));
        }
        let counters_at = 4 * (GUARD_WORDS + HEAD_WORDS + number * COUNTER_WORDS) as u64;
        let words = |at, count| arena.words(at, count).ok_or(outside("metadata lies outside"));
        Ok(Self {
            shape,
            words: SectorWords {
                words: words(sector.words_bytes, sector.granules.into())?,
                index: words(sector.index_bytes, shape.words())?,
                counters: words(counters_at, COUNTER_WORDS as u64)?,
            },
        })
    }
}

impl Place<'_> {
    #[inline]
    fn allocate(&self, want: Want) -> Result<Carved, NoBlock> {
        if want.align == 1 || want.state == State::Held {
            return am_ripple::allocate(&self.sector, self.lane, want);
        }
        // Held while it is trimmed to its size, so that no forged offset can free it meanwhile.
        let held = Want { state: State::Held, ..want };
        let carved = am_ripple::allocate(&self.sector, self.lane, held)?;
        let _ = am_ripple::give(&self.sector, carved.head);
        Ok(carved)
    }

    fn no_block(&self, requested_bytes: u64, no: NoBlock) -> Error {
        let sector = self.id;
        let payload = |largest| if largest == 0 { 0 } else { self.geometry.usable_bytes(largest) };
        match no {
            NoBlock::Exhausted { largest } => {
                let largest_free_bytes = payload(largest);
                Error::Exhausted { sector, requested_bytes, largest_free_bytes }
            }
            NoBlock::Contended { largest } => {
                let largest_free_bytes = payload(largest);
                Error::Contended { sector, requested_bytes, largest_free_bytes }
            }
        }
    }

    /// The payload's offset of the block at granule `head`.
    #[inline]
    pub(crate) fn offset_of(&self, head: u32) -> Offset {
        let at = self.geometry.data_bytes + (u64::from(head) << self.geometry.granule_shift);
        // In units of 32 bytes; a validated geometry lies below 128 GiB.
        Offset::from_raw(((at + HEADER_BYTES as u64) >> 5) as u32)
    }
}

pub(crate) fn not_allocated(offset: Offset, wrong: WrongState) -> Error {
    let seen: Seen = wrong.seen;
    if wrong.expected == State::Held {
        Error::Corrupt { offset, seen }
    } else {
        Error::NotAllocated { offset, seen }
    }
}
