//! The interface of version 0.1: explicit base pointers, relative pointers, and what it refuses.

mod common;

use atomic_matrix::matrix::core::{AtomicMatrix, BlockHeader, MatrixHandler, RelativePtr};
use atomic_matrix::{Error, Hugepages, Matrix, OpenError, Seen, State};
use common::{MIB, Scratch, assert_sound, assert_whole, header_of, pattern, payload};
use std::os::unix::fs::PermissionsExt;

const SIZE_BYTES: usize = 50 * MIB;

fn live(handler: &MatrixHandler) -> u64 {
    let stats = handler.matrix.as_matrix().stats();
    stats.sectors.iter().map(|sector| sector.live_blocks()).sum()
}

fn header_at(bytes: u64) -> RelativePtr<BlockHeader> {
    RelativePtr::new(bytes)
}

#[test]
fn block_allocated_and_acked_leaves_the_matrix_whole() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    assert_eq!(handler.id(), scratch.0);
    let base = handler.mmap.as_ptr();
    let ptrs: Vec<(RelativePtr<u8>, usize)> = [128, 0, 4096, 4097, 100_000, 1_000_000]
        .map(|bytes| (handler.matrix.allocate(base, bytes).unwrap(), bytes))
        .into();
    for &(ptr, bytes) in &ptrs {
        assert!(ptr.resolve(base).addr().is_multiple_of(32));
        pattern::fill(payload(&handler.mmap, ptr, bytes), bytes as u64);
    }
    for (ptr, bytes) in ptrs {
        pattern::verify(payload(&handler.mmap, ptr, bytes), bytes as u64);
        handler.matrix.ack(&header_of(ptr), base).unwrap();
    }
    assert_whole(handler.matrix.as_matrix());
}

#[test]
fn call_with_a_wrong_base_is_refused() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let (again, other) = (scratch.bootstrap(SIZE_BYTES, (40, 30)), other.bootstrap(MIB, (40, 30)));
    let base = handler.mmap.as_ptr();
    let ptr = handler.matrix.allocate(base, 100).unwrap();
    for given in [
        std::ptr::null(),
        base.wrapping_add(1),
        base.wrapping_add(4096),
        base.wrapping_sub(4096),
        again.mmap.as_ptr(),
        other.mmap.as_ptr(),
    ] {
        let wrong = Error::WrongBase { given: given.addr(), expected: base.addr() };
        assert_eq!(handler.matrix.allocate(given, 100), Err(wrong));
        assert_eq!(handler.matrix.ack(&header_of(ptr), given), Err(wrong));
    }
    assert_eq!(live(&handler), 1);
    handler.matrix.ack(&header_of(ptr), base).unwrap();
    assert_whole(handler.matrix.as_matrix());
}

/// Every place in the segment that is not the header of an allocated block.
#[test]
fn ack_of_a_forged_offset_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let base = handler.mmap.as_ptr();
    let geometry = handler.matrix.as_matrix().geometry();
    let sizes = [100, 5000, 200_000];
    let ptrs = sizes.map(|bytes| handler.matrix.allocate(base, bytes).unwrap());
    let outside = [0, 32, geometry.sectors[0].index_bytes, geometry.sectors[2].words_bytes]
        .into_iter()
        .map(|bytes| bytes / 32 * 32)
        .chain([SIZE_BYTES as u64, SIZE_BYTES as u64 + 32, 1 << 36, 32 * (u32::MAX as u64 - 1)]);
    for bytes in outside {
        let refused = handler.matrix.ack(&header_at(bytes), base);
        assert!(matches!(refused, Err(Error::NotAPayload { .. })), "{bytes}: {refused:?}");
    }
    for bytes in [1, 31, 33, header_of(ptrs[0]).offset() + 8, 32 * u32::MAX as u64, u64::MAX] {
        let refused = handler.matrix.ack(&header_at(bytes), base);
        assert_eq!(refused, Err(Error::WildPointer), "{bytes}");
    }
    for (ptr, bytes) in ptrs.into_iter().zip(sizes) {
        for inside in (ptr.offset()..ptr.offset() + bytes as u64 - 32).step_by(32) {
            let refused = handler.matrix.ack(&header_at(inside), base);
            assert!(
                matches!(
                    refused,
                    Err(Error::NotAPayload { .. }
                        | Error::NotAllocated { seen: Seen::Interior | Seen::Tail(_), .. })
                ),
                "{inside}: {refused:?}"
            );
        }
    }
    for sector in &geometry.sectors {
        let refused = handler.matrix.ack(&header_at(sector.data_bytes), base);
        let free = |seen| matches!(seen, Seen::Head(State::Free, _));
        assert!(matches!(refused, Err(Error::NotAllocated { seen, .. }) if free(seen)));
    }
    assert_eq!(live(&handler), 3);
    assert_sound(handler.matrix.as_matrix());
    ptrs.into_iter().for_each(|ptr| handler.matrix.ack(&header_of(ptr), base).unwrap());
    assert_whole(handler.matrix.as_matrix());
}

