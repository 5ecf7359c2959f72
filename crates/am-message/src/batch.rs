//! Batches: many messages for one exchange on the tail, and for one store of a reader's cursor.

use crate::error::{BatchError, PostError};
use crate::poster::{Patience, write_block, write_cell, write_short};
use crate::reader::{Fate, Found, check};
use crate::topic::Shared;
use crate::vigil::until;
use crate::{BadMessage, Info, Kind, KindOf, MessageSet, Poster, Reader};
use am_matrix::{Block, prefetch_for_read};
use am_topic::{Claims, Seq};
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::time::Duration;

/// How many messages ahead of the one at hand a batch's reader fetches.
const CELLS_AHEAD: usize = 8;
/// Messages that are claimed by one exchange.
const RUN: usize = 64;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posted {
    /// How many messages were posted.
    pub count: u64,
    /// The last one's number in the topic; `None` when the batch was empty. The others have lower ones, in
    /// order, among which other posters' may lie.
    pub last: Option<Seq>,
}

impl Posted {
    #[inline]
    fn add(&mut self, count: u64, last: Option<Seq>) {
        self.count += count;
        self.last = last.or(self.last);
    }
}

impl<S: MessageSet + ?Sized> Poster<S> {
    /// Posts messages of one kind, in order: one exchange and one wake-up for up to 64 of them. Waits for
    /// room in a lossless topic.
    ///
    /// Readers see up to 64 at once; other posters' messages may lie between them.
    ///
    /// # Errors
    /// [`BatchError`] tells how many were posted: then memory ran out.
    pub fn post_many<'v, K>(
        &self,
        values: impl IntoIterator<Item = &'v K>,
    ) -> Result<Posted, BatchError>
    where
        K: KindOf<S> + ?Sized + 'v,
    {
        self.post_runs(values.into_iter(), || Patience::until(None))
    }

    /// As [`post_many`](Self::post_many), but does not wait.
    ///
    /// # Errors
    /// [`BatchError`] tells how many were posted: then there was no room, or no memory.
    pub fn try_post_many<'v, K>(
        &self,
        values: impl IntoIterator<Item = &'v K>,
    ) -> Result<Posted, BatchError>
    where
        K: KindOf<S> + ?Sized + 'v,
    {
        self.post_runs(values.into_iter(), Patience::none)
    }

    /// Posts `count` messages, each of which `make` makes of its number in the batch, from 0: the least that a message can cost,
    /// for short ones are made where they will be read. Waits for room in a lossless topic.
    ///
    /// Up to 64 numbers of the topic are claimed together before `make` is called for them, so that nobody reads on
    /// meanwhile: let it be quick. Longer messages than [cells](crate::TopicBuilder::in_ring_up_to) hold are posted one by one.
    ///
    /// ```
    /// # use am_matrix::{Arena, Matrix, plan};
    /// # use am_message::Topic;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let matrix = Matrix::format(Arena::heap(1 << 20), &plan(1 << 20, 60, 30)?)?;
    /// # let topic = Topic::<u64>::builder(&matrix, "squares").open_or_create()?;
    /// # let mut reader = topic.reader().open()?;
    /// let posted = topic.poster()?.post_from_fn(100, |n| n * n)?;
    /// assert_eq!(posted.count, 100);
    /// let squares: Vec<u64> = reader.read_many(10).iter().map(|n| *n.view().unwrap()).collect();
    /// assert_eq!(squares[7..], [49, 64, 81]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BatchError`] tells how many were posted: then memory ran out.
    ///
    /// # Panics
    /// When `make` posts by this very poster, or when it panics. Those numbers that were claimed are missed then. A child
    /// that `make` forks posts nothing, and gets an error.
    #[inline]
    pub fn post_from_fn<K: KindOf<S>>(
        &self,
        count: u64,
        mut make: impl FnMut(u64) -> K,
    ) -> Result<Posted, BatchError> {
        let mut posted = Posted::default();
        let mut patience = Patience::until(None);
        while posted.count < count {
            let before = posted.count;
            let sent = if self.has_cells_of(size_of::<K>(), K::ALIGN_BYTES) {
                self.send_made(count, &mut make, &mut posted)
            } else {
                self.post(&make(before)).map(|receipt| posted.add(1, Some(receipt.seq)))
            };
            match sent {
                Ok(()) => patience = Patience::until(None),
                Err(PostError::Full) => _ = patience.wait(),
                Err(cause) => return Err(BatchError { posted: posted.count, cause }),
            }
        }
        Ok(posted)
    }

    /// Posts as many of the messages that are made as there is room for, at least one, each into its cell.
    #[inline(always)]
    fn send_made<K: KindOf<S>>(
        &self,
        count: u64,
        make: &mut impl FnMut(u64) -> K,
        posted: &mut Posted,
    ) -> Result<(), PostError> {
        let mut poster = self.claimer()?;
        self.collect_orphans(&poster);
        let label = self.label(&poster, K::INDEX);
        let mut numbers = posted.count..count;
        let claims = poster.claim_up_to(count - posted.count).map_err(|_| self.full())?;
        let mut in_hand = InHand { shared: &self.shared, claims: Some(claims) };
        let claims = in_hand.claims.as_mut().expect("just put in");
        let mut result = Ok(());
        // What is made may fork: then the claim is the parent's, and the child writes nothing.
        let mut make = |number| {
            let value = make(number);
            self.must_be_ours().map(|()| (value, label.at(self.shared.stamp())))
        };
        loop {
            claims.fill_cells(|slot, cell| {
                self.fetch_ahead_of(slot, cell);
                let made = numbers.next().map(&mut make)?;
                let (value, label) = made.map_err(|forked| result = Err(forked)).ok()?;
                // SAFETY: the cell is that of a claimed slot.
                unsafe { write_cell(cell, value.as_payload(), label) }
            });
            if result.is_err() {
                break;
            }
            // One whose slot names a block. Not to be dropped here: what is made may panic in a child.
            let Some(claim) = claims.next() else { break };
            let mut claim = ManuallyDrop::new(claim);
            result = self.empty(&mut claim, |old| self.keep(old));
            let Some(number) = numbers.next().filter(|_| result.is_ok()) else { break };
            match make(number) {
                Ok((value, label)) => write_short(&mut claim, value.as_payload(), label),
                Err(forked) => {
                    result = Err(forked);
                    break;
                }
            }
            ManuallyDrop::into_inner(claim).ready();
        }
        let (count, last) = in_hand.publish();
        posted.add(count, last);
        result
    }

    fn post_runs<'v, K: KindOf<S> + ?Sized + 'v>(
        &self,
        mut values: impl Iterator<Item = &'v K>,
        patience: impl Fn() -> Patience,
    ) -> Result<Posted, BatchError> {
        let mut run = Run { values: ArrayVec::new(), blocks: VecDeque::new(), spare: Vec::new() };
        let mut posted = Posted::default();
        loop {
            let refused = self.fill(&mut run, &mut values);
            // What is filled goes first, whatever happened to the next one.
            let mut patience = patience();
            while !run.values.is_empty() {
                let cause = self.send_run(&mut run, &mut posted).err();
                let cause = cause.filter(|&cause| cause != PostError::Full || !patience.wait());
                if let Some(cause) = cause {
                    return Err(BatchError { posted: posted.count, cause });
                }
            }
            match refused {
                Ok(true) => {}
                Ok(false) => return Ok(posted),
                Err(cause) => return Err(BatchError { posted: posted.count, cause }),
            }
        }
    }

    /// Takes the next values, at most a run, and copies the long ones into blocks; false when there are no more.
    #[inline]
    fn fill<'m, 'v, K: KindOf<S> + ?Sized + 'v>(
        &'m self,
        run: &mut Run<'m, 'v, K>,
        values: &mut impl Iterator<Item = &'v K>,
    ) -> Result<bool, PostError> {
        while !run.values.is_full() {
            let Some(value) = values.next() else { return Ok(false) };
            if !self.has_cell_for::<K>(value.as_payload()) {
                let block = self.copied_in(run.spare.pop(), value)?;
                run.blocks.push_back(block);
            }
            run.values.push(value);
        }
        Ok(true)
    }

    /// A block with a copy of a value; one that is there, if it fits.
    fn copied_in<'m, K: KindOf<S> + ?Sized>(
        &'m self,
        spare: Option<Block<'m>>,
        value: &K,
    ) -> Result<Block<'m>, PostError> {
        let (payload, align_bytes) = (value.as_payload(), <K as Kind>::ALIGN_BYTES);
        match spare.filter(|spare| is_fit(spare, payload.len(), align_bytes)) {
            Some(mut spare) => {
                spare.copy_from_slice(payload);
                Ok(spare)
            }
            None => self.copied(payload, align_bytes),
        }
    }

    /// Posts as many of the values as there is room for, at least one.
    #[inline]
    fn send_run<'m, K: KindOf<S> + ?Sized>(
        &'m self,
        run: &mut Run<'m, '_, K>,
        posted: &mut Posted,
    ) -> Result<(), PostError> {
        let mut poster = self.claimer()?;
        self.collect_orphans(&poster);
        let label = self.label(&poster, K::INDEX);
        let mut claims = poster.claim_up_to(run.values.len() as u64).map_err(|_| self.full())?;
        let (mut sent, mut result) = (0, Ok(()));
        loop {
            let mut short = run.values[sent..].iter().map(|value| value.as_payload());
            sent += claims.fill_cells(|slot, cell| {
                let payload = short.next().filter(|payload| self.has_cell_for::<K>(payload))?;
                self.fetch_ahead_of(slot, cell);
                // SAFETY: the cell is that of a claimed slot.
                unsafe { write_cell(cell, payload, label) }
            }) as usize;
            let Some(value) = run.values.get(sent) else { break };
            let Some(mut claim) = claims.next() else { break };
            let spare = &mut run.spare;
            let keep = |old| spare.extend(Some(old).filter(|_| spare.len() < RUN));
            result = self.empty(&mut claim, keep);
            if result.is_err() {
                break;
            }
            sent += 1;
            let payload = value.as_payload();
            if self.has_cell_for::<K>(payload) {
                write_short(&mut claim, payload, label);
            } else {
                let block = run.blocks.pop_front().expect("a block for each long value");
                self.fetch_block_ahead(claim.seq());
                result = write_block(&mut claim, block, label);
                if result.is_err() {
                    break;
                }
            }
            claim.ready();
        }
        // All at the end: a reader looks less at lines that are being written.
        let (count, last) = claims.publish();
        posted.add(count, last);
        run.values.drain(..sent);
        self.shared.rouse();
        result
    }
}

