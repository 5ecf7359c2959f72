//! Caches and recoverers: threads that die with a cache, and suspects that living caches deal with.

use crate::harness::death::{
    DEAD, DEAD_LANE, LIVING, LIVING_LANE, OTHER, OTHER_LANE, arena, for_every_death,
};
use crate::harness::{Arena, bodies, body, check, race};
use crate::{Cache, flush, give_all_back};
use am_layout::State;
use am_ripple::{Carved, Headers, Want, allocate, take};
use am_tlsf::{CHUNK_SHIFT, Cell};
use loom::sync::Arc;

/// The dead died anywhere in the life of a cache: refill, hand out, park, flush.
fn death_in_the_life_of_a_cache(granules: u32, piece: u32, pieces: u32) {
    for_every_death(
        0,
        move |arena, writes| {
            arena.die(writes, |a| {
                let mut cache = Cache::dead().full(a, piece, pieces);
                let block = cache.unpark(a, State::Held);
                cache.park(a, block);
                cache.flush(a);
            })
        },
        move |die| {
            let arena = arena(granules);
            die(&arena);
            arena.assert_recovered(&[]);
            arena.world.assert_whole();
        },
    );
}

#[test]
fn thread_that_dies_in_the_life_of_a_cache_carved_from_an_end_loses_nothing() {
    death_in_the_life_of_a_cache(4, 1, 3);
    death_in_the_life_of_a_cache(5, 2, 2);
}

#[test]
fn thread_that_dies_in_the_life_of_a_cache_that_fits_exactly_loses_nothing() {
    death_in_the_life_of_a_cache(3, 1, 3);
    death_in_the_life_of_a_cache(4, 2, 2);
}

/// `[left][0][1][right]`, all in use, the outer ones by the living.
struct Row {
    left: Carved,
    inner: [Carved; 2],
    right: Carved,
}

const ROW: Row = {
    const fn one(head: u32) -> Carved {
        Carved { head, len: 1 }
    }
    Row { left: one(0), inner: [one(1), one(2)], right: one(3) }
};

/// Makes a row whose inner blocks are the dead's cache's.
fn row() -> (Arc<Arena>, Cache) {
    let arena = Arc::new(arena(4));
    assert_eq!(arena.get(LIVING_LANE, LIVING, &Want::held(1)), Some(ROW.right));
    let mut cache = Cache::dead().full(&arena, 1, 2);
    cache.parked.sort_by_key(|block| block.head);
    assert_eq!(cache.parked, ROW.inner);
    assert_eq!(arena.get(LIVING_LANE, LIVING, &Want::held(1)), Some(ROW.left));
    (arena, cache)
}

/// Recovers while the living free the block to the right of what the dead had in hand.
fn beside_a_free_of_the_right_one(arena: &Arc<Arena>) {
    race(
        arena,
        bodies![|a: &Arena| a.collect(), |a: &Arena| a.put(
            LIVING_LANE,
            LIVING,
            ROW.right,
            State::Held
        )],
    );
    arena.assert_recovered(&[ROW.left]);
    arena.put(LIVING_LANE, LIVING, ROW.left, State::Held);
    arena.world.assert_whole();
}

/// The dead died flushing a run.
#[test]
fn death_in_a_flush_beside_a_free_of_the_neighbour_loses_nothing() {
    for_every_death(
        1,
        |arena, writes| {
            arena.die(writes, |a| {
                Cache { parked: ROW.inner.into(), ..Cache::dead() }.flush(a);
            })
        },
        |die| {
            let (arena, _) = row();
            die(&arena);
            beside_a_free_of_the_right_one(&arena);
        },
    );
}

/// The dead died cutting a free block of just that length.
#[test]
fn death_in_an_exact_refill_beside_a_free_of_the_neighbour_loses_nothing() {
    for_every_death(
        1,
        |arena, writes| {
            arena.die(writes, |a| {
                Cache::dead().refill(a, 1, 2);
            })
        },
        |die| {
            let (arena, mut cache) = row();
            cache.flush(&arena);
            die(&arena);
            beside_a_free_of_the_right_one(&arena);
        },
    );
}

