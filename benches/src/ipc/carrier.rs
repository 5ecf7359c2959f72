//! What the peers have to offer to be measured between two processes.

use std::alloc::Layout;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Block, Matrix, Offset};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use uuid::Uuid;

use super::ring;

/// Size of the segment, in bytes.
pub const SEGMENT_BYTES: usize = 50 << 20;
/// The largest block, in bytes.
pub const BLOCK_BYTES_MAX: usize = 1024;
/// Where the headers of Boost's and rlsf's blocks begin, in bytes before the payload.
const HEADER_BYTES: usize = 16;
/// What a peer says that gives no reasons.
const REFUSED: &str = "no block";

/// What the consumer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The payload as it was written.
    Intact,
    /// Another.
    Corrupted,
    /// No block, or it could not be freed.
    Refused,
}

impl Taken {
    fn intact(intact: bool) -> Self {
        if intact { Taken::Intact } else { Taken::Corrupted }
    }

    fn and_freed(self, freed: bool) -> Self {
        if freed { self } else { Taken::Refused }
    }
}

/// Blocks that one process fills and another checks and frees.
pub trait Carrier: Sized {
    /// Creates the memory, in the producer, before the consumer is forked.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn create(id: Uuid) -> Result<Self>;

    /// Opens the memory, in the consumer.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn open(self, id: Uuid) -> Result<Self>;

    /// Allocates block `number`, writes all of it, and names it in 48 bits.
    ///
    /// # Errors
    /// When the allocation is refused.
    fn give(&self, number: u64, bytes: usize) -> Result<u64>;

    /// Will soon take the block of that name; what a peer has to say to the processor then.
    #[inline(always)]
    fn expect(&self, name: u64) {
        let _ = name;
    }

    /// Checks and frees the block of that name.
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken;

    /// Lists what is wrong when every block was taken and the consumer has ended.
    fn audit(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Returns word `index` of the payload of block `number`.
#[inline(always)]
fn word(number: u64, index: usize) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64)
}

/// Writes all of a payload. Cheaper than the verifying runs' pattern: it is part of the figures.
#[inline(always)]
pub fn fill(payload: &mut [u8], number: u64) {
    let mut words = payload.chunks_exact_mut(8);
    for (index, chunk) in words.by_ref().enumerate() {
        chunk.copy_from_slice(&word(number, index).to_ne_bytes());
    }
    words.into_remainder().fill(number as u8);
}

/// Tells whether all of a payload is what `fill` wrote.
#[inline(always)]
pub fn is_intact(payload: &[u8], number: u64) -> bool {
    let words = payload.chunks_exact(8);
    let rest = words.remainder().iter().all(|&byte| byte == number as u8);
    // No early end: a loop without exits is done several words at a time.
    let differences = words.enumerate().fold(0, |seen, (index, chunk)| {
        seen | (chunk.try_into().map_or(u64::MAX, u64::from_ne_bytes) ^ word(number, index))
    });
    rest && differences == 0
}

/// Writes the payload at `address`.
///
/// # Safety
/// `bytes` bytes there are the caller's alone.
#[inline(always)]
unsafe fn fill_at(address: NonNull<u8>, bytes: usize, number: u64) {
    // SAFETY: promised by the caller; shared memory is always initialised.
    fill(unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), bytes) }, number);
}

/// Checks the payload at `address`.
///
/// # Safety
/// `bytes` bytes there are the caller's alone.
#[inline(always)]
unsafe fn is_intact_at(address: NonNull<u8>, bytes: usize, number: u64) -> bool {
    // SAFETY: promised by the caller; shared memory is always initialised.
    is_intact(unsafe { std::slice::from_raw_parts(address.as_ptr(), bytes) }, number)
}

/// Has the line at `address` fetched, to be written soon.
#[inline(always)]
fn prefetch(address: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(address.as_ptr().cast_const().cast());
    }
    // Elsewhere stable Rust has no such hint.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Has the payload's first line fetched, and that of the header right before it, which its free
