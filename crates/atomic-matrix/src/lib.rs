//! Shared memory for several processes on one machine: a lock-free allocator for any sizes, and on it typed messages.
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
//!   geometry), [`am_tlsf`] (search and carve), [`am_ripple`] (ack and merge), `am_cache` (thread caches), [`am_shm`]
//!   (segments), [`am_matrix`] (the allocator over any arena), `am_topic` (the protocol of messages) and
//!   [`am_message`] (messages over any matrix), whose first page tells more of them.
//!
//! # Messages
//!
//! Every reader of a [topic](Topic) sees every message, in one order for all, where it lies. Members of a
//! [group](ReaderBuilder::group) share them. A [`Service`] answers requests.
//!
//! ```
//! use atomic_matrix::{Matrix, Message, MessageSet, Start};
//!
//! #[derive(Message, Clone, Copy, Debug, PartialEq)]
//! #[repr(C)]
//! struct Tick { sym: u32, px: u32 }
//!
//! #[derive(MessageSet)]
//! enum Feed<'a> { Tick(Tick), Text(&'a str) }
//!
//! # let name = format!("messages-{}", std::process::id());
//! let matrix = Matrix::builder().size(16 << 20).open_or_create(&name)?;
//! let topic = matrix.topic::<Feed>("eu").open_or_create()?;
//! let mut reader = topic.reader().start(Start::Earliest).open()?; // else with what is posted from now on
//! let poster = topic.poster()?; // one for each thread
//! poster.post(&Tick { sym: 7, px: 100 })?;
//! poster.post("halt")?;
//!
//! // Of one kind: the others are let go.
//! while let Some(message) = reader.try_read() {
//!     if let Some(tick) = message.get::<Tick>()? {
//!         assert_eq!(tick.px, 100);
//!     }
//! }
//! assert_eq!(reader.missed(), 0);
//! # matrix.destroy()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A topic is lossless for readers and groups that have joined: posters wait for them. Where there are none, the oldest of
//! [`capacity`](TopicBuilder::capacity) messages are overwritten.
//!
//! | feature | adds |
//! |---|---|
//! | `async` | [`ReaderBuilder`]`::open_async`: readers to await, and streams, under any executor |
//! | `numa` | [`Builder`]`::numa`: which node the pages of a sector come from |
//!
//! # Death
//!
//! Every open handle is a [`Participant`]. When its process dies, at whatever instruction, everything
//! that a clean exit would have dropped is given back by whoever notices: the next one that opens the
//! segment, an allocation that finds no block, or a call of `recover`. Nobody waits for the dead. A
//! block that was given away by its offset stays, for somebody may know of it.
//!
//! A forked child is not its parent. The handles it inherits refuse every call that would change
//! something with [`Error::Forked`], and guards it inherits do nothing when they are dropped; reading
//! through them is a race with the parent that still owns them. The child opens the segment anew, by its name or by
//! [`Builder::attach`] with a duplicate of the descriptor, and is a participant of its own then.
//!
//! No call here may be made from a signal handler: it may have interrupted another one on the same
//! thread.
//!
//! # Trust
//!
//! Whoever can open the segment's file can write to all of it. By default that is your own user
//! (mode 0600, and a file of another user is refused), who could attach a debugger as well. Letting
//! others in is [`Builder::trust_peers`], and `unsafe`: the caller vouches for them. Without it, a
//! segment that others may write to is refused.
//!
//! Among processes that use this library, safe calls are sound whatever their arguments: an offset is
//! checked before it is used, a block has one owner, and the allocator's own words never lie in a
//! payload. Whoever writes to the file by other means, in this process or another, is as dangerous as
//! a debugger:
//!
//! | it can | it cannot |
//! |---|---|
//! | make calls fail, with an error that says what was seen | make a call panic, hang, or walk without end |
//! | make two guards show the same bytes, change them under a guard | make this library touch memory outside the segment |
//! | take blocks away, lose them, or have them recovered too early | make an offset or a length be used unchecked |
//! | end this process by a `SIGBUS`, by cutting a named file short | cut a memfd short: it is sealed |
//! | pretend that the dead live, and keep others from entering or recovering | keep those who are in from allocating |
//!
//! So a payload from a peer that is not trusted must be copied out before it is judged.

#![cfg(not(loom))]

mod builder;
mod handle;
pub mod matrix;
#[cfg(feature = "numa")]
mod numa;

// The derives name this crate by what its user calls it, which is this name in here.
extern crate self as atomic_matrix;

/// What the README shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// What the guide shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

pub use builder::{Builder, OpenError};
pub use handle::Matrix;
#[cfg(feature = "numa")]
pub use numa::SectorNodes;

pub use {bytemuck, uuid};

#[doc(inline)]
pub use am_matrix::{
    Block, Common, Error, Geometry, Limbo, Name, NamedBlock, Offset, Participant, Pool, PoolBlock,
    PoolCache, Recovery, SectorId, SectorStats, Seen, Spill, State, Stats, ThreadCache, TypedBlock,
    Violation,
};
#[doc(hidden)]
pub use am_message::__derive; // what the derives name
#[cfg(feature = "async")]
#[doc(inline)]
pub use am_message::{AsyncReader, MessageStream};
#[doc(inline)]
pub use am_message::{
    BadMessage, Batch, BatchError, Bell, Client, Delivery, Info, Item, Kind, KindInfo, KindOf,
    Loan, Message, MessageSet, NoGroup, NoLeader, Owned, Pending, PostError, Posted, Poster,
    Reader, ReaderBuilder, ReaderId, Receipt, Received, Request, RequestError, RequestLoan,
    Response, ResponseError, ResponseLoan, Seq, Server, Service, ServiceBuilder, Shape, Start,
    Topic, TopicBuilder, TopicError, TypedLoan, WaitStrategy,
};
#[cfg(feature = "numa")]
#[doc(inline)]
pub use am_shm::{Bound, Nodes};
#[doc(inline)]
pub use am_shm::{Error as SegmentError, HugePool, Hugepages, Mapping, Pages, Residence};
