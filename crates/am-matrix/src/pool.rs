//! Pools: blocks of one type, carved once and handed around without any search.
//!
//! The blocks of a pool are held by this participant all the time, in use or not. So getting and
//! putting one touches nothing in the segment; a death gives all of them back.
//!
//! Unused blocks lie in [magazines](crate::magazine), one for each thread, and in a [`Depot`] that the
//! threads exchange them by. All of that is this process's memory. What a forked child inherits of it is a
//! copy: it may put its copies of blocks there, and nobody will ever see them.

use crate::arena::Arena;
use crate::block::{Block, Place};
use crate::error::Error;
use crate::magazine::{Magazine, Magazines, Slot};
use crate::matrix::Matrix;
use am_cache::{CHAIN, Depot};
use am_layout::{OFFSET_UNIT_BYTES, Offset};
use bytemuck::Pod;
use std::alloc::Layout;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Blocks of one plain-old-data type, carved when the pool is made.
///
/// [`get`](Self::get) and the drop of what it returns cost a few loads and stores and never search. A
/// block that is given away by [`PoolBlock::into_offset`] leaves the pool. When the pool is dropped, all
/// its other blocks go back to the matrix, forgotten ones too.
///
/// Up to 128 unused blocks stay at hand with each living thread that used the pool, and with each
/// [`PoolCache`]: make a pool larger by that, or a thread may find it empty while another has some. They
/// go back when the thread ends, or the cache is dropped. Blocks and caches may be kept in thread-local
/// storage.
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
    magazines: Magazines,
    /// The attachment's word: 0 in a forked child, whose blocks are its parent's.
    alive: &'m AtomicU32,
    arena: &'m Arena,
    matrix: &'m Matrix,
    /// Where each block lies, by its number.
    places: Box<[Place]>,
    /// Which blocks have left the pool for good, by number.
    gone: Box<[AtomicBool]>,
    _values: PhantomData<fn() -> T>,
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
        let zeroed = |mut block: Block<'_>| {
            block.fill(0);
            block.into_place()
        };
        let places: Box<[Place]> = blocks.into_iter().map(zeroed).collect();
        let count = u32::try_from(places.len()).expect("a segment has fewer blocks than that");
        let depot = Depot::new(count);
        let numbers: Vec<u32> = (0..count).collect();
        // The last chain first, so that the first block is the first to come out.
        numbers.chunks(CHAIN).rev().for_each(|chain| depot.push(chain));
        Ok(Pool {
            magazines: Magazines::new(depot),
            alive: self.attachment().alive(),
            arena: self.arena(),
            matrix: self,
            places,
            gone: numbers.iter().map(|_| AtomicBool::new(false)).collect(),
            _values: PhantomData,
        })
    }
}

impl<'m, T: Pod> Pool<'m, T> {
    /// Takes a block out of the pool; it holds what it held last, zeroes at first.
    ///
    /// Lock-free, no system call: a few loads and stores, and after 64 calls or more an exchange with the
    /// depot, which takes a step for each of up to 64 blocks. A thread's first call takes memory from the
    /// heap. While a thread is being torn down, each of its calls goes to the depot.
    ///
    /// # Errors
    /// [`Error::PoolEmpty`] when every block is in use or at hand with other threads, [`Error::Forked`] in a
    /// child that inherited the pool.
    #[inline]
    pub fn get(&self) -> Result<PoolBlock<'_, 'm, T>, Error> {
        let slot = match self.magazines.own() {
            Some(magazine) => self.take_from(magazine),
            None => self.take_slow(),
        };
        self.block(slot)
    }

    /// Takes `count` blocks, or none.
    ///
    /// # Errors
    /// As [`get`](Self::get); nothing is taken then.
    pub fn get_many(&self, count: usize) -> Result<Vec<PoolBlock<'_, 'm, T>>, Error> {
        let mut blocks = Vec::with_capacity(count.min(self.capacity()));
        for _ in 0..count {
            // What was taken is dropped when the next one is not there.
            blocks.push(self.get()?);
        }
        Ok(blocks)
    }

