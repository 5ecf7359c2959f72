//! How much processor time a reader pays for how short a latency.

use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use super::berth::Berth;

/// Looks between two glances at the clock while spinning: a glance costs as much as some looks.
const LOOKS_PER_GLANCE: u32 = 64;
/// The shortest slice of a [`Waiter`]: more looks than that a second are no sleep.
pub const SLICE_MIN: Duration = Duration::from_micros(100);
/// The longest slice of a [`Waiter`].
pub const SLICE_MAX: Duration = Duration::from_secs(10);
/// The slice, unless told otherwise.
const SLICE: Duration = Duration::from_millis(50);

/// What a reader does between two looks that find nothing.
///
/// | strategy | notices after | processor time while idle | for |
/// |---|---|---|---|
/// | `Spin` | tens of nanoseconds | a whole core, always | a core of its own, with nothing else to run |
/// | `SpinThenYield` | the same, or when the scheduler comes back to it | a whole core that nobody else wants | a few more threads than cores |
/// | `SpinThenPark` | the same while it spins; then a wake: some 5 µs, more when the core sleeps | none but a look every slice | everything else; the default |
///
/// With fewer cores than busy threads, spinning delays the very poster that is waited for: `Spin`
/// by whole time slices of the scheduler, milliseconds. A poster pays for a parked reader too: one
/// system call for each time that it parks, of 1 to 2 µs, where otherwise it is a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Looks all the time.
    Spin,
    /// Looks `spins` times, then lets other threads run between two looks.
    SpinThenYield {
        /// Looks without a yield between them.
        spins: u32,
    },
    /// Looks `spins` times, then `yields` times with a yield between two looks, then sleeps until
    /// it is woken.
    SpinThenPark {
        /// Looks without a yield between them.
        spins: u32,
        /// Looks with a yield between them.
        yields: u32,
    },
}

impl WaitStrategy {
    /// [`SpinThenYield`](Self::SpinThenYield) with the spins of [`PARK`](Self::PARK).
    pub const YIELD: Self = Self::SpinThenYield { spins: 200 };
    /// [`SpinThenPark`](Self::SpinThenPark) that spins about as long as a wake takes, 5 to 10 µs where
    /// a look with its pause takes 25 to 50 ns: so waiting costs at most some twice what the better
    /// choice would have. The default.
    pub const PARK: Self = Self::SpinThenPark { spins: 200, yields: 10 };

    /// What to do after `looks` that found nothing.
    fn step(self, looks: u32) -> Step {
        match self {
            Self::Spin => Step::Spin,
            Self::SpinThenYield { spins } | Self::SpinThenPark { spins, .. } if looks <= spins => {
                Step::Spin
            }
            Self::SpinThenYield { .. } => Step::Yield,
            Self::SpinThenPark { spins, yields } if looks - spins <= yields => Step::Yield,
            Self::SpinThenPark { .. } => Step::Park,
        }
    }
}

impl Default for WaitStrategy {
    fn default() -> Self {
        Self::PARK
    }
}

/// One way to let time pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Spin,
    Yield,
    Park,
}

/// One thread's waiting, by a [`WaitStrategy`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use am_layout::Word;
/// use am_shm::{Berth, WaitStrategy, Waiter};
///
/// // In a segment, beside what is waited for: here, for `ready` to become 1.
/// let (ready, asleep, wakes) = (Word::new(0), Word::new(0), Word::new(0));
/// let berth = Berth::new(&asleep, &wakes);
/// let look = || (ready.load() == 1).then_some("ready");
///
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let mut waiter = Waiter::new(WaitStrategy::default());
///         assert_eq!(waiter.wait(berth, look, None), Some("ready"));
///     });
///     ready.swap_full(1); // publish, with a full barrier
///     berth.rouse();
/// });
///
/// let soon = Instant::now() + Duration::from_millis(5);
/// assert_eq!(Waiter::new(WaitStrategy::Spin).wait(berth, || None::<()>, Some(soon)), None);
/// ```
#[derive(Debug, Clone)]
pub struct Waiter {
    strategy: WaitStrategy,
    slice: Duration,
    /// Looks in vain since the last success.
    looks: u32,
}

