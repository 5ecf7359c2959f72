//! The C library's malloc and free.

use std::ptr::NonNull;

use anyhow::Result;
use uuid::Uuid;

use crate::heap::Heap;

/// The process-wide malloc.
pub struct System;

impl Heap for System {
    type Block = NonNull<u8>;

    fn create(_id: Uuid, _segment_bytes: usize) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        // SAFETY: malloc may be called with any size from any thread.
        NonNull::new(unsafe { libc::malloc(bytes) }).map(NonNull::cast)
    }

    #[inline(always)]
    fn payload(&self, block: Self::Block) -> NonNull<u8> {
        block
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block from malloc.
        unsafe { libc::free(block.as_ptr().cast()) };
        true
    }
}
