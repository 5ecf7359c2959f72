//! Common blocks: held by nobody, looked at by everybody, until somebody adopts them.

mod common;

use am_matrix::{Error, Matrix, Offset, Seen, State};
use common::{assert_sound, assert_whole, attach_again, matrix, pattern, with_and_without_caches};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

fn sum(matrix: &Matrix, of: impl Fn(&am_matrix::SectorStats) -> u64) -> u64 {
    matrix.stats().sectors.iter().map(of).sum()
}

/// A word of the segment, to be scribbled on.
fn word(matrix: &Matrix, at_bytes: u64) -> &AtomicU32 {
    assert!(at_bytes.is_multiple_of(4) && at_bytes + 4 <= matrix.arena().len_bytes() as u64);
    let at = matrix.arena().base().wrapping_add(at_bytes as usize).cast::<AtomicU32>();
    // SAFETY: inside the arena, aligned, and no payload that anybody has a slice of.
    unsafe { &*at }
}

#[test]
fn block_made_common_is_refused_by_its_offset_and_adopted_as_it_was() {
    for matrix in with_and_without_caches(1 << 20, 40, 30) {
        for bytes in [1, 100, 5000, 150_000] {
            let mut block = matrix.allocate(bytes).unwrap();
            pattern::fill(&mut block, 3);
            let held = sum(&matrix, |s| s.held_blocks);
            let common = block.into_common().unwrap();
            let offset = common.offset();
            assert_eq!((common.len_bytes(), matrix.common(offset).unwrap()), (bytes, common));
            assert_eq!(sum(&matrix, |s| s.common_blocks), 1);
            assert_eq!(sum(&matrix, |s| s.held_blocks), held - 1);
            assert!(sum(&matrix, |s| s.common_bytes) >= bytes as u64 + 32);

            let held = |error: &Error| {
                matches!(error, Error::NotAllocated { seen: Seen::Head(State::Held, _), .. })
            };
            assert!(held(&matrix.ack(offset).unwrap_err()));
            assert!(held(&matrix.from_offset(offset).unwrap_err()));
            // SAFETY: nobody else knows of the offset.
            assert!(held(&unsafe { matrix.ack_unshared(offset) }.unwrap_err()));
            // SAFETY: as above.
            assert!(held(&unsafe { matrix.from_offset_unshared(offset) }.unwrap_err()));
            assert!(held(&matrix.value_from_offset::<u8>(offset).unwrap_err()));
            assert!(matrix.recover().is_empty());
            assert_sound(&matrix);

            // SAFETY: nobody writes to it or adopts it meanwhile.
            let view = unsafe { matrix.common_bytes(offset) }.unwrap();
            assert_eq!(view.len(), bytes);
            // SAFETY: the view is used no more, and nobody else adopts it.
            let block = unsafe { matrix.adopt_common(offset) }.unwrap();
            assert_eq!(block.len(), bytes);
            pattern::verify(&block, 3);
            assert!(matches!(matrix.common(offset), Err(Error::NotCommon { owner: 1, .. })));
            drop(block);
            assert_eq!(sum(&matrix, |s| s.common_blocks), 0);
            assert_whole(&matrix);
        }
    }
}

#[test]
fn length_of_a_block_out_of_a_cache_is_the_one_asked_for() {
    let matrix = matrix(1 << 20, 40, 30);
    drop(matrix.allocate(90).unwrap());
    for bytes in [70, 96, 65] {
        let common = matrix.allocate(bytes).unwrap().into_common().unwrap();
        // SAFETY: nobody looks at it or adopts it.
        let block = unsafe { matrix.adopt_common(common.offset()) }.unwrap();
        assert_eq!(block.len(), bytes);
    }
    assert_whole(&matrix);
}

#[test]
fn offset_of_any_value_is_refused_where_no_common_block_is() {
    let matrix = matrix(200_000, 40, 30);
    let held = matrix.allocate(100).unwrap();
    let raw = matrix.allocate_offset(100).unwrap();
    let common = matrix.allocate(100).unwrap().into_common().unwrap();
    drop(matrix.allocate(100).unwrap());
    for offset in (0..8000).chain([u32::MAX - 1, u32::MAX]).map(Offset::from_raw) {
        if offset == common.offset() {
            continue;
        }
        let refused = |error| matches!(error, Error::NotAPayload { .. } | Error::NotCommon { .. });
        assert!(refused(matrix.common(offset).unwrap_err()));
        // SAFETY: there is no such block.
        assert!(refused(unsafe { matrix.adopt_common(offset) }.unwrap_err()));
        // SAFETY: as above.
        assert!(refused(unsafe { matrix.common_bytes(offset) }.unwrap_err()));
        // SAFETY: as above.
        assert!(refused(unsafe { matrix.common_words(offset) }.unwrap_err()));
        // SAFETY: as above.
        assert!(refused(unsafe { matrix.common_wides(offset) }.unwrap_err()));
    }
    drop(held);
    matrix.ack(raw).unwrap();
    // SAFETY: nobody looks at it or adopts it.
    drop(unsafe { matrix.adopt_common(common.offset()) }.unwrap());
    assert_whole(&matrix);
}

