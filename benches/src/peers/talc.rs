//! talc: a binned free-list allocator over a private arena, behind parking_lot's mutex.

use std::alloc::Layout;
use std::ptr::NonNull;

use anyhow::{Result, ensure};
use parking_lot::RawMutex;
use talc::TalcLock;
use talc::source::Manual;

use super::arena::Arena;
use crate::heap::{Address, Setup, Shared};

/// The alignment asked for: that of malloc.
const ALIGN: usize = 16;

/// A talc over one claimed region.
pub struct Talc {
    // Declared before the arena: dropped before it is unmapped.
    talc: TalcLock<RawMutex, Manual>,
    _arena: Arena,
}

impl Shared for Talc {
    type Block<'h> = Address;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        let arena = Arena::map(setup.segment_bytes)?;
        let talc = TalcLock::new(Manual);
        // SAFETY: the region belongs to this talc alone and is unmapped after it is dropped.
        let end = unsafe { talc.lock().claim(arena.start().as_ptr(), setup.segment_bytes) };
        ensure!(end.is_some(), "talc refuses the arena");
        Ok(Self { talc, _arena: arena })
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
        // SAFETY: no workload asks for zero bytes.
        unsafe { self.talc.lock().allocate(layout) }.map(Address)
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, bytes: usize) -> bool {
        let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { return false };
        // SAFETY: the caller hands back a live block that was allocated with this layout.
        unsafe { self.talc.lock().deallocate(block.0.as_ptr(), layout) };
        true
    }
}
