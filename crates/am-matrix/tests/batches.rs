//! Many blocks at once.

mod common;

use am_matrix::{Block, Error, SectorId, Spill};
use common::{assert_sound, assert_whole, direct, matrix, on_threads, pattern};

#[test]
fn batch_from_fresh_memory_lies_side_by_side() {
    let matrix = matrix(1 << 20, 100, 0);
    let mut blocks = matrix.allocate_many(100, 100).unwrap();
    let mut places: Vec<u64> = blocks.iter().map(|block| block.offset().bytes()).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|two| two[1] - two[0] == 160), "{places:?}");
    for (i, block) in blocks.iter_mut().enumerate() {
        assert_eq!((block.len(), block.usable_size()), (100, 128));
        pattern::fill(block, i as u64);
    }
    assert_sound(&matrix);
    blocks.iter().enumerate().for_each(|(i, block)| pattern::verify(block, i as u64));
    matrix.free_many(blocks);
    assert_whole(&matrix);
}

#[test]
fn batch_of_any_length_is_that_long() {
    let matrix = direct(4 << 20, 40, 30);
    for (count, bytes) in [(0, 10), (1, 10), (2, 0), (255, 1), (256, 1), (257, 1), (1000, 40)] {
        let blocks = matrix.allocate_many(count, bytes).unwrap();
        assert_eq!(blocks.len(), count);
        assert!(blocks.iter().all(|block| block.len() == bytes));
        drop(blocks);
        assert_whole(&matrix);
    }
}

/// All there is, in one batch, and one more: then none at all.
#[test]
fn batch_that_does_not_fit_whole_leaves_nothing_behind() {
    let matrix = direct(1 << 20, 100, 0);
    let granules = matrix.geometry().sectors[0].granules as usize;
    for (bytes, len) in [(1, 2), (100, 5), (1000, 33), (4000, 126)] {
        let fit = granules / len;
        assert_eq!(matrix.allocate_many(fit, bytes).unwrap().len(), fit);
        assert_whole(&matrix);
        let error = matrix.allocate_many(fit + 1, bytes).unwrap_err();
        assert!(matches!(error, Error::Exhausted { sector: SectorId::Small, .. }), "{error}");
        assert_whole(&matrix);
        assert!(matrix.allocate_many(usize::MAX, bytes).is_err());
        assert_whole(&matrix);
    }
}

#[test]
fn batch_among_scattered_gaps_uses_them_all() {
    let matrix = direct(1 << 20, 100, 0);
    let mut blocks: Vec<Block<'_>> = std::iter::from_fn(|| matrix.allocate(100).ok()).collect();
    // Every second block free: gaps of one block each.
    let kept: Vec<Block<'_>> = (0..blocks.len() / 2).map(|i| blocks.swap_remove(i)).collect();
    let gaps = blocks.len();
    matrix.free_many(blocks);
    assert_sound(&matrix);
    assert_eq!(matrix.allocate_many(gaps, 100).unwrap().len(), gaps);
    assert!(matrix.allocate_many(gaps + 2, 100).is_err());
    drop(kept);
    assert_whole(&matrix);
}

#[test]
fn batch_too_large_for_the_sector_is_too_large() {
    let matrix = matrix(1 << 20, 40, 30);
    for bytes in [1 << 20, 1 << 40, usize::MAX] {
        let error = matrix.allocate_many(2, bytes).unwrap_err();
        assert!(matches!(error, Error::TooLarge { sector: SectorId::Large, .. }), "{error}");
    }
    assert_whole(&matrix);
}

#[test]
fn batch_with_spill_goes_on_in_the_next_sector() {
    let matrix = direct(1 << 20, 40, 30).with_spill(Spill::Larger);
    let fit = matrix.geometry().sectors[0].granules as usize / 33;
    let blocks = matrix.allocate_many(fit + 10, 1000).unwrap();
    let [small, medium, large] = [0, 1, 2].map(|i| matrix.stats().sectors[i].held_blocks);
    assert_eq!((small as usize, medium, large), (fit, 10, 0));
    matrix.free_many(blocks);
    assert_whole(&matrix);
}

#[test]
fn blocks_of_all_sectors_are_freed_in_one_call() {
    let matrix = direct(2 << 20, 40, 30);
    let sizes = [10, 5000, 200_000, 64, 100_000, 4096, 4097, 131_072, 0];
    let mut blocks: Vec<Block<'_>> = sizes.map(|bytes| matrix.allocate(bytes).unwrap()).into();
    let kept = blocks.swap_remove(3);
    matrix.free_many(blocks);
    assert_sound(&matrix);
    assert_eq!(matrix.stats().sectors.iter().map(|s| s.live_blocks()).sum::<u64>(), 1);
    matrix.free_many([kept]);
    matrix.free_many([]);
    assert_whole(&matrix);
}

#[test]
fn blocks_of_another_matrix_go_back_to_theirs() {
    let (a, b) = (matrix(1 << 20, 40, 30), matrix(1 << 20, 40, 30));
    let clone = a.clone();
    let blocks = [&a, &b, &clone, &b, &a].map(|matrix| matrix.allocate(100).unwrap());
    a.free_many(blocks);
    assert_whole(&a);
    assert_whole(&b);
}

#[test]
fn batches_by_eight_threads_on_little_memory_leave_it_whole() {
    let matrix = matrix(200_000, 100, 0);
    on_threads(8, |thread| {
        for turn in 0..300u64 {
            let count = 1 + (turn as usize * 7 + thread) % 90;
            match matrix.allocate_many(count, 100) {
                Ok(mut blocks) => {
                    let stamp = |i| (thread as u64) << 32 | turn << 8 | i as u64;
                    for (i, block) in blocks.iter_mut().enumerate() {
                        pattern::fill(block, stamp(i));
                    }
                    std::thread::yield_now();
                    for (i, block) in blocks.iter().enumerate() {
                        pattern::verify(block, stamp(i));
                    }
                    matrix.free_many(blocks);
                }
                Err(Error::Exhausted { .. } | Error::Contended { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_whole(&matrix);
}