/// Claims of a poster whose messages are being made, by code that may panic, and may fork.
struct InHand<'p> {
    shared: &'p Shared,
    claims: Option<Claims<'p, 'static>>,
}

impl InHand<'_> {
    /// Publishes what is ready; returns how many, and the last one's number.
    #[inline]
    fn publish(mut self) -> (u64, Option<Seq>) {
        if !self.shared.matrix.is_ours() {
            return (0, None);
        }
        let published = self.claims.take().map(Claims::publish);
        self.shared.rouse();
        published.unwrap_or_default()
    }
}

impl Drop for InHand<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(claims) = self.claims.take() else { return };
        if self.shared.matrix.is_ours() {
            drop(claims);
            // Others' messages lie behind.
            self.shared.rouse();
        } else {
            mem::forget(claims);
        }
    }
}

/// Tells whether a block can be used again as it is.
fn is_fit(block: &Block<'_>, len_bytes: usize, align_bytes: usize) -> bool {
    block.len() == len_bytes && block.as_ptr().addr().is_multiple_of(align_bytes)
}

/// A batch that is under way; what is left of its blocks is freed.
struct Run<'m, 'v, K: ?Sized> {
    /// To be posted.
    values: ArrayVec<&'v K, RUN>,
    /// Copies of those that no cell has room for.
    blocks: VecDeque<Block<'m>>,
    /// Of messages that were overwritten: the next ones are often as long.
    spare: Vec<Block<'m>>,
}

