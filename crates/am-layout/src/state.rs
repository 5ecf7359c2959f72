//! The granule word: what is true of one granule.
//!
//! A word is 3 bits of tag and 29 bits of value. Head words alone are the truth; a tail word is a
//! hint. Legal values:
//!
//! | tag | value | meaning |
//! |---|---|---|
//! | interior | 0 | not the head of a block; a fresh zero page is valid |
//! | tail | granules back to the head | last granule of a block longer than one; a hint |
//! | free | length | head of a free block |
//! | allocated | length | head of a block that belongs to whoever holds its offset |
//! | held | length | head of a block that one guard owns; its offset alone frees nothing |
//! | acked | length | its owner gave it up; the ripple has begun |
//! | coalescing | length | claimed by a ripple |
//! | cached | length | parked in a thread cache, handed to nobody |
//!
//! Lengths are in granules, at least 1 and at most [`LEN_MAX`].

/// Number of value bits in a granule word.
pub const VALUE_BITS: u32 = 29;
/// Largest length of a block, and so of a sector, in granules.
pub const LEN_MAX: u32 = (1 << VALUE_BITS) - 1;

const TAG_TAIL: u32 = 1;
const TAG_FREE: u32 = 2;
const TAG_ALLOCATED: u32 = 3;
const TAG_HELD: u32 = 4;
const TAG_ACKED: u32 = 5;
const TAG_COALESCING: u32 = 6;

/// The word of a granule that is not a head.
pub const INTERIOR: u32 = 0;

/// State of a block, as its head word tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In nobody's hands; any allocation may carve from it.
    Free,
    /// In use; belongs to whoever holds its offset.
    Allocated,
    /// In use; belongs to one guard, and its offset alone cannot free it.
    Held,
    /// Given up by its owner; its ripple has begun.
    Acked,
    /// Claimed by a ripple.
    Coalescing,
    /// Parked in a thread cache.
    Cached,
}

impl State {
    /// Every state, in the order of the life of a block.
    pub const ALL: [State; 6] = [
        State::Free,
        State::Allocated,
        State::Held,
        State::Cached,
        State::Acked,
        State::Coalescing,
    ];

    #[inline]
    const fn tag(self) -> u32 {
        match self {
            State::Free => TAG_FREE,
            State::Allocated => TAG_ALLOCATED,
            State::Held => TAG_HELD,
            State::Acked => TAG_ACKED,
            State::Coalescing => TAG_COALESCING,
            State::Cached => 7,
        }
    }
}

/// Packs the head word of a block of `len` granules (1 ..= [`LEN_MAX`]).
#[inline]
#[must_use]
pub const fn head(state: State, len: u32) -> u32 {
    debug_assert!(len >= 1 && len <= LEN_MAX);
    state.tag() << VALUE_BITS | len
}

/// Packs the tail word of a block whose head lies `distance` granules (1 ..) to the left.
#[inline]
#[must_use]
pub const fn tail(distance: u32) -> u32 {
    debug_assert!(distance >= 1 && distance < LEN_MAX);
    TAG_TAIL << VALUE_BITS | distance
}

/// Returns the length in granules when `word` is the head of a block in `state`.
#[inline]
#[must_use]
pub const fn len_in(word: u32, state: State) -> Option<u32> {
    let len = word & LEN_MAX;
    if word >> VALUE_BITS == state.tag() && len != 0 { Some(len) } else { None }
}

/// Returns the length in granules when `word` is a free head.
#[inline]
#[must_use]
pub const fn free_len(word: u32) -> Option<u32> {
    len_in(word, State::Free)
}

/// Returns the distance back to the head when `word` is a tail.
#[inline]
#[must_use]
pub const fn tail_distance(word: u32) -> Option<u32> {
    if word >> VALUE_BITS == TAG_TAIL && word & LEN_MAX != 0 { Some(word & LEN_MAX) } else { None }
}

/// What one granule word says, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Not a head.
    Interior,
    /// The last granule of a block; the head lies so many granules to the left.
    Tail(u32),
    /// A head: state and length in granules.
    Head(State, u32),
    /// No legal value; somebody scribbled here.
    Illegal(u32),
}

impl Seen {
    /// Decodes a granule word. Every value is accepted; illegal ones say so.
    #[inline]
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        const STATES: [Option<State>; 8] = {
            let mut states = [None; 8];
            let mut i = 0;
            while i < State::ALL.len() {
                states[State::ALL[i].tag() as usize] = Some(State::ALL[i]);
                i += 1;
            }
            states
        };
        let value = word & LEN_MAX;
        match STATES[(word >> VALUE_BITS) as usize] {
            Some(state) if value != 0 => Seen::Head(state, value),
            None if word == INTERIOR => Seen::Interior,
            None if word >> VALUE_BITS == TAG_TAIL && value != 0 => Seen::Tail(value),
            _ => Seen::Illegal(word),
        }
    }
}

impl core::fmt::Display for Seen {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Seen::Interior | Seen::Tail(_) => {
                f.write_str("the inside of a block (was it acked already?)")
            }
            Seen::Head(State::Free, len) => {
                write!(f, "a free block of {len} granules (was it acked already?)")
            }
            Seen::Head(State::Allocated, len) => write!(f, "an allocated block of {len} granules"),
            Seen::Head(State::Held, len) => {
                write!(f, "a block of {len} granules that a guard holds")
            }
            Seen::Head(State::Acked | State::Coalescing, len) => {
                write!(f, "a block of {len} granules on its way back")
            }
            Seen::Head(State::Cached, len) => write!(f, "a cached block of {len} granules"),
            Seen::Illegal(word) => write!(f, "the illegal word {word:#010x}"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn head_word_of_every_state_decodes_to_itself() {
        for state in State::ALL {
            for len in [1, 2, 31, 32, LEN_MAX] {
                assert_eq!(Seen::decode(head(state, len)), Seen::Head(state, len));
            }
        }
        assert_eq!(Seen::decode(tail(7)), Seen::Tail(7));
        assert_eq!(Seen::decode(INTERIOR), Seen::Interior);
    }

    #[test]
    fn word_with_zero_length_is_illegal() {
        for tag in 1..8 {
            let word = tag << VALUE_BITS;
            assert_eq!(Seen::decode(word), Seen::Illegal(word));
            assert_eq!(free_len(word), None);
        }
        assert_eq!(Seen::decode(5), Seen::Illegal(5));
    }
}
