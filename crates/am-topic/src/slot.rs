//! A slot of the ring: its state, and what it says of its message.

use crate::layout::{POSTERS, Shape};
use am_layout::Wide;

/// A message was claimed, and is not to come: nothing to read.
pub(crate) const ABORTED: u64 = 0;
/// A message is there to be read.
pub(crate) const PUBLISHED: u64 = 1;
/// The first poster's code; a slot with it is being written by that poster.
pub(crate) const FIRST_POSTER: u64 = 2;
const _: () = assert!(POSTERS as u64 + FIRST_POSTER <= 256);

/// The state word of message `number` in condition `code`.
#[inline]
pub(crate) const fn state(number: u64, code: u64) -> u64 {
    number << 8 | code
}

/// The number and the code that a state word says.
#[inline]
pub(crate) const fn parts(state: u64) -> (u64, u64) {
    (state >> 8, state & 0xff)
}

/// A message's number in its topic, from 0. Below 2⁵⁶.
///
/// ```
/// use am_topic::Seq;
///
/// let (first, second) = (Seq(41), Seq(41).next());
/// assert_eq!(second, Seq(42));
/// assert_eq!(second.since(first), Some(1));
/// assert_eq!(first.since(second), None); // it is the earlier one
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Returns the number of the message behind this one; no topic ever comes to the last of a `u64`, which stays.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns how many messages this one comes after `earlier`, 0 for the same; `None` when it comes before.
    ///
    /// Numbers that were claimed and not published count too.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// Slots are numbered on from the first turn, in which there are no messages.
    #[inline]
    pub(crate) fn from_slot_number(number: u64, shape: &Shape) -> Self {
        Self(number.saturating_sub(shape.slots()))
    }

    #[inline]
    pub(crate) fn slot_number(self, shape: &Shape) -> u64 {
        self.0.saturating_add(shape.slots())
    }
}

impl core::fmt::Display for Seq {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Where a message lies: in its slot's cell, or where the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// An offset, not 0.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Place {
    /// The offset of messages that lie in their slots' cells; no other message has it.
    const CELL: u32 = u32::MAX;

    /// The place of a message of that length that lies in its slot's [cell](crate::Claim::cell).
    #[must_use]
    #[inline]
    pub const fn in_cell(len: u32) -> Self {
        Self { offset: Self::CELL, len }
    }

    /// Tells whether the message lies in its slot's cell, rather than in a block of its own.
    #[must_use]
    #[inline]
    pub const fn is_in_cell(self) -> bool {
        self.offset == Self::CELL
    }

    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Option<Self> {
        let (offset, len) = (raw as u32, (raw >> 32) as u32);
        (offset != 0).then_some(Self { offset, len })
    }

    #[inline]
    pub(crate) fn raw(self) -> u64 {
        u64::from(self.offset) | u64::from(self.len) << 32
    }
}

/// What a slot says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub place: Place,
    /// Which kind it is of.
    pub kind: u32,
    /// Number of its poster.
    pub poster: u32,
    /// What else its poster tells: the time, the number of a request; the caller knows.
    pub tag: u64,
}

/// Wide words of a slot.
pub(crate) const SLOT: usize = 4;

/// One slot: its state, the message's place (0 for none), kind and poster, tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a>(pub &'a [Wide; SLOT]);

impl<'a> Slot<'a> {
    #[inline]
    pub fn state(&self) -> &'a Wide {
        &self.0[0]
    }

    #[inline]
    pub fn place(&self) -> &'a Wide {
        &self.0[1]
    }

    /// What the slot says; an allegation, until the state is seen unchanged.
    #[inline]
    pub fn entry(&self) -> Option<Entry> {
        let place = Place::from_raw(self.place().load())?;
        let kind = self.0[2].load_relaxed();
        let (kind, poster) = (kind as u32, (kind >> 32) as u32);
        Some(Entry { place, kind, poster, tag: self.0[3].load_relaxed() })
    }

    /// Says what the message is; before it is published.
    #[inline]
    pub fn tell(&self, entry: &Entry) {
        self.0[2].store_relaxed(u64::from(entry.kind) | u64::from(entry.poster) << 32);
        self.0[3].store_relaxed(entry.tag);
        // Release (M4): a recoverer that finds the place finds the block as it was before.
        self.place().store(entry.place.raw());
    }
}
