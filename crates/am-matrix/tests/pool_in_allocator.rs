//! A global allocator that uses a pool itself: whatever the pool allocates comes back to it.

use am_matrix::{Arena, Matrix, Pool, plan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const BLOCKS: usize = 1000;

static POOL: OnceLock<Pool<'static, u64>> = OnceLock::new();
static ARMED: AtomicBool = AtomicBool::new(false);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

struct Pooling;

/// Takes a block and puts it back.
fn use_pool() {
    if ARMED.load(Relaxed)
        && let Some(Ok(mut block)) = POOL.get().map(Pool::get)
    {
        *block += 1;
        TAKEN.fetch_add(1, Relaxed);
    }
}

// SAFETY: the system's allocator; the pool is used beside it.
unsafe impl GlobalAlloc for Pooling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        use_pool();
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        use_pool();
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Pooling = Pooling;

#[test]
fn pool_used_by_the_global_allocator_loses_no_block_and_never_panics() {
    let size = 4 << 20;
    let matrix = Matrix::format(Arena::heap(size), &plan(size as u64, 60, 20).unwrap()).unwrap();
    let matrix: &'static Matrix = Box::leak(Box::new(matrix));
    POOL.set(matrix.pool(BLOCKS).unwrap()).unwrap();
    let pool = POOL.get().unwrap();
    ARMED.store(true, Relaxed);
    for _ in 0..20 {
        let work = || {
            // A thread's first use of a pool allocates, and one of a new pool drops what is left of old ones.
            let other = matrix.pool::<u32>(100).unwrap();
            drop(other.get_many(80).unwrap());
            drop(other);
            let another = matrix.pool::<u32>(100).unwrap();
            drop(another.get().unwrap());
            pool.put_many(pool.get_many(100).unwrap());
        };
        let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    ARMED.store(false, Relaxed);
    assert!(TAKEN.load(Relaxed) > 1000);
    assert_eq!(pool.get_many(BLOCKS).unwrap().len(), BLOCKS);
}
