//! The price of the loop itself: fixed slots, a private stack of free ones, no search, no lock.

use std::cell::RefCell;
use std::ptr::NonNull;

use anyhow::{Result, ensure};
use uuid::Uuid;

use super::arena::Arena;
use crate::heap::Heap;

/// The largest request; a multiple of the cache line.
const SLOT_BYTES: usize = 576;

/// A single-threaded stack of slots, last freed first.
pub struct Slots {
    free: RefCell<Vec<NonNull<u8>>>,
    _arena: Arena,
}

impl Slots {
    /// Lays out `count` slots.
    ///
    /// # Errors
    /// When the memory for them cannot be had.
    pub fn with_count(count: usize) -> Result<Self> {
        let arena = Arena::map(count * SLOT_BYTES)?;
        // SAFETY: slot `i` lies inside the arena of `count` slots.
        let slot = |i| unsafe { arena.start().add(i * SLOT_BYTES) };
        let free = (0..count).rev().map(slot).collect();
        Ok(Self { free: RefCell::new(free), _arena: arena })
    }
}

impl Heap for Slots {
    type Block = NonNull<u8>;

    fn create(_id: Uuid, segment_bytes: usize) -> Result<Self> {
        ensure!(segment_bytes >= SLOT_BYTES, "no room for a single slot");
        Self::with_count(segment_bytes / SLOT_BYTES)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        if bytes > SLOT_BYTES {
            return None;
        }
        self.free.borrow_mut().pop()
    }

    #[inline(always)]
    fn payload(&self, block: Self::Block) -> NonNull<u8> {
        block
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        self.free.borrow_mut().push(block);
        true
    }
}
