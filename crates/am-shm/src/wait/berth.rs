//! Where readers sleep, without losing a wake.
//!
//! This file is also built into the model (`tests/wait_model.rs`), which puts words and sleeps of
//! its own in the place of the kernel's. So it uses nothing else.

use core::time::Duration;

use am_layout::Word;

use super::{futex_wait, futex_wake};

/// Somebody sleeps here, or is about to.
const PARKED: u32 = 1;
/// Somebody waits for its bell, or is about to.
const ARMED: u32 = 2;

/// Two shared words at which processes sleep until somebody has something for them.
///
/// `asleep` says whether anybody sleeps, by a bit, and whether anybody waits for a
/// [`Bell`](super::Bell), by another; `wakes` goes up at each wake. Both may begin at any value; at
/// zero nobody sleeps, so a fresh segment needs no formatting.
///
/// # Why no wake is lost
///
/// | | sleeper | poster |
/// |---|---|---|
/// | 1 | read `wakes` | publish, full barrier |
/// | 2 | set the bit of `asleep`, full barrier | read the bit; if it is clear, done |
/// | 3 | look for what was published | clear the bit; if another one did, done |
/// | 4 | sleep, if `wakes` is still what step 1 read | `wakes` += 1, wake all |
///
/// - One of the two barriers comes first. If it is the poster's, the sleeper's look finds what was
///   published. If it is the sleeper's, the poster reads the bit as the sleeper set it, or as
///   somebody left it who cleared it since.
/// - In both cases there is one who cleared the bit after the sleeper set it, and who counts `wakes`
///   up after that. So the sleeper, who read `wakes` before, has an older value: either the change
///   comes before step 4, where the kernel sees it and does not let it sleep, or it sleeps by then
///   and the wake ends that. The kernel does both under one lock.
///
/// The same is true of who waits for a bell, with another bit: see [`arm`](Self::arm).
///
/// The promise holds while nobody dies or scribbles. A poster that dies between its steps 1 and 4
/// leaves sleepers asleep, so each sleep has an end of its own, and a reader looks at least every
/// slice ([`Waiter::slice`](super::Waiter::slice)).
///
/// A sleeper that dies, or that ends its sleep by itself, leaves the bit set. That costs the next
/// poster one call of the kernel for nobody, and nobody after it anything.
#[derive(Debug, Clone, Copy)]
pub struct Berth<'a> {
    asleep: &'a Word,
    wakes: &'a Word,
}

impl<'a> Berth<'a> {
    /// Takes the two words, which must be this berth's alone.
    #[must_use]
    pub fn new(asleep: &'a Word, wakes: &'a Word) -> Self {
        Self { asleep, wakes }
    }

    /// Says that somebody is about to sleep, looks once more, and sleeps for at most `at_most` if `look`
    /// finds nothing. Returns what it found; `None` after a sleep, whatever ended it: look again then.
    ///
    /// Blocks if `look` finds nothing.
    pub fn sleep<T>(self, look: impl FnOnce() -> Option<T>, at_most: Duration) -> Option<T> {
        // Acquire: before the bit is set, so that whoever clears it counts up after this.
        let seen = self.wakes.load();
        // Full barrier: the look comes after it, as the poster's look at the bit comes after its own; so one
        // of the two sees the other's write.
        self.asleep.fetch_or_full(PARKED);
        let found = look();
        if found.is_none() {
            let _ = futex_wait(self.wakes, seen, Some(at_most));
        }
        found
    }

    /// Wakes all who sleep, if there are any; returns how many were asleep.
    ///
    /// Call it after what they wait for was published by a step that ends in a full barrier
    /// ([`Word::cas_full`], [`Word::swap_full`] and so on). After a plain store, a wake may be
    /// lost: it can be overtaken by the load in here.
    ///
    /// Never waits; one load while nobody sleeps, else a system call for the first who comes.
    pub fn rouse(self) -> usize {
        if !self.take(PARKED) {
            return 0;
        }
        // After the bit: those who set it before do not sleep by what they read, or are asleep.
        self.wakes.increment_full();
        futex_wake(self.wakes, u32::MAX)
    }

    /// Says that somebody is about to wait for its bell, and looks once more; returns what `look` found.
    ///
    /// Before this, say in a place of your own whose bell it is, by a step that is not undone by others
    /// than who then [ring](Self::disarm) it; and take the rings so far, for a later one is meant.
    pub fn arm<T>(self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        // Full barrier: as in `sleep`.
        self.asleep.fetch_or_full(ARMED);
        look()
    }

    /// Tells whether somebody waits for its bell, and leaves it to the caller to look whose, and to ring.
    ///
    /// As [`rouse`](Self::rouse), call it after a publication with a full barrier. Whoever posts
    /// meanwhile is told no, and relies on the caller. Never waits; one load while nobody waits.
    #[must_use]
    pub fn disarm(self) -> bool {
        self.take(ARMED)
    }

    /// Clears a bit; tells whether it was this call that did.
    fn take(self, bit: u32) -> bool {
        self.asleep.load() & bit != 0 && self.asleep.fetch_and_full(!bit) & bit != 0
    }

    /// Tells whether the next [`rouse`](Self::rouse) would call the kernel: somebody sleeps, or did and
    /// was not woken. A hint: it may change at once.
    #[must_use]
    pub fn has_sleeper(self) -> bool {
        self.asleep.load_relaxed() & PARKED != 0
    }

    /// Tells whether the next [`disarm`](Self::disarm) would say so: somebody waits for its bell, or did
    /// and was not rung. A hint.
    #[must_use]
    pub fn has_armed(self) -> bool {
        self.asleep.load_relaxed() & ARMED != 0
    }
}
