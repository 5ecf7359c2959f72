//! Where readers sleep, without losing a wake.
//!
//! This file is also built into the model (`tests/wait_model.rs`), which puts words and sleeps of
//! its own in the place of the kernel's. So it uses nothing else.

use core::time::Duration;

use am_layout::Word;

use super::{futex_wait, futex_wake};

/// Two shared words at which processes sleep until somebody has something for them.
///
/// `sleepers` counts those who sleep or are about to; `wakes` goes up at each wake. Both may begin
/// at any value of which `sleepers` is true, so at zero in a fresh segment.
///
/// # Why no wake is lost
///
/// | | sleeper | poster |
/// |---|---|---|
/// | 1 | `sleepers` += 1, full barrier | publish, full barrier |
/// | 2 | read `wakes` | read `sleepers`; at 0, done |
/// | 3 | look for what was published | `wakes` += 1 |
/// | 4 | sleep, if `wakes` is still what step 2 read | wake |
/// | 5 | `sleepers` −= 1, look again | |
///
/// - One of the two barriers comes first. If it is the poster's, the sleeper's look finds what was
///   published. If it is the sleeper's, the poster reads a count that is not 0, and goes on.
/// - In that case, if step 2 of the sleeper read the new `wakes`, it has acquired what the poster
///   published before, and its look finds that. If it read the old one, then either the change
///   comes before step 4, where the kernel sees it and does not let it sleep, or it sleeps by then
///   and the wake ends that. The kernel does both under one lock.
///
/// The promise holds while nobody dies or scribbles. A poster that dies between its steps 1 and 4
/// leaves sleepers asleep, so each sleep has an end of its own, and a reader looks at least every
/// slice ([`Waiter::slice`](super::Waiter::slice)).
///
/// A sleeper that dies leaves `sleepers` too high. Then each post calls the kernel for nobody: that
/// costs time, and no more. Whoever knows for sure that a dead one had been counted may
/// [discount](Self::discount) it.
#[derive(Debug, Clone, Copy)]
pub struct Berth<'a> {
    sleepers: &'a Word,
    wakes: &'a Word,
}

impl<'a> Berth<'a> {
    /// Takes the two words, which must be this berth's alone.
    #[must_use]
    pub fn new(sleepers: &'a Word, wakes: &'a Word) -> Self {
        Self { sleepers, wakes }
    }

    /// Counts in as a sleeper, looks once more, and sleeps for at most `at_most` if `look` finds
    /// nothing. Returns what it found; `None` after a sleep, whatever ended it: look again then.
    ///
    /// Blocks if `look` finds nothing. If it panics, the sleeper is counted out all the same.
    pub fn sleep<T>(self, look: impl FnOnce() -> Option<T>, at_most: Duration) -> Option<T> {
        let _asleep = Asleep::begin(self.sleepers);
        // Acquire: before the look, or the look could miss what this wake was for.
        let seen = self.wakes.load();
        let found = look();
        if found.is_none() {
            let _ = futex_wait(self.wakes, seen, Some(at_most));
        }
        found
    }

    /// Wakes at most `count` sleepers, if there are any; returns how many were asleep.
    ///
    /// Call it after what they wait for was published by a step that ends in a full barrier
    /// ([`Word::cas_full`], [`Word::swap_full`] and so on). After a plain store, a wake may be
    /// lost: it can be overtaken by the load in here. With a `count` of less than all, those who
    /// sleep here must be able to stand in for one another.
    ///
    /// Never waits; one load while nobody sleeps, else a system call.
    pub fn rouse(self, count: u32) -> usize {
        if self.sleepers.load() == 0 {
            return 0;
        }
        // Sleepers who counted in, but do not sleep yet, see this and stay awake.
        self.wakes.increment_full();
        futex_wake(self.wakes, count)
    }

    /// Counts out a sleeper that died in its sleep; never one that may live.
    pub fn discount(self) {
        self.sleepers.decrement();
    }

    /// How many sleep here, or are about to; the dead count too. A hint: it may change at once.
    #[must_use]
    pub fn sleepers(self) -> u32 {
        self.sleepers.load_relaxed()
    }
}

/// A sleeper that is counted, until it is dropped.
struct Asleep<'a>(&'a Word);

impl<'a> Asleep<'a> {
    fn begin(sleepers: &'a Word) -> Self {
        // Full barrier: the look comes after it, as the poster's load of `sleepers` comes after
        // its own; so one of the two sees the other's write.
        sleepers.increment_full();
        Self(sleepers)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        // The model's words are no more, once it has panicked over a deadlock.
        #[cfg(loom)]
        if std::thread::panicking() {
            return;
        }
        self.0.decrement();
    }
}
