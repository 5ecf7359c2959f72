//! AtomicMatrix's pools: blocks of one type, carved when the pool is made.

use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Pool, PoolBlock, PoolCache};

use super::ours::Segment;
use crate::heap::{Access, Heap, Setup, Shared};

/// What a block holds: 64 bytes.
type Value = [u64; 8];

/// Blocks in the pool: as many as DPDK's has.
const BLOCKS: usize = (1 << 16) - 1;

/// A matrix and the pool in it, which borrows it.
struct Carved {
    pool: Pool<'static, Value>,
    /// Lives as long as the process, which serves one task.
    segment: &'static Segment,
}

impl Carved {
    fn create(setup: &Setup) -> Result<Self> {
        let (block_bytes, asked) = (size_of::<Value>(), setup.request_bytes_max);
        ensure!(asked <= block_bytes, "{asked} bytes do not fit into blocks of {block_bytes}");
        let segment: &'static Segment = Box::leak(Box::new(Segment::create(setup)?));
        let pool = segment.0.pool(BLOCKS).context("cannot carve the pool")?;
        Ok(Self { pool, segment })
    }

    /// Lists what is wrong: a pool holds all its blocks, in use or not.
    fn audit(&self) -> Vec<String> {
        self.segment.audit(BLOCKS as u64)
    }
}

impl Drop for Carved {
    fn drop(&mut self) {
        self.segment.remove();
    }
}

/// Returns where the block's payload begins.
#[inline(always)]
fn payload(block: &mut PoolBlock<'_, 'static, Value>) -> NonNull<u8> {
    NonNull::from(&mut **block).cast()
}

/// A pool that finds each thread's magazines by itself: `Pool::get`, and the block's drop.
pub struct Pooled(Carved);

impl Shared for Pooled {
    type Block<'h> = PoolBlock<'h, 'static, Value>;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        Carved::create(setup).map(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        if bytes > size_of::<Value>() {
            return None;
        }
        self.0.pool.get().ok()
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        payload(block)
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        drop(block);
        true
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit()
    }
}

/// A pool through a `PoolCache` that every thread holds.
pub struct Magazines(Carved);

impl Heap for Magazines {
    type Access<'h> = PoolCache<'h, 'static, Value>;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        Carved::create(setup).map(Self)
    }

    fn enter(&self) -> Result<Self::Access<'_>> {
        Ok(self.0.pool.cache())
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit()
    }
}

impl<'h> Access for PoolCache<'h, 'static, Value> {
    type Block = PoolBlock<'h, 'static, Value>;

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        if bytes > size_of::<Value>() {
            return None;
        }
        self.get().ok()
    }

    #[inline(always)]
    fn payload(&self, block: &mut Self::Block) -> NonNull<u8> {
        payload(block)
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        self.put(block);
        true
    }
}
