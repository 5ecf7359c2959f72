//! What one payload can be, and the one way from bytes to it.

use bytemuck::checked::{self, CheckedCastError};
use bytemuck::{PodCastError, TransparentWrapper};

use crate::message::Plain;
use crate::{BadMessage, LayoutHasher, Message};

/// How the bytes of a payload make up a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One message: all payloads have the length of its type.
    Value,
    /// A slice of messages, none included: a multiple of one's length. Bytes are a slice of `u8`.
    Slice,
    /// UTF-8 of any length.
    Text,
}

/// What one payload can be: a [`Message`] `T`, a slice `[T]`, or text, `str`.
///
/// There are no others: a kind's check must be as sound as those three.
///
/// Bytes from a segment become a reference only by [`view`](Self::view), which judges the bytes and
/// then lends them. That is enough among processes that use this library, which never write to what was
/// committed. Who shares a segment with somebody that may scribble on it takes a copy first and has
/// the copy judged: by a variant of the message's own type, `Tick(Tick)`, in a
/// [`MessageSet`](trait@crate::MessageSet).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of message",
    label = "must be a message, a slice of messages, or `str`"
)]
pub trait Kind: sealed::Sealed + 'static {
    /// How its bytes make it up.
    const SHAPE: Shape;

    /// The length of one unit in bytes: of the message, of one element of a slice, 1 for text.
    const UNIT_BYTES: usize;

    /// What the address of a payload must be a multiple of, in bytes.
    const ALIGN_BYTES: usize;

    /// The hash of the layout, [`SHAPE`](Self::SHAPE) included.
    const LAYOUT: u64;

    /// Returns the payload as this kind. Takes time proportional to its length where not every bit
    /// pattern is a value, else none.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] when the length, the address, a bit pattern or the UTF-8 is wrong.
    fn view(payload: &[u8]) -> Result<&Self, BadMessage>;

    /// Returns the bytes to post, of which [`view`](Self::view) makes the same value again.
    fn as_payload(&self) -> &[u8];
}

mod sealed {
    pub trait Sealed {}
    impl<T: crate::Message> Sealed for T {}
    impl<T: crate::Message> Sealed for [T] {}
    impl Sealed for str {}
}

impl<T: Message> Kind for T {
    const SHAPE: Shape = Shape::Value;
    const UNIT_BYTES: usize = size_of::<T>();
    const ALIGN_BYTES: usize = align_of::<T>();
    const LAYOUT: u64 = LayoutHasher::new("value").number(<T as Message>::LAYOUT).finish();

    fn view(payload: &[u8]) -> Result<&Self, BadMessage> {
        let plain = checked::try_from_bytes::<Plain<T>>(payload);
        plain.map(Plain::peel_ref).map_err(|error| bad::<T>(error, payload))
    }

    fn as_payload(&self) -> &[u8] {
        bytemuck::bytes_of(Plain::wrap_ref(self))
    }
}

impl<T: Message> Kind for [T] {
    const SHAPE: Shape = Shape::Slice;
    const UNIT_BYTES: usize = {
        assert!(size_of::<T>() > 0, "a slice of messages without bytes has no length in bytes");
        size_of::<T>()
    };
    const ALIGN_BYTES: usize = align_of::<T>();
    const LAYOUT: u64 = LayoutHasher::new("slice").number(T::LAYOUT).finish();

    fn view(payload: &[u8]) -> Result<&Self, BadMessage> {
        if !payload.len().is_multiple_of(Self::UNIT_BYTES) {
            return Err(BadMessage::SliceLength {
                unit_bytes: Self::UNIT_BYTES,
                seen_bytes: payload.len(),
            });
        }
        let plain = checked::try_cast_slice::<u8, Plain<T>>(payload);
        plain.map(Plain::peel_slice).map_err(|error| bad::<[T]>(error, payload))
    }

    fn as_payload(&self) -> &[u8] {
        bytemuck::cast_slice(Plain::wrap_slice(self))
    }
}

impl Kind for str {
    const SHAPE: Shape = Shape::Text;
    const UNIT_BYTES: usize = 1;
    const ALIGN_BYTES: usize = 1;
    const LAYOUT: u64 = LayoutHasher::new("text").text("utf-8").finish();

    fn view(payload: &[u8]) -> Result<&Self, BadMessage> {
        str::from_utf8(payload)
            .map_err(|error| BadMessage::NotUtf8 { valid_bytes: error.valid_up_to() })
    }

    fn as_payload(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A slice of messages without bytes is refused when it is used: how many would they be?
///
/// ```compile_fail
/// let nothing = <[()] as am_message::MessageSet>::view(0, b"");
/// ```
///
/// ```
/// let nothing = <() as am_message::MessageSet>::view(0, b"");
/// assert_eq!(nothing, Ok(&()));
/// ```
#[cfg(doctest)]
struct SliceOfNothing;

/// Copies a message out of a payload, and judges the copy, which nobody else can change.
///
/// # Errors
///
/// [`BadMessage`] when the length or a bit pattern is wrong. The address may be any.
pub fn copied<T: Message>(payload: &[u8]) -> Result<T, BadMessage> {
    let plain = checked::try_pod_read_unaligned::<Plain<T>>(payload);
    plain.map(Plain::peel).map_err(|error| bad::<T>(error, payload))
}

/// Tells in our words, and with the numbers, why bytemuck refused this payload as a `K`.
fn bad<K: Kind + ?Sized>(error: CheckedCastError, payload: &[u8]) -> BadMessage {
    match error {
        CheckedCastError::InvalidBitPattern => BadMessage::BitPattern,
        CheckedCastError::PodCastError(PodCastError::TargetAlignmentGreaterAndInputNotAligned) => {
            BadMessage::Misaligned { align_bytes: K::ALIGN_BYTES }
        }
        CheckedCastError::PodCastError(_) => {
            BadMessage::ValueLength { value_bytes: K::UNIT_BYTES, seen_bytes: payload.len() }
        }
    }
}
