//! The matrix: an allocator for any sizes over one arena, for many threads and processes.
//!
//! * An [`Arena`] is the memory; where it comes from is not this crate's business.
//! * [`plan`] lays a segment out: small, medium and large sector, each a fault domain.
//! * A [`Matrix`] routes each request to its sector and hands out blocks, either as guards
//!   ([`Block`], [`TypedBlock`]) whose drop gives them back, or as an [`Offset`] that means the same
//!   in every mapping.
//! * Each thread keeps blocks that it freed in a cache of its own, for its next requests; a
//!   [`ThreadCache`] is one to hold.
//! * A [`Pool`] holds blocks of one type that are carved once and never searched for.
//! * Each attached handle is a [`Participant`]. When its process dies, [`Matrix::recover`] gives back
//!   what it held, and nothing else; how the dead are told from the living is [`Liveness`].
//! * [`Matrix::stats`], [`Matrix::check`] and [`Matrix::heap_map`] look at it from outside.
//!
//! The algorithm is in `am-tlsf` (search and carve) and `am-ripple` (ack, merge, heal); this crate
//! adds what touches addresses. Its `unsafe` is in [`Arena`], in the guards, and where a thread finds what is its own.
//!
//! ```
//! use am_matrix::{Arena, Matrix, plan};
//!
//! let size_bytes = 1 << 20;
//! let matrix = Matrix::format(Arena::heap(size_bytes), &plan(size_bytes as u64, 40, 30)?)?;
//!
//! let mut block = matrix.allocate(100)?;
//! block[..5].copy_from_slice(b"hello");
//! let offset = block.into_offset(); // hand this over, in a message or in shared memory
//!
//! let block = matrix.from_offset(offset)?; // one taker wins
//! assert_eq!(&block[..5], b"hello");
//! assert!(matrix.from_offset(offset).is_err());
//! drop(block); // given back, merged
//! assert!(matrix.check().is_empty());
//! # Ok::<(), am_matrix::Error>(())
//! ```

#![cfg(not(loom))] // the model check runs the algorithm crates; here words lie in real memory

mod arena;
mod attachment;
mod block;
mod common;
mod error;
mod lanes;
mod liveness;
mod magazine;
mod matrix;
mod names;
mod part;
mod plan;
mod pool;
mod recovery;
mod release;
mod request;
mod resize;
mod stats;
mod thread_cache;
mod topics;

pub use am_layout::{Geometry, Name, Offset, RelativePtr, Seen, State};
pub use arena::Arena;
#[doc(hidden)]
pub use arena::{prefetch_for_read, prefetch_for_write};
pub use block::{Block, TypedBlock};
pub use common::Common;
pub use error::{Error, SectorId};
pub use liveness::Liveness;
pub use matrix::{Matrix, Spill};
pub use names::NamedBlock;
pub use plan::plan;
pub use pool::{Pool, PoolBlock, PoolCache};
pub use recovery::{Limbo, Participant, Recovery};
pub use stats::{SectorStats, Stats, Violation};
pub use thread_cache::ThreadCache;
#[doc(hidden)]
pub use topics::{SERVICE_KIND, TOPIC_ALIGN_BYTES, TOPIC_KIND, TOPIC_WORDS_BYTES, topic_bytes};
