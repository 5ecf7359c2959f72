//! Carving: taking the last granules of a free block by one compare-exchange on its head.

use crate::cell::Cell;
use crate::index::CHUNK_SHIFT;
use crate::lane::{LONG, Lane};
use crate::sector::{Headers, Sector};
use am_layout::mutation::{self, Mutation};
use am_layout::{Event, LEN_MAX, State, VALUE_BITS, head, tail};

/// Hints of the lane that are tried before the index is asked.
const LANE_TRIES: u32 = 16;
/// Chunks that the index may name before the search counts as failed.
const SEARCH_TRIES: u32 = 512;
/// Chunks that are tried for a block of the request's own cell before longer ones are looked at.
const OWN_FIRST: u32 = 64;
/// Chunks that are tried there when no longer one was found. In a nearly full sector this is where the
/// blocks are; a walk over all of it costs more than any number of chunks.
const OWN_LAST: u32 = 512;
/// Compare-exchanges on one head that may be lost before another is looked for.
const LOST_MAX: u32 = 8;

/// What is asked of a sector; any value of it can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    len: u32,
    pieces: u32,
    align: u32,
    state: State,
    note: u64,
}

impl Want {
    /// Asks for a block of `len` granules, header included, that belongs to whoever knows where it
    /// is. Less than 1 counts as 1, more than [`LEN_MAX`] as `LEN_MAX`, which no sector has.
    #[inline]
    #[must_use]
    pub fn allocated(len: u32) -> Self {
        let len = len.clamp(1, LEN_MAX);
        Self { len, pieces: 1, align: 1, state: State::Allocated, note: 0 }
    }

    /// Asks for `pieces` (at least 1) blocks of `piece` granules each, or more, side by side and parked in a
    /// cache, by one carve. As many as [`LEN_MAX`] granules hold, if that is fewer.
    #[inline]
    #[must_use]
    pub fn cached(piece: u32, pieces: u32) -> Self {
        let piece = piece.clamp(1, LEN_MAX);
        let pieces = pieces.clamp(1, LEN_MAX / piece);
        Self { pieces, state: State::Cached, ..Self::allocated(piece * pieces) }
    }

    /// Asks for a block as [`allocated`](Self::allocated), but held by its taker.
    #[inline]
    #[must_use]
    pub fn held(len: u32) -> Self {
        Self { state: State::Held, ..Self::allocated(len) }
    }

    /// Asks for the same block, but held by its taker.
    #[inline]
    #[must_use]
    pub fn but_held(self) -> Self {
        Self { state: State::Held, ..self }
    }

    /// Asks that the head's granule be a multiple of a power of two; other numbers are rounded up
    /// to one.
    #[inline]
    #[must_use]
    pub fn aligned(self, align: u32) -> Self {
        let align = align.clamp(1, 1 << (VALUE_BITS - 1)).next_power_of_two();
        Self { align, ..self }
    }

    /// Asks that `note` be kept with the block, in its header.
    #[inline]
    #[must_use]
    pub fn noted(self, note: u64) -> Self {
        Self { note, ..self }
    }

    /// Returns the length asked for, in granules, of all pieces together.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns false: at least one granule is asked for.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the alignment of the head's granule, a power of two.
    #[inline]
    #[must_use]
    pub fn align(&self) -> u32 {
        self.align
    }

    /// Tells whether a free block of `free` granules at granule `from` would do.
    #[inline]
    #[must_use]
    pub fn fits(&self, from: u32, free: u32) -> bool {
        self.start_in(from, free).is_some()
    }

    /// Where the block wanted begins if it is taken from the end of such a free block.
    #[inline]
    fn start_in(&self, from: u32, free: u32) -> Option<u32> {
        let start = (from + free).checked_sub(self.len)? & !(self.align - 1);
        (start >= from).then_some(start)
    }

    /// Tells whether the block shall be held.
    #[inline]
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state == State::Held
    }
}

/// A block that was just taken; nobody else knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carved {
    /// Granule of the head.
    pub head: u32,
    /// Length in granules: what was wanted, or more when it had to be aligned.
    pub len: u32,
}

