//! snmalloc by direct call: a private heap whose frees go back in messages.

use std::ptr::NonNull;

use anyhow::Result;
use snmalloc_sys::{sn_rust_alloc, sn_rust_dealloc};

use crate::heap::{Address, Setup, Shared};

/// The alignment asked for: that of malloc.
const ALIGN: usize = 16;

/// The process-wide snmalloc.
pub struct Snmalloc;

impl Shared for Snmalloc {
    type Block<'h> = Address;

    const FIXED: bool = false;

    fn create(_setup: &Setup) -> Result<Self> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        // SAFETY: the alignment is a power of two; any size may be asked for from any thread.
        Address::of(unsafe { sn_rust_alloc(ALIGN, bytes) })
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, bytes: usize) -> bool {
        // SAFETY: the caller hands back a live block, with the size it was allocated with.
        unsafe { sn_rust_dealloc(block.0.as_ptr().cast(), ALIGN, bytes) };
        true
    }
}
