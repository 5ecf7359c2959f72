//! How a request is met: from the thread's cache, by the hints, and whatever else it takes.

use crate::block::Place;
use crate::error::Error;
use crate::lanes::{self, Lanes};
use crate::matrix::{Matrix, Spill};
use crate::part::Part;
use am_cache::Cache;
use am_layout::{SECTORS, State};
use am_tlsf::Lane;

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Payload bytes.
    pub bytes: u64,
    /// Alignment of the payload in bytes; up to 32 all are.
    pub align: u64,
    /// `HELD` for a guard, `ALLOCATED` for an offset.
    pub state: State,
}

impl Matrix {
    /// Takes a block of the small sector out of the thread's cache, if there is one just as long.
    #[inline(always)]
    pub(crate) fn take_small(&self, bytes: u64, state: State) -> Option<(&Part<'_>, Place)> {
        let lanes = lanes::own(self.quick_id())?;
        // SAFETY: this thread's own lanes.
        unsafe { self.take_small_of(lanes, self.short_bytes, bytes, state) }
    }

    /// As [`take_small`](Self::take_small), out of the cache of `lanes`, for up to `short_bytes`.
    ///
    /// # Safety
    /// The lanes are not shared, and nobody else uses their caches meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn take_small_of(
        &self,
        lanes: &Lanes,
        short_bytes: u64,
        bytes: u64,
        state: State,
    ) -> Option<(&Part<'_>, Place)> {
        // 0 counts as 1, but not here: one comparison tells both.
        if bytes.wrapping_sub(1) >= short_bytes {
            return None;
        }
        let part = self.part(0)?;
        let len = part.geometry.granules_for_short(bytes);
        // SAFETY: promised by the caller; the cache calls nothing but the sector.
        let cache = unsafe { lanes.small_cache() };
        let head = cache.take(&part.sector, len, state, bytes)?;
        if state == State::Allocated {
            lanes.hold(1u32.wrapping_neg());
        }
        Some((part, Place::new(0, head, len)))
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
        let head = cache.take(&part.sector, len, state, bytes)?;
        if state == State::Allocated {
            lanes.hold(1u32.wrapping_neg());
        }
        Some(Place::new(number, head, len))
    }

    /// Takes a block out of the thread's cache, which is refilled if that is worth it, or else carves it.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_or_carve(&self, bytes: u64, state: State) -> Result<Place, Error> {
        // SAFETY: this thread's own lanes.
        unsafe { self.take_or_carve_by(self.lanes()?, self.cached, bytes, state) }
    }

    /// As [`take_or_carve`](Self::take_or_carve), by the lanes and, if it shall be `cached`, the caches of
    /// `lanes`.
    ///
    /// # Safety
    /// The lanes are the calling thread's, and nobody else uses their caches meanwhile.
    pub(crate) unsafe fn take_or_carve_by(
        &self,
        lanes: &Lanes,
        cached: bool,
        bytes: u64,
        state: State,
    ) -> Result<Place, Error> {
        let request = Request { bytes, align: 1, state };
        if cached {
            // SAFETY: promised by the caller.
            let taken = unsafe { self.take_or_refill(lanes, request) };
            if let Some(place) = taken {
                return Ok(place);
            }
        }
        match self.carve_by_hints(lanes, request) {
            Some(place) => Ok(place),
            None => self.carve(lanes, request),
        }
    }

    /// Takes a block out of the cache of `lanes`, which is refilled if it has none and that is worth it.
    ///
    /// # Safety
    /// As [`take_or_carve_by`](Self::take_or_carve_by).
    unsafe fn take_or_refill(&self, lanes: &Lanes, request: Request) -> Option<Place> {
        let Request { bytes, state, .. } = request;
        let number = self.route(bytes);
        let part = self.part(number)?;
        let take = |cache: &mut Cache, lane: &Lane<'_>| {
            let taken = self.take_from(cache, lanes, number, bytes, state);
            if taken.is_some() {
                return taken;
            }
            let len = part.geometry.granules_for(bytes.max(1))?;
            // SAFETY: promised by the caller.
            let most = || unsafe { self.inner.share(part, lanes) };
            if !cache.has_room(&part.sector, 0) {
                // Memory is short somewhere: no run for later.
                let back = cache.relieve(&part.sector, lane, most());
                lanes.hold(back.wrapping_neg());
            }
            lanes.hold(cache.refill(&part.sector, lane, len, most));
            self.take_from(cache, lanes, number, bytes, state)
        };
        // SAFETY: promised by the caller; the cache calls nothing but the sector.
        unsafe { lanes.with_cache(number, take) }?
    }

    /// Carves a block that the hints lead to, in the sector that the request is routed to.
    #[inline]
    fn carve_by_hints(&self, lanes: &Lanes, request: Request) -> Option<Place> {
        let number = self.route(request.bytes);
        let part = self.part(number)?;
        let carved = part.allocate_by_hints(lanes.lane(number), &part.want(request)?)?;
        lanes.hold(u32::from(request.state == State::Held));
        Some(Place::new(number, carved.head, carved.len))
    }

    /// Routes a request and carves its block, whatever it takes.
    #[cold]
    #[inline(never)]
    pub(crate) fn carve(&self, lanes: &Lanes, request: Request) -> Result<Place, Error> {
        match self.carve_or_spill(lanes, request) {
            Err(error @ (Error::Exhausted { .. } | Error::Contended { .. })) => {
                // What the dead held may be enough.
                if self.recover_under_pressure() {
                    self.carve_or_spill(lanes, request)
                } else {
                    Err(error)
                }
            }
            result => result,
        }
    }

    fn carve_or_spill(&self, lanes: &Lanes, request: Request) -> Result<Place, Error> {
        let first = self.route(request.bytes);
        let part = self.part(first).expect("routed to a sector that exists");
        match self.carve_in(lanes, part, request) {
            Err(error) if self.spill != Spill::Off => {
                let larger = first + 1..SECTORS;
                let smaller = (0..first).rev().filter(|_| self.spill == Spill::Any);
                larger
                    .chain(smaller)
                    .filter_map(|number| self.part(number))
                    .find_map(|part| self.carve_in(lanes, part, request).ok())
                    .ok_or(error)
            }
            result => result,
        }
    }

    /// Before an allocation fails: tells whether something of the dead's came back.
    fn recover_under_pressure(&self) -> bool {
        if !self.attachment().is_pressed() {
            return false;
        }
        let recovery = self.recover();
        if recovery.deferred > 0 {
            self.attachment().relieve();
        }
        !recovery.is_empty()
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

    fn carve_in(&self, lanes: &Lanes, part: &Part<'_>, request: Request) -> Result<Place, Error> {
        let Request { bytes, state, .. } = request;
        let want = part.want(request).ok_or_else(|| part.too_large(bytes))?;
        let number = part.id as usize;
        let lane = lanes.lane(number);
        let carved = match part.allocate_by_hints(lane, &want) {
            Some(carved) => carved,
            None => {
                self.press(lanes, part);
                let roster = self.attachment().roster();
                part.allocate(lane, &want, roster).map_err(|no| part.no_block(bytes, no))?
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
}
