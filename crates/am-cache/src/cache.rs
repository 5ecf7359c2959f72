//! One thread's cache of one sector.

use crate::magazine::Magazine;
use alloc::vec::Vec;
use am_layout::{Event, State};
use am_ripple::{
    Carved, WrongState, ack, give_back_parked, park, park_allocated, park_unshared, unpark,
};
use am_tlsf::{Headers, Lane, Sector, Want};

/// One part in so many of a sector is for all its caches together.
pub const SHARE: u32 = 4;
/// While memory is plenty, one part in so many of a sector is the most that one cache parks.
const ALONE: u32 = 2;

/// Returns what one of `threads` caches may park, in granules, of a sector of `len` whose longest free block
/// is known to be `longest`.
///
/// A quarter of the sector is for all its caches, whatever happens. Beyond that all of them together may park
/// twice as much as is left in one free block: so of the memory that nobody uses a third stays free.
#[must_use]
pub fn share(len: u32, longest: u32, threads: u32) -> u32 {
    let threads = threads.max(1);
    let spare = (longest / threads).saturating_mul(2).min(len / ALONE);
    spare.max(len / SHARE / threads)
}

/// Granules whose words share a cache line. Runs of shorter blocks begin where a line does, so that
/// threads do not write to each other's lines.
const LINE_GRANULES: u32 = 16;
/// Most blocks that one call gives back because the cache is over its limit.
const FLUSH_BLOCKS_MAX: usize = 256;

/// A thread's parked blocks of one sector, by length.
///
/// One thread's alone, and of one sector: pass the same one to every call, with a lane of the same
/// thread. Dropping a cache does not give its blocks back: call [`give_back`](Self::give_back).
#[derive(Debug)]
pub struct Cache {
    /// One per length in granules, from 0.
    magazines: Vec<Magazine>,
    /// Longest block that is parked, in granules.
    len_max: u32,
    /// Granules parked.
    parked: u32,
    /// Granules above which some go back.
    limit: u32,
    limit_first: u32,
    /// The sector's pressure when it was last answered.
    pressure: u32,
    /// Length where the next flush begins.
    cursor: u32,
    /// Something went back for want of room, and nothing was refilled since.
    flushed: bool,
    /// Reused by every flush.
    batch: Vec<u32>,
}

impl Cache {
    /// Makes a cache for blocks of up to `len_max` granules, which parks up to `limit` granules
    /// until it learns that it needs more. It takes no memory until it is first used.
    #[must_use]
    pub const fn new(len_max: u32, limit: u32) -> Self {
        Self {
            magazines: Vec::new(),
            len_max,
            parked: 0,
            limit,
            limit_first: limit,
            pressure: 0,
            cursor: 0,
            flushed: false,
            batch: Vec::new(),
        }
    }

    /// Returns how many granules are parked.
    #[inline]
    #[must_use]
    pub fn parked(&self) -> u32 {
        self.parked
    }

