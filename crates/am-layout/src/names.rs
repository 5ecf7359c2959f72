//! The directory: names of blocks that belong to no participant.
//!
//! An **entry** is a cache line. It says where a common block lies, what kind of thing lives in it, and
//! what it is called. Whoever changes entries excludes the others by a lock that is not part of this
//! module; readers take none. An entry's state word decides:
//!
//! | phase | state word | means |
//! |---|---|---|
//! | [`Free`](Phase::Free) | generation, 0, 0 | nothing: the other words are whatever they are |
//! | [`Ready`](Phase::Ready) | generation, 0, 1 | the other words are a name, and the block is common |
//! | [`Changing`](Phase::Changing) | generation, changer, 2 | its changer makes it free or ready, or has died on the way |
//!
//! The lowest 2 bits are the phase, the next 8 the changer as headers name owners, the upper 22 the
//! generation, which grows with every change. So a reader that finds a state ready, copies the other words,
//! and finds the state unchanged, has copied one entry (E13).
//!
//! | word | meaning |
//! |---|---|
//! | 0 | state |
//! | 1 | offset of the block's payload |
//! | 2 | kind: what the user says it is |
//! | 3 | length of the name in bytes, 1 ..= [`NAME_BYTES_MAX`] |
//! | 4 – 15 | the name, UTF-8 |

use crate::mutation::{self, Mutation};
use crate::roster::SLOTS;
use crate::{Offset, Word};
use core::fmt;
use core::ops::Deref;

/// Entries of the directory.
#[cfg(not(loom))]
pub const NAMES: usize = 64;
/// Entries of the directory.
#[cfg(loom)]
pub const NAMES: usize = 1;
/// Longest name, in bytes.
#[cfg(not(loom))]
pub const NAME_BYTES_MAX: usize = 48;
/// Longest name, in bytes: two words, so that one can be old and the other new.
#[cfg(loom)]
pub const NAME_BYTES_MAX: usize = 8;
/// Words of an entry: a cache line.
pub const ENTRY_WORDS: usize = TEXT + NAME_BYTES_MAX / 4;
/// Words of the directory.
pub const NAMES_WORDS: usize = NAMES * ENTRY_WORDS;

const STATE: usize = 0;
const OFFSET: usize = 1;
const KIND: usize = 2;
const LENGTH: usize = 3;
const TEXT: usize = 4;

/// Copies of an entry that a reader makes before it gives up on one that changes all the time.
const COPIES_MAX: u32 = 16;

const PHASE_MASK: u32 = 0b11;
const FREE: u32 = 0;
const READY: u32 = 1;
const CHANGING: u32 = 2;
const CHANGER_SHIFT: u32 = 2;
const CHANGER_MASK: u32 = 0xff;
const GENERATION_SHIFT: u32 = 10;

#[cfg(not(loom))]
const _: () = assert!(ENTRY_WORDS * 4 == 64);
const _: () = assert!(SLOTS <= CHANGER_MASK as usize, "a changer's number fits its bits");

/// The name of a block: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    /// Zeroes behind the length.
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

/// A text that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {NAME_BYTES_MAX} bytes, not {bytes}")]
pub struct BadName {
    /// Bytes of the text.
    pub bytes: usize,
}

