//! Pools: blocks of one type, carved once and handed around without any search.
//!
//! The blocks of a pool are held by this participant all the time, in use or not. So getting and
//! putting one touches nothing in the segment; a death gives all of them back.
//!
//! Unused blocks lie in *magazines* of 64. A thread has two, and exchanges full and empty ones with a
//! depot without a lock (the scheme of Bonwick and Adams, "Magazines and Vmem", 2001): at most one exchange
//! per 64 blocks, whatever the order of gets and puts.

use crate::block::{Block, Place};
use crate::error::Error;
use crate::matrix::Matrix;
use am_layout::{OFFSET_UNIT_BYTES, Offset};
use bytemuck::Pod;
use crossbeam_queue::ArrayQueue;
use std::alloc::Layout;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, swap, take};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use thread_local::ThreadLocal;

/// Blocks in a magazine.
const MAGAZINE: usize = 64;

/// Blocks of one plain-old-data type, carved when the pool is made.
///
/// [`get`](Self::get) and the drop of what it returns cost a few loads and stores and never search. A
/// block that is given away by [`PoolBlock::into_offset`] leaves the pool. When the pool is dropped, its
/// blocks go back to the matrix.
///
/// Up to 128 unused blocks stay with each thread that used the pool, also when it has ended, and with each
/// [`PoolCache`]: make a pool larger by that, or a thread may find it empty while another has some. Do
/// not keep a [`PoolBlock`] in thread-local storage: its drop looks for the thread's own, and ends the
/// process if that is gone already.
///
/// ```
/// # use am_matrix::{Arena, Matrix, plan};
/// # let size = 1 << 20;
/// # let matrix = Matrix::format(Arena::heap(size), &plan(size as u64, 40, 30)?)?;
/// let pool = matrix.pool::<[u64; 6]>(1000)?;
/// let mut order = pool.get()?;
/// order[0] = 42;
/// drop(order); // back in the pool
/// # Ok::<(), am_matrix::Error>(())
/// ```
pub struct Pool<'m, T: Pod> {
    matrix: &'m Matrix,
    /// Full magazines.
    full: ArrayQueue<Vec<Place>>,
    /// Empty ones, to be used again.
    empty: ArrayQueue<Vec<Place>>,
    threads: ThreadLocal<RefCell<Pair>>,
    capacity: usize,
    _values: PhantomData<fn() -> T>,
}

/// The two magazines of a thread.
#[derive(Debug, Default)]
struct Pair {
    loaded: Vec<Place>,
    spare: Vec<Place>,
}

impl Matrix {
    /// Makes a pool of `capacity` zeroed blocks for values of a type.
    ///
    /// # Errors
    /// As [`allocate_aligned`](Self::allocate_aligned); nothing is allocated then.
    pub fn pool<T: Pod>(&self, capacity: usize) -> Result<Pool<'_, T>, Error> {
        let layout = Layout::new::<T>();
        let blocks = if layout.align() as u64 <= OFFSET_UNIT_BYTES {
            self.allocate_many(capacity, layout.size())?
        } else {
            (0..capacity).map(|_| self.allocate_aligned(layout)).collect::<Result<_, _>>()?
        };
        let magazines = capacity.div_ceil(MAGAZINE).max(1);
        let pool = Pool {
            matrix: self,
            full: ArrayQueue::new(magazines),
            empty: ArrayQueue::new(magazines),
            threads: ThreadLocal::new(),
            capacity,
            _values: PhantomData,
        };
        let mut blocks = blocks.into_iter();
        for _ in 0..magazines {
            let zeroed = |mut block: Block<'_>| {
                block.fill(0);
                block.into_place()
            };
            let mut magazine = Vec::with_capacity(MAGAZINE);
            magazine.extend(blocks.by_ref().take(MAGAZINE).map(zeroed));
            pool.store_full(magazine);
        }
        Ok(pool)
    }
}

impl<'m, T: Pod> Pool<'m, T> {
    /// Takes a block out of the pool; it holds what it held last, zeroes at first.
    ///
    /// No lock and no system call; now and then an exchange with the depot, which may spin for as long as
    /// another thread of this process is stopped in the midst of its own.
    ///
    /// # Errors
    /// [`Error::PoolEmpty`] when every block is in use or with other threads, [`Error::Forked`] in a child
    /// that inherited the pool.
    #[inline]
    pub fn get(&self) -> Result<PoolBlock<'_, 'm, T>, Error> {
        self.get_by(&mut self.pair().borrow_mut())
    }

