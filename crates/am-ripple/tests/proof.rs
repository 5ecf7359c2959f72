//! The models of the proof that a sector is exhausted (E16): beside whoever moves free memory about, it must
//! never come out where some was free, or on its way back, at every instant.
#![cfg(loom)]

mod harness;
mod world;

use am_layout::mutation::Mutation;
use am_layout::{State, head};
use am_ripple::{Others, Proof, Want, ack, ack_many, grow, prove, repair, split};
use am_tlsf::{CHUNK_SHIFT, Cell};
use harness::death::{self, DEAD, DEAD_LANE, for_every_death};
use harness::{Arena, all_noticed, bodies, body, check, race};
use loom::sync::Arc;
use world::{World, want};

/// Lane, and owner, of whoever proves; and of whoever moves something meanwhile.
const PROVER: usize = 0;
const MOVER: usize = 1;
const OTHER: usize = 2;

fn arena(granules: u32) -> Arena {
    let mut arena = Arena::new(granules);
    arena.world = World::shared(granules);
    for number in [PROVER, MOVER, OTHER] {
        arena.world.lane(number, number as u32 + 1);
    }
    arena
}

/// What comes of `number`'s proof that no block of `len` granules is free.
fn proof_by(arena: &Arena, number: usize, len: u32) -> Proof {
    let lane = arena.world.lane(number, number as u32 + 1);
    let others = Others::new(arena.world.roster(), 0);
    prove(&arena.world.sector(), &lane, &want(len), &others)
}

fn proves(arena: &Arena, number: usize, len: u32) -> bool {
    matches!(proof_by(arena, number, len), Proof::Exhausted { .. })
}

/// Proves beside `mover` that no block of `len` granules is free, which is never so.
fn never_proven(arena: Arena, len: u32, mover: impl FnOnce(&Arena) + Send + 'static) {
    let arena = Arc::new(arena);
    let prover = move |a: &Arena| proves(a, PROVER, len);
    let mover = move |a: &Arena| {
        mover(a);
        false
    };
    let proven = race(&arena, vec![body(prover), body(mover)]);
    assert!(!proven[0], "proven, though {len} granules were never gone");
}

#[test]
fn proof_at_rest_tells_what_is_free() {
    check(1, || {
        let arena = Arc::new(arena(4));
        let (b, _a) = (arena.must(1), arena.must(2)); // [free 1][a 2][b 1]
        arena.free(b);
        let prove = |number| move |a: &Arena| proof_by(a, number, 3);
        let proofs = race(&arena, bodies![prove(PROVER), prove(MOVER)]);
        // Provers do not disturb each other.
        assert_eq!(proofs, [Proof::Exhausted { largest: 1 }; 2]);
    });
}

#[test]
fn proof_beside_a_free_and_a_carve_does_not_miss_what_moves() {
    check(3, || {
        let arena = arena(2);
        let (b, a) = (arena.must(1), arena.must(1));
        arena.free(b); // [a 1][free 1]
        never_proven(arena, 1, move |w| {
            let (sector, lane) = (w.world.sector(), w.world.lane(MOVER, MOVER as u32 + 1));
            assert!(ack(&sector, &lane, a.head, State::Allocated).is_ok());
            let _ = sector.carve_from(&lane, 0, &want(1));
        });
    });
}

#[test]
fn proof_beside_a_carve_does_not_miss_what_is_left() {
    check(3, || {
        never_proven(arena(4), 3, |w| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            let _ = w.world.sector().carve_from(&lane, 0, &want(1));
        });
    });
}

#[test]
fn proof_beside_carves_does_not_miss_what_is_left_twice() {
    check(2, || {
        never_proven(arena(6), 4, |w| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            for _ in 0..2 {
                let _ = w.world.sector().carve_from(&lane, 0, &want(1));
            }
        });
    });
}

/// Whoever clears a hint decided so before the block came; at the second look the hint is restored.
#[test]
fn proof_beside_a_search_does_not_miss_whose_hint_is_cleared() {
    check(3, || {
        let arena = arena(4);
        let _b = arena.must(2); // [free 2][b 2]
        never_proven(arena, 2, |w| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            w.world.sector().clear_hint(&lane, Cell::of(2), 0);
        });
    });
}

#[test]
fn proof_after_a_free_beside_a_search_does_not_miss_what_was_freed() {
    check(2, || {
        let arena = arena(4);
        let (_b, a) = (arena.must(2), arena.must(2)); // [a 2][b 2]
        arena.forget_hints();
        // Stale; it becomes true when a is free.
        arena.world.sector().index().set(Cell::of(2), a.head >> CHUNK_SHIFT);
        let arena = Arc::new(arena);
        let proven = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let lane = w.world.lane(PROVER, PROVER as u32 + 1);
                    let sector = w.world.sector();
                    assert!(ack(&sector, &lane, a.head, State::Allocated).is_ok());
                    proves(w, PROVER, 2)
                },
                move |w: &Arena| {
                    let lane = w.world.lane(MOVER, MOVER as u32 + 1);
                    w.world.sector().clear_hint(&lane, Cell::of(2), a.head >> CHUNK_SHIFT);
                    false
                }
            ],
        );
        assert!(!proven[0], "proven, though two granules are free");
    });
}

#[test]
fn proof_beside_a_split_and_its_acks_does_not_miss_what_merges() {
    check(2, || {
        let arena = arena(3);
        let run = arena.hold(2); // [free 1][run 2]
        never_proven(arena, 1, move |w| {
            let (sector, lane) = (w.world.sector(), w.world.lane(MOVER, MOVER as u32 + 1));
            assert_eq!(split(&sector, &lane, run.head, 1), Ok(2));
            let mut heads = [run.head + 1, run.head];
            assert_eq!(ack_many(&sector, &lane, &mut heads, State::Held), Ok(()));
        });
    });
}

