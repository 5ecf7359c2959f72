//! The bits of a derived struct: bytes of its size and alignment, which are asked field by field.

use bytemuck::{Pod, Zeroable};

use crate::Message;

/// An alignment of `BYTES`.
pub struct Align<const BYTES: usize>;

/// That there are bits of this alignment: of each power of two up to 4096, as for any payload.
#[diagnostic::on_unimplemented(
    message = "a message is aligned to at most 4096 bytes",
    label = "a payload in a segment is not aligned to more"
)]
pub trait Unit {
    /// As many bytes as its alignment.
    type Unit: Pod;
}

macro_rules! units {
    ($($name:ident $bytes:literal)*) => {$(
        #[doc = concat!($bytes, " bytes, aligned to as many.")]
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C, align($bytes))]
        pub struct $name([u8; $bytes]);

        impl Unit for Align<$bytes> {
            type Unit = $name;
        }
    )*};
}

units! {
    Unit1 1 Unit2 2 Unit4 4 Unit8 8 Unit16 16 Unit32 32 Unit64 64 Unit128 128 Unit256 256
    Unit512 512 Unit1024 1024 Unit2048 2048 Unit4096 4096
}

/// Tells whether a field's bytes, which begin at `offset_bytes`, are a value of its type.
///
/// # Panics
///
/// The offset is not a field's of that type. The compiler sees that the derive's are.
#[inline]
pub fn field_is_valid<T: Message>(bytes: &[u8], offset_bytes: usize) -> bool {
    let field = &bytes[offset_bytes..][..size_of::<T>()];
    T::is_valid(bytemuck::from_bytes(field))
}
