//! mimalloc by direct call: a private heap with thread caches.

use std::ptr::NonNull;

use anyhow::Result;
use libmimalloc_sys::{mi_free, mi_malloc};

use crate::heap::{Address, Setup, Shared};

/// The process-wide mimalloc.
pub struct Mimalloc;

impl Shared for Mimalloc {
    type Block<'h> = Address;

    const FIXED: bool = false;

    fn create(_setup: &Setup) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        // SAFETY: mi_malloc may be called with any size from any thread.
        Address::of(unsafe { mi_malloc(bytes) })
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block from mi_malloc.
        unsafe { mi_free(block.0.as_ptr().cast()) };
        true
    }
}
