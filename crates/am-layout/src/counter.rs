//! Counters of rare events, one line of words per sector.
//!
//! They wrap at 2³² and nobody decides by them. A sector view without counters (an empty slice)
//! counts nothing.

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
}

/// Counts `event` in a sector's counters.
#[inline]
pub fn count(counters: &[Word], event: Event) {
    if let Some(word) = counters.get(event as usize) {
        word.count(1);
    }
}
