//! When messages were posted, by a clock that all processes of a machine share.

use crate::Info;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`, not 0.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // A clock that began at boot: neither is negative, and it lasts for centuries.
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64).max(1)
}

impl Info {
    /// Returns when the message was posted, in nanoseconds of the machine's `CLOCK_MONOTONIC`; `None` in a topic
    /// that is not [stamped](crate::TopicBuilder::stamped).
    #[must_use]
    pub fn posted_ns(&self) -> Option<u64> {
        (self.stamp_ns != 0).then_some(self.stamp_ns)
    }

    /// Returns how long ago the message was posted, by now; `None` in a topic that is not
    /// [stamped](crate::TopicBuilder::stamped), or when the stamp lies in the future: its poster has another
    /// clock (a time namespace of its own), or scribbled.
    ///
    /// Reads the clock, some 20 ns.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        now_ns().checked_sub(self.posted_ns()?).map(Duration::from_nanos)
    }
}
