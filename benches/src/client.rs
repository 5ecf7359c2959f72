//! One thread's dealings with a heap: it touches or verifies every payload, and counts.

use std::hint::black_box;
use std::ptr::NonNull;

use crate::heap::Access;
use crate::pattern;

/// What one thread did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Blocks allocated.
    pub allocs: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Allocations that the heap refused.
    pub failed_allocs: u64,
    /// Frees that the heap refused.
    pub failed_frees: u64,
    /// Blocks whose payload was not what had been written to it; counted by verifying clients.
    pub corrupted: u64,
}

impl Tally {
    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Tally) {
        self.allocs += other.allocs;
        self.frees += other.frees;
        self.failed_allocs += other.failed_allocs;
        self.failed_frees += other.failed_frees;
        self.corrupted += other.corrupted;
    }
}

/// A block in use.
pub struct Live<B> {
    block: B,
    bytes: u32,
    tag: u32,
}

/// One thread's dealings with a heap.
///
/// A measuring client writes the first 8 bytes of every block. With `VERIFY` it fills the whole
/// payload with a pattern of its own and looks at it again before the block is freed.
pub struct Client<A: Access, const VERIFY: bool> {
    access: A,
    /// Blocks in use, in no order.
    pub live: Vec<Live<A::Block>>,
    /// What was done so far.
    pub tally: Tally,
    tag: u32,
    tag_step: u32,
}

impl<A: Access, const VERIFY: bool> Client<A, VERIFY> {
    /// Creates the client of thread `thread` of `threads`; no two threads use the same tag.
    pub fn new(access: A, thread: u32, threads: u32) -> Self {
        Self { access, live: Vec::new(), tally: Tally::default(), tag: thread, tag_step: threads }
    }

    /// Allocates and touches a block.
    #[inline(always)]
    pub fn allocate(&mut self, bytes: usize) -> Option<Live<A::Block>> {
        let Some(mut block) = self.access.alloc(bytes) else {
            self.tally.failed_allocs += 1;
            return None;
        };
        self.tally.allocs += 1;
        let tag = self.tag;
        self.tag = tag.wrapping_add(self.tag_step);
        let payload = self.access.payload(&mut block);
        if VERIFY {
            // SAFETY: the heap gave out `bytes` bytes at `payload` to this thread alone. A heap that
            // breaks this promise is what the verifying run looks for, in a process of its own.
            unsafe { pattern::fill(payload, bytes, tag) };
        } else {
            // SAFETY: every workload asks for more than 8 bytes.
            unsafe { touch(payload, tag) };
        }
        Some(Live { block, bytes: bytes as u32, tag })
    }

    /// Frees a block.
    #[inline(always)]
    pub fn release(&mut self, mut live: Live<A::Block>) {
        let bytes = live.bytes as usize;
        if VERIFY {
            let payload = self.access.payload(&mut live.block);
            // SAFETY: the block is still this client's; see `allocate`.
            let intact = unsafe { pattern::is_intact(payload, bytes, live.tag) };
            if !intact {
                self.tally.corrupted += 1;
                pattern::announce_corruption();
            }
        }
        // SAFETY: `live` is consumed here, and it was made by `allocate` with the same heap and size.
        if unsafe { self.access.free(live.block, bytes) } {
            self.tally.frees += 1;
        } else {
            self.tally.failed_frees += 1;
        }
    }

    /// Allocates a block and keeps it.
    #[inline(always)]
    pub fn keep(&mut self, bytes: usize) -> bool {
        let Some(block) = self.allocate(bytes) else { return false };
        self.live.push(block);
        true
    }

    /// Frees block number `index`; others may change their numbers.
    #[inline(always)]
    pub fn drop_one(&mut self, index: usize) {
        let live = self.live.swap_remove(index);
        self.release(live);
    }

    /// Frees everything that is still in use.
    pub fn drain(&mut self) {
        while let Some(live) = self.live.pop() {
            self.release(live);
        }
    }
}

/// Writes 8 bytes at the start of a payload.
///
/// # Safety
/// `payload` is valid for writing 8 bytes.
#[inline(always)]
pub unsafe fn touch(payload: NonNull<u8>, tag: u32) {
    let word = payload.cast::<u64>();
    // SAFETY: promised by the caller; no alignment is assumed.
    unsafe { word.write_unaligned(u64::from(tag)) };
    // Nobody reads the word, and the compiler must not conclude that it need not be written.
    black_box(word);
}
