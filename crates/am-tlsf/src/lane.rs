//! A thread's lane: its own memory of where it made free heads, and what it tells the others.
//!
//! The hints are private to the process and checked against the head word before use. They save the
//! search in the shared index, and make a thread reuse the lines it touched last, apart from other
//! threads. Several threads may share a lane: they then overwrite each other's hints, which costs
//! time only.
//!
//! The *intent* is shared: before a thread makes limbo, it tells which granules that may concern, so
//! that nobody takes a living thread's limbo for a dead one's (invariant I9, edge E8).

use crate::cell::{Cell, STEPS};
use am_layout::roster::Intent;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Cells whose heads a lane remembers one by one; of longer blocks it remembers the last.
const CELLS: usize = 64;
/// First cell of those longer blocks: 1024 granules.
pub(crate) const LONG: Cell = Cell::new(CELLS as u32 / STEPS, 0);
/// Hints per cell.
const DEPTH: u32 = 4;

/// How a lane tells its intent.
#[derive(Clone, Copy, Debug)]
enum Tells<'a> {
    /// Not at all: nobody will ever recover.
    Nobody,
    /// By two words that are this thread's alone.
    Own(Intent<'a>),
    /// By a number of operations in flight, together with other threads.
    Shared(Intent<'a>),
}

/// One thread's lane in one sector. All operations are wait-free.
#[derive(Debug)]
pub struct Lane<'a> {
    tells: Tells<'a>,
    /// Which cells have a hint.
    occupied: AtomicU64,
    /// A head of a cell beyond those remembered one by one, as granule + 1.
    long: AtomicU32,
    /// The last walk that was told of a block given back through this lane.
    told: AtomicU32,
    /// The last walk that was told of a hint set through this lane.
    moved: AtomicU32,
    /// Per cell: how many heads were put, less those taken; modulo 256.
    tops: [AtomicU8; CELLS],
    /// Per cell a ring of heads as granule + 1; 0 is none.
    heads: [[AtomicU32; DEPTH as usize]; CELLS],
}

impl<'a> Lane<'a> {
    /// Makes a lane that tells nobody: for a sector where no death has to be recovered from.
    #[must_use]
    pub const fn new() -> Self {
        Self::with(Tells::Nobody)
    }

    /// Makes a lane that tells its intent by words which no other thread tells by.
    #[must_use]
    pub const fn telling(intent: Intent<'a>) -> Self {
        Self::with(Tells::Own(intent))
    }

    /// Makes a lane that tells by words which other threads tell by too, as a shared lane.
    #[must_use]
    pub const fn sharing(intent: Intent<'a>) -> Self {
        Self::with(Tells::Shared(intent))
    }

    const fn with(tells: Tells<'a>) -> Self {
        Self {
            tells,
            occupied: AtomicU64::new(0),
            long: AtomicU32::new(0),
            told: AtomicU32::new(0),
            moved: AtomicU32::new(0),
            tops: [const { AtomicU8::new(0) }; CELLS],
            heads: [const { [const { AtomicU32::new(0) }; DEPTH as usize] }; CELLS],
        }
    }

    /// Tells that granules `[at, end)` may come into limbo by what this thread does next.
    ///
    /// Before the exchange that makes them so (E8). Ends with [`Sector::done`](crate::Sector::done),
    /// or with [`abandon`](Self::abandon) when the exchange was lost.
    #[inline]
    pub fn begin(&self, at: u32, end: u32) {
        match self.tells {
            Tells::Nobody => {}
            Tells::Own(intent) => {
                // Release, both (E8): whoever reads one sees what this thread did before it.
                intent.at.store(at);
                intent.end.store(end);
            }
            Tells::Shared(intent) => {
                intent.at.increment_full();
            }
        }
    }

    /// Tells that granules `[at, end)` may come into limbo too, before the exchange that does it.
    #[inline]
    pub fn extend(&self, at: u32, end: u32) {
        if let Tells::Own(intent) = self.tells {
            if at < intent.at.load_relaxed() {
                intent.at.store(at);
            }
            if end > intent.end.load_relaxed() {
                intent.end.store(end);
            }
        }
    }

