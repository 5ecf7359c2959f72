//! Payloads that tell whose they are: written over their whole length, and checked before the free.

use std::sync::OnceLock;

const TABLE_BYTES: usize = 64 << 10;
/// A prime below the table's length: neighbouring stamps begin far apart.
const PHASES: u64 = 65_521;
const STRIDE: u64 = 25_013;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..TABLE_BYTES).map(|_| next()).collect()
    })
}

/// The pieces of the table that a payload of `len` bytes with this stamp consists of.
fn pieces(len: usize, stamp: u64) -> impl Iterator<Item = (std::ops::Range<usize>, &'static [u8])> {
    let mut from = (stamp.wrapping_mul(STRIDE) % PHASES) as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        let piece = table().get(from..)?;
        let piece = &piece[..piece.len().min(len - at)];
        let range = at..at + piece.len();
        (at, from) = (range.end, 0);
        (!piece.is_empty()).then_some((range, piece))
    })
}

/// Writes every byte.
pub fn fill(payload: &mut [u8], stamp: u64) {
    for (range, piece) in pieces(payload.len(), stamp) {
        payload[range].copy_from_slice(piece);
    }
}

/// Checks every byte.
///
/// # Panics
/// When one is not what [`fill`] wrote with this stamp.
#[track_caller]
pub fn verify(payload: &[u8], stamp: u64) {
    for (range, piece) in pieces(payload.len(), stamp) {
        if payload[range.clone()] != *piece {
            let wrong = payload[range.clone()].iter().zip(piece).position(|(a, b)| a != b);
            let at = range.start + wrong.expect("a byte that differs");
            panic!("byte {at} of {} is not what owner {stamp} wrote", payload.len());
        }
    }
}
