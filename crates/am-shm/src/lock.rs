//! The lock on the guard's bytes: who holds it formats, or removes the name.
//!
//! It is an open-file-description write lock. The kernel drops it when the last descriptor of its
//! description is closed, so when its holder dies, in whatever PID namespace. Two descriptions
//! conflict even within one process, so threads exclude each other as processes do. `mmap` and
//! `fork` keep a description alive, therefore the lock sits on one of its own that is never mapped,
//! and is given up explicitly: a child forked meanwhile by another thread cannot keep it.

use std::fs::File;
use std::io;
use std::path::Path;

use am_layout::guard::GUARD_BYTES;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::Error;

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct GuardLock {
    file: File,
}

/// What came of trying to lock.
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
        let range = guard_range(libc::F_WRLCK);
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
            Ok(_) => Ok(Attempt::Taken(Self { file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(Attempt::Held(file)),
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
        let range = guard_range(libc::F_UNLCK);
        // Unlocking one's own range has no way to fail that closing would not put right.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range));
    }
}

/// Tells whether another description than `file`'s holds the lock.
pub(crate) fn is_held(file: &File, path: &Path) -> Result<bool, Error> {
    let mut range = guard_range(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range))
        .map_err(|errno| Error::syscall("query the lock of", path, io::Error::from(errno)))?;
    Ok(libc::c_int::from(range.l_type) != libc::F_UNLCK)
}

/// The guard's bytes, as the kernel wants them; `l_pid` must be zero for description locks.
fn guard_range(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: GUARD_BYTES as libc::off_t,
        l_pid: 0,
    }
}
