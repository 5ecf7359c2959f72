//! Pools: what they hold is theirs until it is given away.

use am_matrix::{Arena, Error, Matrix, Pool, PoolBlock, PoolCache, plan};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

fn matrix() -> Matrix {
    let bytes = 4 << 20;
    Matrix::format(Arena::heap(bytes), &plan(bytes as u64, 60, 20).unwrap()).unwrap()
}

/// A matrix for what lives in thread-local storage.
fn leaked() -> &'static Matrix {
    Box::leak(Box::new(matrix()))
}

fn leaked_pool(capacity: usize) -> &'static Pool<'static, u64> {
    Box::leak(Box::new(leaked().pool(capacity).unwrap()))
}

/// Every block is there, once.
fn assert_all_there<T: bytemuck::Pod>(pool: &Pool<'_, T>, count: usize) {
    let blocks = pool.get_many(count).unwrap();
    let offsets: HashSet<_> = blocks.iter().map(|block| block.offset()).collect();
    assert_eq!(offsets.len(), count);
    assert_eq!(pool.get().err(), Some(Error::PoolEmpty { capacity: pool.capacity() as u64 }));
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

#[test]
fn pool_whose_threads_have_ended_gives_all_its_blocks() {
    let matrix = matrix();
    let pool = matrix.pool::<u64>(1024).unwrap();
    let (barrier, threads_pool) = (&Barrier::new(8), &pool);
    std::thread::scope(|scope| {
        let work = || {
            let blocks = threads_pool.get_many(128).unwrap();
            barrier.wait();
            threads_pool.put_many(blocks);
            barrier.wait();
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_all_there(&pool, 1024);
}

#[test]
fn pool_of_threads_that_come_and_go_accounts_for_every_block() {
    const BLOCKS: usize = 700;
    const WAVES: usize = 30;
    const THREADS: usize = 6;
    let matrix = matrix();
    let pool = matrix.pool::<[u64; 2]>(BLOCKS).unwrap();
    let mut given = Vec::new();
    for wave in 0..WAVES {
        // Each passes blocks on that it took, and the last to come puts back, or keeps, what it is passed.
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for thread in 0..THREADS {
                let (pool, sender) = (&pool, sender.clone());
                threads.push(scope.spawn(move || {
                    let cache = pool.cache();
                    for turn in 0..wave * 40 + thread {
                        let taken = if turn % 3 == 0 { cache.get() } else { pool.get() };
                        let Ok(mut block) = taken else { continue };
                        *block = [thread as u64, turn as u64];
                        match turn % 5 {
                            0 => sender.send(block).unwrap(),
                            1 => cache.put(block),
                            _ => assert_eq!(*block, [thread as u64, turn as u64]),
                        }
                    }
                }));
            }
            drop(sender);
            let pool = &pool;
            threads.push(scope.spawn(move || {
                let cache = pool.cache();
                for (at, block) in receiver.into_iter().enumerate() {
                    if at % 2 == 0 { cache.put(block) } else { drop(block) }
                }
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        given.push(pool.get().unwrap().into_offset());
        assert_all_there(&pool, BLOCKS - given.len());
    }
    drop(pool);
    given.into_iter().for_each(|offset| matrix.ack(offset).unwrap());
    assert_whole(&matrix);
}

thread_local! {
    static KEPT: RefCell<Vec<PoolBlock<'static, 'static, u64>>> = const { RefCell::new(Vec::new()) };
    static CACHE: RefCell<Option<PoolCache<'static, 'static, u64>>> = const { RefCell::new(None) };
    static LAST_WISH: RefCell<Option<LastWish>> = const { RefCell::new(None) };
}

/// Uses a pool when its thread is being torn down.
struct LastWish(&'static Pool<'static, u64>);

impl Drop for LastWish {
    fn drop(&mut self) {
        let mut block = self.0.get().unwrap();
        *block = 7;
        assert_eq!(*block, 7);
        assert_all_there(self.0, self.0.capacity() - 1);
        let cache = self.0.cache();
        cache.put(block);
        assert_eq!(**cache.get().as_ref().unwrap(), 7);
    }
}

#[test]
fn block_kept_in_thread_local_storage_goes_back_when_the_thread_ends() {
    fn keep(pool: &'static Pool<'static, u64>) {
        KEPT.with(|kept| kept.borrow_mut().extend(pool.get_many(70).unwrap()));
    }
    // What was touched first is torn down last: after the thread's magazine, then before it.
    let pool = leaked_pool(100);
    std::thread::spawn(|| keep(pool)).join().unwrap();
    assert_all_there(pool, 100);
    let pool = leaked_pool(100);
    let keep_last = || {
        drop(pool.get().unwrap());
        keep(pool);
    };
    std::thread::spawn(keep_last).join().unwrap();
    assert_all_there(pool, 100);
}

#[test]
fn cache_sent_to_another_thread_gives_and_takes_there() {
    let matrix = matrix();
    let pool = matrix.pool::<u64>(100).unwrap();
    let cache = pool.cache();
    cache.put(pool.get().unwrap());
    let work = move || {
        let block = cache.get().unwrap();
        cache.put(block);
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
    assert_all_there(&pool, 100);
}

#[test]
fn cache_kept_in_thread_local_storage_goes_back_when_the_thread_ends() {
    let pool = leaked_pool(100);
    let keep = || {
        CACHE.with(|kept| {
            let mut kept = kept.borrow_mut();
            let cache = kept.insert(pool.cache());
            for block in pool.get_many(90).unwrap() {
                cache.put(block);
            }
            drop(cache.get().unwrap());
        });
    };
    std::thread::spawn(keep).join().unwrap();
    assert_all_there(pool, 100);
}

#[test]
fn pool_used_by_a_thread_that_is_torn_down_gives_and_takes() {
    let pool = leaked_pool(300);
    let wish = || {
        LAST_WISH.with(|wish| *wish.borrow_mut() = Some(LastWish(pool)));
        drop(pool.get_many(200).unwrap());
    };
    std::thread::spawn(wish).join().unwrap();
    assert_all_there(pool, 300);
}

#[test]
fn pools_used_in_turn_keep_their_blocks_apart() {
    let matrix = matrix();
    let pools: Vec<_> = (0..7).map(|_| matrix.pool::<u64>(150).unwrap()).collect();
    let work = || {
        for turn in 0..3000 {
            let (one, two) = (&pools[turn % 7], &pools[turn / 7 % 7]);
            let (mut first, mut second) = (one.get().unwrap(), two.get().unwrap());
            (*first, *second) = (1, 2);
            assert_eq!((*first, *second), (1, 2));
            if turn % 2 == 0 {
                // Of different pools, in one call.
                one.put_many([first, second]);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        work();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    pools.iter().for_each(|pool| assert_all_there(pool, 150));
    drop(pools);
    assert_whole(&matrix);
}

#[test]
fn block_of_another_pool_put_into_a_cache_goes_to_its_own() {
    let matrix = matrix();
    let (one, two) = (matrix.pool::<u64>(10).unwrap(), matrix.pool::<u64>(10).unwrap());
    let cache = one.cache();
    cache.put(two.get().unwrap());
    assert_all_there(&one, 10);
    assert_all_there(&two, 10);
}

#[test]
fn pool_dropped_before_its_threads_end_leaves_the_matrix_whole() {
    let matrix = leaked();
    let pool = Arc::new(matrix.pool::<u64>(500).unwrap());
    let (used, dropped) = (Arc::new(Barrier::new(4)), Arc::new(Barrier::new(4)));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (pool, used, dropped) = (pool.clone(), used.clone(), dropped.clone());
            std::thread::spawn(move || {
                drop(pool.get_many(100).unwrap());
                drop(pool);
                used.wait();
                dropped.wait();
                // The next one may lie where the first one lay.
                let next = matrix.pool::<u64>(200).unwrap();
                assert_all_there(&next, 200);
            })
        })
        .collect();
    used.wait();
    drop(pool);
    assert_whole(matrix);
    dropped.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_whole(matrix);
}

#[test]
fn block_forgotten_goes_back_with_the_pool() {
    let matrix = matrix();
    let pool = matrix.pool::<u64>(100).unwrap();
    std::mem::forget(pool.get().unwrap());
    std::mem::forget(pool.cache());
    assert_all_there(&pool, 99);
    drop(pool);
    assert_whole(&matrix);
}

#[test]
fn blocks_put_by_an_iterator_that_uses_the_pool_are_all_there() {
    let matrix = matrix();
    let pool = matrix.pool::<u64>(300).unwrap();
    let blocks = pool.get_many(200).unwrap();
    pool.put_many(blocks.into_iter().map(|block| {
        drop(block);
        drop(pool.get_many(70).unwrap());
        pool.get().unwrap()
    }));
    assert_all_there(&pool, 300);
}
