//! Changing blocks in place, typed values, and many blocks at once.

use crate::block::{Block, Place, TypedBlock};
use crate::error::Error;
use crate::matrix::Matrix;
use crate::part::Part;
use am_layout::{Offset, Seen, State};
use am_ripple::Want;
use am_tlsf::Headers;
use bytemuck::Pod;
use std::alloc::Layout;

/// Blocks that one carve of [`Matrix::allocate_many`] takes at the most.
const BATCH_MAX: usize = 256;

impl Matrix {
    /// Allocates a block for `value`, aligned for its type.
    ///
    /// # Errors
    /// As [`allocate_aligned`](Self::allocate_aligned).
    pub fn allocate_value<T: Pod>(&self, value: T) -> Result<TypedBlock<'_, T>, Error> {
        let mut block = TypedBlock::of(self.allocate_aligned(Layout::new::<T>())?)?;
        *block = value;
        Ok(block)
    }

    /// Takes a value that was given away, as [`from_offset`](Self::from_offset).
    ///
    /// # Errors
    /// As [`from_offset`](Self::from_offset), and [`Error::WrongSize`] when the block is not
    /// exactly as long as the type, or not aligned for it; it stays given away then. A block of as
    /// many granules but fewer bytes is taken for a moment to find that out.
    pub fn value_from_offset<T: Pod>(&self, offset: Offset) -> Result<TypedBlock<'_, T>, Error> {
        let (part, granule) = self.locate(offset)?;
        // Most blocks of another type can be told by their length, without taking them.
        let expected_bytes = size_of::<T>() as u64;
        match part.sector.seen_at(granule) {
            Seen::Head(State::Allocated, len) if granules(part, expected_bytes) == Some(len) => {}
            Seen::Head(State::Allocated, len) => {
                let bytes = part.geometry.usable_bytes(len);
                return Err(Error::WrongSize { offset, bytes, expected_bytes });
            }
            seen => return Err(Error::NotAllocated { offset, seen }),
        }
        TypedBlock::of(self.from_offset(offset)?)
    }

    /// Allocates `count` blocks of `bytes` each, or none.
    ///
    /// Where free blocks are long enough, one carve serves many of them, side by side.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); nothing is allocated then.
    pub fn allocate_many(&self, count: usize, bytes: usize) -> Result<Vec<Block<'_>>, Error> {
        let mut blocks = Vec::with_capacity(count.min(1 << 16));
        while blocks.len() < count {
            let missing = count - blocks.len();
            if missing > 1 && self.carve_batch(missing.min(BATCH_MAX), bytes, &mut blocks) {
                continue;
            }
            match self.allocate(bytes) {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    self.free_many(blocks);
                    return Err(error);
                }
            }
        }
        Ok(blocks)
    }

    /// Carves one block for `count` and splits it; false, and nothing done, when there is none.
    fn carve_batch<'m>(&'m self, count: usize, bytes: usize, into: &mut Vec<Block<'m>>) -> bool {
        let Ok(lanes) = self.lanes() else { return false };
        let Some(part) = self.part(self.route(bytes as u64)) else { return false };
        let lane = lanes.lane(part.id as usize);
        let Some(piece) = part.geometry.granules_for(bytes.max(1) as u64) else { return false };
        // By hints only: a walk for a whole batch would be paid again for each half of it.
        let mut pieces = count as u32;
        while pieces > 1 {
            let len = piece.checked_mul(pieces).filter(|&len| len <= part.geometry.granules);
            let want = len.map(Want::held);
            let Some(carved) = want.and_then(|want| part.sector.carve(lane, &want)) else {
                pieces /= 2;
                continue;
            };
            let made = am_ripple::split(&part.sector, lane, carved.head, piece).unwrap_or(0);
            lanes.hold(made);
            for number in 0..made {
                let head = carved.head + number * piece;
                // The last one keeps what does not divide; here everything does.
                into.push(self.block(Place::new(part.id as usize, head, piece), bytes));
            }
            return made > 0;
        }
        false
    }

    /// Gives many blocks back; those that lie side by side merge before they go.
    ///
    /// Blocks of another matrix are given back to theirs.
    pub fn free_many<'m>(&'m self, blocks: impl IntoIterator<Item = Block<'m>>) {
        // All of them first: an iterator may panic, and then they are dropped as they are.
        let blocks: Vec<Block<'m>> = blocks.into_iter().collect();
        let own = blocks.into_iter().filter_map(|block| {
            // Those of another matrix are dropped, and so given back.
            block.belongs_to(self).then(|| block.into_place())
        });
        self.free_places(own.collect());
    }

    /// Gives held blocks back that no guard has any more.
    pub(crate) fn free_places(&self, places: Vec<Place>) {
        let Ok(lanes) = self.lanes() else { return };
        let mut heads: [Vec<u32>; am_layout::SECTORS] = Default::default();
        for place in places {
            heads[place.sector()].push(place.granule());
        }
        for part in self.parts() {
            let heads = &mut heads[part.id as usize];
            let lane = lanes.lane(part.id as usize);
            match am_ripple::ack_many(&part.sector, lane, heads, State::Held) {
                Ok(()) => lanes.hold((heads.len() as u32).wrapping_neg()),
                Err(_) => part.sector.count(am_layout::Event::Corrupt),
            }
        }
    }

    /// Returns how many payload bytes the block at `offset` can hold; `None` when none is in use.
    #[must_use]
    pub fn usable_bytes(&self, offset: Offset) -> Option<usize> {
        let (part, granule) = self.locate(offset).ok()?;
        match part.sector.seen_at(granule) {
            Seen::Head(State::Allocated | State::Held, len) => {
                Some(part.geometry.usable_bytes(len) as usize)
            }
            _ => None,
        }
    }

    pub(crate) fn usable_bytes_at(&self, place: Place) -> usize {
        self.part_of(place).geometry.usable_bytes(place.len()) as usize
    }

    /// Makes a held block of `bytes` one that no guard owns.
    pub(crate) fn give(&self, place: Place, bytes: usize) -> Result<(), Error> {
        let lanes = self.lanes()?;
        let part = self.part_of(place);
        part.sector.headers.set_note(place.granule(), bytes as u64);
        am_ripple::give(&part.sector, place.granule())
            .map_err(|wrong| self.not_held(place, wrong))?;
        lanes.hold(1u32.wrapping_neg());
        Ok(())
    }

    /// Lengthens a held block in place; returns where it lies then.
    pub(crate) fn grow(&self, place: Place, bytes: u64) -> Result<Place, Error> {
        let no_room = Error::NoRoom { requested_bytes: bytes };
        let (part, lanes) = (self.part_of(place), self.lanes()?);
        let len = granules(part, bytes).ok_or(no_room)?;
        if len <= place.len() {
            return Ok(place);
        }
        let lane = lanes.lane(place.sector());
        match am_ripple::grow(&part.sector, lane, place.granule(), len) {
            Ok(true) => Ok(Place::new(place.sector(), place.granule(), len)),
            Ok(false) => Err(no_room),
            Err(wrong) => Err(self.not_held(place, wrong)),
        }
    }

    /// Shortens a held block in place; returns where it lies then.
    pub(crate) fn shrink(&self, place: Place, bytes: u64) -> Result<Place, Error> {
        let (part, lanes) = (self.part_of(place), self.lanes()?);
        let len = granules(part, bytes).ok_or(Error::NoRoom { requested_bytes: bytes })?;
        let lane = lanes.lane(place.sector());
        am_ripple::shrink(&part.sector, lane, place.granule(), len)
            .map_err(|wrong| self.not_held(place, wrong))?;
        Ok(Place::new(place.sector(), place.granule(), len))
    }

    /// Takes the block of a guard back; a damaged one is counted, since a drop cannot report it.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_or_count(&self, place: Place) {
        if let Err(Error::Corrupt { .. }) = self.free(place) {
            self.count_corrupt(place);
        }
    }

    pub(crate) fn count_corrupt(&self, place: Place) {
        self.part_of(place).sector.count(am_layout::Event::Corrupt);
    }
}

fn granules(part: &Part<'_>, bytes: u64) -> Option<u32> {
    part.geometry.granules_for(bytes.max(1))
}
