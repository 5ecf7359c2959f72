//! What does not hold yet.

mod common;

use common::matrix;

/// A sector of fewer granules than columns: a block's other columns stay blank, as if they were
/// nothing at all.
#[test]
fn heap_map_wider_than_its_sector_has_no_blank_columns() {
    let matrix = matrix(1 << 20, 40, 30);
    let map = matrix.heap_map(100);
    for line in map.lines() {
        assert!(line.ends_with(&".".repeat(100)), "\n{map}");
    }
}

/// The names are padded to six characters, but a sector's name ignores the width it is given.
#[test]
fn heap_map_of_several_sectors_has_its_columns_below_each_other() {
    let map = matrix(1 << 20, 40, 30).heap_map(10);
    for line in map.lines() {
        assert_eq!(line.len(), 6 + 1 + 10, "\n{map}");
    }
}
