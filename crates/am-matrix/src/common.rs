//! Common blocks: held, and by nobody.
//!
//! A *common* block's word says `HELD`, and its header names owner 0. No participant's death gives it
//! back, and no call that takes an offset acts on it, since it is held (I8). So a view of it stays good
//! until somebody *adopts* the block: makes it a guard's again. Who may adopt it, and when, is for a layer
//! above to know; that is why most functions here are `unsafe`.
//!
//! | from | to | by | dies before that store | after it |
//! |---|---|---|---|---|
//! | held by a participant | common | owner := 0 ([`Block::into_common`]) | goes back | stays |
//! | common | held by a participant | owner := the participant ([`Matrix::adopt_common`]) | stays | goes back |
//!
//! Each is one store to the header; the word does not change, and nothing is in limbo.

use crate::block::{Block, Place};
use crate::error::Error;
use crate::matrix::Matrix;
use crate::part::Part;
use am_layout::{Offset, Seen, State, Wide, Word, head};
use am_tlsf::Headers;
use std::mem::ManuallyDrop;

/// A block that belongs to no participant: where it lies, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Common {
    offset: Offset,
    len_bytes: usize,
}

impl Common {
    /// Returns where the payload lies, the same in every mapping.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Returns the payload's length in bytes, as the block's holder had asked for.
    #[inline]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// A common block, found and checked.
pub(crate) struct Found {
    place: Place,
    /// Bytes that its holder had asked for, at most what it can hold.
    len_bytes: usize,
}

impl Block<'_> {
    /// Makes the block a common one: from now on it is held, and nobody's.
    ///
    /// It stays until somebody [adopts](Matrix::adopt_common) it, whoever dies meanwhile. What was
    /// written to it is visible to whoever looks at it by [`Matrix::common_bytes`] and the like. One
    /// store that others see; wait-free.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a peer scribbled on the block's head; the block is lost then.
    /// [`Error::Forked`] in a child that inherited the guard: the block stays its parent's.
    #[doc(hidden)]
    #[inline]
    pub fn into_common(self) -> Result<Common, Error> {
        let (matrix, len_bytes) = (self.matrix(), self.len());
        let (offset, place) = (self.offset(), ManuallyDrop::new(self).place());
        matrix.disown(place, len_bytes as u64)?;
        Ok(Common { offset, len_bytes })
    }
}

impl Matrix {
    /// Makes a common block a guard's, of this participant.
    ///
    /// The guard shows as many bytes as the block's last holder had asked for; what was written to them
    /// before is visible. If this process dies while it holds the guard, the block goes back. One store that
    /// others see; wait-free.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`]; [`Error::Forked`] in a child that inherited this
    /// handle.
    ///
    /// # Safety
    /// From the beginning of this call on nobody, in any process, uses a view of this block that
    /// [`common_bytes`](Self::common_bytes), [`common_words`](Self::common_words) or
    /// [`common_wides`](Self::common_wides) gave, nor asks for one; and nobody else adopts it at the same
    /// moment.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn adopt_common(&self, offset: Offset) -> Result<Block<'_>, Error> {
        let (part, found) = self.find_common(offset)?;
        let lanes = self.lanes()?;
        part.sector.headers.adopt(found.place.granule());
        lanes.hold(1);
        Ok(self.block_in(part, found.place, found.len_bytes))
    }

    /// Tells where a common block lies and how long it is.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`].
    #[doc(hidden)]
    #[inline]
    pub fn common(&self, offset: Offset) -> Result<Common, Error> {
        let (_, found) = self.find_common(offset)?;
        Ok(Common { offset, len_bytes: found.len_bytes })
    }

    /// Looks at the payload of a common block.
    ///
    /// What was written to it before it became common is visible. Wait-free.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`].
    ///
    /// # Safety
    /// While the view is used nobody, in any process, writes to these bytes or adopts the block.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn common_bytes(&self, offset: Offset) -> Result<&[u8], Error> {
        let (_, found) = self.find_common(offset)?;
        // SAFETY: a block's payload lies inside the arena, and is as long as was checked; that nobody
        // writes to it meanwhile, the caller promises.
        Ok(unsafe { self.arena().bytes(offset, found.len_bytes) })
    }

    /// Looks at the payload of a common block as shared 32-bit words, a last broken one left out.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`].
    ///
    /// # Safety
    /// While the view is used nobody, in any process, adopts the block, or uses the words that are read
    /// or written here other than as 32-bit words.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn common_words(&self, offset: Offset) -> Result<&[Word], Error> {
        let (_, found) = self.find_common(offset)?;
        let words = self.arena().words(offset.bytes(), found.len_bytes as u64 / 4);
        words.ok_or(Error::NotAPayload { offset })
    }

    /// Looks at the payload of a common block as shared 64-bit words, a last broken one left out.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`].
    ///
    /// # Safety
    /// While the view is used nobody, in any process, adopts the block, or uses the words that are read
    /// or written here other than as 64-bit words.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn common_wides(&self, offset: Offset) -> Result<&[Wide], Error> {
        let (_, found) = self.find_common(offset)?;
        let wides = self.arena().wides(offset.bytes(), found.len_bytes as u64 / 8);
        wides.ok_or(Error::NotAPayload { offset })
    }

    /// Finds the common block whose payload lies at `offset`.
    #[inline]
    fn find_common(&self, offset: Offset) -> Result<(&Part<'_>, Found), Error> {
        let (part, granule) = self.locate(offset)?;
        Ok((part, part.common_at(granule)?))
    }

    /// Gives a held block up to nobody.
    fn disown(&self, place: Place, note: u64) -> Result<(), Error> {
        let lanes = self.lanes()?;
        let (part, at) = (self.part_of(place), place.granule());
        // As `park`: the last store of the word was this holder's, or came with the block.
        let word = part.sector.word(at).load_relaxed();
        if word != head(State::Held, place.len()) {
            let seen = Seen::decode(word);
            return Err(Error::Corrupt { offset: self.offset_of(place), seen });
        }
        // A guard from a cache knows its length by itself; nobody else will.
        part.sector.headers.set_note(at, note);
        part.sector.headers.disown(at);
        lanes.hold(1u32.wrapping_neg());
        Ok(())
    }
}

impl Part<'_> {
    /// Checks that a common block's head is at `granule`, which lies in the sector.
    #[inline]
    pub(crate) fn common_at(&self, granule: u32) -> Result<Found, Error> {
        let seen = self.sector.seen_at(granule);
        let offset = self.offset_of(granule);
        let Seen::Head(State::Held, len) = seen else {
            return Err(Error::NotCommon { offset, seen, owner: 0 });
        };
        // Acquire (E14), and before the note: sees what was written before the block became common.
        let owner = self.sector.headers.owner(granule);
        if owner != 0 {
            return Err(Error::NotCommon { offset, seen, owner });
        }
        let note = self.sector.headers.bytes(granule);
        let len_bytes = note.min(self.geometry.usable_bytes(len)) as usize;
        Ok(Found { place: Place::new(self.id as usize, granule, len), len_bytes })
    }

    /// The payload bytes of the common block at `granule`, which lies in the sector.
    pub(crate) fn common_len_at(&self, granule: u32) -> Result<usize, Error> {
        self.common_at(granule).map(|found| found.len_bytes)
    }

    /// Tells whether a common block's payload lies at `offset`.
    pub(crate) fn has_common(&self, offset: Offset) -> bool {
        self.granule_of(offset).is_some_and(|granule| self.common_at(granule).is_ok())
    }
}
