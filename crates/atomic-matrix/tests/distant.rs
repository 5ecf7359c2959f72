//! Segments that reach beyond 4 GiB: sparse files, of which only what is touched takes memory.

mod common;

use atomic_matrix::{Matrix, Offset, SectorId};
use common::{Scratch, assert_sound, assert_whole, pattern};

const GIB: u64 = 1 << 30;

/// Blocks lie at the end of their sector, and the last sector ends at 6 GiB.
#[test]
fn block_above_4_gib_is_the_same_in_another_mapping() {
    for split in [(0, 0), (10, 10), (100, 0)] {
        let scratch = Scratch::new();
        let builder = || Matrix::builder().size(6 * GIB).split(split.0, split.1);
        let matrix = builder().create(&scratch.name()).unwrap();
        let again = builder().open_or_create(&scratch.name()).unwrap();
        let mut block = matrix.allocate(1 << 20).unwrap();
        assert!(block.offset().bytes() > 4 * GIB, "{}", block.offset());
        pattern::fill(&mut block, 6);
        let offset = block.into_offset();
        assert_eq!(Offset::from_raw(offset.to_raw()), offset, "a u32 is enough");
        let block = again.from_offset(offset).unwrap();
        pattern::verify(&block, 6);
        assert!(matrix.from_offset(offset).is_err());
        assert_sound_quickly(&matrix);
        drop(block);
        let stats = matrix.stats();
        for sector in &stats.sectors {
            assert_eq!((sector.free_blocks, sector.free_bytes), (1, sector.size_bytes));
        }
        assert_eq!(stats.sectors.last().unwrap().live_blocks(), 0);
    }
}

/// The statistics alone: a full check reads every granule's word of a sparse file.
fn assert_sound_quickly(matrix: &Matrix) {
    let stats = matrix.stats();
    assert_eq!(stats.sectors.iter().map(|sector| sector.live_blocks()).sum::<u64>(), 1);
    assert!(stats.sectors.iter().all(|sector| sector.corrupt == 0 && sector.in_flight_blocks == 0));
}

/// Two blocks whose offsets differ by 4 GiB would be one, were offsets cut to 32 bits of bytes.
#[test]
fn blocks_4_gib_apart_are_two_blocks() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(6 * GIB).split(0, 0).create(&scratch.name()).unwrap();
    let again = Matrix::builder().open(&scratch.name()).unwrap();
    let mut high = matrix.allocate(8000).unwrap();
    // A long block between: what is allocated next lies 4 GiB lower.
    let between = matrix.allocate((4 * GIB - 3 * 4096) as usize).unwrap();
    let mut low = matrix.allocate(8000).unwrap();
    assert!(low.offset().bytes() < GIB * 2 && high.offset().bytes() > GIB * 4);
    pattern::fill(&mut high, 1);
    pattern::fill(&mut low, 2);
    let (high, low) = (high.into_offset(), low.into_offset());
    pattern::verify(&again.from_offset(high).unwrap(), 1);
    pattern::verify(&again.from_offset(low).unwrap(), 2);
    assert_sound(&matrix);
    drop(between);
    assert_whole(&matrix);
}

#[test]
fn file_at_any_path_reaches_beyond_4_gib() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    let matrix = Matrix::builder().size(5 * GIB).split(0, 0).create_at(&path).unwrap();
    let block = matrix.allocate_value([7u64; 4]).unwrap();
    assert!(block.offset().bytes() > 4 * GIB);
    let offset = block.into_offset();
    let again = Matrix::builder().open_at(&path).unwrap();
    assert_eq!(*again.value_from_offset::<[u64; 4]>(offset).unwrap(), [7; 4]);
    assert_eq!(again.stats().sectors[0].sector, SectorId::Large);
    matrix.destroy().unwrap();
    assert!(!path.exists());
}