/// The dead died parking a block whose offset a living thread knows too.
#[test]
fn death_in_parking_an_offset_beside_its_taker_loses_nothing() {
    for_every_death(
        2,
        |arena, writes| {
            arena.die(writes, |a| {
                Cache::dead().park_allocated(a, Carved { head: 1, len: 1 });
            })
        },
        |die| {
            let arena = Arc::new(arena(2));
            let block = arena.get(LIVING_LANE, LIVING, &Want::allocated(1)).expect("fits");
            let died = die(&arena);
            let taken = race(
                &arena,
                bodies![
                    |a: &Arena| {
                        a.recover();
                        false
                    },
                    move |a: &Arena| {
                        let lane = a.world.lane(LIVING_LANE, LIVING);
                        let taken = take(&a.world.sector_of(LIVING), &lane, block.head).is_ok();
                        if taken {
                            a.own(block);
                        }
                        taken
                    }
                ],
            );
            assert!(died || !taken[1], "taken, though it was parked");
            let live = if taken[1] { vec![block] } else { vec![] };
            arena.assert_recovered(&live);
            live.into_iter().for_each(|block| arena.put(LIVING_LANE, LIVING, block, State::Held));
            arena.world.assert_whole();
        },
    );
}

/// A block that looked like limbo a moment ago, flushed by the living: it flows left.
#[test]
fn suspect_that_a_living_cache_flushes_is_not_nobodys() {
    check(2, || {
        let arena = Arc::new(arena(2));
        let cache = Cache::living().full(&arena, 1, 1); // [free][parked]
        judge_beside_a_flush(&arena, 1, cache);
        arena.assert_recovered(&[]);
        arena.world.assert_whole();
    });
}

/// The same for a granule inside a run: it has no head, so no exchange of the recoverer's would fail.
///
/// Behind a block in use, and with its hint there already, the run is published without any barrier but
/// the one that E11 counts on.
#[test]
fn suspect_that_a_living_cache_flushes_in_a_run_is_not_nobodys() {
    check(2, || {
        let arena = Arc::new(arena(3));
        let cache = Cache::living().full(&arena, 1, 2);
        let left = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits"); // [left][run 2]
        arena.world.sector().index().set(Cell::of(2), 1 >> CHUNK_SHIFT);
        judge_beside_a_flush(&arena, 2, cache);
        arena.assert_recovered(&[left]);
        arena.put(LIVING_LANE, LIVING, left, State::Held);
        arena.world.assert_whole();
    });
}

fn judge_beside_a_flush(arena: &Arc<Arena>, at: u32, cache: Cache) {
    let judge = body(move |a: &Arena| {
        a.recover_by(|recoverer, found| recoverer.judge(at, 1, found));
    });
    race(arena, vec![judge, flush(cache)]);
}

/// The dead told of a run and died before the exchange; a living cache flushes it, and `then` does
/// something with it.
fn range_that_a_living_cache_flushes(bound: usize, then: fn(&Arena) -> Option<Carved>) {
    check(bound, move || {
        let arena = Arc::new(arena(3));
        let mut cache = Cache::living().full(&arena, 1, 2); // [free][run 2]
        arena.world.lane(DEAD_LANE, DEAD).begin(1, 3);
        let got = race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.collect();
                    None
                },
                move |a: &Arena| {
                    cache.flush(a);
                    then(a)
                }
            ],
        );
        let got: Vec<_> = got.into_iter().flatten().collect();
        arena.assert_recovered(&got);
        got.iter().for_each(|&block| arena.put(LIVING_LANE, LIVING, block, State::Held));
        arena.world.assert_whole();
    });
}

#[test]
fn range_that_a_living_cache_flushes_is_not_the_dead_ones() {
    range_that_a_living_cache_flushes(2, |_| None);
}