impl Name {
    /// Makes a name of a text.
    ///
    /// # Errors
    /// [`BadName`] when the text is empty, or longer than [`NAME_BYTES_MAX`] bytes.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let wrong = BadName { bytes: text.len() };
        let mut bytes = [0; NAME_BYTES_MAX];
        let room = bytes.get_mut(..text.len()).filter(|room| !room.is_empty()).ok_or(wrong)?;
        room.copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when it was made; `unwrap_or` spares an `unsafe`.
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }

    /// Reads a name out of an entry's words; `None` when they hold none.
    fn read(entry: &[Word]) -> Option<Self> {
        let len = entry[LENGTH].load() as usize;
        let mut bytes = [0; NAME_BYTES_MAX];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(&entry[TEXT..]) {
            chunk.copy_from_slice(&word.load().to_ne_bytes());
        }
        Self::new(core::str::from_utf8(bytes.get(..len)?).ok()?).ok()
    }

    /// Writes the name into an entry's words.
    fn write(&self, entry: &[Word]) {
        entry[LENGTH].store(self.len.into());
        for (word, chunk) in entry[TEXT..].iter().zip(self.bytes.chunks_exact(4)) {
            word.store(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What an entry's state word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState(u32);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No name.
    Free,
    /// A name, for everybody to read.
    Ready,
    /// In the hands of `by`, as headers name owners; a number that nobody has when somebody scribbled.
    Changing {
        /// Who changes it.
        by: u32,
    },
}

impl EntryState {
    /// Returns what the entry is.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self.0 & PHASE_MASK {
            FREE => Phase::Free,
            READY => Phase::Ready,
            _ => Phase::Changing { by: self.0 >> CHANGER_SHIFT & CHANGER_MASK },
        }
    }

    /// The state when `by` (1 ..= 128) has begun to change the entry.
    #[must_use]
    pub const fn changing(self, by: u32) -> Self {
        // The generation wraps by itself: what is shifted out is gone.
        let next = (self.0 >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT;
        Self(next | (by & CHANGER_MASK) << CHANGER_SHIFT | CHANGING)
    }

    /// The state when a change ends in a name.
    #[must_use]
    pub const fn ready(self) -> Self {
        Self(self.generation() | READY)
    }

    /// The state when a change ends in no name.
    #[must_use]
    pub const fn free(self) -> Self {
        Self(self.generation() | FREE)
    }

    const fn generation(self) -> u32 {
        self.0 >> GENERATION_SHIFT << GENERATION_SHIFT
    }
}

/// The directory of a segment: a view over its words.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(&'a [Word]);

impl<'a> Names<'a> {
    /// Looks at `words` as a directory; `None` when there are too few.
    #[must_use]
    pub fn new(words: &'a [Word]) -> Option<Self> {
        words.get(..NAMES_WORDS).map(Self)
    }

    /// Every entry, free ones too.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.0.chunks_exact(ENTRY_WORDS).map(Entry)
    }
}

/// One entry of the directory, as everybody sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(&'a [Word]);

/// A copy of an entry that was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// What the block is called.
    pub name: Name,
    /// What its user says it is.
    pub kind: u32,
    /// Where its payload lies: an allegation.
    pub offset: Offset,
    /// The state at the time of the copy.
    pub state: EntryState,
}

