//! jemalloc by direct call of its prefixed names: a private heap with thread caches.

use std::ptr::NonNull;

use anyhow::Result;
use tikv_jemalloc_sys::{free, malloc};

use crate::heap::{Address, Setup, Shared};

/// The process-wide jemalloc.
pub struct Jemalloc;

impl Shared for Jemalloc {
    type Block<'h> = Address;

    const FIXED: bool = false;

    fn create(_setup: &Setup) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        // SAFETY: malloc may be called with any size from any thread.
        Address::of(unsafe { malloc(bytes) })
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block from the same malloc.
        unsafe { free(block.0.as_ptr().cast()) };
        true
    }
}
