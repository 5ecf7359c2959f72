//! Memory for the peers that manage a region handed to them.

use std::ptr::NonNull;

use anyhow::{Context, Result};
use memmap2::MmapMut;

/// A private, zeroed, lazily populated mapping.
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
    _mapping: MmapMut,
}

// SAFETY: the mapping may be used and unmapped from any thread, and `start` is only a number here:
// whoever dereferences it answers for that.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared Arena offers nothing but its address and length.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `bytes` bytes, page-aligned.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn map(bytes: usize) -> Result<Self> {
        let mut mapping = MmapMut::map_anon(bytes).context("cannot map the arena")?;
        let start = NonNull::new(mapping.as_mut_ptr()).context("the arena is mapped at null")?;
        Ok(Self { start, bytes, _mapping: mapping })
    }

    /// Returns the first byte's address.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the whole region.
    pub fn region(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.bytes)
    }
}
