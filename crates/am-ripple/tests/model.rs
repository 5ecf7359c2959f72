//! The model check: loom runs the very code of am-layout, am-tlsf and am-ripple through every
//! interleaving of two or three threads up to a number of preemptions, in sectors of 4 granules.
//!
//! `cargo xtask model` runs it; `cargo xtask model --mutants` turns on one deliberate defect after
//! the other and requires that a model notices each.
#![cfg(loom)]

mod harness;
mod world;

use am_layout::mutation::Mutation;
use am_layout::{Seen, State, Word};
use am_ripple::{Carved, Lane, NoBlock, ack, ack_many, give, grow, repair, shrink, split, take};
use am_tlsf::{CHUNK_SHIFT, Cell, Run};
use harness::{Arena, all_noticed, bodies, check, race};
use loom::sync::Arc;
use world::want;

fn free_all(arena: &Arena, blocks: impl IntoIterator<Item = Carved>) {
    for block in blocks {
        arena.free(block);
    }
    arena.world.assert_whole();
}

#[test]
fn allocate_twice_at_once_never_overlaps() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let got = race(&arena, bodies![|a: &Arena| a.allocate(1), |a: &Arena| a.allocate(2)]);
        let live: Vec<_> = got.into_iter().map(|r| r.expect("both fit")).collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn allocate_thrice_at_once_never_overlaps() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let one = |a: &Arena| a.allocate(1);
        let live: Vec<_> =
            race(&arena, bodies![one, one, one]).into_iter().map(|r| r.expect("fits")).collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn allocate_exact_fit_of_one_block_has_one_winner() {
    check(3, || {
        let arena = Arc::new(Arena::new(2));
        let got = race(&arena, bodies![|a: &Arena| a.allocate(2), |a: &Arena| a.allocate(2)]);
        let live: Vec<_> = got.into_iter().flatten().collect();
        assert_eq!(live.len(), 1, "exactly one gets the only block");
        free_all(&arena, live);
    });
}

#[test]
fn free_of_two_neighbours_at_once_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (a, b) = (arena.must(2), arena.must(2));
        race(&arena, bodies![move |w: &Arena| w.free(a), move |w: &Arena| w.free(b)]);
        arena.world.assert_whole();
    });
}

#[test]
fn free_of_two_single_granules_at_once_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(2));
        let (a, b) = (arena.must(1), arena.must(1));
        race(&arena, bodies![move |w: &Arena| w.free(a), move |w: &Arena| w.free(b)]);
        arena.world.assert_whole();
    });
}

#[test]
fn free_beside_the_big_free_block_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, c) = (arena.must(1), arena.must(1));
        race(&arena, bodies![move |w: &Arena| w.free(b), move |w: &Arena| w.free(c)]);
        arena.world.assert_whole();
    });
}

#[test]
fn free_of_two_neighbours_against_a_carve_from_one_leaves_them_merged() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.must(2), arena.must(2));
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.free(a);
                    None
                },
                move |w: &Arena| {
                    w.free(b);
                    None
                },
                move |w: &Arena| w.world.sector().carve_from(&Lane::new(), b.head, &want(1))
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().inspect(|&block| arena.own(block)).collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn free_of_three_neighbours_at_once_leaves_one_block() {
    check(1, || {
        let arena = Arc::new(Arena::new(4));
        let (a, b, c) = (arena.must(1), arena.must(1), arena.must(2));
        race(
            &arena,
            bodies![move |w: &Arena| w.free(a), move |w: &Arena| w.free(b), move |w: &Arena| w
                .free(c)],
        );
        arena.world.assert_whole();
    });
}

