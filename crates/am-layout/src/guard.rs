//! The init guard: the first 16 bytes of a segment.
//!
//! | byte | word | meaning |
//! |---|---|---|
//! | 0 | state | [`UNINITIALIZED`] → [`FORMATTING`] → [`READY`], never back |
//! | 4 | magic | [`MAGIC`], written before the state leaves [`UNINITIALIZED`] |
//! | 8 | version | [`VERSION`] of the layout |
//! | 12 | takeovers | how often a formatter died and another began anew |

/// Size of the guard, in bytes.
pub const GUARD_BYTES: usize = 16;
/// Number of words in the guard.
pub const GUARD_WORDS: usize = GUARD_BYTES / 4;

/// Index of the state word.
pub const STATE: usize = 0;
/// Index of the magic word.
pub const MAGIC_AT: usize = 1;
/// Index of the version word.
pub const VERSION_AT: usize = 2;
/// Index of the takeover counter.
pub const TAKEOVERS_AT: usize = 3;

/// Nobody has begun to format; what a fresh file holds.
pub const UNINITIALIZED: u32 = 0;
/// One process formats and holds the guard's lock.
pub const FORMATTING: u32 = 1;
/// Formatted: everything behind the guard is valid.
pub const READY: u32 = 2;

/// "AMx2", the sign that a file is a segment of ours.
pub const MAGIC: u32 = u32::from_le_bytes(*b"AMx2");
/// Version of the layout; files of another version are refused.
pub const VERSION: u32 = 5;
