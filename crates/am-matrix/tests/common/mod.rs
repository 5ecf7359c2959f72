//! What the tests of the matrix share.
#![allow(dead_code)] // each test binary uses its part

pub mod caching;
pub mod pattern;

use am_matrix::{Arena, Block, Error, Matrix, Offset, plan};
use std::ptr::NonNull;

/// A matrix over private memory.
pub fn matrix(size_bytes: u64, small: u8, medium: u8) -> Matrix {
    let geometry = plan(size_bytes, small, medium).expect("a size and split that work");
    let arena = Arena::heap(size_bytes.try_into().expect("a length"));
    Matrix::format(arena, &geometry).expect("formats")
}

/// As [`matrix`], by a handle without thread caches: each call works on the sectors themselves.
pub fn direct(size_bytes: u64, small: u8, medium: u8) -> Matrix {
    matrix(size_bytes, small, medium).with_thread_caches(false)
}

/// Both kinds of handle, each to a matrix of its own.
pub fn with_and_without_caches(size_bytes: u64, small: u8, medium: u8) -> [Matrix; 2] {
    [matrix(size_bytes, small, medium), direct(size_bytes, small, medium)]
}

/// Another participant of the same matrix, which keeps the first one's memory.
pub fn attach_again(first: &Matrix) -> Matrix {
    let base = NonNull::new(first.arena().base().cast_mut()).expect("an address");
    // SAFETY: formatted memory of that length, which lives as long as the clone.
    let arena = unsafe { Arena::new(base, first.arena().len_bytes(), Box::new(first.clone())) };
    Matrix::attach(arena).expect("attaches")
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

/// Asserts that nothing is wrong and every sector is one free block, once the calling thread has given
/// back what it keeps. Threads that end have given back theirs when they are joined.
#[track_caller]
pub fn assert_whole(matrix: &Matrix) {
    matrix.trim().expect("not a forked child");
    assert_merged(matrix);
}

/// Asserts that nothing is wrong and every sector is one free block, whoever has caches.
#[track_caller]
pub fn assert_merged(matrix: &Matrix) {
    assert_sound(matrix);
    for sector in matrix.stats().sectors {
        assert_eq!((sector.free_blocks, sector.cached_blocks), (1, 0), "{sector:?}");
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

/// Runs `work` on so many threads, and waits until each has ended for good: what its caches kept is
/// back then. The end of a scope alone waits for the closures only.
pub fn on_threads(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that works"));
    });
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

/// A matrix with one small sector of at least `granules`, and few more, by a handle without caches.
pub fn small_sector(granules: u32) -> Matrix {
    let mut size = minimum(100, 0);
    loop {
        let matrix = direct(size, 100, 0);
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
