//! What breaks the allocator on purpose, and looks whether it holds.
//!
//! `kit <verb>` runs one of them; `cargo xtask` has the same verbs. Every run prints its seed, and
//! every failure the command that repeats it.

pub mod accounts;
pub mod acts;
mod asker;
mod bells;
mod cache_acts;
mod cache_ops;
mod common_ops;
pub mod hostile;
pub mod kill;
mod letter;
pub mod ops;
pub mod pair;
pub mod pattern;
pub mod process;
pub mod product;
pub mod scene;
mod service_acts;
mod service_ops;
pub mod service_plot;
pub mod service_scene;
mod sleep_acts;
mod sleep_ops;
pub mod soak;
pub mod stage;
pub mod stepper;
pub mod storm;
pub mod sweep;
pub mod threads;
mod topic_acts;
mod topic_ops;
pub mod topic_plot;
pub mod topic_scene;
pub mod verdict;
