//! Reading: looking ahead, taking note, letting go.

use crate::topic::Shared;
use crate::{BadMessage, KindOf, MessageSet};
use am_layout::Offset;
use am_shm::{WaitStrategy, Waiter};
use am_topic::{Held, Next, Seq};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sees every message of a topic from where it started on. For one thread at a time.
pub struct Reader<S: MessageSet + ?Sized> {
    /// Stands before what it looks into.
    pub(crate) reader: am_topic::Reader<'static>,
    pub(crate) shared: Arc<Shared>,
    waiter: Waiter,
    naps: bool,
    pub(crate) damaged: u64,
    _set: PhantomData<Box<S>>,
}

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
}

impl Info {
    pub(crate) fn of(held: &Held) -> Self {
        let entry = &held.entry;
        Self {
            seq: held.seq,
            kind: entry.kind,
            len_bytes: entry.place.len as usize,
            poster: entry.poster,
        }
    }
}

impl<S: MessageSet + ?Sized> Reader<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        reader: am_topic::Reader<'static>,
        strategy: WaitStrategy,
    ) -> Self {
        let naps = matches!(strategy, WaitStrategy::SpinThenPark { .. });
        if naps {
            shared.topic.count_napper(1);
        }
        let waiter = Waiter::new(strategy);
        Self { reader, shared, waiter, naps, damaged: 0, _set: PhantomData }
    }

    /// Takes the next message; waits for it.
    ///
    /// The message is looked at where it lies, and stays as it is until what is returned is dropped.
    pub fn read(&mut self) -> Received<'_, S> {
        loop {
            if let Some(found) = self.look_until(None) {
                return self.receive(found);
            }
        }
    }

    /// Takes the next message, if it is there.
    pub fn try_read(&mut self) -> Option<Received<'_, S>> {
        let found = self.look()?;
        Some(self.receive(found))
    }

    /// Takes the next message; waits no longer than that.
    pub fn read_timeout(&mut self, timeout: Duration) -> Option<Received<'_, S>> {
        let found = self.look_until(Some(Instant::now() + timeout))?;
        Some(self.receive(found))
    }

    /// Looks at what is there, from the next message on, without taking any of it.
    ///
    /// In a lossy topic it may be gone before it is taken.
    pub fn inquire(&self) -> impl Iterator<Item = Info> + '_ {
        let seen = (0..).map_while(|ahead| self.reader.peek(ahead));
        seen.map(|held| Info::of(&held))
    }

    /// As [`inquire`](Self::inquire), of one kind.
    pub fn inquire_kind<K: KindOf<S> + ?Sized>(&self) -> impl Iterator<Item = Info> + '_ {
        self.inquire().filter(|info| info.kind == K::INDEX)
    }

    /// Returns how many messages this reader has lost and will never see: overrun before it came to them,
    /// not finished by a poster that died, or damaged.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.reader.missed() + self.damaged
    }

    /// Returns the number of the message that comes next.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.reader.cursor()
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
        waiter.wait(shared.berth(), || look(self), deadline)
    }

    /// The next message, held and checked.
    pub(crate) fn look(&mut self) -> Option<Found> {
        loop {
            let Next::Message(held) = self.reader.next() else { return None };
            if let Some(found) = self.check(held) {
                return Some(found);
            }
            self.reader.done();
        }
    }

    /// Checks the block of a message that is held; counts one that somebody scribbled on.
    pub(crate) fn check(&mut self, held: Held) -> Option<Found> {
        let place = held.entry.place;
        // SAFETY: a published message is nobody's block, and stays as it is while it is held (M1).
        let bytes = unsafe { self.shared.matrix.common_bytes(Offset::from_raw(place.offset)) };
        match bytes {
            Ok(bytes) if bytes.len() == place.len as usize => {
                Some(Found { held, payload: NonNull::from(bytes) })
            }
            _ => {
                self.damaged += 1;
                None
            }
        }
    }

    fn receive(&mut self, found: Found) -> Received<'_, S> {
        Received { reader: self, found, kept: false }
    }
}

/// A message that a reader holds.
pub(crate) struct Found {
    pub held: Held,
    payload: NonNull<[u8]>,
}

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

/// A message, looked at where it lies. Dropping it lets it go, and the reader goes on.
pub struct Received<'r, S: MessageSet + ?Sized> {
    reader: &'r mut Reader<S>,
    found: Found,
    kept: bool,
}

impl<S: MessageSet + ?Sized> Received<'_, S> {
    /// Returns what the message is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever posted it made it by other means.
    pub fn view(&self) -> Result<S::View<'_>, BadMessage> {
        S::view(self.found.held.entry.kind, self.bytes())
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the reader's matrix keeps the arena, and the message is held as long as this guard lives.
        unsafe { self.found.bytes() }
    }

    /// Returns what is known of it.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.found.held)
    }

    /// Returns its number in the topic, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.found.held.seq
    }

    /// Lets the message go without taking it: this reader gets it again.
    pub fn put_back(mut self) {
        self.kept = true;
    }
}

impl<S: MessageSet + ?Sized> Drop for Received<'_, S> {
    fn drop(&mut self) {
        if self.kept { self.reader.reader.put_off() } else { self.reader.reader.done() }
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
        if self.naps {
            self.shared.topic.count_napper(-1);
        }
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({:?}, next {})", self.shared.name, self.position())
    }
}
