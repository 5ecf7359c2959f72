//! What the tests of the facade share: names that go away whatever happens, and child processes.
#![allow(dead_code)] // each test binary uses its part

pub mod child;
#[path = "../../../am-matrix/tests/common/pattern.rs"]
pub mod pattern;

use atomic_matrix::Matrix;
use atomic_matrix::matrix::core::{AtomicMatrix, BlockHeader, Mapping, MatrixHandler, RelativePtr};
use std::ops::Range;
use std::path::PathBuf;
use uuid::Uuid;

pub const MIB: usize = 1 << 20;

/// A segment's id, whose file is removed at the end.
pub struct Scratch(pub Uuid);

impl Scratch {
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    pub fn name(&self) -> String {
        self.0.to_string()
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(self.name())
    }

    pub fn bootstrap(&self, size_bytes: usize, split: (u8, u8)) -> MatrixHandler {
        AtomicMatrix::bootstrap(Some(self.0), size_bytes, split).expect("bootstraps")
    }

    /// As [`bootstrap`](Self::bootstrap), without thread caches: each call works on the sectors.
    pub fn bootstrap_direct(&self, size_bytes: usize, split: (u8, u8)) -> MatrixHandler {
        let mut handler = self.bootstrap(size_bytes, split);
        handler.matrix = handler.matrix.with_thread_caches(false);
        handler
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

/// Asserts that nothing is wrong and every sector is one free block, once the calling thread has given
/// back what it keeps by way of this handle.
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

/// The header of the block whose payload `ptr` is.
pub fn header_of(ptr: RelativePtr<u8>) -> RelativePtr<BlockHeader> {
    RelativePtr::new(ptr.offset() - 32)
}

/// The words of some bytes of the segment that are no payload.
pub fn words(mapping: &Mapping, bytes: Range<u64>) -> Vec<u32> {
    let (from, count) = (bytes.start as usize, (bytes.end - bytes.start) as usize / 4);
    // SAFETY: guard, metadata and headers are only ever accessed as words, and the file stays.
    let words = unsafe { mapping.words(from, count) }.expect("inside the segment");
    words.iter().map(|word| word.load()).collect()
}

/// Looks at the payload of an allocated block that only the calling test knows of.
#[allow(clippy::mut_from_ref)]
pub fn payload(mapping: &Mapping, ptr: RelativePtr<u8>, len: usize) -> &mut [u8] {
    assert!(ptr.offset() as usize + len <= mapping.len());
    // SAFETY: the block was allocated with `len` bytes or more, lives as long as the test wants,
    // and nobody else accesses it.
    unsafe { std::slice::from_raw_parts_mut(ptr.resolve_mut(mapping.as_mut_ptr()), len) }
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
