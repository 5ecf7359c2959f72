//! Sleeping on a shared word.

use std::time::{Duration, Instant};

use am_layout::Word;

use super::fallback;

/// How a sleep on a word ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slept {
    /// It slept, and the word changed meanwhile.
    Woken,
    /// It did not sleep: the word held another value from the start.
    Changed,
    /// The time was up, and the word still held the value expected.
    TimedOut,
}

/// Sleeps while the word holds `expected`, until it is [woken](futex_wake), for at most `timeout` of
/// the monotonic clock; `None` sleeps without an end.
///
/// Look and sleep are one step for the kernel: a wake by somebody who changed the word first is not
/// lost between the two. A signal does not end the sleep, and neither does a wake that finds the
/// word unchanged, so whoever wakes changes the word first. Without a wake, a change goes unnoticed
/// until the time is up.
///
/// The word may lie in a mapping that several processes share, at different addresses. Any bytes do:
/// a peer that scribbles can wake this, or let it sleep on, and no more. So a caller that does not
/// trust its peers, or whose peer may die between the change and the wake, gives a short `timeout`.
///
/// Blocks. On Linux this is a futex, not a private one. Where there are none, or the kernel refuses
/// (a sandbox), it looks at the word every millisecond instead.
///
/// ```
/// use std::time::Duration;
/// use am_layout::Word;
/// use am_shm::{Slept, futex_wait, futex_wake};
///
/// let word = Word::new(0);
/// let wait = |expected| futex_wait(&word, expected, Some(Duration::from_millis(5)));
/// assert_eq!(wait(7), Slept::Changed);
/// assert_eq!(wait(0), Slept::TimedOut);
///
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_ne!(futex_wait(&word, 0, None), Slept::TimedOut));
///     word.store(1);
///     futex_wake(&word, u32::MAX);
/// });
/// ```
#[must_use]
pub fn futex_wait(word: &Word, expected: u32, timeout: Option<Duration>) -> Slept {
    // A time that no clock reaches is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    system::wait(word, expected, deadline)
}

/// Ends the sleep of at most `count` of those who sleep on the word, in whatever process; returns of
/// how many. Change the word first: see [`futex_wait`].
///
/// Does not block; one system call. Returns 0 where there are no futexes: sleepers see the change
/// within a millisecond there.
pub fn futex_wake(word: &Word, count: u32) -> usize {
    system::wake(word, count)
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    use am_layout::Word;
    use rustix::io::Errno;
    use rustix::thread::futex::{self, Flags, Timespec};

    use super::{Slept, fallback};

    /// Shared between processes: the kernel goes by the page, not by the address.
    const SHARED: Flags = Flags::empty();
    /// Most sleepers that the kernel takes as a number to wake: it reads a signed one.
    const WAKES_MAX: u32 = i32::MAX as u32;

    pub(super) fn wait(word: &Word, expected: u32, deadline: Option<Instant>) -> Slept {
        if word.load() != expected {
            return Slept::Changed;
        }
        let mut slept = false;
        // Goes round only after a signal or a stray wake; each time there is less time left.
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // A time that is up needs no kernel.
            if left.is_some_and(|left| left.is_zero()) {
                return Slept::TimedOut;
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match futex::wait(atomic(word), SHARED, expected, left.as_ref()) {
                Ok(()) | Err(Errno::INTR) => slept = true,
                Err(Errno::AGAIN) => {}
                Err(Errno::TIMEDOUT) => return at_the_end(word, expected),
                Err(_) => return fallback::wait(word, expected, deadline),
            }
            if word.load() != expected {
                return if slept { Slept::Woken } else { Slept::Changed };
            }
        }
    }

    /// The kernel's time is up; a change that nobody woke for counts all the same.
    fn at_the_end(word: &Word, expected: u32) -> Slept {
        if word.load() == expected { Slept::TimedOut } else { Slept::Woken }
    }

    pub(super) fn wake(word: &Word, count: u32) -> usize {
        // It fails only where sleepers do not sleep in the kernel either.
        futex::wake(atomic(word), SHARED, count.min(WAKES_MAX)).unwrap_or(0)
    }

    fn atomic(word: &Word) -> &AtomicU32 {
        const { assert!(size_of::<Word>() == size_of::<AtomicU32>()) };
        let atomic = std::ptr::from_ref(word).cast::<AtomicU32>();
        // SAFETY: a `Word` is a transparent `AtomicU32`, so this is a reference to its only field.
        unsafe { &*atomic }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use super::fallback::wait;

    pub(super) fn wake(_: &am_layout::Word, _: u32) -> usize {
        0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// What every way of waiting must keep to.
    pub(in super::super) fn contract(wait: impl Fn(&Word, u32, Option<Duration>) -> Slept + Sync) {
        let word = Word::new(3);
        assert_eq!(wait(&word, 4, Some(LONG)), Slept::Changed, "another value");
        assert_eq!(wait(&word, 3, Some(Duration::ZERO)), Slept::TimedOut, "no time at all");

        let begun = Instant::now();
        assert_eq!(wait(&word, 3, Some(Duration::from_millis(30))), Slept::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(30), "slept {:?}", begun.elapsed());

        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                futex_wake(&word, u32::MAX); // a stray one, which nobody may take for a change
                thread::sleep(Duration::from_millis(30));
                word.store(4);
                // Again and again, for the other may not be asleep yet when the machine is busy.
                for _ in 0..1_000 {
                    futex_wake(&word, u32::MAX);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let slept = wait(&word, 3, None);
            assert_ne!(slept, Slept::TimedOut, "without a timeout");
            assert_eq!(word.load(), 4, "ended by a stray wake");
        });
    }

    #[test]
    fn futex_keeps_the_contract() {
        contract(futex_wait);
    }

    #[test]
    fn timeouts_beyond_the_clock_mean_none() {
        let word = Word::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                word.store(1);
                futex_wake(&word, 1);
            });
            assert_ne!(futex_wait(&word, 0, Some(Duration::MAX)), Slept::TimedOut);
        });
    }

    #[test]
    fn wake_tells_how_many_slept_and_ends_no_more_than_told() {
        let word = Word::new(0);
        assert_eq!(futex_wake(&word, u32::MAX), 0, "nobody sleeps");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_ne!(futex_wait(&word, 0, Some(LONG)), Slept::TimedOut));
            }
            // The word stays the same, so those who are woken soon sleep again.
            let begun = Instant::now();
            let mut most = [0; 2];
            while most != [2, 3] && begun.elapsed() < LONG / 2 {
                for (most, count) in most.iter_mut().zip([2, u32::MAX]) {
                    thread::sleep(Duration::from_millis(1));
                    *most = futex_wake(&word, count).max(*most);
                }
            }
            word.store(1);
            futex_wake(&word, u32::MAX);
            assert_eq!(most, [2, 3], "of 3 sleepers: told to wake 2, told to wake all");
        });
    }
}
