//! mimalloc by direct call: a private heap with thread caches.

use std::ptr::NonNull;

use anyhow::Result;
use libmimalloc_sys::{mi_free, mi_malloc};
use uuid::Uuid;

use crate::heap::Heap;

/// The process-wide mimalloc.
pub struct Mimalloc;

impl Heap for Mimalloc {
    type Block = NonNull<u8>;

    fn create(_id: Uuid, _segment_bytes: usize) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        // SAFETY: mi_malloc may be called with any size from any thread.
        NonNull::new(unsafe { mi_malloc(bytes) }).map(NonNull::cast)
    }

    #[inline(always)]
    fn payload(&self, block: Self::Block) -> NonNull<u8> {
        block
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block from mi_malloc.
        unsafe { mi_free(block.as_ptr().cast()) };
        true
    }
}