#[test]
fn range_that_a_living_cache_flushes_and_carves_from_is_not_the_dead_ones() {
    range_that_a_living_cache_flushes(1, |a| a.get(LIVING_LANE, LIVING, &Want::held(1)));
}

/// The same range, carved for a living cache and cut; and flushed again, if it is said so.
fn range_that_a_living_cache_cuts(bound: usize, granules: u32, flushed: bool) {
    check(bound, move || {
        let arena = Arc::new(arena(granules));
        arena.world.lane(DEAD_LANE, DEAD).begin(granules - 2, granules);
        let caches = race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.collect();
                    Cache::dead()
                },
                move |a: &Arena| {
                    let mut cache = Cache::living();
                    if cache.refill(a, 1, 2) && flushed {
                        cache.flush(a);
                    }
                    cache
                }
            ],
        );
        arena.assert_recovered(&caches[1].parked);
        give_all_back(&arena, caches, None);
    });
}

#[test]
fn range_that_a_living_cache_cuts_from_an_end_is_not_the_dead_ones() {
    range_that_a_living_cache_cuts(2, 3, false);
    range_that_a_living_cache_cuts(1, 3, true);
}

#[test]
fn range_that_a_living_cache_cuts_exactly_is_not_the_dead_ones() {
    range_that_a_living_cache_cuts(2, 2, false);
    range_that_a_living_cache_cuts(1, 2, true);
}

/// From one living cache to another by way of the sector, so that at no look both can be seen with
/// it.
#[test]
fn range_that_passes_between_two_living_caches_is_not_the_dead_ones() {
    check(1, || {
        let arena = Arc::new(arena(2));
        let mut first = Cache::living().full(&arena, 1, 1); // [free][parked]
        arena.world.lane(DEAD_LANE, DEAD).begin(1, 2);
        arena.world.lane(OTHER_LANE, OTHER);
        race(
            &arena,
            bodies![|a: &Arena| a.collect(), move |a: &Arena| first.flush(a), |a: &Arena| {
                let mut second = Cache::other();
                if second.refill(a, 1, 2) {
                    second.flush(a);
                }
            },],
        );
        arena.assert_recovered(&[]);
        arena.world.assert_whole();
    });
}

/// What the dead gave away goes through a living thread's cache while the recoverer looks for what
/// the dead held.
#[test]
fn block_that_was_given_by_the_dead_is_the_living_caches() {
    check(2, || {
        let arena = Arc::new(arena(2));
        let lane = arena.world.lane(DEAD_LANE, DEAD);
        let want = Want::allocated(1);
        let block = allocate(&arena.world.sector_of(DEAD), &lane, &want).expect("fits");
        let caches = race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.recover();
                    Cache::dead()
                },
                move |a: &Arena| {
                    let mut cache = Cache::living();
                    assert!(cache.park_allocated(a, block));
                    let block = cache.unpark(a, State::Held);
                    cache.park(a, block);
                    cache
                }
            ],
        );
        arena.assert_recovered(&[block]);
        give_all_back(&arena, caches, None);
    });
}

/// Where the header of a parked block was there is payload by now, and it happens to name the dead:
/// what the recoverer takes for a parked block of theirs is none.
#[test]
fn payload_that_names_the_dead_is_not_the_dead_ones() {
    check(2, || {
        let arena = Arc::new(arena(2));
        let mut cache = Cache::living().full(&arena, 1, 1); // [free][parked]
        let got = race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.recover();
                    None
                },
                move |a: &Arena| {
                    cache.flush(a);
                    let block = a.get(LIVING_LANE, LIVING, &Want::held(2))?;
                    a.world.sector_of(DEAD).headers.mark_owner(1);
                    Some(block)
                }
            ],
        );
        let got: Vec<_> = got.into_iter().flatten().collect();
        arena.assert_recovered(&got);
        got.iter().for_each(|&block| arena.put(LIVING_LANE, LIVING, block, State::Held));
        arena.world.assert_whole();
    });
}
