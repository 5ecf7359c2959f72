//! Sets of seats: which readers may sleep, which follow others, which wait for their bells.
//!
//! A bit a seat, so that a reader, or whoever recovers it, takes out just what is its: no death leaves a
//! count too high.

use crate::layout::{GROUPS, MEMBERS, READERS, Topic};
use am_layout::Wide;

/// Seats of a topic: its readers', then those of its groups' members.
pub const SEATS: usize = READERS + GROUPS * MEMBERS;
/// Wide words of a set.
pub(crate) const SET: usize = SEATS.div_ceil(64);

/// A set of seats, each known by its number, below [`SEATS`].
#[derive(Clone, Copy, Debug)]
pub struct SeatSet<'a>(&'a [Wide]);

impl<'a> SeatSet<'a> {
    pub(crate) fn over(wides: &'a [Wide]) -> Self {
        Self(wides)
    }

    /// Tells whether nobody is in it. A hint: it may change at once.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |seen, wide| seen | wide.load_relaxed()) == 0
    }

    /// Tells whether a seat is in it. A hint.
    #[must_use]
    pub fn contains(&self, seat: u32) -> bool {
        self.word(seat).is_some_and(|(word, bit)| word.load_relaxed() & bit != 0)
    }

    /// Puts a seat in, with a full barrier.
    pub fn insert(&self, seat: u32) {
        if let Some((word, bit)) = self.word(seat) {
            word.fetch_or_full(bit);
        }
    }

    /// Takes a seat out.
    pub fn remove(&self, seat: u32) {
        if let Some((word, bit)) = self.word(seat)
            && word.load() & bit != 0
        {
            word.fetch_and_full(!bit);
        }
    }

    /// Takes all seats out; nobody else gets those that this returns.
    pub fn take(&self) -> impl Iterator<Item = u32> + use<'a> {
        let words = (0..).step_by(64).zip(self.0);
        words.flat_map(|(first, word)| {
            let bits = if word.load() == 0 { 0 } else { word.swap_full(0) };
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }

    fn word(&self, seat: u32) -> Option<(&'a Wide, u64)> {
        Some((self.0.get(seat as usize / 64)?, 1 << (seat % 64)))
    }
}

impl Topic<'_> {
    /// Takes a seat out of all sets: whoever had it is gone.
    pub(crate) fn forget_seat(&self, seat: usize) {
        for set in [self.nappers(), self.followers(), self.armed()] {
            set.remove(seat as u32);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sets_keep_seats_apart() {
        let wides: Vec<Wide> = (0..SET).map(|_| Wide::new(0)).collect();
        let set = SeatSet::over(&wides);
        assert!(set.is_empty());
        let seats = [0, 63, 64, SEATS as u32 - 1];
        seats.iter().for_each(|&seat| set.insert(seat));
        set.insert(63);
        set.remove(64);
        set.remove(65);
        assert!(set.contains(63) && !set.contains(64) && !set.is_empty());
        assert_eq!(set.take().collect::<Vec<_>>(), [0, 63, SEATS as u32 - 1]);
        assert!(set.is_empty());
        // A scribbled number is nobody's.
        set.insert(u32::MAX);
        assert!(set.is_empty() && !set.contains(u32::MAX));
    }
}
