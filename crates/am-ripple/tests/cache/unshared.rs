//! Blocks that pass by plain stores: given by a guard, and taken or parked by a caller that is alone
//! on them.

use crate::Cache;
use crate::harness::death::{
    DEAD, DEAD_LANE, LIVING, LIVING_LANE, OTHER, OTHER_LANE, RECOVERY_LANE, arena, for_every_death,
};
use crate::harness::{Arena, bodies, body, check, race};
use am_layout::mutation::{self, Mutation};
use am_layout::roster::RECOVERER;
use am_layout::{Seen, State, Word};
use am_ripple::{Carved, Headers, Recoverer, Want, give, park_unshared, take, take_unshared};
use loom::sync::Arc;

/// `[free][block]`; the block is raw, and `owner`'s mark stands in its header.
const BLOCK: Carved = Carved { head: 1, len: 1 };

/// Makes a world with that block.
fn raw_block_of(owner: u32) -> Arc<Arena> {
    let arena = Arc::new(arena(2));
    arena.world.lane(OTHER_LANE, OTHER);
    let lane = [DEAD_LANE, LIVING_LANE, OTHER_LANE][owner as usize - 1];
    assert_eq!(arena.get(lane, owner, &Want::allocated(1)), Some(BLOCK));
    arena
}

/// What one participant does to the block while it is alone on it.
#[derive(Clone, Copy)]
struct User<'a> {
    arena: &'a Arena,
    me: u32,
}

impl<'a> User<'a> {
    fn of(arena: &'a Arena, me: u32) -> Self {
        Self { arena, me }
    }

    /// The payload of the dead is left alone, as `Arena::die` says.
    fn own(self) {
        if self.me != DEAD {
            self.arena.own(BLOCK);
        }
    }

    /// Takes the block; tells whether it was there to be taken.
    fn take(self) -> bool {
        let taken = take_unshared(&self.arena.world.sector_of(self.me), BLOCK.head).is_ok();
        if taken {
            self.own();
        }
        taken
    }

    fn give(self) {
        self.own();
        assert_eq!(give(&self.arena.world.sector_of(self.me), BLOCK.head), Ok(BLOCK.len));
    }

    /// Parks the block in `cache`; tells whether it was there to be parked.
    fn park(self, cache: &mut Cache) -> bool {
        let sector = self.arena.world.sector_of(self.me);
        let parked = park_unshared(&sector, BLOCK.head, BLOCK.len).is_ok();
        if parked {
            self.own();
            cache.parked.push(BLOCK);
        }
        parked
    }
}

/// At rest: the block is in use if `used`, and its header names `owner` then.
fn assert_owned(arena: &Arena, used: bool, owner: u32) {
    let live: &[Carved] = if used { &[BLOCK] } else { &[] };
    arena.assert_recovered(live);
    if used {
        assert_eq!(arena.world.headers().owner(BLOCK.head), owner, "I10");
    }
}

/// Ends a model: what is left in use goes back.
fn put_back(arena: &Arena, state: Option<State>) {
    state.into_iter().for_each(|state| arena.put(LIVING_LANE, LIVING, BLOCK, state));
    arena.world.assert_whole();
}

/// A guard gives and dies, or dies before it gives, and is recovered at once; a living one tries to take
/// the block all the while.
#[test]
fn block_of_a_giver_that_dies_is_its_takers_or_went_back() {
    for gives in [true, false] {
        check(3, move || {
            let arena = raw_block_of(DEAD);
            assert!(User::of(&arena, DEAD).take());
            let taken = race(
                &arena,
                bodies![
                    move |a: &Arena| {
                        if gives {
                            User::of(a, DEAD).give();
                        }
                        // Its lock is free from here on: whoever recovers comes after its last store.
                        a.recover();
                        false
                    },
                    |a: &Arena| User::of(a, LIVING).take()
                ],
            );
            assert!(gives || !taken[1], "taken, though it was not given");
            assert_owned(&arena, gives, if taken[1] { LIVING } else { DEAD });
            let state = if taken[1] { State::Held } else { State::Allocated };
            put_back(&arena, gives.then_some(state));
        });
    }
}

/// The dead took the block, gave it, parked it and handed it out, and died at any write of that. A living
/// one does `then` to it beside the recovery, and says in which state it left it.
fn death_of_a_user(bound: usize, then: fn(&Arena) -> Option<State>) {
    for_every_death(
        bound,
        |arena, writes| {
            arena.die(writes, |a| {
                let user = User::of(a, DEAD);
                assert!(user.take());
                user.give();
                let mut cache = Cache::dead();
                assert!(user.park(&mut cache));
                cache.unpark(a, State::Allocated);
            })
        },
        move |die| {
            let arena = raw_block_of(LIVING);
            die(&arena);
            let seen = arena.world.sector().seen_at(BLOCK.head);
            let left = race(
                &arena,
                vec![
                    body(|a: &Arena| {
                        a.recover();
                        None
                    }),
                    body(then),
                ],
            );
            // What the dead held or had parked went back; what was given is nobody's but the taker's.
            let raw = seen == Seen::Head(State::Allocated, BLOCK.len);
            assert!(raw || left[1].is_none(), "taken, though it was {seen}");
            assert_owned(&arena, left[1].is_some(), LIVING);
            put_back(&arena, left[1]);
        },
    );
}

#[test]
fn block_of_the_dead_that_is_taken_unshared_is_its_takers() {
    death_of_a_user(3, |a| User::of(a, LIVING).take().then_some(State::Held));
}

#[test]
fn block_of_the_dead_that_is_taken_is_its_takers() {
    death_of_a_user(2, |a| {
        let lane = a.world.lane(LIVING_LANE, LIVING);
        let taken = take(&a.world.sector_of(LIVING), &lane, BLOCK.head).is_ok();
        if taken {
            a.own(BLOCK);
        }
        taken.then_some(State::Held)
    });
}

