//! Waiting where the kernel has no futex for us: it looks at the word every millisecond.
//!
//! For systems other than Linux, and for a Linux whose sandbox forbids the call.

use std::time::{Duration, Instant};

use am_layout::Word;

use super::futex::Slept;

/// Pause between two looks, in which a wake goes unnoticed.
const POLL: Duration = Duration::from_millis(1);

/// Sleeps while the word holds `expected`; the contract is that of
/// [`futex_wait`](super::futex_wait).
pub(super) fn wait(word: &Word, expected: u32, deadline: Option<Instant>) -> Slept {
    if word.load() != expected {
        return Slept::Changed;
    }
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Slept::TimedOut;
        }
        std::thread::sleep(left.unwrap_or(POLL).min(POLL));
        if word.load() != expected {
            return Slept::Woken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallback_keeps_the_contract_of_the_futex() {
        super::super::futex::tests::contract(|word, expected, timeout| {
            wait(word, expected, timeout.map(|timeout| Instant::now() + timeout))
        });
    }
}
