//! rlsf: TLSF over a private arena, behind std's Mutex.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rlsf::int::BinInteger;

use super::arena::Arena;
use crate::heap::{Address, Setup, Shared};

/// The alignment asked for: that of malloc.
const ALIGN: usize = 16;

/// First-level lists: they reach from 32 B to 8 GiB.
const POWERS: usize = 28;

/// A TLSF pool and its lock; `S` subdivisions of every power of two, one bit of `B` for each.
pub struct Rlsf<B, const S: usize> {
    // Declared before the arena: dropped before it is unmapped.
    tlsf: Mutex<rlsf::Tlsf<'static, u32, B, POWERS, S>>,
    _arena: Arena,
}

/// With 32 of them.
pub type Usual = Rlsf<u32, 32>;
/// With as many as there can be.
pub type Finest = Rlsf<u64, 64>;

impl<B: BinInteger, const S: usize> Shared for Rlsf<B, S> {
    type Block<'h> = Address;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        let arena = Arena::map(setup.segment_bytes)?;
        let mut tlsf = rlsf::Tlsf::new();
        // SAFETY: the region belongs to this pool alone and is unmapped after it is dropped.
        unsafe { tlsf.insert_free_block_ptr(arena.region()) }.context("rlsf refuses the arena")?;
        Ok(Self { tlsf: Mutex::new(tlsf), _arena: arena })
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
        self.tlsf.lock().unwrap_or_else(PoisonError::into_inner).allocate(layout).map(Address)
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        let mut tlsf = self.tlsf.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller hands back a live block of this pool, allocated with ALIGN.
        unsafe { tlsf.deallocate(block.0, ALIGN) };
        true
    }
}
