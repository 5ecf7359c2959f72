//! Thread caches: what a thread parks, who gets it, when it goes back, and that nothing is lost on the way.

mod common;

use am_matrix::{Block, Error, Matrix, Offset, Seen, State};
use common::caching::{Other, cached};
use common::{
    Random, assert_merged, assert_whole, attach_again, direct, fill, matrix, on_threads, pattern,
};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Asserts that a call was refused because the block is parked, `len` granules long.
#[track_caller]
fn assert_parked<T: std::fmt::Debug>(got: Result<T, Error>, offset: Offset, len: u32) {
    let seen = Seen::Head(State::Cached, len);
    assert_eq!(got.unwrap_err(), Error::NotAllocated { offset, seen });
}

// Blocks of less than 16 granules come in runs at once; where blocks are counted, they are longer.

// --- parking, and taking again ------------------------------------------------------------------

#[test]
fn block_freed_is_parked_and_reused_by_the_same_thread() {
    let matrix = matrix(1 << 20, 40, 30);
    let mut block = matrix.allocate(600).unwrap();
    pattern::fill(&mut block, 1);
    let offset = block.offset();
    drop(block);
    assert_eq!(cached(&matrix), 1);
    let longer = matrix.allocate(700).unwrap();
    assert_ne!(longer.offset(), offset, "another length is no use");
    let again = matrix.allocate(600).unwrap();
    assert_eq!((again.offset(), again.len(), cached(&matrix)), (offset, 600, 0));
    pattern::verify(&again, 1);
    // As many granules, fewer bytes.
    drop(again);
    let shorter = matrix.allocate(597).unwrap();
    assert_eq!((shorter.offset(), shorter.len(), shorter.usable_size()), (offset, 597, 608));
    let offset = shorter.into_offset();
    assert_eq!(matrix.from_offset(offset).unwrap().len(), 597);
    drop(longer);
    assert_whole(&matrix);
}

#[test]
fn block_parked_last_is_reused_first() {
    let matrix = matrix(1 << 20, 100, 0);
    let blocks = [(); 4].map(|()| matrix.allocate(800).unwrap());
    let places = blocks.each_ref().map(Block::offset);
    let carved_ahead = cached(&matrix);
    blocks.into_iter().for_each(drop);
    for place in places.into_iter().rev() {
        assert_eq!(matrix.allocate(800).unwrap().into_offset(), place);
    }
    assert_eq!(cached(&matrix), carved_ahead);
}

#[test]
fn block_freed_by_each_of_the_ways_is_parked() {
    let matrix = matrix(1 << 20, 40, 30);
    for bytes in [600, 10_000] {
        drop(matrix.allocate(bytes).unwrap());
        let place = matrix.allocate(bytes).unwrap().into_offset();
        matrix.ack(place).unwrap();
        assert_eq!(cached(&matrix), 1, "ack");
        assert_eq!(matrix.allocate_offset(bytes), Ok(place));
        // SAFETY: nobody else knows the offset.
        unsafe { matrix.ack_unshared(place) }.unwrap();
        assert_eq!(cached(&matrix), 1, "ack_unshared");
        let block = matrix.allocate(bytes).unwrap();
        assert_eq!(block.offset(), place);
        block.free().unwrap();
        assert_eq!(cached(&matrix), 1, "free");
        matrix.trim().unwrap();
    }
    assert_merged(&matrix);
}

#[test]
fn block_allocated_by_offset_out_of_the_cache_has_the_length_asked_for() {
    let matrix = matrix(1 << 20, 40, 30);
    drop(matrix.allocate(600).unwrap());
    let offset = matrix.allocate_offset(597).unwrap();
    assert_eq!(cached(&matrix), 0);
    assert_eq!(matrix.from_offset(offset).unwrap().len(), 597);
    assert_whole(&matrix);
}

#[test]
fn block_of_the_medium_sector_is_parked_and_of_the_large_one_not() {
    let matrix = matrix(8 << 20, 40, 30);
    for (bytes, kept) in [(4096, 1), (4097, 1), (131_072, 1), (131_073, 0), (1 << 20, 0)] {
        let place = matrix.allocate(bytes).unwrap().offset();
        assert_eq!(cached(&matrix), kept, "{bytes}");
        assert_eq!(matrix.allocate(bytes).unwrap().offset(), place);
        matrix.trim().unwrap();
        assert_merged(&matrix);
    }
}

