//! A view of one sector: its granule words, its index, and its blocks' headers.

use crate::cell::Cell;
use crate::index::{CHUNK_LEN, CHUNK_SHIFT, Index};
use crate::lane::Lane;
use am_layout::counter::{self, CONTROL_WORDS, Event, count};
use am_layout::mutation::{self, Mutation};
use am_layout::{LEN_MAX, Seen, Word, free_len};

/// Shortest free block whose hint is taken back at once.
#[cfg(not(loom))]
const RETRACT_LEN: u32 = CHUNK_LEN;
// Both ways occur in the model's small worlds.
#[cfg(loom)]
const RETRACT_LEN: u32 = 4;

/// Words and chunks that are looked at for the longest free block.
const LONGEST_BUDGET: u32 = 64;

/// Of so many proofs one is left to a walk, which repairs hints that a scribble cleared: the first one, when a
/// sector is new. The models are of proofs, and have one first.
const PROOFS_PER_WALK: u32 = 256;
const WALK_AT: u32 = if cfg!(loom) { PROOFS_PER_WALK - 1 } else { 0 };

/// The headers of a sector's blocks: what is kept with a block beside its words.
///
/// Every function but `owner` is called for a `head` only by whoever owns the block or limbo range that begins
/// there (invariant I6), so an implementation needs no synchronisation of its own.
pub trait Headers {
    /// Returns the left neighbour remembered for `head`, if any. Any answer is allowed: a hint.
    fn left(&self, head: u32) -> Option<u32>;
    /// Remembers the left neighbour of `head`.
    fn set_left(&self, head: u32, left: u32);
    /// Marks a block that was just taken as this participant's: when it dies while it holds the
    /// block, the block goes back.
    fn mark_owner(&self, head: u32) {
        let _ = head;
    }
    /// Returns who marked `head` last, as the roster numbers owners; 0 for nobody. The one function
    /// that is called for blocks of others, so its answer is an allegation.
    fn owner(&self, head: u32) -> u32 {
        let _ = head;
        0
    }
    /// Tells whether this participant marked a block last. Called for a block that the caller may act
    /// on, while nobody else does.
    fn is_own(&self, head: u32) -> bool {
        let _ = head;
        false
    }
    /// Keeps the [`note`](crate::Want::noted) of a block that was just taken.
    fn set_note(&self, head: u32, note: u64) {
        let _ = (head, note);
    }
}

/// One sector, as the algorithms see it.
///
/// A view over borrowed words: the truth, one word per granule, and the hints.
#[derive(Clone, Debug)]
pub struct Sector<'a, H> {
    words: &'a [Word],
    index: Index<'a>,
    control: &'a [Word; CONTROL_WORDS],
    /// The blocks' headers.
    pub headers: H,
}

impl<'a, H: Headers> Sector<'a, H> {
    /// Makes a view of a sector; `None` when it has no granule, more than `LEN_MAX`, or fewer
    /// than [`CONTROL_WORDS`] words of control.
    ///
    /// `words` holds one word per granule. All words start as zeroes.
    #[inline]
    #[must_use]
    pub fn new(
        words: &'a [Word],
        index: Index<'a>,
        control: &'a [Word],
        headers: H,
    ) -> Option<Self> {
        let granules = words.len() as u64;
        if granules == 0 || granules > u64::from(LEN_MAX) {
            return None;
        }
        let control = control.first_chunk()?;
        Some(Self { words, index, control, headers })
    }