    /// Takes `count` blocks, or none.
    ///
    /// # Errors
    /// As [`get`](Self::get); nothing is taken then.
    pub fn get_many(&self, count: usize) -> Result<Vec<PoolBlock<'_, 'm, T>>, Error> {
        let mut pair = self.pair().borrow_mut();
        let mut blocks = Vec::with_capacity(count.min(self.capacity));
        for _ in 0..count {
            match self.get_by(&mut pair) {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    blocks.into_iter().for_each(|block| self.put_by(&mut pair, block));
                    return Err(error);
                }
            }
        }
        Ok(blocks)
    }

    /// Puts blocks back, as their drops would one by one.
    pub fn put_many<'p>(&'p self, blocks: impl IntoIterator<Item = PoolBlock<'p, 'm, T>>) {
        // All of them first: the iterator is the caller's code, and may use the pool.
        let blocks: Vec<_> = blocks.into_iter().collect();
        let mut pair = self.pair().borrow_mut();
        blocks.into_iter().for_each(|block| self.put_by(&mut pair, block));
    }

    /// Makes a cache to hold, which saves finding the thread's own.
    #[must_use]
    pub fn cache(&self) -> PoolCache<'_, 'm, T> {
        PoolCache { pool: self, pair: RefCell::default() }
    }

    /// Returns how many blocks the pool was made with.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn pair(&self) -> &RefCell<Pair> {
        self.threads.get_or_default()
    }

    #[inline]
    fn get_by(&self, pair: &mut Pair) -> Result<PoolBlock<'_, 'm, T>, Error> {
        // The blocks that a forked child inherits are its parent's.
        if !self.matrix.attachment().is_ours() {
            return Err(Error::Forked);
        }
        let place = match pair.loaded.pop() {
            Some(place) => place,
            None => self.exchange_empty(pair)?,
        };
        let payload = self.matrix.part_of(place).payload(place.granule()).cast();
        Ok(PoolBlock { pool: self, place, payload })
    }

    #[inline]
    fn put_by(&self, pair: &mut Pair, block: PoolBlock<'_, 'm, T>) {
        let block = ManuallyDrop::new(block);
        if !std::ptr::eq(block.pool, self) {
            return drop(ManuallyDrop::into_inner(block));
        }
        self.put_place(pair, block.place);
    }

    #[inline]
    fn put_place(&self, pair: &mut Pair, place: Place) {
        if pair.loaded.len() >= MAGAZINE || pair.loaded.capacity() < MAGAZINE {
            self.exchange_full(pair);
        }
        pair.loaded.push(place);
    }

    /// The loaded magazine is empty: loads the spare, or a full one, and takes a block of it.
    #[cold]
    fn exchange_empty(&self, pair: &mut Pair) -> Result<Place, Error> {
        if pair.spare.is_empty()
            && let Some(full) = self.full.pop()
        {
            // Of no use while it is empty, and another may need it.
            let _ = self.empty.push(std::mem::replace(&mut pair.spare, full));
        }
        swap(&mut pair.loaded, &mut pair.spare);
        pair.loaded.pop().ok_or(Error::PoolEmpty { capacity: self.capacity as u64 })
    }

    /// The loaded magazine is full: loads the spare if that is empty, or an empty one.
    #[cold]
    fn exchange_full(&self, pair: &mut Pair) {
        if pair.loaded.len() >= MAGAZINE {
            swap(&mut pair.loaded, &mut pair.spare);
        }
        if pair.loaded.len() >= MAGAZINE {
            self.store_full(take(&mut pair.loaded));
        }
        if pair.loaded.capacity() < MAGAZINE {
            pair.loaded = self.empty.pop().unwrap_or_else(|| Vec::with_capacity(MAGAZINE));
            pair.loaded.reserve(MAGAZINE - pair.loaded.len());
        }
    }

    /// All but one are full, so there is room for as many as the pool's blocks fill.
    fn store_full(&self, magazine: Vec<Place>) {
        if !magazine.is_empty() {
            let stored = self.full.push(magazine);
            assert!(stored.is_ok(), "more full magazines than the pool has blocks for");
        }
    }
}