/// reads and writes.
#[inline(always)]
fn prefetch_with_header(address: NonNull<u8>) {
    let header = NonNull::new(address.as_ptr().wrapping_sub(HEADER_BYTES));
    header.into_iter().for_each(prefetch);
    prefetch(address);
}

fn create_matrix(id: Uuid) -> Result<Matrix> {
    let builder = Matrix::builder().size(SEGMENT_BYTES as u64);
    builder.create(&id.to_string()).context("cannot create the matrix")
}

fn open_matrix(id: Uuid) -> Result<Matrix> {
    Matrix::builder().open(&id.to_string()).context("cannot open the matrix")
}

fn audit_matrix(matrix: &Matrix) -> Vec<String> {
    let mut faults: Vec<String> = matrix.check().iter().take(3).map(ToString::to_string).collect();
    let lost: u64 = matrix.stats().sectors.iter().map(|sector| sector.live_blocks()).sum();
    if lost > 0 {
        faults.push(format!("{lost} blocks are still allocated although all were freed"));
    }
    // The file goes; the mapping stays until the process ends.
    if let Err(error) = matrix.destroy() {
        faults.push(format!("cannot remove the matrix: {error}"));
    }
    faults
}

/// AtomicMatrix: allocated, given away and taken by guards.
pub struct Guards(Matrix);

impl Carrier for Guards {
    fn create(id: Uuid) -> Result<Self> {
        create_matrix(id).map(Self)
    }

    fn open(self, id: Uuid) -> Result<Self> {
        open_matrix(id).map(Self)
    }

    #[inline(always)]
    fn give(&self, number: u64, bytes: usize) -> Result<u64> {
        let mut block = self.0.allocate(bytes)?;
        fill(&mut block, number);
        Ok(block.into_offset().to_raw().into())
    }

    #[inline(always)]
    fn expect(&self, name: u64) {
        self.0.prefetch(Offset::from_raw(name as u32));
    }

    #[inline(always)]
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken {
        let offset = Offset::from_raw(name as u32);
        // SAFETY: the ring gives each entry to one consumer, once.
        let block = unsafe { self.0.from_offset_unshared(offset) };
        let Ok(block) = block else { return Taken::Refused };
        let intact = block.len() == bytes && is_intact(&block, number);
        Taken::intact(intact).and_freed(Block::free(block).is_ok())
    }

    fn audit(&self) -> Vec<String> {
        audit_matrix(&self.0)
    }
}

/// AtomicMatrix through raw offsets.
pub struct Offsets(Matrix);

impl Carrier for Offsets {
    fn create(id: Uuid) -> Result<Self> {
        create_matrix(id).map(Self)
    }

    fn open(self, id: Uuid) -> Result<Self> {
        open_matrix(id).map(Self)
    }

    #[inline(always)]
    fn give(&self, number: u64, bytes: usize) -> Result<u64> {
        let offset = self.0.allocate_offset(bytes)?;
        let payload = self.0.payload_ptr(offset)?;
        // SAFETY: just allocated with this size, and nobody else knows it.
        unsafe { fill_at(payload, bytes, number) };
        Ok(offset.to_raw().into())
    }

    #[inline(always)]
    fn expect(&self, name: u64) {
        self.0.prefetch(Offset::from_raw(name as u32));
    }

    #[inline(always)]
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken {
        let offset = Offset::from_raw(name as u32);
        let Ok(payload) = self.0.payload_ptr(offset) else { return Taken::Refused };
        // SAFETY: the producer allocated it with this size, and gave it to this process alone.
        let intact = unsafe { is_intact_at(payload, bytes, number) };
        // SAFETY: the ring gives each entry to one consumer, once.
        Taken::intact(intact).and_freed(unsafe { self.0.ack_unshared(offset) }.is_ok())
    }

    fn audit(&self) -> Vec<String> {
        audit_matrix(&self.0)
    }
}

/// Boost.Interprocess, blocks named by their handles.
#[cfg(have_boost)]
pub struct Boost(crate::peers::boost::Boost);

#[cfg(have_boost)]
impl Carrier for Boost {
    fn create(id: Uuid) -> Result<Self> {
        crate::peers::boost::Boost::with_bytes(id, SEGMENT_BYTES).map(Self)
    }