#[test]
fn free_against_allocate_loses_nothing() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let a = arena.must(2);
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.free(a);
                    None
                },
                |w: &Arena| Some(w.allocate(1).expect("one granule is always free"))
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn free_against_exact_fit_of_its_left_neighbour_loses_nothing() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let a = arena.must(2); // [free 2][a 2]
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.free(a);
                    None
                },
                |w: &Arena| Some(w.allocate(2).expect("two granules are always free"))
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn cell_changes_of_one_block_keep_it_known() {
    check(1, || {
        let arena = Arc::new(Arena::new(6));
        let a = arena.must(1);
        let got = race(
            &arena,
            bodies![
                |w: &Arena| w.allocate(1).ok(),
                |w: &Arena| w.allocate(2).ok(),
                move |w: &Arena| {
                    w.free(a);
                    None
                }
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn clear_of_a_stale_hint_against_its_setter_loses_no_block() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.must(2), arena.must(2)); // [a 2][b 2], nothing free
        arena.forget_hints();
        // Stale: it becomes true only when a is free.
        arena.world.sector().index().set(Cell::of(2), a.head >> CHUNK_SHIFT);
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.free(a);
                    None
                },
                |w: &Arena| w.world.sector().carve(&Lane::new(), &want(2)).inspect(|&c| w.own(c))
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().chain([b]).collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn clear_of_an_emptied_tree_against_a_setter_beside_it_loses_no_block() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let blocks = [arena.must(1), arena.must(1), arena.must(1), arena.must(1)];
        arena.forget_hints();
        // Stale; carved from the end, so blocks[3] lies at the origin and shares its leaf word
        // with blocks[2].
        arena.world.sector().index().set(Cell::of(1), blocks[3].head >> CHUNK_SHIFT);
        let freed = blocks[2];
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.free(freed);
                    None
                },
                |w: &Arena| w.world.sector().carve(&Lane::new(), &want(1)).inspect(|&c| w.own(c))
            ],
        );
        let kept = [blocks[0], blocks[1], blocks[3]];
        let live: Vec<_> = got.into_iter().flatten().chain(kept).collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn slow_path_against_frees_and_an_allocation_loses_nothing() {
    check(1, || {
        let arena = Arc::new(Arena::new(4));
        let (a, b) = (arena.must(2), arena.must(1)); // [free 1][b 1][a 2]
        let got = race(
            &arena,
            bodies![
                |w: &Arena| {
                    repair(&w.world.sector(), &Lane::new());
                    w.allocate(3).ok()
                },
                move |w: &Arena| {
                    w.free(a);
                    None
                },
                move |w: &Arena| {
                    w.free(b);
                    None
                }
            ],
        );
        let live: Vec<_> = got.into_iter().flatten().collect();
        arena.world.assert_sound(&live);
        free_all(&arena, live);
    });
}

#[test]
fn slow_path_finds_a_block_whose_hints_are_lost() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.must(2), arena.must(2));
        arena.free(a);
        arena.forget_hints();
        let got =
            race(&arena, bodies![|w: &Arena| w.allocate(1).ok(), |w: &Arena| w.allocate(1).ok(),]);
        assert!(got.iter().all(Option::is_some), "{got:?}");
        free_all(&arena, got.into_iter().flatten().chain([b]));
    });
}

#[test]
fn slow_path_merges_neighbours_that_a_ripple_left_apart() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.must(2), arena.must(2));
        // As after a ripple that was cut: two free blocks side by side.
        arena.world.words[a.head as usize].swap_full(am_layout::head(State::Free, 2));
        arena.world.words[b.head as usize].swap_full(am_layout::head(State::Free, 2));
        let got = race(
            &arena,
            bodies![|w: &Arena| w.allocate(4).ok(), |w: &Arena| {
                repair(&w.world.sector(), &Lane::new());
                None
            }],
        );
        // The other walker may hold one of them for a moment; afterwards nothing is in the way.
        let all = got.into_iter().flatten().next();
        let all = all.unwrap_or_else(|| arena.allocate(4).expect("four granules are free"));
        free_all(&arena, [all]);
    });
}

#[test]
fn walk_that_loses_the_block_it_saw_is_not_exhausted() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (_s, f, a) = (arena.must(1), arena.must(2), arena.must(1)); // [a 1][f 2][s 1]
        arena.free(f);
        arena.forget_hints(); // so that only the walk can see it
        let got = race(
            &arena,
            bodies![|w: &Arena| Some(w.allocate(2)), move |w: &Arena| {
                w.free(a); // claims f on its way
                None
            },],
        );
        if let Some(Some(Err(NoBlock::Exhausted { largest }))) = got.first() {
            assert!(*largest < 2, "exhausted, though the walk saw {largest} granules free");
        }
    });
}

/// One granule of two is free at every instant, but never the same for long. A walk that meets
/// neither it nor anything in flight must know that it was disturbed (E7).
#[test]
fn walk_that_misses_a_moving_free_block_knows_that_it_was_disturbed() {
    check(3, || {
        let arena = Arc::new(Arena::new(2));
        let (b, a) = (arena.must(1), arena.must(1));
        arena.free(b);
        let got = race(
            &arena,
            bodies![
                |w: &Arena| {
                    let sector = w.world.sector();
                    let returns = sector.begin_walk();
                    let used = |run: Run| matches!(run.seen, Seen::Head(State::Allocated, _));
                    assert!(!sector.runs().all(used) || sector.returns() != returns);
                    None
                },
                move |w: &Arena| {
                    w.free(a);
                    Some(w.allocate(1).expect("one granule is always free"))
                }
            ],
        );
        free_all(&arena, got.into_iter().flatten());
    });
}