#[test]
fn handle_without_caches_never_parks() {
    let matrix = direct(8 << 20, 40, 30);
    for bytes in [0, 100, 4096, 10_000, 131_072, 200_000] {
        drop(matrix.allocate(bytes).unwrap());
        assert_merged(&matrix);
        matrix.allocate(bytes).unwrap().free().unwrap();
        assert_merged(&matrix);
        matrix.ack(matrix.allocate_offset(bytes).unwrap()).unwrap();
        assert_merged(&matrix);
        let offset = matrix.allocate_offset(bytes).unwrap();
        // SAFETY: nobody else knows the offset.
        unsafe { matrix.ack_unshared(offset) }.unwrap();
        assert_merged(&matrix);
        drop(matrix.from_offset(matrix.allocate(bytes).unwrap().into_offset()).unwrap());
        assert_merged(&matrix);
        drop(matrix.allocate_many(20, bytes.min(10_000)).unwrap());
        assert_merged(&matrix);
    }
}

#[test]
fn handle_without_caches_takes_nothing_from_its_clones_cache() {
    let matrix = matrix(1 << 20, 40, 30);
    let direct = matrix.clone().with_thread_caches(false);
    let place = matrix.allocate(600).unwrap().offset();
    let block = direct.allocate(600).unwrap();
    assert_ne!(block.offset(), place);
    drop(block);
    assert_eq!(cached(&matrix), 1, "each handle has its own way");
    direct.trim().unwrap();
    assert_eq!(cached(&matrix), 0, "and all of a thread have one cache");
    assert_merged(&matrix);
}

/// Where there is no small sector, short blocks lie in the medium one.
#[test]
fn short_block_of_a_matrix_without_a_small_sector_is_reused() {
    let matrix = matrix(1 << 20, 0, 100);
    let places: Vec<Offset> = (0..10).map(|_| matrix.allocate(600).unwrap().offset()).collect();
    assert!(cached(&matrix) <= 16, "{} blocks are kept, and none is reused", cached(&matrix));
    assert!(places.windows(2).all(|two| two[0] == two[1]), "{places:?}");
}

/// The longest blocks of the medium sector have room for a few bytes more.
#[test]
fn request_for_the_large_sector_is_never_served_from_the_medium_ones_cache() {
    let matrix = matrix(8 << 20, 40, 30);
    let block = matrix.allocate(131_072).unwrap();
    let (medium, usable) = (block.offset(), block.usable_size());
    drop(block);
    assert!(usable > 131_072 && cached(&matrix) == 1);
    for bytes in [131_073, usable] {
        assert_ne!(matrix.allocate(bytes).unwrap().offset(), medium, "{bytes}");
        assert_ne!(matrix.allocate_offset(bytes).unwrap(), medium, "{bytes}");
    }
}

// --- giving back --------------------------------------------------------------------------------

#[test]
fn trim_after_many_frees_leaves_one_free_block() {
    let matrix = matrix(16 << 20, 40, 30);
    let mut random = Random(5);
    let blocks: Vec<Block<'_>> =
        (0..800).map(|_| matrix.allocate(random.below(8000)).unwrap()).collect();
    drop(blocks);
    assert!(cached(&matrix) > 50, "{}", cached(&matrix));
    matrix.trim().unwrap();
    assert_merged(&matrix);
    matrix.trim().unwrap();
    assert_merged(&matrix);
}

#[test]
fn thread_that_ends_gives_back_what_it_kept() {
    let matrix = matrix(4 << 20, 40, 30);
    let other = Other::start(&matrix);
    other.ask(|matrix| [600, 700, 5000].map(|bytes| drop(matrix.allocate(bytes).unwrap())));
    assert_eq!(cached(&matrix), 3);
    other.end();
    assert_merged(&matrix);
}

#[test]
fn last_handle_dropped_gives_back_what_living_threads_keep() {
    let observer = matrix(4 << 20, 40, 30);
    let matrix = attach_again(&observer);
    let others = [(); 3].map(|()| Other::start(&matrix));
    for other in &others {
        other.ask(|matrix| [600, 700, 5000].map(|bytes| drop(matrix.allocate(bytes).unwrap())));
        other.drop_handle();
    }
    assert_eq!(cached(&observer), 9);
    drop(matrix);
    assert_eq!(observer.participants().len(), 1);
    assert_merged(&observer);
    others.into_iter().for_each(Other::end);
    assert_merged(&observer);
}

/// Guards and caches pass blocks to each other uncounted; the sum must be right all the same.
#[test]
fn guards_forgotten_beside_caches_go_back_with_the_last_handle() {
    let observer = matrix(16 << 20, 40, 30);
    for forgotten in [0, 1, 7] {
        let matrix = attach_again(&observer);
        let other = Other::start(&matrix);
        other.ask(move |matrix| work_in_every_way(matrix, forgotten));
        work_in_every_way(&matrix, 0);
        other.drop_handle();
        let held = |m: &Matrix| m.stats().sectors.iter().map(|s| s.held_blocks).sum::<u64>();
        let walks = |m: &Matrix| m.stats().sectors.iter().map(|s| s.slow_walks).sum::<u64>();
        assert_eq!(held(&observer), forgotten);
        let before = walks(&observer);
        drop(matrix);
        // Who has forgotten nothing has nothing to be recovered from.
        assert_eq!(walks(&observer) > before, forgotten > 0);
        assert_merged(&observer);
        assert_eq!(observer.participants().len(), 1);
        other.end();
    }
}

