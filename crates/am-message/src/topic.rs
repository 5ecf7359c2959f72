//! Topics: made, found, opened.

use crate::bells::Bells;
use crate::error::TopicError;
use crate::stamp::now_ns;
use crate::{MessageSet, Poster, ReaderBuilder};
use am_layout::{Wide, Word};
use am_matrix::{Error, Matrix, Spill, TOPIC_ALIGN_BYTES};
use am_shm::Berth;
use am_topic::{BadTopic, Flow, POSTERS, Shape};
use std::alloc::Layout;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};

/// What blocks of topics are called in the directory of names.
pub const KIND: u32 = am_matrix::TOPIC_KIND;
/// Bytes of 32-bit words at the start of a topic's block.
const WORDS_BYTES: usize = am_matrix::TOPIC_WORDS_BYTES;
/// Longest message that a lossless topic keeps beside its slot unless told otherwise, in bytes.
pub(crate) const CELL_BYTES: u32 = 64;
/// Messages that a topic keeps room for unless told otherwise.
const CAPACITY: u64 = 1024 - 64;

/// A stream of messages of the set `S`, found by its name in a matrix.
///
/// Every reader sees every message, in one order for all; see the [crate's](crate) first page. Cloning is
/// cheap. A topic lives as long as its segment, whoever comes and goes.
pub struct Topic<S: MessageSet + ?Sized> {
    pub(crate) shared: Arc<Shared>,
    _set: PhantomData<Box<S>>,
}

/// What the handles of one opened topic share.
pub(crate) struct Shared {
    /// A view into the matrix's arena; the matrix stands below and lives as long.
    pub topic: am_topic::Topic<'static>,
    pub name: String,
    /// Where the segment has a name.
    pub bells: Option<Bells>,
    pub matrix: Matrix,
}

impl Shared {
    pub fn berth(&self) -> Berth<'_> {
        Berth::new(self.topic.asleep(), self.topic.wakes())
    }

    /// Wakes readers that sleep, or wait for their bells.
    #[inline]
    pub fn rouse(&self) {
        if !self.topic.nappers().is_empty() {
            self.rouse_nappers();
        }
    }

    #[cold]
    fn rouse_nappers(&self) {
        // Full barrier (E15): what was published before is seen by whoever says that it sleeps after.
        fence(SeqCst);
        self.berth().rouse();
        self.ring();
    }

    /// The time that is told of a message that is posted now, if it is told.
    #[inline]
    pub fn stamp(&self) -> Option<u64> {
        self.topic.shape().stamped.then(now_ns)
    }

    /// Wakes readers that follow one who went on.
    #[inline]
    pub fn rouse_followers(&self) {
        if !self.topic.followers().is_empty() {
            self.rouse();
        }
    }
}

/// Settings for a topic.
#[derive(Debug)]
#[must_use = "settings do nothing until the topic is made or opened"]
pub struct TopicBuilder<S: MessageSet + ?Sized> {
    matrix: Matrix,
    name: String,
    capacity: u64,
    flow: Flow,
    cell_bytes: usize,
    stamped: bool,
    segment: Option<PathBuf>,
    _set: PhantomData<Box<S>>,
}

impl<S: MessageSet + ?Sized> Topic<S> {
    /// Starts the settings for a topic of that name (1 to 48 bytes) in a matrix.
    pub fn builder(matrix: &Matrix, name: &str) -> TopicBuilder<S> {
        TopicBuilder {
            matrix: matrix.clone(),
            name: name.to_owned(),
            capacity: CAPACITY,
            flow: Flow::Lossless,
            cell_bytes: CELL_BYTES as usize,
            stamped: false,
            segment: None,
            _set: PhantomData,
        }
    }

    /// Makes a poster.
    ///
    /// # Errors
    /// [`TopicError::TooManyPosters`] when there are 64; [`TopicError::Matrix`] in a child that inherited the
    /// matrix by fork.
    pub fn poster(&self) -> Result<Poster<S>, TopicError> {
        let name = || self.shared.name.clone();
        let owner = self.owner()?;
        // What the dead have left may be enough.
        let made = self.shared.topic.poster(owner).or_else(|| {
            self.shared.matrix.recover();
            self.shared.topic.poster(owner)
        });
        let poster =
            made.ok_or_else(|| TopicError::TooManyPosters { name: name(), maximum: POSTERS })?;
        Ok(Poster::new(self.shared.clone(), poster))
    }

