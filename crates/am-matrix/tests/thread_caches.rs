//! Caches that somebody holds, beside those that threads have by themselves.

mod common;

use am_matrix::{Block, Error, Matrix, Offset, Seen, State, ThreadCache};
use common::caching::{Other, cached};
use common::{assert_merged, assert_whole, fill, matrix, small_sector};

#[test]
fn thread_cache_reuses_what_was_freed_through_it_and_nothing_else() {
    let matrix = matrix(1 << 20, 40, 30);
    let cache = matrix.thread_cache().unwrap();
    for bytes in [600, 5000] {
        let block = cache.allocate(bytes).unwrap();
        let place = block.offset();
        cache.free(block);
        let mine = matrix.allocate(bytes).unwrap();
        assert_ne!(mine.offset(), place, "the thread's own cache is another one");
        let again = cache.allocate_offset(bytes).unwrap();
        assert_eq!(again, place);
        assert_eq!(matrix.from_offset(again).unwrap().len(), bytes);
        drop(mine);
    }
    assert_eq!(cached(&matrix), 4, "dropped, and so in the thread's own cache");
    cache.trim().unwrap();
    assert_whole(&matrix);
}

#[test]
fn thread_cache_takes_raw_blocks_once() {
    let matrix = matrix(1 << 20, 40, 30);
    let cache = matrix.thread_cache().unwrap();
    let offset = cache.allocate_offset(600).unwrap();
    cache.ack(offset).unwrap();
    let refused = Err(Error::NotAllocated { offset, seen: Seen::Head(State::Cached, 20) });
    assert_eq!(cache.ack(offset), refused);
    assert_eq!(matrix.ack(offset), refused);
    assert_eq!(cache.allocate_offset(600), Ok(offset));
    // SAFETY: nobody else knows the offset.
    unsafe { cache.ack_unshared(offset) }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { cache.ack_unshared(offset) }, refused);
    assert_eq!(cached(&matrix), 1);
    drop(cache);
    assert_merged(&matrix);
}

#[test]
fn thread_cache_dropped_gives_back_what_it_kept() {
    let matrix = matrix(4 << 20, 40, 30);
    let cache = matrix.thread_cache().unwrap();
    let blocks: Vec<_> = (1..40).map(|n| cache.allocate(100 * n).unwrap()).collect();
    blocks.into_iter().for_each(|block| cache.free(block));
    assert!(cached(&matrix) >= 39);
    drop(cache);
    assert_merged(&matrix);
}

#[test]
fn thread_cache_sent_to_another_thread_is_the_same_one() {
    let matrix = matrix(1 << 20, 40, 30);
    let cache = matrix.thread_cache().unwrap();
    let place = free_one(&cache);
    std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            assert_eq!(free_one(&cache), place);
            cache
        });
        let cache = there.join().unwrap();
        assert_eq!((free_one(&cache), cached(&matrix)), (place, 1));
    });
    assert_merged(&matrix);
}

fn free_one(cache: &ThreadCache<'_>) -> Offset {
    let block = cache.allocate(600).unwrap();
    let place = block.offset();
    cache.free(block);
    place
}

#[test]
fn block_of_another_matrix_freed_through_a_thread_cache_goes_home() {
    let (a, b) = (matrix(1 << 20, 40, 30), matrix(1 << 20, 40, 30));
    let cache = a.thread_cache().unwrap();
    cache.free(b.allocate(600).unwrap());
    assert_eq!((cached(&a), cached(&b)), (0, 1));
    cache.free(b.clone().with_thread_caches(false).allocate(600).unwrap());
    assert_eq!((cached(&a), cached(&b)), (0, 1));
    assert_whole(&a);
    assert_whole(&b);
}

#[test]
fn thread_cache_answers_the_pressure_of_another_thread_at_its_next_free() {
    let matrix = small_sector(4000);
    let other = Other::start(&matrix);
    let cache = matrix.thread_cache().unwrap();
    let mut blocks: Vec<Block<'_>> = fill(&matrix, 600);
    cache.free(blocks.remove(0));
    other.ask(|matrix| matrix.allocate_offset(600)).expect("that gave back one");
    blocks.drain(..10).for_each(|block| cache.free(block));
    assert_eq!(cached(&matrix), 10);
    assert!(other.ask(|matrix| matrix.allocate_offset(600)).is_err());
    cache.free(blocks.remove(0));
    assert_eq!(cached(&matrix), 0);
    (0..11).for_each(|_| {
        other.ask(|matrix| matrix.allocate_offset(600)).expect("what the cache gave back");
    });
    other.end();
}

#[test]
fn thread_caches_beyond_the_lanes_are_refused_until_some_are_dropped() {
    let matrix: Matrix = matrix(1 << 20, 40, 30);
    let mut caches = Vec::new();
    let error = loop {
        match matrix.thread_cache() {
            Ok(cache) => caches.push(cache),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooManyThreads { .. }), "{error}");
    // 440 lanes, less this thread's and the shared one.
    assert_eq!(caches.len(), 438);
    let place = free_one(&caches[400]);
    assert_eq!(free_one(&caches[400]), place);
    caches.truncate(10);
    assert_merged(&matrix);
    caches.push(matrix.thread_cache().unwrap());
    assert_eq!(free_one(&caches[10]), place, "an empty cache carves what was given back");
    drop(caches);
    assert_merged(&matrix);
}

/// A producer that only allocates, a consumer that only frees, out of order: what is left over of each run
/// does not pile up with the producer.
#[test]
fn cache_that_only_takes_keeps_runs_and_no_rests() {
    for payload in [416, 200, 100] {
        let matrix = matrix(16 << 20, 100, 0);
        let (producer, consumer) = (matrix.thread_cache().unwrap(), matrix.thread_cache().unwrap());
        let mut live = Vec::new();
        for turn in 0..100_000 {
            live.push(producer.allocate(payload).unwrap());
            if live.len() > 10_000 {
                consumer.free(live.swap_remove(turn * 7919 % live.len()));
            }
        }
        consumer.trim().unwrap();
        let kept: u64 = matrix.stats().sectors.iter().map(|sector| sector.cached_bytes).sum();
        // 64 blocks are one refill.
        assert!(kept < 2 * 64 * (payload as u64 + 64), "{payload} B: {kept} bytes are kept");
    }
}
