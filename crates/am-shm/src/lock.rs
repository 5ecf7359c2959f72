//! Locks on bytes of a file, and the one on the guard's: who holds that formats, or removes the
//! name.
//!
//! All are open-file-description write locks. The kernel drops one when the last descriptor of its
//! description is closed, so when its holder dies, in whatever PID namespace. Two descriptions
//! conflict even within one process, so threads exclude each other as processes do. `mmap` and
//! `fork` keep a description alive, therefore a lock sits on one of its own that is never mapped.
//! The guard's is also given up explicitly: a child forked meanwhile by another thread cannot keep
//! it. What the [`Locks`](crate::Locks) do about forks is in `forks.rs`.

use std::fs::File;
use std::path::Path;

use am_layout::guard::GUARD_BYTES;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, off_t};

use crate::error::Error;

/// Bytes of a file that are locked together; they may lie beyond its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: off_t,
    /// Zero means all bytes from `start` on.
    len: off_t,
}

impl Span {
    /// The init guard.
    const GUARD: Self = Self { start: 0, len: GUARD_BYTES as off_t };
    /// Of a bell: who listens holds it for as long as it lives.
    pub(crate) const LISTENER: Self = Self { start: 16, len: 1 };
    /// Of a bell: held for a moment, by who takes the bell up or removes its name.
    pub(crate) const NAME: Self = Self { start: 17, len: 1 };
    /// All bytes that a lock can be on.
    pub(crate) const ALL: Self = Self { start: 0, len: 0 };

    /// A single byte behind the guard; `None` for the guard's, and beyond what files can have.
    pub(crate) fn byte(byte: u64) -> Option<Self> {
        let start = off_t::try_from(byte).ok()?;
        (byte >= GUARD_BYTES as u64).then_some(Self { start, len: 1 })
    }

    /// Tries to lock; never waits. False when another description holds any of it.
    ///
    /// `file` must be a description of its own: nothing may map it or duplicate it.
    pub(crate) fn try_lock(self, file: &File) -> Result<bool, Errno> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&self.flock(libc::F_WRLCK))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Gives up what `file`'s description holds of it.
    pub(crate) fn unlock(self, file: &File) -> Result<(), Errno> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&self.flock(libc::F_UNLCK))).map(drop)
    }

    /// Tells whether another description than `file`'s holds any of it.
    pub(crate) fn is_locked_elsewhere(self, file: &File) -> Result<bool, Errno> {
        // What would keep a reader out: a write lock, which needs write permission. Somebody who may
        // only read cannot pretend to be one of us.
        let mut flock = self.flock(libc::F_RDLCK);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut flock))?;
        Ok(c_int::from(flock.l_type) != libc::F_UNLCK)
    }

    /// The form that the kernel wants; `l_pid` must be zero for description locks.
    fn flock(self, kind: c_int) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.start,
            l_len: self.len,
            l_pid: 0,
        }
    }
}

/// The lock on the guard, held until dropped.
#[derive(Debug)]
pub(crate) struct GuardLock {
    file: File,
}

/// What came of trying to lock the guard.
pub(crate) enum Attempt {
    Taken(GuardLock),
    /// Somebody else holds it; the descriptor comes back.
    Held(File),
}

impl GuardLock {
    /// Tries to lock; never waits.
    ///
    /// `file` must be a description of its own: nothing may map it or duplicate it.
    pub(crate) fn try_take(file: File, path: &Path) -> Result<Attempt, Error> {
        match Span::GUARD.try_lock(&file) {
            Ok(true) => Ok(Attempt::Taken(Self { file })),
            Ok(false) => Ok(Attempt::Held(file)),
            Err(errno) => Err(Error::syscall("lock the init guard of", path, errno)),
        }
    }

    /// The locked file, for asking about it; do not map it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for GuardLock {
    fn drop(&mut self) {
        // Unlocking one's own range has no way to fail that closing would not put right.
        let _ = Span::GUARD.unlock(&self.file);
    }
}

/// Tells whether another description than `file`'s holds the lock on the guard.
pub(crate) fn is_held(file: &File, path: &Path) -> Result<bool, Error> {
    Span::GUARD
        .is_locked_elsewhere(file)
        .map_err(|errno| Error::syscall("query the lock of", path, errno))
}
