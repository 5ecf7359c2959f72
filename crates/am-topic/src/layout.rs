//! Where everything of a topic lies in its words.

use crate::group::Group;
use crate::seats::{SET, SeatSet};
use crate::slot::{ABORTED, PUBLISHED, Place, SLOT, Seq, Slot, state};
use am_layout::{Wide, Word};

/// Readers that a topic can have at once.
#[cfg(not(loom))]
pub const READERS: usize = 64;
/// Readers that a topic can have at once.
#[cfg(loom)]
pub const READERS: usize = 2;
/// Posters that a topic can have at once.
pub const POSTERS: usize = if cfg!(loom) { 3 } else { 64 };
/// Messages that readers of a lossy topic can hold at once while their slots are used again.
pub const HELD_MAX: usize =
    if cfg!(loom) { 2 * READERS } else { READERS + GROUPS * MEMBERS + POSTERS };
/// Groups that a topic can ever have.
pub const GROUPS: usize = if cfg!(loom) { 1 } else { 8 };
/// Members that a group can have at once.
pub const MEMBERS: usize = if cfg!(loom) { 2 } else { 32 };
/// Returned messages that a group has room for, beside those that members keep.
pub const RETURNS: usize = if cfg!(loom) { 1 } else { 2 * MEMBERS };
/// Wide words of a pair of cache lines: processors fetch two at a time.
const LINE: usize = if cfg!(loom) { 4 } else { 16 };

const MAGIC: u64 = 0x746f_7069_6300_0002; // "topic", version 2
const MAGIC_AT: usize = 0;
const SHAPE_AT: usize = 1;
const SET_AT: usize = 2;
const TAIL_AT: usize = LINE;
const JOINS_AT: usize = 2 * LINE;
const NAPPERS_AT: usize = JOINS_AT + 1;
const FOLLOWERS_AT: usize = NAPPERS_AT + SET;
/// In lines of its own: it changes whenever a reader waits for its bell.
const ARMED_AT: usize = (FOLLOWERS_AT + SET).next_multiple_of(LINE);
const READERS_AT: usize = ARMED_AT + SET.next_multiple_of(LINE);
const POSTERS_AT: usize = READERS_AT + READERS * LINE;
const ORPHANS_AT: usize = POSTERS_AT + POSTERS;
const GROUPS_AT: usize = (ORPHANS_AT + 2 * HELD_MAX).next_multiple_of(LINE);
/// Wide words of a member: a cache line.
const MEMBER: usize = if cfg!(loom) { 3 } else { 8 };
const GROUP: usize = LINE + MEMBERS * MEMBER + RETURNS;
/// Wide words of all groups. In a model build they lie behind the slots, and only in those topics that have groups,
/// which spares the others the looks.
pub const WIDES_OF_GROUPS: usize = (GROUPS * GROUP).next_multiple_of(LINE);
/// Wide words before the slots.
pub const WIDES_FIXED: usize = if cfg!(loom) { GROUPS_AT } else { GROUPS_AT + WIDES_OF_GROUPS };
const WAKES_AT: usize = 0;
const ASLEEP_AT: usize = if cfg!(loom) { 1 } else { 32 };

/// What becomes of messages that a slow reader has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They stay: posters find no room until every reader has gone on.
    Lossless,
    /// They are overrun: posters never wait, and the reader learns how many it missed.
    Lossy,
}

/// What a topic is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots, as a power of two.
    pub slots_log: u32,
    /// What becomes of unread messages.
    pub flow: Flow,
    /// Bytes of a slot's cell, which short messages are copied into: 0 for no cells, or a power of two from
    /// [`CELL_BYTES_MIN`](Self::CELL_BYTES_MIN) to [`CELL_BYTES_MAX`](Self::CELL_BYTES_MAX).
    ///
    /// Only lossless topics have cells: their readers' cursors keep a cell as it is while it is looked at.
    pub cell_bytes: u32,
    /// Names what the messages are made of, for whoever opens the topic.
    pub set: u64,
    /// Each message's [tag](crate::Entry::tag) is the time at which it was posted.
    pub stamped: bool,
}

/// Bits of the word that says the shape, over the slots' power of two and the length of cells.
const LOSSY_BIT: u64 = 1 << 32;
const STAMPED_BIT: u64 = 1 << 33;

impl Shape {
    /// Fewest slots, as a power of two: a batch, and as many again.
    pub const SLOTS_LOG_MIN: u32 = if cfg!(loom) { 1 } else { 7 };
    /// Most slots, as a power of two.
    pub const SLOTS_LOG_MAX: u32 = 24;
    /// Shortest cell, in bytes: a cache line, to which all cells are aligned.
    pub const CELL_BYTES_MIN: u32 = 64;
    /// Longest cell, in bytes.
    pub const CELL_BYTES_MAX: u32 = 1024;

