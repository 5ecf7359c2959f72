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
    ///
    /// Of a length that no cell has, the place says another that no cell has.
    #[must_use]
    #[inline]
    pub const fn in_cell(len: u32) -> Self {
        let len = if len > CELL_LEN { CELL_LEN } else { len };
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
        let (offset, high) = (raw as u32, (raw >> 32) as u32);
        let len = if offset == Self::CELL { high & CELL_LEN } else { high };
        (offset != 0).then_some(Self { offset, len })
    }

    #[inline]
    pub(crate) fn raw(self) -> u64 {
        u64::from(self.offset) | u64::from(self.len) << 32
    }
}

// The place of a message in its cell has 21 bits to spare, which say what its note would.
/// Its length.
const CELL_LEN: u32 = 2 * Shape::CELL_BYTES_MAX - 1;
const POSTER_SHIFT: u32 = CELL_LEN.count_ones();
const POSTER: u32 = POSTERS_MAX - 1;
const KIND_SHIFT: u32 = POSTER_SHIFT + POSTER.count_ones();
const KIND: u32 = (1 << 14) - 1;
/// They are in the note: they do not fit, or there is a tag.
const NOTED: u32 = 1 << 31;
const POSTERS_MAX: u32 = 64;
const _: () = assert!(POSTERS <= POSTERS_MAX as usize && KIND_SHIFT + KIND.count_ones() == 31);

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

/// Wide words from one slot to the next.
pub const SLOT_WIDES: usize = 2;
/// Wide words of a note.
pub(crate) const NOTE: usize = 2;

/// One slot: its state, and the message's place (0 for none). What else there is to say of the message stands in the
/// slot's note, or for short messages in the spare bits of the place: so their note's line is left alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    words: &'a [Wide; SLOT_WIDES],
    notes: &'a [[Wide; NOTE]],
    index: usize,
}

impl<'a> Slot<'a> {
    #[inline(always)]
    pub fn new(words: &'a [Wide; SLOT_WIDES], notes: &'a [[Wide; NOTE]], index: usize) -> Self {
        Self { words, notes, index }
    }

    #[inline]
    pub fn as_ptr(&self) -> *const Wide {
        self.words.as_ptr()
    }

    #[inline]
    pub fn state(&self) -> &'a Wide {
        &self.words[0]
    }

    #[inline]
    pub fn place(&self) -> &'a Wide {
        &self.words[1]
    }

    /// Kind and poster, tag.
    #[inline]
    pub fn note(&self) -> &'a [Wide; NOTE] {
        &self.notes[self.index]
    }

    /// The block that the slot names, if it does.
    #[inline]
    pub fn block(&self) -> Option<Place> {
        Place::from_raw(self.place().load()).filter(|place| !place.is_in_cell())
    }

    /// What the slot says; an allegation, until the state is seen unchanged.
    #[inline]
    pub fn entry(&self) -> Option<Entry> {
        let raw = self.place().load();
        let place = Place::from_raw(raw)?;
        let brief = (raw >> 32) as u32;
        if place.is_in_cell() && brief & NOTED == 0 {
            let (poster, kind) = (brief >> POSTER_SHIFT & POSTER, brief >> KIND_SHIFT & KIND);
            return Some(Entry { place, kind, poster, tag: 0 });
        }
        let [about, tag] = self.note();
        let about = about.load_relaxed();
        let (kind, poster) = (about as u32, (about >> 32) as u32);
        Some(Entry { place, kind, poster, tag: tag.load_relaxed() })
    }

    /// Says what the message is; before it is published.
    #[inline]
    pub fn tell(&self, entry: &Entry) {
        let &Entry { place, kind, poster, tag } = entry;
        let raw = if !place.is_in_cell() {
            self.tell_note(entry);
            place.raw()
        } else if kind <= KIND && poster <= POSTER && tag == 0 {
            let brief = poster << POSTER_SHIFT | kind << KIND_SHIFT;
            place.raw() | u64::from(brief) << 32
        } else {
            self.tell_note(entry);
            place.raw() | u64::from(NOTED) << 32
        };
        // Release (M4): a recoverer that finds the place finds the block as it was before.
        self.place().store(raw);
    }

    #[inline]
    fn tell_note(&self, entry: &Entry) {
        let [about, tag] = self.note();
        about.store_relaxed(u64::from(entry.kind) | u64::from(entry.poster) << 32);
        tag.store_relaxed(entry.tag);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slot_says_what_it_was_told_whatever_has_room_in_it() {
        let (words, notes) = ([Wide::new(0), Wide::new(0)], [[Wide::new(0), Wide::new(0)]]);
        let slot = Slot::new(&words, &notes, 0);
        let places = [0, 64, Shape::CELL_BYTES_MAX].map(Place::in_cell);
        let block = Place { offset: 7, len: u32::MAX };
        for place in places.into_iter().chain([block]) {
            for kind in [0, 1, KIND, KIND + 1, u32::MAX] {
                for poster in [0, POSTER, POSTER + 1, u32::MAX] {
                    for tag in [0, 1, u64::MAX] {
                        let entry = Entry { place, kind, poster, tag };
                        slot.tell(&entry);
                        assert_eq!(slot.entry(), Some(entry));
                        assert_eq!(slot.block(), (place == block).then_some(block));
                    }
                }
            }
        }
    }
}
