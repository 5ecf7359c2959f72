//! One list of operations and one oracle, for the sector and for the matrix alike.
//!
//! A driver plays [`Op`]s on the allocator and on the [`Oracle`], a plain map of what is live, and
//! compares after each. Sizes and places are raw numbers that the driver scales to its geometry.
#![allow(dead_code)] // each test binary uses its part

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::BTreeMap;

/// One step of a test. `which` picks a live block, modulo their number.
#[derive(Clone, Debug)]
pub enum Op {
    /// Allocates a block, for a guard (`held`) or for whoever knows its offset.
    Allocate { size: u32, align_log: u32, held: bool },
    /// Frees a block the way its state asks for.
    Free { which: usize },
    /// Frees by offset alone, which a held block must survive.
    AckRaw { which: usize },
    /// Frees the block that was freed last once more.
    DoubleAck,
    /// Frees a place that somebody made up.
    ForgedAck { place: u32 },
    /// Gives a held block away.
    Give { which: usize },
    /// Takes a block that was given away, twice: the second time must fail.
    Take { which: usize },
    /// Lengthens a held block in place.
    Grow { which: usize, size: u32 },
    /// Shortens a held block in place.
    Shrink { which: usize, size: u32 },
    /// Allocates blocks of one size, all or none.
    AllocateMany { count: usize, size: u32 },
    /// Frees `count` blocks at once, from the one picked on.
    FreeMany { which: usize, count: usize },
    /// Looks at everything, and repairs it where the layer under test can.
    Repair,
}

/// Sizes that are as often small as large: up to `bits` random bits.
pub fn size(bits: u32) -> impl Strategy<Value = u32> + Clone {
    (0..=bits, any::<u32>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1))
}

/// One random step; sizes have up to `bits` bits.
pub fn op(bits: u32) -> impl Strategy<Value = Op> {
    let which = any::<usize>;
    prop_oneof![
        8 => (size(bits), 0..=12u32, any::<bool>(), any::<bool>()).prop_map(
            |(size, align_log, aligned, held)| {
                let align_log = if aligned && held { align_log } else { 0 };
                Op::Allocate { size, align_log, held }
            }
        ),
        6 => which().prop_map(|which| Op::Free { which }),
        1 => which().prop_map(|which| Op::AckRaw { which }),
        1 => Just(Op::DoubleAck),
        1 => size(31).prop_map(|place| Op::ForgedAck { place }),
        2 => which().prop_map(|which| Op::Give { which }),
        2 => which().prop_map(|which| Op::Take { which }),
        2 => (which(), size(bits)).prop_map(|(which, size)| Op::Grow { which, size }),
        2 => (which(), size(bits)).prop_map(|(which, size)| Op::Shrink { which, size }),
        1 => (0..40usize, size(bits)).prop_map(|(count, size)| Op::AllocateMany { count, size }),
        1 => (which(), 0..40usize).prop_map(|(which, count)| Op::FreeMany { which, count }),
        1 => Just(Op::Repair),
    ]
}

/// A list of up to `len` steps.
pub fn ops(len: usize, bits: u32) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(bits), 1..=len)
}

/// `cases` runs per property, or as many as `PROPTEST_CASES` says. The seed of a failure is printed
/// and kept beside the test, where the next run begins with it.
pub fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { cases };
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("seeds"))),
        ..given
    }
}

/// What is live in one sector: intervals of granules, each with what the driver keeps of it.
#[derive(Debug)]
pub struct Oracle<T> {
    granules: u32,
    live: BTreeMap<u32, (u32, T)>,
}

impl<T> Oracle<T> {
    pub fn new(granules: u32) -> Self {
        Self { granules, live: BTreeMap::new() }
    }

    /// Notes a new block.
    ///
    /// # Panics
    /// When it does not lie in the sector, or overlaps a live one.
    #[track_caller]
    pub fn insert(&mut self, at: u32, len: u32, value: T) {
        assert!(len > 0, "an empty block at {at}");
        let end = at.checked_add(len).expect("an end");
        assert!(end <= self.granules, "{at}+{len} reaches behind the {} granules", self.granules);
        if let Some((&left, &(left_len, _))) = self.live.range(..end).next_back() {
            assert!(left + left_len <= at, "{at}+{len} overlaps the live {left}+{left_len}");
        }
        self.live.insert(at, (len, value));
    }

    /// Forgets a block; returns its length and what was kept of it.
    #[track_caller]
    pub fn remove(&mut self, at: u32) -> (u32, T) {
        self.live.remove(&at).expect("a live block")
    }

    pub fn get(&self, at: u32) -> Option<&(u32, T)> {
        self.live.get(&at)
    }

    #[track_caller]
    pub fn get_mut(&mut self, at: u32) -> &mut (u32, T) {
        self.live.get_mut(&at).expect("a live block")
    }

    /// Picks a live block.
    pub fn pick(&self, which: usize) -> Option<u32> {
        let nth = which.checked_rem(self.live.len())?;
        self.live.keys().nth(nth).copied()
    }

    /// Live blocks in order: where, how long, and what was kept.
    pub fn live(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        self.live.iter().map(|(&at, (len, value))| (at, *len, value))
    }

    pub fn count(&self) -> usize {
        self.live.len()
    }

    /// The maximal stretches of free granules, in order: where and how long.
    pub fn gaps(&self) -> Vec<(u32, u32)> {
        let mut gaps = Vec::new();
        let mut from = 0;
        let last = std::iter::once((self.granules, 0));
        for (at, len) in self.live.iter().map(|(&at, &(len, _))| (at, len)).chain(last) {
            if at > from {
                gaps.push((from, at - from));
            }
            from = at + len;
        }
        gaps
    }

    pub fn largest_gap(&self) -> u32 {
        self.gaps().into_iter().map(|(_, len)| len).max().unwrap_or(0)
    }

    /// Whether `len` granules at a multiple of `align` are free in a row.
    pub fn fits(&self, len: u32, align: u32) -> bool {
        self.gaps().into_iter().any(|(at, gap)| {
            gap >= len && u64::from(at).next_multiple_of(align.into()) <= u64::from(at + gap - len)
        })
    }

    /// How many blocks of `len` granules fit.
    pub fn capacity(&self, len: u32) -> u64 {
        self.gaps().into_iter().map(|(_, gap)| u64::from(gap / len)).sum()
    }

    /// Free granules directly behind the live block at `at`.
    #[track_caller]
    pub fn room_behind(&self, at: u32) -> u32 {
        let end = at + self.live[&at].0;
        let next = self.live.range(end..).next().map_or(self.granules, |(&next, _)| next);
        next - end
    }
}