    /// Returns how many slots there are.
    #[must_use]
    #[inline]
    pub const fn slots(&self) -> u64 {
        1 << self.slots_log
    }

    /// Returns how many messages a reader that comes late finds at the least, when as many were posted.
    #[must_use]
    pub const fn history(&self) -> u64 {
        self.slots() - self.batch_max()
    }

    /// Returns how many messages one poster claims at once, at the most.
    #[must_use]
    pub const fn batch_max(&self) -> u64 {
        if cfg!(loom) { self.slots() / 2 } else { 64 }
    }

    /// Returns how many wide words the topic needs, cells included.
    #[must_use]
    pub const fn wides(&self) -> usize {
        WIDES_FIXED + (SLOT + self.cell_wides()) * self.slots() as usize
    }

    const fn cell_wides(&self) -> usize {
        self.cell_bytes as usize / size_of::<u64>()
    }

    fn is_valid(&self) -> bool {
        let cells = Self::CELL_BYTES_MIN..=Self::CELL_BYTES_MAX;
        let has_cells = cells.contains(&self.cell_bytes)
            && self.cell_bytes.is_power_of_two()
            && self.flow == Flow::Lossless;
        let slots = Self::SLOTS_LOG_MIN..=Self::SLOTS_LOG_MAX;
        slots.contains(&self.slots_log) && (self.cell_bytes == 0 || has_cells)
    }

    /// The shape as the topic's words tell it, all but its set.
    fn raw(&self) -> u64 {
        let lossy = if self.flow == Flow::Lossy { LOSSY_BIT } else { 0 };
        let stamped = if self.stamped { STAMPED_BIT } else { 0 };
        u64::from(self.slots_log) | u64::from(self.cell_bytes) << 8 | lossy | stamped
    }

    fn from_raw(raw: u64, set: u64) -> Option<Self> {
        let flow = if raw & LOSSY_BIT == 0 { Flow::Lossless } else { Flow::Lossy };
        let (slots_log, cell_bytes) = (raw as u32 & 0xff, raw as u32 >> 8);
        let shape = Self { slots_log, flow, cell_bytes, set, stamped: raw & STAMPED_BIT != 0 };
        // No other bits.
        (shape.is_valid() && shape.raw() == raw).then_some(shape)
    }
}

/// A topic's words are not those of a topic, or of another one than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    /// There is no topic here, or another version's.
    #[error("no topic of this version lies here")]
    NoTopic,
    /// The words end before the topic does.
    #[error("the topic's block is shorter than its shape says")]
    TooShort,
    /// The shape is none.
    #[error("the topic's shape is out of range")]
    BadShape,
}

/// One topic: a view over its words. What it is made with is read once and kept privately.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    words: &'a [Word],
    /// Those before the slots.
    wides: &'a [Wide],
    /// As many as a power of two.
    slots: &'a [[Wide; SLOT]],
    cells: &'a [Wide],
    groups: &'a [Wide],
    cell_wides: usize,
    shape: Shape,
}

impl<'a> Topic<'a> {
    /// 32-bit words that a topic needs beside its wide ones.
    pub const WORDS: usize = ASLEEP_AT + 1;

    /// Makes a topic in words that are all zero and that nobody else uses yet.
    ///
    /// # Errors
    /// [`BadTopic::BadShape`] or [`BadTopic::TooShort`].
    pub fn format(words: &'a [Word], wides: &'a [Wide], shape: Shape) -> Result<Self, BadTopic> {
        let topic = Self::over(words, wides, shape)?;
        for number in 0..shape.slots() {
            // As if the first turn had been aborted: nothing to take back.
            topic.slot(number).state().store_relaxed(state(number, ABORTED));
        }
        topic.tail().store_relaxed(Tail { next: shape.slots(), last: ABORTED }.raw());
        wides[SET_AT].store_relaxed(shape.set);
        wides[SHAPE_AT].store_relaxed(shape.raw());
        // Release: publishes the rest to whoever opens the topic.
        wides[MAGIC_AT].store(MAGIC);
        Ok(topic)
    }

    /// Looks at words as a topic.
    ///
    /// # Errors
    /// [`BadTopic`] when they hold none.
    pub fn open(words: &'a [Word], wides: &'a [Wide]) -> Result<Self, BadTopic> {
        if wides.len() < WIDES_FIXED {
            return Err(BadTopic::TooShort);
        }
        if wides[MAGIC_AT].load() != MAGIC {
            return Err(BadTopic::NoTopic);
        }
        let (raw, set) = (wides[SHAPE_AT].load_relaxed(), wides[SET_AT].load_relaxed());
        let shape = Shape::from_raw(raw, set).ok_or(BadTopic::BadShape)?;
        Self::over(words, wides, shape)
    }

