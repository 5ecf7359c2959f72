//! Which lane a thread uses.

use am_layout::SECTORS;
use am_tlsf::Lane;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Lanes per handle. More threads than these share lanes, which costs time only.
const LANES: usize = 32;

/// The lanes of one attachment: private memory, one set per thread.
#[derive(Debug)]
pub(crate) struct Lanes(Box<[CachePadded<[Lane; SECTORS]>]>);

impl Lanes {
    pub(crate) fn new() -> Self {
        Self((0..LANES).map(|_| CachePadded::new([const { Lane::new() }; SECTORS])).collect())
    }

    /// Returns this thread's lane for `sector`.
    #[inline]
    pub(crate) fn mine(&self, sector: usize) -> &Lane {
        &self.0[thread_number() % LANES][sector]
    }
}

/// Numbers the threads of the process in the order of their first use.
#[inline]
fn thread_number() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // A thread that is being torn down has lost its number; any lane will do.
    NUMBER
        .try_with(|number| {
            if number.get() == usize::MAX {
                // Relaxed: only uniqueness matters.
                number.set(NEXT.fetch_add(1, Relaxed));
            }
            number.get()
        })
        .unwrap_or(0)
}
