//! A topic's words, and message blocks that say whose they are.

use am_layout::{Wide, Word};
use am_topic::{Flow, Morgue, Place, Shape, Topic};
use std::cell::RefCell;
use std::collections::BTreeSet;

const SLOTS_LOG: u32 = Shape::SLOTS_LOG_MIN;
/// Two for each slot, as many orphans as can be, and a batch.
const BLOCKS: usize = 600;
pub const NOBODY: u32 = 0;
const FREE: u32 = u32::MAX;

pub struct Ring {
    words: Vec<Word>,
    wides: Vec<Wide>,
}

impl Ring {
    pub fn new(flow: Flow) -> Self {
        let shape = Shape { slots_log: SLOTS_LOG, flow, cell_bytes: 0, set: 42, stamped: false };
        let words = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
        let ring = Self { words, wides: (0..shape.wides()).map(|_| Wide::new(0)).collect() };
        Topic::format(&ring.words, &ring.wides, shape).unwrap();
        ring
    }

    pub fn topic(&self) -> Topic<'_> {
        Topic::open(&self.words, &self.wides).unwrap()
    }
}

/// Whose each block is, and what it holds.
pub struct Heap(RefCell<Vec<(u32, u64)>>);

impl Default for Heap {
    fn default() -> Self {
        Self(RefCell::new(vec![(FREE, 0); BLOCKS]))
    }
}

impl Heap {
    pub fn loan(&self, owner: u32, value: u64) -> Place {
        let mut blocks = self.0.borrow_mut();
        // The first is no block: its offset is 0.
        let offset = (1..BLOCKS).find(|&at| blocks[at].0 == FREE).expect("enough blocks");
        blocks[offset] = (owner, value);
        Place { offset: offset as u32, len: 8 }
    }

    pub fn owner(&self, place: Place) -> u32 {
        self.0.borrow()[place.offset as usize].0
    }

    pub fn value(&self, place: Place) -> u64 {
        let (owner, value) = self.0.borrow()[place.offset as usize];
        assert_eq!(owner, NOBODY, "{place:?} is no message");
        value
    }

    /// Passes a block from one owner to another.
    pub fn pass(&self, place: Place, from: u32, to: u32) {
        let owner = &mut self.0.borrow_mut()[place.offset as usize].0;
        assert_eq!(*owner, from, "{place:?} is in two hands");
        *owner = to;
    }

    pub fn free(&self, place: Place, owner: u32) {
        self.pass(place, owner, FREE);
    }

    /// Gives back what an owner has.
    pub fn free_all(&self, owner: u32) {
        let mut blocks = self.0.borrow_mut();
        blocks.iter_mut().filter(|block| block.0 == owner).for_each(|block| block.0 = FREE);
    }

    pub fn assert_nobodys(&self, expected: &BTreeSet<u32>) {
        let blocks = self.0.borrow();
        let nobodys = (0..BLOCKS as u32).filter(|&at| blocks[at as usize].0 == NOBODY);
        assert_eq!(&nobodys.collect::<BTreeSet<_>>(), expected, "messages that nobody knows of");
    }

    /// Nothing is in use but these messages.
    pub fn assert_free_but(&self, nobodys: usize) {
        let blocks = self.0.borrow();
        let free = blocks.iter().filter(|block| block.0 == FREE).count();
        assert_eq!(free, BLOCKS - nobodys);
    }
}

/// What a recoverer of the heap does.
pub struct Graveyard<'a> {
    pub heap: &'a Heap,
    pub dead: &'a [u32],
}

impl Morgue for Graveyard<'_> {
    fn is_dead(&self, owner: u32) -> bool {
        self.dead.contains(&owner)
    }

    fn is_nobodys(&self, place: Place) -> bool {
        self.heap.owner(place) == NOBODY
    }

    fn bequeath(&mut self, place: Place, dead: u32) {
        self.heap.pass(place, NOBODY, dead);
    }
}
