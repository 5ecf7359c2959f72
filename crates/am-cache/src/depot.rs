//! The depot of a pool: unused blocks for any number of threads, in private memory.
//!
//! Blocks are numbers. They come and go in *chains* of up to [`CHAIN`], so a thread that keeps some at
//! hand comes here once in as many calls.
//!
//! ```text
//! head = tag | 7           next:  7 ─► 2 ─► 9    one chain
//!            │ below
//!            ▼
//!            4 ─► 0                              another
//! ```
//!
//! `head` names the first block of the chain on top; `below`, of a chain's first block, names the first
//! of the chain under it; `next` names the block behind a block in its chain. A name is the number and 1,
//! so that 0 is none.
//!
//! **Invariant.** Every block is in one chain of the stack, or one caller has it, who alone writes its
//! `next` and its `below`. `push` and `pop` change owners by one exchange of `head`.
//!
//! **Orderings** (E12). `push` writes `next` and `below`, then exchanges `head` with release; `pop` loads
//! `head` with acquire before it reads either. Every write of `head` is an exchange, so each goes on with
//! the release sequences of all the pushes before: whoever sees a chain on top, sees what its pusher wrote,
//! however many chains were on top of it meanwhile. What callers wrote into the blocks goes the same way.
//!
//! **No ABA.** `pop` reads `below` of a chain that may be taken, taken apart and pushed again before its
//! exchange. Every push makes a tag that the head did not have before, and between two pushes a pop only
//! uncovers chains that were not on top since: so the head holds a value during one stretch of time only.
//! If the exchange finds what was loaded, nothing has happened, and the chain and its `below` are as read.
//! The tag has all bits that no name needs: 54 for 1000 blocks, 48 for 65 535, never less than 32. For a tag
//! to come again, 2^48 chains must be pushed while one thread stands between its load and its
//! exchange: at 10 ns each a month, and with 64 gets and puts between two of them more than a year. With
//! four billion blocks, more than a segment has, it is 2^32 chains: 43 s of nothing but pushes of single
//! blocks, minutes with 64; and then the thread must wake at that very tag, with the same block on top.

use alloc::boxed::Box;
use am_layout::Word;
use am_layout::mutation::{self, Mutation};
#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

/// Blocks in a chain, at the most.
pub const CHAIN: usize = 64;

/// Unused blocks of a pool, by number, for any number of threads.
///
/// It takes no memory after it was made, makes no system call, and never waits: at whatever instruction a
/// thread stops, or a process is forked, the others (and the child's copy) go on.
///
/// ```
/// use am_cache::{CHAIN, Depot};
///
/// let depot = Depot::new(100);
/// depot.push(&[3, 1, 4]);
/// depot.push(&[59]);
/// let mut chain = [0; CHAIN];
/// assert_eq!(depot.pop(&mut chain), [59]);
/// assert_eq!(depot.pop(&mut chain), [3, 1, 4]);
/// assert!(depot.pop(&mut chain).is_empty());
/// ```
#[derive(Debug)]
pub struct Depot {
    /// The tag, and below it the name of the topmost chain's first block.
    head: AtomicU64,
    /// Touched by each load of `head`, as `am_layout::Word` does, and for the same reason.
    #[cfg(loom)]
    touched: AtomicU64,
    /// The bits of `head` that hold a name.
    name_mask: u64,
    /// The name of the block behind this one in its chain.
    next: Box<[Word]>,
    /// The name of the first block of the chain under the one that this block is the first of.
    below: Box<[Word]>,
}

