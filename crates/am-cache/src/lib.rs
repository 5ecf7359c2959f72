//! A thread cache in front of one sector: blocks that one thread freed, kept for its next requests.
//! Beside it, the [`Depot`] of a pool: blocks of one kind that its threads exchange without a lock.
//!
//! * A **magazine** holds parked blocks of one exact length, newest last. Taking a block from it, and
//!   putting one there, are a load and a store on the block's head word: no locked instruction, no
//!   index, no neighbour's word.
//! * **Refill**: an empty magazine carves one run by one exchange, already cut into blocks. It asks
//!   for one block at first, and for twice as many each time, so that rare lengths hoard nothing.
//! * **Flush**: a cache over its limit gives its oldest blocks back, of all lengths together: sorted,
//!   joined to runs of neighbours, each run by one ripple.
//! * The **limit** is small at first, and doubles when the cache had to refill after it had flushed:
//!   who only frees keeps little, who does both in turn keeps what a turn needs. It never passes the
//!   cache's share: a quarter of the sector, divided by the number of threads at work when the cache
//!   last gave back or grew; and more while much is free ([`share`]). While threads arrive, the earlier ones keep the larger share they had.
//! * Under **pressure** (an allocation somewhere found nothing) a cache gives everything back at its
//!   next free or refill.
//!
//! The cache is private memory over words that everybody sees: a parked block is `CACHED`, its
//! header names the participant, and [`am_ripple::Recoverer`] gives it back when that one dies.
//!
//! ```
//! use am_cache::Cache;
//! use am_layout::{CONTROL_WORDS, State, Word};
//! use am_ripple::{Want, ack, allocate, format};
//! use am_tlsf::{Headers, Index, IndexShape, Lane, Sector};
//! # use core::cell::RefCell;
//! # struct Lefts(RefCell<Vec<u32>>);
//! # impl Headers for Lefts {
//! #     fn left(&self, head: u32) -> Option<u32> { Some(self.0.borrow()[head as usize]) }
//! #     fn set_left(&self, head: u32, left: u32) { self.0.borrow_mut()[head as usize] = left }
//! # }
//! let shape = IndexShape::new(4096);
//! let words: Vec<Word> = (0..4096).map(|_| Word::new(0)).collect();
//! let bits: Vec<Word> = (0..shape.words()).map(|_| Word::new(0)).collect();
//! let control: Vec<Word> = (0..CONTROL_WORDS).map(|_| Word::new(0)).collect();
//! let index = Index::new(shape, &bits).unwrap();
//! # let lefts = Lefts(RefCell::new(vec![0; 4096]));
//! let sector = Sector::new(&words, index, &control, lefts).unwrap();
//! let lane = Lane::new();
//! format(&sector, &lane);
//!
//! let mut cache = Cache::new(64, 256);
//! let block = allocate(&sector, &lane, &Want::held(3))?.head;
//! assert_eq!(cache.put(&sector, &lane, block, 3), Ok(true));
//! assert_eq!(cache.take(&sector, 3, State::Held, 0), Some(block)); // the same one, still warm
//! cache.put(&sector, &lane, block, 3)?;
//! cache.give_back(&sector, &lane);
//! assert_eq!(sector.free_at(0), Some(4096)); // merged
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(any(loom, test)), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod cache;
#[cfg(any(loom, target_has_atomic = "64"))]
mod depot;
mod magazine;

pub use cache::{Cache, SHARE, share};
#[cfg(any(loom, target_has_atomic = "64"))]
pub use depot::{CHAIN, Depot};