    /// Starts the settings for a reader.
    pub fn reader(&self) -> ReaderBuilder<S> {
        ReaderBuilder::new(self.clone())
    }

    /// Returns the topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Returns how many messages were ever posted, or claimed by posters that did not finish them.
    #[must_use]
    pub fn posted(&self) -> u64 {
        self.shared.topic.next().0
    }

    /// Returns how many messages a reader who comes late finds at the least, when as many were posted; and a
    /// poster of a lossless topic has room for.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shared.topic.shape().history()
    }

    /// Tells whether slow readers lose messages, rather than keep posters waiting.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.shared.topic.shape().flow == Flow::Lossy
    }

    /// Tells whether messages carry the time at which they were posted.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        self.shared.topic.shape().stamped
    }

    /// What was opened as a topic in a matrix, if it carries these messages.
    ///
    /// # Safety
    /// `opened` is a view into that matrix's arena.
    pub(crate) unsafe fn over(
        matrix: &Matrix,
        name: &str,
        bells: Option<Bells>,
        opened: Result<am_topic::Topic<'_>, BadTopic>,
    ) -> Result<Self, TopicError> {
        let topic = opened.map_err(|cause| TopicError::Bad { name: name.to_owned(), cause })?;
        let (expected, seen) = (S::LAYOUT, topic.shape().set);
        if seen != expected {
            return Err(TopicError::OtherMessages { name: name.to_owned(), expected, seen });
        }
        // SAFETY: only the lifetime changes. The words lie in the matrix's arena, as promised, at an address that
        // moving the matrix does not change, and `Shared` keeps the matrix as long as the view.
        let topic =
            unsafe { std::mem::transmute::<am_topic::Topic<'_>, am_topic::Topic<'static>>(topic) };
        let shared = Shared { topic, name: name.to_owned(), bells, matrix: matrix.clone() };
        Ok(Self { shared: Arc::new(shared), _set: PhantomData })
    }

    pub(crate) fn owner(&self) -> Result<u32, TopicError> {
        self.shared
            .matrix
            .participant_number()
            .map_err(|cause| TopicError::Matrix { name: self.shared.name.clone(), cause })
    }
}

impl<S: MessageSet + ?Sized> TopicBuilder<S> {
    /// Sets how many messages the topic has room for: the history that a late reader finds, and in a
    /// lossless topic how far posters may be ahead. Rounded up; the default is 960.
    pub fn capacity(mut self, messages: u64) -> Self {
        self.capacity = messages;
        self
    }

    /// Lets posters go on when a reader is slow: it loses messages then, and learns how many.
    ///
    /// By default a topic is lossless: posters wait for the slowest reader.
    pub fn lossy(mut self) -> Self {
        self.flow = Flow::Lossy;
        self
    }

    /// Sets up to which length messages lie in the ring of a lossless topic itself, in bytes: posting copies them
    /// there, which is faster than a block for each. Rounded up to a power of two from 64 to 1024; 0 for none. The default
    /// is 64. Each slot of the ring is longer by so much.
    pub fn in_ring_up_to(mut self, bytes: usize) -> Self {
        self.cell_bytes = bytes;
        self
    }

    /// Lets each message carry the time at which it was posted, so that readers can tell its
    /// [age](crate::Info::age). A post reads the clock for that, some 20 ns; in other topics it does not.
    pub fn stamped(mut self, stamped: bool) -> Self {
        self.stamped = stamped;
        self
    }

    /// Says where the segment's file is: the [bells](crate::ReaderBuilder::with_bell) of readers lie beside it.
    ///
    /// `atomic_matrix::Matrix::topic` does it by itself. All processes must say the same; one that does not, or whose
    /// segment has no name, cannot ring anybody, and who waits for a bell learns of its posts when it
    /// looks by itself.
    pub fn bells_beside(mut self, segment: &Path) -> Self {
        self.segment = Some(segment.into());
        self
    }

    /// Opens the topic, or makes it.
    ///
    /// If it is there, it stays as it was made, whatever the settings say.
    ///
    /// # Errors
    /// [`TopicError`]: other messages, no memory, no place for the name.
    pub fn open_or_create(&self) -> Result<Topic<S>, TopicError> {
        match self.open() {
            Err(TopicError::Matrix { cause: Error::NoSuchName, .. }) => {}
            result => return result,
        }
        match self.create() {
            // Somebody was faster.
            Err(TopicError::Matrix { cause: Error::NameTaken { .. }, .. }) => self.open(),
            result => result,
        }
    }

