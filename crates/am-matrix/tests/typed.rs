//! Values in blocks of their own.

mod common;

use am_matrix::Error;
use bytemuck::{Pod, Zeroable};
use common::{assert_whole, matrix};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
    tag: [u8; 8],
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

#[test]
fn value_given_away_and_taken_is_the_same_value() {
    let matrix = matrix(1 << 20, 40, 30);
    let point = Point { x: 1.5, y: -2.5, tag: *b"a point!" };
    let mut value = matrix.allocate_value(point).unwrap();
    assert_eq!(*value, point);
    value.x = 7.0;
    let offset = value.into_offset();
    let value = matrix.value_from_offset::<Point>(offset).unwrap();
    assert_eq!((value.offset(), *value), (offset, Point { x: 7.0, ..point }));
    assert!(matrix.value_from_offset::<Point>(offset).is_err(), "two owners");
    let block = value.into_block();
    assert_eq!(&block[16..], b"a point!");
    drop(block);
    assert_whole(&matrix);
}

#[test]
fn value_of_another_size_is_refused_and_stays_given_away() {
    let matrix = matrix(1 << 20, 40, 30);
    let offset = matrix.allocate_value(7u64).unwrap().into_offset();
    let refused = matrix.value_from_offset::<u32>(offset).unwrap_err();
    assert_eq!(refused, Error::WrongSize { offset, bytes: 8, expected_bytes: 4 });
    let refused = matrix.value_from_offset::<[u64; 2]>(offset).unwrap_err();
    assert_eq!(refused, Error::WrongSize { offset, bytes: 8, expected_bytes: 16 });
    assert_eq!(*matrix.value_from_offset::<u64>(offset).unwrap(), 7);
    assert!(matrix.value_from_offset::<u64>(offset).is_err(), "it was dropped, and so freed");
    assert_whole(&matrix);
}

#[test]
fn value_of_every_alignment_is_aligned() {
    let matrix = matrix(1 << 20, 40, 30);
    let _crooked = matrix.allocate(1).unwrap();
    let page = matrix.allocate_value(Page([7; 4096])).unwrap();
    assert!(std::ptr::from_ref(&*page).addr().is_multiple_of(4096));
    assert_eq!(*page, Page([7; 4096]));
    let offset = page.into_offset();
    assert_eq!(*matrix.value_from_offset::<Page>(offset).unwrap(), Page([7; 4096]));
}

/// The right length at a place that is not aligned for the type.
#[test]
fn value_at_an_unaligned_place_is_refused() {
    let matrix = matrix(1 << 20, 100, 0);
    let _crooked = matrix.allocate(1).unwrap();
    let block = matrix.allocate(4096).unwrap();
    assert!(!block.offset().bytes().is_multiple_of(4096), "the place is aligned by chance");
    let offset = block.into_offset();
    let refused = matrix.value_from_offset::<Page>(offset).unwrap_err();
    assert!(matches!(refused, Error::WrongSize { .. }), "{refused}");
    matrix.ack(offset).unwrap();
}

#[test]
fn value_without_bytes_is_a_block_of_its_own() {
    let matrix = matrix(1 << 20, 40, 30);
    let value = matrix.allocate_value(()).unwrap();
    let offset = value.into_offset();
    drop(matrix.value_from_offset::<()>(offset).unwrap());
    assert_whole(&matrix);
}
