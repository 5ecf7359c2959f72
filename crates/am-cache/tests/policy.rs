//! What a cache keeps, and when it lets go.
#![cfg(not(loom))]

use am_cache::{Cache, share};
use am_layout::{CONTROL_WORDS, Seen, State, Word};
use am_ripple::{Headers, Lane, Sector, Want, allocate, format};
use am_tlsf::{Index, IndexShape};
use std::cell::RefCell;

const GRANULES: u32 = 1 << 16;
const LEN_MAX: u32 = 64;
const LIMIT: u32 = 1024;
const MOST: u32 = GRANULES / 8;

struct Lefts(RefCell<Vec<u32>>);

impl Headers for Lefts {
    fn left(&self, head: u32) -> Option<u32> {
        Some(self.0.borrow()[head as usize])
    }
    fn set_left(&self, head: u32, left: u32) {
        self.0.borrow_mut()[head as usize] = left;
    }
}

/// Words of a sector, and what one thread has in it.
struct World {
    words: Vec<Word>,
    index: Vec<Word>,
    control: Vec<Word>,
}

impl World {
    fn new() -> Self {
        let words = |count: u64| (0..count).map(|_| Word::new(0)).collect();
        Self {
            words: words(GRANULES.into()),
            index: words(IndexShape::new(GRANULES).words()),
            control: words(CONTROL_WORDS as u64),
        }
    }

    fn sector(&self) -> Sector<'_, Lefts> {
        let index = Index::new(IndexShape::new(GRANULES), &self.index).unwrap();
        let lefts = Lefts(RefCell::new(vec![0; GRANULES as usize]));
        Sector::new(&self.words, index, &self.control, lefts).unwrap()
    }
}

/// A sector, a lane and a cache of one thread.
struct Thread<'w> {
    sector: Sector<'w, Lefts>,
    lane: Lane<'w>,
    cache: Cache,
}

impl<'w> Thread<'w> {
    fn new(world: &'w World) -> Self {
        let thread = Self::another(world, LIMIT);
        format(&thread.sector, &thread.lane);
        thread
    }

    /// A thread in a world that another one has formatted.
    fn another(world: &'w World, limit: u32) -> Self {
        Self { sector: world.sector(), lane: Lane::new(), cache: Cache::new(LEN_MAX, limit) }
    }

    fn get(&mut self, len: u32) -> u32 {
        if let Some(at) = self.cache.take(&self.sector, len, State::Held, 0) {
            return at;
        }
        self.cache.refill(&self.sector, &self.lane, len, || MOST);
        match self.cache.take(&self.sector, len, State::Held, 0) {
            Some(at) => at,
            None => allocate(&self.sector, &self.lane, &Want::held(len)).unwrap().head,
        }
    }

    fn put(&mut self, at: u32, len: u32) {
        self.cache.put(&self.sector, &self.lane, at, len).unwrap();
        if !self.cache.has_room(&self.sector, 0) {
            self.cache.relieve(&self.sector, &self.lane, MOST);
        }
    }

    /// Granules in blocks whose words say that they are parked.
    fn cached(&self) -> u32 {
        let cached = |run: am_tlsf::Run| match run.seen {
            Seen::Head(State::Cached, len) => len,
            _ => 0,
        };
        self.sector.runs().map(cached).sum()
    }

    fn assert_whole(mut self) {
        self.cache.give_back(&self.sector, &self.lane);
        assert_eq!(self.cache.parked(), 0);
        assert_eq!(self.sector.free_at(0), Some(GRANULES));
    }
}

#[test]
fn refill_of_a_length_asks_for_twice_as_many_each_time() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    thread.cache = Cache::new(LEN_MAX, MOST);
    let mut blocks = Vec::new();
    let mut parked = Vec::new();
    while parked.len() < 8 {
        let empty = thread.cache.parked() == 0;
        blocks.push(thread.get(20));
        if empty {
            parked.push(thread.cache.parked() / 20 + 1);
        }
    }
    assert_eq!(parked, [1, 2, 4, 8, 16, 32, 64, 64]);
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 1 + 2 + 4 + 8 + 16 + 32 + 64 + 1);
    blocks.into_iter().for_each(|at| thread.put(at, 20));
    thread.assert_whole();
}

