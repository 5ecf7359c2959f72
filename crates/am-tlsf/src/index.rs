//! The hint index: for every cell, which chunks may hold a free head of that length.
//!
//! Nothing is linked, so nothing can be unlinked wrongly. There are four kinds of word:
//!
//! * `fl`, one word: bit *r* says that row *r* may have a cell with something in it.
//! * `sl[r]`: bit *s* says that cell (*r*, *s*) may have something in it.
//! * per cell a **bit tree** over chunks. A leaf bit says that its chunk may hold a free head of
//!   this cell; a bit further up, that the word below it may be non-empty. The root is one word.
//!
//! A bit that is set may be stale. A bit that is clear while its chunk holds a free head of the
//! cell means that an operation is in flight that will set it (invariant I5). Two steps keep this:
//!
//! * **set** runs after a free head was made by an operation with a full barrier. Going up from
//!   the leaf, it sets a bit unless it is set already, and stops at the first word that was not
//!   empty: whoever made that word non-empty sets, or has set, the bit above.
//! * **clear** runs when a chunk was found to hold no free head of the cell. It clears the bit with
//!   a full barrier, *looks again*, and sets the bit again if there is something now. The same, one
//!   level up, when the word has become empty.
//!
//! Setter: make the head – barrier – read the bit. Clearer: clear the bit – barrier – read the
//! head. Whichever barrier is first, the other side sees (edge E5): either the setter finds the bit
//! clear and sets it, or the clearer finds the head and restores the bit.

use crate::cell::{Cell, ROWS, STEPS};
use am_layout::mutation::{self, Mutation};
use am_layout::{Word, order_loads};

/// Granules per chunk, as a power of two.
#[cfg(not(loom))]
pub const CHUNK_SHIFT: u32 = 5;
/// Bits per word of a tree, as a power of two.
#[cfg(not(loom))]
const FAN_SHIFT: u32 = 5;
// The model's worlds are a few granules long; small constants give them real trees.
/// Granules per chunk, as a power of two.
#[cfg(loom)]
pub const CHUNK_SHIFT: u32 = 0;
#[cfg(loom)]
const FAN_SHIFT: u32 = 1;

/// Granules per chunk.
pub const CHUNK_LEN: u32 = 1 << CHUNK_SHIFT;
const FAN: u32 = 1 << FAN_SHIFT;
const LEVELS_MAX: usize = (29 / FAN_SHIFT as usize) + 1;
/// Words of a cache line; trees of different cells share none.
#[cfg(not(loom))]
const LINE_WORDS: u32 = 16;
#[cfg(loom)]
const LINE_WORDS: u32 = 1;
const SL_AT: u32 = LINE_WORDS;
/// Turns of one search; each clears a stale bit.
const FIND_TURNS: u32 = 4096;
const STEPS_MASK: u32 = (1 << STEPS) - 1;
const ROWS_MASK: u32 = (1 << ROWS) - 1;
const TREES_AT: u32 = SL_AT + ROWS.next_multiple_of(LINE_WORDS);

/// Sizes of the trees of an index; private to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    cells: u32,
    chunks: u32,
    levels: usize,
    level_at: [u32; LEVELS_MAX],
    tree_words: u32,
}

impl IndexShape {
    /// Returns the shape of the index of a sector of `granules` (1 ..= `LEN_MAX`).
    #[must_use]
    pub fn new(granules: u32) -> Self {
        let chunks = granules.div_ceil(CHUNK_LEN).max(1);
        let mut shape = Self {
            cells: Cell::of(granules).number() + 1,
            chunks,
            levels: 0,
            level_at: [0; LEVELS_MAX],
            tree_words: 0,
        };
        let mut bits = chunks;
        while shape.levels < LEVELS_MAX {
            let words = bits.div_ceil(FAN);
            shape.level_at[shape.levels] = shape.tree_words;
            shape.levels += 1;
            shape.tree_words += words;
            if words == 1 {
                break;
            }
            bits = words;
        }
        shape.tree_words = shape.tree_words.next_multiple_of(LINE_WORDS);
        shape
    }

