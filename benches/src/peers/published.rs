//! atomic-matrix 0.4.1 as published. It hands out overlapping blocks and crashes, which is why
//! every cell runs in a process of its own.

use std::ptr::NonNull;

use anyhow::{Result, anyhow};
use published::core::handlers::{HandlerFunctions, MatrixHandler};
use published::core::matrix::helpers::HEADER_SPACE;
use published::core::matrix::{AtomicMatrix, BlockHeader, RelativePtr};

use crate::heap::{Setup, Shared};

/// One published matrix.
pub struct Published {
    handler: MatrixHandler,
}

impl Shared for Published {
    /// The payload's offset from the base, in bytes.
    type Block<'h> = u32;

    const FIXED: bool = true;

    fn create(setup: &Setup) -> Result<Self> {
        let handler = AtomicMatrix::bootstrap(Some(setup.id.to_string()), setup.segment_bytes)
            .map_err(|error| anyhow!("the published matrix cannot start: {error:?}"))?;
        Ok(Self { handler })
    }

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
        let bytes = u32::try_from(bytes).ok()?;
        let block = self.handler.matrix().allocate(self.handler.base_ptr(), bytes).ok()?;
        Some(block.offset())
    }

    #[inline(always)]
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
        let address = self.handler.base_ptr().cast_mut().wrapping_add(*block as usize);
        NonNull::new(address).expect("a mapping does not reach address zero")
    }

    #[inline(always)]
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
        let header = RelativePtr::<BlockHeader>::new(block - HEADER_SPACE);
        self.handler.matrix().ack(&header, self.handler.base_ptr());
        true
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // SAFETY: nobody else attached to this matrix.
        if let Err(error) = unsafe { self.handler.die() } {
            eprintln!("cannot remove the published matrix: {error:?}");
        }
    }
}
