//! A topic over private words, and message blocks that say whose they are; loom reports every look at a payload
//! that no happens-before edge orders after its last writer.

use am_layout::{Wide, Word};
use am_topic::{Claim, Entry, Flow, Full, Held, Morgue, Next, Place, Poster, Reader};
use am_topic::{Recoverer, Seq, Shape, Start, Topic, WIDES_OF_GROUPS};
use loom::cell::UnsafeCell;
use loom::thread;

/// Owners, as headers name them.
pub const NOBODY: u32 = 0;
pub const DEAD: u32 = 1;
pub const LIVING: u32 = 2;
pub const OTHER: u32 = 3;
pub const READER: u32 = 4;
/// A recoverer that is dead as well, when the next one comes.
pub const DEAD_RECOVERER: u32 = 5;
const FREE: u32 = u32::MAX;
/// Messages that are worked on.
const WORK_MAX: usize = 8;
/// What a free block holds.
const POISON: u64 = u64::MAX;

struct Block {
    owner: Word,
    payload: UnsafeCell<u64>,
}

pub struct World {
    words: Vec<Word>,
    wides: Vec<Wide>,
    /// The first is no block: its offset is 0.
    blocks: Vec<Block>,
    /// What lies in the slots' cells, if they have any.
    cells: Vec<UnsafeCell<u64>>,
    /// What is done with each message beside it: how often it was looked at by those who have it alone.
    work: Vec<UnsafeCell<u32>>,
}

// SAFETY: payloads and work are touched only through loom's cells, which check the exclusion that the models are about;
// everything else is `Sync` by itself.
unsafe impl Sync for World {}