    /// Returns the number of granules.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words.len() as u32
    }

    /// Returns false: a sector has at least one granule.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the word of a granule.
    ///
    /// # Panics
    /// When `granule` is not below [`len`](Self::len); callers check what they read first.
    #[inline]
    #[must_use]
    pub fn word(&self, granule: u32) -> &'a Word {
        &self.words[granule as usize]
    }

    /// Returns the word of a granule; `None` when it is not below [`len`](Self::len).
    #[inline(always)]
    #[must_use]
    pub fn get_word(&self, granule: u32) -> Option<&'a Word> {
        self.words.get(granule as usize)
    }

    /// Returns the hint index.
    #[inline]
    #[must_use]
    pub fn index(&self) -> &Index<'a> {
        &self.index
    }

    /// Counts an event.
    #[inline]
    pub fn count(&self, event: Event) {
        count(self.control, event);
    }

    /// Returns how often an event was counted, modulo 2³².
    #[must_use]
    pub fn counted(&self, event: Event) -> u32 {
        self.control[event as usize].load_relaxed()
    }

    /// Reads the word of `granule`: its length when it is a free head that ends inside the sector.
    #[inline]
    #[must_use]
    pub fn free_at(&self, granule: u32) -> Option<u32> {
        let len = free_len(self.words.get(granule as usize)?.load())?;
        if self.fits(granule, len) { Some(len) } else { None }
    }

    /// Reads the word of `granule` as if it were a head: a length, or any number; 0 behind the end.
    #[inline]
    #[must_use]
    pub fn len_at(&self, granule: u32) -> u32 {
        self.words.get(granule as usize).map_or(0, |word| word.load_relaxed() & LEN_MAX)
    }

    /// Reads and decodes the word of `granule`; a head that reaches behind the sector is illegal.
    #[inline]
    #[must_use]
    pub fn seen_at(&self, granule: u32) -> Seen {
        let Some(word) = self.words.get(granule as usize) else { return Seen::Illegal(0) };
        let raw = word.load();
        match Seen::decode(raw) {
            Seen::Head(_, len) if !self.fits(granule, len) => Seen::Illegal(raw),
            seen => seen,
        }
    }

    /// Tells whether a block of `len` at `granule` lies inside the sector.
    #[inline]
    #[must_use]
    pub fn fits(&self, granule: u32, len: u32) -> bool {
        u64::from(granule) + u64::from(len) <= u64::from(self.len())
    }

    /// Makes a free head known: to everybody by the index, to this thread by its lane.
    ///
    /// The head was made by an operation with a full barrier directly before (edge E5).
    #[inline]
    pub fn announce(&self, lane: &Lane<'_>, head: u32, len: u32) {
        let cell = Cell::of(len);
        self.index.set(cell, head >> CHUNK_SHIFT);
        lane.put(cell, head);
    }

    /// Says that the free head of `len` at `head` is no longer, so far as that is worth it.
    ///
    /// A chunk holds at most one free head that is a chunk long, so the hint to it leads nowhere
    /// now, and clearing it here, where the words are warm, is cheaper than finding it stale later.
    /// The hint to a shorter one may lead to another, and will soon do so again: it stays.
    ///
    /// Within an intent, as every clearing of hints (E16).
    #[inline]
    pub fn retract(&self, lane: &Lane<'_>, head: u32, len: u32) {
        if len >= RETRACT_LEN {
            self.retract_long(lane, head, len);
        }
    }

    #[inline(never)]
    fn retract_long(&self, lane: &Lane<'_>, head: u32, len: u32) {
        let (cell, chunk) = (Cell::of(len), head >> CHUNK_SHIFT);
        let look = || self.scan(chunk, |len| Cell::of(len) == cell).is_some();
        if self.index.clear_leaf_only(cell, chunk, look) {
            self.tell_move(lane);
        }
    }

    /// Says that `chunk` holds no free head of `cell`, and looks again: outside any operation, so that it
    /// tells an intent, which concerns no granule. Returns whether a hint had to be restored.
    pub fn clear_hint(&self, lane: &Lane<'_>, cell: Cell, chunk: u32) -> bool {
        let look = || self.scan(chunk, |len| Cell::of(len) == cell).is_some();
        self.clearing(lane, &|| self.index.clear(cell, chunk, look))
    }

    /// As [`Index::find`], for whoever is in no operation.
    pub(crate) fn find_hint(&self, lane: &Lane<'_>, cell: Cell, below: u32) -> Option<(Cell, u32)> {
        self.index.find(cell, below, |clear| {
            self.clearing(lane, clear);
        })
    }

    /// Clears hints by `clear`, which returns whether it had to restore one, within an intent (E16).
    fn clearing(&self, lane: &Lane<'_>, clear: &dyn Fn() -> bool) -> bool {
        if !mutation::is(Mutation::ClearForgetsIntent) {
            lane.begin(self.len(), self.len());
        }
        let restored = clear();
        if restored && !mutation::is(Mutation::ClearForgetsMove) {
            self.tell_move(lane);
        }
        lane.abandon();
        restored
    }

    /// Begins a walk: from here on, whoever gives a block back says so.
    ///
    /// Returns a number to compare with [`returns`](Self::returns) at the end of the walk.
    pub fn begin_walk(&self) -> u32 {
        let returns = self.returns();
        // Full barrier (E7): then the walk reads the words.
        self.control[counter::WALKS].increment_full();
        returns
    }

    /// Returns how often a block was given back while somebody walked; it wraps.
    pub fn returns(&self) -> u32 {
        self.control[counter::RETURNS].load()
    }

    /// Says to walkers that a block was given back, directly after its free head was made by an
    /// operation with a full barrier (E7).
    ///
    /// A load, unless a walk began since this lane last said so.
    #[inline]
    pub fn tell_walkers(&self, lane: &Lane<'_>) {
        let walks = self.control[counter::WALKS].load();
        if walks != lane.told() && !mutation::is(Mutation::ReturnForgetsWalkers) {
            self.tell_walk(lane, walks);
        }
    }

    #[cold]
    fn tell_walk(&self, lane: &Lane<'_>, walks: u32) {
        // First the number, then the note that it was told: threads may share a lane.
        self.control[counter::RETURNS].increment_full();
        lane.set_told(walks);
    }

    /// Says to whoever proves that nothing is free that a hint was set which was clear, or neighbours were
    /// merged, directly after that was done by an operation with a full barrier (E16).
    #[cold]
    pub fn tell_move(&self, lane: &Lane<'_>) {
        let walks = self.control[counter::WALKS].load();
        if walks != lane.moved() {
            // In this order: threads may share a lane.
            self.control[counter::MOVES].increment_full();
            lane.set_moved(walks);
        }
    }

    /// Begins a proof that nothing is free: from here on, whoever gives back, sets a hint, or merges, says so.
    ///
    /// `None` when something is left that only a walk mends, and once in a while anyhow.
    pub fn begin_proof(&self) -> Option<Stamp> {
        let stamp = self.stamp();
        // Full barrier (E16): then the prover reads the index and the words.
        let walks = self.control[counter::WALKS].increment_full();
        let mended = self.control[counter::MENDED].load() == stamp.loose
            || mutation::is(Mutation::ProofForgetsLoose);
        (mended && walks % PROOFS_PER_WALK != WALK_AT).then_some(stamp)
    }

    /// Tells whether nobody said anything since the proof began that `stamp` is of, and nothing was left loose.
    ///
    /// After the look at the roster: who has taken an intent back has said before whatever there was to say.
    #[must_use]
    pub fn is_undisturbed(&self, stamp: Stamp) -> bool {
        let now = self.stamp();
        (now.returns == stamp.returns || mutation::is(Mutation::ProofForgetsReturns))
            && (now.moves == stamp.moves || mutation::is(Mutation::ProofForgetsMoves))
            && now.loose == stamp.loose
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            returns: self.returns(),
            moves: self.control[counter::MOVES].load(),
            loose: self.loose(),
        }
    }

    /// Says that something is left which only a walk mends: free neighbours apart, a free head without its
    /// hint. Within the intent of the operation that leaves it, or before that of the dead is taken back.
    pub fn loosen(&self) {
        self.control[counter::LOOSE].increment_full();
    }

    /// Returns how often something was left that only a walk mends; it wraps.
    #[must_use]
    pub fn loose(&self) -> u32 {
        self.control[counter::LOOSE].load()
    }

    /// Says that a walk came to its end which began when [`loose`](Self::loose) was so much.
    pub fn mend(&self, loose: u32) {
        // Release (E16): whoever sees it sees what the walk merged and announced.
        if self.control[counter::MENDED].load() != loose {
            self.control[counter::MENDED].store(loose);
        }
    }

    /// Says that memory is short here: thread caches give back what they hold of it.
    pub fn press(&self) {
        self.control[counter::PRESSURE].count(1);
    }

    /// Returns how often memory was short; it wraps. A hint.
    #[inline]
    #[must_use]
    pub fn pressure(&self) -> u32 {
        self.control[counter::PRESSURE].load_relaxed()
    }

    /// Ends what [`Lane::begin`] began: nothing of the range told is in limbo any more.
    ///
    /// A recoverer that looks at a part of it meanwhile is told so first (E8).
    #[inline]
    pub fn done(&self, lane: &Lane<'_>) {
        let Some((at, end)) = lane.told_range() else { return };
        // E8: the exchange that began the limbo was followed by a full barrier.
        if self.control[counter::SUSPECT[1]].load() != 0
            && !mutation::is(Mutation::DoneForgetsSuspect)
        {
            self.touch_suspect(at, end);
        }
        lane.abandon();
    }

    #[cold]
    fn touch_suspect(&self, at: u32, end: u32) {
        let [first, behind] = counter::SUSPECT.map(|word| &self.control[word]);
        let before = behind.load();
        let from = first.load();
        // Two looks that differ: another suspect came meanwhile. Saying so is always allowed.
        if behind.load() != before || (at < before && from < end) {
            self.control[counter::TOUCHED].store(1);
        }
    }

    /// Says that a recoverer looks at `[at, end)`: whoever deals with it from now on says so.
    pub fn suspect(&self, at: u32, end: u32) {
        let [first, behind] = counter::SUSPECT.map(|word| &self.control[word]);
        first.store(at);
        self.control[counter::TOUCHED].store(0);
        // Full barrier (E8): then the recoverer reads the intents and the words.
        behind.swap_full(end);
    }

    /// Tells whether a living thread said that it dealt with what is suspected.
    #[must_use]
    pub fn was_touched(&self) -> bool {
        self.control[counter::TOUCHED].load() != 0
    }

    /// Ends [`suspect`](Self::suspect).
    pub fn acquit(&self) {
        self.control[counter::SUSPECT[1]].store(0);
    }

    /// Returns the length of a free block that is as long as any, as far as the hints tell; 0 when a short look
    /// at them finds none. In granules; a hint.
    #[must_use]
    pub fn longest_hint(&self) -> u32 {
        let mut longest = 0;
        let mut budget = LONGEST_BUDGET;
        self.index.visit_longest(&mut budget, |cell, chunk| {
            longest = self.scan(chunk, |len| Cell::of(len) == cell).map_or(0, |(_, len)| len);
            longest == 0
        });
        longest
    }

    /// Looks through a chunk for a free head whose length `accept` wants, and returns it with its length.
    pub fn scan(&self, chunk: u32, accept: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
        self.scan_heads(chunk, |_, len| accept(len))
    }

    /// As [`scan`](Self::scan); `accept` is given the head's granule, too.
    pub fn scan_heads(
        &self,
        chunk: u32,
        mut accept: impl FnMut(u32, u32) -> bool,
    ) -> Option<(u32, u32)> {
        let mut at = chunk << CHUNK_SHIFT;
        let end = at.saturating_add(CHUNK_LEN).min(self.len());
        while at < end {
            match self.seen_at(at) {
                Seen::Head(am_layout::State::Free, len) if accept(at, len) => {
                    return Some((at, len));
                }
                Seen::Head(_, len) => at = at.saturating_add(len),
                _ => at += 1,
            }
        }
        None
    }
}

