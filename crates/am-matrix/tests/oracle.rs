//! Random operations on a whole matrix, compared with a plain map of what is live; every payload
//! is written over its whole length and checked before it is freed. Each list is played twice: by a
//! handle without thread caches, and by one with them.

mod common;
#[path = "../../am-ripple/tests/world/ops.rs"]
mod ops;
mod player;

use am_matrix::Spill;
use common::{matrix, minimum, pattern};
use ops::Op;
use player::Player;
use proptest::prelude::*;

/// Splits with one, two and three sectors.
const SPLITS: [(u8, u8); 7] = [(100, 0), (0, 100), (0, 0), (40, 30), (50, 50), (1, 1), (0, 60)];

fn split() -> impl Strategy<Value = (u8, u8)> {
    prop::sample::select(&SPLITS[..])
}

fn spill() -> impl Strategy<Value = Spill> {
    prop::sample::select(&[Spill::Off, Spill::Off, Spill::Larger, Spill::Any][..])
}

fn play(size_bytes: u64, (small, medium): (u8, u8), spill: Spill, ops: &[Op]) {
    for cached in [false, true] {
        let matrix = matrix(size_bytes, small, medium).with_spill(spill);
        let matrix = matrix.with_thread_caches(cached);
        let mut player = Player::new(&matrix, spill, cached);
        ops.iter().for_each(|op| player.play(op));
        player.finish();
    }
}

proptest! {
    #![proptest_config(ops::config(150))]

    #[test]
    fn matrix_of_the_smallest_size_agrees_with_the_oracle(
        split in split(), spill in spill(), ops in ops::ops(80, 14),
    ) {
        play(minimum(split.0, split.1), split, spill, &ops);
    }

    #[test]
    fn matrix_of_some_hundred_kilobytes_agrees_with_the_oracle(
        split in split(), spill in spill(), more in 0u64..400_000, ops in ops::ops(200, 17),
    ) {
        play(minimum(split.0, split.1) + more, split, spill, &ops);
    }
}

proptest! {
    #![proptest_config(ops::config(60))]

    #[test]
    fn matrix_of_16_mib_agrees_with_the_oracle(
        split in split(), spill in spill(), ops in ops::ops(250, 23),
    ) {
        play(16 << 20, split, spill, &ops);
    }
}

#[test]
#[should_panic(expected = "byte 69999 of 70000 is not what owner 7 wrote")]
fn pattern_with_one_wrong_byte_is_noticed() {
    let mut payload = vec![0; 70_000];
    pattern::fill(&mut payload, 7);
    pattern::verify(&payload, 7);
    pattern::verify(&payload[..12], 7);
    payload[69_999] ^= 1;
    pattern::verify(&payload, 7);
}