    /// Makes the topic.
    ///
    /// # Errors
    /// [`TopicError::Matrix`] when it is there, or there is no memory; [`TopicError::Capacity`].
    pub fn create(&self) -> Result<Topic<S>, TopicError> {
        let shape = self.shape()?;
        let bytes = WORDS_BYTES + 8 * shape.wides();
        let layout = Layout::from_size_align(bytes, TOPIC_ALIGN_BYTES).expect("a length that fits");
        let matrix = self.matrix.clone().with_spill(Spill::Any);
        let mut block = matrix.allocate_aligned(layout).map_err(|cause| self.refused(cause))?;
        block.fill(0);
        write_topic(shape, &mut block)
            .map_err(|cause| TopicError::Bad { name: self.name.clone(), cause })?;
        // SAFETY: it holds a topic, and only this crate and the recovery look into it, as into one.
        let created = unsafe { matrix.create_named_as(&self.name, KIND, block) };
        created.map_err(|cause| self.refused(cause))?;
        self.open()
    }

    /// Opens the topic.
    ///
    /// # Errors
    /// [`TopicError::Matrix`] with [`Error::NoSuchName`] when it is not there;
    /// [`TopicError::OtherMessages`], [`TopicError::Bad`].
    pub fn open(&self) -> Result<Topic<S>, TopicError> {
        let common =
            self.matrix.open_named(&self.name, KIND).map_err(|cause| self.refused(cause))?;
        // SAFETY: only this crate and the recovery use blocks of that kind, by these views, and nobody
        // ever takes them away.
        let opened = unsafe { self.matrix.open_topics(common.offset()) };
        let first = opened.map_err(|cause| self.refused(cause))?.next();
        let first = first.unwrap_or(Err(BadTopic::TooShort));
        let bells = self.segment.as_ref().map(|segment| Bells::new(segment, &self.name));
        // SAFETY: it was opened in this matrix.
        unsafe { Topic::over(&self.matrix, &self.name, bells, first) }
    }

    fn shape(&self) -> Result<Shape, TopicError> {
        let too_many = || TopicError::Capacity { name: self.name.clone(), capacity: self.capacity };
        let cell_bytes = self.cell_bytes()?;
        let (flow, stamped, set) = (self.flow, self.stamped, S::LAYOUT);
        let like = Shape { slots_log: 0, flow, cell_bytes, set, stamped };
        shape_for(self.capacity, like).ok_or_else(too_many)
    }

    /// The length of cells; lossy topics have none: their readers could not hold them.
    fn cell_bytes(&self) -> Result<u32, TopicError> {
        let bytes = self.cell_bytes;
        if bytes == 0 || self.flow == Flow::Lossy {
            return Ok(0);
        }
        if bytes > Shape::CELL_BYTES_MAX as usize {
            return Err(TopicError::InRing { name: self.name.clone(), bytes });
        }
        Ok((bytes as u32).next_power_of_two().max(Shape::CELL_BYTES_MIN))
    }

    fn refused(&self, cause: Error) -> TopicError {
        TopicError::Matrix { name: self.name.clone(), cause }
    }
}

/// A shape like that one, with the fewest slots that make room for so many messages; `None` when it takes too many.
pub(crate) fn shape_for(capacity: u64, like: Shape) -> Option<Shape> {
    let mut shapes =
        (Shape::SLOTS_LOG_MIN..=Shape::SLOTS_LOG_MAX).map(|slots_log| Shape { slots_log, ..like });
    shapes.find(|shape| shape.history() >= capacity)
}

/// Writes a fresh topic into bytes that nobody else sees yet, and that are all zero.
pub(crate) fn write_topic(shape: Shape, bytes: &mut [u8]) -> Result<(), BadTopic> {
    let words: Vec<Word> = (0..am_topic::Topic::WORDS).map(|_| Word::new(0)).collect();
    let wides: Vec<Wide> = (0..shape.wides()).map(|_| Wide::new(0)).collect();
    am_topic::Topic::format(&words, &wides, shape)?;
    // The 32-bit words are zeroes.
    let places = bytes[WORDS_BYTES..].chunks_exact_mut(8);
    for (place, wide) in places.zip(&wides) {
        place.copy_from_slice(&wide.load().to_ne_bytes());
    }
    Ok(())
}

impl<S: MessageSet + ?Sized> Clone for Topic<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _set: PhantomData }
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Topic<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Topic({:?}, {} posted)", self.shared.name, self.posted())
    }
}