#[test]
fn short_blocks_of_two_caches_share_no_line_of_words() {
    let world = World::new();
    let mut one = Thread::new(&world);
    let mut two = Thread::another(&world, LIMIT);
    let mut lines = [Vec::new(), Vec::new()];
    let mut blocks = [Vec::new(), Vec::new()];
    for turn in 0..400 {
        let len = 2 + turn * 7 % 14;
        for (number, thread) in [&mut one, &mut two].into_iter().enumerate() {
            let at = thread.get(len);
            lines[number].push(at / 16);
            blocks[number].push((at, len));
        }
    }
    assert!(lines[0].iter().all(|line| !lines[1].contains(line)));
    blocks[0].drain(..).for_each(|(at, len)| one.put(at, len));
    blocks[1].drain(..).for_each(|(at, len)| two.put(at, len));
    two.cache.give_back(&two.sector, &two.lane);
    one.assert_whole();
}

#[test]
fn refill_never_takes_more_than_a_quarter_of_the_limit() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let blocks: Vec<u32> = (0..5).map(|_| thread.get(50)).collect();
    assert!(thread.cache.parked() > 0 && thread.cache.parked() <= LIMIT / 4);
    blocks.into_iter().for_each(|at| thread.put(at, 50));
    thread.assert_whole();
}

#[test]
fn cache_that_only_takes_asks_for_longer_runs_up_to_its_share() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let lens = [7, 19, 30, 45, 60];
    let mut blocks = Vec::new();
    let mut most = 0;
    for turn in 0..700 {
        let len = lens[turn % lens.len()];
        blocks.push((thread.get(len), len));
        most = most.max(thread.cache.parked());
        assert!(thread.cache.parked() <= MOST);
    }
    assert!(most > 2 * LIMIT, "{most}");
    blocks.into_iter().for_each(|(at, len)| thread.put(at, len));
    thread.assert_whole();
}

#[test]
fn blocks_of_one_run_come_out_from_left_to_right() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    thread.cache = Cache::new(LEN_MAX, MOST);
    let blocks: Vec<u32> = (0..63).map(|_| thread.get(20)).collect();
    // Six refills, of 1, 2, 4, … blocks; each run lies before the last one.
    assert!(blocks[31..63].windows(2).all(|two| two[1] == two[0] + 20), "{blocks:?}");
    blocks.into_iter().for_each(|at| thread.put(at, 20));
    thread.assert_whole();
}

#[test]
fn cache_that_is_only_put_to_stays_at_its_first_limit() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let blocks: Vec<u32> = (0..5000)
        .map(|_| allocate(&thread.sector, &thread.lane, &Want::held(4)).unwrap().head)
        .collect();
    for at in blocks {
        thread.put(at, 4);
        assert!(thread.cache.parked() <= LIMIT);
    }
    thread.assert_whole();
}

#[test]
fn cache_that_misses_what_it_gave_back_keeps_more_the_next_time() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let lens = |turn: u32| 1 + turn * 7 % LEN_MAX;
    let mut most = Vec::new();
    for _ in 0..8 {
        let blocks: Vec<(u32, u32)> =
            (0..200).map(|turn| (thread.get(lens(turn)), lens(turn))).collect();
        blocks.into_iter().for_each(|(at, len)| thread.put(at, len));
        most.push(thread.cache.parked());
    }
    assert!(most[0] <= 4 * LIMIT && most[7] > 2 * most[0], "{most:?}");
    assert_eq!(thread.cached(), thread.cache.parked());
    thread.assert_whole();
}

#[test]
fn cache_never_keeps_more_than_its_share() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    for _ in 0..20 {
        let blocks: Vec<u32> = (0..1000).map(|_| thread.get(60)).collect();
        for at in blocks {
            thread.put(at, 60);
            assert!(thread.cache.parked() <= MOST);
        }
    }
    thread.assert_whole();
}

#[test]
fn share_is_of_a_quarter_or_of_what_is_free_and_half_at_most() {
    assert_eq!(share(8000, 0, 4), 500); // nothing known to be free: a quarter, by four
    assert_eq!(share(8000, 900, 4), 500); // less than that
    assert_eq!(share(8000, 4000, 4), 2000);
    assert_eq!(share(8000, 8000, 1), 4000);
    assert_eq!(share(8000, u32::MAX, 0), 4000);
}

