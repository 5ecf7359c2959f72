//! Making and opening a matrix in a segment.

use crate::handle::Matrix;
#[cfg(feature = "numa")]
use crate::numa::Outcome;
#[cfg(feature = "numa")]
use am_matrix::SectorId;
use am_matrix::{Arena, Geometry, Liveness, Spill, plan};
use am_shm::{InitError, Locks, Mapping, Options, Pages, Place, Segment};
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
    /// A NUMA node was asked for a sector that has no share of the segment.
    #[cfg(feature = "numa")]
    #[error("the {sector} sector has 0 percent of the segment: it cannot be bound to a NUMA node")]
    NoSuchSector {
        /// The sector.
        sector: SectorId,
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
    thread_caches: bool,
    #[cfg(feature = "numa")]
    wishes: crate::numa::Wishes,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            options: Options::default(),
            split: (40, 30),
            spill: Spill::Off,
            thread_caches: true,
            #[cfg(feature = "numa")]
            wishes: Default::default(),
        }
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

    /// Allocates every page of the file when the segment is made, so that a full file system is an
    /// error then and not a `SIGBUS` at some later write. Default off. A segment that exists is left
    /// as it is.
    ///
    /// The pages exist then, for everybody; each process still meets a page fault at its first touch
    /// of each of them. That is what [`prefault`](Self::prefault) is for.
    pub fn reserve(mut self, reserve: bool) -> Self {
        self.options.reserve = reserve;
        self
    }

    /// Enters every page in this process's page tables when the segment is made or opened, so that no
    /// touch of it is a page fault at first; makes those that the file lacks, and changes no byte.
    /// Default off. [`Matrix::residence`] tells how much is mapped.
    ///
    /// Not enough pages is an error of making or opening. The kernel may take pages out of the tables
    /// later, for swap. On Linux before 5.14 the pages are reserved and then read, so that on a disk's
    /// file system the first write to each is still a fault.
    ///
    /// ```
    /// use atomic_matrix::Matrix;
    ///
    /// let matrix = Matrix::builder().size(8 << 20).prefault(true).memfd("warm")?;
    /// assert_eq!(matrix.residence()?.mapped_bytes, 8 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.options.prefault = prefault;
        self
    }

    /// Sets which pages to have; [`Matrix::hugepages`] tells what came of it. Default
    /// [`Pages::Default`], what the place gives.
    ///
    /// [`Pages::Transparent`] is a wish and never an error. [`Pages::Huge`] is a promise: for a
    /// [`memfd`](Self::memfd), or a file on a hugetlbfs mount ([`create_at`](Self::create_at)), whose
    /// [`size`](Self::size) must be a multiple of the page's; else, or when the kernel has too few
    /// such pages, making and opening fail with an error that says so.
    ///
    /// ```
    /// use atomic_matrix::{Hugepages, Matrix, OpenError, Pages, SegmentError};
    ///
    /// match Matrix::builder().size(64 << 20).pages(Pages::HUGE_2_MIB).memfd("fast") {
    ///     Ok(matrix) => assert_eq!(matrix.hugepages(), Hugepages::Huge { page_bytes: 2 << 20 }),
    ///     // How many pages it takes, how many are free, and which file sets their number.
    ///     Err(OpenError::Segment(error @ SegmentError::NoHugePages { .. })) => println!("{error}"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    pub fn pages(mut self, pages: Pages) -> Self {
        self.options.pages = pages;
        self
    }

    /// Has the pages of a sector, its blocks' and its words', come from one NUMA node and from no
    /// other; by the number in `/sys/devices/system/node`. Feature `numa`. Default: from the node of
    /// whoever touches a page first.
    ///
    /// Counts for pages that do not exist yet: all but the first when the segment is made. A page that
    /// two sectors share goes with the first; with huge pages that is a large part of a small segment.
    /// In `/dev/shm`, on a hugetlbfs and for a memfd it counts for everybody who uses the segment, and
    /// as long as the file exists; on a disk's file system the kernel does not follow it.
    /// [`Matrix::nodes`] tells what the kernel said and where the pages lie.
    ///
    /// A node that is not there is an error. A kernel without NUMA, or one that lets this process bind
    /// nothing, is not: that is reported. A node without memory left ends as a machine without memory
    /// does, unless [`reserve`](Self::reserve) or [`prefault`](Self::prefault) finds it out first.
    ///
    /// ```
    /// use atomic_matrix::{Matrix, SectorId};
    ///
    /// let matrix = Matrix::builder()
    ///     .size(8 << 20)
    ///     .numa(SectorId::Small, 0)
    ///     .numa(SectorId::Large, 0)
    ///     .prefault(true)
    ///     .memfd("near")?;
    /// for told in matrix.nodes()? {
    ///     println!("{}: {:?}, pages on {:?}", told.sector, told.bound, told.nodes.bytes_on);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "numa")]
    pub fn numa(mut self, sector: SectorId, node: u32) -> Self {
        self.wishes.set(sector, node);
        self
    }

    /// Whether each thread keeps blocks that it freed for its own next requests (default: yes).
    ///
    /// A setting of this handle, not of the segment: handles with and without may use it together. See
    /// [`am_matrix::Matrix::with_thread_caches`].
    pub fn thread_caches(mut self, thread_caches: bool) -> Self {
        self.thread_caches = thread_caches;
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
        let segment = Segment::attach(fd, &self.options_to_open())?;
        self.finish(segment)
    }

    fn create_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let geometry = self.plan()?;
        let segment =
            Segment::create(place, &self.options_to_make(&geometry), formatter(geometry))?;
        self.finish(segment)
    }

    fn open_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let segment = Segment::open(place, &self.options_to_open())?;
        self.finish(segment)
    }

    fn open_or_create_in(self, place: &Place) -> Result<Matrix, OpenError> {
        let geometry = self.plan()?;
        let segment =
            Segment::open_or_create(place, &self.options_to_make(&geometry), formatter(geometry))?;
        let core = self.enter(&segment)?;
        let existing = core.geometry();
        let existing_split = (existing.small_percent, existing.medium_percent);
        if existing.size_bytes != self.options.size_bytes || existing_split != self.split {
            return Err(OpenError::Mismatch {
                existing_bytes: existing.size_bytes,
                existing_split,
                requested_bytes: self.options.size_bytes,
                requested_split: self.split,
            });
        }
        self.settle(core, segment)
    }

    /// Plans the segment before any file is touched.
    fn plan(&self) -> Result<Geometry, OpenError> {
        let geometry = plan(self.options.size_bytes, self.split.0, self.split.1)?;
        #[cfg(feature = "numa")]
        self.require_wished(&geometry)?;
        Ok(geometry)
    }

    #[cfg(not(feature = "numa"))]
    fn options_to_make(&self, _: &Geometry) -> Options {
        self.options.clone()
    }

    #[cfg(not(feature = "numa"))]
    fn options_to_open(&self) -> Options {
        self.options.clone()
    }

    fn finish(self, segment: Segment) -> Result<Matrix, OpenError> {
        let core = self.enter(&segment)?;
        self.settle(core, segment)
    }

    /// Becomes a participant.
    fn enter(&self, segment: &Segment) -> Result<am_matrix::Matrix, OpenError> {
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
        Ok(core.with_spill(self.spill).with_thread_caches(self.thread_caches))
    }

    /// Does what is left to do when the geometry is known and right.
    fn settle(self, core: am_matrix::Matrix, segment: Segment) -> Result<Matrix, OpenError> {
        #[cfg(feature = "numa")]
        let outcome = self.bind(&segment, core.geometry())?;
        Ok(Matrix::new(
            core,
            segment,
            #[cfg(feature = "numa")]
            outcome,
        ))
    }
}

