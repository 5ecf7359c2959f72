//! A 64-bit twin of [`Word`](crate::Word), for numbers that must never wrap.
//!
//! What a matrix stores of its own are 32-bit words; a [`Wide`] lies in blocks, for the layers above,
//! as a message's sequence number does. It takes two words' place and is aligned to 8 bytes. The
//! `*_full` operations, and what the model checker is told, are as a word's.

use crate::word::full_barrier;
#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

/// One 64-bit word of shared memory.
///
/// Zero is a valid first value, so fresh zero pages need no formatting. All operations are wait-free.
#[cfg(not(loom))]
#[repr(transparent)]
#[derive(Debug)]
pub struct Wide(AtomicU64);

/// One 64-bit word, as the model checker sees it; the second atomic is that of a
/// [`Word`](crate::Word).
#[cfg(loom)]
#[derive(Debug)]
pub struct Wide(AtomicU64, loom::sync::atomic::AtomicU32);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Wide>() == 8 && align_of::<Wide>() == 8);

impl Wide {
    /// Makes a wide word that holds `value`.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Makes a wide word that holds `value`.
    #[cfg(loom)]
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(AtomicU64::new(value), loom::sync::atomic::AtomicU32::new(0))
    }

    #[inline]
    fn touch(&self) {
        #[cfg(loom)]
        self.1.fetch_add(0, Relaxed);
    }

    /// Counts a read-modify-write, in a counting build.
    #[inline]
    fn counted(&self) -> &AtomicU64 {
        #[cfg(loom)]
        assert!(crate::mutation::before_write(), "a destructor of the dead exchanges");
        #[cfg(am_count)]
        crate::RMW_COUNT.fetch_add(1, Relaxed);
        &self.0
    }

    /// Loads with acquire: sees everything that happened before the store it reads.
    #[inline]
    pub fn load(&self) -> u64 {
        self.touch();
        self.0.load(Acquire)
    }

    /// Loads with no ordering; the value is a hint.
    #[inline]
    pub fn load_relaxed(&self) -> u64 {
        self.touch();
        self.0.load(Relaxed)
    }

    /// Stores with release: publishes everything written before.
    #[inline]
    pub fn store(&self, value: u64) {
        #[cfg(loom)]
        if !crate::mutation::before_write() {
            return;
        }
        self.0.store(value, Release);
    }

    /// Stores with release, where others may exchange at the same time.
    ///
    /// Loom has no order between a store and an exchange that reads what was there before, and lets either
    /// be the last one. In fact the exchange comes first or fails. So there this is an exchange as well.
    #[inline]
    pub fn store_beside_cas(&self, value: u64) {
        #[cfg(loom)]
        if crate::mutation::before_write() {
            self.0.swap(value, Release);
        }
        #[cfg(not(loom))]
        self.store(value);
    }

    /// Stores with no ordering; a later release operation of this thread publishes it.
    #[inline]
    pub fn store_relaxed(&self, value: u64) {
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
    pub fn cas(&self, expected: u64, new: u64) -> Result<(), u64> {
        match self.counted().compare_exchange(expected, new, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen),
        }
    }

    /// Replaces `expected` by `new` with no ordering.
    ///
    /// # Errors
    /// The value seen, when it was not `expected`; nothing is written then.
    #[inline]
    pub fn cas_relaxed(&self, expected: u64, new: u64) -> Result<(), u64> {
        match self.counted().compare_exchange(expected, new, Relaxed, Relaxed) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen),
        }
    }

    /// Like [`cas`](Self::cas), followed by a full barrier when it succeeds.
    ///
    /// # Errors
    /// The value seen, when it was not `expected`; nothing is written then.
    #[inline]
    pub fn cas_full(&self, expected: u64, new: u64) -> Result<(), u64> {
        self.cas(expected, new)?;
        full_barrier();
        Ok(())
    }

    /// Stores `value` with release, followed by a full barrier; returns the value before.
    #[inline]
    pub fn swap_full(&self, value: u64) -> u64 {
        let old = self.counted().swap(value, AcqRel);
        full_barrier();
        old
    }

    /// Sets the bits of `mask`, followed by a full barrier; returns the value before.
    #[inline]
    pub fn fetch_or_full(&self, mask: u64) -> u64 {
        let old = self.counted().fetch_or(mask, AcqRel);
        full_barrier();
        old
    }

    /// Keeps only the bits of `mask`, followed by a full barrier; returns the value before.
    #[inline]
    pub fn fetch_and_full(&self, mask: u64) -> u64 {
        let old = self.counted().fetch_and(mask, AcqRel);
        full_barrier();
        old
    }

    /// Adds 1, wrapping, followed by a full barrier; returns the value before.
    #[inline]
    pub fn increment_full(&self) -> u64 {
        let old = self.counted().fetch_add(1, AcqRel);
        full_barrier();
        old
    }
}

impl Default for Wide {
    fn default() -> Self {
        Self::new(0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Wide;

    #[test]
    fn wide_keeps_all_64_bits_and_exchanges_only_what_it_expects() {
        let wide = Wide::default();
        wide.store(u64::MAX - 1);
        assert_eq!(wide.load(), u64::MAX - 1);
        assert_eq!(wide.cas(u64::from(u32::MAX) - 1, 7), Err(u64::MAX - 1));
        assert_eq!(wide.cas_relaxed(7, 8), Err(u64::MAX - 1));
        assert_eq!(wide.cas_full(u64::MAX - 1, 1 << 40), Ok(()));
        assert_eq!(wide.swap_full(3), 1 << 40);
        wide.store_beside_cas(4);
        assert_eq!(wide.load(), 4);
        wide.store_relaxed(5);
        assert_eq!(wide.load_relaxed(), 5);
        wide.store(u64::MAX);
        assert_eq!(wide.increment_full(), u64::MAX);
        assert_eq!(wide.load(), 0);
        assert_eq!(wide.fetch_or_full(1 << 40 | 1), 0);
        assert_eq!(wide.fetch_and_full(!1), 1 << 40 | 1);
        assert_eq!(wide.load(), 1 << 40);
    }
}