    fn open(self, id: Uuid) -> Result<Self> {
        // The inherited one is the producer's, whose drop removes the segment.
        std::mem::forget(self);
        crate::peers::boost::Boost::open(id).map(Self)
    }

    #[inline(always)]
    fn give(&self, number: u64, bytes: usize) -> Result<u64> {
        use crate::heap::Shared;
        let block = self.0.alloc(bytes).context(REFUSED)?;
        // SAFETY: just allocated with this size, and nobody else knows it.
        unsafe { fill_at(block.0, bytes, number) };
        Ok(self.0.handle(block))
    }

    #[inline(always)]
    fn expect(&self, name: u64) {
        if let Some(block) = self.0.address(name) {
            prefetch_with_header(block.0);
        }
    }

    #[inline(always)]
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken {
        use crate::heap::Shared;
        let Some(block) = self.0.address(name) else { return Taken::Refused };
        // SAFETY: the producer allocated it with this size, and gave it to this process alone.
        let intact = unsafe { is_intact_at(block.0, bytes, number) };
        // SAFETY: as above.
        Taken::intact(intact).and_freed(unsafe { self.0.free(block, bytes) })
    }
}

/// Maps zeroed memory that a forked child shares, at the same address.
///
/// # Errors
/// The system's refusal.
pub fn map_shared(bytes: usize) -> Result<NonNull<u8>> {
    let bytes = NonZeroUsize::new(bytes).context("nothing to map")?;
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping, at an address that the system chooses.
    let start = unsafe { mmap_anonymous(None, bytes, protection, flags) };
    Ok(start.context("cannot map shared memory")?.cast())
}

/// Slots of one size, reused in turn: no allocator at all.
pub struct Slots(NonNull<u8>);

/// More slots than blocks can be on their way: a full ring, and one at either end.
const SLOTS: u64 = 2 * ring::CAPACITY;

impl Slots {
    /// Returns where the slot lies that is `name` bytes from the start.
    fn address(&self, name: u64) -> NonNull<u8> {
        // SAFETY: only `give` makes names, of slots inside the mapping.
        unsafe { self.0.add(name as usize) }
    }
}

impl Carrier for Slots {
    fn create(_id: Uuid) -> Result<Self> {
        map_shared(SLOTS as usize * BLOCK_BYTES_MAX).map(Self)
    }

    fn open(self, _id: Uuid) -> Result<Self> {
        Ok(self)
    }

    #[inline(always)]
    fn give(&self, number: u64, bytes: usize) -> Result<u64> {
        let name = number % SLOTS * BLOCK_BYTES_MAX as u64;
        // SAFETY: the consumer is done with a slot when the ring takes the entry one turn later.
        unsafe { fill_at(self.address(name), bytes, number) };
        Ok(name)
    }

    #[inline(always)]
    fn expect(&self, name: u64) {
        prefetch(self.address(name));
    }

    #[inline(always)]
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken {
        // SAFETY: the slot is not written again before the consumer is done with it.
        Taken::intact(unsafe { is_intact_at(self.address(name), bytes, number) })
    }
}

/// The alignment asked of rlsf: that of malloc.
const ALIGN: usize = 16;

/// rlsf under a process-shared mutex, both at the start of the shared memory. Its lists are made of
/// addresses, so it works only where both processes map the memory at the same one.
#[repr(C)]
struct Pool {
    mutex: libc::pthread_mutex_t,
    tlsf: rlsf::Tlsf<'static, u32, u32, 28, 32>,
}

/// The pool, mapped before the fork.
pub struct Rlsf {
    pool: NonNull<Pool>,
    start: NonNull<u8>,
}

impl Rlsf {
    /// Returns where the block lies that is `name` bytes from the start.
    #[inline(always)]
    fn address(&self, name: u64) -> NonNull<u8> {
        // SAFETY: only `give` makes names, of blocks inside the mapping.
        unsafe { self.start.add(name as usize) }
    }

