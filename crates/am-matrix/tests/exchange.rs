//! A full sector whose threads exchange one block for another: what is free is never overlooked.
//!
//! Each thread owns a share of the sector, in blocks of one size; it frees one and allocates one,
//! over and over. So a block that fits is free or on its way at every moment of a search, and
//! `Exhausted` would be a lie. `Contended` asks for another try. By handles without thread caches, but for
//! one test: what a cache keeps is free to its own thread alone.

mod common;
#[path = "../../am-ripple/tests/world/mod.rs"]
mod world;

use am_layout::{Event, State};
use am_matrix::{Block, Error, Matrix};
use am_ripple::{Carved, Headers, Lane, NoBlock, Others, Sector, ack, allocate, allocate_beside};
use common::{Random, assert_whole, direct, fill, on_threads, small_sector, soak};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use world::{Lefts, World, want};

const THREADS: usize = 8;

/// Returns how often a thread was told `Contended`.
fn exchange_one_for_one(matrix: &Matrix, bytes: usize, turns: usize) -> u64 {
    let mut full = fill(matrix, bytes);
    let capacity = full.len();
    assert!(capacity >= THREADS, "{capacity} blocks are too few");
    assert!(matches!(matrix.allocate(bytes), Err(Error::Exhausted { .. })));
    let contended = AtomicU64::new(0);
    let lied = AtomicBool::new(false);
    let start = Barrier::new(THREADS);
    let shares = (0..THREADS).map(|thread| {
        let share = capacity / THREADS + usize::from(thread < capacity % THREADS);
        Mutex::new(full.drain(..share).collect())
    });
    let shares: Vec<Mutex<Vec<Block<'_>>>> = shares.collect();
    assert!(full.is_empty());
    on_threads(THREADS, |thread| {
        let mut mine = std::mem::take(&mut *shares[thread].lock().expect("one thread's"));
        let mut random = Random(thread as u64 + 1);
        start.wait();
        for turn in 0..turns * soak() {
            if lied.load(Relaxed) {
                return;
            }
            drop(mine.swap_remove(random.below(mine.len())));
            let block = loop {
                match matrix.allocate(bytes) {
                    Ok(block) => break block,
                    Err(Error::Contended { .. }) => contended.fetch_add(1, Relaxed),
                    Err(error) => {
                        lied.store(true, Relaxed);
                        panic!("turn {turn} of thread {thread}: {error}");
                    }
                };
            };
            mine.push(block);
        }
    });
    assert_whole(matrix);
    contended.into_inner()
}

#[test]
fn exchange_in_a_full_sector_of_the_shortest_blocks_is_never_exhausted() {
    for blocks in [8, 64, 1000] {
        // A header alone is a granule, so the shortest block has two.
        let contended = exchange_one_for_one(&small_sector(2 * blocks), 1, 20_000);
        println!("{blocks} blocks of 2 granules: contended={contended}");
    }
}

#[test]
fn exchange_in_a_full_sector_of_longer_blocks_is_never_exhausted() {
    for granules in [3, 7, 16, 32] {
        let matrix = small_sector(granules * 16);
        let contended = exchange_one_for_one(&matrix, granules as usize * 32 - 32, 10_000);
        println!("16 blocks of {granules} granules: contended={contended}");
    }
}

/// Blocks of a length that is not the shortest of its size class: the hints, which lead to classes
/// that hold only long enough blocks, do not lead to them. So every allocation is a walk.
#[test]
fn exchange_in_a_full_sector_of_odd_lengths_is_never_exhausted() {
    for (blocks, granules, turns) in [(16, 17, 10_000), (16, 100, 10_000), (300, 17, 3_000)] {
        let matrix = small_sector(granules * blocks);
        let contended = exchange_one_for_one(&matrix, granules as usize * 32 - 32, turns);
        println!("{blocks} blocks of {granules} granules: contended={contended}");
    }
}

#[test]
fn exchange_in_a_full_large_sector_is_never_exhausted() {
    let matrix = direct(1 << 20, 0, 0);
    println!("contended={}", exchange_one_for_one(&matrix, 5000, 20_000));
}

