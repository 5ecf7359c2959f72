//! The 32 bytes in front of every payload.

use crate::Word;

/// Size of a block header, in bytes.
pub const HEADER_BYTES: usize = 32;

/// Header of a block, directly before its payload, at the block's first granule.
///
/// Only the owner of the block touches it: the allocating thread before it publishes the head
/// word, the holder of the block, and the ripple after the block was acked. It carries no truth:
/// an overrun of the payload before it can spoil a hint, never the allocator.
#[repr(C)]
#[derive(Debug, Default)]
pub struct BlockHeader {
    /// Where the block to the left began when this one was carved: granule + 1, 0 for none. A hint.
    pub left: Word,
    /// Bytes of the payload that were asked for, low and high half.
    pub bytes: [Word; 2],
    /// Participant that holds the block; 0 for nobody: a common block, while its word says that it is held.
    pub owner: Word,
    /// What the layers above say of the payload; 0 for nothing.
    pub kind: Word,
    reserved: [Word; 3],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<BlockHeader>() == HEADER_BYTES);
