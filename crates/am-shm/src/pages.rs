//! Which pages a segment is to have, and which its file has.

use std::fs::File;
use std::path::Path;

use nix::libc;
use nix::sys::memfd::MFdFlags;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, sysconf};

use crate::error::Error;

/// Which pages a segment is to have.
///
/// ```
/// use am_shm::{Hugepages, Options, Pages, Place, Segment};
///
/// let options = Options { pages: Pages::Transparent, ..Options::default() };
/// let place = Place::Memfd("wish".into());
/// let segment = Segment::create(&place, &options, |_| Ok::<(), ()>(())).unwrap();
/// // A wish: whether it came true depends on the system's settings.
/// assert_ne!(segment.hugepages(), Hugepages::NotAsked);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pages {
    /// What the place gives unasked: huge pages on a hugetlbfs mount, small ones elsewhere.
    #[default]
    Default,
    /// Transparent huge pages (`MADV_HUGEPAGE`). A wish: the kernel uses small pages where its
    /// settings, the mount's, or a lack of contiguous memory say so.
    /// [`Segment::hugepages`](crate::Segment::hugepages) tells whether it may use huge ones, and
    /// [`Segment::residence`](crate::Segment::residence) how many bytes it did.
    Transparent,
    /// Huge pages from the kernel's pool (hugetlb), of so many bytes, or of whatever size the
    /// place has with `None`: for a memfd the system's default, for a path the mount's. A promise:
    /// every page is one of these, or making and opening fail.
    ///
    /// For a [`Place::Memfd`](crate::Place::Memfd), or a path on a hugetlbfs mount. The segment's
    /// size must be a multiple of the page's; the pages are set aside when the segment is mapped. A
    /// memfd of such pages, which is sealed as any other, needs Linux 4.16.
    Huge(Option<u64>),
}

impl Pages {
    /// Pages from the pool, of the place's own size.
    pub const HUGE: Self = Self::Huge(None);
    /// Pages from the pool, of 2 MiB.
    pub const HUGE_2_MIB: Self = Self::Huge(Some(2 << 20));
    /// Pages from the pool, of 1 GiB.
    pub const HUGE_1_GIB: Self = Self::Huge(Some(1 << 30));

    /// The flags that a memfd with such pages is made with.
    ///
    /// # Errors
    /// [`Error::NoSuchPages`] for a size that is no power of two.
    pub(crate) fn memfd_flags(self) -> Result<MFdFlags, Error> {
        let Self::Huge(asked) = self else { return Ok(MFdFlags::empty()) };
        let Some(page_bytes) = asked else { return Ok(MFdFlags::MFD_HUGETLB) };
        if !page_bytes.is_power_of_two() {
            return Err(Error::no_such_pages(page_bytes));
        }
        let size = page_bytes.trailing_zeros() << libc::MFD_HUGE_SHIFT;
        Ok(MFdFlags::MFD_HUGETLB | MFdFlags::from_bits_retain(size))
    }

    /// Requires that `found` are the pages asked for, if pages of the pool were.
    pub(crate) fn check(self, found: FilePages, path: &Path) -> Result<(), Error> {
        match self {
            Self::Huge(asked) if !found.huge || asked.is_some_and(|b| b != found.page_bytes) => {
                let (path, page_bytes) = (path.into(), found.page_bytes);
                Err(Error::OtherPages { path, asked_bytes: asked, page_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// The pages that a file consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilePages {
    /// Size of one, in bytes.
    pub(crate) page_bytes: u64,
    /// Whether they come from the kernel's pool: the file lies on a hugetlbfs.
    pub(crate) huge: bool,
}

impl FilePages {
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self, Error> {
        let stat = fstatfs(file)
            .map_err(|errno| Error::syscall("ask for the file system of", path, errno))?;
        if stat.filesystem_type() == HUGETLBFS_MAGIC {
            return Ok(Self { page_bytes: stat.block_size() as u64, huge: true });
        }
        Ok(Self { page_bytes: small_page_bytes() as u64, huge: false })
    }

    /// Requires that the pool's pages make up exactly `size_bytes`; small ones always will do.
    pub(crate) fn check_size(self, size_bytes: u64, path: &Path) -> Result<(), Error> {
        let page_bytes = self.page_bytes;
        match !self.huge || size_bytes.is_multiple_of(page_bytes) {
            true => Ok(()),
            false => Err(Error::NotWholePages { path: path.into(), size_bytes, page_bytes }),
        }
    }
}

/// Size of the machine's small page, in bytes.
pub(crate) fn small_page_bytes() -> usize {
    // Every Linux answers; 4096 is what it would say nearly everywhere.
    let told = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    told.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(4096)
}
