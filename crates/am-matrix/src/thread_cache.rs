//! A thread cache that somebody holds by himself.

use crate::block::{Block, Place};
use crate::error::Error;
use crate::lanes::Lanes;
use crate::matrix::Matrix;
use crate::part::Part;
use crate::release::not_allocated;
use am_cache::Cache;
use am_layout::roster::{LANES, RosterLane};
use am_layout::{Offset, State};
use am_tlsf::Lane;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

/// A cache of one's own, beside those that threads have by themselves.
///
/// Every thread has a cache that [`Matrix::allocate`] and a guard's drop find by themselves. Who calls
/// often saves the finding by holding one: allocate by it, and give blocks back by
/// [`free`](Self::free). It can be sent to another thread, but not be used by two at once. It keeps what
/// was freed through it, gives back when it has too much or memory is short, and everything when it is
/// dropped. It does not know of the thread's own cache: what one keeps, the other does not find, even when
/// memory is short, until it gives back at its next free. All blocks are the matrix's: one that was allocated here may be freed anywhere, and vice
/// versa.
///
/// ```
/// # use am_matrix::{Arena, Matrix, plan};
/// # let size = 1 << 20;
/// # let matrix = Matrix::format(Arena::heap(size), &plan(size as u64, 40, 30)?)?;
/// let cache = matrix.thread_cache()?;
/// for _ in 0..1000 {
///     let mut block = cache.allocate(100)?;
///     block[0] = 1;
///     cache.free(block);
/// }
/// # Ok::<(), am_matrix::Error>(())
/// ```
pub struct ThreadCache<'m> {
    matrix: &'m Matrix,
    lanes: Arc<CachePadded<Lanes>>,
    lane: RosterLane<'static>,
    short_bytes: u64,
    /// Not to be used by two threads at once.
    _one_thread: PhantomData<Cell<()>>,
}

impl Matrix {
    /// Makes a cache to hold; it takes one of the places for threads in the segment.
    ///
    /// # Errors
    /// [`Error::TooManyThreads`] when there is none left, [`Error::Forked`] in a child that inherited
    /// this handle.
    pub fn thread_cache(&self) -> Result<ThreadCache<'_>, Error> {
        if !self.attachment().is_ours() {
            return Err(Error::Forked);
        }
        let (lane, lanes) =
            self.claim_lane().ok_or(Error::TooManyThreads { maximum: LANES as u32 })?;
        let short_bytes = self.inner.short_bytes();
        Ok(ThreadCache { matrix: self, lanes, lane, short_bytes, _one_thread: PhantomData })
    }
}

impl<'m> ThreadCache<'m> {
    /// Allocates a block as [`Matrix::allocate`].
    ///
    /// # Errors
    /// As [`Matrix::allocate`].
    #[inline(always)]
    pub fn allocate(&self, bytes: usize) -> Result<Block<'m>, Error> {
        let taken = if self.is_at_hand() {
            // SAFETY: just seen to be at hand.
            unsafe { self.take_small(bytes, State::Held) }
        } else {
            None
        };
        match taken {
            Some((part, place)) => Ok(self.matrix.block_in(part, place, bytes)),
            None => Ok(self.matrix.block(self.take_or_carve(bytes, State::Held)?, bytes)),
        }
    }

    /// Allocates a block as [`Matrix::allocate_offset`].
    ///
    /// # Errors
    /// As [`Matrix::allocate`].
    #[inline(always)]
    pub fn allocate_offset(&self, bytes: usize) -> Result<Offset, Error> {
        let taken = if self.is_at_hand() {
            // SAFETY: just seen to be at hand.
            unsafe { self.take_small(bytes, State::Allocated) }
        } else {
            None
        };
        match taken {
            Some((part, place)) => Ok(part.offset_of(place.granule())),
            None => Ok(self.matrix.offset_of(self.take_or_carve(bytes, State::Allocated)?)),
        }
    }

    /// Takes a small block out of the cache, if there is one just as long.
    ///
    /// # Safety
    /// The cache [is at hand](Self::is_at_hand).
    #[inline(always)]
    unsafe fn take_small(&self, bytes: usize, state: State) -> Option<(&'m Part<'m>, Place)> {
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        unsafe { self.matrix.take_small_of(&self.lanes, self.short_bytes, bytes as u64, state) }
    }

    #[cold]
    #[inline(never)]
    fn take_or_carve(&self, bytes: usize, state: State) -> Result<Place, Error> {
        self.alive()?;
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        unsafe { self.matrix.take_or_carve_by(&self.lanes, true, bytes as u64, state) }
    }

    /// Takes a block back into this cache, as its drop would into the calling thread's.
    ///
    /// A block of another matrix goes where its drop sends it.
    #[inline(always)]
    pub fn free(&self, block: Block<'_>) {
        if !block.belongs_to(self.matrix) || !self.is_at_hand() {
            return; // dropped
        }
        let place = block.into_place();
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        if !unsafe { self.matrix.park_small_in(&self.lanes, place) } {
            self.free_slow(place);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_slow(&self, place: Place) {
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        if let Err(Error::Corrupt { .. }) = unsafe { self.matrix.free_by(&self.lanes, true, place) }
        {
            self.matrix.count_corrupt(place);
        }
    }

    /// Gives a block back by its offset, as [`Matrix::ack`].
    ///
    /// # Errors
    /// As [`Matrix::ack`].
    #[inline]
    pub fn ack(&self, offset: Offset) -> Result<(), Error> {
        self.alive()?;
        let (part, granule) = self.matrix.locate(offset)?;
        let put =
            |cache: &mut Cache, lane: &Lane<'_>| cache.put_allocated(&part.sector, lane, granule);
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        unsafe { self.matrix.give_up(&self.lanes, true, part, granule, put) }
            .map_err(|wrong| not_allocated(offset, wrong))
    }

    /// Gives a block back by its offset, as [`Matrix::ack_unshared`].
    ///
    /// # Errors
    /// As [`Matrix::ack`].
    ///
    /// # Safety
    /// As [`Matrix::ack_unshared`].
    #[inline]
    pub unsafe fn ack_unshared(&self, offset: Offset) -> Result<(), Error> {
        self.alive()?;
        let (part, granule) = self.matrix.locate(offset)?;
        let put =
            |cache: &mut Cache, lane: &Lane<'_>| cache.put_unshared(&part.sector, lane, granule);
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        unsafe { self.matrix.give_up(&self.lanes, true, part, granule, put) }
            .map_err(|wrong| not_allocated(offset, wrong))
    }

    /// Gives back what this cache keeps.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child that inherited it.
    pub fn trim(&self) -> Result<(), Error> {
        self.alive()?;
        // SAFETY: the lanes belong to this value, which only one thread uses at a time.
        unsafe { self.lanes.give_back(self.matrix.all_parts()) };
        Ok(())
    }

    #[inline(always)]
    fn is_ours(&self) -> bool {
        self.matrix.attachment().is_ours()
    }

    /// Tells whether the cache is this process's, and not in use further up on this stack.
    #[inline(always)]
    fn is_at_hand(&self) -> bool {
        self.is_ours() && !self.lanes.is_busy()
    }

    fn alive(&self) -> Result<(), Error> {
        if self.is_ours() { Ok(()) } else { Err(Error::Forked) }
    }
}

impl Drop for ThreadCache<'_> {
    fn drop(&mut self) {
        // SAFETY: the lanes belong to this value, which ends.
        unsafe { self.matrix.retire(&self.lanes, self.lane) };
    }
}

impl std::fmt::Debug for ThreadCache<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadCache({:?})", self.matrix)
    }
}