    /// Takes back what [`begin`](Self::begin) told: nothing came of it.
    #[inline]
    pub fn abandon(&self) {
        match self.tells {
            Tells::Nobody => {}
            Tells::Own(intent) => intent.end.store(0),
            Tells::Shared(intent) => {
                intent.at.decrement();
            }
        }
    }

    /// What was told last; `None` when nobody is told, and the whole range when it is not known.
    #[inline]
    pub(crate) fn told_range(&self) -> Option<(u32, u32)> {
        match self.tells {
            Tells::Nobody => None,
            Tells::Own(intent) => Some((intent.at.load_relaxed(), intent.end.load_relaxed())),
            Tells::Shared(_) => Some((0, u32::MAX)),
        }
    }

    /// Remembers that `head` was made a free head of `cell`.
    #[inline]
    pub fn put(&self, cell: Cell, head: u32) {
        let number = cell.number() as usize;
        if number >= CELLS {
            self.long.store(head.wrapping_add(1), Relaxed);
            return;
        }
        let top = self.tops[number].load(Relaxed);
        self.heads[number][(u32::from(top) % DEPTH) as usize].store(head.wrapping_add(1), Relaxed);
        self.tops[number].store(top.wrapping_add(1), Relaxed);
        self.occupied.store(self.occupied.load(Relaxed) | 1 << number, Relaxed);
    }

    /// Takes the newest hint of the first cell at or above `cell` that has one, of the cells that are
    /// remembered one by one.
    #[inline]
    pub fn take(&self, cell: Cell) -> Option<u32> {
        let above = (!0u64).checked_shl(cell.number()).unwrap_or(0);
        // Bounded: every turn returns or empties one cell.
        for _ in 0..=CELLS {
            let occupied = self.occupied.load(Relaxed);
            let wanted = occupied & above;
            if wanted == 0 {
                break;
            }
            let number = wanted.trailing_zeros() as usize;
            let top = self.tops[number].load(Relaxed).wrapping_sub(1);
            let slot = &self.heads[number][(u32::from(top) % DEPTH) as usize];
            let head = slot.load(Relaxed);
            if head != 0 {
                slot.store(0, Relaxed);
                self.tops[number].store(top, Relaxed);
                return Some(head.wrapping_sub(1));
            }
            self.occupied.store(occupied & !(1 << number), Relaxed);
        }
        None
    }

    /// Takes the hint to a longer block, if there is one.
    #[inline]
    pub fn take_long(&self) -> Option<u32> {
        let long = self.long.load(Relaxed);
        if long != 0 {
            self.long.store(0, Relaxed);
        }
        long.checked_sub(1)
    }

    #[inline]
    pub(crate) fn told(&self) -> u32 {
        self.told.load(Acquire)
    }

    pub(crate) fn set_told(&self, walks: u32) {
        self.told.store(walks, Release);
    }

    pub(crate) fn moved(&self) -> u32 {
        self.moved.load(Acquire)
    }

    pub(crate) fn set_moved(&self, walks: u32) {
        self.moved.store(walks, Release);
    }
}

impl Default for Lane<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lane_returns_the_newest_head_of_the_first_cell_that_fits() {
        let lane = Lane::new();
        lane.put(Cell::of(9), 90);
        lane.put(Cell::of(5), 50);
        lane.put(Cell::of(5), 51);
        assert_eq!(lane.take(Cell::of(6)), Some(90));
        assert_eq!(lane.take(Cell::of(4)), Some(51));
        assert_eq!(lane.take(Cell::of(4)), Some(50));
        assert_eq!(lane.take(Cell::of(1)), None);
    }

    #[test]
    fn lane_that_overflows_keeps_the_newest() {
        let lane = Lane::new();
        for head in 0..20 {
            lane.put(Cell::of(3), head);
        }
        let kept: Vec<u32> = core::iter::from_fn(|| lane.take(Cell::of(3))).collect();
        assert_eq!(kept, [19, 18, 17, 16]);
        lane.put(Cell::of(3), 7);
        assert_eq!(lane.take(Cell::of(3)), Some(7));
        lane.put(Cell::of(5000), 8);
        lane.put(Cell::of(6000), 9);
        assert_eq!(lane.take(Cell::of(4)), None);
        assert_eq!(lane.take_long(), Some(9));
        assert_eq!(lane.take_long(), None);
    }
}
