//! The memory that is damaged: a segment that can be made anew a hundred thousand times a second.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use am_layout::OFFSET_UNIT_BYTES;
use am_matrix::{Arena, Geometry, Matrix, Offset, plan, topic_bytes};
use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::death::LockTable;
use super::messages::found_topics;
use super::service::{CLIENTS, found_service};

/// Inaccessible bytes before a segment.
const BEFORE_BYTES: usize = 1 << 30;
/// Inaccessible bytes behind a segment: as far as an offset reaches.
const BEHIND_BYTES: usize = 128 << 30;
/// Topics of a segment: a lossless and a lossy one, and those of a service: its replies', then that of requests.
pub const TOPICS: usize = 2 + CLIENTS + 1;
/// What an attachment waits for a formatter that does not exist.
const PATIENCE: Duration = Duration::from_millis(1);

/// A handle of the victim.
pub enum Handle {
    /// Over an arena, without a segment.
    Core(Matrix),
    /// Over a segment, as users have it.
    Facade(atomic_matrix::Matrix),
}

impl Deref for Handle {
    type Target = Matrix;

    fn deref(&self) -> &Matrix {
        match self {
            Self::Core(matrix) => matrix,
            Self::Facade(matrix) => matrix,
        }
    }
}

/// A segment, what it looked like when it was new, and its words for whoever damages it.
///
/// Shared with every process forked later.
pub struct Bed {
    region: Arc<Region>,
    image: Vec<u32>,
    geometry: Geometry,
    /// The numbers of the topics' first words.
    topics: [usize; TOPICS],
    /// The segment's file, when it has one.
    fd: Option<OwnedFd>,
    /// The locks of a segment without a file.
    locks: LockTable,
}

impl Bed {
    /// Makes a segment between two stretches of inaccessible memory, so that every access that an
    /// offset could lead to and that misses it is a signal.
    ///
    /// # Errors
    /// No memory, or a size or split that cannot work.
    pub fn guarded(size_bytes: usize, split: (u8, u8)) -> Result<Self> {
        let region = Arc::new(Region::guarded(size_bytes)?);
        let geometry = plan(size_bytes as u64, split.0, split.1)?;
        let topics = found(&Matrix::format(region.arena(), &geometry)?)?;
        Ok(Self::with(region, geometry, topics, None))
    }

    /// Makes a segment in a memfd, for the product's own way to attach.
    ///
    /// # Errors
    /// As [`guarded`](Self::guarded).
    pub fn memfd(size_bytes: usize, split: (u8, u8)) -> Result<Self> {
        let builder = atomic_matrix::Matrix::builder().size(size_bytes as u64);
        let matrix = builder.split(split.0, split.1).memfd("am-kit-hostile")?;
        let fd = matrix.as_fd().try_clone_to_owned()?;
        let region = Arc::new(Region::of_file(&fd, size_bytes)?);
        let geometry = *matrix.geometry();
        let topics = found(&matrix)?;
        drop(matrix);
        Ok(Self::with(region, geometry, topics, Some(fd)))
    }

    fn with(
        region: Arc<Region>,
        geometry: Geometry,
        topics: [usize; TOPICS],
        fd: Option<OwnedFd>,
    ) -> Self {
        let image = region.words().iter().map(|word| word.load(Relaxed)).collect();
        Self { region, image, geometry, topics, fd, locks: LockTable::default() }
    }

    /// Returns the number of the first word of a topic, modulo [`TOPICS`], where it was when the segment was new.
    #[must_use]
    pub fn topic_at(&self, topic: u8) -> usize {
        self.topics[usize::from(topic) % TOPICS]
    }

    /// Makes the segment what it was when it was new. Nobody uses it meanwhile.
    pub fn reset(&self) {
        self.restore(&self.image);
    }