/// Makes a topic of 2^`slots_log` slots and `blocks` blocks, plays `body` with it, and looks after it again.
pub fn with_world(slots_log: u32, flow: Flow, blocks: usize, body: impl FnOnce(&'static World)) {
    with(World::new(slots_log, flow, blocks, 0), body);
}

/// As [`with_world`], lossless, and slots have cells.
pub fn with_cells(slots_log: u32, blocks: usize, body: impl FnOnce(&'static World)) {
    let mut world = World::new_of(slots_log, Flow::Lossless, Shape::CELL_BYTES_MIN, blocks, 0);
    world.cells = (0..1 << slots_log).map(|_| UnsafeCell::new(POISON)).collect();
    with(world, body);
}

/// As [`with_world`], and the topic has a group. Others have none, which spares them the looks.
pub fn with_group(slots_log: u32, flow: Flow, blocks: usize, body: impl FnOnce(&'static World)) {
    with(World::new(slots_log, flow, blocks, WIDES_OF_GROUPS), body);
}

fn with(world: World, body: impl FnOnce(&'static World)) {
    let world: *mut World = Box::into_raw(Box::new(world));
    // SAFETY: it lives until the end of this function.
    body(unsafe { &*world });
    // SAFETY: `body` has joined its threads, and all that looked at the world is gone.
    drop(unsafe { Box::from_raw(world) });
}

impl World {
    fn new(slots_log: u32, flow: Flow, blocks: usize, wides_of_groups: usize) -> Self {
        Self::new_of(slots_log, flow, 0, blocks, wides_of_groups)
    }

    fn new_of(
        slots_log: u32,
        flow: Flow,
        cell_bytes: u32,
        blocks: usize,
        wides_of_groups: usize,
    ) -> Self {
        let shape = Shape { slots_log, flow, cell_bytes, set: 42, stamped: false };
        let block = |_| Block { owner: Word::new(FREE), payload: UnsafeCell::new(POISON) };
        let world = Self {
            words: (0..Topic::WORDS).map(|_| Word::new(0)).collect(),
            wides: (0..shape.wides() + wides_of_groups).map(|_| Wide::new(0)).collect(),
            blocks: (0..=blocks).map(block).collect(),
            cells: Vec::new(),
            work: (0..WORK_MAX).map(|_| UnsafeCell::new(0)).collect(),
        };
        Topic::format(&world.words, &world.wides, shape).unwrap();
        world
    }

    pub fn topic(&self) -> Topic<'_> {
        Topic::open(&self.words, &self.wides).unwrap()
    }

    fn owner(&self, place: Place) -> &Word {
        &self.blocks[place.offset as usize].owner
    }

    fn write(&self, offset: u32, value: u64) {
        // SAFETY: loom panics when the access is not exclusive.
        self.blocks[offset as usize].payload.with_mut(|payload| unsafe { *payload = value });
    }

    pub fn look(&self, place: Place) -> u64 {
        // SAFETY: loom panics when a writer is not ordered before or after.
        self.blocks[place.offset as usize].payload.with(|payload| unsafe { *payload })
    }

    fn cell(&self, seq: Seq) -> &UnsafeCell<u64> {
        &self.cells[seq.0 as usize % self.cells.len()]
    }

    fn look_in_cell(&self, seq: Seq) -> u64 {
        // SAFETY: loom panics when a writer is not ordered before or after.
        self.cell(seq).with(|payload| unsafe { *payload })
    }

    /// Looks at a message, which must be what was posted.
    pub fn look_at(&self, held: &Held) -> u64 {
        let place = held.entry.place;
        let value = if place.is_in_cell() { self.look_in_cell(held.seq) } else { self.look(place) };
        assert_eq!((held.entry.kind, held.entry.tag), (7, value), "{:?}", held.seq);
        value
    }

    /// Works on a message that one thread has alone; returns how often that was done before.
    pub fn work_on(&self, seq: Seq) -> u32 {
        // SAFETY: loom panics when the access is not exclusive.
        self.work[seq.0 as usize].with_mut(|work| unsafe {
            *work += 1;
            *work - 1
        })
    }

    /// Returns how often a message was worked on by those before.
    pub fn worked_on(&self, seq: Seq) -> u32 {
        // SAFETY: loom panics when a writer is not ordered before or after.
        self.work[seq.0 as usize].with(|work| unsafe { *work })
    }

    /// Makes a message that is nobody's the owner's own.
    fn take(&self, place: Place, owner: u32) {
        assert_eq!(self.owner(place).cas(NOBODY, owner), Ok(()), "{place:?} is in two hands");
        self.write(place.offset, POISON);
    }

    fn free(&self, offset: u32) {
        self.blocks[offset as usize].owner.store(FREE);
    }

    fn owned_by(&self, owner: u32) -> Vec<u32> {
        let offsets = 1..self.blocks.len() as u32;
        offsets.filter(|&at| self.blocks[at as usize].owner.load() == owner).collect()
    }

    /// What a recovery of the segment does: its topic first, and then what the dead held.
    pub fn recover(&self, dead: &[u32]) {
        let mut morgue = Graveyard { world: self, dead };
        Recoverer::new(self.topic(), &mut morgue).recover(|_| ());
        for owner in dead {
            self.owned_by(*owner).into_iter().for_each(|offset| self.free(offset));
        }
    }

    /// At rest, without readers: every slot can be used again, and every block is in one hand.
    pub fn assert_sound(&self) {
        let kept = self.owned_by(FREE);
        assert!(!kept.is_empty(), "blocks were lost");
        let mut auditor = Hand::new(self, OTHER, kept);
        for value in 0..self.topic().shape().slots() {
            assert!(auditor.post(value), "a slot is stuck");
        }
        auditor.collect();
        let slots = self.topic().shape().slots() as usize;
        assert_eq!(self.owned_by(NOBODY).len(), slots, "blocks that no slot names");
        assert_eq!(self.owned_by(FREE).len(), self.blocks.len() - 1 - slots);
    }
}

struct Graveyard<'a> {
    world: &'a World,
    dead: &'a [u32],
}

impl Morgue for &mut Graveyard<'_> {
    fn is_dead(&self, owner: u32) -> bool {
        self.dead.contains(&owner)
    }

    fn is_nobodys(&self, place: Place) -> bool {
        self.world.owner(place).load() == NOBODY
    }

    fn bequeath(&mut self, place: Place, dead: u32) {
        self.world.take(place, dead);
    }
}

/// A thread that posts: its number in the topic, and the free blocks of its cache.
pub struct Hand<'a> {
    world: &'a World,
    owner: u32,
    poster: Poster<'a>,
    kept: Vec<u32>,
    /// The values that were posted.
    pub posted: Vec<u64>,
}

/// Two posters of a small ring, and the blocks of each.
pub fn two_hands(world: &'static World) -> [Hand<'static>; 2] {
    [Hand::new(world, LIVING, [1, 2, 3]), Hand::new(world, OTHER, [4, 5, 6])]
}

impl<'a> Hand<'a> {
    pub fn new(world: &'a World, owner: u32, kept: impl IntoIterator<Item = u32>) -> Self {
        let poster = world.topic().poster(owner).expect("few post");
        Self { world, owner, poster, kept: kept.into_iter().collect(), posted: Vec::new() }
    }

    /// Makes a block its own, and fills it.
    fn loan(&mut self, value: u64) -> Place {
        let offset = self.kept.pop().expect("enough blocks");
        self.world.blocks[offset as usize].owner.store(self.owner);
        self.world.write(offset, value);
        Place { offset, len: 8 }
    }

    fn keep(world: &World, kept: &mut Vec<u32>, place: Place) {
        world.free(place.offset);
        kept.push(place.offset);
    }

    /// Posts one message; tells whether there was room.
    pub fn post(&mut self, value: u64) -> bool {
        self.post_all(&[value])
    }