impl<T: Pod> Drop for Pool<'_, T> {
    fn drop(&mut self) {
        if !self.matrix.attachment().is_ours() {
            return;
        }
        let mut places = Vec::with_capacity(self.capacity);
        for pair in &mut self.threads {
            let pair = pair.get_mut();
            places.append(&mut pair.loaded);
            places.append(&mut pair.spare);
        }
        while let Some(mut magazine) = self.full.pop() {
            places.append(&mut magazine);
        }
        self.matrix.free_places(places);
    }
}

impl<T: Pod> std::fmt::Debug for Pool<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} blocks of {} bytes)", self.capacity, size_of::<T>())
    }
}

/// Two magazines of a pool to hold: faster than the thread's own, which have to be found.
///
/// It can be sent to another thread, but not be used by two at once. What it keeps goes back to the
/// pool when it is dropped.
pub struct PoolCache<'p, 'm, T: Pod> {
    pool: &'p Pool<'m, T>,
    pair: RefCell<Pair>,
}

impl<'p, 'm, T: Pod> PoolCache<'p, 'm, T> {
    /// Takes a block, as [`Pool::get`].
    ///
    /// # Errors
    /// As [`Pool::get`].
    #[inline]
    pub fn get(&self) -> Result<PoolBlock<'p, 'm, T>, Error> {
        self.pool.get_by(&mut self.pair.borrow_mut())
    }

    /// Puts a block back into this cache, as its drop would into the calling thread's.
    #[inline]
    pub fn put(&self, block: PoolBlock<'p, 'm, T>) {
        self.pool.put_by(&mut self.pair.borrow_mut(), block);
    }
}

impl<T: Pod> Drop for PoolCache<'_, '_, T> {
    fn drop(&mut self) {
        if !self.pool.matrix.attachment().is_ours() {
            return;
        }
        let Pair { loaded, spare } = self.pair.take();
        let mut pair = self.pool.pair().borrow_mut();
        loaded.into_iter().chain(spare).for_each(|place| self.pool.put_place(&mut pair, place));
    }
}

impl<T: Pod> std::fmt::Debug for PoolCache<'_, '_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolCache({:?})", self.pool)
    }
}

/// A value in a block of a pool; dropping it puts the block back.
pub struct PoolBlock<'p, 'm, T: Pod> {
    pool: &'p Pool<'m, T>,
    place: Place,
    payload: NonNull<T>,
}

// SAFETY: it owns its value as a `Box<T>` does.
unsafe impl<T: Pod + Send> Send for PoolBlock<'_, '_, T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Pod + Sync> Sync for PoolBlock<'_, '_, T> {}

impl<T: Pod> PoolBlock<'_, '_, T> {
    /// Returns where the value lies, the same in every mapping.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.pool.matrix.offset_of(self.place)
    }
}

impl<'m, T: Pod> PoolBlock<'_, 'm, T> {
    /// Takes the block out of the pool for good: it is the matrix's own then.
    #[must_use]
    pub fn into_block(self) -> Block<'m> {
        let block = ManuallyDrop::new(self);
        block.pool.matrix.block(block.place, size_of::<T>())
    }

    /// Takes the block out of the pool and gives it away, as [`Block::into_offset`].
    #[must_use = "the block stays until this offset is taken or acked"]
    pub fn into_offset(self) -> Offset {
        self.into_block().into_offset()
    }
}

impl<T: Pod> Deref for PoolBlock<'_, '_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the payload lies inside the arena, aligned and long enough for the type, any bytes of
        // which are a value; the block is held and out of the pool, so nobody else accesses it.
        unsafe { self.payload.as_ref() }
    }
}

impl<T: Pod> DerefMut for PoolBlock<'_, '_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.payload.as_mut() }
    }
}

impl<T: Pod> Drop for PoolBlock<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        // A child of fork drops its copy here; the block stays its parent's.
        if !self.pool.matrix.attachment().is_ours() {
            return;
        }
        self.pool.put_place(&mut self.pool.pair().borrow_mut(), self.place);
    }
}

impl<T: Pod + std::fmt::Debug> std::fmt::Debug for PoolBlock<'_, '_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PoolBlock").field(&**self).finish()
    }
}
