//! A global allocator that serves small requests from a matrix beside: what it does to the claim of a lane.

use am_matrix::{Arena, Matrix, plan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

static SERVING: OnceLock<Matrix> = OnceLock::new();
/// Ids of attachments follow each other only while one test attaches.
static ONE_TEST: Mutex<()> = Mutex::new(());

thread_local! {
    /// Requests of at most so many bytes go by the matrix too, on this thread.
    static SMALL: Cell<usize> = const { Cell::new(0) };
    /// Every request goes by this matrix too, on this thread.
    static AGAIN: Cell<Option<&'static Matrix>> = const { Cell::new(None) };
}

struct Reentrant;

fn use_matrix(layout: Layout) {
    if layout.size() <= SMALL.get()
        && let Some(matrix) = SERVING.get()
    {
        drop(matrix.allocate(layout.size()));
    }
    if let Some(matrix) = AGAIN.get() {
        drop(matrix.allocate(64));
    }
}

// SAFETY: the system's allocator; the matrix is used beside it.
unsafe impl GlobalAlloc for Reentrant {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        use_matrix(layout);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        use_matrix(layout);
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Reentrant = Reentrant;

fn heap(size: usize) -> Matrix {
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 20).unwrap()).unwrap()
}

fn serving() -> &'static Matrix {
    // By a thread that is gone, for at the end of a thread that used it the same lock is taken.
    std::thread::spawn(|| SERVING.get_or_init(|| heap(4 << 20))).join().unwrap()
}

#[test]
fn thread_cache_made_first_by_a_thread_whose_allocator_uses_the_matrix_does_not_hang() {
    let _one = ONE_TEST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let matrix = serving();
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        // What a thread has by itself is claimed when the allocator first comes: that must not be while the list
        // of threads is locked.
        let caches: Vec<_> = (0..9)
            .map(|_| {
                let (done, is_done) = channel();
                std::thread::spawn(move || {
                    SMALL.set(512);
                    let cache = matrix.thread_cache().unwrap();
                    SMALL.set(0);
                    std::mem::forget(cache); // its place in the list stays taken
                    done.send(()).unwrap();
                });
                is_done.recv_timeout(Duration::from_secs(3)).is_ok()
            })
            .collect();
        done.send(caches).unwrap();
    });
    let caches = is_done.recv_timeout(Duration::from_secs(500)).unwrap();
    assert!(caches.iter().all(|&made| made), "made, or hung: {caches:?}");
}

#[test]
fn thread_whose_first_call_came_back_by_the_allocator_finds_its_own_cache_later() {
    let _one = ONE_TEST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // One of four that are made next has the same place among those used last.
    let matrix: &'static Matrix = Box::leak(Box::new(heap(1 << 20)));
    let others: Vec<Matrix> = (0..4).map(|_| heap(1 << 20)).collect();
    std::thread::spawn(move || {
        // Its own first call comes back to it by the allocator.
        AGAIN.set(Some(matrix));
        drop(matrix.allocate(100).unwrap());
        AGAIN.set(None);
        for _ in 0..2 {
            let blocks: Vec<_> = (0..50).map(|_| matrix.allocate(100).unwrap()).collect();
            drop(blocks);
        }
        assert!(matrix.stats().sectors[0].cached_blocks >= 50);
        for other in &others {
            drop(other.allocate(100).unwrap());
        }
        matrix.trim().unwrap();
        let kept = matrix.stats().sectors[0].cached_blocks;
        assert_eq!(kept, 0, "trim gives back what this thread's caches keep");
    })
    .join()
    .unwrap();
}
