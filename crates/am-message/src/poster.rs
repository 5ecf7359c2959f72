//! Posting: by value, by loan, in batches.

use crate::error::PostError;
use crate::topic::Shared;
use crate::{Kind, KindOf, Message, MessageSet};
use am_layout::Offset;
use am_matrix::{Block, Error, Matrix, prefetch_for_write};
use am_topic::{Claim, Entry, Place, Seq};
use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes to which every block is aligned.
const BLOCK_ALIGN_BYTES: usize = 32;
/// How many messages ahead of the one at hand lines are fetched.
const AHEAD: u64 = 6;
/// Looks for room before others get the processor.
const SPINS: u32 = 30;
/// Looks for room between two questions who is dead.
const LOOKS_PER_RECOVERY: u32 = 20_000;

/// Puts messages into a topic. For one thread at a time.
pub struct Poster<S: MessageSet + ?Sized> {
    /// Stands before what it looks into, as does the next.
    pub(crate) poster: RefCell<am_topic::Poster<'static>>,
    /// The block of the message that was overwritten last, for the next message of that length.
    spare: Cell<Option<Block<'static>>>,
    pub(crate) shared: Arc<Shared>,
    _set: PhantomData<Box<S>>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its number in the topic, from 0.
    pub seq: Seq,
}

impl<S: MessageSet + ?Sized> Poster<S> {
    pub(crate) fn new(shared: Arc<Shared>, poster: am_topic::Poster<'static>) -> Self {
        Self { poster: RefCell::new(poster), spare: Cell::new(None), shared, _set: PhantomData }
    }

    /// Posts a message, a slice of messages, or text: one copy. Waits for room in a lossless topic.
    ///
    /// # Errors
    /// [`PostError::Memory`] when there is none for it.
    pub fn post<K: KindOf<S> + ?Sized>(&self, value: &K) -> Result<Receipt, PostError> {
        self.loan_copy(value)?.commit()
    }

    /// As [`post`](Self::post), but does not wait.
    ///
    /// # Errors
    /// [`PostError::Full`] when there is no room, [`PostError::Memory`] when there is no memory.
    pub fn try_post<K: KindOf<S> + ?Sized>(&self, value: &K) -> Result<Receipt, PostError> {
        self.loan_copy(value)?.try_commit().map_err(|(_, error)| error)
    }

    /// As [`post`](Self::post), but waits no longer than that.
    ///
    /// # Errors
    /// As [`try_post`](Self::try_post).
    pub fn post_timeout<K: KindOf<S> + ?Sized>(
        &self,
        value: &K,
        timeout: Duration,
    ) -> Result<Receipt, PostError> {
        self.loan_copy(value)?.commit_by(Some(Instant::now() + timeout))
    }

