//! The vocabulary of an AtomicMatrix segment: words, states, offsets, headers, geometry.
//!
//! * A **segment** is one shared mapping. It begins with a 16-byte [`guard`], holds the matrix's
//!   own words, and then up to three **sectors**, each a fault domain of its own.
//! * A sector is an array of **granules** (32 bytes in the small sector). Beside it lies one
//!   [`Word`] per granule, which says what is true of that granule ([`Seen`], [`State`]).
//! * A **block** is a run of granules: a 32-byte [`BlockHeader`], then the payload.
//! * An [`Offset`] or [`RelativePtr`] names a place by its distance from the segment's base, in
//!   32-byte units, so that a `u32` reaches 128 GiB and means the same in every mapping.
//! * The [`roster`] says who uses the segment and what each thread is about to do.
//! * The directory ([`names`]) says what blocks that belong to nobody are called.
//!
//! Nothing here allocates, blocks, or uses `unsafe`; everything read from a segment is decoded into
//! a value that may turn out illegal, never trusted.
//!
//! ```
//! use am_layout::{Offset, Seen, State, head, tail};
//!
//! assert_eq!(Seen::decode(head(State::Free, 7)), Seen::Head(State::Free, 7));
//! assert_eq!(Seen::decode(tail(6)), Seen::Tail(6));
//! assert_eq!(Seen::decode(0), Seen::Interior); // a fresh zero page
//! assert_eq!(u64::from(Offset::from_bytes(5 << 30)?.to_raw()), (5 << 30) / 32);
//! # Ok::<(), am_layout::BadOffset>(())
//! ```

#![cfg_attr(not(any(loom, test)), no_std)]
#![forbid(unsafe_code)]

pub mod counter;
mod geometry;
pub mod guard;
mod header;
#[cfg(loom)]
pub mod model;
pub mod mutation;
pub mod names;
mod offset;
pub mod roster;
mod state;
mod wide;
mod word;

pub use counter::{CONTROL_WORDS, Event};
pub use geometry::{
    BadGeometry, CONTROL_AT_BYTES, FIXED_BYTES, GRANULE_MIN_BYTES, Geometry, HEAD_WORDS,
    NAMES_AT_BYTES, ROSTER_AT_BYTES, SECTOR_ALIGN_BYTES, SECTORS, SectorGeometry,
};
pub use guard::{GUARD_BYTES, GUARD_WORDS};
pub use header::{BlockHeader, HEADER_BYTES};
pub use names::Name;
pub use offset::{BadOffset, OFFSET_UNIT_BYTES, Offset, REACH_BYTES, RelativePtr};
pub use state::{
    INTERIOR, LEN_MAX, Seen, State, VALUE_BITS, free_len, head, len_in, tail, tail_distance,
};
pub use wide::Wide;
#[cfg(am_count)]
pub use word::RMW_COUNT;
pub use word::{Word, order_loads};
