//! AtomicMatrix itself, through either of its raw interfaces.

use std::ptr::NonNull;

use anyhow::{Context, Result};
use atomic_matrix::matrix::core::{AtomicMatrix, BlockHeader, MatrixHandler, RelativePtr};
use atomic_matrix::{Matrix, Offset, SectorStats};
use uuid::Uuid;

use crate::heap::Heap;

/// Distance from a block's header to its payload.
const HEADER_BYTES: u64 = 32;
/// Percent of the segment for small and medium blocks; the rest is for large ones.
const SPLIT: (u8, u8) = (40, 30);
/// Broken invariants that a report names; of more, only the number.
const VIOLATIONS_SHOWN: usize = 3;

/// A matrix through the 0.1 calls: `allocate(base, bytes)`, `ack(header, base)`.
pub struct Ours {
    handler: MatrixHandler,
}

impl Ours {
    /// Creates a matrix whose split gives `small` and `medium` percent to those sectors.
    ///
    /// # Errors
    /// The matrix' own refusal.
    pub fn with_split(id: Uuid, segment_bytes: usize, split: (u8, u8)) -> Result<Self> {
        let handler = AtomicMatrix::bootstrap(Some(id), segment_bytes, split)
            .with_context(|| format!("cannot create a matrix of {segment_bytes} bytes"))?;
        Ok(Self { handler })
    }
}

impl Heap for Ours {
    /// The payload's offset from the base, in bytes.
    type Block = u64;

    fn create(id: Uuid, segment_bytes: usize) -> Result<Self> {
        Self::with_split(id, segment_bytes, SPLIT)
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        let block = self.handler.matrix.allocate(self.handler.mmap.as_ptr(), bytes).ok()?;
        Some(block.offset())
    }

    #[inline(always)]
    fn payload(&self, block: Self::Block) -> NonNull<u8> {
        let address = self.handler.mmap.as_ptr().cast_mut().wrapping_add(block as usize);
        NonNull::new(address).expect("a mapping does not reach address zero")
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        let header = RelativePtr::<BlockHeader>::new(block - HEADER_BYTES);
        self.handler.matrix.ack(&header, self.handler.mmap.as_ptr()).is_ok()
    }

    fn audit(&self) -> Vec<String> {
        audit(self.handler.matrix.as_matrix())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        destroy(self.handler.matrix.as_matrix());
    }
}

/// A matrix through `Matrix::allocate_offset` and `Matrix::ack`.
pub struct OursOffset {
    matrix: Matrix,
}

impl Heap for OursOffset {
    type Block = Offset;

    fn create(id: Uuid, segment_bytes: usize) -> Result<Self> {
        let matrix = Matrix::builder()
            .size(segment_bytes as u64)
            .split(SPLIT.0, SPLIT.1)
            .create(&id.to_string())
            .with_context(|| format!("cannot create a matrix of {segment_bytes} bytes"))?;
        Ok(Self { matrix })
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        self.matrix.allocate_offset(bytes).ok()
    }

    #[inline(always)]
    fn payload(&self, block: Self::Block) -> NonNull<u8> {
        // As a user of raw offsets does it: one addition, no check.
        let base = self.matrix.mapping().as_ptr().cast_mut();
        NonNull::new(base.wrapping_add(block.bytes() as usize))
            .expect("a mapping does not reach address zero")
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, _bytes: usize) -> bool {
        self.matrix.ack(block).is_ok()
    }

    fn audit(&self) -> Vec<String> {
        audit(&self.matrix)
    }
}

impl Drop for OursOffset {
    fn drop(&mut self) {
        destroy(&self.matrix);
    }
}

/// Lists broken invariants, and blocks that are still allocated although all were freed.
fn audit(matrix: &Matrix) -> Vec<String> {
    let violations = matrix.check();
    let mut faults: Vec<String> =
        violations.iter().take(VIOLATIONS_SHOWN).map(ToString::to_string).collect();
    if violations.len() > VIOLATIONS_SHOWN {
        faults.push(format!("{} violations in all", violations.len()));
    }
    let lost: u64 = matrix.stats().sectors.iter().map(SectorStats::live_blocks).sum();
    if lost != 0 {
        faults.push(format!("{lost} blocks are still allocated although all were freed"));
    }
    faults
}

fn destroy(matrix: &Matrix) {
    if let Err(error) = matrix.destroy() {
        eprintln!("cannot remove the matrix: {error}");
    }
}
