//! Guards: who owns a block, who frees it, and what may be done with it in place.

mod common;

use am_matrix::{Block, Error, Matrix, Offset, Seen, State};
use common::{assert_sound, assert_whole, direct, matrix, pattern};
use std::alloc::Layout;
use std::cell::RefCell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const THREADS: usize = 8;

fn live(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.live_blocks()).sum()
}

#[test]
fn block_dropped_is_free_again() {
    let matrix = direct(1 << 20, 40, 30);
    for bytes in [1, 100, 5000, 100_000, 200_000] {
        let block = matrix.allocate(bytes).unwrap();
        assert_eq!((block.len(), live(&matrix)), (bytes, 1));
        drop(block);
        assert_whole(&matrix);
        assert_eq!(matrix.allocate(bytes).unwrap().free(), Ok(()));
        assert_whole(&matrix);
    }
}

#[test]
fn block_of_zero_bytes_is_a_block_like_any_other() {
    let matrix = matrix(1 << 20, 40, 30);
    let (a, b) = (matrix.allocate(0).unwrap(), matrix.allocate(0).unwrap());
    assert_eq!((a.len(), b.len()), (0, 0));
    assert_eq!((a.usable_size(), b.usable_size()), (32, 32));
    assert_ne!(a.offset(), b.offset());
    let offset = a.into_offset();
    assert!(matrix.from_offset(offset).unwrap().is_empty());
    matrix.ack(matrix.allocate_offset(0).unwrap()).unwrap();
    drop(b);
    assert_whole(&matrix);
}

#[test]
fn block_forgotten_stays_and_its_offset_frees_nothing() {
    let matrix = matrix(1 << 20, 40, 30);
    let block = matrix.allocate(100).unwrap();
    let offset = block.offset();
    std::mem::forget(block);
    let seen = Seen::Head(State::Held, 5);
    assert_eq!(matrix.ack(offset), Err(Error::NotAllocated { offset, seen }));
    assert_eq!(matrix.from_offset(offset).unwrap_err(), Error::NotAllocated { offset, seen });
    assert_eq!(live(&matrix), 1);
    assert_sound(&matrix);
}

#[test]
fn block_sent_to_another_thread_is_freed_there() {
    let matrix = matrix(1 << 20, 40, 30);
    std::thread::scope(|scope| {
        let mut block = matrix.allocate(70_000).unwrap();
        pattern::fill(&mut block, 9);
        let there = scope.spawn(move || pattern::verify(&block, 9));
        there.join().unwrap();
    });
    assert_whole(&matrix);
}

