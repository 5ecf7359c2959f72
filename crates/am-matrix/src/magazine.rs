//! Magazines: the unused blocks of a pool that a thread has at hand.
//!
//! A magazine holds up to 128 blocks, newest last. When it is empty, it takes a chain of up to 64 from the
//! pool's [`Depot`]; when it is full, it gives its 64 oldest there. So 64 gets or puts lie between two
//! exchanges, whatever their order: the two magazines of Bonwick and Adams ("Magazines and Vmem", 2001),
//! in one array, which saves a second look on each call.
//!
//! A thread's magazine of a pool is made at its first call, and gives all blocks back when the thread ends.
//! No memory is taken but for that, and nothing waits. The global allocator may itself use a pool: whoever
//! comes while this module allocates or frees finds no magazine, and goes to the depot.

use am_cache::{CHAIN, Depot};
use am_layout::Offset;
use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Blocks in a magazine, at the most.
const ROOM: usize = 2 * CHAIN;

/// A block of a pool: its number there, and where its payload lies.
///
/// In one number, which is never 0 since a header precedes each payload: so a slot, or none, is one register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(NonZeroU64);

impl Slot {
    /// A place in a magazine that no block is in.
    const VACANT: Self = Self(NonZeroU64::MAX);

    #[inline]
    pub(crate) fn new(number: u32, payload: Offset) -> Self {
        let slot = u64::from(number) << 32 | u64::from(payload.to_raw());
        Self(NonZeroU64::new(slot).expect("a payload is never at the beginning of a segment"))
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    #[inline]
    pub(crate) fn payload(self) -> Offset {
        Offset::from_raw(self.0.get() as u32)
    }
}

/// Unused blocks at hand, for one thread at a time.
pub(crate) struct Magazine {
    /// How many of the slots are blocks, from the first on.
    count: Cell<usize>,
    slots: [Cell<Slot>; ROOM],
}

impl Magazine {
    pub(crate) const fn new() -> Self {
        Self { count: Cell::new(0), slots: [const { Cell::new(Slot::VACANT) }; ROOM] }
    }

    /// Takes the newest block; `None` when there is none. Wait-free.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Slot> {
        // Of an empty one this wraps, and finds no slot: one comparison for both.
        let last = self.count.get().wrapping_sub(1);
        let slot = self.slots.get(last)?.get();
        self.count.set(last);
        Some(slot)
    }

    /// Takes a block in; false when there is no room. Wait-free.
    #[inline(always)]
    pub(crate) fn push(&self, slot: Slot) -> bool {
        let count = self.count.get();
        let Some(free) = self.slots.get(count) else { return false };
        free.set(slot);
        self.count.set(count + 1);
        true
    }

    /// Takes a chain from the depot into the magazine, which is empty; the first of it comes out first.
    /// Lock-free.
    pub(crate) fn refill(&self, depot: &Depot, slot_of: impl Fn(u32) -> Slot) {
        let mut chain = [0; CHAIN];
        for &number in depot.pop(&mut chain).iter().rev() {
            self.push(slot_of(number));
        }
    }

    /// Gives the depot the 64 oldest blocks of the magazine, which is full. Lock-free.
    pub(crate) fn relieve(&self, depot: &Depot) {
        let (oldest, newest) = self.slots.split_at(CHAIN);
        give(oldest, depot);
        for (to, from) in oldest.iter().zip(newest) {
            to.set(from.get());
        }
        self.count.set(newest.len());
    }

    /// Gives the depot everything. Lock-free.
    pub(crate) fn give_back(&self, depot: &Depot) {
        let slots = &self.slots[..self.count.replace(0)];
        slots.chunks(CHAIN).for_each(|slots| give(slots, depot));
    }
}

/// Gives the depot up to 64 blocks as a chain, the newest first.
fn give(slots: &[Cell<Slot>], depot: &Depot) {
    let mut chain = [0; CHAIN];
    for (number, slot) in chain.iter_mut().zip(slots.iter().rev()) {
        *number = slot.get().number();
    }
    depot.push(&chain[..slots.len()]);
}

/// The depot of a pool, and the way to the magazines that threads have of it.
pub(crate) struct Magazines {
    /// No other pool of this process has or had it, and none has [`NOBODY`].
    id: u64,
    depot: Arc<Depot>,
}

impl Magazines {
    pub(crate) fn new(depot: Depot) -> Self {
        // Relaxed: only uniqueness matters. One pool a nanosecond, and it lasts for 584 years.
        static NEXT_ID: AtomicU64 = AtomicU64::new(NOBODY + 1);
        Self { id: NEXT_ID.fetch_add(1, Relaxed), depot: Arc::new(depot) }
    }

    #[inline]
    pub(crate) fn depot(&self) -> &Depot {
        &self.depot
    }

    /// Returns this thread's magazine, if it has one and used it lately. Wait-free.
    #[inline(always)]
    pub(crate) fn own(&self) -> Option<&Magazine> {
        let (last, magazine) = LAST.with(|last| last[self.id as usize % RECENT].get());
        // SAFETY: `LAST` names the magazine of this thread's entry for the pool: ids are never used twice,
        // and whoever drops an entry forgets `LAST` first. The entry lives until this thread ends or the
        // depot's last owner does, and `self`, borrowed on this thread, is one.
        if last == self.id { Some(unsafe { &*magazine }) } else { None }
    }

    /// Returns this thread's magazine, and makes it at the first call; `None` when the thread is being torn
    /// down, or this module is in use further up on the stack.
    #[cold]
    #[inline(never)]
    pub(crate) fn mine(&self) -> Option<&Magazine> {
        let found = ENTRIES.try_with(|entries| {
            let mut entries = entries.try_borrow_mut().ok()?;
            if !entries.iter().any(|entry| entry.id == self.id) {
                // Entries of pools that are gone go now; there are few.
                entries.retain(|entry| entry.depot.strong_count() > 0);
                let (depot, magazine) = (Arc::downgrade(&self.depot), Rc::new(Magazine::new()));
                entries.push(Entry { depot, id: self.id, magazine });
            }
            let entry = entries.iter().find(|entry| entry.id == self.id)?;
            let magazine = Rc::as_ptr(&entry.magazine);
            LAST.with(|last| last[self.id as usize % RECENT].set((self.id, magazine)));
            Some(magazine)
        });
        // SAFETY: as in `own`.
        found.ok().flatten().map(|magazine| unsafe { &*magazine })
    }
}

/// The magazine that one thread has of one pool.
struct Entry {
    depot: Weak<Depot>,
    id: u64,
    magazine: Rc<Magazine>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        LAST.with(|last| last.iter().for_each(|last| last.set((NOBODY, ptr::null()))));
        // Of a pool that is gone, nobody wants anything back: it freed its blocks itself.
        if let Some(depot) = self.depot.upgrade() {
            self.magazine.give_back(&depot);
        }
    }
}

/// Pools whose magazines a thread finds at once.
const RECENT: usize = 4;
/// No pool's id.
const NOBODY: u64 = 0;

thread_local! {
    /// The pools used last, by id, and this thread's magazines of them.
    static LAST: [Cell<(u64, *const Magazine)>; RECENT] =
        const { [const { Cell::new((NOBODY, ptr::null())) }; RECENT] };
    /// This thread's magazines of every pool it used.
    static ENTRIES: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}
