//! Owner patterns: what a verifying client writes into a block and expects to find again.

use std::io::{self, Write};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a verifying process announces corrupted blocks on its standard output.
pub const CORRUPTED_PREFIX: &str = "corrupted ";

/// Corrupted blocks found by this process.
static CORRUPTED: AtomicU64 = AtomicU64::new(0);

/// Returns the `index`th word of the pattern of `tag`: different for every word of every block.
#[inline]
fn word(tag: u32, index: usize) -> u64 {
    // The finaliser of splitmix64.
    let mut z = (u64::from(tag) << 32 | index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills all `bytes` bytes of a payload with the pattern of `tag`.
///
/// # Safety
/// `payload` is valid for writing `bytes` bytes.
pub unsafe fn fill(payload: NonNull<u8>, bytes: usize, tag: u32) {
    for (index, start) in (0..bytes).step_by(8).enumerate() {
        let pattern = word(tag, index).to_le_bytes();
        let len = pattern.len().min(bytes - start);
        // SAFETY: `start` lies inside the payload.
        let target = unsafe { payload.add(start) };
        // SAFETY: `start + len` does not exceed `bytes`, and the pattern has at least `len` bytes.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(&pattern).cast(), len) };
    }
}

/// Tells whether all `bytes` bytes still hold the pattern of `tag`.
///
/// # Safety
/// `payload` is valid for reading `bytes` bytes.
pub unsafe fn is_intact(payload: NonNull<u8>, bytes: usize, tag: u32) -> bool {
    (0..bytes).step_by(8).enumerate().all(|(index, start)| {
        let pattern = word(tag, index).to_le_bytes();
        let len = pattern.len().min(bytes - start);
        let mut seen = [0; 8];
        // SAFETY: `start` lies inside the payload.
        let source = unsafe { payload.add(start) };
        // SAFETY: `start + len` does not exceed `bytes`, and `seen` has at least `len` bytes.
        unsafe { source.copy_to_nonoverlapping(NonNull::from(&mut seen).cast(), len) };
        seen[..len] == pattern[..len]
    })
}

/// Counts a corrupted block and says so on standard output at every power of two.
///
/// The process may crash at any moment after this, so the count cannot wait until the end.
pub fn announce_corruption() {
    // Relaxed: a count, orders nothing.
    let count = CORRUPTED.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        // A reader that has gone away is no reason to stop verifying.
        let _ = writeln!(io::stdout(), "{CORRUPTED_PREFIX}{count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_intact_after_fill_at_every_length() {
        let mut buffer = [0u8; 64];
        for bytes in 1..buffer.len() {
            let payload = NonNull::from(&mut buffer).cast();
            // SAFETY: the buffer is longer than `bytes`.
            unsafe { fill(payload, bytes, 7) };
            // SAFETY: as above.
            assert!(unsafe { is_intact(payload, bytes, 7) });
        }
    }

    #[test]
    fn is_intact_sees_any_changed_byte() {
        let mut buffer = [0u8; 29];
        for changed in 0..buffer.len() {
            // SAFETY: the length is the buffer's.
            unsafe { fill(NonNull::from(&mut buffer).cast(), 29, 3) };
            buffer[changed] ^= 1;
            // SAFETY: as above.
            assert!(!unsafe { is_intact(NonNull::from(&mut buffer).cast(), 29, 3) });
        }
    }
}