/// Eight threads call at once; returns how many were let through.
fn winners(call: impl Fn() -> bool + Sync) -> usize {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let (start, call) = (&start, &call);
        let race = || {
            scope.spawn(move || {
                start.wait();
                call()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(|_| race()).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    })
}

#[test]
fn offset_taken_by_eight_threads_has_one_winner() {
    let matrix = matrix(1 << 20, 40, 30);
    for round in 0..200 {
        let offset = matrix.allocate(100 + round).unwrap().into_offset();
        let taken = winners(|| matrix.from_offset(offset).map(std::mem::forget).is_ok());
        assert_eq!(taken, 1, "round {round}");
    }
    assert_eq!(live(&matrix), 200);
    assert_sound(&matrix);
}

#[test]
fn offset_acked_by_eight_threads_is_freed_once() {
    let matrix = matrix(1 << 20, 40, 30);
    let _left = matrix.allocate(1).unwrap();
    for round in 0..200 {
        let offset = matrix.allocate_offset(100 + round).unwrap();
        assert_eq!(winners(|| matrix.ack(offset).is_ok()), 1, "round {round}");
        assert_eq!(live(&matrix), 1);
        assert_sound(&matrix);
    }
}

#[test]
fn offset_taken_and_acked_at_once_has_one_winner() {
    let matrix = matrix(1 << 20, 40, 30);
    for round in 0..200 {
        let offset = matrix.allocate_offset(100).unwrap();
        let turn = AtomicUsize::new(0);
        let won = winners(|| {
            if turn.fetch_add(1, Relaxed).is_multiple_of(2) {
                matrix.ack(offset).is_ok()
            } else {
                // Kept, so that nobody gets the place anew in this round.
                matrix.from_offset(offset).map(std::mem::forget).is_ok()
            }
        });
        assert_eq!(won, 1, "round {round}");
    }
    assert_sound(&matrix);
}

#[test]
fn payload_zeroed_on_dirty_memory_is_zero() {
    let matrix = matrix(1 << 20, 100, 0);
    let all = matrix.stats().sectors[0].largest_free_bytes as usize - 32;
    matrix.allocate(all).unwrap().fill(0xee);
    assert!(matrix.allocate(all).unwrap().contains(&0xee), "not dirty at all");
    for bytes in [1, 31, 32, 33, 10_000, all] {
        let block = matrix.allocate_zeroed(bytes).unwrap();
        assert!(block.len() == bytes && block.iter().all(|&byte| byte == 0), "{bytes}");
    }
}

#[test]
fn block_grown_within_its_granules_needs_no_room() {
    let matrix = direct(1 << 20, 100, 0);
    let (_right, mut block) = (matrix.allocate(32).unwrap(), matrix.allocate(33).unwrap());
    assert_eq!(block.usable_size(), 64);
    block.try_grow(64).unwrap();
    assert_eq!((block.len(), block.usable_size()), (64, 64));
    assert_eq!(block.try_grow(65), Err(Error::NoRoom { requested_bytes: 65 }));
    assert_eq!(block.len(), 64);
    block.try_grow(10).unwrap();
    assert_eq!(block.len(), 64, "a smaller size is no request to shrink");
    let offset = block.into_offset();
    assert_eq!(matrix.from_offset(offset).unwrap().len(), 64);
}

#[test]
fn block_grown_into_its_free_right_neighbour_keeps_its_bytes() {
    let matrix = direct(1 << 20, 100, 0);
    let last = matrix.allocate(32).unwrap();
    let (right, mut block) = (matrix.allocate(3200).unwrap(), matrix.allocate(100).unwrap());
    let place = block.offset();
    pattern::fill(&mut block, 1);
    assert!(block.try_grow(200).is_err(), "the neighbour is in use");
    drop(right);
    block.try_grow(200).unwrap();
    pattern::verify(&block[..100], 1);
    assert_eq!((block.len(), block.usable_size(), block.offset()), (200, 224, place));
    // All there is up to the last block: its own 5 granules and the neighbour's 101.
    block.try_grow(105 * 32).unwrap();
    assert!(block.try_grow(105 * 32 + 1).is_err(), "the last block is in use");
    pattern::fill(&mut block, 2);
    assert_sound(&matrix);
    drop(last);
    block.try_grow(106 * 32 + 1 - 32).unwrap();
    pattern::verify(&block[..105 * 32], 2);
    drop(block);
    assert_whole(&matrix);
}

#[test]
fn block_grown_beyond_any_limit_has_no_room_and_stays() {
    for (small, medium) in [(100, 0), (0, 100), (0, 0)] {
        let matrix = direct(1 << 20, small, medium);
        let mut block = matrix.allocate(1000).unwrap(); // at the sector's end
        for bytes in [1 << 20, 1 << 40, isize::MAX as usize, usize::MAX - 40, usize::MAX] {
            let requested_bytes = bytes as u64;
            assert_eq!(block.try_grow(bytes), Err(Error::NoRoom { requested_bytes }));
        }
        assert_eq!(block.len(), 1000);
        assert_sound(&matrix);
        drop(block);
        assert_whole(&matrix);
    }
}

#[test]
fn block_shrunk_gives_whole_granules_back() {
    let matrix = direct(1 << 20, 100, 0);
    let all = matrix.stats().sectors[0].size_bytes;
    let mut block = matrix.allocate(3200).unwrap();
    pattern::fill(&mut block, 5);
    for (bytes, usable) in [(3199, 3200), (3168, 3168), (1000, 1024), (33, 64), (32, 32), (1, 32)] {
        block.shrink(bytes).unwrap();
        assert_eq!((block.len(), block.usable_size()), (bytes, usable));
        assert_eq!(matrix.stats().sectors[0].free_bytes, all - usable as u64 - 32);
        pattern::verify(&block, 5);
        assert_sound(&matrix);
    }
    block.shrink(500).unwrap();
    assert_eq!(block.len(), 1, "a larger size is no request to grow");
    block.try_grow(3200).unwrap();
    drop(block);
    assert_whole(&matrix);
}

/// Every power of two up to 4096, in every sector, between blocks that lie crooked.
#[test]
fn payload_aligned_to_every_power_of_two_is_aligned_in_every_sector() {
    for (small, medium) in [(100, 0), (0, 100), (0, 0)] {
        let matrix = direct(1 << 20, small, medium);
        let mut blocks: Vec<Block<'_>> = Vec::new();
        for log in 0..=12 {
            for bytes in [0, 1, 31, 4064, 5000] {
                let layout = Layout::from_size_align(bytes, 1 << log).unwrap();
                let mut block = matrix.allocate_aligned(layout).unwrap();
                assert!(block.as_ptr().addr().is_multiple_of(1 << log), "{layout:?}");
                assert!(block.offset().bytes().is_multiple_of(1 << log), "{layout:?}");
                assert!(block.usable_size() < bytes.max(1) + (4096 << 1), "not trimmed");
                pattern::fill(&mut block, blocks.len() as u64);
                blocks.push(block);
                let mut crooked = matrix.allocate(1).unwrap();
                pattern::fill(&mut crooked, blocks.len() as u64);
                blocks.push(crooked);
            }
        }
        assert_sound(&matrix);
        blocks.iter().enumerate().for_each(|(i, block)| pattern::verify(block, i as u64));
        drop(blocks);
        assert_whole(&matrix);
    }
}

#[test]
fn alignment_above_4096_is_refused() {
    let matrix = matrix(1 << 20, 40, 30);
    for align_bytes in [8192, 1 << 20, 1 << 40] {
        let layout = Layout::from_size_align(1, align_bytes).unwrap();
        let error = matrix.allocate_aligned(layout).unwrap_err();
        assert_eq!(error, Error::AlignmentTooLarge { align_bytes });
    }
    assert_whole(&matrix);
}

#[test]
fn offset_of_any_value_is_refused_where_no_block_is() {
    let matrix = matrix(300_000, 40, 30);
    let block = matrix.allocate(1000).unwrap();
    for raw in (0..300_000 / 32 + 100).chain([u32::MAX, u32::MAX - 1, 1 << 31]) {
        let offset = Offset::from_raw(raw);
        assert!(matrix.ack(offset).is_err(), "{offset}");
        assert!(matrix.from_offset(offset).is_err(), "{offset}");
        assert_eq!(matrix.usable_bytes(offset).is_some(), offset == block.offset(), "{offset}");
    }
    drop(block);
    assert_whole(&matrix);
}

thread_local! {
    static KEPT: RefCell<Vec<Block<'static>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn block_kept_in_thread_local_storage_goes_back_when_the_thread_ends() {
    let matrix: &'static Matrix = Box::leak(Box::new(matrix(1 << 20, 40, 30)));
    let keep = || KEPT.with(|kept| kept.borrow_mut().push(matrix.allocate(9).unwrap()));
    // What was touched first is torn down last: after the thread's lanes, then before them.
    std::thread::spawn(keep).join().unwrap();
    assert_whole(matrix);
    let keep_last = move || {
        drop(matrix.allocate(9).unwrap());
        keep();
    };
    std::thread::spawn(keep_last).join().unwrap();
    assert_whole(matrix);
}
