//! What the caches do to the process's own heap, and what the heap can do to them.

mod common;

use am_matrix::{Arena, Matrix, plan};
use common::caching::cached;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ptr;

/// The system's heap, with a hook inside of `realloc`: where a program's own allocator may call a matrix.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

thread_local! {
    static BYTES: Cell<u64> = const { Cell::new(0) };
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static BUSY: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    static HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

// SAFETY: every call goes on to the system's heap; the hook only uses a matrix.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size() as u64);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.set(BYTES.get() + size as u64);
        if BUSY.get() == block {
            // The same buffer is being reallocated already, further up on this very stack: from here on the
            // outer `resize` writes behind the end of what it gets.
            eprintln!("a cache's buffer is reallocated while it is being reallocated");
            std::process::abort();
        }
        if ARMED.replace(false) {
            BUSY.set(block);
            let hook = HOOK.with(|hook| hook.borrow_mut().take());
            hook.into_iter().for_each(|hook| hook());
            BUSY.set(ptr::null_mut());
        }
        // SAFETY: promised by the caller.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// A cache grows by the global allocator, and that may call the matrix again: by safe calls, and so nobody
/// may get at the cache meanwhile.
#[test]
fn matrix_used_by_the_global_allocator_never_has_one_cache_in_hand_twice() {
    let matrix = common::matrix(1 << 20, 100, 0);
    let direct = matrix.clone().with_thread_caches(false);
    let offsets: Vec<_> = (0..20).map(|_| direct.allocate_offset(64).unwrap()).collect();
    let others = [(); 40].map(|()| direct.allocate_offset(64).unwrap());
    let clone = matrix.clone();
    // The first call finds the lanes anew and remembers them; the second goes the short way.
    HOOK.set(Some(Box::new(move || {
        clone.ack(others[0]).unwrap();
        let before = cached(&clone);
        let block = clone.allocate(64).unwrap();
        assert_eq!(cached(&clone), before, "a block came out of the cache that is in use");
        drop(block);
    })));
    for offset in offsets {
        ARMED.set(true);
        matrix.ack(offset).unwrap();
        ARMED.set(false);
    }
    assert!(HOOK.take().is_none(), "the hook ran");
}

/// What a segment says of itself sets how much private memory each thread's first free takes.
#[test]
fn segment_whose_head_names_a_huge_limit_costs_no_private_memory() {
    let size = 64 << 20;
    let mut geometry = plan(size, 100, 0).unwrap();
    (geometry.small_max_bytes, geometry.medium_max_bytes) = (1 << 33, 1 << 33);
    geometry.validate(size).unwrap();
    let matrix = Matrix::format(Arena::heap(size as usize), &geometry).unwrap();
    let before = BYTES.get();
    drop(matrix.allocate(100).unwrap());
    let bytes = BYTES.get() - before;
    // 16 GiB, sparse, would be 17 GB, and the end of this process.
    assert!(bytes < 1 << 20, "{bytes} bytes of the heap for one block");
}