    fn over(words: &'a [Word], wides: &'a [Wide], shape: Shape) -> Result<Self, BadTopic> {
        if !shape.is_valid() {
            return Err(BadTopic::BadShape);
        }
        if words.len() < Self::WORDS || wides.len() < shape.wides() {
            return Err(BadTopic::TooShort);
        }
        let groups_at = if cfg!(loom) { shape.wides() } else { GROUPS_AT };
        let groups = wides.get(groups_at..groups_at + GROUPS * GROUP).unwrap_or_default();
        let (wides, rest) = wides[..shape.wides()].split_at(WIDES_FIXED);
        let (slots, cells) = rest.split_at(SLOT * shape.slots() as usize);
        let (slots, _) = slots.as_chunks();
        let cell_wides = shape.cell_wides();
        Ok(Self { words, wides, slots, cells, groups, cell_wides, shape })
    }

    /// Returns what the topic is made with.
    #[must_use]
    #[inline]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The word that parked readers sleep on; it changes whenever they shall look again.
    #[must_use]
    #[inline]
    pub fn wakes(&self) -> &'a Word {
        &self.words[WAKES_AT]
    }

    /// Says whether readers sleep, or wait for their bells.
    #[must_use]
    #[inline]
    pub fn asleep(&self) -> &'a Word {
        &self.words[ASLEEP_AT]
    }

    /// The readers that may ever sleep: while there is none, posters need not ask whether any is
    /// [asleep](Self::asleep).
    #[must_use]
    #[inline]
    pub fn nappers(&self) -> SeatSet<'a> {
        SeatSet::over(&self.wides[NAPPERS_AT..NAPPERS_AT + SET])
    }

    /// The readers that follow others: while there is none, a reader that goes on need not tell anybody.
    #[must_use]
    #[inline]
    pub fn followers(&self) -> SeatSet<'a> {
        SeatSet::over(&self.wides[FOLLOWERS_AT..FOLLOWERS_AT + SET])
    }

    /// The readers that wait for their bells, or are about to.
    #[must_use]
    pub fn armed(&self) -> SeatSet<'a> {
        SeatSet::over(&self.wides[ARMED_AT..ARMED_AT + SET])
    }

    /// Returns where a message lies, if it is there to be read; a hint.
    #[must_use]
    #[inline]
    pub fn glimpse(&self, seq: Seq) -> Option<Place> {
        let number = seq.slot_number(&self.shape);
        let slot = self.slot(number);
        let is_there = slot.state().load() == state(number, PUBLISHED);
        is_there.then(|| Place::from_raw(slot.place().load_relaxed())).flatten()
    }

    /// Returns where a message's slot stands: for who will overwrite it soon, and wants its line before.
    #[must_use]
    #[inline]
    pub fn slot_words(&self, seq: Seq) -> *const Wide {
        self.slot(seq.slot_number(&self.shape)).0.as_ptr()
    }

    /// Returns where the message lies, or lay, whose slot this one will have. A hint.
    #[must_use]
    #[inline]
    pub fn last_place(&self, seq: Seq) -> Option<Place> {
        Place::from_raw(self.slot(seq.slot_number(&self.shape)).place().load_relaxed())
    }

    /// Returns the cell of a message's slot, for its bytes; empty in a topic without cells.
    ///
    /// From the [claim](crate::Claim) to the publication it is the claimer's, and then stays as it is until every
    /// reader's cursor has passed (M1).
    #[must_use]
    #[inline]
    pub fn cell(&self, seq: Seq) -> &'a [Wide] {
        self.cell_of(seq.slot_number(&self.shape))
    }

    #[inline]
    pub(crate) fn cell_of(&self, number: u64) -> &'a [Wide] {
        &self.cells[self.cell_wides * self.index_of(number)..][..self.cell_wides]
    }

    /// Returns the number that the next message will have.
    #[must_use]
    pub fn next(&self) -> Seq {
        Seq::from_slot_number(self.load_tail().next, &self.shape)
    }

    #[inline]
    pub(crate) fn tail(&self) -> &'a Wide {
        &self.wides[TAIL_AT]
    }

    #[inline]
    pub(crate) fn load_tail(&self) -> Tail {
        Tail::from_raw(self.tail().load())
    }

    /// How often somebody joined as a reader.
    #[inline]
    pub(crate) fn joins(&self) -> &'a Wide {
        &self.wides[JOINS_AT]
    }

    #[inline]
    pub(crate) fn slot(&self, number: u64) -> Slot<'a> {
        Slot(&self.slots[self.index_of(number)])
    }

    #[inline]
    fn index_of(&self, number: u64) -> usize {
        number as usize & (self.slots.len() - 1)
    }

    #[inline]
    pub(crate) fn seat(&self, reader: usize) -> Seat<'a> {
        Seat(&self.wides[READERS_AT + reader * LINE..][..LINE])
    }

    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat<'a>> + use<'a> {
        self.wides[READERS_AT..POSTERS_AT].chunks_exact(LINE).map(Seat)
    }

    /// Who posts by each number: an owner as headers name it, 0 for nobody.
    pub(crate) fn poster_slot(&self, number: usize) -> &'a Wide {
        &self.wides[POSTERS_AT + number]
    }

    pub(crate) fn orphans(&self) -> impl Iterator<Item = Orphan<'a>> + use<'a> {
        let wides = &self.wides[ORPHANS_AT..ORPHANS_AT + 2 * HELD_MAX];
        wides.chunks_exact(2).map(|two| Orphan { state: &two[0], place: &two[1] })
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let topic = *self;
        self.groups.chunks_exact(GROUP).enumerate().map(move |(index, wides)| {
            let (head, rest) = wides.split_at(LINE);
            let (members, returns) = rest.split_at(MEMBERS * MEMBER);
            Group::over(topic, index, head, members, returns)
        })
    }

    /// The lowest number that a reader who joins now may still read, when the tail is at `next`.
    ///
    /// One poster that has not heard of it may claim one batch yet.
    pub(crate) fn oldest(&self, next: u64) -> u64 {
        let slots = self.shape.slots();
        next.saturating_add(self.shape.batch_max()).saturating_sub(slots).max(slots).min(next)
    }
}

