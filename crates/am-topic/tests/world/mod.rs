//! A topic over private words, and a heap of message blocks that notices whoever looks at a block that is
//! not a message's.
#![allow(dead_code)]

use am_layout::{Wide, Word};
use am_topic::{Entry, Flow, Next, NoRoom, Place, Poster, Reader, Seq, Shape, Topic};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const BLOCKS: usize = 4096;
/// What a free block holds.
const POISON: u64 = u64::MAX;

pub struct World {
    words: Vec<Word>,
    wides: Vec<Wide>,
    /// Two words that must be the same: a torn block shows.
    blocks: Vec<[AtomicU64; 2]>,
    free: Mutex<Vec<u32>>,
}

impl World {
    pub fn new(slots_log: u32, flow: Flow) -> Self {
        let shape = Shape { slots_log, flow, cell_bytes: 0, set: 42, stamped: false };
        let world = Self {
            words: (0..Topic::WORDS).map(|_| Word::new(0)).collect(),
            wides: (0..shape.wides()).map(|_| Wide::new(0)).collect(),
            blocks: (0..BLOCKS).map(|_| [AtomicU64::new(POISON), AtomicU64::new(POISON)]).collect(),
            free: Mutex::new((1..BLOCKS as u32).collect()),
        };
        Topic::format(&world.words, &world.wides, shape).unwrap();
        world
    }

    pub fn topic(&self) -> Topic<'_> {
        let topic = Topic::open(&self.words, &self.wides).unwrap();
        assert_eq!(topic.shape().set, 42);
        topic
    }

    pub fn in_use(&self) -> usize {
        BLOCKS - 1 - self.free.lock().unwrap().len()
    }

    fn set(&self, offset: u32, value: u64) {
        self.blocks[offset as usize].iter().for_each(|half| half.store(value, Relaxed));
    }

    fn free(&self, place: Place) {
        let [one, two] = &self.blocks[place.offset as usize];
        assert!(one.swap(POISON, Relaxed) != POISON, "freed twice");
        two.store(POISON, Relaxed);
        // At the far end: it comes back late.
        self.free.lock().unwrap().insert(0, place.offset);
    }

    pub fn payload(&self, place: Place) -> u64 {
        let [one, two] = &self.blocks[place.offset as usize];
        let (one, two) = (one.load(Relaxed), two.load(Relaxed));
        assert!(one == two && one != POISON, "{place:?}: {one:#x} {two:#x}");
        one
    }

    pub fn collect(&self, poster: &mut Poster<'_>) {
        while let Some(orphaned) = poster.orphan() {
            let place = orphaned.place();
            orphaned.forget();
            self.free(place);
        }
    }

    pub fn post(&self, poster: &mut Poster<'_>, value: u64) -> Result<Seq, NoRoom> {
        self.collect(poster);
        let number = poster.number() as u32;
        let mut claim = poster.claim_one()?;
        let old = claim.old().expect("few are held");
        if let Some(place) = old {
            claim.forget();
            self.free(place);
        }
        let offset = self.free.lock().unwrap().pop().expect("enough blocks");
        self.set(offset, value);
        let place = Place { offset, len: 8 };
        claim.tell(&Entry { place, kind: 7, poster: number, tag: value });
        Ok(claim.publish())
    }

    pub fn read(&self, reader: &mut Reader<'_>) -> Option<(Seq, u64)> {
        let Next::Message(held) = reader.next() else { return None };
        let value = self.payload(held.entry.place);
        assert_eq!((held.entry.kind, held.entry.tag), (7, value));
        reader.done();
        Some((held.seq, value))
    }
}