    /// Puts blocks back, as their drops would one by one.
    pub fn put_many<'p>(&'p self, blocks: impl IntoIterator<Item = PoolBlock<'p, 'm, T>>) {
        blocks.into_iter().for_each(drop);
    }

    /// Makes a cache to hold, which saves finding the thread's own.
    #[must_use]
    pub fn cache(&self) -> PoolCache<'_, 'm, T> {
        PoolCache { pool: self, magazine: Magazine::new() }
    }

    /// Returns how many blocks the pool was made with.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn is_ours(&self) -> bool {
        // Relaxed: it changes by a fork only, which orders everything before it.
        self.alive.load(Relaxed) != 0
    }

    #[inline]
    fn take_from(&self, magazine: &Magazine) -> Option<Slot> {
        let slot = if self.is_ours() { magazine.pop() } else { None };
        slot.or_else(|| self.take_refilled(magazine))
    }

    #[cold]
    #[inline(never)]
    fn take_refilled(&self, magazine: &Magazine) -> Option<Slot> {
        if !self.is_ours() {
            return None;
        }
        magazine.refill(self.magazines.depot(), |number| self.slot(number));
        magazine.pop()
    }

    /// This thread's magazine was not used lately, or there is none.
    #[cold]
    #[inline(never)]
    fn take_slow(&self) -> Option<Slot> {
        if !self.is_ours() {
            return None;
        }
        if let Some(magazine) = self.magazines.mine() {
            return self.take_from(magazine);
        }
        let (depot, mut chain) = (self.magazines.depot(), [0; CHAIN]);
        let (&first, others) = depot.pop(&mut chain).split_first()?;
        depot.push(others);
        Some(self.slot(first))
    }

    #[inline]
    fn put(&self, slot: Slot) {
        match self.magazines.own() {
            Some(magazine) => self.put_into(magazine, slot),
            None => self.put_slow(slot),
        }
    }

    #[inline]
    fn put_into(&self, magazine: &Magazine, slot: Slot) {
        if !magazine.push(slot) {
            self.put_relieved(magazine, slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn put_relieved(&self, magazine: &Magazine, slot: Slot) {
        magazine.relieve(self.magazines.depot());
        magazine.push(slot);
    }

    #[cold]
    #[inline(never)]
    fn put_slow(&self, slot: Slot) {
        match self.magazines.mine() {
            Some(magazine) => self.put_into(magazine, slot),
            None => self.magazines.depot().push(&[slot.number()]),
        }
    }

    /// The guard of a block that was taken, or why there is none.
    #[inline]
    fn block(&self, slot: Option<Slot>) -> Result<PoolBlock<'_, 'm, T>, Error> {
        let slot = slot.ok_or_else(|| self.refusal())?;
        Ok(PoolBlock { pool: self, slot, payload: self.arena.payload(slot.payload()).cast() })
    }

    #[cold]
    fn refusal(&self) -> Error {
        if !self.is_ours() {
            return Error::Forked;
        }
        Error::PoolEmpty { capacity: self.capacity() as u64 }
    }

    fn slot(&self, number: u32) -> Slot {
        Slot::new(number, self.matrix.offset_of(self.places[number as usize]))
    }
}

impl<T: Pod> Drop for Pool<'_, T> {
    /// Nobody has a block of the pool any more, wherever the magazines are that know of it.
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let gone = self.gone.iter_mut().map(|gone| *gone.get_mut());
        let left = self.places.iter().zip(gone).filter(|&(_, gone)| !gone);
        self.matrix.free_places(left.map(|(&place, _)| place).collect());
    }
}

impl<T: Pod> std::fmt::Debug for Pool<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} blocks of {} bytes)", self.capacity(), size_of::<T>())
    }
}

/// A magazine of a pool to hold: faster than the thread's own, which has to be found.
///
/// It can be sent to another thread, but not be used by two at once. What it keeps goes back to the
/// pool when it is dropped.
pub struct PoolCache<'p, 'm, T: Pod> {
    pool: &'p Pool<'m, T>,
    magazine: Magazine,
}

impl<'p, 'm, T: Pod> PoolCache<'p, 'm, T> {
    /// Takes a block, as [`Pool::get`].
    ///
    /// # Errors
    /// As [`Pool::get`].
    #[inline]
    pub fn get(&self) -> Result<PoolBlock<'p, 'm, T>, Error> {
        self.pool.block(self.pool.take_from(&self.magazine))
    }

    /// Puts a block back into this cache, as its drop would into the calling thread's magazine.
    ///
    /// A block of another pool goes where its drop sends it.
    #[inline]
    pub fn put(&self, block: PoolBlock<'p, 'm, T>) {
        if std::ptr::eq(block.pool, self.pool) {
            self.pool.put_into(&self.magazine, ManuallyDrop::new(block).slot);
        }
    }
}

impl<T: Pod> Drop for PoolCache<'_, '_, T> {
    fn drop(&mut self) {
        self.magazine.give_back(self.pool.magazines.depot());
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
    slot: Slot,
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
        self.slot.payload()
    }
}

impl<'m, T: Pod> PoolBlock<'_, 'm, T> {
    /// Takes the block out of the pool for good: it is the matrix's own then.
    #[must_use]
    pub fn into_block(self) -> Block<'m> {
        let block = ManuallyDrop::new(self);
        let (pool, number) = (block.pool, block.slot.number() as usize);
        // Relaxed: read by the pool's drop, before which all its borrowers were done.
        pool.gone[number].store(true, Relaxed);
        pool.matrix.block(pool.places[number], size_of::<T>())
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
        self.pool.put(self.slot);
    }
}

impl<T: Pod + std::fmt::Debug> std::fmt::Debug for PoolBlock<'_, '_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PoolBlock").field(&**self).finish()
    }
}
