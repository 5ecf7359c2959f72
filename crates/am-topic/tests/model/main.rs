//! The model check of a topic: posters, readers and recoverers beside each other, and deaths at every write.
//!
//! Part of `cargo xtask model`; its deliberate defects are part of `cargo xtask model --mutants`.
#![cfg(loom)]

mod alive;
mod cells;
mod crew;
mod death;
mod follow;
mod group_death;
mod groups;
mod lossy;
mod world;

use am_layout::model::all_noticed;
use am_layout::mutation::Mutation;

/// Every defect of topics must make at least one model fail.
#[test]
#[ignore = "minutes; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&[&Mutation::TOPIC[..], &Mutation::FOLLOW, &Mutation::GROUP].concat());
}
