//! Pools: what they hold is theirs until it is given away.

use am_matrix::{Arena, Error, Matrix, plan};
use std::collections::HashSet;

fn matrix() -> Matrix {
    let bytes = 4 << 20;
    Matrix::format(Arena::heap(bytes), &plan(bytes as u64, 60, 20).unwrap()).unwrap()
}

fn assert_whole(matrix: &Matrix) {
    matrix.trim().unwrap();
    assert_eq!(matrix.check(), []);
    for sector in matrix.stats().sectors {
        assert_eq!(sector.free_bytes, sector.size_bytes, "{sector:?}");
        assert_eq!(sector.free_blocks, 1, "{sector:?}");
    }
}

#[test]
fn pool_gives_as_many_distinct_zeroed_blocks_as_it_was_made_with() {
    for capacity in [0, 1, 63, 64, 65, 1000] {
        let matrix = matrix();
        let pool = matrix.pool::<[u64; 5]>(capacity).unwrap();
        let blocks = pool.get_many(capacity).unwrap();
        let offsets: HashSet<_> = blocks.iter().map(|block| block.offset()).collect();
        assert_eq!(offsets.len(), capacity);
        assert!(blocks.iter().all(|block| **block == [0; 5]));
        assert_eq!(pool.get().err(), Some(Error::PoolEmpty { capacity: capacity as u64 }));
        pool.put_many(blocks);
        assert_eq!(pool.get_many(capacity).unwrap().len(), capacity);
        drop(pool);
        assert_whole(&matrix);
    }
}

#[test]
fn pool_that_cannot_give_all_gives_none() {
    let matrix = matrix();
    let pool = matrix.pool::<u32>(100).unwrap();
    assert!(matches!(pool.get_many(101), Err(Error::PoolEmpty { .. })));
    assert_eq!(pool.get_many(100).unwrap().len(), 100);
}

#[test]
fn block_put_into_a_held_cache_is_there_again_and_goes_back_with_it() {
    let matrix = matrix();
    let pool = matrix.pool::<u64>(300).unwrap();
    let cache = pool.cache();
    let mut block = cache.get().unwrap();
    *block = 7;
    let offset = block.offset();
    cache.put(block);
    let again = cache.get().unwrap();
    assert_eq!((again.offset(), *again), (offset, 7));
    drop(again);
    drop(cache);
    assert_eq!(pool.get_many(300).unwrap().len(), 300);
}

#[test]
fn block_given_away_leaves_the_pool_and_is_taken_by_its_offset() {
    let matrix = matrix();
    let pool = matrix.pool::<[u32; 3]>(2).unwrap();
    let mut block = pool.get().unwrap();
    *block = [1, 2, 3];
    let offset = block.into_offset();
    assert_eq!(*matrix.value_from_offset::<[u32; 3]>(offset).unwrap(), [1, 2, 3]);
    let _last = pool.get().unwrap();
    assert!(pool.get().is_err());
    drop(_last);
    drop(pool);
    assert_whole(&matrix);
}

#[test]
fn pool_of_an_aligned_type_aligns_every_block() {
    #[derive(Clone, Copy)]
    #[repr(C, align(256))]
    struct Aligned([u8; 256]);
    // SAFETY: bytes without padding; any are a value.
    unsafe impl bytemuck::Zeroable for Aligned {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for Aligned {}
    let matrix = matrix();
    let pool = matrix.pool::<Aligned>(70).unwrap();
    for block in pool.get_many(70).unwrap() {
        assert_eq!(std::ptr::from_ref(&*block).addr() % 256, 0);
        assert_eq!(block.0, [0; 256]);
    }
}

#[test]
fn pool_used_by_many_threads_never_gives_one_block_twice() {
    let matrix = matrix();
    let pool = matrix.pool::<[u64; 4]>(2000).unwrap();
    std::thread::scope(|scope| {
        for thread in 1..=8u64 {
            let pool = &pool;
            scope.spawn(move || {
                let mut kept = Vec::new();
                for turn in 0..20_000u64 {
                    if turn % 3 != 2
                        && kept.len() < 100
                        && let Ok(mut block) = pool.get()
                    {
                        *block = [thread << 32 | turn; 4];
                        kept.push((turn, block));
                    } else if !kept.is_empty() {
                        let (turn, block) = kept.swap_remove(turn as usize % kept.len());
                        assert_eq!(*block, [thread << 32 | turn; 4]);
                    }
                }
            });
        }
    });
    drop(pool);
    assert_whole(&matrix);
}

#[test]
fn pool_larger_than_the_matrix_is_refused_and_leaves_nothing() {
    let matrix = matrix();
    assert!(matches!(matrix.pool::<[u8; 1024]>(1 << 20), Err(Error::Exhausted { .. })));
    assert_whole(&matrix);
}
