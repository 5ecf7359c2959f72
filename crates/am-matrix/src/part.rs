//! One sector as this process sees it: the algorithms' view, and the way from bytes to granules and back.

use crate::arena::{Arena, BlockHeaders};
use crate::error::{Error, SectorId};
use crate::request::Request;
use am_layout::roster::Roster;
use am_layout::{
    BadGeometry, CONTROL_AT_BYTES, CONTROL_WORDS, Geometry, OFFSET_UNIT_BYTES, Offset, SECTORS,
    SectorGeometry, State,
};
use am_ripple::{Carved, NoBlock, Others, Want};
use am_tlsf::{Index, IndexShape, Lane, Sector};
use std::ptr::NonNull;

/// One sector, as this process sees it.
pub(crate) struct Part<'a> {
    pub id: SectorId,
    pub sector: Sector<'a, BlockHeaders<'a>>,
    pub geometry: SectorGeometry,
    pub first_unit: u32,
    /// Units of 32 bytes per granule, as a power of two.
    pub unit_shift: u32,
}

/// The sectors of an arena, for a participant whom headers call `owner`.
pub(crate) fn parts<'a>(
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

    /// What a request asks of this sector; `None` when it can never have a block that long.
    #[inline]
    pub(crate) fn want(&self, request: Request) -> Option<Want> {
        let Request { bytes, align, state } = request;
        let geometry = &self.geometry;
        let len = geometry.granules_for(bytes.max(1)).filter(|&len| len <= geometry.granules)?;
        let align = (align >> geometry.granule_shift).max(1) as u32;
        let want = if state == State::Held { Want::held(len) } else { Want::allocated(len) };
        Some(want.aligned(align).noted(bytes))
    }

    /// Takes a block by the hints alone.
    #[inline]
    pub(crate) fn allocate_by_hints(&self, lane: &Lane<'_>, want: &Want) -> Option<Carved> {
        if want.align() == 1 || want.is_held() {
            return am_ripple::allocate_by_hints(&self.sector, lane, want);
        }
        let carved = am_ripple::allocate_by_hints(&self.sector, lane, &want.but_held())?;
        let _ = am_ripple::give(&self.sector, carved.head);
        Some(carved)
    }

    /// Takes a block, whatever it takes; `roster` is that of the arena.
    pub(crate) fn allocate(
        &self,
        lane: &Lane<'_>,
        want: &Want,
        roster: Roster<'_>,
    ) -> Result<Carved, NoBlock> {
        let others = Others::new(roster, self.id as usize);
        if want.align() == 1 || want.is_held() {
            return am_ripple::allocate_beside(&self.sector, lane, want, &others);
        }
        // Held while it is trimmed to its size, so that no forged offset can free it meanwhile.
        let carved = am_ripple::allocate_beside(&self.sector, lane, &want.but_held(), &others)?;
        let _ = am_ripple::give(&self.sector, carved.head);
        Ok(carved)
    }

    /// The granule whose block's payload begins at `offset`, if that lies in this sector.
    #[inline(always)]
    pub(crate) fn granule_of(&self, offset: Offset) -> Option<u32> {
        // The header is one unit before the payload, at the block's first granule.
        let inside = offset.to_raw().checked_sub(1)?.checked_sub(self.first_unit)?;
        let granule = inside >> self.unit_shift;
        let whole = granule << self.unit_shift == inside;
        (whole && granule < self.sector.len()).then_some(granule)
    }

    /// The payload's offset of the block at granule `head`.
    #[inline(always)]
    pub(crate) fn offset_of(&self, head: u32) -> Offset {
        Offset::from_raw(self.first_unit + (head << self.unit_shift) + 1)
    }

    /// The address of the payload of the block at granule `head`, which lies in the sector.
    #[inline]
    pub(crate) fn payload(&self, head: u32) -> NonNull<u8> {
        self.sector.headers.payload(head)
    }

    #[cold]
    pub(crate) fn too_large(&self, requested_bytes: u64) -> Error {
        let largest_bytes = self.geometry.usable_bytes(self.geometry.granules);
        Error::TooLarge { sector: self.id, requested_bytes, largest_bytes }
    }

    #[cold]
    pub(crate) fn no_block(&self, requested_bytes: u64, no: NoBlock) -> Error {
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
