//! Payloads that tell whose they are.

/// Makes a key that no other `sequence` of the same `owner` has, nor any of another owner.
#[must_use]
pub fn key(owner: u32, sequence: u64) -> u64 {
    (u64::from(owner) << 40 | sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Eight bytes of the pattern of `key`.
fn word(key: u64, index: usize) -> [u8; 8] {
    key.rotate_left(index as u32).wrapping_add(index as u64).to_le_bytes()
}

/// Writes every byte.
pub fn fill(payload: &mut [u8], key: u64) {
    let (words, rest) = payload.as_chunks_mut::<8>();
    rest.copy_from_slice(&word(key, words.len())[..rest.len()]);
    for (index, bytes) in words.iter_mut().enumerate() {
        *bytes = word(key, index);
    }
}

/// Tells whether every byte is what [`fill`] wrote with this key.
#[must_use]
pub fn holds(payload: &[u8], key: u64) -> bool {
    let (words, rest) = payload.as_chunks::<8>();
    *rest == word(key, words.len())[..rest.len()]
        && words.iter().enumerate().all(|(at, bytes)| *bytes == word(key, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_cut_short_still_holds() {
        let mut bytes = vec![0; 100];
        fill(&mut bytes, key(3, 7));
        for len in [100, 99, 64, 1, 0] {
            assert!(holds(&bytes[..len], key(3, 7)), "{len}");
        }
        assert!(!holds(&bytes, key(3, 8)));
    }
}
