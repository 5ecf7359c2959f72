//! The memory that a matrix lives in: the one place that turns offsets into addresses.

use am_layout::{BlockHeader, Geometry, HEADER_BYTES, Offset, SectorGeometry, Wide, Word};

use std::alloc::Layout;
use std::any::Any;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A stretch of memory, mapped for as long as the value lives.
///
/// Its address is private to the process; what is stored in it are offsets.
pub struct Arena {
    base: NonNull<u8>,
    len_bytes: usize,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: an arena is an address range; all access goes through atomics, or through guards that
// own what they point to.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes an arena of `len_bytes` at `base`, kept alive by `owner`.
    ///
    /// # Safety
    /// * `base` is aligned to 4096 and valid for reads and writes of `len_bytes` while `owner`
    ///   lives.
    /// * The bytes are all zero, or they hold what [`Matrix::format`](crate::Matrix::format) made
    ///   there and matrices did to it since, and nothing else wrote to them.
    /// * Nobody in this process accesses these bytes except through the matrices made of them.
    ///   Several arenas may cover the same bytes, but while one is being formatted no other is used,
    ///   and either all of them are attached to by [`Matrix::attach`](crate::Matrix::attach), or all
    ///   by [`attach_with`](crate::Matrix::attach_with).
    /// * Other processes do so only by this library. One that writes by other means is as dangerous
    ///   to what guards here show as a debugger.
    #[must_use]
    pub unsafe fn new(
        base: NonNull<u8>,
        len_bytes: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Self {
        debug_assert!(base.as_ptr().addr().is_multiple_of(4096));
        Self { base, len_bytes, _owner: owner }
    }

    /// Makes a private arena of zeroes on the heap: a matrix for one process, and for tests.
    ///
    /// # Panics
    /// When the heap has no `len_bytes` (1 ..= `isize::MAX`) left.
    #[must_use]
    pub fn heap(len_bytes: usize) -> Self {
        struct Heap(NonNull<u8>, Layout);
        // SAFETY: a heap block that only its arena uses.
        unsafe impl Send for Heap {}
        // SAFETY: as above.
        unsafe impl Sync for Heap {}
        impl Drop for Heap {
            fn drop(&mut self) {
                // SAFETY: allocated below with this layout, and freed only here.
                unsafe { std::alloc::dealloc(self.0.as_ptr(), self.1) }
            }
        }
        let layout = Layout::from_size_align(len_bytes.max(1), 4096).expect("a length that fits");
        // SAFETY: the layout has at least one byte.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
        // SAFETY: aligned, valid, exclusive, and alive as long as `Heap`.
        unsafe { Self::new(base, len_bytes, Box::new(Heap(base, layout))) }
    }

    /// Returns the address of the first byte.
    #[inline]
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// Returns the length in bytes.
    #[inline]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns `count` words at `at_bytes`; `None` when they do not lie inside, aligned.
    ///
    /// Only for the matrix's own region, which never is payload (I6), and for common blocks, whose users
    /// promise that they are words.
    #[inline]
    pub(crate) fn words(&self, at_bytes: u64, count: u64) -> Option<&[Word]> {
        let first = self.first(at_bytes, count)?;
        // SAFETY: inside the arena, aligned, and only ever accessed as atomics.
        Some(unsafe { std::slice::from_raw_parts(first, count as usize) })
    }

    /// Returns `count` wide words at `at_bytes`; `None` when they do not lie inside, aligned.
    ///
    /// Only for common blocks, whose users promise that they are wide words.
    #[inline]
    pub(crate) fn wides(&self, at_bytes: u64, count: u64) -> Option<&[Wide]> {
        let first = self.first(at_bytes, count)?;
        // SAFETY: inside the arena, aligned, and only ever accessed as atomics.
        Some(unsafe { std::slice::from_raw_parts(first, count as usize) })
    }

    /// The address of the first of `count` values; `None` when they do not lie inside, aligned.
    #[inline]
    fn first<T>(&self, at_bytes: u64, count: u64) -> Option<*const T> {
        let end = at_bytes.checked_add(count.checked_mul(size_of::<T>() as u64)?)?;
        // The base is aligned to 4096.
        if !at_bytes.is_multiple_of(align_of::<T>() as u64) || end > self.len_bytes as u64 {
            return None;
        }
        Some(self.base().wrapping_add(at_bytes as usize).cast())
    }

    /// Returns `len` bytes of a payload.
    ///
    /// # Safety
    /// They lie inside the arena, and nobody writes to them while the slice is used.
    #[inline]
    pub(crate) unsafe fn bytes(&self, offset: Offset, len: usize) -> &[u8] {
        // SAFETY: promised by the caller; mapped bytes are always initialised.
        unsafe { std::slice::from_raw_parts(self.payload(offset).as_ptr(), len) }
    }

    /// Returns the address of a payload that a checked geometry places inside the arena.
    #[inline]
    pub(crate) fn payload(&self, offset: Offset) -> NonNull<u8> {
        debug_assert!(offset.bytes() as usize <= self.len_bytes);
        // SAFETY: inside the arena or, where a block is a header only, at its end: the caller
        // checked the offset against the geometry.
        unsafe { self.base.add(offset.bytes() as usize) }
    }

    /// Tells the processor that the cache line of byte `at_bytes` will soon be read and written.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at_bytes: u64) {
        prefetch_for_write(self.base().wrapping_add(at_bytes as usize));
    }