/// What a thread frees it finds in its own cache, whatever the others keep in theirs.
#[test]
fn exchange_by_way_of_thread_caches_in_a_full_sector_is_never_exhausted() {
    for granules in [2, 3, 17] {
        let matrix = small_sector(granules * 64).with_thread_caches(true);
        let contended = exchange_one_for_one(&matrix, granules as usize * 32 - 32, 10_000);
        println!("64 blocks of {granules} granules, cached: contended={contended}");
    }
}

/// Headers that now and then let another thread run in the middle of an operation.
#[derive(Clone, Copy)]
struct Jitter<'a>(Lefts<'a>, &'a RefCell<Random>);

impl Jitter<'_> {
    fn jolt(&self) {
        if self.1.borrow_mut().below(4) == 0 {
            std::thread::yield_now();
        }
    }
}

impl Headers for Jitter<'_> {
    fn left(&self, head: u32) -> Option<u32> {
        self.jolt();
        self.0.left(head)
    }

    fn set_left(&self, head: u32, left: u32) {
        self.jolt();
        self.0.set_left(head, left);
    }
}

/// The same on a bare sector, without the lanes' memory, and with threads that stop between two
/// stores of an operation: most searches meet blocks in flight.
#[test]
fn exchange_among_threads_that_stop_half_way_is_never_exhausted() {
    exchange_half_way(World::new, |world, mine, len, seed| {
        let lane = Lane::new();
        exchange_share(world, mine, seed, &lane, |sector| {
            allocate(sector, &Lane::new(), &want(len))
        });
    });
}

/// The same with proofs, which must hear of whatever moves meanwhile.
#[test]
fn exchange_among_threads_that_stop_half_way_is_never_proven_exhausted() {
    exchange_half_way(World::shared, |world, mine, len, seed| {
        let lane = world.lane(seed as usize, seed as u32);
        let others = Others::new(world.roster(), 0);
        exchange_share(world, mine, seed, &lane, |sector| {
            allocate_beside(sector, &lane, &want(len), &others)
        });
    });
}

type Exchange = fn(&World, &mut [Carved], u32, u64);

/// Has `exchange` run by each thread on its share, in worlds made by `make`.
fn exchange_half_way(make: fn(u32) -> World, exchange: Exchange) {
    for (blocks_each, len) in [(1, 1), (2, 1), (4, 3), (4, 40), (40, 40)] {
        let world = make(THREADS as u32 * blocks_each * len);
        let mut shares: Vec<Vec<Carved>> =
            (0..THREADS).map(|_| (0..blocks_each).map(|_| world.must(len)).collect()).collect();
        std::thread::scope(|scope| {
            for (thread, mine) in shares.iter_mut().enumerate() {
                let world = &world;
                scope.spawn(move || exchange(world, mine, len, thread as u64 + 1));
            }
        });
        let live: Vec<Carved> = shares.into_iter().flatten().collect();
        world.assert_sound(&live);
        live.iter().for_each(|block| {
            ack(&world.sector(), &Lane::new(), block.head, State::Allocated).expect("allocated");
        });
        world.assert_whole();
        let told = [Event::Contended, Event::SlowWalk];
        let told = told.map(|event| world.counter(event));
        println!("{blocks_each} blocks each of {len} granules: [contended, walks]={told:?}");
    }
}

fn exchange_share(
    world: &World,
    mine: &mut [Carved],
    seed: u64,
    lane: &Lane<'_>,
    allocate: impl Fn(&Sector<'_, Jitter<'_>>) -> Result<Carved, NoBlock>,
) {
    let (random, pick) = (RefCell::new(Random(seed)), &mut Random(seed));
    let sector = world.sector_with(Jitter(world.headers(), &random));
    for _ in 0..3_000 * soak() {
        let slot = pick.below(mine.len());
        ack(&sector, lane, mine[slot].head, State::Allocated).expect("allocated");
        mine[slot] = loop {
            match allocate(&sector) {
                Ok(block) => break block,
                Err(NoBlock::Contended { .. }) => {}
                Err(no) => panic!("{no}"),
            }
        };
    }
}
