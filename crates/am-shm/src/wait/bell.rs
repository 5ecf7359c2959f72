//! The end of a bell that listens.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

use crate::error::Error;
use crate::file;
use crate::forks::Hidden;
use crate::lock::Span;

use super::fifo::{self, NameLock};

/// Most often that a bell is made anew because others remove its name meanwhile.
const RESTARTS_MAX: u32 = 1_000;
/// Room for rings not yet drained, in bytes: one page, the least there is.
const PIPE_BYTES: usize = 4096;
/// Most reads of one `drain`: what a pipe holds that could not be made small, four times over.
const READS_MAX: usize = 64;

/// A descriptor that becomes readable when some process [rings](super::Ringer::ring): for readers
/// that wait in `poll`, `epoll` or an async runtime for several things at once.
///
/// A bell is named after its segment, a topic and a number of the reader's: whoever knows the three
/// rings it. Wait until it is readable, [`drain`](Self::drain) it, and look until there is nothing
/// more, in this order; then no ring is lost. Rings are not counted: many may be one.
///
/// # What it is
///
/// A named pipe beside the segment's file, `SEGMENT.TOPIC.READER.bell`, and a lock on it that says
/// that its reader lives.
///
/// - An eventfd would be cheaper, but has no name: unrelated processes could share it only over a
///   socket that they had already. An abstract socket has a name, but no permissions.
/// - Only processes of the same user can ring or listen: the pipe has mode 0600, and another
///   user's is refused. Segments without a name (memfds) have no bells.
/// - Both ends hold the pipe open for reading and writing, so `poll` never reports a hang-up to the
///   reader, and no ringer ever gets a `SIGPIPE`.
/// - Dropping the bell removes the file. That of a reader that was killed is removed by the next one
///   who rings it, who listens at any bell of the segment, or who destroys the segment; or it is taken
///   up again by a reader of the same name.
/// - A forked child's copy is not the child's: it refuses to drain, and leaves the file alone. A
///   child made without fork handlers (a raw `clone`) keeps the bell alive until it execs or exits.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("am-shm-bell-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("orders");
/// use am_shm::{Bell, Ringer};
///
/// let bell = Bell::listen(&path, "eu", 7)?;     // `path` is the segment's
/// let ringer = Ringer::open(&path, "eu", 7)?;   // in any process of the same user
///
/// ringer.ring()?;
/// assert!(bell.drain()?);
/// assert!(!bell.drain()?);
///
/// drop(bell);
/// assert!(ringer.ring().is_err());              // nobody listens
/// # std::fs::remove_dir(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Bell {
    /// What is polled and read; a child may have a copy.
    pipe: File,
    /// What bears the lock; no child has a copy.
    listening: Hidden,
    path: PathBuf,
}

impl Bell {
    /// Listens at the bell `reader` of `topic`, and removes bells of the same segment whose readers
    /// are dead.
    ///
    /// `segment` is the path of the segment's file ([`Segment::place`](crate::Segment::place)), which
    /// is not opened. What was rung before is forgotten: look once after this. The topic's name is
    /// of any text, as long as the file's name does not exceed 255 bytes.
    ///
    /// May wait for another process that takes up or removes the same bell, a second at most.
    ///
    /// # Errors
    /// [`Error::BellTaken`] when somebody listens at it already; [`Error::BadTopic`];
    /// [`Error::NotABell`] or [`Error::ForeignOwner`] when the name is something else's;
    /// [`Error::Unsettled`]; [`Error::Syscall`].
    pub fn listen(segment: &Path, topic: &str, reader: u32) -> Result<Self, Error> {
        let path = fifo::path_of(segment, topic, reader)?;
        Self::sweep(segment);
        for _ in 0..RESTARTS_MAX {
            let Some(pipe) = fifo::open_or_make(&path)? else { continue };
            let lock = NameLock::take(&pipe, &path)?;
            if lock.is_named()? {
                return Self::take_up(pipe, &path);
            }
        }
        Err(Error::Unsettled { path, times: RESTARTS_MAX })
    }

    /// Becomes the listener of a pipe; the caller holds the lock on its name.
    fn take_up(pipe: File, path: &Path) -> Result<Self, Error> {
        let reopen = || file::reopen(&pipe, Some(path), path);
        let listening = Hidden::open(path, reopen)?;
        let fail = |cause| Error::syscall("lock", path, cause);
        let lock = listening.file().ok_or_else(|| fail(inherited()))?;
        if !Span::LISTENER.try_lock(lock).map_err(|errno| fail(errno.into()))? {
            return Err(Error::BellTaken { path: path.into() });
        }
        // A wish: a bell works in whatever room there is.
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        let bell = Self { pipe, listening, path: path.into() };
        bell.drain()?;
        Ok(bell)
    }

    /// Takes all rings so far; tells whether there were any. Never waits.
    ///
    /// # Errors
    /// [`Error::Syscall`], in a forked child with "inherited by fork".
    pub fn drain(&self) -> Result<bool, Error> {
        let fail = |cause| Error::syscall("drain the bell", &self.path, cause);
        if self.listening.file().is_none() {
            return Err(fail(inherited()));
        }
        let mut rings = [0; PIPE_BYTES];
        let mut rung = false;
        // Bounded, for others may ring all the time. It is readable still, then.
        for _ in 0..READS_MAX {
            match (&self.pipe).read(&mut rings) {
                Ok(0) => break,
                Ok(_) => rung = true,
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(fail(cause)),
            }
        }
        Ok(rung)
    }

    /// The bell's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the bells of a segment whose readers are dead; returns how many. What cannot be
    /// removed is left alone. Reads the folder of the segment's file.
    pub fn sweep(segment: &Path) -> usize {
        let Some((folder, name)) = fifo::split(segment) else { return 0 };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let bells = entries.filter(|entry| fifo::is_bell_of(&name, &entry.file_name()));
        bells.filter(|entry| bury_if_dead(&entry.path()).unwrap_or(false)).count()
    }
}

fn bury_if_dead(path: &Path) -> Result<bool, Error> {
    match fifo::open(path)? {
        // Without a lock first, so that sweeping does not get in the way of the living.
        Some(pipe) if !fifo::has_listener(&pipe, path)? => fifo::bury(&pipe, path),
        _ => Ok(false),
    }
}

fn inherited() -> io::Error {
    io::Error::other("this bell was inherited by fork: it is the parent's")
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("path", &self.path).field("pipe", &self.pipe).finish()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let Some(listening) = self.listening.file() else { return };
        // First the name, so that no file is left without a listener. What fails here is left for
        // the next one to sweep.
        let lock = NameLock::take(&self.pipe, &self.path);
        let _ = lock.as_ref().map(NameLock::unlink);
        // Closing would do, but for a child that is forked just before and keeps a copy.
        let _ = Span::ALL.unlock(listening);
    }
}
