//! Caches of living threads, at once.

use crate::harness::death::{LIVING, LIVING_LANE, OTHER, OTHER_LANE, arena};
use crate::harness::{Arena, bodies, body, check, race};
use crate::{Cache, flush, give_all_back};
use am_layout::{State, Word};
use am_ripple::{Carved, Headers, Lane, Want, park_unshared, take};
use loom::sync::Arc;

#[test]
fn flush_of_two_neighbours_at_once_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.hold(1), arena.hold(1)); // [free 2][a][b]
        race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let mut cache = Cache::plain();
                    cache.park(w, a);
                    let again = cache.unpark(w, State::Held);
                    cache.park(w, again);
                    cache.flush(w);
                },
                move |w: &Arena| {
                    let mut cache = Cache::plain();
                    cache.park(w, b);
                    cache.flush(w);
                }
            ],
        );
        arena.world.assert_whole();
    });
}

/// Every second block is one thread's, the others are another's.
#[test]
fn flush_of_interleaved_blocks_at_once_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(3));
        let mut even = Cache::plain().full(&arena, 1, 3);
        let odd = even.parked.iter().copied().filter(|block| block.head % 2 == 1).collect();
        even.parked.retain(|block| block.head % 2 == 0);
        race(&arena, vec![flush(even), flush(Cache { parked: odd, ..Cache::plain() })]);
        arena.world.assert_whole();
    });
}

#[test]
fn flush_of_a_run_against_ack_of_its_neighbour_and_carve_loses_nothing() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let right = arena.must(1);
        let mut cache = Cache::plain().full(&arena, 1, 2); // [free][run 2][right]
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    cache.flush(w);
                    None
                },
                move |w: &Arena| {
                    w.free(right);
                    w.allocate(1).ok()
                }
            ],
        );
        let left = got.into_iter().flatten().next();
        give_all_back(&arena, [], left);
    });
}

#[test]
fn run_cut_from_an_end_against_ack_of_its_neighbour_and_carve_loses_nothing() {
    check(2, || {
        let arena = Arc::new(Arena::new(5));
        let right = arena.must(1); // [free 4][right]
        cut_beside_ack_and_carve(&arena, right, 1);
    });
}

#[test]
fn run_that_fits_exactly_against_ack_of_its_neighbour_and_carve_loses_nothing() {
    check(2, || {
        let arena = Arc::new(Arena::new(3));
        let right = arena.must(1); // [free 2][right]
        cut_beside_ack_and_carve(&arena, right, 1);
    });
}

fn cut_beside_ack_and_carve(arena: &Arc<Arena>, right: Carved, piece: u32) {
    let mut caches = race(
        arena,
        bodies![
            move |w: &Arena| {
                let mut cache = Cache::plain();
                if cache.refill(w, piece, 2) {
                    let block = cache.unpark(w, State::Held);
                    cache.park(w, block);
                }
                (cache, None)
            },
            move |w: &Arena| {
                w.free(right);
                (Cache::plain(), w.world.sector().carve(&Lane::new(), &Want::allocated(1)))
            }
        ],
    );
    let (_, raw) = caches.pop().expect("two threads");
    raw.into_iter().for_each(|block| arena.own(block));
    give_all_back(arena, caches.into_iter().map(|(cache, _)| cache), raw);
}

#[test]
fn run_for_two_caches_at_once_never_overlaps() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let refill = |w: &Arena| {
            let mut cache = Cache::plain();
            cache.refill(w, 1, 2);
            cache
        };
        let caches = race(&arena, bodies![refill, refill]);
        assert!(caches.iter().any(|cache| !cache.parked.is_empty()), "nobody was refilled");
        give_all_back(&arena, caches, None);
    });
}

#[test]
fn block_that_two_park_at_once_is_parked_once() {
    check(3, || {
        let arena = Arc::new(arena(2));
        arena.world.lane(OTHER_LANE, OTHER);
        let block = arena.must(1);
        let park = |mut cache: Cache| {
            body(move |a: &Arena| {
                cache.park_allocated(a, block);
                cache
            })
        };
        let caches = race(&arena, [Cache::living(), Cache::other()].map(park).into());
        let winners: Vec<_> = caches.iter().filter(|cache| !cache.parked.is_empty()).collect();
        assert_eq!(winners.len(), 1, "{caches:?}");
        assert_eq!(arena.world.headers().owner(block.head), winners[0].owner, "I10");
        give_all_back(&arena, caches, None);
    });
}

#[test]
fn block_that_is_parked_and_acked_at_once_has_one_winner() {
    check(3, || {
        let arena = Arc::new(Arena::new(2));
        let block = arena.must(1);
        let got = race(
            &arena,
            bodies![
                move |a: &Arena| {
                    let mut cache = Cache::plain();
                    let parked = cache.park_allocated(a, block);
                    cache.flush(a);
                    parked
                },
                move |a: &Arena| a.ack(block).is_ok()
            ],
        );
        assert_eq!(got.iter().filter(|&&won| won).count(), 1, "{got:?}");
        arena.world.assert_whole();
    });
}

/// What the cache's thread wrote is seen by whoever takes the block, though the offset came without
/// any order.
#[test]
fn unparked_block_is_taken_with_its_header_and_payload() {
    check(3, || {
        let arena = Arc::new(arena(2));
        arena.world.lane(OTHER_LANE, OTHER);
        let block = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits");
        let taken = race(
            &arena,
            bodies![
                move |a: &Arena| {
                    let mut cache = Cache::living();
                    cache.park(a, block);
                    cache.unpark(a, State::Allocated);
                    false
                },
                move |a: &Arena| {
                    let (sector, lane) =
                        (a.world.sector_of(OTHER), a.world.lane(OTHER_LANE, OTHER));
                    let taken = take(&sector, &lane, block.head).is_ok();
                    if taken {
                        a.own(block);
                    }
                    taken
                }
            ],
        );
        let state = if taken[1] { State::Held } else { State::Allocated };
        arena.put(LIVING_LANE, LIVING, block, state);
        arena.world.assert_whole();
    });
}

/// A block of the thread's own participant, parked by a plain store and handed out again. Whoever
/// learns of it afterwards takes it, once, and gives it to a cache of its own.
#[test]
fn block_parked_unshared_and_handed_out_goes_to_one_other_cache() {
    check(3, || {
        let arena = Arc::new(arena(2));
        arena.world.lane(OTHER_LANE, OTHER);
        let block = arena.get(LIVING_LANE, LIVING, &Want::allocated(1)).expect("fits");
        let told = Arc::new(Word::new(0));
        let teller = told.clone();
        let caches = race(
            &arena,
            bodies![
                move |a: &Arena| {
                    let mut cache = Cache::living();
                    let (sector, _lane) = (a.world.sector_of(LIVING), cache.lane(a));
                    assert_eq!(park_unshared(&sector, block.head, 1), Ok(()));
                    cache.parked.push(block);
                    cache.unpark(a, State::Allocated);
                    // Deliberately without order.
                    teller.store_relaxed(1);
                    cache
                },
                move |a: &Arena| {
                    let mut cache = Cache::other();
                    if told.load_relaxed() == 1 {
                        cache.park_allocated(a, block);
                    }
                    cache
                }
            ],
        );
        let raw = caches[1].parked.is_empty().then_some(block);
        give_all_back(&arena, caches, raw);
    });
}