    /// Returns how many words the index takes; they start as zeroes.
    #[must_use]
    pub fn words(&self) -> u64 {
        u64::from(TREES_AT) + u64::from(self.cells) * u64::from(self.tree_words)
    }

    /// Returns the number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.chunks
    }
}

/// The hint index of one sector.
#[derive(Clone, Debug)]
pub struct Index<'a> {
    shape: IndexShape,
    words: &'a [Word],
}

impl<'a> Index<'a> {
    /// Looks at `words` as an index of that shape; `None` when there are too few.
    #[inline]
    #[must_use]
    pub fn new(shape: IndexShape, words: &'a [Word]) -> Option<Self> {
        if words.len() as u64 >= shape.words() { Some(Self { shape, words }) } else { None }
    }

    #[inline]
    fn fl(&self) -> &'a Word {
        &self.words[0]
    }

    #[inline]
    fn sl(&self, fl: u32) -> &'a Word {
        &self.words[(SL_AT + fl) as usize]
    }

    /// The word of `cell`'s tree that covers `bit` of `level`.
    #[inline]
    fn node(&self, cell: Cell, level: usize, bit: u32) -> &'a Word {
        let tree = TREES_AT as usize + cell.number() as usize * self.shape.tree_words as usize;
        &self.words[tree + (self.shape.level_at[level] + (bit >> FAN_SHIFT)) as usize]
    }

    /// Whether `cell` and `chunk` exist here; a scribbled bit may name ones that do not.
    #[inline]
    fn covers(&self, cell: Cell, chunk: u32) -> bool {
        cell.number() < self.shape.cells && chunk < self.shape.chunks
    }

    /// Says that `chunk` may hold a free head of `cell`.
    ///
    /// The caller made that head by an operation with a full barrier. Wait-free: one load when the
    /// bit is set already, else a read-modify-write per level whose word was empty. Returns whether the bit
    /// was clear.
    #[inline]
    pub fn set(&self, cell: Cell, chunk: u32) -> bool {
        let clear = self.covers(cell, chunk) && self.node(cell, 0, chunk).load() & bit(chunk) == 0;
        if clear {
            self.set_from(cell, 0, chunk);
        }
        clear
    }

    /// As [`set`](Self::set), for a head that somebody else made, and perhaps died before it was
    /// announced: looks at every bit up to the root, and sets them all where one is missing.
    pub fn restore(&self, cell: Cell, chunk: u32) {
        // E5: the head was seen, made by an exchange with a full barrier. Who cleared a bit and did not
        // see the head had cleared it before that.
        order_loads();
        if !self.covers(cell, chunk) || self.reaches(cell, chunk) {
            return;
        }
        let mut at = chunk;
        for level in 0..self.shape.levels {
            self.node(cell, level, at).fetch_or_full(bit(at));
            at >>= FAN_SHIFT;
        }
        self.sl(cell.fl()).fetch_or_full(1 << cell.sl());
        self.fl().fetch_or_full(1 << cell.fl());
    }

    /// Sets every bit over a word that is not empty: whoever set or cleared the one below may have died
    /// before it came to this one. Takes time in proportion to the index.
    pub fn restore_parents(&self) {
        for cell in (0..self.shape.cells).map(|number| Cell::new(number / STEPS, number % STEPS)) {
            for level in 0..self.shape.levels - 1 {
                for below in 0..=(self.bits(level) - 1) >> FAN_SHIFT {
                    if self.node(cell, level, below << FAN_SHIFT).load() != 0 {
                        self.node(cell, level + 1, below).fetch_or_full(bit(below));
                    }
                }
            }
            if self.node(cell, self.shape.levels - 1, 0).load() != 0 {
                self.sl(cell.fl()).fetch_or_full(1 << cell.sl());
                self.fl().fetch_or_full(1 << cell.fl());
            }
        }
    }

    #[cold]
    fn set_from(&self, cell: Cell, level: usize, mut at: u32) {
        for level in level..self.shape.levels {
            let node = self.node(cell, level, at);
            if !raise(node, bit(at)) {
                return;
            }
            at >>= FAN_SHIFT;
        }
        if raise(self.sl(cell.fl()), 1 << cell.sl()) {
            raise(self.fl(), 1 << cell.fl());
        }
    }

    /// Says that `chunk` holds no free head of `cell`, and looks again.
    ///
    /// `look` tells whether it holds one after all. Returns true when this or a bit above was restored.
    pub fn clear(&self, cell: Cell, chunk: u32, look: impl FnOnce() -> bool) -> bool {
        match self.clear_leaf(cell, chunk, look) {
            Some(0) => self.clear_above(cell, 0, chunk),
            Some(_) => false,
            None => true,
        }
    }

    /// As [`clear`](Self::clear), but leaves the bits above an emptied word to a later search: a
    /// head that comes soon finds them set.
    pub fn clear_leaf_only(&self, cell: Cell, chunk: u32, look: impl FnOnce() -> bool) -> bool {
        self.clear_leaf(cell, chunk, look).is_none()
    }

    /// Returns what is left of the leaf word, or `None` when the hint was restored.
    fn clear_leaf(&self, cell: Cell, chunk: u32, look: impl FnOnce() -> bool) -> Option<u32> {
        if !self.covers(cell, chunk) {
            return Some(!0);
        }
        let rest = lower(self.node(cell, 0, chunk), bit(chunk));
        if !mutation::is(Mutation::ClearForgetsToLook) && look() {
            self.set_from(cell, 0, chunk);
            return None;
        }
        Some(rest)
    }

    /// Clears the bits above an empty word of `level`, each time looking again. Returns whether one was
    /// restored.
    fn clear_above(&self, cell: Cell, level: usize, mut at: u32) -> bool {
        for level in level..self.shape.levels - 1 {
            let below = self.node(cell, level, at);
            at >>= FAN_SHIFT;
            let rest = lower(self.node(cell, level + 1, at), bit(at));
            if below.load() != 0 {
                self.set_from(cell, level + 1, at);
                return true;
            }
            if rest != 0 {
                return false;
            }
        }
        let root = self.node(cell, self.shape.levels - 1, 0);
        let rest = lower(self.sl(cell.fl()), 1 << cell.sl());
        if root.load() != 0 {
            self.set_from(cell, self.shape.levels, 0);
            return true;
        }
        rest == 0 && self.clear_row(cell.fl())
    }

    fn clear_row(&self, fl: u32) -> bool {
        lower(self.fl(), 1 << fl);
        let restore = self.sl(fl).load() != 0;
        if restore {
            raise(self.fl(), 1 << fl);
        }
        restore
    }

    /// Finds the first cell at or above `cell` that may have something, and a chunk of it: the last one
    /// before chunk `below`, or the last of all if there is none. Clears stale bits on the way.
    /// Lock-free, and bounded by the number of bits.
    ///
    /// The last, since memory is handed out from the sector's end: so the blocks near its origin
    /// stay free and grow together.
    /// `None` means that no bit was seen, which is no proof that nothing is free. Whatever clears bits is
    /// handed to `clearing`, which calls it once; it returns whether it restored one.
    #[must_use]
    pub fn find(
        &self,
        cell: Cell,
        below: u32,
        clearing: impl Fn(&dyn Fn() -> bool),
    ) -> Option<(Cell, u32)> {
        let mut at = self.next_cell(cell, &clearing)?;
        // Every turn but the last cleared a bit over an empty word, which pays for it.
        for _ in 0..FIND_TURNS {
            if let Some(chunk) = self.descend(at, below, &clearing) {
                return Some((at, chunk));
            }
            at = self.next_cell(cell, &clearing)?;
        }
        None
    }

    /// Calls `visit` for every hint there is to a chunk of a cell from `from` on, until it returns false; clears
    /// nothing. Returns whether it came to the end within `budget` words, of which each chunk counts as one.
    ///
    /// Each word is read once: a bit that is set behind it is not met.
    pub fn visit(&self, from: Cell, budget: &mut u32, mut visit: impl FnMut(u32) -> bool) -> bool {
        let rows = self.fl().load() & (ROWS_MASK << from.fl()) & ROWS_MASK;
        ones(rows).all(|fl| {
            let first = if fl == from.fl() { from.sl() } else { 0 };
            let steps = self.sl(fl).load() & (STEPS_MASK << first) & STEPS_MASK;
            ones(steps).all(|sl| self.visit_cell(Cell::new(fl, sl), budget, &mut visit))
        })
    }

    /// As [`visit`](Self::visit), for all cells, the longest blocks' first; `visit` is told the cell, too.
    pub fn visit_longest(
        &self,
        budget: &mut u32,
        mut visit: impl FnMut(Cell, u32) -> bool,
    ) -> bool {
        let rows = self.fl().load() & ROWS_MASK;
        ones_down(rows).all(|fl| {
            let steps = self.sl(fl).load() & STEPS_MASK;
            ones_down(steps).all(|sl| {
                let cell = Cell::new(fl, sl);
                self.visit_cell(cell, budget, |chunk| visit(cell, chunk))
            })
        })
    }

    /// As [`visit`](Self::visit), for the chunks of one cell.
    pub fn visit_cell(
        &self,
        cell: Cell,
        budget: &mut u32,
        mut visit: impl FnMut(u32) -> bool,
    ) -> bool {
        cell.number() >= self.shape.cells
            || self.visit_node(cell, self.shape.levels - 1, 0, budget, &mut visit)
    }

    /// As [`visit`](Self::visit), below one word of a tree.
    fn visit_node(
        &self,
        cell: Cell,
        level: usize,
        first: u32,
        budget: &mut u32,
        visit: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let inside = |at: &u32| *at < self.bits(level);
        let word = self.node(cell, level, first).load();
        ones(word).map(|pick| first | pick).filter(inside).all(|at| {
            let Some(left) = budget.checked_sub(1) else { return false };
            *budget = left;
            if level == 0 {
                visit(at)
            } else {
                self.visit_node(cell, level - 1, at << FAN_SHIFT, budget, visit)
            }
        })
    }

    /// Tells whether `cell` may have something; a hint, by a load.
    #[must_use]
    pub fn has(&self, cell: Cell) -> bool {
        self.sl(cell.fl()).load() & (1 << cell.sl()) != 0
    }

    /// Returns the first cell at or above `cell` that may have something; a hint, by two loads or three.
    #[inline]
    #[must_use]
    pub fn first(&self, cell: Cell) -> Option<Cell> {
        let steps = self.sl(cell.fl()).load() & (STEPS_MASK << cell.sl()) & STEPS_MASK;
        if steps != 0 {
            return Some(Cell::new(cell.fl(), steps.trailing_zeros()));
        }
        let rows = self.fl().load() & (ROWS_MASK << (cell.fl() + 1)) & ROWS_MASK;
        let fl = rows.trailing_zeros();
        if rows == 0 { None } else { Some(Cell::new(fl, self.sl(fl).load().trailing_zeros())) }
    }

    fn next_cell(&self, cell: Cell, clearing: &impl Fn(&dyn Fn() -> bool)) -> Option<Cell> {
        let steps = self.sl(cell.fl()).load() & (STEPS_MASK << cell.sl()) & STEPS_MASK;
        if steps != 0 {
            return self.existing(cell.fl(), steps);
        }
        // Bounded: a row is met again only when another thread filled it meanwhile.
        for _ in 0..2 * ROWS {
            let rows = self.fl().load() & (ROWS_MASK << (cell.fl() + 1)) & ROWS_MASK;
            if rows == 0 {
                return None;
            }
            let fl = rows.trailing_zeros();
            let steps = self.sl(fl).load() & STEPS_MASK;
            if steps != 0 {
                return self.existing(fl, steps);
            }
            clearing(&|| self.clear_row(fl));
        }
        None
    }

    fn existing(&self, fl: u32, steps: u32) -> Option<Cell> {
        let cell = Cell::new(fl, steps.trailing_zeros());
        if cell.number() < self.shape.cells { Some(cell) } else { None }
    }

    /// Walks from the root of `cell` to a leaf bit, the last before `below` where it can.
    fn descend(
        &self,
        cell: Cell,
        below: u32,
        clearing: &impl Fn(&dyn Fn() -> bool),
    ) -> Option<u32> {
        let last = below.saturating_sub(1);
        let mut at = 0;
        let mut on_path = true;
        for level in (0..self.shape.levels).rev() {
            let first = at << FAN_SHIFT;
            let word = self.node(cell, level, first).load();
            if word == 0 {
                clearing(&|| self.clear_above(cell, level, first));
                return None;
            }
            let wanted = (last >> (level as u32 * FAN_SHIFT)) & (FAN - 1);
            let before = if on_path { word & (!0 >> (31 - wanted)) } else { word };
            let pick = 31 - if before != 0 { before } else { word }.leading_zeros();
            on_path = on_path && pick == wanted;
            at = first | pick;
            if at >= self.bits(level) {
                // No such place: somebody scribbled. Without this the bit would hide the others.
                lower(self.node(cell, level, first), 1 << pick);
                return None;
            }
        }
        Some(at)
    }

    /// Number of meaningful bits of `level`.
    #[inline]
    fn bits(&self, level: usize) -> u32 {
        let down = level as u32 * FAN_SHIFT;
        ((self.shape.chunks - 1) >> down) + 1
    }

    /// Tells whether every bit from `fl` down to the leaf says that `chunk` may hold a free head of
    /// `cell`: what must hold for each free head when nothing is in flight.
    #[must_use]
    pub fn reaches(&self, cell: Cell, chunk: u32) -> bool {
        if !self.covers(cell, chunk) {
            return false;
        }
        let tree = (0..self.shape.levels).all(|level| {
            let at = chunk >> (level as u32 * FAN_SHIFT);
            self.node(cell, level, at).load() & bit(at) != 0
        });
        tree && self.sl(cell.fl()).load() & (1 << cell.sl()) != 0
            && self.fl().load() & (1 << cell.fl()) != 0
    }
}

/// The numbers of the bits that are set, lowest first.
fn ones(mut word: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let pick = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (pick < u32::BITS).then_some(pick)
    })
}

/// The numbers of the bits that are set, highest first.
fn ones_down(mut word: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let pick = word.checked_ilog2()?;
        word &= !(1 << pick);
        Some(pick)
    })
}

#[inline]
const fn bit(at: u32) -> u32 {
    1 << (at & (FAN - 1))
}

/// Sets a bit unless it is set. Returns true when the word was empty, so that the bit above is ours
/// to set.
fn raise(word: &Word, bit: u32) -> bool {
    if mutation::is(Mutation::SetForgetsParent) {
        word.fetch_or_full(bit);
        return false;
    }
    // E5: the caller's last read-modify-write was followed by a full barrier, so a set bit that is
    // read here is one whose clearer will still look and find.
    word.load() & bit == 0 && word.fetch_or_full(bit) == 0
}

/// Clears a bit; returns what is left of the word. E5: the caller looks again after this barrier.
fn lower(word: &Word, bit: u32) -> u32 {
    if mutation::is(Mutation::ClearWithoutBarrier) {
        let rest = word.load() & !bit;
        word.store(rest);
        return rest;
    }
    word.fetch_and_full(!bit) & !bit
}