/// The numbers of the wide words that say something while few take part in a topic: its head, and the first seats,
/// posters' numbers, orphans and slots, and of the first group the head, the first members and returns.
///
/// For tools that damage them on purpose.
#[doc(hidden)]
pub fn telling_wides() -> impl Iterator<Item = usize> {
    /// First things of each kind.
    const FEW: usize = 3;
    const SLOTS: usize = 8;
    let words = |at: usize, stride: usize, used: usize| {
        (0..FEW).flat_map(move |number| (0..used).map(move |word| at + stride * number + word))
    };
    let members_at = GROUPS_AT + LINE;
    let returns_at = members_at + MEMBERS * MEMBER;
    let head = [MAGIC_AT, SHAPE_AT, SET_AT, TAIL_AT, JOINS_AT, JOINS_AT + 1, JOINS_AT + 2];
    let group = [GROUPS_AT, GROUPS_AT + 1, GROUPS_AT + 2];
    let slots = WIDES_FIXED..WIDES_FIXED + SLOTS * SLOT;
    (head.into_iter().chain(words(READERS_AT, LINE, 4)).chain(words(POSTERS_AT, 1, 1)))
        .chain(words(ORPHANS_AT, 2, 2))
        .chain(group)
        .chain(words(members_at, MEMBER, 3))
        .chain(words(returns_at, 1, 1))
        .chain(slots)
}

/// What the tail says: the number of the next message, and who claimed the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub next: u64,
    /// The claimer's code, as in a slot's state.
    pub last: u64,
}

impl Tail {
    pub fn from_raw(raw: u64) -> Self {
        Self { next: raw >> 8, last: raw & 0xff }
    }

    pub fn raw(self) -> u64 {
        self.next << 8 | self.last
    }
}

/// A reader's place in the topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a>(&'a [Wide]);

impl<'a> Seat<'a> {
    /// Everything below this number the reader is done with.
    pub fn cursor(&self) -> &'a Wide {
        &self.0[0]
    }

    /// The place that the reader looks at, in a lossy topic; 0 for none.
    pub fn hold(&self) -> &'a Wide {
        &self.0[1]
    }

    /// 0 when nobody has the seat; else 2 × the owner, + 1 when its cursor counts.
    pub fn owner(&self) -> &'a Wide {
        &self.0[2]
    }

    /// How many readers had the seat, this one included.
    pub fn turn(&self) -> &'a Wide {
        &self.0[3]
    }

    /// The reader's cursor, if it counts.
    pub fn gate(&self) -> Option<u64> {
        // Acquire, both: the cursor is at least as new as what the owner word says, and whoever is gated by
        // it comes after the reader's last look at what lies before.
        (self.owner().load() & 1 == 1).then(|| self.cursor().load())
    }
}

/// A message whose slot went on while a reader still held it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orphan<'a> {
    /// 0 for none, [`LEFT`], or the code of the poster that is about to change it.
    pub state: &'a Wide,
    pub place: &'a Wide,
}

/// An orphan that waits for its last holder.
pub(crate) const LEFT: u64 = 1;

#[cfg(all(test, not(loom)))]
mod tests;
