//! The protocol of a topic: one ring of messages in shared memory, many posters, many readers.
//!
//! A topic is a ring of slots. A *poster* claims the next sequence number by an exchange on the tail,
//! takes back the message that the slot named before, names its own, and publishes it. A *reader* goes by a
//! cursor of its own; every reader sees every message. What becomes of messages that a slow reader has
//! not read, the topic's [`Flow`] says: in a lossless topic they keep the posters waiting, in a lossy one they
//! are overrun, and the reader learns how many it missed.
//!
//! Messages lie elsewhere: a slot names a place and a length, and what they mean is the caller's matter.
//! The states of a slot, what must stay true of them, and every crash are told in docs/messages.md.
//!
//! Nothing here allocates, blocks, or uses `unsafe`. Everything read from the words is bounds-checked, and
//! decides about numbers only: a scribbled topic may say nonsense, but makes no loop endless.

#![cfg_attr(not(any(loom, test)), no_std)]
#![forbid(unsafe_code)]

mod claim;
mod follow;
mod group;
mod hold;
mod layout;
mod member;
mod poster;
mod reader;
mod recover;
mod ring;
mod seats;
mod slot;

pub use claim::{Claim, Claims, Full, Orphaned};
pub use follow::{LEADERS_MAX, NoLeader, ReaderId};
pub use group::NoGroup;
#[doc(hidden)]
pub use layout::telling_wides;
pub use layout::{
    BadTopic, Flow, GROUPS, HELD_MAX, MEMBERS, POSTERS, READERS, RETURNS, Shape, Topic,
    WIDES_FIXED, WIDES_OF_GROUPS,
};
pub use member::Member;
pub use poster::{NoRoom, Poster};
pub use reader::{Held, Next, Reader, Start};
pub use recover::{Found, Morgue, Recoverer};
pub use seats::{SEATS, SeatSet};
pub use slot::{Entry, Place, SLOT_WIDES, Seq};