    /// Lends memory for a message of that type, to be filled in and committed: nothing is copied. It holds
    /// a copy of `value` at first.
    ///
    /// # Errors
    /// [`PostError::Memory`].
    pub fn loan<T: Message + KindOf<S>>(&self, value: T) -> Result<Loan<'_, S>, PostError> {
        self.loan_copy(&value)
    }

    /// Lends memory for that many bytes; they hold whatever lay there before.
    ///
    /// # Errors
    /// [`PostError::Memory`], [`PostError::TooLong`].
    pub fn loan_bytes(&self, len_bytes: usize) -> Result<Loan<'_, S>, PostError>
    where
        [u8]: KindOf<S>,
    {
        self.lend(len_bytes, 1, <[u8] as KindOf<S>>::INDEX)
    }

    fn loan_copy<K: KindOf<S> + ?Sized>(&self, value: &K) -> Result<Loan<'_, S>, PostError> {
        let payload = value.as_payload();
        let mut loan = self.lend(payload.len(), <K as Kind>::ALIGN_BYTES, K::INDEX)?;
        loan.block.copy_from_slice(payload);
        Ok(loan)
    }

    pub(crate) fn lend(
        &self,
        bytes: usize,
        align_bytes: usize,
        kind: u32,
    ) -> Result<Loan<'_, S>, PostError> {
        Ok(Loan { poster: self, block: self.allocate(bytes, align_bytes)?, kind })
    }

    /// Gets a block of that length.
    pub(crate) fn allocate(
        &self,
        bytes: usize,
        align_bytes: usize,
    ) -> Result<Block<'_>, PostError> {
        if u32::try_from(bytes).is_err() {
            return Err(PostError::TooLong { len_bytes: bytes });
        }
        let matrix = &self.shared.matrix;
        let block = if align_bytes <= BLOCK_ALIGN_BYTES {
            if let Some(mut spare) = self.spare.take()
                && spare.fit(bytes)
            {
                return Ok(spare);
            }
            matrix.allocate(bytes)
        } else {
            Layout::from_size_align(bytes, align_bytes)
                .map_err(|_| Error::AlignmentTooLarge { align_bytes })
                .and_then(|layout| matrix.allocate_aligned(layout))
        };
        Ok(block?)
    }

    /// Puts a filled block into the topic.
    fn send<'m>(&'m self, block: Block<'m>, kind: u32) -> Result<Receipt, Unsent<'m>> {
        let mut poster = self.poster.borrow_mut();
        self.collect_orphans(&poster);
        let number = poster.number() as u32;
        let Some(claim) = poster.claim(1).ok().and_then(|mut claims| claims.next()) else {
            return Err(Unsent::Full(block));
        };
        let (seq, old) = self.put(claim, block, kind, number)?;
        if let Some(old) = old {
            self.keep(old);
        }
        self.fetch_ahead(seq);
        self.shared.rouse();
        Ok(Receipt { seq })
    }

    /// Keeps a block for the next message, so that its word need not change.
    fn keep<'m>(&'m self, block: Block<'m>) {
        // SAFETY: only the lifetime changes. The block borrows the matrix in `shared`, which stands below and
        // lives as long as the poster; it is given out again for the poster's own lifetime only.
        let block = unsafe { std::mem::transmute::<Block<'m>, Block<'static>>(block) };
        // If one was kept already, that goes.
        self.spare.set(Some(block));
    }

    /// Fetches what a message a few turns ahead will overwrite: its lines are with the readers.
    fn fetch_ahead(&self, seq: Seq) {
        let (place, slot) = self.shared.topic.ahead(Seq(seq.0 + AHEAD));
        prefetch_for_write(slot);
        if let Some(place) = place {
            self.shared.matrix.prefetch(Offset::from_raw(place.offset));
        }
    }

    /// Publishes a filled block as the claimed message; returns the block of the one that it replaces.
    pub(crate) fn put<'m>(
        &'m self,
        mut claim: Claim<'_, 'static>,
        block: Block<'m>,
        kind: u32,
        number: u32,
    ) -> Result<(Seq, Option<Block<'m>>), Unsent<'m>> {
        // An error: readers hold too much. Dropped, the claim is aborted, and its number will be missed.
        let Ok(old) = claim.old() else { return Err(Unsent::Full(block)) };
        let old = old.and_then(|place| {
            let old = self.take_back(place);
            claim.forget();
            old
        });
        let place = Place { offset: block.offset().to_raw(), len: block.len() as u32 };
        claim.tell(&Entry { place, kind, poster: number, tag: self.shared.tag() });
        if let Err(error) = block.into_common() {
            // Somebody scribbled on the block, or this is a child of fork: it is not ours to give.
            claim.forget();
            return Err(Unsent::Lost(error));
        }
        Ok((claim.publish(), old))
    }

    /// Takes the block of a message back that nobody may look at any more.
    fn take_back(&self, place: Place) -> Option<Block<'_>> {
        // SAFETY: the protocol gave the place to this poster alone (M4), after every reader that looked at
        // it was done (M1). Where the place is not what was posted, somebody scribbled, and the block is
        // checked to be nobody's.
        unsafe { self.shared.matrix.adopt_common(Offset::from_raw(place.offset)) }.ok()
    }

    /// Frees messages that slow readers of a lossy topic held.
    pub(crate) fn collect_orphans(&self, poster: &am_topic::Poster<'static>) {
        while let Some(orphaned) = poster.orphan() {
            let block = self.take_back(orphaned.place());
            orphaned.forget();
            drop(block);
        }
    }

    /// Sends when there is room, or when that is over.
    fn send_by<'m>(
        &'m self,
        mut block: Block<'m>,
        kind: u32,
        deadline: Option<Instant>,
    ) -> Result<Receipt, PostError> {
        let mut patience = Patience::until(deadline);
        loop {
            block = match self.send(block, kind) {
                Ok(receipt) => return Ok(receipt),
                Err(Unsent::Lost(error)) => return Err(error.into()),
                Err(Unsent::Full(block)) => block,
            };
            if !patience.wait(&self.shared.matrix) {
                return Err(PostError::Full);
            }
        }
    }
}

