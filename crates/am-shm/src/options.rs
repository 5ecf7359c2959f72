//! How a segment is made and opened.

use std::time::Duration;

use am_layout::guard::GUARD_BYTES;

use crate::error::Error;
use crate::pages::Pages;

/// Most bytes that one mapping can have.
const SIZE_BYTES_MAX: u64 = isize::MAX as u64;

/// How a segment is made and opened.
///
/// `size_bytes`, `mode`, `reserve` and (feature `numa`) `bind` are used by whoever formats; an
/// existing segment keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of the whole segment, guard included, in bytes: 16 to `isize::MAX`. Default 64 MiB.
    pub size_bytes: u64,
    /// Permission bits of the file, set exactly, whatever the umask: within `0o777`, and at least
    /// `0o600`. Default `0o600`.
    pub mode: u32,
    /// Allocate all pages of the file when the segment is made, so that a full file system is
    /// [`Error::NoSpace`] then and not a `SIGBUS` at some later write. Default off: pages come as
    /// they are first touched.
    ///
    /// The file has its pages then, for everybody; each process still meets a page fault at its
    /// first touch of each of them, which [`prefault`](Self::prefault) spares it.
    pub reserve: bool,
    /// Enter all pages in this process's page tables when the segment is made or opened, as
    /// [`Segment::prefault`](crate::Segment::prefault) does. Default off.
    pub prefault: bool,
    /// Which pages to have, transparent huge ones or the pool's;
    /// [`Segment::hugepages`](crate::Segment::hugepages) tells what came of it. Default
    /// [`Pages::Default`]: what the place gives.
    pub pages: Pages,
    /// Ranges of bytes to bind to NUMA nodes before any of their pages is touched, as
    /// [`Segment::bind`](crate::Segment::bind) does; [`Segment::bound`](crate::Segment::bound)
    /// tells what came of it. Default none.
    #[cfg(feature = "numa")]
    pub bind: Vec<crate::Binding>,
    /// How long to wait for another process's formatting. Default 10 s; zero means not at all.
    pub wait: Duration,
    /// Also accept a file of another user. Such a user can change or truncate the file at any
    /// time, and truncation under a mapping is a `SIGBUS` for its users. Default off.
    pub any_owner: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size_bytes: 64 << 20,
            mode: 0o600,
            reserve: false,
            prefault: false,
            pages: Pages::Default,
            #[cfg(feature = "numa")]
            bind: Vec::new(),
            wait: Duration::from_secs(10),
            any_owner: false,
        }
    }
}

impl Options {
    /// Checks what only a formatter uses, before anything is made.
    pub(crate) fn check_for_format(&self) -> Result<(), Error> {
        check_size(self.size_bytes)?;
        if self.mode & !0o777 != 0 || self.mode & 0o600 != 0o600 {
            return Err(Error::BadMode { mode: self.mode });
        }
        Ok(())
    }
}

/// Checks that `size_bytes` holds a guard and can be mapped; returns it as a `usize`.
pub(crate) fn check_size(size_bytes: u64) -> Result<usize, Error> {
    let min_bytes = GUARD_BYTES as u64;
    match usize::try_from(size_bytes) {
        Ok(len) if (min_bytes..=SIZE_BYTES_MAX).contains(&size_bytes) => Ok(len),
        _ => Err(Error::SizeOutOfRange { size_bytes, min_bytes, max_bytes: SIZE_BYTES_MAX }),
    }
}
