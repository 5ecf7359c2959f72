//! The control words of a sector: counters of rare events, the walk's words, the recovery's.
//!
//! The counters wrap at 2³² and nobody decides by them. The walk's words let an allocation that
//! walks the sector, or proves by the index that nothing is free, know what happened behind it. The recovery's words let it tell
//! limbo of the dead from limbo of the living.

use crate::Word;

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A compare-exchange on a head word was lost to another thread.
    LostCas = 0,
    /// A hint led to nothing and was cleared.
    StaleHint = 1,
    /// A hint was found again after it had been cleared, and set again.
    HintRestored = 2,
    /// The slow path walked the sector.
    SlowWalk = 3,
    /// The slow path merged two free neighbours.
    HealedMerge = 4,
    /// An allocation ended as `Exhausted`.
    Exhausted = 5,
    /// An allocation ended as `Contended`.
    Contended = 6,
    /// A ripple used up its rounds and left a merge to a later operation.
    RippleCut = 7,
    /// A word with no legal value, or a length beyond the sector, was met.
    Corrupt = 8,
    /// Something that the dead left was given back.
    Recovered = 9,
}

/// Words of control per sector; two cache lines.
pub const CONTROL_WORDS: usize = 32;
/// Index of the number of walks and proofs begun.
pub const WALKS: usize = 16;
/// Index of the number of times that a block was given back while somebody walked.
pub const RETURNS: usize = 17;

/// Index of the number of times that an allocation was about to fail; caches give back when it
/// changes.
pub const PRESSURE: usize = 18;
/// Index of the number of times that a hint was set, or free neighbours were merged, while somebody walked
/// or proved.
pub const MOVES: usize = 19;

/// Index of the first granule that a recoverer looks at, and of the one behind the last; 0 for none.
pub const SUSPECT: [usize; 2] = [20, 21];
/// Index of the word that a living thread sets when it dealt with what a recoverer looks at.
pub const TOUCHED: usize = 22;

/// Index of the number of times that something was left which only a walk mends: free neighbours apart,
/// a free head without its hint.
pub const LOOSE: usize = 23;
/// Index of what [`LOOSE`] was when the last walk began that came to its end.
pub const MENDED: usize = 24;

/// Counts `event` in a sector's control words. The model counts nothing: it would only see more
/// interleavings, none of them different.
#[inline]
pub fn count(control: &[Word], event: Event) {
    if cfg!(not(loom)) {
        control[event as usize].count(1);
    }
}
