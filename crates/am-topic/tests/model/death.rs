//! Posters, readers and recoverers that die before any of their writes.

use crate::world::{DEAD, DEAD_RECOVERER, Hand, LIVING, READER, Watch, World, spawn, with_world};
use am_layout::model::{alone, check, for_every_death};
use am_layout::mutation::crash_at;
use am_topic::{Flow, Start};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Writes that no operation here reaches.
const WRITES_MAX: u32 = 40;

/// A full ring whose reader is at the oldest message, and may hold it; another one's blocks, and the dead's.
struct Scene {
    watch: Watch,
    living: Hand<'static>,
    dead: Hand<'static>,
}

impl Scene {
    fn new(world: &'static World, holds: bool) -> Self {
        let mut watch = Watch::new(world, READER, Start::Earliest);
        let mut living = Hand::new(world, LIVING, 1..=6);
        for value in 0..world.topic().shape().slots() {
            assert!(living.post(10 + value));
        }
        if holds {
            watch.hold().expect("posted");
        }
        Self { watch, living, dead: Hand::new(world, DEAD, 7..=10) }
    }

    /// At rest, after the recovery: the living go on, and all is accounted for.
    fn end(mut self, world: &'static World) {
        self.watch.done();
        self.watch.account();
        assert!(self.living.post(30), "a slot is stuck");
        drop(self.living);
        // Whether it died or not, its number is no longer its own.
        std::mem::forget(self.dead);
        world.assert_sound();
    }
}

/// The dead posts a batch, over messages that were read if `read` says so, and dies on the way; recovered at rest.
fn death_of_a_poster(slots_log: u32, flow: Flow, holds: bool, read: bool) {
    for_every_death(
        0,
        |scene: &RefCell<Scene>, writes| {
            let mut scene = scene.borrow_mut();
            crash_at(writes, || assert!(scene.dead.post_batch(20), "there is room"))
        },
        move |die| {
            with_world(slots_log, flow, 12, |world| {
                let mut scene = Scene::new(world, holds);
                for _ in 0..if read { 2 } else { 0 } {
                    scene.watch.read();
                }
                let scene = RefCell::new(scene);
                die(&scene);
                world.recover(&[DEAD]);
                scene.into_inner().end(world);
            });
        },
    );
}

#[test]
fn poster_that_dies_in_a_lossless_topic_costs_its_message_at_most() {
    death_of_a_poster(1, Flow::Lossless, false, true);
    death_of_a_poster(2, Flow::Lossless, false, true);
}

#[test]
fn poster_that_dies_in_a_lossy_topic_costs_its_message_at_most() {
    death_of_a_poster(1, Flow::Lossy, false, false);
    death_of_a_poster(2, Flow::Lossy, true, false);
}

/// The dead listed an orphan, which was let go, collected and posted anew before the recovery.
#[test]
fn poster_that_dies_while_it_lists_an_orphan_leaves_it_in_one_hand() {
    for_every_death(
        0,
        |dead: &RefCell<Hand<'static>>, writes| {
            crash_at(writes, || assert!(dead.borrow_mut().post(20), "there is room"))
        },
        |die| {
            with_world(1, Flow::Lossy, 12, |world| {
                let Scene { mut watch, mut living, dead } = Scene::new(world, true);
                let dead = RefCell::new(dead);
                die(&dead);
                watch.done();
                living.post(30);
                world.recover(&[DEAD]);
                Scene { watch, living, dead: dead.into_inner() }.end(world);
            });
        },
    );
}

/// The dead collects an orphan that was let go.
#[test]
fn poster_that_dies_while_it_collects_an_orphan_leaves_it_in_one_hand() {
    for_every_death(
        0,
        |dead: &RefCell<Hand<'static>>, writes| crash_at(writes, || dead.borrow_mut().collect()),
        |die| {
            with_world(1, Flow::Lossy, 12, |world| {
                let Scene { mut watch, mut living, dead } = Scene::new(world, true);
                assert!(living.post(30));
                watch.done();
                let dead = RefCell::new(dead);
                die(&dead);
                world.recover(&[DEAD]);
                Scene { watch, living, dead: dead.into_inner() }.end(world);
            });
        },
    );
}

