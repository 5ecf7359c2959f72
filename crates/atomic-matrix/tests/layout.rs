//! What a segment's bytes promise: the guard, the order of the parts, headers, and the state words
//! through the life of a block.

mod common;

use am_layout::guard::{MAGIC, READY, VERSION};
use am_layout::{FIXED_BYTES, Geometry, Seen, State};
use atomic_matrix::matrix::core::{Mapping, MatrixHandler};
use common::{MIB, Scratch, assert_whole, header_of, payload, words};

const SPLITS: [(u8, u8); 6] = [(40, 30), (100, 0), (0, 100), (0, 0), (50, 50), (1, 1)];

fn geometry(handler: &MatrixHandler) -> &Geometry {
    handler.matrix.as_matrix().geometry()
}

/// What the word of the granule says where the block at `header_bytes` begins, `further` granules on.
fn seen(mapping: &Mapping, geometry: &Geometry, header_bytes: u64, further: u64) -> Seen {
    let sector = &geometry.sectors[geometry.sector_of(header_bytes).expect("in a sector")];
    let inside = header_bytes - sector.data_bytes;
    assert!(inside.is_multiple_of(sector.granule_bytes()));
    let at = sector.words_bytes + (inside / sector.granule_bytes() + further) * 4;
    Seen::decode(words(mapping, at..at + 4)[0])
}

#[test]
fn segment_begins_with_a_guard_that_says_ready() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(MIB, (40, 30));
    assert_eq!(words(&handler.mmap, 0..16), [READY, MAGIC, VERSION, 0]);
    assert_eq!((READY, VERSION, &MAGIC.to_le_bytes()), (2, 5, b"AMx2"));
    let file = std::fs::read(scratch.path()).unwrap();
    assert_eq!(file[..8], [2, 0, 0, 0, b'A', b'M', b'x', b'2']);
}

#[test]
fn parts_of_a_segment_lie_in_order_without_overlap() {
    for split in SPLITS {
        for size in [MIB, 50 * MIB + 12_345] {
            let scratch = Scratch::new();
            let handler = scratch.bootstrap(size, split);
            let geometry = geometry(&handler);
            let sectors = || geometry.sectors.iter().filter(|sector| sector.granules > 0);
            let metadata = sectors().flat_map(|s| {
                let index = (s.index_bytes, u64::from(s.index_words) * 4);
                [index, (s.words_bytes, u64::from(s.granules) * 4)]
            });
            let data = sectors().map(|s| (s.data_bytes, s.size_bytes()));
            let mut end = FIXED_BYTES;
            for (from, len) in metadata.chain(data) {
                assert!(from >= end && len > 0, "{geometry:?}");
                end = from + len;
            }
            assert!(end <= size as u64, "{geometry:?}");
            for sector in sectors() {
                assert!((sector.data_bytes + 32).is_multiple_of(4096));
            }
        }
    }
}

#[test]
fn geometry_in_the_head_is_what_an_attachment_reads() {
    let scratch = Scratch::new();
    let first = scratch.bootstrap(MIB, (40, 30));
    let second = scratch.bootstrap(MIB, (40, 30));
    assert_eq!(geometry(&first), geometry(&second));
    // Size and percentages, at the places that docs name: directly behind the guard.
    assert_eq!(words(&first.mmap, 16..32), [MIB as u32, 0, 40, 30]);
}

#[test]
fn header_is_the_32_bytes_before_the_payload() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap_direct(50 * MIB, (40, 30));
    let base = handler.mmap.as_ptr();
    for bytes in [0, 1, 128, 5000, 1_000_000] {
        let ptr = handler.matrix.allocate(base, bytes).unwrap();
        let header = ptr.offset() - 32;
        let sector = geometry(&handler).sector_of(header).expect("the header is in a sector");
        assert_eq!(geometry(&handler).sector_of(ptr.offset() + bytes as u64 - 1), Some(sector));
        // The bytes asked for are words 1 and 2; the block to the left, granule 0, is word 0.
        let before = words(&handler.mmap, header..header + 32);
        assert_eq!(before[..3], [1, bytes as u32, 0]);
        // The payload written over its whole length leaves the header as it is.
        payload(&handler.mmap, ptr, bytes).fill(0xff);
        assert_eq!(words(&handler.mmap, header..header + 32), before);
        handler.matrix.ack(&header_of(ptr), base).unwrap();
    }
    assert_whole(handler.matrix.as_matrix());
}

