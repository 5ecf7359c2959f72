//! AtomicMatrix itself: through guards, through raw offsets, and through caches that threads hold.

use std::ptr::NonNull;

use anyhow::{Context, Result};
use atomic_matrix::{Block, Matrix, Offset, SectorStats, Spill, ThreadCache};

use crate::heap::{Access, Account, Heap, Sectors, Setup, Shared};

/// Broken invariants that a report names; of more, only the number.
const VIOLATIONS_SHOWN: usize = 3;

/// A matrix and its file, which goes with it.
pub struct Segment(pub Matrix);

impl Segment {
    /// Creates it as `setup` says.
    ///
    /// # Errors
    /// The matrix's own refusal.
    pub fn create(setup: &Setup) -> Result<Self> {
        let (split, spill) = match setup.sectors {
            Sectors::Usual => ((40, 30), Spill::Off),
            Sectors::Spilling => ((40, 30), Spill::Any),
            Sectors::Small => ((100, 0), Spill::Off),
            Sectors::Medium => ((0, 100), Spill::Off),
            Sectors::Large => ((0, 0), Spill::Off),
        };
        let bytes = setup.segment_bytes;
        let matrix = Matrix::builder()
            .size(bytes as u64)
            .split(split.0, split.1)
            .spill(spill)
            .thread_caches(setup.thread_caches)
            .create(&setup.id.to_string())
            .with_context(|| format!("cannot create a matrix of {bytes} bytes"))?;
        Ok(Self(matrix))
    }

    fn account(&self) -> Account {
        let sectors = self.0.stats().sectors;
        Account {
            free_bytes: sectors.iter().map(|s| s.free_bytes + s.cached_bytes).sum(),
            largest_bytes: sectors.iter().map(|s| s.largest_free_bytes).max().unwrap_or(0),
        }
    }

    /// Lists broken invariants, and says so when other than `live` blocks are in use.
    pub fn audit(&self, live: u64) -> Vec<String> {
        let violations = self.0.check();
        let mut faults: Vec<String> =
            violations.iter().take(VIOLATIONS_SHOWN).map(ToString::to_string).collect();
        if violations.len() > VIOLATIONS_SHOWN {
            faults.push(format!("{} violations in all", violations.len()));
        }
        let seen: u64 = self.0.stats().sectors.iter().map(SectorStats::live_blocks).sum();
        if seen != live {
            faults.push(format!("{seen} blocks are allocated and not {live}: all were freed"));
        }
        faults
    }
}

impl Segment {
    /// Removes the file; the mapping stays as long as the matrix.
    pub fn remove(&self) {
        if let Err(error) = self.0.destroy() {
            eprintln!("cannot remove the matrix: {error}");
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A matrix through `Matrix::allocate`, whose guards free their blocks.
pub struct Guards(Segment);

impl Shared for Guards {
    type Block<'h> = Block<'h>;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        Segment::create(setup).map(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        self.0.0.allocate(bytes).ok()
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        NonNull::from(&mut **block).cast()
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        // What a drop does, except that a refusal is seen.
        block.free().is_ok()
    }

    fn own_account(&self) -> Option<Account> {
        Some(self.0.account())
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit(0)
    }
}

/// A matrix through `Matrix::allocate_offset` and `Matrix::ack`, or `Matrix::ack_unshared`.
pub struct Offsets<const UNSHARED: bool>(Segment);

impl<const UNSHARED: bool> Shared for Offsets<UNSHARED> {
    type Block<'h> = Offset;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        Segment::create(setup).map(Self)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        self.0.0.allocate_offset(bytes).ok()
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        // As a user of raw offsets does it: one addition, no check.
        let base = self.0.0.mapping().as_ptr().cast_mut();
        NonNull::new(base.wrapping_add(block.bytes() as usize))
            .expect("a mapping does not reach address zero")
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        let matrix = &self.0.0;
        if UNSHARED {
            // SAFETY: the caller frees a live block, once; whoever had it before passed it on.
            unsafe { matrix.ack_unshared(block) }.is_ok()
        } else {
            matrix.ack(block).is_ok()
        }
    }

    fn own_account(&self) -> Option<Account> {
        Some(self.0.account())
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit(0)
    }
}

/// A matrix through a `ThreadCache` that every thread holds.
pub struct Caches(Segment);

impl Heap for Caches {
    type Access<'h> = ThreadCache<'h>;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        Segment::create(setup).map(Self)
    }

    fn enter(&self) -> Result<ThreadCache<'_>> {
        self.0.0.thread_cache().context("no cache for this thread")
    }

    fn own_account(&self) -> Option<Account> {
        Some(self.0.account())
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit(0)
    }
}

impl<'h> Access for ThreadCache<'h> {
    type Block = Block<'h>;

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        self.allocate(bytes).ok()
    }

    #[inline(always)]
    fn payload(&self, block: &mut Self::Block) -> NonNull<u8> {
        NonNull::from(&mut **block).cast()
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        // It cannot be refused; what is lost all the same, the audit finds.
        ThreadCache::free(self, block);
        true
    }
}
