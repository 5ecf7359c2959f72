//! Posting: by value, by loan, in batches.

use crate::cell::{self, Draft};
use crate::error::PostError;
use crate::topic::Shared;
use crate::vigil::{Vigil, until};
use crate::{Kind, KindOf, Message, MessageSet};
use am_layout::{Offset, Wide};
use am_matrix::{Block, Error, prefetch_for_write};
use am_topic::{Claim, Entry, Place, SLOT_WIDES, Seq};
use std::alloc::Layout;
use std::cell::{Cell, RefCell, RefMut};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes to which every block is aligned.
const BLOCK_ALIGN_BYTES: usize = 32;
/// Bytes to which every cell is aligned.
const CELL_ALIGN_BYTES: usize = 64;
/// How many messages ahead of the one at hand lines are fetched.
const AHEAD: u64 = 6;
/// Posts between two looks for messages that slow readers of a lossy topic have let go.
const POSTS_PER_COLLECTION: u32 = 16;
/// Looks for room before others get the processor, and before the poster sleeps between two.
const SPINS: u32 = 30;
const YIELDS: u32 = 2000;
/// How long it sleeps then.
const PAUSE: Duration = Duration::from_micros(500);

/// Puts messages into a topic. For one thread at a time. A child that inherited it by fork cannot use it.
pub struct Poster<S: MessageSet + ?Sized> {
    /// Stands before what it looks into, as does the next.
    pub(crate) poster: ManuallyDrop<RefCell<am_topic::Poster<'static>>>,
    /// The block of the message that was overwritten last, for the next message of that length.
    spare: Cell<Option<Block<'static>>>,
    /// Where a loan of a short message is filled in. It lies here and not in the loan: what was just written in small
    /// pieces is better not moved.
    draft: RefCell<Draft>,
    vigil: RefCell<Vigil>,
    /// Posts, or batches, modulo 2³².
    posts: Cell<u32>,
    /// What its messages' slots are tagged with; services say what that means.
    pub(crate) tag: Cell<u64>,
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
        Self {
            poster: ManuallyDrop::new(RefCell::new(poster)),
            spare: Cell::new(None),
            draft: RefCell::new(Draft::new()),
            tag: Cell::new(0),
            vigil: RefCell::default(),
            posts: Cell::new(0),
            shared,
            _set: PhantomData,
        }
    }

    /// Posts a message, a slice of messages, or text: one copy. Waits for room in a lossless topic: soon by looking
    /// twice a millisecond. A [group](crate::ReaderBuilder::group) keeps what it has not done, even while it has no members,
    /// until it is [closed](crate::Topic::close_group).
    ///
    /// # Errors
    /// [`PostError::Memory`] when there is none for it.
    #[inline]
    pub fn post<K: KindOf<S> + ?Sized>(&self, value: &K) -> Result<Receipt, PostError> {
        self.post_by(value, None)
    }

    /// As [`post`](Self::post), but does not wait.
    ///
    /// # Errors
    /// [`PostError::Full`] when there is no room, [`PostError::Memory`] when there is no memory.
    #[inline]
    pub fn try_post<K: KindOf<S> + ?Sized>(&self, value: &K) -> Result<Receipt, PostError> {
        let payload = value.as_payload();
        if self.has_cell_for::<K>(payload) {
            return self.send_short(payload, K::INDEX);
        }
        let block = self.copied(payload, <K as Kind>::ALIGN_BYTES)?;
        self.send(&mut Some(block), K::INDEX)
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
        self.post_by(value, until(timeout))
    }

    /// Lends memory for a message of that type, to be filled in and committed: nothing is copied. It holds
    /// a copy of `value` at first.
    ///
    /// # Errors
    /// [`PostError::Memory`].
    pub fn loan<T: Message + KindOf<S>>(&self, value: T) -> Result<Loan<'_, S>, PostError> {
        self.loan_copy(&value)
    }

    /// Lends memory for that many bytes; they hold whatever lay there before. What the ring has room for
    /// ([`in_ring_up_to`](crate::TopicBuilder::in_ring_up_to), at most 64 bytes) is a draft in the poster, copied when it is
    /// committed; a second loan beside it has a block of its own.
    ///
    /// # Errors
    /// [`PostError::Memory`], [`PostError::TooLong`].
    #[inline]
    pub fn loan_bytes(&self, len_bytes: usize) -> Result<Loan<'_, S>, PostError>
    where
        [u8]: KindOf<S>,
    {
        self.lend(len_bytes, 1, <[u8] as KindOf<S>>::INDEX)
    }

    #[inline]
    fn post_by<K: KindOf<S> + ?Sized>(
        &self,
        value: &K,
        deadline: Option<Instant>,
    ) -> Result<Receipt, PostError> {
        let payload = value.as_payload();
        if self.has_cell_for::<K>(payload) {
            return self.patiently(deadline, || self.send_short(payload, K::INDEX));
        }
        let mut block = Some(self.copied(payload, <K as Kind>::ALIGN_BYTES)?);
        self.patiently(deadline, || self.send(&mut block, K::INDEX))
    }

    /// Tells whether cells have room for this payload.
    #[inline]
    pub(crate) fn has_cell_for<K: Kind + ?Sized>(&self, payload: &[u8]) -> bool {
        self.has_cells_of(payload.len(), K::ALIGN_BYTES)
    }

    #[inline]
    pub(crate) fn has_cells_of(&self, bytes: usize, align_bytes: usize) -> bool {
        bytes <= self.shared.topic.shape().cell_bytes as usize && align_bytes <= CELL_ALIGN_BYTES
    }

    /// A block with a copy of a payload.
    pub(crate) fn copied(
        &self,
        payload: &[u8],
        align_bytes: usize,
    ) -> Result<Block<'_>, PostError> {
        let mut block = self.allocate(payload.len(), align_bytes)?;
        block.copy_from_slice(payload);
        Ok(block)
    }

    pub(crate) fn loan_copy<K: KindOf<S> + ?Sized>(
        &self,
        value: &K,
    ) -> Result<Loan<'_, S>, PostError> {
        let payload = value.as_payload();
        let mut loan = self.lend(payload.len(), <K as Kind>::ALIGN_BYTES, K::INDEX)?;
        loan.copy_from_slice(payload);
        Ok(loan)
    }

    /// Lends memory for a message of that kind.
    #[inline]
    pub(crate) fn lend(
        &self,
        bytes: usize,
        align_bytes: usize,
        kind: u32,
    ) -> Result<Loan<'_, S>, PostError> {
        let memory = match self.draft(bytes, align_bytes) {
            Some(draft) => Memory::Draft(draft),
            None => Memory::Block(self.allocate(bytes, align_bytes)?),
        };
        Ok(Loan { poster: self, memory, kind })
    }

    /// The draft, if it is not lent already, for a message that fits it.
    #[inline]
    fn draft(&self, bytes: usize, align_bytes: usize) -> Option<RefMut<'_, Draft>> {
        if !self.has_cells_of(bytes, align_bytes) {
            return None;
        }
        let mut draft = self.draft.try_borrow_mut().ok()?;
        draft.set_len(bytes).then_some(draft)
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
        // In a child of fork, the spare block is the parent's.
        self.must_be_ours()?;
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

    /// The poster, to claim numbers with.
    #[inline]
    pub(crate) fn claimer(&self) -> Result<RefMut<'_, am_topic::Poster<'static>>, PostError> {
        // In a child of fork, it is the parent's.
        self.must_be_ours()?;
        Ok(self.poster.borrow_mut())
    }

    #[inline]
    pub(crate) fn must_be_ours(&self) -> Result<(), PostError> {
        if self.shared.matrix.is_ours() { Ok(()) } else { Err(Error::Forked.into()) }
    }

    /// There is no room; those that keep it may be dead.
    #[cold]
    pub(crate) fn full(&self) -> PostError {
        self.vigil.borrow_mut().look(&self.shared.matrix);
        PostError::Full
    }

    /// How this poster's messages of that kind are labelled now.
    #[inline]
    pub(crate) fn label(&self, poster: &am_topic::Poster<'static>, kind: u32) -> Label {
        let tag = self.shared.stamp().unwrap_or(self.tag.get());
        Label { kind, poster: poster.number() as u32, tag }
    }

    /// Puts a message that cells have room for into the topic.
    #[inline]
    fn send_short(&self, payload: &[u8], kind: u32) -> Result<Receipt, PostError> {
        let mut poster = self.claimer()?;
        let label = self.label(&poster, kind);
        self.fetch_cell(self.shared.topic.next());
        let mut claim = poster.claim_one().map_err(|_| self.full())?;
        self.fetch_cell_ahead(claim.seq());
        self.empty(&mut claim, |old| self.keep(old))?;
        write_short(&mut claim, payload, label);
        let seq = claim.publish();
        self.shared.rouse();
        Ok(Receipt { seq })
    }

    /// Puts a filled block into the topic, if there is room; else it stays.
    fn send<'m>(&'m self, block: &mut Option<Block<'m>>, kind: u32) -> Result<Receipt, PostError> {
        let mut poster = self.claimer()?;
        self.collect_orphans(&poster);
        let label = self.label(&poster, kind);
        let mut claim = poster.claim_one().map_err(|_| self.full())?;
        self.fetch_block_ahead(claim.seq());
        self.empty(&mut claim, |old| self.keep(old))?;
        let block = block.take().expect("a block to be sent");
        write_block(&mut claim, block, label)?;
        let seq = claim.publish();
        self.shared.rouse();
        Ok(Receipt { seq })
    }

    /// Keeps a block for the next message, so that its word need not change.
    pub(crate) fn keep<'m>(&'m self, block: Block<'m>) {
        // SAFETY: only the lifetime changes. The block borrows the matrix in `shared`, which stands below and
        // lives as long as the poster; it is given out again for the poster's own lifetime only.
        let block = unsafe { mem::transmute::<Block<'m>, Block<'static>>(block) };
        // If one was kept already, that goes.
        self.spare.set(Some(block));
    }

    /// Fetches what a short message a few turns ahead will overwrite: its lines are with the readers.
    #[inline]
    pub(crate) fn fetch_cell_ahead(&self, seq: Seq) {
        self.fetch_cell(Seq(seq.0 + AHEAD));
    }

    #[inline]
    fn fetch_cell(&self, seq: Seq) {
        let (slot, cell) = self.shared.topic.lines(seq);
        prefetch_for_write(slot);
        prefetch_for_write(cell);
    }

    /// The same in a batch, whose message at hand has this slot and this cell.
    #[inline]
    pub(crate) fn fetch_ahead_of(&self, slot: *const Wide, cell: &[Wide]) {
        prefetch_for_write(slot.wrapping_add(AHEAD as usize * SLOT_WIDES));
        prefetch_for_write(cell.as_ptr().wrapping_add(AHEAD as usize * cell.len()));
    }

    /// The same for a message in a block.
    pub(crate) fn fetch_block_ahead(&self, seq: Seq) {
        let (topic, ahead) = (&self.shared.topic, Seq(seq.0 + AHEAD));
        prefetch_for_write(topic.lines(ahead).0);
        if let Some(place) = topic.last_place(ahead).filter(|place| !place.is_in_cell()) {
            self.shared.matrix.prefetch(Offset::from_raw(place.offset));
        }
    }

    /// Takes back what a claimed slot named; `old` gets the block.
    ///
    /// An error: readers hold too much. Dropped, the claim is aborted then, and its number will be missed.
    #[inline]
    pub(crate) fn empty<'m>(
        &'m self,
        claim: &mut Claim<'_, 'static>,
        old: impl FnOnce(Block<'m>),
    ) -> Result<(), PostError> {
        if let Some(place) = claim.old().map_err(|_| self.full())? {
            let taken = self.take_back(place);
            claim.forget();
            if let Some(block) = taken {
                old(block);
            }
        }
        Ok(())
    }

    /// Takes the block of a message back that nobody may look at any more.
    fn take_back(&self, place: Place) -> Option<Block<'_>> {
        // SAFETY: the protocol gave the place to this poster alone (M4), after every reader that looked at
        // it was done (M1). Where the place is not what was posted, somebody scribbled, and the block is
        // checked to be nobody's.
        unsafe { self.shared.matrix.adopt_common(Offset::from_raw(place.offset)) }.ok()
    }

    /// Frees messages that slow readers of a lossy topic held; looks for them now and then.
    #[inline]
    pub(crate) fn collect_orphans(&self, poster: &am_topic::Poster<'static>) {
        let posts = self.posts.get();
        self.posts.set(posts.wrapping_add(1));
        if !posts.is_multiple_of(POSTS_PER_COLLECTION) {
            return;
        }
        while let Some(orphaned) = poster.orphan() {
            let block = self.take_back(orphaned.place());
            orphaned.forget();
            drop(block);
        }
    }

    /// Sends when there is room, or when that is over.
    #[inline]
    fn patiently(
        &self,
        deadline: Option<Instant>,
        mut send: impl FnMut() -> Result<Receipt, PostError>,
    ) -> Result<Receipt, PostError> {
        match send() {
            Err(PostError::Full) => self.wait_and(deadline, send),
            result => result,
        }
    }

    #[cold]
    fn wait_and(
        &self,
        deadline: Option<Instant>,
        mut send: impl FnMut() -> Result<Receipt, PostError>,
    ) -> Result<Receipt, PostError> {
        let mut patience = Patience::until(deadline);
        while patience.wait() {
            match send() {
                Err(PostError::Full) => {}
                result => return result,
            }
        }
        Err(PostError::Full)
    }
}