/// Who grows has all of the right neighbour in hand, and gives back what is too much.
#[test]
fn proof_beside_a_grow_does_not_miss_what_is_given_back() {
    check(3, || {
        let arena = arena(4);
        let (c, b, a) = (arena.must(2), arena.must(1), arena.hold(1));
        for block in [b, c] {
            arena.free(block);
        }
        never_proven(arena, 2, move |w| {
            let (sector, lane) = (w.world.sector(), w.world.lane(MOVER, MOVER as u32 + 1));
            let _ = grow(&sector, &lane, a.head, 2);
        });
    });
}

/// Two free blocks side by side, each with its hint, as a ripple leaves them for a moment.
fn apart(granules: u32, left: u32) -> Arena {
    let arena = arena(granules);
    let right = granules - left;
    let _ = arena.must(granules);
    let sector = arena.world.sector();
    // Up to the root: a stale bit would lead the prover to what was merged.
    sector.index().clear(Cell::of(granules), 0, || false);
    for (at, len) in [(0, left), (left, right)] {
        arena.world.words[at as usize].swap_full(head(State::Free, len));
        sector.index().set(Cell::of(len), at >> CHUNK_SHIFT);
    }
    arena
}

#[test]
fn proof_beside_a_walk_does_not_miss_what_it_merges() {
    check(2, || {
        never_proven(apart(5, 4), 3, |w| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            repair(&w.world.sector(), &lane);
        });
    });
}

#[test]
fn proof_where_neighbours_were_left_apart_waits_for_the_walk_that_mends_them() {
    check(2, || {
        let arena = apart(2, 1);
        arena.world.sector().loosen();
        never_proven(arena, 2, |w| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            repair(&w.world.sector(), &lane);
        });
    });
}

#[test]
fn proof_beside_a_free_here_and_a_carve_there_does_not_miss_what_moves() {
    check(1, || {
        let arena = arena(3);
        let (b, a) = (arena.must(2), arena.must(1));
        arena.free(b); // [a 1][free 2]
        let arena = Arc::new(arena);
        let proven = race(
            &arena,
            bodies![
                |w: &Arena| proves(w, PROVER, 1),
                move |w: &Arena| {
                    let lane = w.world.lane(MOVER, MOVER as u32 + 1);
                    assert!(ack(&w.world.sector(), &lane, a.head, State::Allocated).is_ok());
                    false
                },
                |w: &Arena| {
                    let lane = w.world.lane(OTHER, OTHER as u32 + 1);
                    let _ = w.world.sector().carve(&lane, &want(1));
                    false
                }
            ],
        );
        assert!(!proven[0], "proven, though a granule was never gone");
    });
}

/// Whoever takes a block as long as it asked for leaves nothing: then the proof may come out.
#[test]
fn proof_beside_an_exact_fit_comes_out_only_without_it() {
    check(3, || {
        let arena = Arc::new(arena(2));
        let taker = |w: &Arena| {
            let lane = w.world.lane(MOVER, MOVER as u32 + 1);
            w.world.sector().carve_from(&lane, 0, &Want::held(2)).is_some()
        };
        let [proven, taken] = race(&arena, bodies![|w: &Arena| proves(w, PROVER, 1), taker])[..]
        else {
            unreachable!("two threads")
        };
        assert!(taken || !proven, "proven, though nobody took anything");
    });
}

/// What died in the midst of an operation is not proven gone: not before it is recovered, nor after.
#[test]
fn proof_after_a_death_in_a_free_does_not_miss_what_was_free() {
    let dies = |arena: &Arena, writes| {
        arena.die(writes, |a| {
            let (sector, lane) = (a.world.sector_of(DEAD), a.world.lane(DEAD_LANE, DEAD));
            let _ = ack(&sector, &lane, 2, State::Allocated);
        })
    };
    for_every_death(0, dies, |die| {
        let arena = death::arena(4);
        let _a = arena.must(2); // [free 2][a 2]
        die(&arena);
        match proof_by(&arena, MOVER, 2) {
            Proof::Exhausted { .. } => panic!("proven, though two granules are free"),
            Proof::Carved(block) => arena.free(block),
            Proof::Disturbed | Proof::Impossible => {}
        }
        arena.recover_by(|recoverer, found| recoverer.recover(found));
        assert!(!proves(&arena, MOVER, 2));
    });
}

#[test]
fn proof_beside_the_recovery_of_a_search_does_not_miss_whose_hint_is_cleared() {
    let dies = |arena: &Arena, writes| {
        arena.die(writes, |a| {
            let lane = a.world.lane(DEAD_LANE, DEAD);
            a.world.sector().clear_hint(&lane, Cell::of(1), 0);
        })
    };
    for_every_death(1, dies, |die| {
        let arena = death::arena(2);
        let _b = arena.must(1); // [free 1][b 1]
        // No stale one, which would lead the prover there, too.
        arena.forget_hints();
        arena.world.sector().index().set(Cell::of(1), 0);
        die(&arena);
        // The other way round than elsewhere: so the prover is the one that is preempted.
        let arena = Arc::new(arena);
        let prover = |a: &Arena| proves(a, MOVER, 1);
        let recoverer = |a: &Arena| {
            a.recover_by(|recoverer, found| recoverer.recover(found));
            false
        };
        let proven = race(&arena, bodies![recoverer, prover]);
        assert!(!proven[1], "proven, though a granule is free");
    });
}

/// Every defect of the proof must make at least one model fail.
#[test]
#[ignore = "a minute; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::PROOF);
}
