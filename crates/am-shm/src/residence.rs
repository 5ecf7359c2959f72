//! Which of a segment's pages exist, and which this process has in its page tables.

use crate::error::Error;
use crate::file;
use crate::segment::Segment;
use crate::smaps::Smaps;

/// Where the bytes of a segment are, as the kernel tells it now.
///
/// Two things are told apart. That a page of the *file* exists is what
/// [`Options::reserve`](crate::Options::reserve) sees to: it is everybody's, and no write to it can
/// meet a full file system. That it is *mapped*, an entry in the page tables of this process, is
/// what [`Options::prefault`](crate::Options::prefault) sees to: its first use costs no page fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Residence {
    /// Size of the file's pages, in bytes: `KernelPageSize` of `/proc/self/smaps`. Transparent huge
    /// pages do not show here, but in `huge_bytes`.
    pub page_bytes: u64,
    /// Bytes of the file that exist, in whole pages: the blocks that its file system counts. On a
    /// disk, blocks that hold the file's map count too.
    pub allocated_bytes: u64,
    /// Bytes that are in this process's page tables, in whole pages.
    pub mapped_bytes: u64,
    /// Those of the mapped bytes that lie in huge pages, transparent ones or the pool's.
    pub huge_bytes: u64,
}

impl Segment {
    /// Tells where the bytes of the segment are. Reads `/proc`, which takes the longer the more
    /// this process has mapped.
    ///
    /// # Errors
    /// [`Error::Syscall`] when `/proc` is not mounted, or the file cannot be asked.
    pub fn residence(&self) -> Result<Residence, Error> {
        let told = Smaps::of(self.mapping())
            .map_err(|cause| Error::syscall("read /proc/self/smaps for", self.label(), cause))?;
        Ok(Residence {
            page_bytes: told.page_bytes,
            allocated_bytes: file::allocated_bytes(self.file(), self.label())?,
            mapped_bytes: told.mapped_bytes,
            huge_bytes: told.huge_bytes,
        })
    }
}