/// One claimed a batch and died at once; another one, who marked it instead, died on the way.
#[test]
fn helper_that_dies_leaves_no_number_unmarked() {
    for_every_death(
        0,
        |helper: &RefCell<Hand<'static>>, writes| {
            crash_at(writes, || helper.borrow_mut().post_each([20]))
        },
        |die| {
            with_world(2, Flow::Lossless, 12, |world| {
                let Scene { watch, living, mut dead } = Scene::new(world, false);
                drop(watch);
                let watch = Watch::new(world, READER, Start::Latest);
                assert!(crash_at(1, || dead.waste(2)), "claimed, and not marked");
                let helper = RefCell::new(Hand::new(world, DEAD_RECOVERER, [11, 12]));
                die(&helper);
                world.recover(&[DEAD, DEAD_RECOVERER]);
                std::mem::forget(helper);
                Scene { watch, living, dead }.end(world);
            });
        },
    );
}

/// One claimed and died; another one posts beside the recoverer.
#[test]
fn claim_of_the_dead_is_marked_beside_a_living_poster() {
    for (slots_log, marked) in [(1, 0), (2, 0), (2, 1)] {
        check(2, move || {
            with_world(slots_log, Flow::Lossless, 12, |world| {
                let Scene { watch, mut living, mut dead } = Scene::new(world, false);
                drop(watch);
                let watch = Watch::new(world, READER, Start::Latest);
                assert!(crash_at(1 + marked, || dead.waste(2)), "claimed");
                let poster = spawn(move || {
                    living.post(20);
                    living
                });
                world.recover(&[DEAD]);
                let living = poster.join().unwrap();
                Scene { watch, living, dead }.end(world);
            });
        });
    }
}

/// The dead posted up to some write; a living poster goes on beside the recoverer.
fn recovery_beside_a_poster(flow: Flow) {
    for_every_death(
        2,
        |dead: &RefCell<Hand<'static>>, writes| {
            crash_at(writes, || dead.borrow_mut().post_each([20]))
        },
        move |die| {
            with_world(1, flow, 12, |world| {
                let Scene { mut watch, mut living, dead } = Scene::new(world, false);
                if flow == Flow::Lossless {
                    watch.read();
                    watch.read();
                } else {
                    watch.hold();
                }
                let dead = RefCell::new(dead);
                die(&dead);
                let poster = spawn(move || {
                    living.post(21);
                    living
                });
                world.recover(&[DEAD]);
                let living = poster.join().unwrap();
                Scene { watch, living, dead: dead.into_inner() }.end(world);
            });
        },
    );
}

#[test]
fn recovery_beside_a_poster_of_a_lossless_topic_takes_nothing_of_it() {
    recovery_beside_a_poster(Flow::Lossless);
}

#[test]
fn recovery_beside_a_poster_of_a_lossy_topic_takes_nothing_of_it() {
    recovery_beside_a_poster(Flow::Lossy);
}

/// The dead overran messages up to some write; a living reader looks at them beside the recoverer.
#[test]
fn recovery_beside_a_reader_takes_nothing_that_it_holds() {
    for_every_death(
        2,
        |dead: &RefCell<Hand<'static>>, writes| {
            crash_at(writes, || assert!(dead.borrow_mut().post(20), "there is room"))
        },
        |die| {
            with_world(1, Flow::Lossy, 12, |world| {
                let Scene { mut watch, living, dead } = Scene::new(world, false);
                let dead = RefCell::new(dead);
                // Beside the dead, too: what it saw of the reader is not what the recoverer sees.
                let reader = spawn(move || {
                    watch.read();
                    watch
                });
                die(&dead);
                world.recover(&[DEAD]);
                let watch = reader.join().unwrap();
                Scene { watch, living, dead: dead.into_inner() }.end(world);
            });
        },
    );
}

