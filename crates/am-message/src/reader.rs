//! Reading: looking ahead, taking note, letting go.

use crate::cell;
use crate::source::Source;
use crate::topic::Shared;
use crate::vigil::{Vigil, until};
use crate::{BadMessage, KindOf, MessageSet};
use am_layout::{Offset, Wide};
use am_matrix::{Matrix, prefetch_for_read};
use am_shm::{Bell, WaitStrategy, Waiter};
use am_topic::{Held, Next, Place, ReaderId, Seq};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Sees every message of a topic from where it started on, or its share of a [group's](crate::ReaderBuilder::group).
/// For one thread at a time. In a child that inherited it by fork it finds nothing: the seat is its parent's.
pub struct Reader<S: MessageSet + ?Sized> {
    /// Stands before what it looks into.
    pub(crate) source: ManuallyDrop<Source>,
    pub(crate) shared: Arc<Shared>,
    waiter: Waiter,
    pub(crate) bell: Option<Bell>,
    /// It follows other readers, who wake it.
    follows: bool,
    pub(crate) damaged: u64,
    pub(crate) vigil: Vigil,
    /// The messages of the batch at hand.
    pub(crate) found: Vec<Found>,
    /// Messages before this number are there to be read: a hint.
    there: u64,
    /// The number from which on it is worth looking again how many more are there.
    probe: u64,
    _set: PhantomData<Box<S>>,
}

/// Messages that are looked ahead at once for how many there are.
const PROBE: u64 = 16;
/// How many messages ahead of the one at hand are fetched, if they are there.
const AHEAD: u64 = 6;

/// What is known of a message without looking at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its number in the topic, from 0.
    pub seq: Seq,
    /// The index of its kind in the set.
    pub kind: u32,
    /// Its length in bytes.
    pub len_bytes: usize,
    /// The number of its poster.
    pub poster: u32,
    /// When it was posted; 0 in a topic that is not stamped.
    pub(crate) stamp_ns: u64,
}

impl Info {
    /// What the slot says; `stamped` is the topic's.
    pub(crate) fn of(held: &Held, stamped: bool) -> Self {
        let entry = &held.entry;
        Self {
            seq: held.seq,
            kind: entry.kind,
            len_bytes: entry.place.len as usize,
            poster: entry.poster,
            stamp_ns: if stamped { entry.tag } else { 0 },
        }
    }
}