impl Waiter {
    /// Begins with no look in vain.
    #[must_use]
    pub fn new(strategy: WaitStrategy) -> Self {
        Self { strategy, slice: SLICE, looks: 0 }
    }

    /// Sets the longest sleep between two looks; the default is 50 ms.
    ///
    /// It is what a wake costs that never comes, because the poster died before it. Idle readers look
    /// so often. Taken as [`SLICE_MIN`] at least and [`SLICE_MAX`] at most.
    #[must_use]
    pub fn slice(mut self, slice: Duration) -> Self {
        self.slice = slice.clamp(SLICE_MIN, SLICE_MAX);
        self
    }

    /// Looks until `look` finds something or `deadline` is over, by the strategy between two looks.
    ///
    /// Looks at least once, also when the deadline is over before. `None` means it is over; without
    /// a deadline, this returns only what `look` found. While it spins, it may notice the end some
    /// hundred looks late. `look` is not to wait itself.
    ///
    /// Blocks, unless the strategy spins.
    pub fn wait<T>(
        &mut self,
        berth: Berth<'_>,
        mut look: impl FnMut() -> Option<T>,
        deadline: Option<Instant>,
    ) -> Option<T> {
        self.reset();
        // The first look may be late, the last one may not: what came in time is still taken.
        let mut found = look();
        while found.is_none() && !self.is_over(deadline) {
            found = self.pause(berth, &mut look, deadline).or_else(&mut look);
        }
        self.reset();
        found
    }

    /// Lets time pass after one look in vain; the more such there were, the more time, by the
    /// strategy. Returns when it is time to look again, with nothing, or with what `look` found: it
    /// is called before a sleep only, as a [`Berth`] demands.
    ///
    /// For loops of your own, which [`reset`](Self::reset) it when they found something. A sleep ends
    /// at the deadline, at the end of a slice, or with a wake.
    pub fn pause<T>(
        &mut self,
        berth: Berth<'_>,
        look: impl FnOnce() -> Option<T>,
        deadline: Option<Instant>,
    ) -> Option<T> {
        self.looks = self.looks.saturating_add(1);
        match self.strategy.step(self.looks) {
            Step::Spin => spin_loop(),
            Step::Yield => yield_now(),
            Step::Park => {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                return berth.sleep(look, left.map_or(self.slice, |left| left.min(self.slice)));
            }
        }
        None
    }

    /// Forgets the looks in vain: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.looks = 0;
    }

    /// Tells whether the deadline is over; asks the clock seldom while it spins.
    fn is_over(&self, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else { return false };
        let spins = self.strategy.step(self.looks) == Step::Spin;
        let skips = spins && !self.looks.is_multiple_of(LOOKS_PER_GLANCE) && self.looks < u32::MAX;
        !skips && Instant::now() >= deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_strategy() {
        let park = WaitStrategy::SpinThenPark { spins: 2, yields: 1 };
        let steps = |strategy: WaitStrategy| [1, 2, 3, 4, u32::MAX].map(|n| strategy.step(n));
        use Step::{Park, Spin, Yield};
        assert_eq!(steps(WaitStrategy::Spin), [Spin; 5]);
        assert_eq!(
            steps(WaitStrategy::SpinThenYield { spins: 2 }),
            [Spin, Spin, Yield, Yield, Yield]
        );
        assert_eq!(steps(park), [Spin, Spin, Yield, Park, Park]);
        let none = WaitStrategy::SpinThenPark { spins: 0, yields: 0 };
        assert_eq!(steps(none), [Park; 5]);
    }

    #[test]
    fn slices_stay_within_their_range() {
        let slice = |slice| Waiter::new(WaitStrategy::Spin).slice(slice).slice;
        assert_eq!(slice(Duration::ZERO), SLICE_MIN);
        assert_eq!(slice(Duration::MAX), SLICE_MAX);
        assert_eq!(slice(Duration::from_millis(7)), Duration::from_millis(7));
    }
}