impl<S: MessageSet + ?Sized> Drop for Poster<S> {
    fn drop(&mut self) {
        // In a child of fork the number is the parent's.
        if self.shared.matrix.is_ours() {
            // SAFETY: it is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.poster) };
        }
    }
}

/// What a slot says of its message beside where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    kind: u32,
    poster: u32,
    tag: u64,
}

impl Label {
    /// The same, of a message that is written then, if that is told.
    #[inline]
    pub(crate) fn at(self, stamp: Option<u64>) -> Self {
        Self { tag: stamp.unwrap_or(self.tag), ..self }
    }

    #[inline]
    fn entry(self, place: Place) -> Entry {
        Entry { place, kind: self.kind, poster: self.poster, tag: self.tag }
    }
}

/// Makes a payload the claimed message, which is to be published; its slot's cell has room for it.
#[inline]
pub(crate) fn write_short(claim: &mut Claim<'_, 'static>, payload: &[u8], label: Label) {
    // First, so that the slot's words change all at once: a reader looks at their line all the time.
    // SAFETY: the slot is claimed, and not published.
    let entry = unsafe { write_cell(claim.cell(), payload, label) };
    claim.tell(&entry.expect("compared before"));
}

/// Puts a payload into the cell of a claimed slot, and says what message that is; `None` when it does not fit.
///
/// # Safety
/// The slot is claimed by the caller, and not published.
#[inline(always)]
pub(crate) unsafe fn write_cell(cell: &[Wide], payload: &[u8], label: Label) -> Option<Entry> {
    // SAFETY: promised by the caller.
    let fits = unsafe { cell::write(cell, payload) };
    fits.then(|| label.entry(Place::in_cell(payload.len() as u32)))
}