impl<S: MessageSet + ?Sized> Reader<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        source: Source,
        strategy: WaitStrategy,
        follows: bool,
        bell: Option<Bell>,
    ) -> Self {
        // Whoever recovers this seat takes it out of both.
        if follows {
            shared.topic.followers().insert(source.seat_number());
        }
        if bell.is_some() || matches!(strategy, WaitStrategy::SpinThenPark { .. }) {
            shared.topic.nappers().insert(source.seat_number());
        }
        let waiter = Waiter::new(strategy);
        Self {
            source: ManuallyDrop::new(source),
            shared,
            waiter,
            bell,
            follows,
            damaged: 0,
            vigil: Vigil::default(),
            found: Vec::new(),
            there: 0,
            probe: 0,
            _set: PhantomData,
        }
    }

    /// Takes the next message; waits for it.
    ///
    /// The message is looked at where it lies, and stays as it is until what is returned is dropped.
    #[inline]
    pub fn read(&mut self) -> Received<'_, S> {
        loop {
            if let Some(found) = self.look_until(None) {
                return self.receive(found);
            }
        }
    }

    /// Takes the next message, if it is there.
    #[inline]
    pub fn try_read(&mut self) -> Option<Received<'_, S>> {
        let found = self.look()?;
        Some(self.receive(found))
    }

    /// Takes the next message; waits no longer than that.
    pub fn read_timeout(&mut self, timeout: Duration) -> Option<Received<'_, S>> {
        let found = self.look_until(until(timeout))?;
        Some(self.receive(found))
    }

    /// Looks at what is there, from the next message on, without taking any of it.
    ///
    /// In a lossy topic it may be gone before it is taken.
    pub fn inquire(&self) -> impl Iterator<Item = Info> + '_ {
        let seen = (0..).map_while(|ahead| self.source.peek(ahead));
        let stamped = self.is_stamped();
        seen.map(move |held| Info::of(&held, stamped))
    }

    /// As [`inquire`](Self::inquire), of one kind.
    pub fn inquire_kind<K: KindOf<S> + ?Sized>(&self) -> impl Iterator<Item = Info> + '_ {
        self.inquire().filter(|info| info.kind == K::INDEX)
    }

    /// Returns how many messages this reader has lost and will never see: overrun before it came to them,
    /// not finished by a poster that died, or damaged.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.source.missed() + self.damaged
    }

    /// Returns how others [follow](crate::ReaderBuilder::after_id) this reader, in whichever process; `None` for a
    /// member of a group.
    #[must_use]
    pub fn id(&self) -> Option<ReaderId> {
        self.source.id()
    }

    /// Tells whether every reader that this one [follows](crate::ReaderBuilder::after) is there still.
    #[must_use]
    pub fn follows_all(&self) -> bool {
        self.source.follows_all()
    }

    /// Returns the number of the message that comes next, but for those that members of its group gave back.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.source.cursor()
    }

    pub(crate) fn is_stamped(&self) -> bool {
        self.shared.topic.shape().stamped
    }

    /// Whether it has to ask now and then who is dead, while it waits: it waits for other readers.
    pub(crate) fn depends(&self) -> bool {
        self.follows || self.source.is_member()
    }

    fn look_until(&mut self, deadline: Option<Instant>) -> Option<Found> {
        self.wait_until(deadline, Self::look)
    }

    /// Waits until `look` finds something, or time is over.
    pub(crate) fn wait_until<T>(
        &mut self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = look(self) {
            return Some(found);
        }
        let mut waiter = self.waiter.clone();
        let shared = self.shared.clone();
        loop {
            // Who waits for other readers asks now and then whether they are dead.
            let turn = self.depends().then(|| self.vigil.due());
            let end = turn.into_iter().chain(deadline).min();
            let found = waiter.wait(shared.berth(), || look(self), end);
            if found.is_some() {
                return found;
            }
            if turn.is_some() {
                self.vigil.wait(&shared.matrix);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
        }
    }

    /// The next message, held and checked.
    #[inline(always)]
    pub(crate) fn look(&mut self) -> Option<Found> {
        if !self.shared.matrix.is_ours() {
            // What follows would move the parent's cursor.
            return None;
        }
        loop {
            let Next::Message(held) = self.source.next() else {
                prefetch_for_read(self.shared.topic.lines(self.source.cursor()).1);
                if self.depends() {
                    self.vigil.look(&self.shared.matrix);
                }
                return None;
            };
            if let Some(found) = self.check(held) {
                self.fetch_ahead(held.seq.0);
                return Some(found);
            }
            self.pass_over();
        }
    }

    /// Fetches messages that wait behind the one at hand, from the caches of who posted them.
    #[inline]
    fn fetch_ahead(&mut self, seq: u64) {
        let topic = &self.shared.topic;
        if seq >= self.probe {
            // Seldom: the slots ahead are being written, and their lines are wanted there.
            self.probe = seq + PROBE;
            if topic.glimpse(Seq(seq + PROBE)).is_some() {
                self.there = seq + PROBE;
            }
        }
        if seq + AHEAD < self.there
            && let Some(place) = topic.glimpse(Seq(seq + AHEAD))
        {
            if place.is_in_cell() {
                prefetch_for_read(topic.lines(Seq(seq + AHEAD)).1);
            } else {
                self.shared.matrix.prefetch_payload(Offset::from_raw(place.offset));
            }
        }
    }

    /// Is done with a damaged message that is held, whatever happens to this thread.
    pub(crate) fn pass_over(&mut self) {
        self.source.done(1);
        self.shared.rouse_followers();
    }

    /// Ends the looks at `count` messages, from the held one on.
    #[inline]
    pub(crate) fn end(&mut self, fate: Fate, count: u64) {
        if !self.shared.matrix.is_ours() {
            return;
        }
        match fate {
            // A member that fails has not done it.
            Fate::Done if !(self.source.is_member() && thread::panicking()) => {
                self.source.done(count);
                self.shared.rouse_followers();
            }
            Fate::Kept => self.source.put_off(),
            Fate::Done | Fate::Returned => {
                self.source.give_back();
                self.shared.rouse();
            }
        }
    }

    /// Checks where a message that is held lies; counts one that somebody scribbled on.
    #[inline(always)]
    pub(crate) fn check(&mut self, held: Held) -> Option<Found> {
        let cell = self.shared.topic.cell(held.seq);
        let found = check(&self.shared.matrix, cell, held);
        self.damaged += u64::from(found.is_none());
        found
    }

    #[inline]
    pub(crate) fn receive(&mut self, found: Found) -> Received<'_, S> {
        Received { reader: self, found, fate: Fate::Done }
    }
}

