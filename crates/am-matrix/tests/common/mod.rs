//! What the tests of the matrix share.
#![allow(dead_code)] // each test binary uses its part

pub mod pattern;

use am_matrix::{Arena, Block, Error, Matrix, Offset, plan};

/// A matrix over private memory.
pub fn matrix(size_bytes: u64, small: u8, medium: u8) -> Matrix {
    let geometry = plan(size_bytes, small, medium).expect("a size and split that work");
    let arena = Arena::heap(size_bytes.try_into().expect("a length"));
    Matrix::format(arena, &geometry).expect("formats")
}

/// The smallest size that works with this split.
pub fn minimum(small: u8, medium: u8) -> u64 {
    match plan(0, small, medium) {
        Err(Error::TooSmall { minimum_bytes, .. }) => minimum_bytes,
        other => panic!("no bytes at all made {other:?}"),
    }
}

/// Looks at the payload of an allocated block that only the calling test knows of.
#[allow(clippy::mut_from_ref)]
pub fn payload(matrix: &Matrix, offset: Offset, len: usize) -> &mut [u8] {
    let first = matrix.payload_ptr(offset).expect("a payload");
    // SAFETY: the block was allocated with `len` bytes or more, lives as long as the test wants,
    // and nobody else accesses it.
    unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), len) }
}

/// Asserts that nothing is wrong and every sector is one free block.
#[track_caller]
pub fn assert_whole(matrix: &Matrix) {
    assert_sound(matrix);
    for sector in matrix.stats().sectors {
        assert_eq!(sector.free_blocks, 1, "{sector:?}");
        assert_eq!(sector.largest_free_bytes, sector.size_bytes, "{sector:?}");
        assert_eq!(sector.corrupt, 0, "{sector:?}");
    }
}

/// Asserts that nothing is wrong; nobody may be operating.
#[track_caller]
pub fn assert_sound(matrix: &Matrix) {
    let found: Vec<String> = matrix.check().iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// How many times longer than usual the tests run: `AM_SOAK`, else 1.
pub fn soak() -> usize {
    std::env::var("AM_SOAK").map_or(1, |times| times.parse().expect("AM_SOAK is a number"))
}

/// Numbers below `n`, from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

/// A matrix with one small sector of at least `granules`, and few more.
pub fn small_sector(granules: u32) -> Matrix {
    let mut size = minimum(100, 0);
    loop {
        let matrix = matrix(size, 100, 0);
        if matrix.geometry().sectors[0].granules >= granules {
            return matrix;
        }
        size += 32;
    }
}

/// Fills the sector with blocks of one size; returns them all.
pub fn fill(matrix: &Matrix, bytes: usize) -> Vec<Block<'_>> {
    std::iter::from_fn(|| matrix.allocate(bytes).ok()).collect()
}
