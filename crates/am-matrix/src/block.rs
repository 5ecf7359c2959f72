//! Guards: blocks that one owner holds, and whose drop acks them.

use crate::error::Error;
use crate::matrix::Matrix;
use am_layout::{LEN_MAX, Offset, VALUE_BITS};
use bytemuck::Pod;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A block that this value owns alone: a byte buffer in the segment.
///
/// Dropping it gives the block back. [`into_offset`](Self::into_offset) gives it away instead, to
/// whoever calls [`Matrix::from_offset`] with the offset, in this process or another. A block whose
/// guard is forgotten goes back when the matrix's last handle in this process is dropped, and so does
/// every block when the process dies.
pub struct Block<'m> {
    matrix: &'m Matrix,
    payload: NonNull<u8>,
    len: usize,
    place: Place,
}

/// Where a block lies: known to its guard, so that nothing in the segment need be believed for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u64);

impl Place {
    /// A block of `len` granules at `granule`. In one number, so that it moves as one.
    #[inline]
    pub(crate) fn new(sector: usize, granule: u32, len: u32) -> Self {
        Self(u64::from(granule) | u64::from(len) << 32 | (sector as u64) << (32 + VALUE_BITS))
    }

    /// Granule of the head.
    #[inline]
    pub(crate) fn granule(self) -> u32 {
        self.0 as u32
    }

    /// Number of the sector.
    #[inline]
    pub(crate) fn sector(self) -> usize {
        (self.0 >> (32 + VALUE_BITS)) as usize
    }

    /// Length in granules.
    #[inline]
    pub(crate) fn len(self) -> u32 {
        (self.0 >> 32) as u32 & LEN_MAX
    }
}

// SAFETY: the block owns its bytes as a `Box<[u8]>` does.
unsafe impl Send for Block<'_> {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Block<'_> {}

impl<'m> Block<'m> {
    #[inline]
    pub(crate) fn of(matrix: &'m Matrix, payload: NonNull<u8>, len: usize, place: Place) -> Self {
        Self { matrix, payload, len, place }
    }

    /// Returns where the payload lies, the same in every mapping.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.matrix.offset_of(self.place)
    }

    /// Returns how many bytes the block could hold without moving, at least its length.
    #[must_use]
    pub fn usable_size(&self) -> usize {
        self.matrix.usable_bytes_at(self.place)
    }

    /// The handle that the block came from.
    #[inline]
    pub(crate) fn matrix(&self) -> &'m Matrix {
        self.matrix
    }

    /// Where the block lies.
    #[inline(always)]
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Where the block lies, for who frees it by other means.
    #[inline(always)]
    pub(crate) fn into_place(self) -> Place {
        ManuallyDrop::new(self).place
    }

    #[inline]
    pub(crate) fn belongs_to(&self, matrix: &Matrix) -> bool {
        std::ptr::eq(self.matrix.arena(), matrix.arena())
    }

    /// Gives the block away: it stays until somebody takes or acks the offset.
    ///
    /// If a peer scribbled on the block's head, or a child of fork gives its parent's block, nothing
    /// is given: whoever tries to take the offset gets the error.
    #[must_use = "the block stays until this offset is taken or acked"]
    pub fn into_offset(self) -> Offset {
        let block = ManuallyDrop::new(self);
        if let Err(Error::Corrupt { .. }) = block.matrix.give(block.place, block.len) {
            block.matrix.count_corrupt(block.place);
        }
        block.offset()
    }

    /// Makes the block `bytes` long if a block of that length has just as many granules; false, and nothing
    /// is changed, otherwise.
    #[doc(hidden)]
    #[inline]
    pub fn fit(&mut self, bytes: usize) -> bool {
        let geometry = &self.matrix.part_of(self.place).geometry;
        let fits = geometry.granules_for(bytes.max(1) as u64) == Some(self.place.len());
        if fits {
            self.len = bytes;
        }
        fits
    }

    /// Gives the block back, and reports what a drop cannot.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a peer scribbled on the block's head; the block is lost then.
    #[inline]
    pub fn free(self) -> Result<(), Error> {
        let block = ManuallyDrop::new(self);
        if block.matrix.park_small(block.place) { Ok(()) } else { block.matrix.free(block.place) }
    }

    /// Makes the block `bytes` long in place, if it has room or its right neighbour is free.
    ///
    /// The bytes added hold whatever lay there before. Blocks are carved from the end of free
    /// memory, so the right neighbour is mostly an older block: expect this to work where a
    /// neighbour was freed, or after a [`shrink`](Self::shrink), and rarely otherwise.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when it would have to move, [`Error::Corrupt`] when a peer scribbled on the
    /// block's head; nothing is changed then.
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.len {
            self.place = self.matrix.grow(self.place, bytes as u64)?;
            self.len = bytes;
        }
        Ok(())
    }

    /// Makes the block `bytes` long (at least 1) in place; whole granules behind it go back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a peer scribbled on the block's head.
    pub fn shrink(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes < self.len {
            self.place = self.matrix.shrink(self.place, bytes as u64)?;
            self.len = bytes;
        }
        Ok(())
    }
}

impl Deref for Block<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the payload lies inside the arena, which the matrix keeps alive; the block is
        // held, so nobody else accesses it; mapped bytes are always initialised.
        unsafe { std::slice::from_raw_parts(self.payload.as_ptr(), self.len) }
    }
}

impl DerefMut for Block<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.payload.as_ptr(), self.len) }
    }
}

impl Drop for Block<'_> {
    // By value: were the guard's address passed, it would have to lie in memory wherever it might be
    // dropped, and every move of it would wait for its fields to be stored.
    #[inline(always)]
    fn drop(&mut self) {
        // A child of fork drops its copy of a guard here; the block stays its parent's.
        self.matrix.release(self.place);
    }
}

impl std::fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}, {} bytes)", self.offset(), self.len)
    }
}

/// A value of a plain-old-data type in a block of its own: a `Box` in the segment.
pub struct TypedBlock<'m, T: Pod> {
    block: Block<'m>,
    _value: PhantomData<T>,
}

impl<'m, T: Pod> TypedBlock<'m, T> {
    pub(crate) fn of(block: Block<'m>) -> Result<Self, Error> {
        let expected_bytes = size_of::<T>() as u64;
        if block.len as u64 != expected_bytes || !block.payload.cast::<T>().is_aligned() {
            let (offset, bytes) = (block.offset(), block.len as u64);
            // Not ours to free: it goes back to being given away.
            let block = ManuallyDrop::new(block);
            let _ = block.matrix.give(block.place, block.len);
            return Err(Error::WrongSize { offset, bytes, expected_bytes });
        }
        Ok(Self { block, _value: PhantomData })
    }

    /// Returns where the value lies, the same in every mapping.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.block.offset()
    }

    /// Gives the block away, as [`Block::into_offset`].
    #[must_use = "the block stays until this offset is taken or acked"]
    pub fn into_offset(self) -> Offset {
        self.block.into_offset()
    }

    /// Returns the block as bytes.
    #[must_use]
    pub fn into_block(self) -> Block<'m> {
        self.block
    }
}

impl<T: Pod> Deref for TypedBlock<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        bytemuck::from_bytes(&self.block[..size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for TypedBlock<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        bytemuck::from_bytes_mut(&mut self.block[..size_of::<T>()])
    }
}

impl<T: Pod + std::fmt::Debug> std::fmt::Debug for TypedBlock<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TypedBlock").field(&**self).finish()
    }
}