impl<H: Headers> Sector<'_, H> {
    /// Takes a block, by the lane's hints first and then by the index.
    ///
    /// Lock-free and bounded. `None` means that the hints led to nothing within the bound, not that
    /// nothing is free. Good fit: a block of the request's own class that is long enough, or else one
    /// of the first class that holds only such; but a short block may come from wherever this
    /// thread made a hole of less than 1024 granules.
    #[inline]
    pub fn carve(&self, lane: &Lane<'_>, want: &Want) -> Option<Carved> {
        let cell = Cell::at_least(want.len)?;
        for _ in 0..LANE_TRIES {
            let Some(head) = lane.take(cell) else { break };
            if let Some(carved) = self.carve_from(lane, head, want) {
                return Some(carved);
            }
        }
        if let Some(head) = lane.take_long().filter(|&head| self.is_snug(head, cell))
            && let Some(carved) = self.carve_from(lane, head, want)
        {
            return Some(carved);
        }
        self.carve_by_search(lane, cell, want)
    }

    /// Tells whether there is nothing shorter than the free block at `head` for a request that cell
    /// `cell` would do for. Without this, the longest blocks are eaten up by requests that others
    /// would do for.
    #[inline]
    fn is_snug(&self, head: u32, cell: Cell) -> bool {
        let of = self.free_at(head).map(Cell::of);
        of.is_some_and(|of| self.index().first(cell).is_none_or(|first| of <= first))
    }

    #[cold]
    #[inline(never)]
    fn carve_by_search(&self, lane: &Lane<'_>, cell: Cell, want: &Want) -> Option<Carved> {
        let own = |tries| self.carve_from_own_cell(lane, cell, want, tries);
        own(OWN_FIRST).or_else(|| self.carve_by_index(lane, cell, want)).or_else(|| own(OWN_LAST))
    }

    /// Looks in the cell of the length itself, where some blocks are too short.
    ///
    /// A sector full of blocks of 17 granules has its free ones there, and only there. Each chunk is tried
    /// once: what they do not yield, the slow path finds.
    fn carve_from_own_cell(
        &self,
        lane: &Lane<'_>,
        above: Cell,
        want: &Want,
        tries: u32,
    ) -> Option<Carved> {
        let cell = Cell::of(want.len);
        if cell == above {
            return None;
        }
        let mut below = u32::MAX;
        for _ in 0..tries {
            let (found, chunk) = self.find_hint(lane, cell, below)?;
            if found != cell || chunk >= below {
                return None;
            }
            if let Some((head, _)) =
                self.scan(chunk, |len| len >= want.len && Cell::of(len) == cell)
                && let Some(carved) = self.carve_from(lane, head, want)
            {
                return Some(carved);
            }
            if self.scan(chunk, |len| Cell::of(len) == cell).is_none() {
                self.count(Event::StaleHint);
                self.clear_hint(lane, cell, chunk);
            }
            below = chunk;
        }
        None
    }

    fn carve_by_index(&self, lane: &Lane<'_>, cell: Cell, want: &Want) -> Option<Carved> {
        let mut from = cell;
        for _ in 0..SEARCH_TRIES {
            let (found, chunk) = self.find_hint(lane, from, u32::MAX)?;
            // Not a long block while a short one would do, even if that hint is stale.
            let fits = |len| len >= want.len && (Cell::of(len) == found || Cell::of(len) < LONG);
            match self.scan(chunk, fits) {
                Some((head, _)) => {
                    if let Some(carved) = self.carve_from(lane, head, want) {
                        return Some(carved);
                    }
                    if want.align > 1 {
                        // Long enough, but not where it must lie: longer blocks are more likely to.
                        from = Cell::at_least(found.min_len().saturating_add(want.align))?;
                    }
                }
                None => {
                    self.count(Event::StaleHint);
                    if self.clear_hint(lane, found, chunk) {
                        self.count(Event::HintRestored);
                    }
                }
            }
        }
        None
    }

    /// Takes a block from the end of the free block at `from`, if it is free and long enough.
    ///
    /// The free block never moves and never leaves `FREE` (I7), so a thread that stalls here holds
    /// only what it asked for.
    #[inline]
    pub fn carve_from(&self, lane: &Lane<'_>, from: u32, want: &Want) -> Option<Carved> {
        for _ in 0..LOST_MAX {
            let free = self.free_at(from)?;
            let end = from + free;
            let start = want.start_in(from, free)?;
            let carved = Carved { head: start, len: end - start };
            if !mutation::is(Mutation::CarveForgetsIntent) {
                lane.begin(start, end);
            }
            let taken = if start == from {
                self.take_whole(lane, from, free, want)
            } else {
                self.take_end(lane, from, free, carved, want)
            };
            if taken {
                self.done(lane);
                return Some(carved);
            }
            lane.abandon();
            self.count(Event::LostCas);
        }
        None
    }

    /// `FREE(n)` → `COALESCING(n)`, and on to the state wanted: an exact fit.
    #[inline]
    fn take_whole(&self, lane: &Lane<'_>, at: u32, len: u32, want: &Want) -> bool {
        // Acquire (E1): sees the stores of whoever made this block free. Full barrier: `done` reads
        // what is suspected (E8).
        if self.word(at).cas_full(head(State::Free, len), head(State::Coalescing, len)).is_err() {
            return false;
        }
        // Claimed: nobody but us may touch it, not even by a forged offset, and if we die here it
        // has no owner in its header yet. The left hint in its header stays true.
        self.retract(lane, at, len);
        self.deliver(at, len, want);
        true
    }

    /// `FREE(s)` → `FREE(s - n)`: the last n granules are the caller's.
    #[inline]
    fn take_end(&self, lane: &Lane<'_>, from: u32, free: u32, carved: Carved, want: &Want) -> bool {
        let rest = free - carved.len;
        let word = self.word(from);
        let (old, new) = (head(State::Free, free), head(State::Free, rest));
        if mutation::is(Mutation::CarveWithoutCas) {
            word.swap_full(new);
        } else if word.cas_full(old, new).is_err() {
            // Acquire-release (E1): sees the stores of whoever freed these granules, and hands on
            // to the next carver what it saw. Full barrier: a shorter free head was made (E5).
            return false;
        }
        // From here to the store of the head the range is limbo, and only ours to store to (I3).
        if !mutation::is(Mutation::CarveForgetsLeftHint) {
            self.headers.set_left(carved.head, from);
        }
        self.deliver(carved.head, carved.len, want);
        if Cell::of(rest) != Cell::of(free) && !mutation::is(Mutation::CarveForgetsIndex) {
            // Set before the old one is cleared. No proof may have looked for the block between (E16).
            let was_clear = self.index().set(Cell::of(rest), from >> CHUNK_SHIFT);
            if was_clear && !mutation::is(Mutation::CarveForgetsMove) {
                self.tell_move(lane);
            }
            self.retract(lane, from, free);
        }
        lane.put(Cell::of(rest), from);
        true
    }

    /// Makes a range in the caller's hands the block wanted, or the blocks.
    #[inline]
    fn deliver(&self, at: u32, len: u32, want: &Want) {
        if want.state != State::Cached {
            self.finish(at, len, want);
        } else {
            self.cut(at, at + len, want);
        }
    }

    /// Makes a range in the caller's hands one block: header, tail, then the head.
    #[inline]
    fn finish(&self, at: u32, len: u32, want: &Want) {
        self.headers.mark_owner(at);
        self.headers.set_note(at, want.note);
        self.store_tail(at, len);
        if mutation::is(Mutation::CarveWithoutRelease) {
            self.word(at).store_relaxed(head(want.state, len));
        } else {
            // Release (E2): publishes header and tail to whoever acks or takes this block.
            self.word(at).store(head(want.state, len));
        }
    }

    /// Makes pieces of the range `[at, end)`, which is in the caller's hands.
    ///
    /// The first one first, for the range may have a head: the granules behind it are limbo then, and
    /// become blocks one by one. So at no instant there is a head inside a block (I1), wherever this
    /// thread may die; and whoever finds no head there sees the intent (E8).
    fn cut(&self, mut at: u32, end: u32, want: &Want) {
        let piece = want.len / want.pieces;
        if mutation::is(Mutation::CutForgetsFirst) && end - at > piece {
            self.cut(at + piece, end, want);
            return self.finish(at, piece, want);
        }
        while at < end {
            // What does not divide is a shorter block of its own; only an aligned carve has such a rest.
            let len = piece.min(end - at);
            self.finish(at, len, want);
            at += len;
        }
    }

    /// Stores the tail of a range the caller owns; a block of one granule has none.
    #[inline]
    pub fn store_tail(&self, at: u32, len: u32) {
        if len > 1 {
            // A hint; published by the head's release store or exchange. Release (E8): there may have
            // been a head, and whoever finds none sees the intent.
            self.word(at + len - 1).store(tail(len - 1));
        }
    }
}
