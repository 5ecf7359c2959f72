//! Locks by which processes tell each other that they are alive.

use std::io;
use std::sync::atomic::AtomicU32;

use am_layout::guard::GUARD_BYTES;

use crate::error::Error;
use crate::file;
use crate::forks::Hidden;
use crate::lock::Span;
use crate::segment::Segment;

/// Locks on single bytes of a segment's file: a process that holds one is alive.
///
/// Each value locks for itself: what one holds is locked elsewhere to every other, in this process
/// as in any other. Dropping it gives all its locks up, and so does the death of its process. See
/// [Who is alive](crate#who-is-alive) for what a lock tells and what forks do to it.
///
/// Which byte means what is the parties' agreement; the bytes need not exist, since a lock may lie
/// beyond the end of the file. Bytes 0 to 15 are the init guard's and are refused.
///
/// # Errors
/// All functions return [`io::ErrorKind::InvalidInput`] for a byte of the init guard or beyond
/// `i64::MAX`, [`io::ErrorKind::Other`] ("inherited by fork") in a child of the process that made
/// the value, and else what the kernel says.
#[derive(Debug)]
pub struct Locks {
    file: Hidden,
}

impl Segment {
    /// Makes [`Locks`] on this segment's file, on a description of their own.
    ///
    /// The file is opened anew: by its path while that means this very file, else through
    /// `/proc`, which also serves memfds, attached descriptors and files whose name is gone.
    ///
    /// # Errors
    /// [`Error::Syscall`] when the file can be opened neither way (`/proc` is not mounted, or the
    /// file's mode denies it), or the kernel cannot tell of forks (it is older than 4.14).
    pub fn locks(&self) -> Result<Locks, Error> {
        let open = || file::reopen(self.file(), self.place(), self.label());
        Ok(Locks { file: Hidden::open(self.label(), open)? })
    }
}

impl Locks {
    /// Tries to lock one byte; never waits. True when it is taken, or was ours already; false
    /// when others hold it.
    ///
    /// # Errors
    /// See [`Locks`].
    pub fn try_lock(&self, byte: u64) -> io::Result<bool> {
        self.on(byte, Span::try_lock)
    }

    /// Gives one byte up; also one that is not held, without effect.
    ///
    /// # Errors
    /// See [`Locks`].
    pub fn unlock(&self, byte: u64) -> io::Result<()> {
        self.on(byte, Span::unlock)
    }

    /// Tells whether others hold the byte: another process, or other `Locks` of this one.
    ///
    /// # Errors
    /// See [`Locks`].
    pub fn is_locked_elsewhere(&self, byte: u64) -> io::Result<bool> {
        self.on(byte, Span::is_locked_elsewhere)
    }

    /// The word that is 1 in the process that made this value, and 0 in every process forked from
    /// it, by whatever system call. Only to be read.
    ///
    /// A child that shares its parent's memory, between `vfork` and `exec`, reads 1.
    #[must_use]
    pub fn alive(&self) -> &AtomicU32 {
        self.file.alive()
    }

    fn on<T>(
        &self,
        byte: u64,
        act: impl Fn(Span, &std::fs::File) -> Result<T, nix::errno::Errno>,
    ) -> io::Result<T> {
        let file = self.file.file().ok_or_else(|| {
            io::Error::other("these locks were inherited by fork: they are the parent's")
        })?;
        let span = Span::byte(byte).ok_or_else(|| {
            let what = format!("byte {byte} cannot be locked: {GUARD_BYTES} to {} can", i64::MAX);
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        Ok(act(span, file)?)
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        // Closing would do, but for a child that is forked just before and keeps a copy.
        if let Some(file) = self.file.file() {
            let _ = Span::ALL.unlock(file);
        }
    }
}
