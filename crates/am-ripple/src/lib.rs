//! The ripple: giving a block back so that free neighbours always merge, without a lock.
//!
//! * [`ack`] takes a block from its owner by one compare-exchange and starts its ripple. The one
//!   rule: *of two free neighbours the right one flows into the left one*. The left one is never
//!   claimed, so nobody ever holds the big free block at the sector's origin.
//! * [`give`] and [`take`] pass a block between a guard that owns it and an offset that anybody may
//!   hold; of several takers exactly one succeeds.
//! * [`grow`] and [`shrink`] change a block in place.
//! * [`split`] and [`ack_many`] do it for many blocks at once.
//! * [`park`], [`unpark`] and [`give_back_parked`] pass blocks between their users, a thread cache
//!   and the sector; `am-cache` is one.
//! * [`allocate`] carves by the hints and, when those lead to nothing, walks the sector: merges
//!   what is unmerged, repairs hints, and only then says [`NoBlock::Exhausted`]. Healing is driven
//!   by pressure; there is no background thread.
//! * [`allocate_beside`] saves the walk where it can [`prove`] by the hints that nothing is free.
//! * [`Recoverer`] gives back what threads that died inside an operation left in limbo, beside live
//!   traffic, without taking anything of the living.
//!
//! It needs neither `std` nor an allocator nor `unsafe`, and takes any [`Sector`] view:
//!
//! ```
//! use am_layout::{CONTROL_WORDS, State, Word};
//! use am_ripple::{ack, allocate, format};
//! use am_tlsf::{Index, IndexShape, Lane, Headers, Sector, Want};
//! use core::cell::RefCell;
//!
//! struct Lefts(RefCell<Vec<u32>>);
//! impl Headers for &Lefts {
//!     fn left(&self, head: u32) -> Option<u32> { Some(self.0.borrow()[head as usize]) }
//!     fn set_left(&self, head: u32, left: u32) { self.0.borrow_mut()[head as usize] = left }
//! }
//!
//! let shape = IndexShape::new(100);
//! let words: Vec<Word> = (0..100).map(|_| Word::new(0)).collect();
//! let bits: Vec<Word> = (0..shape.words()).map(|_| Word::new(0)).collect();
//! let control: Vec<Word> = (0..CONTROL_WORDS).map(|_| Word::new(0)).collect();
//! let lefts = Lefts(RefCell::new(vec![0; 100]));
//! let sector = Sector::new(&words, Index::new(shape, &bits).unwrap(), &control, &lefts).unwrap();
//! let lane = Lane::new();
//! format(&sector, &lane);
//!
//! let want = Want::allocated(7);
//! let block = allocate(&sector, &lane, &want)?;
//! assert_eq!(ack(&sector, &lane, block.head, State::Allocated), Ok(7));
//! assert!(ack(&sector, &lane, block.head, State::Allocated).is_err()); // a double ack changes nothing
//! assert_eq!(sector.free_at(0), Some(100)); // merged again
//! # Ok::<(), am_ripple::NoBlock>(())
//! ```

#![cfg_attr(not(any(loom, test)), no_std)]
#![forbid(unsafe_code)]

mod ack;
mod bulk;
mod heal;
mod park;
mod prove;
mod recover;
mod ripple;

pub use ack::{WrongState, ack, format, give, grow, shrink, take};
#[doc(no_inline)]
pub use am_tlsf::{Carved, Headers, Lane, Sector, Want};
pub use bulk::{ack_many, split};
pub use heal::{NoBlock, allocate, allocate_beside, allocate_by_hints, repair};
pub use park::{give_back_parked, park, park_allocated, park_unshared, take_unshared, unpark};
pub use prove::{Others, Proof, prove};
pub use recover::{Found, Recoverer};
