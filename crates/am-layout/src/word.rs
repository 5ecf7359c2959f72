//! The one shared primitive: a 32-bit word.
//!
//! Every piece of shared state of a segment is a [`Word`]. It is a plain `AtomicU32` in a normal
//! build and loom's in a model build (`--cfg loom`), so that the model checker runs the very code
//! that ships. Algorithms take slices of words and never learn where those live.
//!
//! The `*_full` operations are a read-modify-write followed by a full barrier: whatever the thread
//! loads afterwards is at least as new as what any thread saw that has not yet seen the write.
//! On x86-64 a locked instruction already is that barrier (AMD64 APM vol. 2, 7.4.2; Intel SDM
//! vol. 3, 9.2.3.9), so there only the compiler has to be held back; elsewhere, and in the model,
//! it is `fence(SeqCst)`.

#[cfg(not(loom))]
use core::sync::atomic::AtomicU32;
#[cfg(all(not(loom), not(target_arch = "x86_64")))]
use core::sync::atomic::fence;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, fence};

#[cfg(any(loom, not(target_arch = "x86_64")))]
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// One 32-bit word of shared memory.
///
/// Zero is a valid first value of every word of a segment, so fresh zero pages need no
/// formatting. All operations are wait-free.
#[cfg(not(loom))]
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU32);

/// One 32-bit word, as the model checker sees it.
///
/// Loom reorders a read-modify-write only with the last access before it. When that was the same
/// thread's own load, it hides another thread's earlier load, and the order "exchange first" is
/// never tried. So every load touches a second atomic: two loads then count as dependent.
#[cfg(loom)]
#[derive(Debug)]
pub struct Word(AtomicU32, AtomicU32);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Word>() == 4 && align_of::<Word>() == 4);

impl Word {
    /// Makes a word that holds `value`.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Makes a word that holds `value`.
    #[cfg(loom)]
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self(AtomicU32::new(value), AtomicU32::new(0))
    }

    #[inline]
    fn touch(&self) {
        #[cfg(loom)]
        self.1.fetch_add(0, Relaxed);
    }

    /// Counts a read-modify-write, in a counting build.
    #[inline]
    fn counted(&self) -> &AtomicU32 {
        #[cfg(loom)]
        assert!(crate::mutation::before_write(), "a destructor of the dead exchanges");
        #[cfg(am_count)]
        RMW_COUNT.fetch_add(1, Relaxed);
        &self.0
    }

    /// Loads with acquire: sees everything that happened before the store it reads.
    #[inline]
    pub fn load(&self) -> u32 {
        self.touch();
        self.0.load(Acquire)
    }

    /// Loads with no ordering; the value is a hint.
    #[inline]
    pub fn load_relaxed(&self) -> u32 {
        self.touch();
        self.0.load(Relaxed)
    }

    /// Stores with release: publishes everything written before.
    #[inline]
    pub fn store(&self, value: u32) {
        #[cfg(loom)]
        if !crate::mutation::before_write() {
            return;
        }
        self.0.store(value, Release);
    }

    /// Stores with no ordering; a later release operation of this thread publishes it.
    #[inline]
    pub fn store_relaxed(&self, value: u32) {
        #[cfg(loom)]
        if !crate::mutation::before_write() {
            return;
        }
        self.0.store(value, Relaxed);
    }

    /// Replaces `expected` by `new` with acquire and release.
    ///
    /// # Errors
    /// The value seen, when it was not `expected`; nothing is written then.
    #[inline]
    pub fn cas(&self, expected: u32, new: u32) -> Result<(), u32> {
        match self.counted().compare_exchange(expected, new, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen),
        }
    }

    /// Like [`cas`](Self::cas), followed by a full barrier when it succeeds.
    ///
    /// # Errors
    /// The value seen, when it was not `expected`; nothing is written then.
    #[inline]
    pub fn cas_full(&self, expected: u32, new: u32) -> Result<(), u32> {
        self.cas(expected, new)?;
        full_barrier();
        Ok(())
    }

    /// Stores `value` with release, followed by a full barrier.
    #[inline]
    pub fn swap_full(&self, value: u32) -> u32 {
        let old = self.counted().swap(value, AcqRel);
        full_barrier();
        old
    }

    /// Sets the bits of `mask`, followed by a full barrier; returns the value before.
    #[inline]
    pub fn fetch_or_full(&self, mask: u32) -> u32 {
        let old = self.counted().fetch_or(mask, AcqRel);
        full_barrier();
        old
    }

    /// Keeps only the bits of `mask`, followed by a full barrier; returns the value before.
    #[inline]
    pub fn fetch_and_full(&self, mask: u32) -> u32 {
        let old = self.counted().fetch_and(mask, AcqRel);
        full_barrier();
        old
    }

    /// Adds 1, wrapping, followed by a full barrier; returns the value before.
    #[inline]
    pub fn increment_full(&self) -> u32 {
        let old = self.counted().fetch_add(1, AcqRel);
        full_barrier();
        old
    }

    /// Subtracts 1, wrapping, with acquire and release; returns the value before.
    #[inline]
    pub fn decrement(&self) -> u32 {
        self.counted().fetch_sub(1, AcqRel)
    }

    /// Adds `n`, wrapping, with no ordering: for counters nobody decides by.
    #[inline]
    pub fn count(&self, n: u32) {
        self.counted().fetch_add(n, Relaxed);
    }
}

/// Read-modify-writes on words so far, by the whole process.
///
/// Only in a counting build (`--cfg am_count`), which `cargo xtask bench rmw` makes: what an
/// operation pays most for is counted there, not guessed.
#[cfg(am_count)]
pub static RMW_COUNT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

impl Default for Word {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Orders the loads before it against those after it, as a full barrier would: whoever wrote what the
/// former saw, and wrote something else before with a full barrier in between, is seen in both.
///
/// On x86-64 loads are not reordered with loads (Intel SDM vol. 3, 9.2.2), so there only the compiler
/// has to be held back.
#[inline]
pub fn order_loads() {
    full_barrier();
}

/// A full barrier directly after a read-modify-write of the same thread.
#[inline]
pub(crate) fn full_barrier() {
    #[cfg(any(loom, not(target_arch = "x86_64")))]
    fence(SeqCst);
    #[cfg(all(not(loom), target_arch = "x86_64"))]
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}
