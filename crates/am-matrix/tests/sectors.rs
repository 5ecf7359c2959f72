//! Sectors: each a fault domain; where requests go; what the statistics and the map say.

mod common;

use am_matrix::{Block, Error, Matrix, SectorId, Spill};
use common::{assert_sound, assert_whole, direct, matrix, minimum};

/// A payload that each sector serves.
const SIZES: [usize; 3] = [1000, 10_000, 140_000];

fn exhaust(matrix: &Matrix, bytes: usize) -> Vec<Block<'_>> {
    std::iter::from_fn(|| matrix.allocate(bytes).ok()).collect()
}

fn sector_of(matrix: &Matrix, block: &Block<'_>) -> usize {
    matrix.geometry().sector_of(block.offset().bytes() - 32).expect("in a sector")
}

#[test]
fn request_is_routed_by_its_size() {
    let matrix = matrix(8 << 20, 40, 30);
    let routes = [(0, 0), (1, 0), (4096, 0), (4097, 1), (131_072, 1), (131_073, 2), (1 << 20, 2)];
    for (bytes, sector) in routes {
        assert_eq!(sector_of(&matrix, &matrix.allocate(bytes).unwrap()), sector, "{bytes}");
    }
}

#[test]
fn request_for_an_absent_sector_goes_to_the_nearest() {
    for (split, routes) in [
        ((100, 0), [0, 0, 0]),
        ((0, 100), [1, 1, 1]),
        ((0, 0), [2, 2, 2]),
        ((50, 50), [0, 1, 1]),
        ((50, 0), [0, 2, 2]),
        ((0, 50), [1, 1, 2]),
    ] {
        let matrix = matrix(4 << 20, split.0, split.1);
        for (bytes, sector) in SIZES.into_iter().zip(routes) {
            let block = matrix.allocate(bytes).unwrap();
            assert_eq!(sector_of(&matrix, &block), sector, "{bytes} bytes with {split:?}");
        }
        assert_whole(&matrix);
    }
}

#[test]
fn sector_exhausted_is_named_and_leaves_the_others_working() {
    let matrix = direct(4 << 20, 40, 30);
    for (number, bytes) in SIZES.into_iter().enumerate() {
        let blocks = exhaust(&matrix, bytes);
        let error = matrix.allocate(bytes).unwrap_err();
        let Error::Exhausted { sector, requested_bytes, largest_free_bytes } = error else {
            panic!("{error}");
        };
        assert_eq!((sector, requested_bytes), (SectorId::ALL[number], bytes as u64));
        assert!(largest_free_bytes < requested_bytes, "{error}");
        assert!(error.to_string().contains(&format!("the {sector} sector is exhausted")));
        for (other, bytes) in SIZES.into_iter().enumerate().filter(|&(other, _)| other != number) {
            let block = matrix.allocate(bytes).expect("another sector");
            assert_eq!(sector_of(&matrix, &block), other);
        }
        assert_sound(&matrix);
        let stats = &matrix.stats().sectors[number];
        assert_eq!((stats.exhausted, stats.held_blocks), (2, blocks.len() as u64));
        matrix.free_many(blocks);
        assert_whole(&matrix);
    }
}

#[test]
fn request_longer_than_its_sector_is_too_large_at_once() {
    let matrix = direct(1 << 20, 40, 30);
    let large = matrix.geometry().sectors[2].size_bytes();
    let all = large as usize - 32;
    assert_eq!(matrix.allocate(all).unwrap().len(), all);
    for bytes in [all + 1, 1 << 20, 1 << 40, isize::MAX as usize, usize::MAX] {
        let refused = Error::TooLarge {
            sector: SectorId::Large,
            requested_bytes: bytes as u64,
            largest_bytes: all as u64,
        };
        assert_eq!(matrix.allocate(bytes).unwrap_err(), refused);
        assert_eq!(matrix.allocate_offset(bytes).unwrap_err(), refused);
        assert_eq!(matrix.allocate_zeroed(bytes).unwrap_err(), refused);
    }
    assert_whole(&matrix);
}

#[test]
fn spill_to_larger_sectors_never_goes_to_a_smaller_one() {
    let matrix = direct(4 << 20, 40, 30).with_spill(Spill::Larger);
    let off = matrix.clone().with_spill(Spill::Off);
    let small = exhaust(&off, SIZES[0]);
    assert_eq!(sector_of(&matrix, &matrix.allocate(SIZES[0]).unwrap()), 1);
    assert!(off.allocate(SIZES[0]).is_err(), "the policy is each handle's own");
    let medium = exhaust(&off, SIZES[1]);
    assert_eq!(sector_of(&matrix, &matrix.allocate(SIZES[1]).unwrap()), 2);
    drop(small);
    let large = exhaust(&off, SIZES[2]);
    let error = matrix.allocate(SIZES[2]).unwrap_err();
    assert!(matches!(error, Error::Exhausted { sector: SectorId::Large, .. }), "{error}");
    drop((medium, large));
    assert_whole(&matrix);
}

#[test]
fn spill_to_any_sector_goes_to_the_nearest_smaller_one_last() {
    let matrix = direct(8 << 20, 40, 30).with_spill(Spill::Any);
    let off = matrix.clone().with_spill(Spill::Off);
    let large = exhaust(&off, SIZES[2]);
    assert_eq!(sector_of(&matrix, &matrix.allocate(SIZES[2]).unwrap()), 1);
    let medium = exhaust(&off, 131_072);
    assert_eq!(sector_of(&matrix, &matrix.allocate(SIZES[2]).unwrap()), 0);
    drop((large, medium));
    assert_whole(&matrix);
}

