//! The C library's malloc and free.

use std::ptr::NonNull;

use anyhow::Result;

use crate::heap::{Address, Setup, Shared};

/// The process-wide malloc.
pub struct System;

impl Shared for System {
    type Block<'h> = Address;

    const FIXED: bool = false;

    fn create(_setup: &Setup) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        // SAFETY: malloc may be called with any size from any thread.
        Address::of(unsafe { libc::malloc(bytes) })
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block from malloc.
        unsafe { libc::free(block.0.as_ptr().cast()) };
        true
    }
}
