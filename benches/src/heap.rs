//! What a peer has to offer to be measured.

use std::ptr::NonNull;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a heap is made for. Private heaps that take their memory from the system ignore it.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Names the shared-memory file of peers that need one.
    pub id: Uuid,
    /// Size of the segment or arena, in bytes.
    pub segment_bytes: usize,
    /// The largest request that will come, in bytes; for heaps of one fixed size.
    pub request_bytes_max: usize,
    /// How a matrix divides its segment.
    pub sectors: Sectors,
    /// Whether a matrix keeps caches for its threads; nothing to the other peers.
    pub thread_caches: bool,
}

/// How a matrix divides its segment; nothing to the other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sectors {
    /// 40 % small, 30 % medium, the rest large: the default
    #[default]
    Usual,
    /// As usual, but a full sector's requests go to any other
    Spilling,
    /// The small sector alone
    Small,
    /// The medium sector alone
    Medium,
    /// The large sector alone
    Large,
}

/// A block that is named by its address; whoever holds it may hand it to another thread.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub NonNull<u8>);

// SAFETY: an address is only a number here: whoever dereferences it answers for that.
unsafe impl Send for Address {}

impl Address {
    /// Makes an address of what a C allocator returned.
    #[inline(always)]
    pub fn of<T>(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self(pointer.cast()))
    }
}

/// An allocator under test, as the measurements see it: every thread enters it, and works through
/// what it gets there.
pub trait Heap: Sized + Sync {
    /// What one thread allocates and frees through: the heap itself, or a handle of the thread's own.
    type Access<'h>: Access
    where
        Self: 'h;

    /// Whether the heap manages a segment of the size it was told, and refuses when that is full.
    const FIXED: bool;

    /// Creates an empty heap.
    ///
    /// # Errors
    /// The peer's own refusal, such as no space for the segment.
    fn create(setup: &Setup) -> Result<Self>;

    /// Makes the calling thread known to the heap; called once before a thread's first block.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn enter(&self) -> Result<Self::Access<'_>>;

    /// Returns how many bytes are free, and how many of them in the largest free block, by the
    /// heap's own account; `None` where it keeps none.
    fn own_account(&self) -> Option<Account> {
        None
    }

    /// Lists what is wrong with a heap whose blocks were all freed and whose threads have ended.
    ///
    /// Empty where the peer offers no such check.
    fn audit(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One thread's way to a heap.
///
/// The measured loops are generic over it, so no call in them is dynamic.
pub trait Access {
    /// What names a block: a pointer, an offset into a segment, or a guard. Any thread may free it.
    type Block: Send;

    /// Allocates a block of at least `bytes` bytes; `None` when the heap refuses.
    fn alloc(&self, bytes: usize) -> Option<Self::Block>;

    /// Returns where the block's payload begins.
    fn payload(&self, block: &mut Self::Block) -> NonNull<u8>;

    /// Frees a block; `false` when the heap refuses.
    ///
    /// # Safety
    /// `block` came from [`Access::alloc`] of the same heap with the same `bytes`, was not freed
    /// since, and nobody uses its payload any more.
    unsafe fn free(&self, block: Self::Block, bytes: usize) -> bool;
}

/// What names a block of the heap `H`.
pub type BlockOf<'h, H> = <<H as Heap>::Access<'h> as Access>::Block;

/// A heap whose threads all call it directly; that makes it a [`Heap`].
pub trait Shared: Sized + Sync {
    /// As [`Access::Block`].
    type Block<'h>: Send
    where
        Self: 'h;

    /// As [`Heap::FIXED`].
    const FIXED: bool;

    /// As [`Heap::create`].
    ///
    /// # Errors
    /// The peer's own refusal.
    fn create(setup: &Setup) -> Result<Self>;

    /// Makes the calling thread known to the heap, where the heap wants that.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn register(&self) -> Result<()> {
        Ok(())
    }

    /// As [`Access::alloc`].
    fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>>;

    /// As [`Access::payload`].
    fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8>;

    /// As [`Access::free`].
    ///
    /// # Safety
    /// As there.
    unsafe fn free<'h>(&'h self, block: Self::Block<'h>, bytes: usize) -> bool;

    /// As [`Heap::own_account`].
    fn own_account(&self) -> Option<Account> {
        None
    }

    /// As [`Heap::audit`].
    fn audit(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<S: Shared> Heap for S {
    type Access<'h>
        = &'h S
    where
        S: 'h;

    const FIXED: bool = S::FIXED;

    fn create(setup: &Setup) -> Result<Self> {
        S::create(setup)
    }

    fn enter(&self) -> Result<&S> {
        self.register().map(|()| self)
    }

    fn own_account(&self) -> Option<Account> {
        Shared::own_account(self)
    }

    fn audit(&self) -> Vec<String> {
        Shared::audit(self)
    }
}

impl<'h, S: Shared> Access for &'h S {
    type Block = S::Block<'h>;

    #[inline(always)]
    fn alloc(&self, bytes: usize) -> Option<Self::Block> {
        S::alloc(*self, bytes)
    }

    #[inline(always)]
    fn payload(&self, block: &mut Self::Block) -> NonNull<u8> {
        S::payload(*self, block)
    }

    #[inline(always)]
    unsafe fn free(&self, block: Self::Block, bytes: usize) -> bool {
        // SAFETY: promised by the caller, in the same words.
        unsafe { S::free(*self, block, bytes) }
    }
}

/// Free memory by a heap's own account, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// In all free blocks.
    pub free_bytes: u64,
    /// In the largest.
    pub largest_bytes: u64,
}