/// What was said in a sector when a proof began, in numbers that wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    returns: u32,
    moves: u32,
    loose: u32,
}

/// A stretch of a sector, as a walk meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First granule.
    pub at: u32,
    /// Length in granules.
    pub len: u32,
    /// What the first granule's word says: a head, or else limbo of `len` granules.
    pub seen: Seen,
}

/// A walk over a sector by its head words.
///
/// Exact when nothing is in flight. Beside live traffic each run was true when it was read, and a
/// block that changed under the walk shows as limbo.
#[derive(Clone, Debug)]
pub struct Runs<'s, 'a, H> {
    sector: &'s Sector<'a, H>,
    at: u32,
}

impl<'a, H: Headers> Sector<'a, H> {
    /// Walks the sector from its origin.
    #[must_use]
    pub fn runs(&self) -> Runs<'_, 'a, H> {
        Runs { sector: self, at: 0 }
    }
}

impl<H: Headers> Iterator for Runs<'_, '_, H> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let at = self.at;
        if at >= self.sector.len() {
            return None;
        }
        let seen = self.sector.seen_at(at);
        let len = match seen {
            Seen::Head(_, len) => len,
            Seen::Illegal(_) => 1,
            Seen::Interior | Seen::Tail(_) => {
                let inside = |&granule: &u32| {
                    matches!(self.sector.seen_at(granule), Seen::Interior | Seen::Tail(_))
                };
                (at..self.sector.len()).take_while(inside).count() as u32
            }
        };
        // At least one granule: a word that changed under the walk must not hold it up.
        let len = len.max(1);
        self.at = at.saturating_add(len);
        Some(Run { at, len, seen })
    }
}
