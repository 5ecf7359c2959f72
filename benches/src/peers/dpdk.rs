//! DPDK's mempool: blocks of one size in a ring, with a cache per registered thread.

use std::ffi::c_void;
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};

use crate::heap::{Address, Setup, Shared};

/// Blocks in the pool: more than 16 threads and their caches can hold.
const BLOCKS: u32 = (1 << 16) - 1;
/// Blocks in a thread's cache.
const CACHE_BLOCKS: u32 = 256;

// Implemented by shim/dpdk.c.
unsafe extern "C" {
    safe fn am_dpdk_start() -> i32;
    safe fn am_dpdk_register() -> i32;
    safe fn am_dpdk_create(blocks: u32, block_bytes: u32, cache_blocks: u32) -> *mut c_void;
    fn am_dpdk_get(pool: *mut c_void) -> *mut c_void;
    fn am_dpdk_put(pool: *mut c_void, block: *mut c_void);
}

/// The pool of the process.
pub struct Dpdk {
    pool: NonNull<c_void>,
    block_bytes: usize,
}

// SAFETY: an rte_mempool may be used by any registered threads at once.
unsafe impl Sync for Dpdk {}

impl Shared for Dpdk {
    type Block<'h> = Address;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        let error = am_dpdk_start();
        ensure!(error == 0, "DPDK does not start: error {error}");
        let block_bytes = setup.request_bytes_max;
        let pool = am_dpdk_create(BLOCKS, u32::try_from(block_bytes)?, CACHE_BLOCKS);
        let pool = NonNull::new(pool).context("DPDK cannot create its pool")?;
        Ok(Self { pool, block_bytes })
    }

    fn register(&self) -> Result<()> {
        // Without it the thread would have no cache.
        ensure!(am_dpdk_register() == 0, "DPDK does not register the thread");
        Ok(())
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        if bytes > self.block_bytes {
            return None;
        }
        // SAFETY: the pool lives as long as the process.
        Address::of(unsafe { am_dpdk_get(self.pool.as_ptr()) })
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block of this pool.
        unsafe { am_dpdk_put(self.pool.as_ptr(), block.0.as_ptr().cast()) };
        true
    }
}
