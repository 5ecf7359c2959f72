//! The interface of version 0.1, word for word, and sound.
//!
//! ```
//! use atomic_matrix::matrix::core::{AtomicMatrix, RelativePtr, BlockHeader};
//! let handler = AtomicMatrix::bootstrap(Some(uuid::Uuid::new_v4()), 50 * 1024 * 1024, (40, 30)).unwrap();
//! let base_ptr = handler.mmap.as_ptr();
//! let ptr = handler.matrix.allocate(base_ptr, 128).unwrap();
//! let header_ptr = RelativePtr::<BlockHeader>::new(ptr.offset() - 32);
//! handler.matrix.ack(&header_ptr, base_ptr);
//! # handler.destroy().unwrap();
//! ```
//!
//! Nothing here is `unsafe`, and nothing trusts its arguments: a base pointer of another mapping,
//! a forged offset, and a double ack are errors. Reading and writing a payload through
//! [`RelativePtr::resolve`] is the caller's `unsafe`; guards ([`crate::Block`]) need none.

use crate::builder::OpenError;
use crate::handle::Matrix;
use am_matrix::{Error, Offset};
use am_shm::{Hugepages, Pages};
use uuid::Uuid;

pub use am_layout::{BlockHeader, RelativePtr};
pub use am_shm::Mapping;

/// The allocator, with the base pointer of the mapping given at each call.
#[derive(Clone, Debug)]
pub struct AtomicMatrix {
    matrix: Matrix,
}

/// A mapped matrix.
///
/// Both fields keep the mapping alive; dropping the handler while the other is in use is fine.
#[derive(Debug)]
pub struct MatrixHandler {
    /// The mapping: [`Mapping::as_ptr`] is the base pointer.
    pub mmap: Mapping,
    /// The allocator.
    pub matrix: AtomicMatrix,
    id: Uuid,
}

impl AtomicMatrix {
    /// Maps the segment `/dev/shm/<id>`, and makes it first if nobody has.
    ///
    /// `size_bytes` is the whole segment; `split` are the percentages of the small and the medium
    /// sector, the large one gets the rest. Without an `id` a new one is drawn. However many
    /// processes bootstrap the same id at once, exactly one formats it; if that one dies, another
    /// begins anew. With the feature `server`, huge pages are asked for.
    ///
    /// # Errors
    /// [`OpenError`]: a split above 100 %, a size too small (it names the smallest that works), an
    /// existing segment of another size or split, a file that is no segment, no permission …
    pub fn bootstrap(
        id: Option<Uuid>,
        size_bytes: usize,
        split: (u8, u8),
    ) -> Result<MatrixHandler, OpenError> {
        let id = id.unwrap_or_else(Uuid::new_v4);
        let matrix = Matrix::builder()
            .size(size_bytes as u64)
            .split(split.0, split.1)
            .pages(if cfg!(feature = "server") { Pages::Transparent } else { Pages::Default })
            .open_or_create(&id.to_string())?;
        let mmap = matrix.mapping().clone();
        Ok(MatrixHandler { mmap, matrix: AtomicMatrix { matrix }, id })
    }

    /// Allocates `bytes` and returns where the payload lies; its header is the 32 bytes before.
    ///
    /// The block stays until it is acked. Lock-free, no system call.
    ///
    /// # Errors
    /// [`Error::WrongBase`] when `base` is not this mapping's; else as
    /// [`am_matrix::Matrix::allocate_offset`].
    #[inline]
    pub fn allocate(&self, base: *const u8, bytes: usize) -> Result<RelativePtr<u8>, Error> {
        self.check(base)?;
        self.matrix.allocate_offset(bytes).map(RelativePtr::from)
    }

    /// Gives back the block whose header lies at `header`, to this thread's cache if it has one, else to
    /// the sector, where free neighbours merge at once.
    ///
    /// Lock-free, bounded, no system call.
    ///
    /// # Errors
    /// [`Error::WrongBase`], [`Error::WildPointer`], or as [`am_matrix::Matrix::ack`]; nothing is
    /// changed then.
    #[inline]
    pub fn ack(&self, header: &RelativePtr<BlockHeader>, base: *const u8) -> Result<(), Error> {
        self.check(base)?;
        let header = header.place().ok_or(Error::WildPointer)?;
        // A header is one unit of 32 bytes long.
        let payload = header.to_raw().checked_add(1).ok_or(Error::WildPointer)?;
        self.matrix.ack(Offset::from_raw(payload))
    }

    /// As [`Matrix::with_thread_caches`].
    #[must_use]
    pub fn with_thread_caches(self, cached: bool) -> Self {
        Self { matrix: self.matrix.with_thread_caches(cached) }
    }

    /// Returns the matrix, with its whole interface.
    #[must_use]
    pub fn as_matrix(&self) -> &Matrix {
        &self.matrix
    }

    #[inline]
    fn check(&self, base: *const u8) -> Result<(), Error> {
        let expected = self.matrix.arena().base();
        if base == expected {
            return Ok(());
        }
        Err(Error::WrongBase { given: base.addr(), expected: expected.addr() })
    }
}

impl MatrixHandler {
    /// Returns the id: the segment's file is `/dev/shm/<id>`.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Tells what the kernel made of the request for huge pages (feature `server`).
    #[must_use]
    pub fn hugepages(&self) -> Hugepages {
        self.matrix.matrix.hugepages()
    }

    /// Removes the segment's name; mappings that exist live on.
    ///
    /// # Errors
    /// As [`Matrix::destroy`].
    pub fn destroy(&self) -> Result<(), am_shm::Error> {
        self.matrix.matrix.destroy()
    }
}
