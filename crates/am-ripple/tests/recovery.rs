//! The model check of death: a thread dies before any of its writes, and a recoverer works beside
//! living threads, in every interleaving up to a number of preemptions.
//!
//! Part of `cargo xtask model`; its deliberate defects are part of `cargo xtask model --mutants`.
#![cfg(loom)]

mod harness;
mod world;

use am_layout::State;
use am_layout::mutation::{Mutation, crash_at};
use am_ripple::{
    Carved, Found, Recoverer, Want, ack, ack_many, allocate, grow, shrink, split, take,
};
use harness::death::{
    DEAD, DEAD_LANE, LIVING, LIVING_LANE, OTHER, OTHER_LANE, RECOVERY_LANE, arena, beside_a_carve,
    for_every_death, is_dead,
};
use harness::{Arena, all_noticed, bodies, check, race};
use loom::sync::Arc;

/// The dead died in a carve; a living thread carves from the same block meanwhile.
#[test]
fn death_in_a_carve_beside_a_carve_loses_nothing() {
    for_every_death(
        1,
        |arena, writes| {
            arena.die(writes, |a| {
                let lane = a.world.lane(DEAD_LANE, DEAD);
                let _ = allocate(&a.world.sector_of(DEAD), &lane, &Want::held(1));
            })
        },
        |die| {
            let arena = Arc::new(arena(3));
            die(&arena);
            beside_a_carve(&arena, Arena::collect);
            arena.world.assert_whole();
        },
    );
}

/// The dead died giving a block back between two free ones.
#[test]
fn death_in_an_ack_beside_a_free_of_the_neighbour_loses_nothing() {
    for_every_death(
        1,
        |arena, writes| {
            let [dying, ..] = blocks();
            arena.die(writes, |a| {
                let lane = a.world.lane(DEAD_LANE, DEAD);
                let _ = ack(&a.world.sector_of(DEAD), &lane, dying.head, State::Held);
            })
        },
        |die| {
            let arena = Arc::new(arena(4));
            let [dying, right, left] = blocks();
            let lane = arena.world.lane(DEAD_LANE, DEAD);
            let mut got = Vec::new();
            for owner in [LIVING, DEAD, LIVING] {
                let sector = arena.world.sector_of(owner);
                got.push(allocate(&sector, &lane, &Want::held(1)).expect("setup fits"));
            }
            assert_eq!(got, [right, dying, left]);
            die(&arena);
            race(
                &arena,
                bodies![|a: &Arena| a.collect(), move |a: &Arena| a.put(
                    LIVING_LANE,
                    LIVING,
                    left,
                    State::Held
                )],
            );
            arena.assert_recovered(&[right]);
            arena.put(LIVING_LANE, LIVING, right, State::Held);
            arena.world.assert_whole();
        },
    );
}

/// `[free][left][dying][right]`.
fn blocks() -> [Carved; 3] {
    [2, 3, 1].map(|head| Carved { head, len: 1 })
}

/// The dead told of a range and died before it did anything with it; the range passes from one living
/// thread to another meanwhile, so that at no look both can be seen with it.
#[test]
fn range_that_passes_between_two_living_is_not_the_dead_ones() {
    check(1, || {
        let arena = Arc::new(arena(2));
        let block = Carved { head: 1, len: 1 };
        let got = arena.get(LIVING_LANE, LIVING, &Want::held(1));
        assert_eq!(got, Some(block));
        // An intent without its exchange.
        arena.world.lane(DEAD_LANE, DEAD).begin(1, 2);
        arena.world.lane(OTHER_LANE, OTHER);
        race(
            &arena,
            bodies![
                |a: &Arena| a.collect(),
                move |a: &Arena| a.put(LIVING_LANE, LIVING, block, State::Held),
                |a: &Arena| {
                    if let Some(block) = a.get(OTHER_LANE, OTHER, &Want::held(1)) {
                        a.put(OTHER_LANE, OTHER, block, State::Held);
                    }
                },
            ],
        );
        arena.assert_recovered(&[]);
        arena.world.assert_whole();
    });
}

/// A range that looked like limbo a moment ago, carved by one living thread.
#[test]
fn suspect_that_a_living_carve_takes_is_not_nobodys() {
    check(2, || {
        let arena = Arc::new(arena(2));
        beside_a_carve(&arena, |a| {
            a.recover_by(|recoverer, found| recoverer.judge(1, 1, found));
        });
        arena.world.assert_whole();
    });
}

/// The same in a sector so long that the rest stays in its cell: after the carve's last store, which is
/// a plain one, there is no barrier then.
#[test]
fn suspect_that_a_living_carve_takes_without_a_barrier_is_not_nobodys() {
    check(1, || {
        let arena = Arc::new(arena(17));
        beside_a_carve(&arena, |a| {
            a.recover_by(|recoverer, found| recoverer.judge(16, 1, found));
        });
        arena.world.assert_whole();
    });
}

/// The same, given back by one living thread.
#[test]
fn suspect_that_a_living_ack_gives_back_is_not_nobodys() {
    check(2, || {
        let arena = Arc::new(arena(2));
        let block = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits");
        race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.recover_by(|recoverer, found| recoverer.judge(1, 1, found));
                },
                move |a: &Arena| a.put(LIVING_LANE, LIVING, block, State::Held),
            ],
        );
        arena.assert_recovered(&[]);
        arena.world.assert_whole();
    });
}

