//! Cells: where short messages lie, each in its slot.
//!
//! A cell is used as plain bytes only: written by the claimer of its slot, and looked at by readers from the
//! publication until their cursors have passed (M1 of docs/messages.md).

use am_layout::Wide;

/// Copies a payload to the start of a cell; false when it does not fit.
///
/// # Safety
/// The caller has claimed the cell's slot and not published it yet.
#[inline]
pub(crate) unsafe fn write(cell: &[Wide], payload: &[u8]) -> bool {
    if size_of_val(cell) < payload.len() {
        return false;
    }
    // Words can be written through a shared reference.
    let to = cell.as_ptr().cast::<u8>().cast_mut();
    // SAFETY: the cell is that long, and nobody else uses it, as the caller promises. (In a topic that somebody
    // scribbled on the payload may be a view of this very cell.)
    unsafe { copy(to, payload.as_ptr(), payload.len()) };
    true
}

/// Copies as [`copy_from`](pointer::copy_from) does, without a call where the length is one of those that messages have.
///
/// # Safety
/// As of that.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    macro_rules! copy {
        ($($known:literal)*) => {
            match len {
                // SAFETY: the caller's promise.
                $($known => unsafe { to.copy_from(from, $known) },)*
                // SAFETY: the caller's promise.
                _ => unsafe { to.copy_from(from, len) },
            }
        };
    }
    copy!(8 16 24 32 48 64)
}

/// The first `len` bytes of a cell; `None` when it is shorter.
#[inline]
pub(crate) fn bytes(cell: &[Wide], len: usize) -> Option<*const [u8]> {
    let is_there = len <= size_of_val(cell);
    is_there.then(|| std::ptr::slice_from_raw_parts(cell.as_ptr().cast(), len))
}

/// A short message that is not posted yet, aligned as cells are.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Draft {
    bytes: [u8; Self::BYTES],
    len: u8,
}

impl Draft {
    /// The longest one's length, in bytes: what the shortest cells hold.
    pub const BYTES: usize = am_topic::Shape::CELL_BYTES_MIN as usize;

    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: [0; Self::BYTES], len: 0 }
    }

    /// Makes it that many bytes long, whatever they are; false when they are too many.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= Self::BYTES;
        self.len = if fits { len as u8 } else { 0 };
        fits
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}
