//! Typed messages in a shared-memory segment.
//!
//! * A [`Message`] is plain old data: its bytes mean the same in every process, and which bytes are
//!   one is checked when they are read.
//! * A [`Kind`] is what one payload can be: a message, a slice of messages (`[u8]` is one), or text.
//! * A [`MessageSet`] is the kinds that one topic carries. A single kind is a set by itself. Who reads matches on the set's
//!   [view](Received::view), or asks for [one kind](Received::get).
//!
//! * A [`Topic`] is a stream of such messages, found by its name. A [`Poster`] posts one message, or
//!   [many](Poster::post_many) for the price of one exchange. A [`Reader`] takes note of every message, one or
//!   [many](Reader::read_many) at a time; [after](ReaderBuilder::after) other readers, if it is a later stage; or as a
//!   member of a [group](ReaderBuilder::group), which shares its messages.
//!
//! * A [`Service`] is requests and responses: a [`Client`] asks, one of its [`Server`]s answers.
//!
//! ```
//! use am_matrix::{Arena, Matrix, plan};
//! use am_message::Topic;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let matrix = Matrix::format(Arena::heap(1 << 20), &plan(1 << 20, 60, 30)?)?;
//! let topic = Topic::<str>::builder(&matrix, "jobs").open_or_create()?;
//! let mut worker = topic.reader().group("workers").open()?;
//! let mut other = topic.reader().group("workers").open()?;
//! topic.poster()?.post_many(["sow", "reap"])?;
//!
//! worker.read().nack(); // not done: another gets it
//! let job = other.read();
//! assert_eq!((job.view()?, job.is_redelivered()), ("sow", true));
//! drop(job); // done
//! assert_eq!(worker.read().view()?, "reap");
//! # Ok(())
//! # }
//! ```
//!
//! A reader waits as its [strategy](WaitStrategy) says, or for its [bell](ReaderBuilder::with_bell), a descriptor for `poll` and
//! `epoll`. With the feature `async`, `ReaderBuilder::open_async` gives one whose waits are futures, under any executor.
//!
//! Two processes understand each other when the hashes of their layouts are equal: names of fields,
//! their types, offsets and sizes. What a type is called decides nothing.

#![cfg(not(loom))]

mod batch;
mod bells;
mod bits;
mod cell;
mod error;
mod join;
mod kind;
mod layout_hash;
pub mod message;
mod owned;
mod pick;
mod poster;
mod reader;
mod service;
pub mod set;
mod source;
mod stamp;
#[cfg(feature = "async")]
mod stream;
mod topic;
mod typed;
mod vigil;

// The derives name this crate by what its user calls it, which is this name in here.
extern crate self as am_message;

pub use am_shm::{Bell, WaitStrategy};
pub use am_topic::{NoGroup, NoLeader, ReaderId, Seq, Start};
pub use batch::{Batch, Item, Posted};
pub use error::{BatchError, PostError, RequestError, ResponseError, TopicError};
pub use join::ReaderBuilder;
pub use kind::{Kind, Shape};
pub use layout_hash::LayoutHasher;
pub use message::Message;
pub use owned::Owned;
pub use poster::{Loan, Poster, Receipt};
pub use reader::{Info, Reader, Received};
pub use service::{
    Client, Delivery, Pending, Request, RequestLoan, Response, ResponseLoan, Server, Service,
    ServiceBuilder,
};
pub use set::{BadMessage, KindInfo, KindOf, MessageSet};
#[cfg(feature = "async")]
pub use stream::{AsyncReader, MessageStream};
pub use topic::{Topic, TopicBuilder};
pub use typed::TypedLoan;

/// What the expansions of the derives need, under one path whatever crate is named.
#[doc(hidden)]
pub mod __derive {
    pub use crate::bits::{Align, Unit, field_is_valid};
    pub use crate::kind::{Kind, copied};
    pub use crate::{BadMessage, KindInfo, KindOf, LayoutHasher, Message, MessageSet};
    pub use bytemuck::bytes_of;
}
