//! The mapped bytes of a segment.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use am_layout::Word;
use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;

use crate::error::Error;
use crate::pool;

/// The bytes of a segment, mapped shared, readable and writable.
///
/// A clone is another handle to the same mapping; the last one unmaps. The pointers are valid for
/// [`len`](Self::len) bytes while any handle lives, page aligned, and no reference to the bytes is
/// ever made by this crate except to [`Word`]s.
#[derive(Clone)]
pub struct Mapping {
    map: Arc<MmapRaw>,
}

#[expect(clippy::len_without_is_empty, reason = "a mapping always holds at least a guard")]
impl Mapping {
    /// Maps the first `len` bytes of `file`.
    pub(crate) fn new(file: &File, len: usize, path: &Path) -> Result<Self, Error> {
        let map = MmapOptions::new().len(len).map_raw(file).map_err(|cause| {
            // Of huge pages, the kernel sets all aside here.
            pool::lack(file, path, len as u64, cause, &[Errno::ENOMEM], |cause| {
                Error::syscall("map", path, cause)
            })
        })?;
        Ok(Self { map: Arc::new(map) })
    }

    /// Address of the first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// Address of the first byte, for writing.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Length of the mapping, in bytes; never zero.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Views `count` words from `offset_bytes` on.
    ///
    /// `None` when `offset_bytes` is not a multiple of four or the range does not lie within the
    /// mapping. The first [`GUARD_WORDS`](am_layout::guard::GUARD_WORDS) words are the init guard:
    /// read them, but leave writing to this crate.
    ///
    /// # Safety
    /// While the slice lives, these bytes are accessed through words (or other 32-bit atomics)
    /// only, in this process and in every other: nobody makes a reference to plain data in them.
    /// And the file is not made shorter than the range meanwhile, which is for the parties to
    /// agree on, or for a seal to enforce ([`Segment::sealed`](crate::Segment::sealed)).
    #[must_use]
    pub unsafe fn words(&self, offset_bytes: usize, count: usize) -> Option<&[Word]> {
        let len_bytes = count.checked_mul(size_of::<Word>())?;
        let end = offset_bytes.checked_add(len_bytes)?;
        if end > self.len() || !offset_bytes.is_multiple_of(align_of::<Word>()) {
            return None;
        }
        let first = self.as_ptr().wrapping_add(offset_bytes).cast::<Word>();
        // SAFETY: `first` is aligned, since the mapping begins at a page and the offset was
        // checked; the range lies within the mapping, which `self` keeps alive; any bytes are a
        // valid `Word`, a transparent `AtomicU32`; the caller vouches for the rest.
        Some(unsafe { std::slice::from_raw_parts(first, count) })
    }

    /// Advises the kernel about `len` bytes from `from` on, a multiple of the page size.
    pub(crate) fn advise(&self, advice: Advice, from: usize, len: usize) -> std::io::Result<()> {
        self.map.advise_range(advice, from, len)
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("ptr", &self.as_ptr()).field("len", &self.len()).finish()
    }
}
