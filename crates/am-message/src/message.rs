//! Plain old data that may lie in shared memory, and which of its bit patterns are values.

use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8,
    NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize, Wrapping,
};

use bytemuck::{CheckedBitPattern, NoUninit, Pod, TransparentWrapper};

use crate::LayoutHasher;

/// Makes a type a [`Message`](trait@Message): see there.
pub use am_message_derive::Message;

/// Plain old data of a fixed size that means the same in every process.
///
/// Derive it for structs and fieldless enums of a defined layout. Numbers, `bool`, `char`, `NonZero`
/// numbers, and arrays of messages are messages already.
///
/// ```
/// use am_message::Message;
///
/// #[derive(Message, Clone, Copy)]
/// #[repr(u8)]
/// enum Side { Buy = 1, Sell = 2 }
///
/// #[derive(Message, Clone, Copy)]
/// #[repr(C)]
/// struct Tick { sym: u32, px: u32, venue: [u8; 7], side: Side }
///
/// # assert_ne!(Tick::LAYOUT, Side::LAYOUT);
/// ```
///
/// What the derive demands, each with an error of its own:
///
/// * `#[repr(C)]` or `#[repr(transparent)]` on a struct, so that its fields lie where every build puts
///   them; an integer, such as `#[repr(u8)]`, on an enum.
/// * No padding: it would copy whatever the memory held before. Order fields from large to small, or
///   fill the gap with a field.
/// * Fields that are messages. A pointer, a reference, a `String` or a `Vec` means nothing elsewhere.
/// * No parameters: what lies in a segment is one layout.
///
/// `#[message(crate = path)]` tells where this crate is, for whoever reexports it under another name;
/// as a rule the derive finds `atomic-matrix` or `am-message` in the manifest by itself.
///
/// # Layout
///
/// [`LAYOUT`](Self::LAYOUT) covers, of a struct: each field's name, its type's layout, its offset and
/// size, and the size and alignment of the whole; of an enum: its integer type, and each variant's
/// name and value. What the type itself is called does not count, so it may be renamed, or be
/// written down twice in two programs.
///
/// # Safety
///
/// * `Self` has the size and the alignment of [`Bits`](Self::Bits), and no byte of it is ever
///   uninitialized: neither padding, nor a union's.
/// * Whatever [`is_valid`](Self::is_valid) calls valid is a valid value of `Self` bit by bit.
/// * `Self` has no interior mutability and holds no pointers.
///
/// Nothing unsafe hangs on [`LAYOUT`](Self::LAYOUT): types that are mistaken for each other read
/// nonsense, or an error, but never an invalid value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "must be plain old data that means the same in every process",
    note = "derive `Message` for structs with `#[repr(C)]`, and for fieldless enums with `#[repr(u8)]` or the like",
    note = "pointers, references and collections mean nothing in another process"
)]
pub unsafe trait Message: Copy + 'static {
    /// The same bytes, of which any pattern is valid.
    type Bits: Pod;

    /// The hash of the layout: two types of one hash read each other's bytes.
    const LAYOUT: u64;

    /// Tells whether these bits are a value of this type.
    fn is_valid(bits: &Self::Bits) -> bool;
}

/// A message as bytemuck knows it, which has no checked arrays of its own.
///
/// Conversions go through bytemuck's casts with this wrapper; nothing else here touches memory.
#[derive(Clone, Copy, TransparentWrapper)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

// SAFETY: transparent over a message, of which no byte is uninitialized, and which has neither
// interior mutability nor pointers.
unsafe impl<T: Message> NoUninit for Plain<T> {}

// SAFETY: transparent over a message, which has the size and alignment of its bits, and says itself
// which of them are valid.
unsafe impl<T: Message> CheckedBitPattern for Plain<T> {
    type Bits = T::Bits;

    fn is_valid_bit_pattern(bits: &T::Bits) -> bool {
        T::is_valid(bits)
    }
}

/// Implements `Message` for types that bytemuck knows: `$bits` is what they are checked as.
macro_rules! scalar {
    ($($type:ty => $bits:ty),* $(,)?) => {$(
        // SAFETY: bytemuck vouches that no byte of it is uninitialized (`NoUninit`), that it is laid
        // out as its `Bits`, which are `$bits`, and for the check. A scalar holds no pointer.
        unsafe impl Message for $type {
            type Bits = $bits;
            const LAYOUT: u64 = LayoutHasher::new("scalar")
                .text(stringify!($type))
                .number(size_of::<$type>() as u64)
                .number(align_of::<$type>() as u64)
                .finish();

            fn is_valid(bits: &$bits) -> bool {
                const fn vouched<T: NoUninit + CheckedBitPattern<Bits = $bits>>() {}
                const { vouched::<$type>() };
                <$type as CheckedBitPattern>::is_valid_bit_pattern(bits)
            }
        }
    )*};
}

scalar! {
    u8 => u8, u16 => u16, u32 => u32, u64 => u64, u128 => u128, usize => usize,
    i8 => i8, i16 => i16, i32 => i32, i64 => i64, i128 => i128, isize => isize,
    f32 => f32, f64 => f64, bool => u8, char => u32, () => (),
    NonZeroU8 => u8, NonZeroU16 => u16, NonZeroU32 => u32, NonZeroU64 => u64,
    NonZeroU128 => u128, NonZeroUsize => usize,
    NonZeroI8 => i8, NonZeroI16 => i16, NonZeroI32 => i32, NonZeroI64 => i64,
    NonZeroI128 => i128, NonZeroIsize => isize,
    Option<NonZeroU8> => Option<NonZeroU8>, Option<NonZeroU16> => Option<NonZeroU16>,
    Option<NonZeroU32> => Option<NonZeroU32>, Option<NonZeroU64> => Option<NonZeroU64>,
    Option<NonZeroU128> => Option<NonZeroU128>, Option<NonZeroUsize> => Option<NonZeroUsize>,
    Option<NonZeroI8> => Option<NonZeroI8>, Option<NonZeroI16> => Option<NonZeroI16>,
    Option<NonZeroI32> => Option<NonZeroI32>, Option<NonZeroI64> => Option<NonZeroI64>,
    Option<NonZeroI128> => Option<NonZeroI128>, Option<NonZeroIsize> => Option<NonZeroIsize>,
}

// SAFETY: an array is its elements one after the other, with nothing between them, as are its bits;
// it is valid when each of them is.
unsafe impl<T: Message, const N: usize> Message for [T; N] {
    type Bits = [T::Bits; N];
    const LAYOUT: u64 = LayoutHasher::new("array").number(T::LAYOUT).number(N as u64).finish();

    fn is_valid(bits: &Self::Bits) -> bool {
        bits.iter().all(T::is_valid)
    }
}

// SAFETY: transparent over a message.
unsafe impl<T: Message> Message for Wrapping<T> {
    type Bits = T::Bits;
    const LAYOUT: u64 = LayoutHasher::new("wrapping").number(T::LAYOUT).finish();

    fn is_valid(bits: &T::Bits) -> bool {
        T::is_valid(bits)
    }
}