/// FREE → ALLOCATED → HELD → ALLOCATED → FREE, as the granule's word tells it.
#[test]
fn state_word_follows_the_life_of_a_block() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap_direct(50 * MIB, (40, 30));
    let (base, matrix) = (handler.mmap.as_ptr(), handler.matrix.as_matrix());
    for (number, bytes) in [100, 5000, 200_000].into_iter().enumerate() {
        let sector = geometry(&handler).sectors[number];
        let len = sector.granules_for(bytes).unwrap();
        let word = |at, further| seen(&handler.mmap, geometry(&handler), at, further);
        let origin = || word(sector.data_bytes, 0);
        assert_eq!(origin(), Seen::Head(State::Free, sector.granules));

        // A block is the end of the free one.
        let ptr = handler.matrix.allocate(base, bytes as usize).unwrap();
        let header = ptr.offset() - 32;
        assert_eq!(header + u64::from(len) * sector.granule_bytes(), sector.end_bytes());
        assert_eq!(word(header, 0), Seen::Head(State::Allocated, len));
        assert_eq!(word(header, u64::from(len) - 1), Seen::Tail(len - 1));
        assert_eq!(origin(), Seen::Head(State::Free, sector.granules - len));

        let block = matrix.from_offset(ptr.place().unwrap()).unwrap();
        assert_eq!(word(header, 0), Seen::Head(State::Held, len));
        let offset = block.into_offset();
        assert_eq!(word(header, 0), Seen::Head(State::Allocated, len));

        handler.matrix.ack(&header_of(ptr), base).unwrap();
        assert_eq!(word(header, 0), Seen::Interior);
        assert_eq!(origin(), Seen::Head(State::Free, sector.granules));
        assert!(matrix.ack(offset).is_err());
    }
    assert_whole(matrix);
}

/// A block between two live ones is FREE by itself when it is acked.
#[test]
fn state_word_of_a_block_between_live_ones_becomes_free() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap_direct(MIB, (40, 30));
    let base = handler.mmap.as_ptr();
    let [right, middle, left] = [(); 3].map(|()| handler.matrix.allocate(base, 100).unwrap());
    let word = |offset| seen(&handler.mmap, geometry(&handler), offset, 0);
    handler.matrix.ack(&header_of(middle), base).unwrap();
    assert_eq!(word(middle.offset() - 32), Seen::Head(State::Free, 5));
    assert_eq!(word(left.offset() - 32), Seen::Head(State::Allocated, 5));
    // The right one flows into it, and then both into the left one and the sector.
    handler.matrix.ack(&header_of(right), base).unwrap();
    assert_eq!(word(middle.offset() - 32), Seen::Head(State::Free, 10));
    assert_eq!(word(right.offset() - 32), Seen::Interior);
    handler.matrix.ack(&header_of(left), base).unwrap();
    assert_whole(handler.matrix.as_matrix());
}

/// HELD → CACHED → ALLOCATED → CACHED → HELD, with the tail where it was and the owner in the header.
#[test]
fn state_word_of_a_block_that_passes_through_a_cache_says_cached() {
    let scratch = Scratch::new();
    let handler = scratch.bootstrap(MIB, (40, 30));
    let (base, matrix) = (handler.mmap.as_ptr(), handler.matrix.as_matrix());
    for (bytes, len) in [(100, 5), (5000, 20)] {
        let block = matrix.allocate(bytes).unwrap();
        let header = block.offset().bytes() - 32;
        let word = |further| seen(&handler.mmap, geometry(&handler), header, further);
        let cached = [Seen::Head(State::Cached, len), Seen::Tail(len - 1)];
        drop(block);
        assert_eq!([word(0), word(u64::from(len) - 1)], cached);
        let ptr = handler.matrix.allocate(base, bytes).unwrap();
        assert_eq!((ptr.offset(), word(0)), (header + 32, Seen::Head(State::Allocated, len)));
        handler.matrix.ack(&header_of(ptr), base).unwrap();
        assert_eq!([word(0), word(u64::from(len) - 1)], cached);
        let block = matrix.allocate(bytes).unwrap();
        assert_eq!((block.offset().bytes(), word(0)), (header + 32, Seen::Head(State::Held, len)));
    }
    assert_whole(matrix);
}
