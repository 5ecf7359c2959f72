//! The segment: the one type that programs hold.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, InitError};
use crate::file::Identity;
use crate::guard;
use crate::hugepages::{self, Advised, Hugepages};
use crate::init::{self, Existing, Opened};
use crate::mapping::Mapping;
use crate::memfd;
use crate::options::Options;
use crate::place::{Place, Target};
use crate::prefault::prefault;
use crate::wait::Bell;

/// A segment: one file, formatted and mapped shared.
///
/// Dropping it closes the file; the memory stays mapped while a [`Mapping`] lives, and the file
/// exists until somebody [destroys](Self::destroy) it. All functions here may block on the file
/// system; `create`, `open_or_create`, `open`, `attach` and `destroy` also wait for another
/// process, at most [`Options::wait`].
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    file: File,
    place: Option<PathBuf>,
    /// Names the segment in errors.
    label: PathBuf,
    advised: Advised,
    #[cfg(feature = "numa")]
    pub(crate) bound: Vec<crate::Bound>,
    formatted_here: bool,
    options: Options,
}

impl Segment {
    /// Makes a segment where none exists, and has `format` fill it.
    ///
    /// `format` gets the whole mapping, all zeroes behind the guard, and is called exactly once,
    /// with no other process looking at anything but the guard. It must leave the guard alone. If
    /// it fails or panics, the file is removed again; it must not have kept the mapping then.
    ///
    /// # Errors
    /// [`InitError::Format`] with the closure's own error; otherwise [`Error::Exists`], or what
    /// the place, the options or the kernel make impossible.
    pub fn create<E>(
        place: &Place,
        options: &Options,
        format: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<Self, InitError<E>> {
        Self::make(place, options, Existing::Refuse, format)
    }

    /// Opens the segment at `place`, or makes it: of all processes that come at once, exactly one
    /// formats, and the others wait for it.
    ///
    /// If the formatter dies half-way, one of those who wait takes over: it sets the file back to
    /// zeroes and formats anew. A [`Place::Memfd`] is always a new one. See
    /// [`create`](Self::create) for `format`; when it fails, a file that another process created
    /// stays behind unfinished, for the next one to take over.
    ///
    /// # Errors
    /// [`InitError::Format`] with the closure's own error; [`Error::FormatterStalled`] when
    /// another process formats for too long; one variant for each thing wrong with an existing
    /// file, which is never overwritten.
    pub fn open_or_create<E>(
        place: &Place,
        options: &Options,
        format: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<Self, InitError<E>> {
        Self::make(place, options, Existing::Accept, format)
    }

    /// Opens a segment that exists; waits while a live process formats it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::FormatterStalled`] when another process formats for too
    /// long; [`Error::HalfFormatted`] or [`Error::Empty`] when its formatter died; one variant for
    /// each other thing wrong with the file; [`Error::NotNamed`] for a [`Place::Memfd`].
    pub fn open(place: &Place, options: &Options) -> Result<Self, Error> {
        match place.resolve()? {
            Target::Memfd(name) => Err(Error::NotNamed { path: memfd_label(&name) }),
            Target::Path(path) => {
                let opened = init::open(&path, options)?;
                Ok(Self::new(opened, Some(path.clone()), path, options))
            }
        }
    }

    /// Maps the segment behind a descriptor that came from elsewhere, over a socket or by
    /// inheritance. The descriptor must be open for reading and writing.
    ///
    /// The file may be any segment; one whose size is not [sealed](Self::sealed) is only as safe
    /// as those who can write to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn attach(fd: OwnedFd, options: &Options) -> Result<Self, Error> {
        let label = PathBuf::from(format!("descriptor {}", fd.as_raw_fd()));
        let opened = init::attach(File::from(fd), &label, options)?;
        Ok(Self::new(opened, None, label, options))
    }

    /// The mapped bytes. A clone keeps them mapped when the segment is dropped.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The file, to pass it on. Do not take locks on this descriptor: the mapping keeps its
    /// description alive, and with it the locks. [`locks`](Self::locks) has one of its own.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The absolute path of the file; `None` for a memfd or an attached descriptor.
    #[must_use]
    pub fn place(&self) -> Option<&Path> {
        self.place.as_deref()
    }

    /// Whether this call formatted the segment; false when it was found ready.
    #[must_use]
    pub fn formatted_here(&self) -> bool {
        self.formatted_here
    }

    /// How often a formatter died and another began anew before the segment became ready.
    #[must_use]
    pub fn takeovers(&self) -> u32 {
        guard::takeovers(&self.mapping)
    }

    /// Whether the kernel keeps everybody from making the file shorter. True for every
    /// [`Place::Memfd`]; false for files with a name, which have no seals.
    #[must_use]
    pub fn sealed(&self) -> bool {
        memfd::is_sealed(&self.file)
    }

    /// Which huge pages the segment has and what came of [`Options::pages`], as the kernel tells it
    /// now. May read `/proc`, which takes the longer the more this process has mapped.
    #[must_use]
    pub fn hugepages(&self) -> Hugepages {
        hugepages::report(self.advised, &self.mapping, &self.file)
    }

    /// Enters every page in this process's page tables, and makes those that the file lacks, so
    /// that no later touch is a page fault. Changes no byte; others may be at work meanwhile.
    ///
    /// The kernel may still take pages away (swap, a file cut short), and each process has page
    /// tables of its own. [`residence`](Self::residence) tells how much is mapped. On Linux before
    /// 5.14 the pages are reserved and then read, so that on a disk's file system the first write
    /// to each is still a fault.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::NoHugePages`] when there are not enough pages, and nothing
    /// is undone; [`Error::Truncated`] when somebody cut the file short.
    ///
    /// ```
    /// use am_shm::{Options, Place, Segment};
    ///
    /// let options = Options { size_bytes: 1 << 20, ..Options::default() };
    /// let place = Place::Memfd("warm".into());
    /// let segment = Segment::create(&place, &options, |_| Ok::<(), ()>(())).unwrap();
    /// segment.prefault()?;
    /// assert_eq!(segment.residence()?.mapped_bytes, 1 << 20);
    /// # Ok::<(), am_shm::Error>(())
    /// ```
    pub fn prefault(&self) -> Result<(), Error> {
        prefault(&self.mapping, &self.file, &self.label)
    }

    /// Removes the file's name, if it still means this very file. Existing mappings live on; the
    /// memory goes with the last of them. The [bells](crate::Bell) of dead readers go too.
    ///
    /// Of several processes that destroy at once, one succeeds, and a file newly made under the
    /// same name meanwhile is safe.
    ///
    /// # Errors
    /// [`Error::NotNamed`] for a memfd or an attached descriptor; [`Error::AlreadyGone`] when the
    /// name is gone or means another file; [`Error::FormatterStalled`] when another process holds
    /// the guard's lock for too long.
    pub fn destroy(&self) -> Result<(), Error> {
        let Some(path) = &self.place else {
            return Err(Error::NotNamed { path: self.label.clone() });
        };
        init::remove(path, Identity::of(&self.file, path)?, &self.options)?;
        Bell::sweep(path);
        Ok(())
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Names the segment in errors.
    pub(crate) fn label(&self) -> &Path {
        &self.label
    }

    fn make<E>(
        place: &Place,
        options: &Options,
        existing: Existing,
        format: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<Self, InitError<E>> {
        match place.resolve()? {
            Target::Memfd(name) => {
                let label = memfd_label(&name);
                let opened = memfd::create(&name, &label, options, format)?;
                Ok(Self::new(opened, None, label, options))
            }
            Target::Path(path) => {
                let opened = init::create(&path, options, existing, format)?;
                Ok(Self::new(opened, Some(path.clone()), path, options))
            }
        }
    }

    fn new(opened: Opened, place: Option<PathBuf>, label: PathBuf, options: &Options) -> Self {
        Self {
            mapping: opened.mapping,
            file: opened.file,
            place,
            label,
            advised: opened.advised,
            #[cfg(feature = "numa")]
            bound: opened.bound,
            formatted_here: opened.formatted_here,
            options: options.clone(),
        }
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn memfd_label(name: &str) -> PathBuf {
    PathBuf::from(format!("memfd:{name}"))
}
