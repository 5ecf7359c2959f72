//! Which lane a thread uses: one of its own per attachment, claimed at its first call.

use crate::attachment::Attachment;
use am_layout::SECTORS;
use am_layout::roster::RosterLane;
use am_tlsf::Lane;
use crossbeam_utils::CachePadded;
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// One thread's lanes, one per sector, and how many blocks its guards hold.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: [Lane<'static>; SECTORS],
    /// Blocks that this thread's guards took, less those they gave back, wrapping: a guard may be
    /// dropped by another thread than the one that made it, so only the sum over threads counts.
    held: AtomicU32,
    shared: bool,
}

impl Lanes {
    /// Lanes that tell by a roster's lane, which this thread claimed.
    pub(crate) fn of(lane: RosterLane<'static>) -> CachePadded<Self> {
        let lanes = std::array::from_fn(|sector| Lane::telling(lane.intent(sector)));
        CachePadded::new(Self { lanes, held: AtomicU32::new(0), shared: false })
    }

    /// Lanes for all threads that have none of their own.
    pub(crate) fn shared(lane: RosterLane<'static>) -> CachePadded<Self> {
        let lanes = std::array::from_fn(|sector| Lane::sharing(lane.intent(sector)));
        CachePadded::new(Self { lanes, held: AtomicU32::new(0), shared: true })
    }

    /// The lane for a sector.
    #[inline]
    pub(crate) fn lane(&self, sector: usize) -> &Lane<'static> {
        &self.lanes[sector]
    }

    /// Counts `more` blocks held (as a wrapping difference).
    #[inline]
    pub(crate) fn hold(&self, more: u32) {
        if self.shared {
            self.held.fetch_add(more, Relaxed);
        } else {
            // Only this thread writes it.
            self.held.store(self.held.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    pub(crate) fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }
}

/// The lanes of one thread in one attachment.
struct Entry {
    attachment: Weak<Attachment>,
    id: u64,
    lane: RosterLane<'static>,
    lanes: Arc<CachePadded<Lanes>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        LAST.set((0, ptr::null()));
        if let Some(attachment) = self.attachment.upgrade() {
            attachment.retire(&self.lanes, self.lane);
        }
    }
}

thread_local! {
    /// The attachment used last, and this thread's lanes in it.
    static LAST: Cell<(u64, *const Lanes)> = const { Cell::new((0, ptr::null())) };
    /// This thread's lanes in every attachment it used.
    static ENTRIES: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Returns this thread's lanes in `attachment`; claims them at the first call.
///
/// A thread that finds no lane left, or is being torn down, uses the attachment's shared lanes.
#[inline]
pub(crate) fn mine(attachment: &Arc<Attachment>) -> &Lanes {
    let (id, lanes) = LAST.get();
    if id == attachment.id() {
        // SAFETY: `LAST` names the attachment's shared lanes, or those of this thread's entry for it:
        // ids are never used twice, and whoever drops an entry resets `LAST` first. The entry lives
        // until this thread ends or the attachment does, and the caller borrows the attachment on
        // this thread.
        return unsafe { &*lanes };
    }
    find(attachment)
}

#[cold]
#[inline(never)]
fn find(attachment: &Arc<Attachment>) -> &Lanes {
    let found = ENTRIES.try_with(|entries| {
        let mut entries = entries.try_borrow_mut().ok()?;
        let id = attachment.id();
        if !entries.iter().any(|entry| entry.id == id) {
            // Entries of attachments that are gone go now; there are few.
            entries.retain(|entry| entry.attachment.strong_count() > 0);
            let (lane, lanes) = attachment.claim_lane()?;
            entries.push(Entry { attachment: Arc::downgrade(attachment), id, lane, lanes });
        }
        let entry = entries.iter().find(|entry| entry.id == id)?;
        let lanes: *const Lanes = &**entry.lanes;
        LAST.set((id, lanes));
        Some(lanes)
    });
    match found {
        // SAFETY: as in `mine`.
        Ok(Some(lanes)) => unsafe { &*lanes },
        _ => {
            // Remembered, so that the roster is not searched at every call.
            LAST.set((attachment.id(), attachment.shared()));
            attachment.shared()
        }
    }
}