#[test]
fn words_of_a_common_block_are_shared_by_attachments() {
    let matrix = matrix(1 << 20, 40, 30);
    let other = attach_again(&matrix);
    for (bytes, words, wides) in [(30, 7, 3), (64, 16, 8), (3, 0, 0), (7000, 1750, 875)] {
        let mut block = matrix.allocate(bytes).unwrap();
        block.fill(0);
        let offset = block.into_common().unwrap().offset();
        // SAFETY: nobody adopts it while the views are used; each half is used as one kind of word.
        let [mine, theirs] = [&matrix, &other].map(|m| unsafe { m.common_words(offset) }.unwrap());
        // SAFETY: as above.
        let [my_wides, their_wides] =
            [&matrix, &other].map(|m| unsafe { m.common_wides(offset) }.unwrap());
        assert_eq!((mine.len(), my_wides.len()), (words, wides));
        if let (Some(first), Some(last)) = (mine.first(), my_wides.last()) {
            first.store(7);
            last.store(1 << 40);
            assert_eq!((theirs[0].load(), their_wides[wides - 1].load()), (7, 1 << 40));
        }
        // SAFETY: the views are used no more.
        drop(unsafe { other.adopt_common(offset) }.unwrap());
    }
    other.trim().unwrap();
    assert_whole(&matrix);
}

#[test]
fn length_that_somebody_scribbled_is_no_more_than_the_block_has() {
    let matrix = matrix(1 << 20, 40, 30);
    let offset = matrix.allocate(100).unwrap().into_common().unwrap().offset();
    word(&matrix, offset.bytes() - 32 + 8).store(u32::MAX, Relaxed);
    assert_eq!(matrix.common(offset).unwrap().len_bytes(), 128);
    // SAFETY: nobody writes to it or adopts it meanwhile.
    assert_eq!(unsafe { matrix.common_words(offset) }.unwrap().len(), 32);
    // SAFETY: nobody looks at it or adopts it.
    assert_eq!(unsafe { matrix.adopt_common(offset) }.unwrap().len(), 128);
    assert_whole(&matrix);
}

#[test]
fn block_whose_head_was_damaged_is_not_made_common() {
    let matrix = matrix(1 << 20, 100, 0);
    let block = matrix.allocate(100).unwrap();
    let offset = block.offset();
    let sector = matrix.geometry().sectors[0];
    let granule = (offset.bytes() - 32 - sector.data_bytes) / 32;
    let head = word(&matrix, sector.words_bytes + 4 * granule);
    let old = head.swap(0, Relaxed);
    let seen = Seen::Interior;
    assert_eq!(block.into_common().unwrap_err(), Error::Corrupt { offset, seen });
    head.store(old, Relaxed);
    assert!(matches!(matrix.common(offset), Err(Error::NotCommon { owner: 1, .. })));
}

#[test]
fn attachment_that_ends_leaves_common_blocks_and_takes_adopted_ones_back() {
    let first = matrix(1 << 20, 40, 30);
    let second = attach_again(&first);
    let common = |bytes| second.allocate(bytes).unwrap().into_common().unwrap().offset();
    let (stays, adopted) = (common(200), common(300));
    // SAFETY: nobody looks at it, and nobody else adopts it.
    std::mem::forget(unsafe { second.adopt_common(adopted) }.unwrap());
    assert_eq!(second.participants()[1].blocks, 1, "the adopted one alone");
    drop(second);
    assert_eq!(first.participants().len(), 1);
    assert_eq!(first.common(stays).unwrap().len_bytes(), 200);
    assert!(first.common(adopted).is_err());
    assert_eq!((sum(&first, |s| s.held_blocks), sum(&first, |s| s.common_blocks)), (0, 1));
    // SAFETY: nobody looks at it or adopts it.
    drop(unsafe { first.adopt_common(stays) }.unwrap());
    assert_whole(&first);
}

#[test]
fn attachment_that_adopted_and_gave_back_ends_without_a_recovery() {
    let first = matrix(1 << 20, 40, 30);
    let second = attach_again(&first);
    let offset = second.allocate(200).unwrap().into_common().unwrap().offset();
    // SAFETY: nobody looks at it or adopts it.
    drop(unsafe { first.adopt_common(offset) }.unwrap());
    drop(second);
    assert_eq!(sum(&first, |s| s.recovered), 0);
    assert_whole(&first);
}