#[test]
fn longest_hint_tells_a_block_as_long_as_any_or_nothing() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    assert_eq!(thread.sector.longest_hint(), GRANULES);
    let want = Want::held(GRANULES - 100);
    let block = allocate(&thread.sector, &thread.lane, &want).unwrap().head;
    assert_eq!(thread.sector.longest_hint(), 100); // though the bits above the old one's leaf are stale
    let rest = allocate(&thread.sector, &thread.lane, &Want::held(100)).unwrap().head;
    assert_eq!(thread.sector.longest_hint(), 0);
    thread.put(rest, 100);
    thread.put(block, GRANULES - 100);
    thread.assert_whole();
}

#[test]
fn cache_under_pressure_gives_everything_back_at_once() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let kept = thread.get(5);
    let blocks: Vec<u32> = (0..100).map(|_| thread.get(5)).collect();
    blocks.into_iter().for_each(|at| thread.put(at, 5));
    assert!(thread.cache.parked() > 0);
    thread.sector.press();
    thread.put(kept, 5);
    assert_eq!(thread.cache.parked(), 0);
    assert_eq!(thread.sector.free_at(0), Some(GRANULES));
}

#[test]
fn block_too_long_for_the_magazines_goes_straight_back() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let len = LEN_MAX + 1;
    let at = thread.get(len);
    assert_eq!(thread.cache.put(&thread.sector, &thread.lane, at, len), Ok(false));
    assert_eq!(thread.sector.free_at(0), Some(GRANULES));
}

#[test]
fn block_that_somebody_scribbled_on_is_neither_parked_nor_handed_out() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let (first, second) = (thread.get(4), thread.get(4));
    world.words[first as usize].store(7);
    assert!(thread.cache.put(&thread.sector, &thread.lane, first, 4).is_err());
    assert!(!thread.cache.park(&thread.sector, first, 4));
    thread.put(second, 4);
    world.words[second as usize].store(7);
    while let Some(at) = thread.cache.take(&thread.sector, 4, State::Held, 0) {
        assert_ne!(at, second);
    }
    thread.cache.give_back(&thread.sector, &thread.lane);
}

#[test]
fn raw_block_put_twice_is_refused_the_second_time() {
    let world = World::new();
    let mut thread = Thread::new(&world);
    let at = allocate(&thread.sector, &thread.lane, &Want::allocated(3)).unwrap().head;
    let Thread { sector, lane, cache } = &mut thread;
    assert_eq!(cache.put_allocated(sector, lane, at), Ok(true));
    let wrong = cache.put_allocated(sector, lane, at).unwrap_err();
    assert_eq!(wrong.seen, Seen::Head(State::Cached, 3));
    assert!(cache.put_unshared(sector, lane, at).is_err());
    assert!(cache.put_allocated(sector, lane, u32::MAX).is_err());
    thread.assert_whole();
}

/// Headers that remember what a block's word said when its note was written.
struct Noting<'w> {
    lefts: Lefts,
    words: &'w [Word],
    seen: RefCell<Vec<Seen>>,
}

impl Headers for Noting<'_> {
    fn left(&self, head: u32) -> Option<u32> {
        self.lefts.left(head)
    }
    fn set_left(&self, head: u32, left: u32) {
        self.lefts.set_left(head, left);
    }
    fn set_note(&self, head: u32, note: u64) {
        if note == 77 {
            self.seen.borrow_mut().push(Seen::decode(self.words[head as usize].load()));
        }
    }
}

/// Once the word says allocated, whoever guesses the offset may free the block.
#[test]
fn raw_block_is_noted_while_it_is_still_parked() {
    let world = World::new();
    let headers = Noting {
        lefts: Lefts(RefCell::new(vec![0; GRANULES as usize])),
        words: &world.words,
        seen: RefCell::default(),
    };
    let index = Index::new(IndexShape::new(GRANULES), &world.index).unwrap();
    let sector = Sector::new(&world.words, index, &world.control, headers).unwrap();
    let (lane, mut cache) = (Lane::new(), Cache::new(LEN_MAX, LIMIT));
    format(&sector, &lane);
    cache.refill(&sector, &lane, 3, || MOST);
    let at = cache.take(&sector, 3, State::Allocated, 77).unwrap();
    assert_eq!(*sector.headers.seen.borrow(), [Seen::Head(State::Cached, 3)]);
    assert_eq!(sector.seen_at(at), Seen::Head(State::Allocated, 3));
}