#[cfg(feature = "numa")]
impl Builder {
    fn require_wished(&self, geometry: &Geometry) -> Result<(), OpenError> {
        match self.wishes.absent(geometry) {
            Some(sector) => Err(OpenError::NoSuchSector { sector }),
            None => Ok(()),
        }
    }

    /// Where the segment may turn out to exist: its sectors are bound once its geometry is known, and
    /// prefaulted after that. What is made here is reserved instead, so that a lack of pages is still
    /// an error before there is a segment.
    fn options_to_make(&self, geometry: &Geometry) -> Options {
        let mut options = self.options_to_open();
        options.bind = self.wishes.bindings(geometry);
        options.reserve |= self.options.prefault && !options.prefault;
        options
    }

    fn options_to_open(&self) -> Options {
        let prefault = self.options.prefault && self.wishes.is_empty();
        Options { prefault, ..self.options.clone() }
    }

    /// Binds the sectors of a segment that existed, and tells what came of it, or of what its
    /// formatter bound; then prefaults what was put off until here.
    fn bind(&self, segment: &Segment, geometry: &Geometry) -> Result<Outcome, OpenError> {
        if self.wishes.is_empty() {
            return Ok(Outcome::default());
        }
        self.require_wished(geometry)?;
        let outcome = match segment.formatted_here() {
            true => self.wishes.formatted(segment),
            false => self.wishes.bind(segment, geometry)?,
        };
        if self.options.prefault {
            segment.prefault()?;
        }
        Ok(outcome)
    }
}

/// Formats a new segment as planned.
fn formatter(geometry: Geometry) -> impl FnOnce(&Mapping) -> Result<(), am_matrix::Error> {
    move |mapping| {
        am_matrix::Matrix::format(arena(mapping), &geometry)?;
        Ok(())
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
