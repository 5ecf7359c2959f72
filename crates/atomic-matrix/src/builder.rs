//! Making and opening a matrix in a segment.

use crate::handle::Matrix;
use am_matrix::{Arena, Liveness, Spill, plan};
use am_shm::{InitError, Locks, Mapping, Options, Place, Segment};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Why a matrix could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file: missing, foreign, half-written, not permitted, no space …
    #[error(transparent)]
    Segment(#[from] am_shm::Error),
    /// The size or the split cannot work, or the segment's geometry is corrupt.
    #[error(transparent)]
    Matrix(#[from] am_matrix::Error),
    /// Other users may write to the segment, and [`Builder::trust_peers`] was not called.
    #[error("mode {mode:#o} lets other users write to the segment: `trust_peers` if that is meant")]
    OpenToOthers {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The segment exists already with another size or split.
    #[error(
        "the segment exists with {existing_bytes} bytes, {existing_split:?} percent; \
         asked for were {requested_bytes} bytes, {requested_split:?}"
    )]
    Mismatch {
        /// Size of the segment there is, in bytes.
        existing_bytes: u64,
        /// Its small and medium percentages.
        existing_split: (u8, u8),
        /// The size asked for, in bytes.
        requested_bytes: u64,
        /// The percentages asked for.
        requested_split: (u8, u8),
    },
}

impl From<InitError<am_matrix::Error>> for OpenError {
    fn from(error: InitError<am_matrix::Error>) -> Self {
        match error {
            InitError::Segment(error) => Self::Segment(error),
            InitError::Format(error) => Self::Matrix(error),
        }
    }
}

/// Settings for a matrix in a segment, and the calls that make or open one.
///
/// ```
/// use atomic_matrix::Matrix;
///
/// let name = format!("builder-example-{}", std::process::id());
/// let matrix = Matrix::builder().size(8 << 20).split(60, 20).create(&name)?;
/// let again = Matrix::builder().open(&name)?; // the same memory, mapped once more
/// let offset = matrix.allocate(1000)?.into_offset();
/// assert_eq!(again.from_offset(offset)?.len(), 1000);
/// matrix.destroy()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    options: Options,
    split: (u8, u8),
    spill: Spill,
}

impl Default for Builder {
    fn default() -> Self {
        Self { options: Options::default(), split: (40, 30), spill: Spill::Off }
    }
}

impl Builder {
    /// Sets the size of the whole segment in bytes; below 128 GiB. Default 64 MiB.
    pub fn size(mut self, size_bytes: u64) -> Self {
        self.options.size_bytes = size_bytes;
        self
    }

    /// Sets the percentages of the small and the medium sector; the large one gets the rest.
    /// Default (40, 30). A sector of 0 % is absent, and its requests go to the next.
    pub fn split(mut self, small_percent: u8, medium_percent: u8) -> Self {
        self.split = (small_percent, medium_percent);
        self
    }

    /// Allocates every page when the segment is made, so that a full file system is an error then
    /// and not a `SIGBUS` at some later write. Default off.
    pub fn reserve(mut self, reserve: bool) -> Self {
        self.options.reserve = reserve;
        self
    }

    /// Asks for transparent huge pages; [`Matrix::hugepages`] tells what came of it. Default off.
    pub fn hugepages(mut self, hugepages: bool) -> Self {
        self.options.hugepages = hugepages;
        self
    }

    /// Sets where a request goes when its sector is full. Default nowhere. Not stored in the
    /// segment: each handle has its own.
    pub fn spill(mut self, spill: Spill) -> Self {
        self.spill = spill;
        self
    }

