//! Sectors that are short of memory all the time: nothing may be lost.

mod common;

use am_matrix::{Block, Error, Matrix};
use common::{
    Random, assert_whole, direct, fill, minimum, on_threads, pattern, small_sector, soak,
    with_and_without_caches,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const THREADS: usize = 8;

/// Sizes at random in a sector that holds a few blocks per thread: most requests fail. With caches all the
/// time some are refilled, or give back because memory is short.
#[test]
fn sector_that_is_always_short_of_memory_is_whole_at_the_end() {
    for (small, medium) in [(100, 0), (0, 0), (40, 30)] {
        for matrix in with_and_without_caches(minimum(small, medium) + 40_000, small, medium) {
            let [served, refused] = be_short_of_memory(&matrix);
            println!("split ({small}, {medium}): served={served} refused={refused}");
            assert!(refused > 1000 && served > 1000, "served {served}, refused {refused}");
            assert_whole(&matrix);
        }
    }
}

/// Returns how many requests were served, and how many refused.
fn be_short_of_memory(matrix: &Matrix) -> [u64; 2] {
    let most = matrix.geometry().sectors.map(|sector| sector.size_bytes()).into_iter().max();
    let most = most.expect("a sector") as usize / 6;
    let (refused, served) = (AtomicU64::new(0), AtomicU64::new(0));
    on_threads(THREADS, |thread| {
        let mut random = Random(thread as u64 + 1);
        let mut mine: Vec<(Block<'_>, u64)> = Vec::new();
        for turn in 0..6_000 * soak() as u64 {
            if random.below(3) == 0 && !mine.is_empty() {
                let (block, stamp) = mine.swap_remove(random.below(mine.len()));
                pattern::verify(&block, stamp);
                continue;
            }
            match matrix.allocate(random.below(most)) {
                Ok(mut block) => {
                    let stamp = (thread as u64) << 32 | turn;
                    pattern::fill(&mut block, stamp);
                    mine.push((block, stamp));
                    served.fetch_add(1, Relaxed);
                }
                Err(Error::Exhausted { .. } | Error::Contended { .. }) => {
                    refused.fetch_add(1, Relaxed);
                    mine.pop().into_iter().for_each(|(block, stamp)| {
                        pattern::verify(&block, stamp);
                    });
                }
                Err(error) => panic!("{error}"),
            }
        }
        mine.iter().for_each(|(block, stamp)| pattern::verify(block, *stamp));
    });
    [served.into_inner(), refused.into_inner()]
}

/// What a lone thread frees it can have again, however it was cut up in between.
#[test]
fn block_freed_by_the_only_allocating_thread_can_be_allocated_again() {
    for cached in [false, true] {
        let matrix = small_sector(500).with_thread_caches(cached);
        let mut blocks = fill(&matrix, 100);
        let mut random = Random(42);
        for _ in 0..2_000 {
            let freed = random.below(blocks.len());
            let bytes = blocks[freed].usable_size();
            drop(blocks.swap_remove(freed));
            let part = 1 + random.below(bytes);
            drop(matrix.allocate(part).expect("a part of what was just freed"));
            blocks.push(matrix.allocate(bytes).expect("what was just freed"));
        }
        drop(blocks);
        assert_whole(&matrix);
    }
}

/// The hints prove it: a walk over all the blocks would be in vain.
#[test]
fn request_longer_than_every_gap_is_refused_without_a_walk() {
    let matrix = direct(2 << 20, 100, 0);
    let mut blocks = fill(&matrix, 1000);
    let mut random = Random(3);
    for _ in 0..blocks.len() / 20 {
        drop(blocks.swap_remove(random.below(blocks.len())));
    }
    let stats = || matrix.stats().sectors[0].clone();
    let before = stats();
    // Of that a block's header takes a granule.
    let longest = before.largest_free_bytes - 32;
    for more in 1..=200 {
        match matrix.allocate(longest as usize + more * 32) {
            Err(Error::Exhausted { largest_free_bytes, .. }) => {
                assert_eq!(largest_free_bytes, longest);
            }
            other => panic!("{other:?}"),
        }
    }
    let after = stats();
    assert_eq!(after.exhausted - before.exhausted, 200);
    assert!(after.slow_walks - before.slow_walks <= 1, "one in 256 proofs is left to a walk");
    blocks.push(matrix.allocate(longest as usize).expect("the longest gap"));
    drop(blocks);
    assert_whole(&matrix);
}

/// Blocks of 17 granules lie in a class that begins with 16: a request for 17 must look there.
#[test]
fn block_that_is_not_the_shortest_of_its_class_is_found_by_its_hint() {
    let matrix = small_sector(4_000);
    let mut blocks = fill(&matrix, 512);
    let walks = || matrix.stats().sectors[0].slow_walks;
    let before = walks();
    let mut random = Random(7);
    for _ in 0..1_000 {
        drop(blocks.swap_remove(random.below(blocks.len())));
        blocks.push(matrix.allocate(512).expect("what was just freed"));
    }
    assert_eq!(walks(), before, "each was found without a walk");
    drop(blocks);
    assert_whole(&matrix);
}
