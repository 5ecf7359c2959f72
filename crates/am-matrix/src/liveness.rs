//! How participants tell whether each other live.

use crate::names::NAMES_LOCK_BYTE;
use crate::recovery::RECOVERY_LOCK_BYTE;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Locks on single bytes of a segment, which fall when their holder dies, and a word that tells a
/// forked child from its parent.
///
/// `am_shm::Locks` is one over open-file-description locks; the facade brings the two together.
///
/// # Safety
/// Whoever is dead by these answers has its blocks taken away. So, among all values that stand for the
/// same segment:
/// * a byte that one of them has locked, and neither unlocked nor been dropped since, is locked
///   elsewhere to every other; and two of them never have the same byte at once;
/// * a lock falls by itself only when no thread of its holder's process can touch the segment again;
/// * `alive` always returns the same word, which nothing else uses but the matrix, to keep a number
///   in it; it is 0 in every process forked from the one that made the value.
pub unsafe trait Liveness: Send + Sync {
    /// Tries to lock a byte; never waits. True when it is ours, false when another holder has it.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn try_lock(&self, byte: u64) -> io::Result<bool>;

    /// Gives a lock up.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn unlock(&self, byte: u64) -> io::Result<()>;

    /// Tells whether another holder than this value has the byte.
    ///
    /// # Errors
    /// Whatever the kernel refuses; the holder then counts as alive.
    fn is_locked_elsewhere(&self, byte: u64) -> io::Result<bool>;

    /// A word that is 0 in every process forked from the one that made this value, whatever was in it.
    /// Always the same one, at the same address, and no other value's; it is read at every call.
    fn alive(&self) -> &AtomicU32;
}

/// For memory of one process: nobody dies but all, and a forked child has a copy of its own.
#[derive(Debug)]
pub(crate) struct Immortal(AtomicU32);

/// One recoverer at a time, for all memory of the process.
static RECOVERING: AtomicBool = AtomicBool::new(false);
/// One who changes names at a time, for all memory of the process.
static NAMING: AtomicBool = AtomicBool::new(false);

impl Immortal {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(1))
    }

    /// What a byte's lock is; none for slots, which are told apart by their states alone.
    fn lock(byte: u64) -> Option<&'static AtomicBool> {
        match byte {
            RECOVERY_LOCK_BYTE => Some(&RECOVERING),
            NAMES_LOCK_BYTE => Some(&NAMING),
            _ => None,
        }
    }
}

// SAFETY: nobody is ever dead. All attachments to memory of one process die together, and a forked
// child has a copy of the memory.
unsafe impl Liveness for Immortal {
    fn try_lock(&self, byte: u64) -> io::Result<bool> {
        Ok(Self::lock(byte).is_none_or(|lock| !lock.swap(true, AcqRel)))
    }

    fn unlock(&self, byte: u64) -> io::Result<()> {
        if let Some(lock) = Self::lock(byte) {
            lock.store(false, Release);
        }
        Ok(())
    }

    fn is_locked_elsewhere(&self, _: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn alive(&self) -> &AtomicU32 {
        &self.0
    }
}
