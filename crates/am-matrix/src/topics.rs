//! Topics: what a matrix knows of the message layer above, so that a death in it is a drop too.

use crate::error::Error;
use crate::matrix::Matrix;
use crate::part::Part;
use am_layout::names::Names;
use am_layout::{Offset, SECTORS};
use am_topic::{BadTopic, Found, Morgue, Place, Recoverer, Topic};

/// What the blocks of topics are called in the directory of names.
pub const TOPIC_KIND: u32 = u32::from_be_bytes(*b"topi");
/// Bytes at the start of a topic's block that are used as 32-bit words; 64-bit words follow.
pub const TOPIC_WORDS_BYTES: usize = 256;
const _: () = assert!(4 * Topic::WORDS <= TOPIC_WORDS_BYTES);

impl Matrix {
    /// Looks at a common block as a topic.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`]; within, that it is no topic.
    ///
    /// # Safety
    /// The block is used as a topic only, from its beginning to its end, and nobody adopts it while the view
    /// is used.
    #[doc(hidden)]
    pub unsafe fn open_topic(&self, offset: Offset) -> Result<Result<Topic<'_>, BadTopic>, Error> {
        let (part, granule) = self.locate(offset)?;
        let len_bytes = self.common(offset)?.len_bytes();
        // SAFETY: a common block of that length is there; the rest the caller promises.
        Ok(unsafe { open_at(part, granule, len_bytes) })
    }

    /// Returns how headers and topics name this participant.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child that inherited this handle.
    #[doc(hidden)]
    pub fn participant_number(&self) -> Result<u32, Error> {
        self.lanes()?;
        Ok(self.attachment().owner())
    }
}

/// Looks at the common block at `granule`, whose payload has `len_bytes`, as a topic.
///
/// # Safety
/// As [`Matrix::open_topic`], and the block is there.
unsafe fn open_at<'a>(
    part: &Part<'a>,
    granule: u32,
    len_bytes: usize,
) -> Result<Topic<'a>, BadTopic> {
    let rest = len_bytes.checked_sub(TOPIC_WORDS_BYTES).ok_or(BadTopic::TooShort)?;
    let headers = &part.sector.headers;
    // SAFETY: the payload is that long, and promised to be used so.
    let words = unsafe { headers.words_in(granule, 0, TOPIC_WORDS_BYTES / 4) };
    // SAFETY: as above.
    let wides = unsafe { headers.wides_in(granule, TOPIC_WORDS_BYTES, rest / 8) };
    Topic::open(words, wides)
}

/// Ends what dead participants began in topics, before their blocks go back. `found` is told of each thing.
pub(crate) fn recover_topics(
    names: Names<'_>,
    parts: &[Option<Part<'_>>; SECTORS],
    is_dead: impl Fn(u32) -> bool,
    mut found: impl FnMut(Found),
) {
    for named in names.entries().filter_map(|entry| entry.read()) {
        if named.kind != TOPIC_KIND {
            continue;
        }
        let Some((part, granule)) = locate(parts, named.offset) else { continue };
        let Ok(len_bytes) = part.common_len_at(granule) else { continue };
        // SAFETY: whoever removes a topic's name promises that nobody uses the topic any more; what the
        // message layer names so, it uses so.
        let Ok(topic) = (unsafe { open_at(part, granule, len_bytes) }) else { continue };
        let morgue = Parts { parts, is_dead: &is_dead };
        Recoverer::new(topic, morgue).recover(&mut found);
    }
}

fn locate<'p, 'a>(
    parts: &'p [Option<Part<'a>>; SECTORS],
    offset: Offset,
) -> Option<(&'p Part<'a>, u32)> {
    parts.iter().flatten().find_map(|part| Some((part, part.granule_of(offset)?)))
}

/// The blocks of messages, as the recoverer of a topic sees them.
struct Parts<'p, 'a, D> {
    parts: &'p [Option<Part<'a>>; SECTORS],
    is_dead: D,
}

impl<D: Fn(u32) -> bool> Morgue for Parts<'_, '_, D> {
    fn is_dead(&self, owner: u32) -> bool {
        (self.is_dead)(owner)
    }

    fn is_nobodys(&self, place: Place) -> bool {
        locate(self.parts, Offset::from_raw(place.offset))
            .is_some_and(|(part, granule)| part.common_len_at(granule).is_ok())
    }

    fn bequeath(&mut self, place: Place, dead: u32) {
        if let Some((part, granule)) = locate(self.parts, Offset::from_raw(place.offset)) {
            part.sector.headers.bequeath(granule, dead);
        }
    }
}
