//! How participants tell whether each other live.

use std::io;
use std::sync::atomic::AtomicU32;

/// Locks on single bytes of a segment, which fall when their holder dies, and a word that tells a
/// forked child from its parent.
///
/// `am_shm::Locks` is one over open-file-description locks; the facade brings the two together.
pub trait Liveness: Send + Sync {
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

    /// A word that is not 0 in the process that made this value, and 0 in every one forked from it.
    /// Always the same one, at the same address; it is read at every call.
    fn alive(&self) -> &AtomicU32;
}

/// For memory of one process: nobody dies but all, and a forked child has a copy of its own.
#[derive(Debug)]
pub(crate) struct Immortal(AtomicU32);

impl Immortal {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Liveness for Immortal {
    fn try_lock(&self, _: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn is_locked_elsewhere(&self, _: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn alive(&self) -> &AtomicU32 {
        &self.0
    }
}