impl Depot {
    /// Makes an empty depot for blocks with numbers below `capacity`.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let words = || (0..capacity).map(|_| Word::new(0)).collect();
        let name_bits = u32::BITS - capacity.leading_zeros();
        let name_mask = (1u64 << name_bits) - 1;
        Self {
            head: AtomicU64::new(0),
            #[cfg(loom)]
            touched: AtomicU64::new(0),
            name_mask,
            next: words(),
            below: words(),
        }
    }

    /// Puts the blocks of `chain` into the depot, together: one [`pop`](Self::pop) takes them all.
    ///
    /// The caller has them, each once, and uses them no more; otherwise the depot will give blocks twice, or
    /// lose some. Lock-free: one exchange, which is tried again only when another thread's has succeeded.
    ///
    /// # Panics
    /// When the chain is longer than [`CHAIN`], or a number is not below the capacity.
    pub fn push(&self, chain: &[u32]) {
        assert!(chain.len() <= CHAIN, "a chain of {} blocks", chain.len());
        let Some(&first) = chain.first() else { return };
        for (at, &number) in chain.iter().enumerate() {
            let behind = chain.get(at + 1).map_or(0, |&behind| behind + 1);
            // Relaxed: the caller's alone, until the exchange below publishes it.
            self.next[number as usize].store_relaxed(behind);
        }
        let below = &self.below[first as usize];
        // Relaxed: nothing is read by it.
        let mut seen = self.load_head(Relaxed);
        loop {
            // Relaxed: as above. A pop that still reads it has lost its exchange already.
            below.store_relaxed((seen & self.name_mask) as u32);
            let new = self.next_tag(seen) | u64::from(first + 1);
            // Release (E12): publishes the links; pairs with the acquire in `pop`.
            match self.head.compare_exchange(seen, new, release(), Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the chain that was pushed last: its blocks, in the order they were pushed in; none when the
    /// depot is empty.
    ///
    /// Lock-free: one exchange, which is tried again only when another thread's has succeeded; then a step
    /// for each block.
    pub fn pop<'c>(&self, chain: &'c mut [u32; CHAIN]) -> &'c [u32] {
        // Acquire (E12): its links are read next; pairs with the release in `push`.
        let mut seen = self.load_head(acquire());
        let first = loop {
            let first = (seen & self.name_mask) as u32;
            if first == 0 {
                return &[];
            }
            // Relaxed: the load of `head` ordered it. What another push of this chain writes here meanwhile
            // may be read, but then the exchange fails.
            let below = self.below[first as usize - 1].load_relaxed();
            let new = (seen & !self.name_mask) | u64::from(below);
            // Acquire when it fails (E12): as the load above. When it succeeds, it found what that load, or
            // an exchange like it, saw and ordered.
            match self.head.compare_exchange(seen, new, Relaxed, acquire()) {
                Ok(_) => break first,
                Err(now) => seen = now,
            }
        };
        let (mut name, mut count) = (first, 0);
        while name != 0 && count < CHAIN {
            chain[count] = name - 1;
            count += 1;
            // Relaxed: ours since the exchange.
            name = self.next[name as usize - 1].load_relaxed();
        }
        &chain[..count]
    }

    fn load_head(&self, ordering: Ordering) -> u64 {
        #[cfg(loom)]
        self.touched.fetch_add(0, Relaxed);
        self.head.load(ordering)
    }

    /// The tag after the one in `head`, and no name.
    fn next_tag(&self, head: u64) -> u64 {
        if mutation::is(Mutation::DepotForgetsTag) {
            return 0;
        }
        // With all bits of the name set, the one that is added runs into the tag.
        (head | self.name_mask).wrapping_add(1)
    }
}

fn release() -> Ordering {
    if mutation::is(Mutation::DepotWithoutRelease) { Relaxed } else { Release }
}

fn acquire() -> Ordering {
    if mutation::is(Mutation::DepotWithoutAcquire) { Relaxed } else { Acquire }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn push_of_nothing_leaves_an_empty_depot() {
        let depot = Depot::new(0);
        depot.push(&[]);
        assert!(depot.pop(&mut [0; CHAIN]).is_empty());
    }

    #[test]
    fn pop_gives_chains_whole_and_the_last_one_first() {
        let depot = Depot::new(200);
        let blocks: Vec<u32> = (0..200).collect();
        blocks.chunks(CHAIN).for_each(|chain| depot.push(chain));
        for chain in blocks.chunks(CHAIN).rev() {
            assert_eq!(depot.pop(&mut [0; CHAIN]), chain);
        }
        assert!(depot.pop(&mut [0; CHAIN]).is_empty());
    }

    #[test]
    fn tag_that_comes_to_its_end_begins_anew_and_leaves_the_name() {
        for capacity in [1, 2, 1000, 65_535] {
            let mut depot = Depot::new(capacity);
            depot.head = AtomicU64::new(!depot.name_mask);
            depot.push(&[capacity - 1]);
            assert_eq!(depot.head.load(Relaxed), u64::from(capacity));
            depot.push(&[]);
            assert_eq!(depot.pop(&mut [0; CHAIN]), [capacity - 1]);
            assert!(depot.pop(&mut [0; CHAIN]).is_empty());
        }
    }

    #[test]
    #[should_panic(expected = "a chain of 65 blocks")]
    fn push_of_a_chain_too_long_is_refused() {
        Depot::new(100).push(&[0; CHAIN + 1]);
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn push_of_a_number_beyond_the_capacity_is_refused() {
        Depot::new(100).push(&[100]);
    }

    #[test]
    fn threads_that_push_and_pop_never_have_one_block_twice_and_lose_none() {
        const BLOCKS: u32 = 50;
        let depot = Depot::new(BLOCKS);
        (0..BLOCKS).for_each(|block| depot.push(&[block]));
        let in_use: Vec<_> = (0..BLOCKS).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (depot, in_use) = (&depot, &in_use);
                scope.spawn(move || {
                    for turn in 0..50_000 {
                        let mut mine = depot.pop(&mut [0; CHAIN]).to_vec();
                        mine.extend_from_slice(depot.pop(&mut [0; CHAIN]));
                        for &block in &mine {
                            assert!(!in_use[block as usize].swap(true, Relaxed), "{block} twice");
                        }
                        for &block in &mine {
                            in_use[block as usize].store(false, Relaxed);
                        }
                        let (some, others) = mine.split_at((turn + thread) % 7 % (mine.len() + 1));
                        depot.push(some);
                        others.chunks(3).for_each(|chain| depot.push(chain));
                    }
                });
            }
        });
        let mut left = Vec::new();
        loop {
            let mut chain = [0; CHAIN];
            match depot.pop(&mut chain) {
                [] => break,
                chain => left.extend_from_slice(chain),
            }
        }
        left.sort_unstable();
        assert_eq!(left, (0..BLOCKS).collect::<Vec<_>>());
    }
}