#[test]
fn ack_twice_at_once_succeeds_once() {
    check(3, || {
        let arena = Arc::new(Arena::new(4));
        let a = arena.must(2);
        let got = race(&arena, bodies![move |w: &Arena| w.ack(a), move |w: &Arena| w.ack(a)]);
        assert_eq!(got.iter().filter(|r| r.is_ok()).count(), 1, "{got:?}");
        arena.world.assert_whole();
    });
}

#[test]
fn block_given_away_is_taken_once_with_its_payload() {
    check(2, || {
        let arena = Arc::new(Arena::new(2));
        let a = arena.hold(1);
        let taker = move |w: &Arena| {
            let taken = take(&w.world.sector(), &Lane::new(), a.head).is_ok();
            if taken {
                w.own(a);
            }
            taken
        };
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    w.own(a);
                    give(&w.world.sector(), a.head).expect("held");
                    false
                },
                taker,
                taker
            ],
        );
        let takers = got.iter().filter(|&&taken| taken).count();
        assert!(takers <= 1, "{got:?}");
        let state = if takers == 1 { State::Held } else { State::Allocated };
        assert_eq!(ack(&arena.world.sector(), &Lane::new(), a.head, state), Ok(1));
        arena.world.assert_whole();
    });
}

#[test]
fn bulk_ack_against_a_free_between_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, run) = (arena.must(1), arena.hold(3)); // [run 3][b]
        race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let (sector, lane) = (w.world.sector(), Lane::new());
                    assert_eq!(split(&sector, &lane, run.head, 1), Ok(3));
                    let mut heads = [run.head + 2, run.head, run.head + 1];
                    assert_eq!(ack_many(&sector, &lane, &mut heads, State::Held), Ok(()));
                },
                move |w: &Arena| w.free(b)
            ],
        );
        arena.world.assert_whole();
    });
}

#[test]
fn grow_against_free_and_allocate_of_its_right_neighbour_loses_nothing() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (c, b, a) = (arena.must(1), arena.must(1), arena.hold(1)); // [free][a][b][c]
        let got = race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let grown = grow(&w.world.sector(), &Lane::new(), a.head, 2).expect("held");
                    let block = Carved { head: a.head, len: if grown { 2 } else { 1 } };
                    w.own(block);
                    Some(block)
                },
                move |w: &Arena| {
                    w.free(b);
                    w.allocate(1).ok()
                },
            ],
        );
        let live: Vec<_> = got.iter().flatten().copied().chain([c]).collect();
        arena.world.assert_sound(&live);
        let (sector, lane) = (arena.world.sector(), Lane::new());
        assert!(ack(&sector, &lane, a.head, State::Held).is_ok());
        free_all(&arena, got.into_iter().skip(1).flatten().chain([c]));
    });
}

#[test]
fn shrink_against_free_of_its_right_neighbour_leaves_one_block() {
    check(2, || {
        let arena = Arc::new(Arena::new(4));
        let (b, a) = (arena.must(1), arena.hold(3));
        race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let (sector, lane) = (w.world.sector(), Lane::new());
                    shrink(&sector, &lane, a.head, 1).expect("held");
                    assert_eq!(ack(&sector, &lane, a.head, State::Held), Ok(1));
                },
                move |w: &Arena| w.free(b)
            ],
        );
        arena.world.assert_whole();
    });
}

/// The sector is so long that the rest stays in its cell: no barrier of the index hides a missing order.
#[test]
fn block_allocated_here_and_freed_there_keeps_its_tail_and_hint() {
    check(2, || {
        let arena = Arc::new(Arena::new(35));
        let mailbox = Arc::new(Word::new(0));
        let sender = mailbox.clone();
        race(
            &arena,
            bodies![
                move |w: &Arena| {
                    let block = w.allocate(2).expect("fits");
                    // Deliberately without order: the ack alone must see the block whole.
                    sender.store_relaxed(block.head + 1);
                },
                move |w: &Arena| {
                    if let Some(head) = mailbox.load_relaxed().checked_sub(1) {
                        let _ = w.ack(Carved { head, len: 2 });
                    }
                }
            ],
        );
        let left: Vec<_> = match arena.world.sector().seen_at(33) {
            Seen::Head(State::Allocated, len) => vec![Carved { head: 33, len }],
            _ => vec![],
        };
        arena.world.assert_sound(&left);
        for block in left {
            arena.ack(block).expect("allocated");
        }
        arena.world.assert_whole();
    });
}

/// Every defect of the direct path must make at least one model fail.
#[test]
#[ignore = "minutes; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::DIRECT);
}