    /// Copies every word.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u32> {
        self.words().iter().map(|word| word.load(Relaxed)).collect()
    }

    /// Makes the segment what it was when `image` was taken. Nobody operates on it meanwhile.
    ///
    /// # Panics
    /// When the image is another segment's.
    pub fn restore(&self, image: &[u32]) {
        assert_eq!(image.len() * 4, self.region.len_bytes, "an image of another segment");
        let to = self.region.base.as_ptr().cast::<u32>();
        // SAFETY: the image is as long as the region, and nobody operates on it.
        unsafe { to.copy_from_nonoverlapping(image.as_ptr(), image.len()) };
    }

    /// Returns the sector and the granule of a block, by its payload's offset.
    #[must_use]
    pub fn granule_of(&self, offset: Offset) -> Option<(usize, u32)> {
        let at = offset.bytes().checked_sub(OFFSET_UNIT_BYTES)?;
        let sector = self.geometry.sector_of(at)?;
        let geometry = &self.geometry.sectors[sector];
        Some((sector, ((at - geometry.data_bytes) >> geometry.granule_shift) as u32))
    }

    /// Attaches to the segment, in whatever state it is.
    ///
    /// # Errors
    /// What the product says, as text.
    pub fn attach(&self) -> Result<Handle> {
        let Some(fd) = &self.fd else {
            let locks = Box::new(self.locks.participant());
            return Ok(Handle::Core(Matrix::attach_with(self.region.arena(), locks)?));
        };
        let fd = fd.try_clone().context("no descriptor left")?;
        Ok(Handle::Facade(atomic_matrix::Matrix::builder().wait(PATIENCE).attach(fd)?))
    }

    /// Returns every word of the segment.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        self.region.words()
    }

    /// Returns where everything lies, as it was when the segment was new.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Tells whether `len` bytes at `address`, in any mapping at `base`, lie in one sector.
    #[must_use]
    pub fn in_a_sector(&self, base: *const u8, address: *const u8, len: usize) -> bool {
        let at = (address.addr() as u64).wrapping_sub(base.addr() as u64);
        let end = at.saturating_add(len as u64);
        let holds = |s: &am_layout::SectorGeometry| at >= s.data_bytes && end <= s.end_bytes();
        self.geometry.sectors.iter().any(holds)
    }
}

/// Makes the topics and the service in a new segment; returns the numbers of the topics' first words.
fn found(matrix: &Matrix) -> Result<[usize; TOPICS]> {
    let [lossless, lossy] = found_topics(matrix)?;
    let service = found_service(matrix)?;
    // SAFETY: it holds topics, and nobody takes it away.
    let opened = unsafe { matrix.open_topics(service) }?.collect::<Result<Vec<_>, _>>()?;
    // One behind the other.
    let ends = opened.iter().scan(service.bytes(), |end, topic| {
        let at = *end;
        *end += topic_bytes(topic.shape()) as u64;
        Some(at)
    });
    let at_bytes: Vec<u64> = [lossless.bytes(), lossy.bytes()].into_iter().chain(ends).collect();
    let words = at_bytes.iter().map(|&at| at as usize / 4).collect::<Vec<_>>();
    words.try_into().ok().context("a service of another shape")
}

/// Mapped memory, shared with processes forked later.
pub struct Region {
    /// What was mapped, inaccessible parts included.
    whole: (NonNull<u8>, usize),
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: an address range; all access is through atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps zeroes with inaccessible memory around them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn guarded(len_bytes: usize) -> Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(4096);
        let whole = BEFORE_BYTES + len_bytes + BEHIND_BYTES;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, size(whole)?, ProtFlags::PROT_NONE, flags) }
            .context("no address space for the guard pages")?
            .cast::<u8>();
        // SAFETY: inside the mapping just made.
        let base = unsafe { start.add(BEFORE_BYTES) };
        let at = NonZeroUsize::new(base.as_ptr().addr());
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: replaces pages of the mapping just made, which nobody uses.
        unsafe { mmap_anonymous(at, size(len_bytes)?, rw(), flags) }.context("no memory")?;
        Ok(Self { whole: (start, whole), base, len_bytes })
    }

    /// Maps a file's bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of_file(fd: impl AsFd, len_bytes: usize) -> Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(4096);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, size(len_bytes)?, rw(), MapFlags::MAP_SHARED, fd, 0) }
            .context("cannot map the segment's file")?
            .cast::<u8>();
        Ok(Self { whole: (base, len_bytes), base, len_bytes })
    }

    /// Returns the words of the memory.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: mapped readable and writable for as long as `self`, aligned to a page, and only
        // ever accessed as atomics or through matrices.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.len_bytes / 4) }
    }

    /// Returns the first byte's address as another type of shared, atomic data.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn arena(self: &Arc<Self>) -> Arena {
        // SAFETY: aligned to a page, mapped for as long as the region. What is written there
        // against the rules is what the kit is for; it takes no guard's bytes for true.
        unsafe { Arena::new(self.base, self.len_bytes, Box::new(Arc::clone(self))) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let (start, len_bytes) = self.whole;
        // SAFETY: mapped by this value, and nobody uses it any more.
        let _ = unsafe { munmap(start.cast(), len_bytes) };
    }
}

fn size(bytes: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(bytes).context("a mapping of no bytes")
}

fn rw() -> ProtFlags {
    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
}