impl Entry<'_> {
    /// Reads the state.
    #[must_use]
    pub fn state(&self) -> EntryState {
        EntryState(self.0[STATE].load())
    }

    /// Changes the state if it is still `from`; tells whether it did.
    #[must_use]
    pub fn change(&self, from: EntryState, to: EntryState) -> bool {
        // Release (E13): hands on what `write` wrote. Acquire: whoever settles what a dead one left
        // unfinished sees what that one wrote.
        self.0[STATE].cas(from.0, to.0).is_ok()
    }

    /// Fills a free entry in. Only for whoever holds the lock; nobody reads it before it is ready.
    pub fn write(&self, name: &Name, kind: u32, offset: Offset) {
        // Release, each of them (E13): a reader that still believes the entry ready as it was before, and
        // copies one of these words, sees at its second look that it is not.
        self.0[OFFSET].store(offset.to_raw());
        self.0[KIND].store(kind);
        name.write(self.0);
    }

    /// Where the block of an entry in change lies: an allegation.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset::from_raw(self.0[OFFSET].load())
    }

    /// Copies a ready entry; `None` when it is none, holds no name, or changes all the time.
    ///
    /// Wait-free, bounded.
    #[must_use]
    pub fn read(&self) -> Option<Named> {
        for _ in 0..COPIES_MAX {
            let state = self.state();
            if state.phase() != Phase::Ready {
                return None;
            }
            let (offset, kind) = (self.offset(), self.0[KIND].load());
            let name = Name::read(self.0);
            // Acquire, each load above (E13): had one of them read a later entry's word, this one reads
            // no earlier state than that at which it was written.
            if self.state() == state || mutation::is(Mutation::NameForgetsSecondLook) {
                return Some(Named { name: name?, kind, offset, state });
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> Vec<Word> {
        (0..NAMES_WORDS).map(|_| Word::new(0)).collect()
    }

    fn make_ready(entry: &Entry<'_>, name: &str) -> EntryState {
        entry.write(&Name::new(name).unwrap(), 7, Offset::from_raw(99));
        let free = entry.state();
        assert!(entry.change(free, free.changing(128)));
        assert!(entry.change(free.changing(128), free.changing(128).ready()));
        entry.state()
    }

    #[test]
    fn names_of_other_lengths_are_refused() {
        assert_eq!(Name::new(""), Err(BadName { bytes: 0 }));
        assert_eq!(Name::new(&"x".repeat(49)), Err(BadName { bytes: 49 }));
        assert_eq!(&*Name::new(&"ü".repeat(24)).unwrap(), "ü".repeat(24));
    }

    #[test]
    fn directory_of_too_few_words_is_none() {
        assert!(Names::new(&words()[1..]).is_none());
        assert_eq!(Names::new(&words()).unwrap().entries().count(), NAMES);
    }

    #[test]
    fn entry_is_read_only_while_it_is_ready() {
        let words = words();
        let entry = Names::new(&words).unwrap().entries().nth(3).unwrap();
        assert_eq!((entry.state().phase(), entry.read()), (Phase::Free, None));
        let ready = make_ready(&entry, "orders/eu");
        let named = entry.read().unwrap();
        assert_eq!((&*named.name, named.kind, named.offset.to_raw()), ("orders/eu", 7, 99));
        assert!(entry.change(ready, ready.changing(5)));
        assert_eq!((entry.state().phase(), entry.read()), (Phase::Changing { by: 5 }, None));
        assert!(!entry.change(ready, ready.free()), "it is not what it was");
        assert!(entry.change(ready.changing(5), ready.changing(5).free()));
        assert_eq!(entry.read(), None);
        assert_ne!(make_ready(&entry, "orders/eu"), ready, "another generation");
    }

    #[test]
    fn generation_wraps_and_leaves_the_other_bits() {
        let last = EntryState(u32::MAX).ready();
        assert_eq!(last.phase(), Phase::Ready);
        let next = last.changing(1);
        assert_eq!((next.phase(), next.free()), (Phase::Changing { by: 1 }, EntryState(0)));
    }

    proptest! {
        #[test]
        fn entry_of_any_words_is_refused_or_a_name(seen in prop::array::uniform16(any::<u32>())) {
            let words = words();
            for (word, seen) in words.iter().zip(seen) {
                word.store(seen);
            }
            let entry = Names::new(&words).unwrap().entries().next().unwrap();
            if let Some(named) = entry.read() {
                prop_assert!((1..=NAME_BYTES_MAX).contains(&named.name.len()));
                prop_assert_eq!(seen[0] & 3, 1);
            }
        }

        #[test]
        fn name_of_any_text_comes_back_as_it_was(text in "\\PC{1,16}", kind: u32) {
            prop_assume!(text.len() <= NAME_BYTES_MAX);
            let words = words();
            let entry = Names::new(&words).unwrap().entries().next().unwrap();
            let state = make_ready(&entry, &text);
            words[KIND].store(kind);
            let named = entry.read().unwrap();
            prop_assert_eq!((&*named.name, named.kind, named.state), (&*text, kind, state));
        }

        #[test]
        fn entry_with_a_name_that_is_no_text_is_refused(
            bytes in prop::collection::vec(any::<u8>(), 48), len: u32,
        ) {
            let words = words();
            let entry = Names::new(&words).unwrap().entries().next().unwrap();
            make_ready(&entry, "x");
            words[LENGTH].store(len);
            for (word, chunk) in words[TEXT..].iter().zip(bytes.chunks_exact(4)) {
                word.store(u32::from_ne_bytes(chunk.try_into().unwrap()));
            }
            let text = bytes.get(..len as usize).and_then(|bytes| core::str::from_utf8(bytes).ok());
            let read = entry.read().map(|named| named.name.to_string());
            prop_assert_eq!(read.as_deref(), text.filter(|text| !text.is_empty()));
        }
    }
}
