//! A lock-free two-level segregated fit, over words that may lie in shared memory.
//!
//! * A [`Cell`] is a size class: a power of two split into eight linear steps.
//! * The [`Index`] tells for each cell which chunks may hold a free head of it. Bits only, no
//!   links; every bit is a hint and checked against the head word.
//! * A [`Lane`] is a thread's own memory of the free heads it made; the search begins there.
//! * [`Headers`] is what is kept with each block; in a segment, the 32 bytes before its payload.
//! * A [`Sector`] is the view the algorithms work on. [`Sector::carve`] takes the end of a free
//!   block by one compare-exchange on its head: the remainder never moves and is never hidden.
//!
//! Giving blocks back, and merging them, is the crate `am-ripple`. This one needs neither `std` nor
//! an allocator nor `unsafe`, and does not care where its words live:
//!
//! ```
//! use am_layout::{CONTROL_WORDS, State, Word, head};
//! use am_tlsf::{Index, IndexShape, Lane, Headers, Sector, Want};
//! use core::cell::RefCell;
//!
//! struct Lefts(RefCell<Vec<u32>>); // in a segment, the blocks' real headers
//! impl Headers for &Lefts {
//!     fn left(&self, head: u32) -> Option<u32> { Some(self.0.borrow()[head as usize]) }
//!     fn set_left(&self, head: u32, left: u32) { self.0.borrow_mut()[head as usize] = left }
//! }
//!
//! let shape = IndexShape::new(1000);
//! let words: Vec<Word> = (0..1000).map(|_| Word::new(0)).collect();
//! let bits: Vec<Word> = (0..shape.words()).map(|_| Word::new(0)).collect();
//! let control: Vec<Word> = (0..CONTROL_WORDS).map(|_| Word::new(0)).collect();
//! let lefts = Lefts(RefCell::new(vec![0; 1000]));
//! let sector = Sector::new(&words, Index::new(shape, &bits).unwrap(), &control, &lefts).unwrap();
//! let lane = Lane::new();
//!
//! words[0].swap_full(head(State::Free, 1000)); // everything is one free block ...
//! sector.announce(&lane, 0, 1000);
//!
//! let want = Want::allocated(7);
//! let block = sector.carve(&lane, &want).unwrap();
//! assert_eq!((block.head, block.len), (993, 7)); // ... and the block is its end
//! assert_eq!(sector.free_at(0), Some(993));
//! ```

#![cfg_attr(not(any(loom, test)), no_std)]
#![forbid(unsafe_code)]

mod carve;
mod cell;
mod index;
mod lane;
mod sector;

pub use carve::{Carved, Want};
pub use cell::{CELLS, Cell, ROWS, STEPS};
pub use index::{CHUNK_LEN, CHUNK_SHIFT, Index, IndexShape};
pub use lane::Lane;
pub use sector::{Headers, Run, Runs, Sector, Stamp};
