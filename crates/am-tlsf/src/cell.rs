//! Size classes: a power of two (first level), split into eight linear steps (second level).

use am_layout::LEN_MAX;

/// Steps that the second level splits a power of two into.
pub const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Rows of the first level that lengths up to [`LEN_MAX`] need.
pub const ROWS: u32 = (31 - LEN_MAX.leading_zeros()) - STEP_BITS + 2;
/// Number of cells.
pub const CELLS: u32 = ROWS * STEPS;

/// One size class of block lengths, in granules.
///
/// Row 0 holds the lengths below 8, one per cell; row `r` > 0 holds `[2^(r+2), 2^(r+3))` in eight
/// equal steps. Lengths below 16 have a cell each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(u32);

impl Cell {
    /// Makes the cell of row `fl` and step `sl`; both are taken modulo their range.
    #[inline]
    #[must_use]
    pub const fn new(fl: u32, sl: u32) -> Self {
        Self((fl % ROWS) * STEPS + sl % STEPS)
    }

    /// Returns the cell that a block of `len` granules belongs to.
    #[inline]
    #[must_use]
    pub const fn of(len: u32) -> Self {
        if len < 2 * STEPS {
            return Self(len);
        }
        // The leading bit counts as one row more, the bits behind it are the step.
        let shift = 31 - STEP_BITS - len.leading_zeros();
        Self(shift * STEPS + (len >> shift))
    }

    /// Returns the first cell whose every block is at least `len` granules long, or `None` when
    /// `len` is above the last cell's.
    #[inline]
    #[must_use]
    pub const fn at_least(len: u32) -> Option<Self> {
        if len < 2 * STEPS {
            return Some(Self(len)); // one length per cell
        }
        let step = 1 << (31 - len.leading_zeros() - STEP_BITS);
        let cell = Self::of(len + (step - 1));
        if cell.0 < CELLS { Some(cell) } else { None }
    }

    /// Returns the shortest length of the cell, in granules.
    #[inline]
    #[must_use]
    pub const fn min_len(self) -> u32 {
        if self.0 < STEPS {
            return self.0;
        }
        let log = self.0 / STEPS + STEP_BITS - 1;
        (STEPS + self.0 % STEPS) << (log - STEP_BITS)
    }

    /// Returns the row: the power of two.
    #[inline]
    #[must_use]
    pub const fn fl(self) -> u32 {
        self.0 / STEPS
    }

    /// Returns the step inside the row.
    #[inline]
    #[must_use]
    pub const fn sl(self) -> u32 {
        self.0 % STEPS
    }

    /// Returns the cell of that number; taken modulo [`CELLS`].
    #[inline]
    #[must_use]
    pub const fn numbered(number: u32) -> Self {
        Self(number % CELLS)
    }

    /// Returns the cell's number, below [`CELLS`].
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn lengths() -> impl Iterator<Item = u32> {
        let near = (0..29).flat_map(|log| {
            let p = 1u32 << log;
            [p.saturating_sub(1), p, p + 1, p + p / 2, p + p / 8]
        });
        (1..4096).chain(near).filter(|&len| (1..=LEN_MAX).contains(&len))
    }

    #[test]
    fn cell_of_a_length_holds_it_and_no_neighbour() {
        for len in lengths() {
            let cell = Cell::of(len);
            assert!(cell.number() < CELLS, "{len}");
            assert!(cell.min_len() <= len, "{len}");
            assert_eq!(Cell::new(cell.fl(), cell.sl()), cell);
            if cell.number() + 1 < CELLS {
                assert!(Cell(cell.0 + 1).min_len() > len, "{len}");
            }
        }
        assert_eq!(Cell::of(LEN_MAX).number(), CELLS - 1);
    }

    #[test]
    fn cell_for_a_request_holds_no_shorter_block() {
        for len in lengths() {
            match Cell::at_least(len) {
                Some(cell) => {
                    assert!(cell.min_len() >= len, "{len}");
                    assert!(len < 16 || cell.number() <= Cell::of(len).number() + 1);
                }
                None => assert_eq!(Cell::of(len).number(), CELLS - 1),
            }
        }
    }
}
