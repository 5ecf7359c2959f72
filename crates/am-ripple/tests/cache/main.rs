//! The model check of what thread caches do to words: parked blocks, runs carved for a cache, and
//! flushes, beside living threads and after deaths.
//!
//! Part of `cargo xtask model`; its deliberate defects are part of `cargo xtask model --mutants`.
#![cfg(loom)]

mod alive;
mod death;
#[path = "../harness/mod.rs"]
mod harness;
mod unshared;
#[path = "../world/mod.rs"]
mod world;

use am_layout::State;
use am_layout::mutation::Mutation;
use am_ripple::{Carved, Lane, Want, give_back_parked, park, park_allocated, unpark};
use harness::death::{DEAD, DEAD_LANE, LIVING, LIVING_LANE, OTHER, OTHER_LANE};
use harness::{Arena, Body, all_noticed, body};

/// One thread's cache: its lane, its participant, and the blocks it has parked.
#[derive(Debug)]
struct Cache {
    lane: usize,
    owner: u32,
    parked: Vec<Carved>,
}

impl Cache {
    fn new(lane: usize, owner: u32) -> Self {
        Self { lane, owner, parked: Vec::new() }
    }

    /// Of a world without participants.
    fn plain() -> Self {
        Self::new(0, 0)
    }

    fn dead() -> Self {
        Self::new(DEAD_LANE, DEAD)
    }

    fn living() -> Self {
        Self::new(LIVING_LANE, LIVING)
    }

    fn other() -> Self {
        Self::new(OTHER_LANE, OTHER)
    }

    fn lane<'a>(&self, arena: &'a Arena) -> Lane<'a> {
        if self.owner == 0 { Lane::new() } else { arena.world.lane(self.lane, self.owner) }
    }

    /// Writes the payload; that of the dead is left alone, as `Arena::die` says.
    fn own(&self, arena: &Arena, block: Carved) {
        if self.owner != DEAD {
            arena.own(block);
        }
    }

    /// Carves a run of blocks; tells whether there was one.
    fn refill(&mut self, arena: &Arena, piece: u32, pieces: u32) -> bool {
        let (sector, lane) = (arena.world.sector_of(self.owner), self.lane(arena));
        let Some(run) = sector.carve(&lane, &Want::cached(piece, pieces)) else { return false };
        assert_eq!(run.len, piece * pieces);
        self.own(arena, run);
        for number in 0..pieces {
            self.parked.push(Carved { head: run.head + number * piece, len: piece });
        }
        true
    }

    /// As [`refill`](Self::refill) at setup, where it cannot fail.
    fn full(mut self, arena: &Arena, piece: u32, pieces: u32) -> Self {
        assert!(self.refill(arena, piece, pieces), "setup fits");
        self
    }

    fn park(&mut self, arena: &Arena, block: Carved) {
        self.own(arena, block);
        assert!(park(&arena.world.sector_of(self.owner), block.head, block.len, || ()));
        self.parked.push(block);
    }

    /// Parks a block that no guard owns; tells whether nobody was faster.
    fn park_allocated(&mut self, arena: &Arena, block: Carved) -> bool {
        let (sector, lane) = (arena.world.sector_of(self.owner), self.lane(arena));
        let parked = park_allocated(&sector, &lane, block.head, block.len).is_ok();
        if parked {
            self.own(arena, block);
            self.parked.push(block);
        }
        parked
    }

    /// Hands the block out that was parked last.
    fn unpark(&mut self, arena: &Arena, to: State) -> Carved {
        let block = self.parked.pop().expect("something is parked");
        self.own(arena, block);
        assert!(unpark(&arena.world.sector_of(self.owner), block.head, block.len, to, 0));
        block
    }

    /// Gives everything back that is parked.
    fn flush(&mut self, arena: &Arena) {
        self.parked.iter().for_each(|&block| self.own(arena, block));
        let mut heads: Vec<u32> = self.parked.drain(..).map(|block| block.head).collect();
        heads.sort_unstable();
        let (sector, lane) = (arena.world.sector_of(self.owner), self.lane(arena));
        assert_eq!(give_back_parked(&sector, &lane, &heads), 0);
    }
}

/// Flushes a full cache.
fn flush(mut cache: Cache) -> Body<()> {
    body(move |a: &Arena| cache.flush(a))
}

/// Everything in use goes back, and one free block is left.
fn give_all_back(arena: &Arena, caches: impl IntoIterator<Item = Cache>, raw: Option<Carved>) {
    let caches: Vec<Cache> = caches.into_iter().collect();
    let parked = caches.iter().flat_map(|cache| &cache.parked).copied();
    arena.world.assert_sound(&parked.chain(raw).collect::<Vec<_>>());
    caches.into_iter().for_each(|mut cache| cache.flush(arena));
    raw.into_iter().for_each(|block| arena.free(block));
    arena.world.assert_whole();
}

/// Every defect of the caches must make at least one model fail.
#[test]
#[ignore = "minutes; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::CACHE);
}
