//! Waiting for other processes: on a word of a segment, or in `poll` and `epoll`.
//!
//! * [`futex_wait`] and [`futex_wake`] sleep on a shared word and end such sleeps.
//! * A [`Berth`] is where readers sleep: a word that says whether anybody is **asleep** and a word that
//!   counts the **wakes**. Sleeping there loses no wake, and costs whoever posts one load while nobody sleeps.
//! * A [`WaitStrategy`] says how much processor time a reader pays for how short a latency; a
//!   [`Waiter`] carries it out.
//! * A [`Bell`] is a descriptor for those who wait for several things at once, and a [`Ringer`] is
//!   what makes it readable, from any process of the same user.

mod bell;
mod berth;
mod fallback;
mod fifo;
mod futex;
mod ringer;
mod strategy;

pub use bell::Bell;
pub use berth::Berth;
pub use futex::{Slept, futex_wait, futex_wake};
pub use ringer::Ringer;
pub use strategy::{SLICE_MAX, SLICE_MIN, WaitStrategy, Waiter};
