//! Where everything of a topic lies in its words.

use crate::group::Group;
use crate::slot::{ABORTED, PUBLISHED, Place, Seq, Slot, state};
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
pub const HELD_MAX: usize = 2 * READERS;
/// Groups that a topic can ever have. The models have none, which spares them the looks.
pub const GROUPS: usize = if cfg!(loom) { 0 } else { 8 };
/// Members that a group can have at once.
pub const MEMBERS: usize = if cfg!(loom) { 2 } else { 32 };
/// Returned messages that a group has room for, beside those that members keep.
pub const RETURNS: usize = 2 * MEMBERS;
/// Wide words of a pair of cache lines: processors fetch two at a time.
const LINE: usize = if cfg!(loom) { 4 } else { 16 };

const MAGIC: u64 = 0x746f_7069_6300_0001; // "topic", version 1
const MAGIC_AT: usize = 0;
const SHAPE_AT: usize = 1;
const SET_AT: usize = 2;
const TAIL_AT: usize = LINE;
const JOINS_AT: usize = 2 * LINE;
const READERS_AT: usize = 3 * LINE;
const POSTERS_AT: usize = READERS_AT + READERS * LINE;
const ORPHANS_AT: usize = POSTERS_AT + POSTERS;
const GROUPS_AT: usize = (ORPHANS_AT + 2 * HELD_MAX).next_multiple_of(LINE);
/// Wide words of a member: a cache line.
const MEMBER: usize = if cfg!(loom) { 4 } else { 8 };
const GROUP: usize = LINE + MEMBERS * MEMBER + RETURNS;
/// Wide words before the slots.
pub const WIDES_FIXED: usize = GROUPS_AT + (GROUPS * GROUP).next_multiple_of(LINE);
/// Wide words of a slot.
const SLOT: usize = 4;
const BELL_AT: usize = 0;
const SLEEPERS_AT: usize = if cfg!(loom) { 1 } else { 32 };

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
    /// Names what the messages are made of, for whoever opens the topic.
    pub set: u64,
}

impl Shape {
    /// Fewest slots, as a power of two: a batch, and as many again.
    pub const SLOTS_LOG_MIN: u32 = if cfg!(loom) { 1 } else { 7 };
    /// Most slots, as a power of two.
    pub const SLOTS_LOG_MAX: u32 = 24;

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

    /// Returns how many wide words the topic needs.
    #[must_use]
    pub const fn wides(&self) -> usize {
        WIDES_FIXED + SLOT * self.slots() as usize
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
    wides: &'a [Wide],
    shape: Shape,
}

impl<'a> Topic<'a> {
    /// 32-bit words that a topic needs beside its wide ones.
    pub const WORDS: usize = SLEEPERS_AT + 1;

    /// Makes a topic in words that are all zero and that nobody else uses yet.
    ///
    /// # Errors
    /// [`BadTopic::BadShape`] or [`BadTopic::TooShort`].
    pub fn format(words: &'a [Word], wides: &'a [Wide], shape: Shape) -> Result<Self, BadTopic> {
        let topic = Self::over(words, wides, shape)?;
        for number in 0..shape.slots() {
            // As if the first turn had been aborted: nothing to take back.
            topic.slot(number).state.store_relaxed(state(number, ABORTED));
        }
        topic.tail().store_relaxed(Tail { next: shape.slots(), last: ABORTED }.raw());
        wides[SET_AT].store_relaxed(shape.set);
        let flow = u64::from(shape.flow == Flow::Lossy);
        wides[SHAPE_AT].store_relaxed(u64::from(shape.slots_log) | flow << 32);
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
        let raw = wides[SHAPE_AT].load_relaxed();
        let flow = match raw >> 32 {
            0 => Flow::Lossless,
            1 => Flow::Lossy,
            _ => return Err(BadTopic::BadShape),
        };
        let set = wides[SET_AT].load_relaxed();
        Self::over(words, wides, Shape { slots_log: raw as u32, flow, set })
    }

    fn over(words: &'a [Word], wides: &'a [Wide], shape: Shape) -> Result<Self, BadTopic> {
        if !(Shape::SLOTS_LOG_MIN..=Shape::SLOTS_LOG_MAX).contains(&shape.slots_log) {
            return Err(BadTopic::BadShape);
        }
        if words.len() < Self::WORDS || wides.len() < shape.wides() {
            return Err(BadTopic::TooShort);
        }
        Ok(Self { words, wides, shape })
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
    pub fn bell(&self) -> &'a Word {
        &self.words[BELL_AT]
    }

    /// How many readers sleep, or are about to.
    #[must_use]
    #[inline]
    pub fn sleepers(&self) -> &'a Word {
        &self.words[SLEEPERS_AT]
    }

    /// How many readers may ever sleep: while there is none, posters need not ask for
    /// [sleepers](Self::sleepers).
    #[must_use]
    #[inline]
    pub fn nappers(&self) -> &'a Wide {
        &self.wides[JOINS_AT + 1]
    }

    /// How many readers follow others: while there is none, a reader that goes on need not tell anybody.
    #[must_use]
    pub fn followers(&self) -> &'a Wide {
        &self.wides[JOINS_AT + 2]
    }

    /// Counts a reader that may sleep, or one less.
    pub fn count_napper(&self, more: i64) {
        Self::count(self.nappers(), more);
    }

    /// Counts a reader that follows others, or one less.
    pub fn count_follower(&self, more: i64) {
        Self::count(self.followers(), more);
    }

    fn count(word: &Wide, more: i64) {
        // Bounded: who loses a million exchanges leaves the count wrong, which costs time, or a slice of sleep.
        let mut seen = word.load();
        for _ in 0..1 << 20 {
            match word.cas_full(seen, seen.saturating_add_signed(more)) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Returns where a message lies, if it is there to be read; a hint.
    #[must_use]
    #[inline]
    pub fn glimpse(&self, seq: Seq) -> Option<Place> {
        let number = seq.slot_number(&self.shape);
        let slot = self.slot(number);
        let is_there = slot.state.load() == state(number, PUBLISHED);
        is_there.then(|| Place::from_raw(slot.place.load_relaxed())).flatten()
    }

    /// Returns what the slot of a message names by now, and where that stands: for who will overwrite it soon,
    /// and wants its lines before. A hint.
    #[must_use]
    #[inline]
    pub fn ahead(&self, seq: Seq) -> (Option<Place>, &'a Wide) {
        let slot = self.slot(seq.slot_number(&self.shape));
        (Place::from_raw(slot.place.load_relaxed()), slot.place)
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
        let index = (number & (self.shape.slots() - 1)) as usize;
        Slot::over(&self.wides[WIDES_FIXED + SLOT * index..][..SLOT])
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
        let wides = &self.wides[GROUPS_AT..GROUPS_AT + GROUPS * GROUP];
        wides.chunks_exact(GROUP).map(move |wides| {
            let (head, rest) = wides.split_at(LINE);
            let (members, returns) = rest.split_at(MEMBERS * MEMBER);
            Group::over(topic, head, members, returns)
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
