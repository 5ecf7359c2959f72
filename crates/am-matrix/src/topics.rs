//! Topics: what a matrix knows of the message layer above, so that a death in it is a drop too.

use crate::error::Error;
use crate::matrix::Matrix;
use crate::part::Part;
use am_layout::names::Names;
use am_layout::{Offset, SECTORS};
use am_topic::{BadTopic, Found, Morgue, Place, Recoverer, Shape, Topic};
use std::iter;

/// What the blocks of topics are called in the directory of names.
pub const TOPIC_KIND: u32 = u32::from_be_bytes(*b"topi");
/// What the blocks of services are called there: several topics, one after the other.
pub const SERVICE_KIND: u32 = u32::from_be_bytes(*b"serv");
/// Alignment of a topic in its block, and of the block: two cache lines.
pub const TOPIC_ALIGN_BYTES: usize = 128;
/// Bytes at the start of a topic's block that are used as 32-bit words; 64-bit words follow.
pub const TOPIC_WORDS_BYTES: usize = 256;
const _: () = assert!(4 * Topic::WORDS <= TOPIC_WORDS_BYTES);

/// Bytes that a topic takes in its block.
#[must_use]
pub fn topic_bytes(shape: &Shape) -> usize {
    (TOPIC_WORDS_BYTES + 8 * shape.wides()).next_multiple_of(TOPIC_ALIGN_BYTES)
}

impl Matrix {
    /// Looks at a common block as topics, one after the other; at least one, and nothing behind the first that is
    /// none.
    ///
    /// # Errors
    /// [`Error::NotAPayload`], [`Error::NotCommon`].
    ///
    /// # Safety
    /// The block is used as topics only, from its beginning to its end, and nobody adopts it while the views
    /// are used.
    #[doc(hidden)]
    pub unsafe fn open_topics(
        &self,
        offset: Offset,
    ) -> Result<impl Iterator<Item = Result<Topic<'_>, BadTopic>>, Error> {
        let (part, granule) = self.locate(offset)?;
        let len_bytes = self.common(offset)?.len_bytes();
        // SAFETY: a common block of that length is there; the rest the caller promises.
        Ok(unsafe { open_all_at(part, granule, len_bytes) })
    }

    /// Tells whether this process opened the matrix, rather than inheriting it by fork. One load.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn is_ours(&self) -> bool {
        self.attachment().is_ours()
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

/// Looks at the common block at `granule`, whose payload has `len_bytes`, as topics, one after the other, until
/// the block ends or something is none.
///
/// # Safety
/// As [`Matrix::open_topics`], and the block is there.
unsafe fn open_all_at<'a>(
    part: &Part<'a>,
    granule: u32,
    len_bytes: usize,
) -> impl Iterator<Item = Result<Topic<'a>, BadTopic>> {
    let mut next_bytes = Some(0);
    iter::from_fn(move || {
        let at_bytes = next_bytes.take()?;
        // SAFETY: promised by the caller.
        let opened = unsafe { open_at(part, granule, at_bytes, len_bytes) };
        if let Ok(topic) = &opened {
            // What the shape says was checked to lie in the block.
            next_bytes = Some(at_bytes + topic_bytes(topic.shape())).filter(|&at| at < len_bytes);
        }
        Some(opened)
    })
}

/// Looks at what begins at `at_bytes`, a multiple of [`TOPIC_ALIGN_BYTES`], as a topic.
///
/// # Safety
/// As [`open_all_at`].
unsafe fn open_at<'a>(
    part: &Part<'a>,
    granule: u32,
    at_bytes: usize,
    len_bytes: usize,
) -> Result<Topic<'a>, BadTopic> {
    let wides_at_bytes = at_bytes + TOPIC_WORDS_BYTES;
    let rest = len_bytes.checked_sub(wides_at_bytes).ok_or(BadTopic::TooShort)?;
    let headers = &part.sector.headers;
    // SAFETY: the payload is that long, and promised to be used so.
    let words = unsafe { headers.words_in(granule, at_bytes, TOPIC_WORDS_BYTES / 4) };
    // SAFETY: as above.
    let wides = unsafe { headers.wides_in(granule, wides_at_bytes, rest / 8) };
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
        if !matches!(named.kind, TOPIC_KIND | SERVICE_KIND) {
            continue;
        }
        let Some((part, granule)) = locate(parts, named.offset) else { continue };
        let Ok(len_bytes) = part.common_len_at(granule) else { continue };
        // SAFETY: whoever removes a topic's name promises that nobody uses the topic any more; what the
        // message layer names so, it uses so.
        let topics = unsafe { open_all_at(part, granule, len_bytes) };
        for topic in topics.map_while(Result::ok) {
            let morgue = Parts { parts, is_dead: &is_dead };
            Recoverer::new(topic, morgue).recover(&mut found);
        }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use am_topic::Flow;

    /// As docs/layout.md tells them.
    #[test]
    fn topics_are_as_long_as_they_are_said_to_be() {
        let shape = |slots_log, cell_bytes| {
            let (flow, set, stamped) = (Flow::Lossless, 0, false);
            Shape { slots_log, flow, cell_bytes, set, stamped }
        };
        assert_eq!(
            [(10, 64), (7, 64), (7, 0)].map(|(n, c)| topic_bytes(&shape(n, c))),
            [135_424, 49_408, 41_216]
        );
        assert_eq!((TOPIC_KIND, SERVICE_KIND), (0x746f_7069, 0x7365_7276));
        assert_eq!((TOPIC_WORDS_BYTES, TOPIC_ALIGN_BYTES), (256, 128));
    }
}
