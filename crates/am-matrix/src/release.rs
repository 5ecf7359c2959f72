//! How a block goes back: to the thread's cache, or to its sector.

use crate::block::Place;
use crate::error::Error;
use crate::lanes::{self, Lanes};
use crate::matrix::Matrix;
use crate::part::Part;
use am_cache::Cache;
use am_layout::{Offset, State};
use am_ripple::WrongState;
use am_tlsf::Lane;

impl Matrix {
    /// Parks the small block of a guard in the thread's cache; false when that needs more thought.
    #[inline(always)]
    pub(crate) fn park_small(&self, place: Place) -> bool {
        let Some(lanes) = lanes::own(self.quick_id()) else { return false };
        // SAFETY: this thread's own lanes.
        unsafe { self.park_small_in(lanes, place) }
    }

    /// Takes the block of a dropped guard back.
    // Inlined: where guards are dropped, a program finds its thread-local storage without a call.
    #[inline]
    pub(crate) fn release(&self, place: Place) {
        if !self.park_small(place) {
            self.free_or_count(place);
        }
    }

    /// As [`park_small`](Self::park_small), in the cache of `lanes`.
    ///
    /// # Safety
    /// The lanes are not shared, and nobody else uses their caches meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn park_small_in(&self, lanes: &Lanes, place: Place) -> bool {
        let Some(part) = self.part(0).filter(|_| place.sector() == 0) else { return false };
        // SAFETY: promised by the caller; the cache calls nothing but the sector.
        let cache = unsafe { lanes.small_cache() };
        cache.has_room(&part.sector, place.len())
            && cache.park(&part.sector, place.granule(), place.len())
    }

    /// Takes the block of a guard back, to the thread's cache or else to its sector.
    #[cold]
    #[inline(never)]
    pub(crate) fn free(&self, place: Place) -> Result<(), Error> {
        // SAFETY: this thread's own lanes.
        unsafe { self.free_by(self.lanes()?, self.cached, place) }
    }

    /// As [`free`](Self::free), by the lanes and, if it shall be `cached`, the caches of `lanes`.
    ///
    /// # Safety
    /// The lanes are the calling thread's, and nobody else uses their caches meanwhile.
    pub(crate) unsafe fn free_by(
        &self,
        lanes: &Lanes,
        cached: bool,
        place: Place,
    ) -> Result<(), Error> {
        let part = self.part_of(place);
        let (at, len) = (place.granule(), place.len());
        let put = |cache: &mut Cache, lane: &Lane<'_>| {
            let parked = cache.put(&part.sector, lane, at, len)?;
            Ok((parked, !cache.has_room(&part.sector, 0)))
        };
        // SAFETY: promised by the caller; the cache calls nothing but the sector.
        let put = if cached { unsafe { lanes.with_cache(place.sector(), put) } } else { None };
        match put {
            Some(Ok((parked, full))) => {
                // SAFETY: promised by the caller.
                unsafe { self.after_put(lanes, part, parked, full) };
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
    ///
    /// # Safety
    /// As [`free_by`](Self::free_by).
    #[cold]
    #[inline(never)]
    unsafe fn after_put(&self, lanes: &Lanes, part: &Part<'_>, parked: bool, full: bool) {
        lanes.hold(u32::from(!parked).wrapping_neg());
        if full {
            // SAFETY: promised by the caller.
            let most = unsafe { self.inner.share(part, lanes) };
            let relieve =
                |cache: &mut Cache, lane: &Lane<'_>| cache.relieve(&part.sector, lane, most);
            // SAFETY: promised by the caller; the cache calls nothing but the sector.
            let back = unsafe { lanes.with_cache(part.id as usize, relieve) };
            lanes.hold(back.unwrap_or(0).wrapping_neg());
        }
    }

    #[cold]
    pub(crate) fn not_held(&self, place: Place, wrong: WrongState) -> Error {
        Error::Corrupt { offset: self.offset_of(place), seen: wrong.seen }
    }

    /// Parks a small block that no guard owns in the thread's cache, by `park`; false when that needs more
    /// thought.
    #[inline(always)]
    pub(crate) fn ack_small(
        &self,
        offset: Offset,
        park: impl FnOnce(&mut Cache, &Part<'_>, &Lane<'_>, u32) -> bool,
    ) -> bool {
        let Some(lanes) = lanes::own(self.quick_id()) else { return false };
        let Some(part) = self.part(0) else { return false };
        let Some(granule) = part.granule_of(offset) else { return false };
        // SAFETY: this thread's own lanes; the cache calls nothing but the sector.
        let cache = unsafe { lanes.small_cache() };
        let parked = park(cache, part, lanes.lane(0), granule);
        if parked {
            lanes.hold_one();
        }
        parked
    }

    /// Takes a block that no guard owns, whatever it takes; by a plain store if it is `unshared`, which the
    /// caller answers for.
    #[cold]
    #[inline(never)]
    pub(crate) fn ack_slow(&self, offset: Offset, unshared: bool) -> Result<(), Error> {
        let (part, granule) = self.locate(offset)?;
        let put = |cache: &mut Cache, lane: &Lane<'_>| match unshared {
            true => cache.put_unshared(&part.sector, lane, granule),
            false => cache.put_allocated(&part.sector, lane, granule),
        };
        // SAFETY: this thread's own lanes.
        unsafe { self.give_up(self.lanes()?, self.cached, part, granule, put) }
            .map_err(|wrong| not_allocated(offset, wrong))
    }

    /// Takes a block that no guard owns, to the cache of `lanes` by `put` if it shall be `cached`, or else
    /// to its sector.
    ///
    /// # Safety
    /// The lanes are the calling thread's, and nobody else uses their caches meanwhile.
    #[inline]
    pub(crate) unsafe fn give_up(
        &self,
        lanes: &Lanes,
        cached: bool,
        part: &Part<'_>,
        granule: u32,
        put: impl FnOnce(&mut Cache, &Lane<'_>) -> Result<bool, WrongState>,
    ) -> Result<(), WrongState> {
        let number = part.id as usize;
        let put = |cache: &mut Cache, lane: &Lane<'_>| {
            Ok((put(cache, lane)?, !cache.has_room(&part.sector, 0)))
        };
        // SAFETY: promised by the caller; the cache calls nothing but the sector.
        let put = if cached { unsafe { lanes.with_cache(number, put) } } else { None };
        match put {
            Some(Ok((parked, full))) => {
                // It is the cache's now, or was nobody's and still is.
                lanes.hold(1);
                if !parked || full {
                    // SAFETY: promised by the caller.
                    unsafe { self.after_put(lanes, part, parked, full) };
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
}

#[cold]
pub(crate) fn not_allocated(offset: Offset, wrong: WrongState) -> Error {
    Error::NotAllocated { offset, seen: wrong.seen }
}
