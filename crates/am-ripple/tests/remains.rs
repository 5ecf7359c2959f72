//! What several dead leave at once, and what they leave in the index.
#![cfg(not(loom))]

mod world;

use am_layout::roster::RECOVERER;
use am_layout::{INTERIOR, State, Word, head};
use am_ripple::{
    Carved, Found, Lane, Recoverer, Sector, Want, ack, allocate, give_back_parked, split,
};
use am_tlsf::{CHUNK_SHIFT, Cell, IndexShape};
use std::time::{Duration, Instant};
use world::World;

const DEAD: u32 = 1;
const LIVING: u32 = 2;
const RECOVERY_LANE: usize = 0;

fn is_dead(owner: u32) -> bool {
    owner == DEAD || owner == RECOVERER
}

fn recover(world: &World) -> Vec<Found> {
    let mut all = Vec::new();
    let (sector, lane) = (world.sector(), world.lane(RECOVERY_LANE, RECOVERER));
    let recoverer = Recoverer::new(&sector, &lane, world.roster(), 0, is_dead);
    recoverer.recover(|found| all.push(found));
    all
}

/// One died after it told of a range that another was faster to take; that other died having split it.
#[test]
fn split_by_one_dead_under_the_intent_of_another_goes_back_once() {
    let world = World::shared(120);
    let sector = world.sector_of(DEAD);
    let right = world.must(20);
    let (slow, fast) = (world.lane(10, DEAD), world.lane(11, DEAD));
    slow.begin(90, 100);
    let run = allocate(&sector, &fast, &Want::held(40)).unwrap();
    assert_eq!((run.head, right.head), (60, 100));
    assert_eq!(split(&sector, &fast, run.head, 10), Ok(4));
    fast.begin(70, 100);
    let living = world.lane(12, LIVING);
    let freed = ack(&world.sector_of(LIVING), &living, right.head, State::Allocated);
    assert_eq!(freed, Ok(20));
    let found = recover(&world);
    assert!(!found.iter().any(|f| matches!(f, Found::Deferred { .. })), "{found:?}");
    world.assert_whole();
}

/// The dead set a leaf's bit and died before the bits above; the block was used up meanwhile.
#[test]
fn bit_without_its_parents_is_led_to_after_a_recovery() {
    let granules = 4096; // two levels of tree
    let world = World::shared(granules);
    let (sector, lane) = (world.sector_of(LIVING), world.lane(12, LIVING));
    let blocks = [0; 3].map(|_| allocate(&sector, &lane, &Want::allocated(5)).unwrap());
    let (cell, chunk) = (Cell::of(5), blocks[1].head >> CHUNK_SHIFT);
    leaf(&world, granules, cell, chunk).fetch_or_full(1 << (chunk % 32));
    recover(&world);
    ack(&sector, &lane, blocks[1].head, State::Allocated).unwrap();
    assert!(sector.index().reaches(cell, chunk), "a free block that no hint leads to");
}

/// The dead had parked runs and was flushing; a living cache's blocks lie between and stay.
#[test]
fn cache_of_a_dead_thread_goes_back_and_a_living_one_stays() {
    let world = World::shared(200);
    let (dead, living) = (world.sector_of(DEAD), world.sector_of(LIVING));
    let (dead_lane, living_lane) = (world.lane(10, DEAD), world.lane(11, LIVING));
    let run = |sector: &Sector<'_, _>, lane: &Lane<'_>| {
        sector.carve(lane, &Want::cached(3, 5)).expect("a run fits")
    };
    let runs = [0; 4].map(|_| (run(&dead, &dead_lane), run(&living, &living_lane)));
    // In the midst of a flush of the first run: two blocks of five are in limbo, as one range.
    let [(flushed, _), ..] = runs;
    dead_lane.begin(flushed.head, flushed.head + 6);
    world.words[flushed.head as usize].store(head(State::Acked, 3));
    world.words[flushed.head as usize + 3].store(INTERIOR);
    let found = recover(&world);
    let cached = found.iter().filter(|found| matches!(found, Found::Cached { len: 3, .. }));
    assert_eq!(cached.count(), 4 * 5 - 2, "{found:?}");
    let kept = |(_, run): (Carved, Carved)| (0..5).map(move |n| run.head + 3 * n);
    let mut heads: Vec<u32> = runs.into_iter().flat_map(kept).collect();
    world.assert_sound(&heads.iter().map(|&head| Carved { head, len: 3 }).collect::<Vec<_>>());
    heads.sort_unstable();
    assert_eq!(give_back_parked(&living, &living_lane, &heads), 0);
    world.assert_whole();
}

fn leaf(world: &World, granules: u32, cell: Cell, chunk: u32) -> &Word {
    let cells = u64::from(Cell::of(granules).number()) + 1;
    let tree_words = 16; // 128 chunks: 4 words of leaves, a root, padding
    let trees_at = IndexShape::new(granules).words() - cells * tree_words;
    &world.bits[(trees_at + u64::from(cell.number()) * tree_words) as usize + chunk as usize / 32]
}

/// Many pieces in one range that looked like a single block at first: time grows with their number,
/// not with its square.
#[test]
fn range_of_many_pieces_is_recovered_in_proportion() {
    let time = |granules: u32| {
        let world = World::shared(granules);
        for granule in (1..granules).step_by(2) {
            world.words[granule as usize].store(head(State::Acked, 1));
            world.words[granule as usize - 1].store(head(State::Allocated, 1));
        }
        world.lane(10, DEAD).begin(0, granules);
        let begin = Instant::now();
        assert_eq!(recover(&world).len(), granules as usize / 2);
        begin.elapsed()
    };
    time(1 << 10);
    let (some, many) = (time(1 << 13), time(1 << 16));
    assert!(many < some * 64 + Duration::from_millis(100), "{some:?}, eight times: {many:?}");
}