#[test]
fn ack_twice_is_refused_the_second_time() {
    let scratch = Scratch::new();
    for cached in [false, true] {
        let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
        ack_each_twice(&handler.matrix.with_thread_caches(cached), handler.mmap.as_ptr());
    }
}

fn ack_each_twice(matrix: &AtomicMatrix, base: *const u8) {
    let ptrs: Vec<RelativePtr<u8>> = (0..9).map(|_| matrix.allocate(base, 100).unwrap()).collect();
    // In an order that leaves some blocks alone and merges others away.
    for number in [4, 0, 8, 3, 5, 1, 7, 2, 6] {
        let header = header_of(ptrs[number]);
        matrix.ack(&header, base).unwrap();
        for _ in 0..2 {
            let refused = matrix.ack(&header, base);
            assert!(matches!(refused, Err(Error::NotAllocated { .. })), "{refused:?}");
        }
        assert_sound(matrix.as_matrix());
    }
    assert_whole(matrix.as_matrix());
}

#[test]
fn ack_of_a_block_that_a_guard_holds_is_refused() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let base = handler.mmap.as_ptr();
    let block = handler.matrix.as_matrix().allocate(100).unwrap();
    let offset = block.offset();
    let header = header_at(offset.bytes() - 32);
    let seen = Seen::Head(State::Held, 5);
    let refused = Err(Error::NotAllocated { offset, seen });
    assert_eq!(handler.matrix.ack(&header, base), refused);
    assert_eq!(block.into_offset(), offset);
    assert_eq!(handler.matrix.ack(&header, base), Ok(()));
    assert_whole(handler.matrix.as_matrix());
}

#[test]
fn split_40_30_gives_each_sector_its_share() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let stats = handler.matrix.as_matrix().stats();
    assert_eq!(stats.sectors.len(), 3);
    for (sector, percent) in stats.sectors.iter().zip([40, 30, 30]) {
        let share = (sector.size_bytes + sector.metadata_bytes) as f64 / SIZE_BYTES as f64;
        assert!((share * 100.0 - f64::from(percent)).abs() < 0.1, "{sector:?} has {share}");
    }
    let granules: Vec<u64> = stats.sectors.iter().map(|sector| sector.granule_bytes).collect();
    assert_eq!(granules, [32, 256, 4096]);
}

#[test]
fn split_of_one_sector_serves_every_size_from_it() {
    for split in [(100, 0), (0, 100), (0, 0)] {
        let scratch = Scratch::new();
        let handler = scratch.bootstrap(SIZE_BYTES, split);
        let base = handler.mmap.as_ptr();
        assert_eq!(handler.matrix.as_matrix().stats().sectors.len(), 1, "{split:?}");
        for bytes in [1, 5000, 200_000, 40 * MIB] {
            let ptr = handler.matrix.allocate(base, bytes).unwrap();
            handler.matrix.ack(&header_of(ptr), base).unwrap();
        }
        assert_whole(handler.matrix.as_matrix());
    }
}

#[test]
fn split_above_100_percent_is_refused_before_a_file_is_made() {
    for split in [(80, 21), (255, 255), (101, 0), (0, 101)] {
        let scratch = Scratch::new();
        let error = AtomicMatrix::bootstrap(Some(scratch.0), SIZE_BYTES, split).unwrap_err();
        let (small, medium) = split;
        assert!(
            matches!(&error, OpenError::Matrix(e) if *e == Error::SplitAbove100 { small, medium }),
            "{error}"
        );
        assert!(!scratch.path().exists());
    }
}

#[test]
fn size_too_small_names_the_smallest_that_works() {
    for split in [(40, 30), (100, 0), (0, 0), (98, 1)] {
        let scratch = Scratch::new();
        let error = AtomicMatrix::bootstrap(Some(scratch.0), 100, split).unwrap_err();
        let OpenError::Matrix(Error::TooSmall { size_bytes: 100, minimum_bytes }) = error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains(&minimum_bytes.to_string()), "{error}");
        let size = minimum_bytes as usize;
        assert!(AtomicMatrix::bootstrap(Some(scratch.0), size - 1, split).is_err());
        assert!(!scratch.path().exists());
        let handler = scratch.bootstrap(size, split);
        let base = handler.mmap.as_ptr();
        let ptr = handler.matrix.allocate(base, 1).unwrap();
        payload(&handler.mmap, ptr, 1)[0] = 7;
        handler.matrix.ack(&header_of(ptr), base).unwrap();
        assert_whole(handler.matrix.as_matrix());
    }
}