/// Makes a filled block the claimed message, which is to be published.
pub(crate) fn write_block(
    claim: &mut Claim<'_, 'static>,
    block: Block<'_>,
    label: Label,
) -> Result<(), PostError> {
    let place = Place { offset: block.offset().to_raw(), len: block.len() as u32 };
    claim.tell(&label.entry(place));
    if let Err(error) = block.into_common() {
        // Somebody scribbled on the block, or this is a child of fork: it is not ours to give.
        claim.forget();
        return Err(error.into());
    }
    Ok(())
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
    pub fn wait(&mut self) -> bool {
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
        if self.looks < YIELDS {
            thread::yield_now();
        } else {
            thread::sleep(PAUSE);
        }
        true
    }
}

/// Memory for a message, to be filled in; it derefs to the payload's bytes. Dropping it gives it back.
#[derive(Debug)]
pub struct Loan<'p, S: MessageSet + ?Sized> {
    poster: &'p Poster<S>,
    memory: Memory<'p>,
    kind: u32,
}

/// Where a loan lies.
#[derive(Debug)]
enum Memory<'p> {
    /// In its poster, until there is a cell for it.
    Draft(RefMut<'p, Draft>),
    /// Where it will be read.
    Block(Block<'p>),
}

impl<'p, S: MessageSet + ?Sized> Loan<'p, S> {
    /// Posts the message; waits for room in a lossless topic.
    ///
    /// # Errors
    /// [`PostError::Memory`] when somebody scribbled on the block; it is lost then.
    #[inline]
    pub fn commit(self) -> Result<Receipt, PostError> {
        self.commit_by(None)
    }

    /// Posts the message, but does not wait for room: then the loan comes back.
    ///
    /// # Errors
    /// [`PostError::Full`] with the loan; [`PostError::Memory`] without.
    #[inline]
    pub fn try_commit(self) -> Result<Receipt, (Option<Self>, PostError)> {
        let Self { poster, memory, kind } = self;
        let back = |memory| Some(Self { poster, memory, kind });
        match memory {
            Memory::Draft(draft) => {
                let sent = poster.send_short(draft.bytes(), kind);
                sent.map_err(|error| (back(Memory::Draft(draft)), error))
            }
            Memory::Block(block) => {
                let mut block = Some(block);
                poster
                    .send(&mut block, kind)
                    .map_err(|error| (block.and_then(|block| back(Memory::Block(block))), error))
            }
        }
    }

    #[inline]
    pub(crate) fn commit_by(self, deadline: Option<Instant>) -> Result<Receipt, PostError> {
        let Self { poster, memory, kind } = self;
        match memory {
            Memory::Draft(draft) => {
                poster.patiently(deadline, || poster.send_short(draft.bytes(), kind))
            }
            Memory::Block(block) => {
                let mut block = Some(block);
                poster.patiently(deadline, || poster.send(&mut block, kind))
            }
        }
    }
}

impl<S: MessageSet + ?Sized> Deref for Loan<'_, S> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Draft(draft) => draft.bytes(),
            Memory::Block(block) => block,
        }
    }
}

impl<S: MessageSet + ?Sized> DerefMut for Loan<'_, S> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Draft(draft) => draft.bytes_mut(),
            Memory::Block(block) => block,
        }
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Poster<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Poster({:?})", self.shared.name)
    }
}