    /// Tells the processor that the cache line of byte `at_bytes` will soon be read.
    #[inline(always)]
    pub(crate) fn prefetch_read(&self, at_bytes: u64) {
        prefetch_for_read(self.base().wrapping_add(at_bytes as usize));
    }

    /// The headers of a sector, for a participant whom they call `owner`.
    pub(crate) fn headers(&self, sector: &SectorGeometry, owner: u32) -> BlockHeaders<'_> {
        let first = self.base().wrapping_add(sector.data_bytes as usize);
        BlockHeaders { first, granule_shift: sector.granule_shift, owner, _arena: PhantomData }
    }
}

/// Tells the processor that a cache line will soon be read; any address will do.
#[doc(hidden)]
#[inline(always)]
pub fn prefetch_for_read<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    // Elsewhere stable Rust has no such hint.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Tells the processor that a cache line will soon be written; any address will do.
#[doc(hidden)]
#[inline(always)]
pub fn prefetch_for_write<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address; processors that do not know it pass over it. The intrinsic
    // does not say on every x86-64 that the line will be written.
    unsafe {
        use core::arch::asm;
        asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    // Elsewhere stable Rust has no such hint.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena({:p}, {} bytes)", self.base, self.len_bytes)
    }
}

/// The headers of a sector's blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockHeaders<'a> {
    first: *const u8,
    granule_shift: u32,
    owner: u32,
    _arena: PhantomData<&'a Arena>,
}

// SAFETY: an address in an arena, which is itself shared; each header has one owner at a time.
unsafe impl Send for BlockHeaders<'_> {}
// SAFETY: as above.
unsafe impl Sync for BlockHeaders<'_> {}

impl<'a> BlockHeaders<'a> {
    /// The header of the block at granule `head`, below the sector's number of granules.
    ///
    /// The caller owns that block, so nobody else writes its header (I6).
    #[inline]
    fn of(&self, head: u32) -> &'a BlockHeader {
        let at = self.first.wrapping_add((head as usize) << self.granule_shift);
        debug_assert!(at.addr().is_multiple_of(HEADER_BYTES));
        // SAFETY: every granule of a checked geometry lies inside the arena and is at least a
        // header long; the header is never part of a payload, and its words are atomics.
        unsafe { &*at.cast::<BlockHeader>() }
    }
}

