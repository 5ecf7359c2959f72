//! Typed messages in a shared-memory segment.
//!
//! * A [`Message`] is plain old data: its bytes mean the same in every process, and which bytes are
//!   one is checked when they are read.
//! * A [`Kind`] is what one payload can be: a message, a slice of messages (`[u8]` is one), or text.
//! * A [`MessageSet`] is the kinds that one topic carries. A single kind is a set by itself.
//!
//! Two processes understand each other when the hashes of their layouts are equal: names of fields,
//! their types, offsets and sizes. What a type is called decides nothing.

#![cfg(not(loom))]

mod batch;
mod bits;
mod error;
mod kind;
mod layout_hash;
pub mod message;
mod poster;
mod reader;
pub mod set;
mod topic;

// The derives name this crate by what its user calls it, which is this name in here.
extern crate self as am_message;

pub use am_shm::WaitStrategy;
pub use am_topic::{Seq, Start};
pub use batch::{Batch, Item, Posted};
pub use error::{BatchError, PostError, TopicError};
pub use kind::{Kind, Shape};
pub use layout_hash::LayoutHasher;
pub use message::Message;
pub use poster::{Loan, Poster, Receipt};
pub use reader::{Info, Reader, Received};
pub use set::{BadMessage, KindInfo, KindOf, MessageSet};
pub use topic::{ReaderBuilder, Topic, TopicBuilder};

/// What the expansions of the derives need, under one path whatever crate is named.
#[doc(hidden)]
pub mod __derive {
    pub use crate::bits::{Align, Unit, field_is_valid};
    pub use crate::kind::{Kind, copied};
    pub use crate::{BadMessage, KindInfo, KindOf, LayoutHasher, Message, MessageSet};
    pub use bytemuck::bytes_of;
}