impl<S: MessageSet + ?Sized> Reader<S> {
    /// Takes what is there, from the next message on, at most `max` messages (at least one); waits for the
    /// first.
    ///
    /// They stay as they are until the batch is dropped. In a lossy topic, and in a group, a reader holds one
    /// message at a time, so that there is one in a batch.
    pub fn read_many(&mut self, max: usize) -> Batch<'_, S> {
        loop {
            if let Some(span) = self.wait_until(None, |reader| reader.look_many(max)) {
                return Batch { reader: self, span, fate: Fate::Done };
            }
        }
    }

    /// As [`read_many`](Self::read_many), but does not wait.
    pub fn try_read_many(&mut self, max: usize) -> Option<Batch<'_, S>> {
        let span = self.look_many(max)?;
        Some(Batch { reader: self, span, fate: Fate::Done })
    }

    /// As [`read_many`](Self::read_many), but waits no longer than that.
    pub fn read_many_timeout(&mut self, max: usize, timeout: Duration) -> Option<Batch<'_, S>> {
        let deadline = until(timeout);
        let span = self.wait_until(deadline, |reader| reader.look_many(max))?;
        Some(Batch { reader: self, span, fate: Fate::Done })
    }

    /// Finds the next messages, held and checked; returns how many numbers they span: damaged ones are left out.
    #[inline]
    fn look_many(&mut self, max: usize) -> Option<u64> {
        self.found.clear();
        let first = self.look()?;
        self.found.push(first);
        let mut span = 1;
        // Its cursor holds whatever lies behind it.
        let holds_many = self.shared.topic.shape().flow == am_topic::Flow::Lossless;
        let Some(reader) = self.source.alone().filter(|_| holds_many) else { return Some(span) };
        let (matrix, found, damaged) = (&self.shared.matrix, &mut self.found, &mut self.damaged);
        reader.peek_on(1, |held, cell| {
            if found.len() >= max {
                return false;
            }
            span += 1;
            if held.entry.place.is_in_cell() {
                prefetch_for_read(cell.as_ptr().wrapping_add(CELLS_AHEAD * cell.len()));
            }
            match check(matrix, cell, held) {
                Some(message) => found.push(message),
                None => *damaged += 1,
            }
            true
        });
        Some(span)
    }
}