#[test]
fn bootstrap_of_an_existing_id_maps_the_same_segment() {
    let scratch = Scratch::new();
    let first = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let second = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let formatted = [&first, &second].map(|handler| handler.matrix.as_matrix().formatted_here());
    assert_eq!(formatted, [true, false]);
    let ptr = first.matrix.allocate(first.mmap.as_ptr(), 1000).unwrap();
    pattern::fill(payload(&first.mmap, ptr, 1000), 5);
    drop(first);
    pattern::verify(payload(&second.mmap, ptr, 1000), 5);
    second.matrix.ack(&header_of(ptr), second.mmap.as_ptr()).unwrap();
    assert_whole(second.matrix.as_matrix());
}

#[test]
fn bootstrap_with_another_size_or_split_is_a_mismatch() {
    let scratch = Scratch::new();
    let first = scratch.bootstrap(SIZE_BYTES, (40, 30));
    for (size, split) in [(SIZE_BYTES + 4096, (40, 30)), (MIB, (40, 30)), (SIZE_BYTES, (30, 40))] {
        let error = AtomicMatrix::bootstrap(Some(scratch.0), size, split).unwrap_err();
        let OpenError::Mismatch {
            existing_bytes,
            existing_split,
            requested_bytes,
            requested_split,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((existing_bytes, existing_split), (SIZE_BYTES as u64, (40, 30)));
        assert_eq!((requested_bytes, requested_split), (size as u64, split));
    }
    assert_whole(first.matrix.as_matrix());
}

/// The feature `server` asks for huge pages, and the handler tells what came of it.
#[test]
fn hugepages_are_asked_for_by_the_server_feature_alone() {
    let scratch = Scratch::new();
    let handler = AtomicMatrix::bootstrap(Some(scratch.0), SIZE_BYTES, (40, 30)).unwrap();
    let asked = handler.hugepages() != Hugepages::NotAsked;
    assert_eq!(asked, cfg!(feature = "server"), "{:?}", handler.hugepages());
}

#[test]
fn bootstrap_without_an_id_draws_a_new_one_each_time() {
    let handlers = [(); 2].map(|()| AtomicMatrix::bootstrap(None, MIB, (40, 30)).unwrap());
    let scratches = handlers.each_ref().map(|handler| Scratch(handler.id()));
    assert_ne!(scratches[0].0, scratches[1].0);
    assert!(scratches.iter().all(|scratch| scratch.path().exists()));
    handlers.iter().for_each(|handler| handler.destroy().unwrap());
    assert!(scratches.iter().all(|scratch| !scratch.path().exists()));
    assert!(handlers[0].destroy().is_err(), "it is gone");
    // The mapping lives on.
    let base = handlers[0].mmap.as_ptr();
    let ptr = handlers[0].matrix.allocate(base, 100).unwrap();
    handlers[0].matrix.ack(&header_of(ptr), base).unwrap();
}

#[test]
fn file_of_a_segment_is_in_dev_shm_and_private() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let meta = std::fs::metadata(scratch.path()).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(meta.len(), SIZE_BYTES as u64);
    assert_eq!(handler.mmap.len(), SIZE_BYTES);
    assert_eq!(handler.matrix.as_matrix().path(), Some(scratch.path().as_path()));
}

#[test]
fn file_that_is_no_segment_is_refused_and_kept() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path(), vec![0; 1 << 20]).unwrap();
    for size in [MIB, SIZE_BYTES] {
        let error = AtomicMatrix::bootstrap(Some(scratch.0), size, (40, 30)).unwrap_err();
        assert!(matches!(error, OpenError::Segment(_)), "{error}");
    }
    assert_eq!(std::fs::read(scratch.path()).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn both_interfaces_work_on_one_segment() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(SIZE_BYTES, (40, 30));
    let matrix = Matrix::builder().open(&scratch.name()).unwrap();
    let block = matrix.allocate_value([1u32, 2, 3]).unwrap();
    let header = header_at(block.into_offset().bytes() - 32);
    handler.matrix.ack(&header, handler.mmap.as_ptr()).unwrap();
    let ptr = handler.matrix.allocate(handler.mmap.as_ptr(), 77).unwrap();
    let block = matrix.from_offset(ptr.place().unwrap()).unwrap();
    assert_eq!(block.len(), 77);
    drop(block);
    handler.matrix.as_matrix().trim().unwrap();
    assert_whole(&matrix);
}
