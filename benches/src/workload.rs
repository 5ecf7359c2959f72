//! The workloads, and the client that runs them against a heap.

use std::hint::black_box;
use std::ptr::NonNull;

use serde::{Deserialize, Serialize};

use crate::heap::Heap;
use crate::pattern;
use crate::random::{Lcg, Random};

/// Blocks that one thread keeps at most in the endurance workload.
pub const ENDURANCE_LIVE_MAX: usize = 200;
/// Blocks in one batch.
const BATCH_BLOCKS: usize = 10_000;
/// Sizes in a batch: 32 ..= 4096 bytes.
const BATCH_SIZE_MIN: usize = 32;
const BATCH_SIZE_MAX: usize = 4096;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Up to 200 live blocks a thread, 32..544 bytes, 7 of 10 turns allocate
    Endurance,
    /// Allocate 64 bytes and free them at once
    Pair64,
    /// Allocate 10 000 blocks of 32..4096 bytes, free them in random order
    Batch,
}

impl Workload {
    /// Returns the segment or arena for every peer, in bytes.
    pub fn segment_bytes(self) -> usize {
        match self {
            Workload::Endurance | Workload::Pair64 => 50 << 20,
            // 16 threads hold 330 MB of payload between them; nothing shall fail.
            Workload::Batch => 1 << 30,
        }
    }
}

/// What one thread did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
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
pub struct Client<'h, H: Heap, const VERIFY: bool> {
    heap: &'h H,
    /// Blocks in use, in no order.
    pub live: Vec<Live<H::Block>>,
    /// What was done so far.
    pub tally: Tally,
    tag: u32,
    tag_step: u32,
}

impl<'h, H: Heap, const VERIFY: bool> Client<'h, H, VERIFY> {
    /// Creates the client of thread `thread` of `threads`; no two threads use the same tag.
    pub fn new(heap: &'h H, thread: u32, threads: u32) -> Self {
        Self { heap, live: Vec::new(), tally: Tally::default(), tag: thread, tag_step: threads }
    }

    /// Allocates and touches a block.
    #[inline(always)]
    pub fn allocate(&mut self, bytes: usize) -> Option<Live<H::Block>> {
        let Some(block) = self.heap.alloc(bytes) else {
            self.tally.failed_allocs += 1;
            return None;
        };
        self.tally.allocs += 1;
        let tag = self.tag;
        self.tag = tag.wrapping_add(self.tag_step);
        let payload = self.heap.payload(block);
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
    pub fn release(&mut self, live: Live<H::Block>) {
        let bytes = live.bytes as usize;
        if VERIFY {
            // SAFETY: the block is still this client's; see `allocate`.
            let intact =
                unsafe { pattern::is_intact(self.heap.payload(live.block), bytes, live.tag) };
            if !intact {
                self.tally.corrupted += 1;
                pattern::announce_corruption();
            }
        }
        // SAFETY: `live` is consumed here, and it was made by `allocate` with the same heap and size.
        if unsafe { self.heap.free(live.block, bytes) } {
            self.tally.frees += 1;
        } else {
            self.tally.failed_frees += 1;
        }
    }

    /// Allocates a block and keeps it.
    #[inline(always)]
    pub fn keep(&mut self, bytes: usize) -> bool {
        let block = self.allocate(bytes);
        let allocated = block.is_some();
        self.live.extend(block);
        allocated
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
unsafe fn touch(payload: NonNull<u8>, tag: u32) {
    let word = payload.cast::<u64>();
    // SAFETY: promised by the caller; no alignment is assumed.
    unsafe { word.write_unaligned(u64::from(tag)) };
    // Nobody reads the word, and the compiler must not conclude that it need not be written.
    black_box(word);
}

/// A workload of one thread.
pub trait Load {
    /// Turns until the thread holds as many blocks as it ever will and has touched their memory.
    const WARM_UP_TURNS: usize;

    /// Starts the workload of thread number `thread`.
    fn new(thread: u32) -> Self;

    /// Does one turn: at most two operations.
    fn step<H: Heap, const VERIFY: bool>(&mut self, client: &mut Client<'_, H, VERIFY>);
}

/// The endurance workload.
pub struct Endurance(Lcg);

impl Load for Endurance {
    const WARM_UP_TURNS: usize = 10 * ENDURANCE_LIVE_MAX;

    fn new(thread: u32) -> Self {
        Self(Lcg::new(thread + 1))
    }

    #[inline(always)]
    fn step<H: Heap, const VERIFY: bool>(&mut self, client: &mut Client<'_, H, VERIFY>) {
        let rng = self.0.next();
        if rng % 10 < 7 && client.live.len() < ENDURANCE_LIVE_MAX {
            client.keep((rng % 512 + 32) as usize);
        } else if !client.live.is_empty() {
            let index = rng as usize % client.live.len();
            let live = client.live.swap_remove(index);
            client.release(live);
        }
    }
}

/// Allocate 64 bytes, free them.
pub struct Pair64;

impl Load for Pair64 {
    const WARM_UP_TURNS: usize = 1_000;

    fn new(_thread: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn step<H: Heap, const VERIFY: bool>(&mut self, client: &mut Client<'_, H, VERIFY>) {
        if let Some(live) = client.allocate(64) {
            client.release(live);
        }
    }
}

/// Allocate 10 000 blocks, free them in random order.
pub struct Batch {
    random: Random,
    turn: usize,
}

impl Load for Batch {
    const WARM_UP_TURNS: usize = 2 * BATCH_BLOCKS;

    fn new(thread: u32) -> Self {
        Self { random: Random::new(u64::from(thread) + 1), turn: 0 }
    }

    #[inline(always)]
    fn step<H: Heap, const VERIFY: bool>(&mut self, client: &mut Client<'_, H, VERIFY>) {
        // Turns are counted, not blocks: a full heap must not keep the batch from its end.
        if self.turn < BATCH_BLOCKS {
            let span = BATCH_SIZE_MAX - BATCH_SIZE_MIN + 1;
            client.keep(BATCH_SIZE_MIN + self.random.below(span));
        } else if !client.live.is_empty() {
            let index = self.random.below(client.live.len());
            let live = client.live.swap_remove(index);
            client.release(live);
        }
        self.turn = if self.turn + 1 == 2 * BATCH_BLOCKS { 0 } else { self.turn + 1 };
    }
}