#[test]
fn matrix_of_the_smallest_size_serves_one_block_per_sector() {
    for (small, medium) in [(40, 30), (100, 0), (0, 100), (0, 0), (1, 1), (98, 1)] {
        let matrix = direct(minimum(small, medium), small, medium);
        for sector in matrix.stats().sectors {
            assert!(sector.size_bytes >= 2 * sector.granule_bytes, "{sector:?}");
        }
        let mut block = matrix.allocate(1).unwrap();
        block[0] = 1;
        drop(block);
        assert_whole(&matrix);
    }
}

#[test]
fn stats_of_a_split_sector_add_up() {
    let matrix = direct(1 << 20, 100, 0);
    let size = matrix.stats().sectors[0].size_bytes;
    let (_held, right) = (matrix.allocate(100).unwrap(), matrix.allocate(96).unwrap());
    let given = matrix.allocate_offset(1000).unwrap();
    drop(right);
    let stats = &matrix.stats().sectors[0];
    assert_eq!((stats.sector, stats.granule_bytes), (SectorId::Small, 32));
    assert_eq!(stats.allocated_bytes, 160 + 1056);
    assert_eq!(stats.free_bytes, size - 160 - 1056);
    assert_eq!(stats.largest_free_bytes, size - 160 - 1056 - 128);
    assert_eq!((stats.free_blocks, stats.held_blocks, stats.allocated_blocks), (2, 1, 1));
    assert_eq!((stats.live_blocks(), stats.cached_blocks, stats.in_flight_blocks), (2, 0, 0));
    let fragmentation = 128.0 / (size - 160 - 1056) as f64;
    assert!((stats.fragmentation() - fragmentation).abs() < 1e-9);
    let geometry = &matrix.geometry().sectors[0];
    let words = u64::from(geometry.granules + geometry.index_words);
    assert_eq!(stats.metadata_bytes, words * 4);
    matrix.ack(given).unwrap();
}

#[test]
fn stats_beside_a_cache_tell_what_it_keeps() {
    let matrix = matrix(1 << 20, 100, 0);
    let size = matrix.stats().sectors[0].size_bytes;
    let (_held, parked) = (matrix.allocate(600).unwrap(), matrix.allocate(1000).unwrap());
    drop(parked);
    let stats = &matrix.stats().sectors[0];
    assert_eq!((stats.cached_blocks, stats.cached_bytes), (1, 1056));
    assert_eq!((stats.allocated_bytes, stats.free_bytes), (640, size - 640 - 1056));
    assert_eq!((stats.live_blocks(), stats.in_flight_bytes), (1, 0));
    assert_sound(&matrix);
    assert!(matrix.heap_map(4).trim_end().ends_with('+'), "{}", matrix.heap_map(4));
}

/// What stands behind the sector's name.
fn columns(line: &str) -> &str {
    line.trim_start().split_once(' ').expect("a name").1
}

#[test]
fn heap_map_shows_what_is_used_where() {
    let matrix = direct(1 << 20, 40, 30);
    let map = matrix.heap_map(50);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    let free = ".".repeat(50);
    assert_eq!(lines, ["small", "medium", "large"].map(|name| vec![name, free.as_str()]));
    // Blocks lie at the end of their sector: a tenth of it, the whole of it.
    let [small, medium, large] = matrix.geometry().sectors.map(|s| s.size_bytes() as usize);
    let off = matrix.clone().with_spill(Spill::Any);
    let tenths = (0..small / 10 / 4128).map(|_| matrix.allocate(4096).unwrap());
    let _tenth: Vec<_> = tenths.collect();
    let _all = matrix.allocate(large - 32).unwrap();
    let _most = off.allocate(medium - 32).unwrap();
    let map = matrix.heap_map(50);
    let lines: Vec<&str> = map.lines().map(columns).collect();
    assert!(lines[0].starts_with(&".".repeat(44)) && lines[0].ends_with("####"), "{map}");
    assert_eq!(lines[1..], ["#".repeat(50), "#".repeat(50)]);
}

#[test]
fn heap_map_of_any_width_is_that_wide() {
    let matrix = matrix(1 << 20, 40, 30);
    for (asked, width) in [(0, 1), (1, 1), (7, 7), (1000, 1000), (1001, 1000), (usize::MAX, 1000)] {
        for line in matrix.heap_map(asked).lines() {
            assert_eq!(columns(line).len(), width, "{asked}");
        }
    }
}

/// A sector of fewer granules than columns: each of a block's columns shows it.
#[test]
fn heap_map_wider_than_its_sector_has_no_blank_columns() {
    let matrix = matrix(1 << 20, 40, 30);
    for width in [100, 1000] {
        let map = matrix.heap_map(width);
        assert!(map.lines().all(|line| line.ends_with(&".".repeat(width))), "\n{map}");
    }
}

#[test]
fn heap_map_of_several_sectors_has_its_columns_below_each_other() {
    let map = matrix(1 << 20, 40, 30).heap_map(10);
    assert!(map.lines().all(|line| line.len() == 6 + 1 + 10), "\n{map}");
}
