//! What can go wrong, one variant per observed state.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use am_layout::guard::VERSION;

use crate::pool::{self, HugePool};

/// Why a segment could not be made, opened or destroyed.
///
/// `path` is the segment's file. What has no name is described instead: `memfd:NAME` for a memfd,
/// `descriptor N` for an attached descriptor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of a segment or memfd cannot be used.
    #[error("{name:?} is no name for a segment: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The requested size cannot be mapped.
    #[error(
        "a segment of {size_bytes} bytes cannot be made: the size must be {min_bytes} to {max_bytes} bytes"
    )]
    SizeOutOfRange {
        /// The size asked for, in bytes.
        size_bytes: u64,
        /// The smallest size, in bytes: the guard's.
        min_bytes: u64,
        /// The largest size, in bytes: `isize::MAX`.
        max_bytes: u64,
    },
    /// The requested file mode is not usable.
    #[error("mode {mode:#o} cannot be used: it must lie within 0o777 and hold 0o600")]
    BadMode {
        /// The mode asked for.
        mode: u32,
    },
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The segment's file.
        path: PathBuf,
    },
    /// `create` met a file that exists already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The segment's file.
        path: PathBuf,
    },
    /// The name means something else than a regular file; symbolic links are not followed.
    #[error("{} is a {kind}, not a regular file", path.display())]
    NotARegularFile {
        /// The segment's file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// The file belongs to another user, and [`Options::any_owner`](crate::Options::any_owner) is
    /// off.
    #[error("{} belongs to user {uid}, not to this process's user", path.display())]
    ForeignOwner {
        /// The segment's file.
        path: PathBuf,
        /// Owner of the file.
        uid: u32,
    },
    /// The file is empty: its creator died before it began to format.
    #[error("{} is empty: nobody has formatted it", path.display())]
    Empty {
        /// The segment's file.
        path: PathBuf,
    },
    /// The file is not empty, but shorter than the guard.
    #[error("{} has only {len_bytes} bytes, less than an init guard", path.display())]
    Truncated {
        /// The segment's file.
        path: PathBuf,
        /// Length of the file, in bytes.
        len_bytes: u64,
    },
    /// The file's magic is not ours.
    #[error("{} is not a segment: its magic is {seen:#010x}", path.display())]
    NotASegment {
        /// The segment's file.
        path: PathBuf,
        /// The magic word found.
        seen: u32,
    },
    /// The file is a segment of another layout version.
    #[error("{} has layout version {seen}, this program reads {expected}", path.display())]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// The version found.
        seen: u32,
        /// The version this crate reads.
        expected: u32,
    },
    /// The guard's state word holds no legal value.
    #[error("{} has a corrupt init guard: its state is {seen}", path.display())]
    CorruptGuard {
        /// The segment's file.
        path: PathBuf,
        /// The state word found.
        seen: u32,
    },
    /// The formatter died or failed half-way, and `open` has no closure to format anew with.
    #[error("{} is half formatted: its formatter died or failed", path.display())]
    HalfFormatted {
        /// The segment's file.
        path: PathBuf,
        /// How often a formatter was replaced before.
        takeovers: u32,
    },
    /// Another process has held the guard's lock for all the time that the caller would wait.
    #[error("another process has held the init guard of {} for {waited:?}", path.display())]
    FormatterStalled {
        /// The segment's file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
    },
    /// The name was replaced by another file again and again.
    #[error("{} was replaced {times} times while it was being opened", path.display())]
    Unsettled {
        /// The segment's file.
        path: PathBuf,
        /// How often this call began anew.
        times: u32,
    },
    /// The segment lies on huge pages, and is not a whole number of them.
    #[error(
        "{} lies on pages of {page_bytes} bytes, and {size_bytes} bytes are no multiple of that; \
         the next one is {}", path.display(), size_bytes.next_multiple_of(*page_bytes)
    )]
    NotWholePages {
        /// The segment's file.
        path: PathBuf,
        /// The size asked for, in bytes.
        size_bytes: u64,
        /// Size of one page, in bytes.
        page_bytes: u64,
    },
    /// The kernel has no huge pages of that size.
    #[error("the kernel has no huge pages of {page_bytes} bytes; it has sizes {known:?}")]
    NoSuchPages {
        /// The size of a page asked for, in bytes.
        page_bytes: u64,
        /// The sizes it has, in bytes; empty when it does not tell.
        known: Vec<u64>,
    },
    /// The file lies on other pages than were asked for ([`Pages::Huge`](crate::Pages::Huge)).
    #[error(
        "{} has pages of {page_bytes} bytes, and not {}: these are to be had as a memfd, or on a \
         hugetlbfs mount", path.display(), asked(*asked_bytes)
    )]
    OtherPages {
        /// The segment's file.
        path: PathBuf,
        /// The size of a huge page asked for, in bytes; `None` when any would do.
        asked_bytes: Option<u64>,
        /// Size of the file's pages, in bytes.
        page_bytes: u64,
    },
    /// The kernel's pool has too few huge pages for the segment, or the mount allows too few.
    #[error(
        "the {requested_bytes} bytes of {} take {} huge pages of {} bytes: {pool}",
        path.display(), requested_bytes.div_ceil(pool.page_bytes), pool.page_bytes
    )]
    NoHugePages {
        /// The segment's file.
        path: PathBuf,
        /// Size of the segment, in bytes.
        requested_bytes: u64,
        /// What the pool has.
        pool: Box<HugePool>,
    },
    /// The file system has no room for the segment, or the machine no memory.
    #[error("no space for the {requested_bytes} bytes of {}", path.display())]
    NoSpace {
        /// The segment's file.
        path: PathBuf,
        /// Size of the segment, in bytes.
        requested_bytes: u64,
    },
    /// A range of bytes is reversed, or does not lie within the segment.
    #[cfg(feature = "numa")]
    #[error("{range:?} is no range of the {len_bytes} bytes of {}", path.display())]
    BadRange {
        /// The segment's file.
        path: PathBuf,
        /// The range given, in bytes.
        range: std::ops::Range<u64>,
        /// Length of the segment, in bytes.
        len_bytes: u64,
    },
    /// There is no such NUMA node, or it has no memory that this process may use.
    #[cfg(feature = "numa")]
    #[error(
        "pages of {} cannot come from NUMA node {node}: nodes with memory are {with_memory}",
        path.display()
    )]
    NoSuchNode {
        /// The segment's file.
        path: PathBuf,
        /// The node asked for.
        node: u32,
        /// The nodes with memory, as the kernel lists them (`0-1,3`).
        with_memory: String,
    },
    /// The segment has no name: it is a memfd or an attached descriptor.
    #[error("{} has no name in the file system", path.display())]
    NotNamed {
        /// Describes the segment.
        path: PathBuf,
    },
    /// The name is gone, or means another file by now.
    #[error("{} is gone, or is another file by now", path.display())]
    AlreadyGone {
        /// The segment's file.
        path: PathBuf,
    },
    /// The topic's name cannot be part of a bell's.
    #[error("topic {topic:?} can have no bell beside {}: {reason}", segment.display())]
    BadTopic {
        /// The segment's file.
        segment: PathBuf,
        /// The topic's name as given.
        topic: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bell's name means something else than a named pipe; symbolic links are not followed.
    #[error("{} is a {kind}, not the named pipe of a bell", path.display())]
    NotABell {
        /// The bell's file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// Another [`Bell`](crate::Bell) of this name is alive, in this process or in another.
    #[error("somebody else listens at {}", path.display())]
    BellTaken {
        /// The bell's file.
        path: PathBuf,
    },
    /// Nobody listens at the bell: its reader died or is gone, or never was.
    #[error("nobody listens at {}", path.display())]
    NobodyListens {
        /// The bell's file.
        path: PathBuf,
    },
    /// The kernel refused an operation.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Syscall {
        /// The operation, a verb phrase.
        operation: &'static str,
        /// The segment's file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
}

impl Error {
    pub(crate) fn syscall(
        operation: &'static str,
        path: &Path,
        cause: impl Into<io::Error>,
    ) -> Self {
        Self::Syscall { operation, path: path.into(), cause: cause.into() }
    }

    /// Like [`syscall`](Self::syscall), but a full file system has a variant of its own.
    pub(crate) fn space(
        operation: &'static str,
        path: &Path,
        requested_bytes: u64,
        cause: impl Into<io::Error>,
    ) -> Self {
        let cause = cause.into();
        match cause.kind() {
            io::ErrorKind::StorageFull => Self::NoSpace { path: path.into(), requested_bytes },
            _ => Self::syscall(operation, path, cause),
        }
    }

    /// Has a lack of huge pages for a part of the segment speak of all its `size_bytes`.
    pub(crate) fn of_whole(mut self, size_bytes: u64) -> Self {
        if let Self::NoHugePages { requested_bytes, .. } = &mut self {
            *requested_bytes = size_bytes;
        }
        self
    }

    pub(crate) fn no_such_pages(page_bytes: u64) -> Self {
        Self::NoSuchPages { page_bytes, known: pool::page_sizes() }
    }

    pub(crate) fn version(path: &Path, seen: u32) -> Self {
        Self::Version { path: path.into(), seen, expected: VERSION }
    }
}

fn asked(page_bytes: Option<u64>) -> String {
    page_bytes.map_or_else(|| "huge ones".into(), |bytes| format!("huge ones of {bytes}"))
}

/// Why a segment could not be made by a call that may format it: the segment's own trouble, or the
/// closure's.
#[derive(Debug, thiserror::Error)]
pub enum InitError<E> {
    /// The segment itself failed.
    #[error(transparent)]
    Segment(#[from] Error),
    /// The closure that formats failed; nothing is left that looks ready.
    #[error("the segment could not be formatted: {0}")]
    Format(E),
}