/// Leaves so many guards forgotten, and nothing else.
fn work_in_every_way(matrix: &Matrix, forgotten: u64) {
    let clone = matrix.clone().with_thread_caches(false);
    for turn in 0..3 {
        for bytes in [100, 2000, 5000, 200_000] {
            let kept: Vec<Block<'_>> = (0..8).map(|_| matrix.allocate(bytes).unwrap()).collect();
            matrix.ack(matrix.allocate_offset(bytes).unwrap()).unwrap();
            clone.ack(matrix.allocate_offset(bytes).unwrap()).unwrap();
            matrix.ack(clone.allocate_offset(bytes).unwrap()).unwrap();
            let offset = matrix.allocate_offset(bytes).unwrap();
            // SAFETY: nobody else knows the offset.
            unsafe { matrix.ack_unshared(offset) }.unwrap();
            drop(matrix.from_offset(clone.allocate(bytes).unwrap().into_offset()).unwrap());
            let mut block = matrix.allocate(bytes).unwrap();
            block.shrink(bytes / 2).unwrap();
            let _ = block.try_grow(bytes);
            let mut many = matrix.allocate_many(5, bytes).unwrap();
            many.pop().unwrap().free().unwrap();
            matrix.free_many(many);
            if turn == 1 {
                drop(kept);
                drop(fill(matrix, bytes)); // until memory is short
                matrix.trim().unwrap();
            }
        }
    }
    (0..forgotten).for_each(|_| std::mem::forget(matrix.allocate(100).unwrap()));
}

#[test]
fn guards_dropped_by_other_threads_are_parked_there() {
    let matrix = matrix(1 << 20, 40, 30);
    let offsets: Vec<Offset> =
        (0..20).map(|_| matrix.allocate(600).unwrap().into_offset()).collect();
    let own = cached(&matrix);
    let other = Other::start(&matrix);
    let places = offsets.clone();
    other.ask(move |matrix| {
        let taken: Vec<_> = places.into_iter().map(|at| matrix.from_offset(at).unwrap()).collect();
        drop(taken);
    });
    assert_eq!(cached(&matrix), own + 20);
    matrix.trim().unwrap();
    assert_eq!(cached(&matrix), 20, "one thread's trim is its own affair");
    assert_eq!(other.ask(|matrix| matrix.allocate_offset(600)), Ok(offsets[19]));
    other.ask(move |matrix| matrix.ack(offsets[19]).unwrap());
    // A guard itself, too.
    std::thread::scope(|scope| {
        let block = matrix.allocate(1000).unwrap();
        scope.spawn(move || drop(block)).join().unwrap();
    });
    other.end();
    assert_whole(&matrix);
}

// --- what is parked is nobody's -----------------------------------------------------------------

#[test]
fn block_parked_and_acked_again_is_refused() {
    let matrix = matrix(1 << 20, 40, 30);
    for (bytes, len) in [(600, 20), (10_000, 40)] {
        let offset = matrix.allocate_offset(bytes).unwrap();
        matrix.ack(offset).unwrap();
        assert_parked(matrix.ack(offset), offset, len);
        // SAFETY: nobody else knows the offset.
        assert_parked(unsafe { matrix.ack_unshared(offset) }, offset, len);
        assert_parked(matrix.from_offset(offset), offset, len);
        assert_parked(matrix.value_from_offset::<[u8; 128]>(offset).map(drop), offset, len);
        assert_eq!(matrix.usable_bytes(offset), None);
        let other = Other::start(&matrix);
        assert_parked(other.ask(move |matrix| matrix.ack(offset)), offset, len);
        other.end();
        let direct = matrix.clone().with_thread_caches(false);
        assert_parked(direct.ack(offset), offset, len);
        assert_eq!(matrix.allocate_offset(bytes), Ok(offset), "it is still there, once");
        assert_eq!(cached(&matrix), 0);
        matrix.ack(offset).unwrap();
        matrix.trim().unwrap();
    }
    assert_whole(&matrix);
}