/// The same range, claimed by a ripple to its left instead.
#[test]
fn range_that_a_living_ripple_claims_is_not_the_dead_ones() {
    check(2, || {
        let arena = Arc::new(arena(4));
        let right = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits");
        let block = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits");
        let wall = arena.get(LIVING_LANE, LIVING, &Want::held(1)).expect("fits");
        arena.put(LIVING_LANE, LIVING, right, State::Held); // [free][wall][block][free]
        arena.world.lane(DEAD_LANE, DEAD).begin(right.head, right.head + 1);
        race(
            &arena,
            bodies![|a: &Arena| a.collect(), move |a: &Arena| a.put(
                LIVING_LANE,
                LIVING,
                block,
                State::Held
            ),],
        );
        arena.assert_recovered(&[wall]);
        arena.put(LIVING_LANE, LIVING, wall, State::Held);
        arena.world.assert_whole();
    });
}

/// The same range, split by a living thread: for a while there are heads inside its block.
#[test]
fn range_that_a_living_thread_splits_is_not_the_dead_ones() {
    check(2, || {
        let arena = Arc::new(arena(4));
        let run = arena.get(LIVING_LANE, LIVING, &Want::held(3)).expect("fits");
        arena.world.lane(DEAD_LANE, DEAD).begin(run.head, run.head + 3);
        race(
            &arena,
            bodies![|a: &Arena| a.collect(), move |a: &Arena| {
                let lane = a.world.lane(LIVING_LANE, LIVING);
                let sector = a.world.sector_of(LIVING);
                assert_eq!(split(&sector, &lane, run.head, 1), Ok(3));
                let mut heads = [0, 1, 2].map(|n| run.head + n);
                assert_eq!(ack_many(&sector, &lane, &mut heads, State::Held), Ok(()));
            },],
        );
        arena.assert_recovered(&[]);
        arena.world.assert_whole();
    });
}

/// A block that the dead gave away is taken by the living while the recoverer looks for the dead's.
#[test]
fn block_that_was_given_by_the_dead_is_its_takers() {
    check(2, || {
        let arena = Arc::new(arena(2));
        let lane = arena.world.lane(DEAD_LANE, DEAD);
        let want = Want::allocated(1);
        let block = allocate(&arena.world.sector_of(DEAD), &lane, &want).expect("fits");
        race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.recover();
                },
                move |a: &Arena| {
                    let lane = a.world.lane(LIVING_LANE, LIVING);
                    let sector = a.world.sector_of(LIVING);
                    assert_eq!(take(&sector, &lane, block.head), Ok(1));
                    a.own(block);
                },
            ],
        );
        arena.assert_recovered(&[block]);
        arena.put(LIVING_LANE, LIVING, block, State::Held);
        arena.world.assert_whole();
    });
}

/// The dead died in bulk work: a split, then a free of the pieces.
#[test]
fn death_in_split_and_bulk_ack_loses_nothing() {
    for_every_death(
        0,
        |arena, writes| {
            // Another died before, having told of a part of what is split: its lane comes first.
            arena.world.lane(DEAD_LANE, DEAD).begin(2, 4);
            arena.die(writes, |a| {
                let (sector, lane) = (a.world.sector_of(DEAD), a.world.lane(OTHER_LANE, DEAD));
                let Ok(run) = allocate(&sector, &lane, &Want::held(3)) else { return };
                assert_eq!(split(&sector, &lane, run.head, 1), Ok(3));
                let mut heads = [0, 1, 2].map(|n| run.head + n);
                assert_eq!(ack_many(&sector, &lane, &mut heads, State::Held), Ok(()));
            })
        },
        |die| {
            let arena = arena(4);
            die(&arena);
            arena.assert_recovered(&[]);
            arena.world.assert_whole();
        },
    );
}

/// The dead died resizing a block.
#[test]
fn death_in_grow_and_shrink_loses_nothing() {
    for_every_death(
        0,
        |arena, writes| {
            arena.die(writes, |a| {
                let (sector, lane) = (a.world.sector_of(DEAD), a.world.lane(DEAD_LANE, DEAD));
                let Ok(block) = allocate(&sector, &lane, &Want::held(2)) else { return };
                assert_eq!(shrink(&sector, &lane, block.head, 1), Ok(()));
                assert_eq!(grow(&sector, &lane, block.head, 2), Ok(true));
            })
        },
        |die| {
            let arena = arena(3);
            die(&arena);
            arena.assert_recovered(&[]);
            arena.world.assert_whole();
        },
    );
}

/// The recoverer dies at any write; the next one finishes.
#[test]
fn death_of_the_recoverer_loses_nothing() {
    // The first death leaves limbo after the exchange of a carve, and a held block.
    let mess = |a: &Arena| {
        let (sector, lane) = (a.world.sector_of(DEAD), a.world.lane(DEAD_LANE, DEAD));
        assert!(allocate(&sector, &lane, &Want::held(1)).is_ok());
        // The intent's two words, then the exchange.
        assert!(crash_at(3, || {
            let _ = allocate(&sector, &lane, &Want::held(1));
        }));
    };
    for_every_death(
        0,
        move |arena, writes| {
            mess(arena);
            arena.die(writes, |a| {
                // By a lane of the dead's: a recoverer that died is dead.
                let lane = a.world.lane(RECOVERY_LANE - 1, DEAD);
                let sector = a.world.sector();
                let recoverer = Recoverer::new(&sector, &lane, a.world.roster(), 0, is_dead);
                recoverer.recover(|found| assert!(!matches!(found, Found::Deferred { .. })));
            })
        },
        |die| {
            let arena = arena(4);
            die(&arena);
            arena.assert_recovered(&[]);
            arena.world.assert_whole();
        },
    );
}

/// Every defect of the recovery must make at least one model fail.
#[test]
#[ignore = "minutes; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::RECOVERY);
}