/// A reader that joins, reads and leaves; posters go on after its death.
fn death_of_a_reader(flow: Flow) {
    for_every_death(
        0,
        |world: &&'static World, writes| {
            crash_at(writes, || {
                let mut watch = Watch::new(world, DEAD, Start::Earliest);
                watch.read();
                watch.hold();
            })
        },
        move |die| {
            with_world(1, flow, 6, |world| {
                let mut living = Hand::new(world, LIVING, 1..=6);
                living.post_each([10, 11]);
                die(&world);
                world.recover(&[DEAD]);
                assert!(living.post(12) && living.post(13) && living.post(14), "gated by the dead");
                drop(living);
                world.assert_sound();
            });
        },
    );
}

#[test]
fn reader_that_dies_holds_up_nobody() {
    death_of_a_reader(Flow::Lossless);
    death_of_a_reader(Flow::Lossy);
}

/// The reader dies at any write of reading; posters of a lossy topic go on beside the recoverer.
#[test]
fn recovery_of_a_reader_beside_a_poster_leaves_each_block_in_one_hand() {
    for_every_death(
        2,
        |watch: &RefCell<Watch>, writes| {
            crash_at(writes, || {
                let mut watch = watch.borrow_mut();
                watch.read();
                watch.hold();
            })
        },
        |die| {
            with_world(1, Flow::Lossy, 8, |world| {
                let watch = RefCell::new(Watch::new(world, DEAD, Start::Earliest));
                let mut living = Hand::new(world, LIVING, 1..=8);
                living.post_each([10, 11]);
                let poster = spawn(move || living.post_each([12]));
                die(&watch);
                world.recover(&[DEAD]);
                poster.join().unwrap();
                std::mem::forget(watch);
                world.assert_sound();
            });
        },
    );
}

/// The dead posts or collects, dies before any of its writes, and so does its recoverer.
fn death_of_a_recoverer(flow: Flow, holds: bool, act: fn(&mut Hand<'static>)) {
    for writes in 0..WRITES_MAX {
        let died = Arc::new(AtomicBool::new(false));
        let flag = died.clone();
        alone(move || {
            for of_recovery in 0..WRITES_MAX {
                let mut again = true;
                with_world(1, flow, 12, |world| {
                    let mut scene = Scene::new(world, holds);
                    if holds {
                        assert!(scene.living.post(30));
                    } else {
                        scene.watch.read();
                    }
                    let died = crash_at(writes, || act(&mut scene.dead));
                    flag.store(died, SeqCst);
                    again = crash_at(of_recovery, || world.recover(&[DEAD]));
                    world.recover(&[DEAD, DEAD_RECOVERER]);
                    scene.end(world);
                });
                if !again {
                    return;
                }
            }
            panic!("a recovery of more than {WRITES_MAX} writes");
        });
        if !died.load(SeqCst) {
            return;
        }
    }
    panic!("an operation of more than {WRITES_MAX} writes");
}

#[test]
fn recoverer_that_dies_too_leaves_what_the_next_one_ends() {
    death_of_a_recoverer(Flow::Lossless, false, |dead| dead.post_each([20]));
    death_of_a_recoverer(Flow::Lossy, false, |dead| dead.post_each([20]));
    death_of_a_recoverer(Flow::Lossy, true, |dead| dead.post_each([20]));
    death_of_a_recoverer(Flow::Lossy, true, |dead| dead.collect());
}

/// A batch is written beside a recoverer of somebody who claimed before it.
#[test]
fn batch_that_is_finished_beside_a_recoverer_is_seen() {
    for claimed in [1, 2] {
        check(2, move || {
            with_world(2, Flow::Lossless, 12, |world| {
                let Scene { watch, mut living, mut dead } = Scene::new(world, false);
                drop(watch);
                let watch = Watch::new(world, READER, Start::Latest);
                assert!(crash_at(1, || dead.waste(claimed)), "claimed");
                let poster = spawn(move || {
                    assert!(living.post_all(&[21, 22]), "there is room");
                    living
                });
                world.recover(&[DEAD]);
                let mut living = poster.join().unwrap();
                living.post_all(&[23, 24]);
                Scene { watch, living, dead }.end(world);
            });
        });
    }
}