/// Parked unshared and flushed by its new owner: it comes into limbo by a plain store.
#[test]
fn block_of_the_dead_that_is_parked_unshared_and_flushed_goes_back_once() {
    death_of_a_user(2, |a| {
        let mut cache = Cache::living();
        User::of(a, LIVING).park(&mut cache);
        cache.flush(a);
        None
    });
}

/// Its word says `HELD` twice, of two owners, while the recoverer looks.
#[test]
fn block_of_the_dead_that_passes_between_two_living_is_the_last_ones() {
    death_of_a_user(3, |a| {
        let (first, last) = (User::of(a, OTHER), User::of(a, LIVING));
        first.take().then(|| {
            first.give();
            assert!(last.take());
            State::Held
        })
    });
}

/// The block looked like limbo a moment ago. A living one takes and gives it, which leaves no trace; another
/// parks and flushes it, which does.
#[test]
fn suspect_that_passes_unshared_between_two_living_is_not_nobodys() {
    check(2, || {
        let arena = raw_block_of(DEAD);
        race(
            &arena,
            bodies![
                |a: &Arena| {
                    a.recover_by(|recoverer, found| recoverer.judge(BLOCK.head, BLOCK.len, found));
                },
                |a: &Arena| {
                    let first = User::of(a, OTHER);
                    assert!(first.take());
                    first.give();
                    let mut cache = Cache::living();
                    assert!(User::of(a, LIVING).park(&mut cache));
                    cache.flush(a);
                }
            ],
        );
        assert_owned(&arena, false, LIVING);
        put_back(&arena, None);
    });
}

/// While the recoverer looks, the block goes from one living to another, who gives it on and dies, and back
/// to the first. The word that was the first one's stands beside the header that was the second one's;
/// that is told from a dead one's block by who was dead before the look.
#[test]
fn block_that_passes_through_one_who_dies_meanwhile_is_its_takers() {
    check(3, || {
        let arena = raw_block_of(LIVING);
        assert!(User::of(&arena, LIVING).take());
        let died = Arc::new(Word::new(0));
        let sees = died.clone();
        race(
            &arena,
            bodies![
                move |a: &Arena| {
                    let before = sees.load() == 1;
                    let is_dead = move |owner: u32| {
                        let late = mutation::is(Mutation::RecoverAsksLate);
                        owner == OTHER && if late { sees.load() == 1 } else { before }
                    };
                    let (sector, lane) = (a.world.sector(), a.world.lane(RECOVERY_LANE, RECOVERER));
                    Recoverer::new(&sector, &lane, a.world.roster(), 0, is_dead).judge(
                        BLOCK.head,
                        BLOCK.len,
                        &mut |_| {},
                    );
                },
                move |a: &Arena| {
                    User::of(a, LIVING).give();
                    let second = User::of(a, OTHER);
                    assert!(second.take());
                    second.give();
                    died.store(1);
                    assert!(User::of(a, LIVING).take());
                }
            ],
        );
        assert_owned(&arena, true, LIVING);
        put_back(&arena, Some(State::Held));
    });
}

/// A guard gives by a plain store what it just allocated, and the offset comes without any order.
/// Whoever takes it sees the header and the payload.
fn block_given_by_a_guard(take_it: fn(&Arena) -> bool) {
    check(3, move || {
        let arena = Arc::new(arena(2));
        arena.world.lane(OTHER_LANE, OTHER);
        let taken = race(
            &arena,
            bodies![
                |a: &Arena| {
                    assert_eq!(a.get(LIVING_LANE, LIVING, &Want::held(1)), Some(BLOCK));
                    User::of(a, LIVING).give();
                    false
                },
                move |a: &Arena| {
                    let taken = take_it(a);
                    if taken {
                        let headers = a.world.headers();
                        assert_eq!(headers.left(BLOCK.head), Some(0), "the giver's header");
                        a.own(BLOCK);
                    }
                    taken
                }
            ],
        );
        assert_owned(&arena, true, if taken[1] { OTHER } else { LIVING });
        put_back(&arena, Some(if taken[1] { State::Held } else { State::Allocated }));
    });
}

#[test]
fn block_given_by_a_guard_is_taken_with_header_and_payload() {
    block_given_by_a_guard(|a| {
        let lane = a.world.lane(OTHER_LANE, OTHER);
        take(&a.world.sector_of(OTHER), &lane, BLOCK.head).is_ok()
    });
}

#[test]
fn block_given_by_a_guard_is_taken_unshared_with_header_and_payload() {
    block_given_by_a_guard(|a| take_unshared(&a.world.sector_of(OTHER), BLOCK.head).is_ok());
}

/// What one allocated, another parks unshared and hands out again; who has it third marks it anew, though it
/// was the first one's before. The offset comes with an order: that is what being alone on the block means.
#[test]
fn block_parked_unshared_by_another_and_handed_out_is_the_thirds() {
    check(3, || {
        let arena = raw_block_of(LIVING);
        let told = Arc::new(Word::new(0));
        let teller = told.clone();
        let taken = race(
            &arena,
            bodies![
                move |a: &Arena| {
                    let mut cache = Cache::other();
                    assert!(User::of(a, OTHER).park(&mut cache));
                    cache.unpark(a, State::Allocated);
                    teller.store(1);
                    false
                },
                move |a: &Arena| {
                    let told = told.load() == 1;
                    if told {
                        assert!(User::of(a, LIVING).take());
                    }
                    told
                }
            ],
        );
        assert_owned(&arena, true, if taken[1] { LIVING } else { OTHER });
        put_back(&arena, Some(if taken[1] { State::Held } else { State::Allocated }));
    });
}
