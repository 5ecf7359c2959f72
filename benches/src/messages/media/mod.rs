//! The peers, one module each.

#[cfg(have_boost)]
pub mod boost;
pub mod disruptor;
pub mod iceoryx;
pub mod kernel;
pub mod ours;
pub mod queues;