    /// Does `work` under the mutex.
    #[inline(always)]
    fn locked<T>(&self, work: impl FnOnce(&mut Pool) -> T) -> T {
        let pool = self.pool.as_ptr();
        // SAFETY: a field of the pool that `create` made.
        let mutex = unsafe { &raw mut (*pool).mutex };
        // SAFETY: initialised by `create`, and never destroyed.
        let error = unsafe { libc::pthread_mutex_lock(mutex) };
        assert_eq!(error, 0, "cannot lock the pool");
        // SAFETY: the mutex is locked: nobody else uses the pool.
        let result = work(unsafe { &mut *pool });
        // SAFETY: locked above, by this thread.
        let error = unsafe { libc::pthread_mutex_unlock(mutex) };
        assert_eq!(error, 0, "cannot unlock the pool");
        result
    }
}

impl Carrier for Rlsf {
    fn create(_id: Uuid) -> Result<Self> {
        let start = map_shared(SEGMENT_BYTES)?;
        let pool = start.cast::<Pool>();
        let mut tlsf = rlsf::Tlsf::new();
        let used = size_of::<Pool>().next_multiple_of(4096);
        // SAFETY: the pool's end lies inside the mapping.
        let region = unsafe { start.add(used) };
        let region = NonNull::slice_from_raw_parts(region, SEGMENT_BYTES - used);
        // SAFETY: the region belongs to this pool alone and stays mapped.
        unsafe { tlsf.insert_free_block_ptr(region) }.context("rlsf refuses the memory")?;
        // SAFETY: the mapping begins with room for a pool, and is page-aligned.
        unsafe { pool.write(Pool { mutex: libc::PTHREAD_MUTEX_INITIALIZER, tlsf }) };
        // SAFETY: a field of the pool just written.
        share_mutex(unsafe { &raw mut (*pool.as_ptr()).mutex })?;
        Ok(Self { pool, start })
    }

    fn open(self, _id: Uuid) -> Result<Self> {
        Ok(self)
    }

    #[inline(always)]
    fn give(&self, number: u64, bytes: usize) -> Result<u64> {
        let layout = Layout::from_size_align(bytes, ALIGN)?;
        let block = self.locked(|pool| pool.tlsf.allocate(layout)).context(REFUSED)?;
        // SAFETY: just allocated with this size, and nobody else knows it.
        unsafe { fill_at(block, bytes, number) };
        Ok((block.addr().get() - self.start.addr().get()) as u64)
    }

    #[inline(always)]
    fn expect(&self, name: u64) {
        prefetch_with_header(self.address(name));
    }

    #[inline(always)]
    fn take(&self, name: u64, number: u64, bytes: usize) -> Taken {
        let block = self.address(name);
        // SAFETY: the producer allocated it with this size, and gave it to this process alone.
        let intact = unsafe { is_intact_at(block, bytes, number) };
        // SAFETY: as above, with this alignment.
        self.locked(|pool| unsafe { pool.tlsf.deallocate(block, ALIGN) });
        Taken::intact(intact)
    }
}

/// Makes a mutex one that processes share.
fn share_mutex(mutex: *mut libc::pthread_mutex_t) -> Result<()> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: written before it is used.
    let error = unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
    ensure!(error == 0, "no mutex attributes: error {error}");
    let shared = libc::PTHREAD_PROCESS_SHARED;
    // SAFETY: initialised above.
    let error = unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), shared) };
    ensure!(error == 0, "no process-shared mutexes: error {error}");
    // SAFETY: nobody uses the mutex yet, and the attributes are initialised.
    let error = unsafe { libc::pthread_mutex_init(mutex, attributes.as_ptr()) };
    ensure!(error == 0, "no mutex: error {error}");
    Ok(())
}

/// Makes the shared ring.
///
/// # Errors
/// The system's refusal.
pub fn map_ring() -> Result<&'static ring::Ring> {
    let start = map_shared(size_of::<ring::Ring>())?;
    // SAFETY: zeroed, page-aligned, as long as a ring, never unmapped; all of it is atomics.
    Ok(unsafe { start.cast::<ring::Ring>().as_ref() })
}