/// Checks where a message that is held lies, in its slot's cell or elsewhere; `None` when somebody scribbled on it.
#[inline(always)]
pub(crate) fn check(matrix: &Matrix, cell: &[Wide], held: Held) -> Option<Found> {
    let place = held.entry.place;
    let payload = if place.is_in_cell() {
        cell::bytes(cell, place.len as usize)?.cast_mut()
    } else {
        std::ptr::from_ref(block_of(matrix, place)?).cast_mut()
    };
    Some(Found { held, payload: NonNull::new(payload)? })
}

fn block_of(matrix: &Matrix, place: Place) -> Option<&[u8]> {
    // SAFETY: a published message is nobody's block, and stays as it is while it is held (M1).
    let bytes = unsafe { matrix.common_bytes(Offset::from_raw(place.offset)) };
    bytes.ok().filter(|bytes| bytes.len() == place.len as usize)
}

/// A message that a reader holds.
pub(crate) struct Found {
    pub held: Held,
    payload: NonNull<[u8]>,
}

// SAFETY: a pointer to bytes that nobody writes while they are held; it is used through the guards only.
unsafe impl Send for Found {}
// SAFETY: as above.
unsafe impl Sync for Found {}

impl Found {
    /// The payload's bytes.
    ///
    /// # Safety
    /// The message is held as long as they are used, and the matrix that it lies in is there.
    pub unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: the payload lies in the arena, and was checked; the rest the caller promises (M1).
        unsafe { self.payload.as_ref() }
    }
}

/// A message, looked at where it lies. Dropping it lets it go, and the reader goes on: in a group, the message is
/// done then, unless the thread panics: then it is given back.
pub struct Received<'r, S: MessageSet + ?Sized> {
    reader: &'r mut Reader<S>,
    found: Found,
    fate: Fate,
}

/// What becomes of a message when its guard is dropped.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Done,
    Kept,
    Returned,
}

impl<S: MessageSet + ?Sized> Received<'_, S> {
    /// Returns what the message is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever posted it made it by other means.
    #[inline]
    pub fn view(&self) -> Result<S::View<'_>, BadMessage> {
        S::view(self.found.held.entry.kind, self.bytes())
    }

    /// Returns the payload's bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the reader's matrix keeps the arena, and the message is held as long as this guard lives.
        unsafe { self.found.bytes() }
    }

    /// Returns what is known of it.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.found.held, self.reader.is_stamped())
    }

    /// What its poster tagged it with.
    pub(crate) fn tag(&self) -> u64 {
        self.found.held.entry.tag
    }

    /// Returns its number in the topic, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.found.held.seq
    }

    /// Tells whether every reader that its reader [follows](crate::ReaderBuilder::after) is there still: then
    /// all of them have let this message go.
    #[must_use]
    pub fn follows_all(&self) -> bool {
        self.reader.source.follows_all()
    }

    /// Tells whether the message was delivered to its group before, and not finished.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.attempts() > 0
    }

    /// Returns how often the message was delivered to its group before; 15 for more, 0 for a reader in no group.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.reader.source.attempts()
    }

    /// Lets the message go without taking it: this reader gets it again.
    pub fn put_back(mut self) {
        self.fate = Fate::Kept;
    }

    /// Gives the message back to the group: another member gets it, or this one when it has nothing else to do.
    /// A reader in no group gets it again, as by [`put_back`](Self::put_back).
    pub fn nack(mut self) {
        self.fate = Fate::Returned;
    }
}

impl<S: MessageSet + ?Sized> Drop for Received<'_, S> {
    #[inline]
    fn drop(&mut self) {
        self.reader.end(self.fate, 1);
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Received<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received({:?})", self.info())
    }
}

// SAFETY: a received message is a shared view of bytes that nobody writes, and the reader, which may be sent.
unsafe impl<S: MessageSet + ?Sized> Send for Received<'_, S> {}
// SAFETY: as above; shared access only reads.
unsafe impl<S: MessageSet + ?Sized> Sync for Received<'_, S> {}

impl<S: MessageSet + ?Sized> Drop for Reader<S> {
    fn drop(&mut self) {
        if !self.shared.matrix.is_ours() {
            // Seat and bell are the parent's.
            mem::forget(self.bell.take());
            return;
        }
        // First: the next reader in this seat listens at the same bell.
        self.bell = None;
        let (topic, seat) = (&self.shared.topic, self.source.seat_number());
        for set in [topic.nappers(), topic.followers(), topic.armed()] {
            set.remove(seat);
        }
        // SAFETY: it is not used any more.
        unsafe { ManuallyDrop::drop(&mut self.source) };
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({:?}, next {})", self.shared.name, self.position())
    }
}
