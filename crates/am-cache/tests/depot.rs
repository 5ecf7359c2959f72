//! The model check of a pool's depot: loom runs the shipped code through every interleaving within a
//! bound, and whoever has a block writes a cell of it, which loom checks for races.
//!
//! Part of `cargo xtask model`; its deliberate defects are part of `cargo xtask model --mutants`.
#![cfg(loom)]

#[path = "../../am-ripple/tests/harness/mod.rs"]
mod harness;
#[path = "../../am-ripple/tests/world/mod.rs"]
mod world;

use am_cache::{CHAIN, Depot};
use am_layout::mutation::Mutation;
use harness::{all_noticed, check};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

struct Shelf {
    depot: Depot,
    payload: Vec<UnsafeCell<u32>>,
}

// SAFETY: the cells are loom's, which check the exclusion that these models are about.
unsafe impl Sync for Shelf {}
// SAFETY: as above.
unsafe impl Send for Shelf {}

impl Shelf {
    /// A depot that holds `chains`, the last one on top.
    fn holding(blocks: u32, chains: &[&[u32]]) -> Arc<Self> {
        let depot = Depot::new(blocks);
        chains.iter().for_each(|chain| depot.push(chain));
        let payload = (0..blocks).map(|_| UnsafeCell::new(0)).collect();
        Arc::new(Self { depot, payload })
    }

    /// Takes a chain, and uses its blocks.
    fn pop(&self) -> Vec<u32> {
        let mut chain = [0; CHAIN];
        let chain = self.depot.pop(&mut chain).to_vec();
        chain.iter().for_each(|&block| self.touch(block));
        chain
    }

    /// Uses blocks for the last time, and puts them back.
    fn push(&self, chain: &[u32]) {
        chain.iter().for_each(|&block| self.touch(block));
        self.depot.push(chain);
    }

    fn touch(&self, block: u32) {
        // SAFETY: loom panics when the access is not exclusive.
        self.payload[block as usize].with_mut(|value| unsafe { *value += 1 });
    }

    /// What the depot and `kept` have, in order.
    fn all(&self, mut kept: Vec<u32>) -> Vec<u32> {
        for _ in &self.payload {
            kept.extend(self.pop());
        }
        assert!(self.pop().is_empty(), "more blocks than there are");
        kept.sort_unstable();
        kept
    }
}

#[test]
fn chain_that_is_pushed_again_under_a_pop_is_not_taken_with_what_was_below() {
    check(5, || {
        let shelf = Shelf::holding(3, &[&[2], &[1], &[0]]);
        let other = shelf.clone();
        // The topmost one is back on top at the end, but not with the one that was below it.
        let handle = thread::spawn(move || {
            let first = other.pop();
            let second = other.pop();
            other.push(&first);
            second
        });
        let mut kept = shelf.pop();
        kept.extend(handle.join().unwrap());
        assert_eq!(shelf.all(kept), [0, 1, 2]);
    });
}

#[test]
fn chains_pushed_at_once_are_both_there_and_whole() {
    check(5, || {
        let shelf = Shelf::holding(4, &[]);
        let other = shelf.clone();
        let handle = thread::spawn(move || other.push(&[3, 1]));
        shelf.push(&[0, 2]);
        handle.join().unwrap();
        let (last, first) = (shelf.pop(), shelf.pop());
        assert!([[3, 1], [0, 2]].iter().all(|chain| [&last, &first].contains(&&chain.to_vec())));
        assert!(shelf.pop().is_empty());
    });
}

#[test]
fn chain_pushed_under_pops_comes_to_one_with_what_was_written_to_it() {
    check(3, || {
        let shelf = Shelf::holding(3, &[]);
        let (one, two) = (shelf.clone(), shelf.clone());
        let one = thread::spawn(move || one.pop());
        let two = thread::spawn(move || two.pop());
        shelf.push(&[0, 1]);
        shelf.push(&[2]);
        let mut kept = one.join().unwrap();
        kept.extend(two.join().unwrap());
        assert_eq!(shelf.all(kept), [0, 1, 2]);
    });
}

#[test]
fn chain_below_another_threads_is_seen_whole_when_that_was_taken() {
    check(3, || {
        let shelf = Shelf::holding(3, &[]);
        let (one, two) = (shelf.clone(), shelf.clone());
        let one = thread::spawn(move || one.push(&[0, 1]));
        // Takes its own off the other's: whoever comes then learns of the other's from it alone.
        let two = thread::spawn(move || {
            two.push(&[2]);
            two.pop()
        });
        let mut kept = shelf.pop();
        one.join().unwrap();
        kept.extend(two.join().unwrap());
        assert_eq!(shelf.all(kept), [0, 1, 2]);
    });
}

#[test]
#[ignore = "run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::DEPOT);
}
