//! A lock-free shared-memory allocator for any sizes, used by several processes at once.
//!
//! ```
//! use atomic_matrix::Matrix;
//!
//! let name = format!("example-{}", std::process::id());
//! let matrix = Matrix::builder().size(16 << 20).open_or_create(&name)?;
//!
//! let mut block = matrix.allocate(4000)?; // a buffer in shared memory; dropping it frees it
//! block[..3].copy_from_slice(b"hi!");
//! let offset = block.into_offset(); // ... or give it away: send these 4 bytes to another process
//!
//! let block = matrix.from_offset(offset)?; // there: the same bytes, nothing copied
//! assert_eq!(&block[..3], b"hi!");
//! drop(block);
//!
//! assert!(matrix.check().is_empty());
//! matrix.destroy()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`Matrix`] and its [`Builder`] are the interface for new code.
//! * [`matrix::core`] is the interface of version 0.1, word for word.
//! * The layers below are crates of their own, each usable alone: [`am_layout`] (words, offsets,
//!   geometry), [`am_tlsf`] (search and carve), [`am_ripple`] (ack and merge), [`am_shm`]
//!   (segments), [`am_matrix`] (the allocator over any arena).
//!
//! # Trust
//!
//! Whoever can open the segment's file can write to all of it. By default that is your own user
//! (mode 0600, and a file of another user is refused). Among processes that use this library, safe
//! calls are sound whatever their arguments: an offset is checked before it is used, a block has
//! one owner, and the allocator's own words never lie in a payload. Whoever writes to the file by
//! other means, in this process or another, is as dangerous as a debugger: it can make calls here
//! fail, make two guards show the same bytes, and change them under a guard. It cannot make this
//! library reach outside the segment.

#![cfg(not(loom))]

mod builder;
mod handle;
pub mod matrix;

/// What the README shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub use builder::{Builder, OpenError};
pub use handle::Matrix;

pub use {bytemuck, uuid};

#[doc(inline)]
pub use am_matrix::{
    Block, Error, Geometry, Limbo, Offset, Participant, Recovery, SectorId, SectorStats, Seen,
    Spill, State, Stats, TypedBlock, Violation,
};
#[doc(inline)]
pub use am_shm::{Error as SegmentError, Hugepages, Mapping};