    /// Sets how long to wait for another process that is formatting. Default 10 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait = wait;
        self
    }

    /// Lets processes of other users take part: a segment that this call makes gets the permission
    /// bits `mode`, exactly, whatever the umask; one that exists keeps its own, and is opened even if
    /// another user owns it or others may write to it. Without it a segment is made with `0o600`, and
    /// such ones are refused.
    ///
    /// Every member needs it, the owner too. Give read and write together or not at all: who may only
    /// read cannot take part, but can keep others from entering, by locks. The file's group is the
    /// maker's; to choose another, change it by the path after making the segment.
    ///
    /// # Safety
    /// Every process that may open the segment writes to it by this library only, and does not cut
    /// its file short. One that does otherwise can change the bytes under a guard in this process,
    /// make two guards show the same bytes, or end this process by a `SIGBUS`; see the trust section
    /// of the crate's documentation. Processes of one's own user can do all that anyway.
    pub unsafe fn trust_peers(mut self, mode: u32) -> Self {
        self.options.mode = mode;
        self.options.any_owner = true;
        self
    }

    /// Makes `/dev/shm/<name>`, which must not exist.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is left behind.
    pub fn create(self, name: &str) -> Result<Matrix, OpenError> {
        self.create_in(&Place::Shm(name.into()))
    }

    /// Opens `/dev/shm/<name>`, which must exist; it has its own size and split.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed.
    pub fn open(self, name: &str) -> Result<Matrix, OpenError> {
        self.open_in(&Place::Shm(name.into()))
    }

    /// Opens `/dev/shm/<name>`, or makes it: of any number of callers exactly one does.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Mismatch`] when it exists with another size or split.
    pub fn open_or_create(self, name: &str) -> Result<Matrix, OpenError> {
        self.open_or_create_in(&Place::Shm(name.into()))
    }

    /// Makes the file `path`, as [`create`](Self::create).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_at(self, path: impl Into<PathBuf>) -> Result<Matrix, OpenError> {
        self.create_in(&Place::Path(path.into()))
    }

    /// Opens the file `path`, as [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(self, path: impl Into<PathBuf>) -> Result<Matrix, OpenError> {
        self.open_in(&Place::Path(path.into()))
    }

    /// Opens or makes the file `path`, as [`open_or_create`](Self::open_or_create).
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open_or_create_at(self, path: impl Into<PathBuf>) -> Result<Matrix, OpenError> {
        self.open_or_create_in(&Place::Path(path.into()))
    }

    /// Makes a segment without a name; pass its descriptor ([`AsFd`](std::os::fd::AsFd)) on for others to
    /// [`attach`](Self::attach). It is sealed: nobody can cut it short.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn memfd(self, label: &str) -> Result<Matrix, OpenError> {
        self.create_in(&Place::Memfd(label.into()))
    }

    /// Attaches to a segment by a descriptor that was passed to this process.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed.
    pub fn attach(self, fd: OwnedFd) -> Result<Matrix, OpenError> {
        let segment = Segment::attach(fd, &self.options)?;
        self.finish(segment)
    }

    fn create_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let segment = Segment::create(place, &self.options, self.formatter()?)?;
        self.finish(segment)
    }

    fn open_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let segment = Segment::open(place, &self.options)?;
        self.finish(segment)
    }

    fn open_or_create_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let segment = Segment::open_or_create(place, &self.options, self.formatter()?)?;
        let (size_bytes, split) = (self.options.size_bytes, self.split);
        let matrix = self.finish(segment)?;
        let geometry = matrix.geometry();
        let existing_split = (geometry.small_percent, geometry.medium_percent);
        if geometry.size_bytes != size_bytes || existing_split != split {
            return Err(OpenError::Mismatch {
                existing_bytes: geometry.size_bytes,
                existing_split,
                requested_bytes: size_bytes,
                requested_split: split,
            });
        }
        Ok(matrix)
    }

    /// Plans the segment before any file is touched; returns what formats it.
    fn formatter(
        &self,
    ) -> Result<impl FnOnce(&Mapping) -> Result<(), am_matrix::Error> + use<>, OpenError> {
        let geometry = plan(self.options.size_bytes, self.split.0, self.split.1)?;
        Ok(move |mapping: &Mapping| {
            am_matrix::Matrix::format(arena(mapping), &geometry)?;
            Ok(())
        })
    }

    fn finish(self, segment: Segment) -> Result<Matrix, OpenError> {
        if !self.options.any_owner {
            // Whatever the file's name allows now: of a memfd, its descriptors are what matters.
            let named = segment.place().and_then(|path| path.symlink_metadata().ok());
            let mode = named.map_or(0, |meta| meta.permissions().mode() & 0o777);
            if mode & 0o022 != 0 {
                return Err(OpenError::OpenToOthers { mode });
            }
        }
        let liveness = Box::new(SegmentLocks(segment.locks()?));
        let core = am_matrix::Matrix::attach_with(arena(segment.mapping()), liveness)?;
        Ok(Matrix::new(core.with_spill(self.spill), segment))
    }
}

/// A segment's locks, as the matrix asks for them.
struct SegmentLocks(Locks);

// SAFETY: the locks are the kernel's, on a description of their own, which only the making process has:
// a child's fork handler closes its copy, and one that runs no handlers only makes them last longer.
// They fall when the last descriptor is closed, after the last thread has left user mode. The word lies
// in a page that the kernel wipes at fork.
unsafe impl Liveness for SegmentLocks {
    fn try_lock(&self, byte: u64) -> io::Result<bool> {
        self.0.try_lock(byte)
    }

    fn unlock(&self, byte: u64) -> io::Result<()> {
        self.0.unlock(byte)
    }

    fn is_locked_elsewhere(&self, byte: u64) -> io::Result<bool> {
        self.0.is_locked_elsewhere(byte)
    }

    fn alive(&self) -> &AtomicU32 {
        self.0.alive()
    }
}

fn arena(mapping: &Mapping) -> Arena {
    let base = NonNull::new(mapping.as_mut_ptr()).expect("a mapping is not at address 0");
    // SAFETY: the mapping is page-aligned, readable and writable over its length, and the arena
    // keeps it alive. This process reaches it only through matrices. That others write to it only
    // by this library is what opening a segment trusts its users' permissions for.
    unsafe { Arena::new(base, mapping.len(), Box::new(mapping.clone())) }
}
