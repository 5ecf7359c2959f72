//! The price of the loop itself: slots of one size, a private stack of free ones per thread, no
//! search, no lock.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};

use super::arena::Arena;
use crate::heap::{Address, Setup, Shared};

/// Slots are multiples of the cache line.
const LINE_BYTES: usize = 64;

thread_local! {
    /// The last slot that this thread freed; each free slot begins with the address of the next.
    /// One heap per process, so it need not say whose.
    static FREE: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Slots that are taken from an arena one after the other, and reused by whoever freed them.
pub struct Slots {
    slot_bytes: usize,
    count: usize,
    taken: AtomicUsize,
    arena: Arena,
}

impl Slots {
    /// Takes a slot that nobody used before.
    #[cold]
    fn fresh(&self) -> Option<Address> {
        // Relaxed: a ticket, orders nothing.
        let ticket = self.taken.fetch_add(1, Ordering::Relaxed);
        // SAFETY: slot `ticket` lies inside the arena of `count` slots.
        let slot = || unsafe { self.arena.start().add(ticket * self.slot_bytes) };
        (ticket < self.count).then(|| Address(slot()))
    }
}

impl Shared for Slots {
    type Block<'h> = Address;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        let slot_bytes = setup.request_bytes_max.next_multiple_of(LINE_BYTES);
        let count = setup.segment_bytes / slot_bytes;
        ensure!(count > 0, "no room for a single slot");
        let arena = Arena::map(setup.segment_bytes)?;
        Ok(Self { slot_bytes, count, taken: AtomicUsize::new(0), arena })
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        if bytes > self.slot_bytes {
            return None;
        }
        let Some(slot) = NonNull::new(FREE.get()) else { return self.fresh() };
        // SAFETY: a free slot begins with the next one's address, written by `free`.
        FREE.set(unsafe { slot.cast::<*mut u8>().read() });
        Some(Address(slot))
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        block.0
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // SAFETY: the slot is the caller's, at least a line long, and aligned to one.
        unsafe { block.0.cast::<*mut u8>().write(FREE.get()) };
        FREE.set(block.0.as_ptr());
        true
    }
}
