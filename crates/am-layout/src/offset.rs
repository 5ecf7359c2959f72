//! Places inside a segment that mean the same in every mapping.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

/// Unit of every offset, in bytes, and size of a block header.
pub const OFFSET_UNIT_BYTES: u64 = 32;
/// Bytes that offsets can reach: 128 GiB.
pub const REACH_BYTES: u64 = OFFSET_UNIT_BYTES * u32::MAX as u64;

/// A place in a segment: a `u32` count of 32-byte units from the segment's base.
///
/// An offset is a claim, not a proof: every function that takes one checks it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u32);

/// A byte offset that no [`Offset`] can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte offset {bytes} is no multiple of 32 below 128 GiB")]
pub struct BadOffset {
    /// The offset given, in bytes.
    pub bytes: u64,
}

impl Offset {
    /// Makes an offset from bytes.
    ///
    /// # Errors
    /// [`BadOffset`] when `bytes` is no multiple of 32 or reaches beyond 128 GiB.
    #[inline]
    pub const fn from_bytes(bytes: u64) -> Result<Self, BadOffset> {
        if bytes.is_multiple_of(OFFSET_UNIT_BYTES) && bytes < REACH_BYTES {
            Ok(Self((bytes / OFFSET_UNIT_BYTES) as u32))
        } else {
            Err(BadOffset { bytes })
        }
    }

    /// Returns the offset in bytes from the segment's base.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * OFFSET_UNIT_BYTES
    }

    /// Returns the `u32` that stands for this offset in shared memory or a message.
    #[inline]
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        self.0
    }

    /// Takes an offset out of shared memory or a message; any value is allowed, none is believed.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offset({:#x})", self.bytes())
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bytes())
    }
}

/// A pointer relative to the base of a segment, valid in every mapping of it.
///
/// It holds a `u32` in 32-byte units. A byte offset that cannot be expressed so is kept as a
/// *wild* pointer, which every function refuses.
#[repr(transparent)]
pub struct RelativePtr<T> {
    raw: u32,
    _target: PhantomData<fn() -> T>,
}

const WILD: u32 = u32::MAX;

impl<T> RelativePtr<T> {
    /// Makes a pointer to `offset_bytes` behind the base of the segment.
    ///
    /// What is no multiple of 32, or lies beyond 128 GiB, becomes a wild pointer.
    #[inline]
    #[must_use]
    pub const fn new(offset_bytes: u64) -> Self {
        let raw = match Offset::from_bytes(offset_bytes) {
            Ok(offset) => offset.to_raw(),
            Err(_) => WILD,
        };
        Self { raw, _target: PhantomData }
    }

    /// Returns the distance from the base of the segment, in bytes.
    #[inline]
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.raw as u64 * OFFSET_UNIT_BYTES
    }

    /// Returns the place it points to, or `None` for a wild pointer.
    #[inline]
    #[must_use]
    pub const fn place(&self) -> Option<Offset> {
        if self.raw == WILD { None } else { Some(Offset(self.raw)) }
    }

    /// Returns the address in a mapping at `base`; forming it is safe, reading through it is not.
    #[inline]
    #[must_use]
    pub fn resolve(&self, base: *const u8) -> *const T {
        base.wrapping_add(self.offset() as usize).cast()
    }

    /// Returns the address in a mapping at `base`; forming it is safe, writing through it is not.
    #[inline]
    #[must_use]
    pub fn resolve_mut(&self, base: *mut u8) -> *mut T {
        base.wrapping_add(self.offset() as usize).cast()
    }

    /// Returns the same place with another target type.
    #[inline]
    #[must_use]
    pub const fn cast<U>(self) -> RelativePtr<U> {
        RelativePtr { raw: self.raw, _target: PhantomData }
    }
}

impl<T> From<Offset> for RelativePtr<T> {
    fn from(offset: Offset) -> Self {
        Self { raw: offset.0, _target: PhantomData }
    }
}

impl<T> Clone for RelativePtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for RelativePtr<T> {}
impl<T> PartialEq for RelativePtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}
impl<T> Eq for RelativePtr<T> {}
impl<T> Hash for RelativePtr<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}
impl<T> fmt::Debug for RelativePtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Some(offset) => write!(f, "RelativePtr({offset})"),
            None => f.write_str("RelativePtr(wild)"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn offset_above_4_gib_survives_the_u32() {
        let bytes = 100 << 30;
        let ptr = RelativePtr::<u8>::new(bytes);
        assert_eq!(ptr.offset(), bytes);
        assert_eq!(size_of_val(&ptr), 4);
    }

    #[test]
    fn pointer_to_an_unaligned_or_distant_byte_is_wild() {
        for bytes in [1, 31, 33, REACH_BYTES, u64::MAX] {
            assert_eq!(RelativePtr::<u8>::new(bytes).place(), None, "{bytes}");
            assert_eq!(Offset::from_bytes(bytes), Err(BadOffset { bytes }));
        }
    }
}