/// Messages one after the other, looked at where they lie. Dropping it lets all of them go, as dropping a
/// [`Received`](crate::Received) does.
pub struct Batch<'r, S: MessageSet + ?Sized> {
    /// It keeps what was found.
    reader: &'r mut Reader<S>,
    /// How many numbers the messages span.
    span: u64,
    fate: Fate,
}

/// One message of a [`Batch`].
pub struct Item<'b, S: MessageSet + ?Sized> {
    found: &'b Found,
    stamped: bool,
    _set: PhantomData<fn() -> Box<S>>,
}

impl<S: MessageSet + ?Sized> Batch<'_, S> {
    /// Returns how many messages there are: one or more.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.reader.found.len()
    }

    /// Returns the messages, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Item<'_, S>> {
        let stamped = self.reader.is_stamped();
        self.reader.found.iter().map(move |found| Item { found, stamped, _set: PhantomData })
    }

    /// Lets the messages go without taking any: this reader gets them again.
    pub fn put_back(mut self) {
        self.fate = Fate::Kept;
    }

    /// Gives the messages back to the group: another member gets them, as [`Received::nack`](crate::Received::nack)
    /// does. A reader in no group gets them again.
    pub fn nack(mut self) {
        self.fate = Fate::Returned;
    }
}

impl<'b, S: MessageSet + ?Sized> Item<'b, S> {
    /// Returns what the message is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever posted it made it by other means.
    pub fn view(&self) -> Result<S::View<'b>, BadMessage> {
        S::view(self.found.held.entry.kind, self.bytes())
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &'b [u8] {
        // SAFETY: the batch that this borrows from holds the message, and its reader the matrix.
        unsafe { self.found.bytes() }
    }

    /// Returns what is known of it.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.found.held, self.stamped)
    }

    /// Returns its number in the topic, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.found.held.seq
    }
}

impl<S: MessageSet + ?Sized> Drop for Batch<'_, S> {
    fn drop(&mut self) {
        if !matches!(self.fate, Fate::Done) {
            // They are found damaged again.
            self.reader.damaged -= self.span - self.reader.found.len() as u64;
        }
        self.reader.end(self.fate, self.span);
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Batch<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.reader.found.first().map(|found| found.held.seq);
        write!(f, "Batch({} messages from {first:?})", self.len())
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Item<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Item({:?})", self.info())
    }
}
