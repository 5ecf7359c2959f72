//! What is refused, and leaves everything as it was.

mod common;

use am_matrix::{Arena, Error, Matrix, plan};
use common::{assert_whole, matrix};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// An arena that was formatted may hold live blocks; formatting it anew would give them away.
#[test]
fn format_of_a_formatted_arena_is_refused_and_keeps_its_blocks() {
    let size = 1 << 20;
    let geometry = plan(size as u64, 100, 0).unwrap();
    let first = Matrix::format(Arena::heap(size), &geometry).unwrap();
    let block = first.allocate(100).unwrap();
    let base = NonNull::new(first.arena().base().cast_mut()).unwrap();
    // SAFETY: the same bytes as `first`'s, which outlives it, and formatted by this library.
    let again = unsafe { Arena::new(base, size, Box::new(())) };
    assert_eq!(Matrix::format(again, &geometry).unwrap_err(), Error::NotEmpty);
    // SAFETY: as above.
    let again = unsafe { Arena::new(base, size, Box::new(())) };
    let second = Matrix::attach(again).unwrap();
    assert_ne!(second.allocate(100).unwrap().offset(), block.offset());
    drop(block);
    second.trim().unwrap();
    assert_whole(&first);
}

/// Of a wrong length, a value is refused without being taken, so its owner is never in the way.
#[test]
fn value_probed_with_another_type_can_be_acked_by_its_owner_meanwhile() {
    let matrix = matrix(1 << 20, 100, 0);
    let stop = AtomicBool::new(false);
    let offset = matrix.allocate_offset(8).unwrap();
    matrix.ack(offset).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                assert!(matrix.value_from_offset::<[u64; 32]>(offset).is_err());
            }
        });
        let refused = (0..100_000).filter(|_| {
            let offset = matrix.allocate_offset(8).unwrap();
            matrix.ack(offset).is_err()
        });
        let refused = refused.count();
        stop.store(true, Relaxed);
        assert_eq!(refused, 0, "nobody else may take it");
    });
    assert_whole(&matrix);
}

#[test]
fn blocks_freed_together_from_an_iterator_that_panics_are_all_given_back() {
    let matrix = matrix(1 << 20, 100, 0);
    let mut blocks = matrix.allocate_many(10, 50).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        matrix.free_many(std::iter::from_fn(|| {
            assert!(blocks.len() > 5, "on purpose");
            blocks.pop()
        }));
    }));
    assert!(panicked.is_err());
    assert_eq!(blocks.len(), 5);
    drop(blocks);
    assert_whole(&matrix);
}