impl am_tlsf::Headers for BlockHeaders<'_> {
    #[inline]
    fn left(&self, head: u32) -> Option<u32> {
        self.of(head).left.load_relaxed().checked_sub(1)
    }

    #[inline]
    fn set_left(&self, head: u32, left: u32) {
        self.of(head).left.store_relaxed(left + 1);
    }

    #[inline]
    fn mark_owner(&self, head: u32) {
        self.of(head).owner.store_relaxed(self.owner);
    }

    #[inline]
    fn owner(&self, head: u32) -> u32 {
        // Acquire (E9): a recoverer's second look comes after it.
        self.of(head).owner.load()
    }

    #[inline]
    fn is_own(&self, head: u32) -> bool {
        self.of(head).owner.load_relaxed() == self.owner
    }

    /// The note is the payload bytes that were asked for.
    #[inline]
    fn set_note(&self, head: u32, note: u64) {
        let [low, high] = &self.of(head).bytes;
        low.store_relaxed(note as u32);
        high.store_relaxed((note >> 32) as u32);
    }
}

impl BlockHeaders<'_> {
    /// The address of the payload of the block at granule `head`, which lies in the sector.
    #[inline]
    pub(crate) fn payload(&self, head: u32) -> NonNull<u8> {
        let header = self.first.wrapping_add((head as usize) << self.granule_shift);
        // SAFETY: an address inside the arena or at its end, and so not null.
        unsafe { NonNull::new_unchecked(header.wrapping_add(HEADER_BYTES).cast_mut()) }
    }

    /// Makes the held block at granule `head` nobody's. Only for its holder.
    #[inline]
    pub(crate) fn disown(&self, head: u32) {
        // Release (E14): hands payload and note on to whoever finds the block common.
        self.of(head).owner.store(0);
    }

    /// Makes the common block at granule `head` this participant's. Only for whom its users let do so.
    #[inline]
    pub(crate) fn adopt(&self, head: u32) {
        // Release: that a recoverer sees it, the death in between takes care of (E9); a living one that
        // finds the block common no more finds whose it is.
        self.of(head).owner.store(self.owner);
    }

    /// Makes the common block at granule `head` a dead participant's. Only for the one recoverer.
    pub(crate) fn bequeath(&self, head: u32, dead: u32) {
        self.of(head).owner.store(dead);
    }

    /// `count` words of a block's payload, from byte `at_bytes` on.
    ///
    /// # Safety
    /// They lie in the payload of the block at `head`, aligned, and are used as 32-bit words only while the
    /// view is.
    pub(crate) unsafe fn words_in<'a>(
        &self,
        head: u32,
        at_bytes: usize,
        count: usize,
    ) -> &'a [Word] {
        let first = self.payload(head).as_ptr().wrapping_add(at_bytes).cast::<Word>();
        // SAFETY: promised by the caller; words are atomics.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// As [`words_in`](Self::words_in), of wide words.
    ///
    /// # Safety
    /// As there, for 64-bit words.
    pub(crate) unsafe fn wides_in<'a>(
        &self,
        head: u32,
        at_bytes: usize,
        count: usize,
    ) -> &'a [Wide] {
        let first = self.payload(head).as_ptr().wrapping_add(at_bytes).cast::<Wide>();
        // SAFETY: promised by the caller; wide words are atomics.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// The payload bytes that were asked for; an allegation.
    pub(crate) fn bytes(&self, head: u32) -> u64 {
        let [low, high] = &self.of(head).bytes;
        u64::from(low.load_relaxed()) | u64::from(high.load_relaxed()) << 32
    }
}

/// Reads the geometry out of an arena that a formatter has finished.
pub(crate) fn read_geometry(arena: &Arena) -> Result<Geometry, crate::Error> {
    let head = head_words(arena)?;
    Ok(Geometry::read(head, arena.len_bytes as u64)?)
}

/// The words of the matrix's head, behind the guard's.
pub(crate) fn head_words(arena: &Arena) -> Result<&[Word], crate::Error> {
    let at = am_layout::GUARD_BYTES as u64;
    let words = arena.words(at, am_layout::HEAD_WORDS as u64);
    words.ok_or(crate::Error::TooShort { bytes: arena.len_bytes as u64 })
}
