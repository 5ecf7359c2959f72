//! AtomicMatrix itself, through guards and through raw offsets.

use std::ptr::NonNull;

use anyhow::{Context, Result};
use atomic_matrix::{Block, Matrix, Offset, SectorStats, Spill};

use crate::heap::{Account, Heap, Sectors, Setup};

/// Broken invariants that a report names; of more, only the number.
const VIOLATIONS_SHOWN: usize = 3;

/// A matrix and its file, which goes with it.
struct Segment(Matrix);

impl Segment {
    fn create(setup: &Setup) -> Result<Self> {
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
            .create(&setup.id.to_string())
            .with_context(|| format!("cannot create a matrix of {bytes} bytes"))?;
        Ok(Self(matrix))
    }

    fn account(&self) -> Account {
        let sectors = self.0.stats().sectors;
        Account {
            free_bytes: sectors.iter().map(|sector| sector.free_bytes).sum(),
            largest_bytes: sectors.iter().map(|s| s.largest_free_bytes).max().unwrap_or(0),
        }
    }

    /// Lists broken invariants, and blocks that are still in use although all were freed.
    fn audit(&self) -> Vec<String> {
        let violations = self.0.check();
        let mut faults: Vec<String> =
            violations.iter().take(VIOLATIONS_SHOWN).map(ToString::to_string).collect();
        if violations.len() > VIOLATIONS_SHOWN {
            faults.push(format!("{} violations in all", violations.len()));
        }
        let lost: u64 = self.0.stats().sectors.iter().map(SectorStats::live_blocks).sum();
        if lost != 0 {
            faults.push(format!("{lost} blocks are still allocated although all were freed"));
        }
        faults
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Err(error) = self.0.destroy() {
            eprintln!("cannot remove the matrix: {error}");
        }
    }
}

/// A matrix through `Matrix::allocate`, whose guards free their blocks.
pub struct Guards(Segment);

impl Heap for Guards {
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
        self.0.audit()
    }
}

/// A matrix through `Matrix::allocate_offset` and `Matrix::ack`.
pub struct Offsets(Segment);

impl Heap for Offsets {
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
        self.0.0.ack(block).is_ok()
    }

    fn own_account(&self) -> Option<Account> {
        Some(self.0.account())
    }

    fn audit(&self) -> Vec<String> {
        self.0.audit()
    }
}
