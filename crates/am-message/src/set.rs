//! The kinds that one topic carries.

use crate::{Kind, LayoutHasher, Message, Shape};

/// Makes an enum a [`MessageSet`](trait@MessageSet): see there.
pub use am_message_derive::MessageSet;

/// The kinds that a topic carries, each of which has an index.
///
/// A single kind is a set by itself: a topic of `Tick`, of `[u8]`, of `str`. For several kinds derive
/// it for an enum of what a reader shall see. Each variant has one field, which is one of:
///
/// | field | kind | the reader gets |
/// |---|---|---|
/// | `&'a Tick` | the message `Tick` | the payload itself, nothing copied |
/// | `Tick` | the message `Tick` | a copy, judged after it was made |
/// | `&'a [Tick]`, `&'a [u8]` | a slice of any length | the payload itself |
/// | `&'a str` | text | the payload itself |
///
/// ```
/// use am_message::{Kind, KindOf, Message, MessageSet};
///
/// #[derive(Message, Clone, Copy, Debug, PartialEq)]
/// #[repr(C)]
/// struct Tick { sym: u32, px: u32 }
///
/// #[derive(MessageSet, Debug, PartialEq)]
/// enum Feed<'a> {
///     Tick(Tick),
///     Blob(&'a [u8]),
/// }
///
/// let tick = Tick { sym: 7, px: 100 };
/// let index = <Tick as KindOf<Feed>>::INDEX;
/// assert_eq!(Feed::view(index, tick.as_payload()), Ok(Feed::Tick(tick)));
/// assert_eq!(Feed::view(1, b"hello"), Ok(Feed::Blob(b"hello")));
/// assert!(Feed::view(2, b"hello").is_err());
/// ```
///
/// The enum is written down as a reader meets it, with references, because a variant `Blob([u8])`
/// is no Rust: a field of an enum has a size. It could be allowed by a macro that swaps the enum for
/// two others, a name for the set and a view with references, of which neither stands in the source;
/// so matching, documentation and derives such as `Debug` work on the very type that one reads. Its
/// lifetime need be told only where a type is kept: `Poster<Feed<'static>>` in a struct, and `Feed`
/// elsewhere.
///
/// Two variants of one kind are an error, since a post of it could mean either; wrap one in a struct of
/// its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of messages",
    label = "must be a message, a slice of messages, `str`, or an enum of these that derives `MessageSet`"
)]
pub trait MessageSet {
    /// What a reader sees of a payload that lives for `'a`.
    type View<'a>;

    /// The kinds, each at its index: as they are declared, from 0.
    const KINDS: &'static [KindInfo];

    /// The hash over all kinds: their names, shapes and layouts, in order.
    const LAYOUT: u64 = hash_of(Self::KINDS);

    /// Returns what the payload is, as the kind at index `kind`.
    ///
    /// # Errors
    ///
    /// [`BadMessage`]: there is no such kind, or the payload is none of it.
    fn view(kind: u32, payload: &[u8]) -> Result<Self::View<'_>, BadMessage>;
}

/// That a kind is one of a set, and which: what lets a topic of `S` take a `Self`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of `{S}`",
    label = "a topic of `{S}` does not carry this"
)]
pub trait KindOf<S: MessageSet + ?Sized>: Kind {
    /// Its index in [`MessageSet::KINDS`].
    const INDEX: u32;
}

/// What there is to know of one kind in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// The variant's name; empty where the kind is the whole set.
    pub name: &'static str,
    /// How the bytes of a payload make it up.
    pub shape: Shape,
    /// The length of one unit in bytes: of the message, of one element of a slice, 1 for text.
    pub unit_bytes: usize,
    /// What the address of a payload must be a multiple of, in bytes.
    pub align_bytes: usize,
    /// The hash of the layout, shape included.
    pub layout: u64,
}

impl KindInfo {
    /// Returns what there is to know of `K`, under this name.
    pub const fn of<K: Kind + ?Sized>(name: &'static str) -> Self {
        Self {
            name,
            shape: K::SHAPE,
            unit_bytes: K::UNIT_BYTES,
            align_bytes: K::ALIGN_BYTES,
            layout: K::LAYOUT,
        }
    }
}

/// Why a payload is not what it was said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// The set has no kind of that index.
    #[error("no kind {kind}: the set has {kinds}, counted from 0")]
    UnknownKind {
        /// The index that was asked for.
        kind: u32,
        /// How many kinds there are.
        kinds: u32,
    },
    /// The payload is longer or shorter than the message.
    #[error("a payload of {seen_bytes} bytes is no message of {value_bytes} bytes")]
    ValueLength {
        /// The length of the message in bytes.
        value_bytes: usize,
        /// The length of the payload in bytes.
        seen_bytes: usize,
    },
    /// The payload ends within an element.
    #[error("a payload of {seen_bytes} bytes is no slice of elements of {unit_bytes} bytes")]
    SliceLength {
        /// The length of one element in bytes.
        unit_bytes: usize,
        /// The length of the payload in bytes.
        seen_bytes: usize,
    },
    /// The payload's address does not fit the type.
    #[error("the payload is not aligned to {align_bytes} bytes")]
    Misaligned {
        /// What the address must be a multiple of, in bytes.
        align_bytes: usize,
    },
    /// Some bits are no value of their type, such as a `bool` of 2.
    #[error("the payload holds bits that are no value of their type")]
    BitPattern,
    /// The payload is not text.
    #[error("the payload is UTF-8 in its first {valid_bytes} bytes only")]
    NotUtf8 {
        /// How many bytes at its beginning are UTF-8.
        valid_bytes: usize,
    },
}

/// Hashes a set's kinds; the order counts, for it makes the indexes.
const fn hash_of(kinds: &[KindInfo]) -> u64 {
    let mut hash = LayoutHasher::new("set").number(kinds.len() as u64);
    let mut index = 0;
    while index < kinds.len() {
        let kind = &kinds[index];
        let (unit, align) = (kind.unit_bytes as u64, kind.align_bytes as u64);
        hash = hash.text(kind.name).number(kind.layout).number(unit).number(align);
        index += 1;
    }
    hash.finish()
}

/// Makes a kind a set of itself alone.
macro_rules! alone {
    ($([$($parameter:tt)*] $kind:ty;)*) => {$(
        impl<$($parameter)*> MessageSet for $kind {
            type View<'a> = &'a Self;
            const KINDS: &'static [KindInfo] = &[KindInfo::of::<Self>("")];

            fn view(kind: u32, payload: &[u8]) -> Result<&Self, BadMessage> {
                match kind {
                    0 => <Self as Kind>::view(payload),
                    _ => Err(BadMessage::UnknownKind { kind, kinds: 1 }),
                }
            }
        }

        impl<$($parameter)*> KindOf<Self> for $kind {
            const INDEX: u32 = 0;
        }
    )*};
}

alone! {
    [T: Message] T;
    [T: Message] [T];
    [] str;
}
