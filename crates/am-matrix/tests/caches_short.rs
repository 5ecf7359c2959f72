//! Thread caches where memory is short, and how much they keep.

mod common;
#[path = "../../am-ripple/tests/world/ops.rs"]
mod ops;

use am_matrix::{Block, Error, Matrix, SectorId};
use common::caching::{Other, WAYS, cached};
use common::{Random, assert_sound, assert_whole, fill, matrix, small_sector};
use proptest::prelude::*;

/// One thread parks; another finds nothing, and so the first one's next free gives all back.
#[test]
fn pressure_by_one_thread_empties_another_ones_cache_at_its_next_free() {
    const PARKED: usize = 10;
    for way in WAYS {
        let matrix = small_sector(4000).with_thread_caches(true);
        let other = Other::start(&matrix);
        let mut blocks = fill(&matrix, 600);
        // The filling's own pressure is answered, and what that gave back is taken by the other.
        drop(blocks.pop());
        assert_eq!(cached(&matrix), 0);
        other.ask(|matrix| matrix.allocate_offset(600)).unwrap();
        blocks.drain(..PARKED).for_each(drop);
        assert_eq!(cached(&matrix), PARKED as u64);

        let error = other.ask(|matrix| matrix.allocate_offset(600)).unwrap_err();
        assert!(matches!(error, Error::Exhausted { sector: SectorId::Small, .. }), "{error}");
        assert_eq!(cached(&matrix), PARKED as u64, "a cache is its own thread's");
        way(&matrix, blocks.remove(0));
        assert_eq!(cached(&matrix), 0);
        for _ in 0..PARKED + 1 {
            other.ask(|matrix| matrix.allocate_offset(600)).expect("what the cache gave back");
        }
        assert!(other.ask(|matrix| matrix.allocate_offset(600)).is_err());
        assert_sound(&matrix);
        // Once it is over, blocks are parked again.
        drop(blocks.remove(0));
        drop(blocks.remove(0));
        assert_eq!(cached(&matrix), 1);
        other.end();
    }
}

#[test]
fn request_that_fits_only_what_the_same_thread_has_parked_is_served() {
    let matrix = small_sector(4000).with_thread_caches(true);
    let mut blocks = fill(&matrix, 600);
    blocks.sort_by_key(Block::offset);
    drop(blocks.pop());
    blocks.drain(..6).for_each(drop);
    assert_eq!(cached(&matrix), 6, "blocks beside each other");
    let long = matrix.allocate(6 * 640 - 32).expect("all six");
    assert_eq!(cached(&matrix), 0);
    drop((long, blocks));
    assert_whole(&matrix);
}

/// What is refilled in a sector with hardly any room is what there is, and no byte goes missing.
#[test]
fn refill_in_a_nearly_full_sector_takes_what_there_is() {
    let matrix = small_sector(2000).with_thread_caches(true);
    let mut random = Random(11);
    let mut blocks = fill(&matrix, 64);
    for _ in 0..4000 {
        if random.below(2) == 0 && !blocks.is_empty() {
            drop(blocks.swap_remove(random.below(blocks.len())));
        } else {
            let bytes = [64, 64, 64, 200, 900][random.below(5)];
            blocks.extend(matrix.allocate(bytes));
        }
        let stats = &matrix.stats().sectors[0];
        let held: usize = blocks.iter().map(|block| block.usable_size() + 32).sum();
        assert_eq!((stats.allocated_bytes, stats.in_flight_bytes), (held as u64, 0));
        assert_eq!(stats.free_bytes + stats.cached_bytes + held as u64, stats.size_bytes);
    }
    assert_sound(&matrix);
    // What nobody holds can all be had, in one way or another.
    blocks.extend(fill(&matrix, 32));
    assert_eq!(cached(&matrix), 0);
    drop(blocks);
    assert_whole(&matrix);
}

/// A step that may fill a cache.
#[derive(Clone, Debug)]
enum Step {
    /// So many blocks of so many bytes.
    Allocate(usize, usize),
    /// Frees so many, from the first or the last on, in one of the ways.
    Free(usize, bool, usize),
    Trim,
    /// Allocates all there is of the small sector, and gives it back.
    Press,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0..300usize, 2 => 300..4097usize, 2 => 4097..60_000usize];
    prop_oneof![
        8 => (1..250usize, bytes).prop_map(|(count, bytes)| Step::Allocate(count, bytes)),
        8 => (1..400usize, any::<bool>(), 0..WAYS.len())
            .prop_map(|(count, oldest, way)| Step::Free(count, oldest, way)),
        1 => Just(Step::Trim),
        1 => Just(Step::Press),
    ]
}

/// Asserts that no sector has more than half parked.
#[track_caller]
fn assert_within_share(matrix: &Matrix) {
    for stats in matrix.stats().sectors {
        assert!(stats.cached_bytes <= stats.size_bytes / 2, "{stats:?}");
    }
}

proptest! {
    #![proptest_config(ops::config(40))]

    #[test]
    fn cache_of_one_thread_at_any_work_keeps_half_at_most(
        size_bytes in 200_000..6_000_000u64,
        split in prop::sample::select(&[(100, 0), (40, 30), (50, 50)][..]),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let matrix = matrix(size_bytes, split.0, split.1);
        let mut blocks: Vec<Block<'_>> = Vec::new();
        for step in &steps {
            match *step {
                Step::Allocate(count, bytes) => for _ in 0..count {
                    let Ok(block) = matrix.allocate(bytes) else { break };
                    blocks.push(block);
                    assert_within_share(&matrix);
                },
                Step::Free(count, oldest, way) => for _ in 0..count.min(blocks.len()) {
                    let block = if oldest { blocks.remove(0) } else { blocks.pop().expect("one") };
                    WAYS[way](&matrix, block);
                    assert_within_share(&matrix);
                },
                Step::Trim => matrix.trim().unwrap(),
                Step::Press => {
                    drop(fill(&matrix, 4000));
                    assert_within_share(&matrix);
                }
            }
        }
        drop(blocks);
        assert_whole(&matrix);
    }
}

/// An aligned block is there; nobody is short of memory.
#[test]
fn aligned_request_that_is_served_leaves_the_caches_alone() {
    let matrix = matrix(4 << 20, 40, 30);
    drop(matrix.allocate(600).unwrap());
    let layout = std::alloc::Layout::from_size_align(1000, 256).unwrap();
    let aligned = matrix.allocate_aligned(layout).unwrap();
    assert_eq!(cached(&matrix), 1);
    drop(aligned);
    drop(matrix.allocate(700).unwrap());
    assert_eq!(cached(&matrix), 3);
}