    /// Hands out a parked block of exactly `len` granules as `to` (`HELD`, or `ALLOCATED` with the note);
    /// its head.
    ///
    /// `None` when none is parked. Wait-free, no locked instruction.
    #[inline(always)]
    pub fn take<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        len: u32,
        to: State,
        note: u64,
    ) -> Option<u32> {
        let at = self.magazines.get_mut(len as usize)?.pop()?;
        self.parked -= len;
        if unpark(sector, at, len, to, note) { Some(at) } else { lost(sector) }
    }

    /// Parks a held block of `len` granules for the guard that owns it. False, and nothing is changed, when
    /// it is too long, or there is no place for it yet, or it is not held: [`put`](Self::put) tells these apart.
    ///
    /// Wait-free, no locked instruction.
    #[inline(always)]
    pub fn park<H: Headers>(&mut self, sector: &Sector<'_, H>, at: u32, len: u32) -> bool {
        let Some(magazine) = self.magazines.get_mut(len as usize) else { return false };
        let Some(room) = magazine.room() else { return false };
        let parked = &mut self.parked;
        park(sector, at, len, || {
            room.fill(at);
            *parked += len;
        })
    }

    /// Parks a block that no guard owns, of several callers with the same offset for one of them. False, and
    /// nothing is changed, when it is too long, or there is no room for it, or it is not allocated:
    /// [`put_allocated`](Self::put_allocated) tells these apart.
    ///
    /// Wait-free, one locked instruction.
    #[inline(always)]
    pub fn park_allocated<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        at: u32,
    ) -> bool {
        self.park_by(sector, at, |len| park_allocated(sector, lane, at, len))
    }

    /// As [`park_allocated`](Self::park_allocated), for who knows that nobody else acts on the block at the
    /// same moment; see [`park_unshared`].
    #[inline(always)]
    pub fn park_unshared<H: Headers>(&mut self, sector: &Sector<'_, H>, at: u32) -> bool {
        self.park_by(sector, at, |len| park_unshared(sector, at, len))
    }

    #[inline(always)]
    fn park_by<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        at: u32,
        park: impl FnOnce(u32) -> Result<(), WrongState>,
    ) -> bool {
        let len = sector.len_at(at);
        if !self.has_room(sector, len) {
            return false;
        }
        let Some(magazine) = self.magazines.get_mut(len as usize) else { return false };
        let Some(room) = magazine.room() else { return false };
        if park(len).is_err() {
            return false;
        }
        room.fill(at);
        self.parked += len;
        true
    }

    /// Takes a held block of `len` granules back from the guard that owns it, and parks it if it is not
    /// too long; tells whether it did, or else gave it back.
    ///
    /// Call [`relieve`](Self::relieve) when it has no [room](Self::has_room) then. Wait-free and
    /// without a locked instruction when it parks; else as [`ack`].
    ///
    /// # Errors
    /// [`WrongState`] when the block is not held: somebody scribbled.
    pub fn put<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        at: u32,
        len: u32,
    ) -> Result<bool, WrongState> {
        if len > self.len_max {
            ack(sector, lane, at, State::Held)?;
            return Ok(false);
        }
        if park(sector, at, len, || self.keep(sector, at, len)) {
            return Ok(true);
        }
        Err(WrongState { granule: at, expected: State::Held, seen: sector.seen_at(at) })
    }

    /// As [`put`](Self::put) for a block of any length that no guard owns; of several callers with the same
    /// offset one succeeds. One locked instruction.
    ///
    /// # Errors
    /// [`WrongState`] when the granule is not the head of an allocated block; nothing is changed
    /// then.
    pub fn put_allocated<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        at: u32,
    ) -> Result<bool, WrongState> {
        self.put_by(sector, lane, at, |len| park_allocated(sector, lane, at, len))
    }

    /// As [`put_allocated`](Self::put_allocated) with no locked instruction, for who knows that nobody
    /// else acts on the block at the same moment; see [`park_unshared`].
    ///
    /// # Errors
    /// As [`put_allocated`](Self::put_allocated).
    pub fn put_unshared<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        at: u32,
    ) -> Result<bool, WrongState> {
        self.put_by(sector, lane, at, |len| park_unshared(sector, at, len))
    }

    fn put_by<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        at: u32,
        park: impl FnOnce(u32) -> Result<(), WrongState>,
    ) -> Result<bool, WrongState> {
        let len = sector.len_at(at);
        if len > self.len_max {
            ack(sector, lane, at, State::Allocated)?;
            return Ok(false);
        }
        park(len)?;
        self.keep(sector, at, len);
        Ok(true)
    }

    /// Puts a block of at most `len_max` granules into its magazine that was just parked.
    fn keep<H: Headers>(&mut self, sector: &Sector<'_, H>, at: u32, len: u32) {
        self.make_magazines(sector);
        self.magazines[len as usize].push(at);
        self.parked += len;
    }

    #[cold]
    #[inline(never)]
    fn make_magazines<H: Headers>(&mut self, sector: &Sector<'_, H>) {
        if self.magazines.is_empty() {
            self.limit_first = self.limit_first.min(sector.len() / SHARE);
            self.limit = self.limit.min(self.limit_first);
            self.magazines.resize_with(self.len_max as usize + 1, Magazine::default);
        }
    }

    /// Tells whether `more` granules stay within the limit, and memory is not short; if not, blocks should
    /// go back now, by [`relieve`](Self::relieve).
    #[inline(always)]
    #[must_use]
    pub fn has_room<H: Headers>(&self, sector: &Sector<'_, H>, more: u32) -> bool {
        // Both are below 2³⁰, so the sum does not wrap.
        self.parked.wrapping_add(more) <= self.limit && sector.pressure() == self.pressure
    }

    /// Gives blocks back: half of the limit or 256 blocks, whichever is less, the oldest of each length
    /// first, or whole magazines when nothing was refilled since the last time; or everything when memory is
    /// short. `most` is what this cache may ever park, in granules.
    ///
    /// Returns how many blocks went. Lock-free, bounded.
    #[cold]
    #[inline(never)]
    pub fn relieve<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        most: u32,
    ) -> u32 {
        let pressure = sector.pressure();
        if pressure != self.pressure {
            self.pressure = pressure;
            self.limit = self.limit_first.min(most);
            // No runs for later, while others find no block for now.
            self.magazines.iter_mut().for_each(Magazine::ask_for_one);
            return self.give_back(sector, lane);
        }
        self.limit = self.limit.min(most);
        if self.parked <= self.limit {
            return 0;
        }
        // Who has refilled nothing since the last time has enough: then what is new goes as well.
        let only_gives = core::mem::replace(&mut self.flushed, true);
        let collected = self.collect(self.parked - self.limit / 2, only_gives);
        self.parked -= collected;
        self.flush(sector, lane)
    }

    /// Moves the older half of magazine after magazine to the batch, or `whole` ones, until it has `wanted`
    /// granules; returns how many it has.
    fn collect(&mut self, wanted: u32, whole: bool) -> u32 {
        let lengths = self.magazines.len() as u32;
        let mut got = 0;
        // Twice around: half of a half may be wanted too.
        for _ in 0..2 * lengths {
            if got >= wanted || self.batch.len() >= FLUSH_BLOCKS_MAX {
                break;
            }
            self.cursor = if self.cursor + 1 < lengths { self.cursor + 1 } else { 0 };
            let len = self.cursor;
            let magazine = &mut self.magazines[len as usize];
            let room = (FLUSH_BLOCKS_MAX - self.batch.len()) as u32;
            let share = if whole { 1 } else { 2 };
            let count = magazine.len().div_ceil(share).min(room);
            if count > 0 {
                magazine.was_too_full();
                magazine.take_oldest(count, &mut self.batch);
                got += count * len;
            }
        }
        got
    }

    /// Gives the batch back; returns how many blocks that were.
    fn flush<H: Headers>(&mut self, sector: &Sector<'_, H>, lane: &Lane<'_>) -> u32 {
        let mut batch = core::mem::take(&mut self.batch);
        if batch.len() > FLUSH_BLOCKS_MAX {
            batch.sort_unstable();
        } else {
            // It makes use of runs that are sorted already, as those of one length mostly are, and takes no
            // memory for so few.
            batch.sort();
        }
        for _ in 0..give_back_parked(sector, lane, &batch) {
            sector.count(Event::Corrupt);
        }
        let blocks = batch.len() as u32;
        batch.clear();
        self.batch = batch;
        blocks
    }

    /// Gives everything back; returns how many blocks went. Lock-free, bounded by what is parked.
    pub fn give_back<H: Headers>(&mut self, sector: &Sector<'_, H>, lane: &Lane<'_>) -> u32 {
        if self.parked == 0 {
            return 0;
        }
        for magazine in &mut self.magazines {
            magazine.take_oldest(u32::MAX, &mut self.batch);
        }
        self.parked = 0;
        self.flush(sector, lane)
    }

    /// Fills the magazine for `len` by one carve; returns how many blocks that were, 0 if none.
    ///
    /// None is carved when only one is wanted, or no run is free: then the caller allocates by itself.
    /// `most` tells what this cache may ever park, in granules. Lock-free, bounded.
    #[cold]
    #[inline(never)]
    pub fn refill<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        len: u32,
        most: impl FnOnce() -> u32,
    ) -> u32 {
        if len > self.len_max || len == 0 {
            return 0;
        }
        self.make_magazines(sector);
        let magazine = &mut self.magazines[len as usize];
        let asked = magazine.next_batch();
        // A run that begins at a line may be a line longer than asked.
        let (slack, least) = if len < LINE_GRANULES { (LINE_GRANULES, 1) } else { (0, 2) };
        let wanted = asked * len + slack;
        if self.flushed || self.parked.saturating_add(wanted) > self.limit {
            // What went back is wanted now: it should have stayed. Or as much is used up at a time as
            // does not fit beside what is kept of other lengths.
            self.flushed = false;
            self.limit = self.limit.max(1).saturating_mul(2).min(most());
        }
        // Only as many as fit beside what is parked, and no more than a quarter of the limit.
        let room = self.limit.saturating_sub(self.parked).saturating_sub(slack);
        let mut pieces = asked.min(room.min(self.limit / 4) / len);
        while pieces >= least {
            let mut want = Want::cached(len, pieces);
            if len < LINE_GRANULES {
                want = want.aligned(LINE_GRANULES);
            }
            let Some(run) = sector.carve(lane, &want) else {
                magazine.refill_fell_short();
                pieces /= 2;
                continue;
            };
            return self.keep_run(sector, lane, run, len);
        }
        0
    }
}

impl Cache {
    /// Keeps the blocks of a run that was carved for `len`; returns how many they are. What is left over goes
    /// back: who only takes would be filled up with it.
    fn keep_run<H: Headers>(
        &mut self,
        sector: &Sector<'_, H>,
        lane: &Lane<'_>,
        run: Carved,
        len: u32,
    ) -> u32 {
        let (blocks, rest) = (run.len / len, run.len % len);
        if rest > 0 && give_back_parked(sector, lane, &[run.head + blocks * len]) > 0 {
            sector.count(Event::Corrupt);
        }
        self.parked += blocks * len;
        // The newest is the first in the sector: a program that fills blocks in turn goes upward.
        for number in (0..blocks).rev() {
            self.magazines[len as usize].push(run.head + number * len);
        }
        blocks
    }
}

/// A block is not what it was: somebody scribbled, and it is forgotten.
#[cold]
fn lost<H: Headers>(sector: &Sector<'_, H>) -> Option<u32> {
    sector.count(Event::Corrupt);
    None
}