/// Every number that could be an offset, beside blocks that are held, parked and raw.
#[test]
fn offset_of_any_value_is_refused_where_no_raw_block_is() {
    let matrix = matrix(300_000, 40, 30);
    let held = matrix.allocate(1000).unwrap();
    let parked = [matrix.allocate(1000).unwrap(), matrix.allocate(5000).unwrap()];
    let raw = matrix.allocate_offset(1000).unwrap();
    let places = parked.each_ref().map(Block::offset);
    parked.into_iter().for_each(drop);
    for number in (0..300_000 / 32 + 100).chain([u32::MAX, u32::MAX - 1, 1 << 31]) {
        let offset = Offset::from_raw(number);
        if offset == raw {
            continue;
        }
        assert!(matrix.ack(offset).is_err(), "{offset}");
        // SAFETY: one thread.
        assert!(unsafe { matrix.ack_unshared(offset) }.is_err(), "{offset}");
        assert!(matrix.from_offset(offset).is_err(), "{offset}");
    }
    assert_eq!(cached(&matrix), 2);
    assert_eq!(matrix.allocate(1000).unwrap().into_offset(), places[0]);
    assert_eq!(matrix.allocate(5000).unwrap().into_offset(), places[1]);
    drop(held);
    for offset in [raw, places[0], places[1]] {
        matrix.ack(offset).unwrap();
    }
    assert_eq!(matrix.stats().sectors[0].corrupt, 0);
    assert_whole(&matrix);
}

#[test]
fn offset_acked_into_caches_by_eight_threads_is_parked_once() {
    let matrix = matrix(1 << 20, 40, 30);
    for round in 0..100 {
        let offset = matrix.allocate_offset(100 + round).unwrap();
        let start = Barrier::new(8);
        let won = AtomicUsize::new(0);
        on_threads(8, |_| {
            start.wait();
            let got = usize::from(matrix.ack(offset).is_ok());
            won.fetch_add(got, Relaxed);
        });
        assert_eq!(won.into_inner(), 1, "round {round}");
    }
    assert_whole(&matrix);
}

// --- threads and matrices -----------------------------------------------------------------------

/// More than a thread remembers at once.
#[test]
fn matrices_used_in_turn_by_one_thread_have_a_cache_each() {
    let mut matrices = [(); 9].map(|()| matrix(300_000, 40, 30)).to_vec();
    let place = |matrix: &Matrix| matrix.allocate(600).unwrap().offset();
    let places: Vec<Offset> = matrices.iter().map(place).collect();
    for _ in 0..20 {
        for (matrix, &expected) in matrices.iter().zip(&places) {
            assert_eq!((place(matrix), cached(matrix)), (expected, 1));
        }
    }
    // Without some of them, and with new ones.
    matrices.drain(2..5);
    matrices.extend([(); 3].map(|()| matrix(300_000, 40, 30)));
    for _ in 0..3 {
        matrices.iter().for_each(|matrix| {
            place(matrix);
            assert_eq!(cached(matrix), 1);
        });
    }
    matrices.iter().for_each(assert_whole);
}

#[test]
fn threads_beyond_the_lanes_work_on_the_sectors_directly() {
    const THREADS: usize = 470;
    let matrix = matrix(4 << 20, 40, 30);
    let (parked, looked) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    std::thread::scope(|scope| {
        let spawn = |number: usize| {
            let (matrix, parked, looked) = (&matrix, &parked, &looked);
            let work = move || {
                let mut block = matrix.allocate(600).expect("room");
                pattern::fill(&mut block, number as u64);
                pattern::verify(&block, number as u64);
                drop(block);
                let offset = matrix.allocate_offset(600).expect("room");
                matrix.ack(offset).expect("raw");
                let again = matrix.ack(offset);
                parked.wait();
                looked.wait();
                drop(matrix.allocate(600).expect("room"));
                matches!(again, Err(Error::NotAllocated { seen: Seen::Head(State::Cached, _), .. }))
            };
            let thread = std::thread::Builder::new().stack_size(128 << 10);
            thread.spawn_scoped(scope, work).expect("a thread")
        };
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        parked.wait();
        // No assertion while they wait.
        let violations = matrix.check();
        looked.wait();
        assert_eq!(violations, []);
        let parked = threads.into_iter().map(|thread| thread.join().expect("a thread that works"));
        // As many as there are lanes, less this thread's and the shared one.
        assert_eq!(parked.filter(|&parked| parked).count(), 438);
    });
    assert_merged(&matrix);
}

/// Threads that come and go while others stay: every lane's next thread begins with an empty cache.
#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    let matrix = matrix(2 << 20, 40, 30);
    on_threads(4, |number| {
        let mut random = Random(number as u64 + 1);
        for _ in 0..50 {
            let seed = random.below(1 << 30) as u64;
            std::thread::scope(|scope| {
                let (matrix, kept) = (&matrix, matrix.allocate(500).unwrap());
                let there = scope.spawn(move || {
                    let mut random = Random(seed | 1);
                    let sizes: Vec<usize> = (0..30).map(|_| random.below(6000)).collect();
                    let blocks: Vec<_> = sizes.iter().map(|&b| matrix.allocate(b)).collect();
                    drop((kept, blocks));
                });
                there.join().unwrap();
            });
        }
    });
    assert_whole(&matrix);
}
