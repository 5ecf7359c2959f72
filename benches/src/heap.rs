//! What a peer has to offer to be measured.

use std::ptr::NonNull;

use anyhow::Result;
use uuid::Uuid;

/// A general-purpose allocator under test.
///
/// The measured loops are generic over it, so no call in them is dynamic.
pub trait Heap: Sized {
    /// What names a block: a pointer, or an offset into a segment.
    type Block: Copy;

    /// Creates an empty heap.
    ///
    /// `id` names the shared-memory file of peers that need one; `segment_bytes` is the size of the
    /// segment or arena. Private heaps that take their memory from the system ignore both.
    ///
    /// # Errors
    /// The peer's own refusal, such as no space for the segment.
    fn create(id: Uuid, segment_bytes: usize) -> Result<Self>;

    /// Allocates a block of at least `bytes` bytes; `None` when the heap refuses.
    fn alloc(&self, bytes: usize) -> Option<Self::Block>;

    /// Returns where the block's payload begins.
    fn payload(&self, block: Self::Block) -> NonNull<u8>;

    /// Frees a block; `false` when the heap refuses.
    ///
    /// # Safety
    /// `block` came from [`Heap::alloc`] of this heap with the same `bytes`, was not freed since,
    /// and nobody uses its payload any more.
    unsafe fn free(&self, block: Self::Block, bytes: usize) -> bool;

    /// Lists what is wrong with a heap whose blocks were all freed and whose threads have ended.
    ///
    /// Empty where the peer offers no such check.
    fn audit(&self) -> Vec<String> {
        Vec::new()
    }
}