    /// Posts a message in its slot's cell; tells whether there was room.
    pub fn post_short(&mut self, value: u64) -> bool {
        let Ok(mut claim) = self.poster.claim_one() else { return false };
        if let Some(place) = claim.old().expect("lossless") {
            self.world.take(place, self.owner);
            claim.forget();
            Self::keep(self.world, &mut self.kept, place);
        }
        claim.tell(&Entry { place: Place::in_cell(8), kind: 7, poster: self.owner, tag: value });
        // SAFETY: loom panics when the access is not exclusive.
        self.world.cell(claim.seq()).with_mut(|payload| unsafe { *payload = value });
        claim.publish();
        self.posted.push(value);
        true
    }

    /// Posts one after the other in cells, those for which there is room.
    pub fn post_shorts(&mut self, values: impl IntoIterator<Item = u64>) {
        for value in values {
            self.post_short(value);
        }
    }

    /// Posts as many messages at once as may be, of values from `first` on; tells whether there was room.
    pub fn post_batch(&mut self, first: u64) -> bool {
        let values = first..first + self.world.topic().shape().batch_max();
        self.post_all(&values.collect::<Vec<_>>())
    }

    /// Posts one after the other, those for which there is room.
    pub fn post_each(&mut self, values: impl IntoIterator<Item = u64>) {
        for value in values {
            self.post(value);
        }
    }

    /// Posts the messages as one batch; tells whether there was room.
    pub fn post_all(&mut self, values: &[u64]) -> bool {
        self.collect();
        let loans: Vec<_> = values.iter().map(|&value| (value, self.loan(value))).collect();
        let Ok(mut claims) = self.poster.claim(values.len() as u64) else {
            loans.iter().for_each(|&(_, loan)| Self::keep(self.world, &mut self.kept, loan));
            return false;
        };
        for (value, loan) in loans {
            let Some(claim) = claims.next() else { break };
            if let Some(claim) =
                Self::fill(self.world, self.owner, &mut self.kept, claim, value, loan)
            {
                self.posted.push(value);
                claim.ready();
            }
        }
        claims.publish();
        true
    }

    /// Takes the old message back and names the new one, which is to be published; none when the list of orphans is
    /// full.
    fn fill<'p>(
        world: &World,
        owner: u32,
        kept: &mut Vec<u32>,
        mut claim: Claim<'p, 'a>,
        value: u64,
        loan: Place,
    ) -> Option<Claim<'p, 'a>> {
        match claim.old() {
            Ok(None) => {}
            Ok(Some(place)) => {
                world.take(place, owner);
                claim.forget();
                Self::keep(world, kept, place);
            }
            Err(Full) => {
                Self::keep(world, kept, loan);
                return None;
            }
        }
        claim.tell(&Entry { place: loan, kind: 7, poster: owner, tag: value });
        world.owner(loan).store(NOBODY);
        Some(claim)
    }

    /// Takes back what readers have let go.
    pub fn collect(&mut self) {
        while let Some(orphaned) = self.poster.orphan() {
            let place = orphaned.place();
            self.world.take(place, self.owner);
            orphaned.forget();
            Self::keep(self.world, &mut self.kept, place);
        }
    }

    /// Claims `count` numbers, if there is room, and lets them go.
    pub fn waste(&mut self, count: u64) {
        drop(self.poster.claim(count));
    }
}

/// A thread that reads, and what it saw.
pub struct Watch {
    world: &'static World,
    reader: Reader<'static>,
    start: Seq,
    seen: Vec<(Seq, u64)>,
}

impl Watch {
    pub fn new(world: &'static World, owner: u32, start: Start) -> Self {
        let reader = world.topic().reader(owner, start).expect("few read");
        Self { world, start: reader.cursor(), reader, seen: Vec::new() }
    }

    /// Holds the next message, if there is one.
    pub fn hold(&mut self) -> Option<Place> {
        let Next::Message(held) = self.reader.next() else { return None };
        let value = self.world.look_at(&held);
        self.seen.push((held.seq, value));
        Some(held.entry.place)
    }

    pub fn done(&mut self) {
        self.reader.done();
    }

    /// Reads one message, if there is one.
    pub fn read(&mut self) -> bool {
        let some = self.hold().is_some();
        self.reader.done();
        some
    }

    /// At rest: reads on to the end; every number was seen or missed, in order. Returns the values seen.
    pub fn account(mut self) -> (Vec<u64>, u64) {
        while self.read() {}
        let numbers = self.world.topic().next().0 - self.start.0;
        let missed = self.reader.missed();
        assert_eq!(self.seen.len() as u64 + missed, numbers, "numbers unaccounted for");
        assert!(self.seen.is_sorted_by(|one, two| one.0 < two.0), "{:?}", self.seen);
        (self.seen.iter().map(|&(_, value)| value).collect(), missed)
    }

    /// At rest, after all was read: sees just these messages, in any order, and misses none.
    pub fn assert_saw(self, mut posted: Vec<u64>) {
        let (mut seen, missed) = self.account();
        seen.sort_unstable();
        posted.sort_unstable();
        assert_eq!((seen, missed), (posted, 0));
    }
}

/// Plays `body` on a thread of its own.
pub fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> thread::JoinHandle<T> {
    thread::spawn(body)
}