/// How long a poster waits for room.
pub(crate) struct Patience {
    looks: u32,
    deadline: Option<Instant>,
}

impl Patience {
    /// Waits until then; for ever when there is no deadline.
    pub fn until(deadline: Option<Instant>) -> Self {
        Self { looks: 0, deadline }
    }

    /// Does not wait.
    pub fn none() -> Self {
        Self { looks: SPINS, deadline: Some(Instant::now()) }
    }

    /// Waits a little: spins at first, then lets others have the processor. False when it is over.
    pub fn wait(&mut self, matrix: &Matrix) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.looks < SPINS {
            // The longer the more: each look takes the line of a cursor from the reader who moves it, and once a
            // topic is full there is room for one message at a time otherwise.
            (0..8 * self.looks).for_each(|_| std::hint::spin_loop());
            return true;
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        if self.looks.is_multiple_of(LOOKS_PER_RECOVERY) {
            // The slowest reader may be dead.
            matrix.recover();
        }
        thread::yield_now();
        true
    }
}

/// A message that was not posted.
pub(crate) enum Unsent<'m> {
    /// For want of room.
    Full(Block<'m>),
    /// Its block is lost.
    Lost(Error),
}

/// Memory for a message, to be filled in; it derefs to the payload's bytes. Dropping it gives it back.
#[derive(Debug)]
pub struct Loan<'p, S: MessageSet + ?Sized> {
    poster: &'p Poster<S>,
    block: Block<'p>,
    kind: u32,
}

impl<'p, S: MessageSet + ?Sized> Loan<'p, S> {
    /// Posts the message; waits for room in a lossless topic.
    ///
    /// # Errors
    /// [`PostError::Memory`] when somebody scribbled on the block; it is lost then.
    pub fn commit(self) -> Result<Receipt, PostError> {
        self.commit_by(None)
    }

    /// Posts the message, but does not wait for room: then the loan comes back.
    ///
    /// # Errors
    /// [`PostError::Full`] with the loan; [`PostError::Memory`] without.
    pub fn try_commit(self) -> Result<Receipt, (Option<Self>, PostError)> {
        let Self { poster, block, kind } = self;
        poster.send(block, kind).map_err(|unsent| match unsent {
            Unsent::Full(block) => (Some(Self { poster, block, kind }), PostError::Full),
            Unsent::Lost(error) => (None, error.into()),
        })
    }

    fn commit_by(self, deadline: Option<Instant>) -> Result<Receipt, PostError> {
        self.poster.send_by(self.block, self.kind, deadline)
    }
}

impl<S: MessageSet + ?Sized> Deref for Loan<'_, S> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block
    }
}

impl<S: MessageSet + ?Sized> DerefMut for Loan<'_, S> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Poster<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Poster({:?})", self.shared.name)
    }
}
