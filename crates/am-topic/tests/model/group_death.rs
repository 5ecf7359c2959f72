//! Members of groups that die before any of their writes.

use crate::crew::{GROUP, Worker};
use crate::world::{DEAD, DEAD_RECOVERER, Hand, LIVING, OTHER, World, spawn, with_group};
use am_layout::model::for_every_death;
use am_layout::mutation::crash_at;
use am_topic::{Flow, Seq, Start};
use std::cell::RefCell;

/// Writes that no recovery here reaches.
const WRITES_MAX: u32 = 40;

/// A full ring, its poster, a member that lives, and one that dies.
struct Scene {
    living: Worker,
    dead: Option<Worker>,
    hand: Hand<'static>,
}

impl Scene {
    fn new(world: &'static World) -> Self {
        let dead = Some(Worker::new(world, DEAD, Start::Earliest));
        let living = Worker::new(world, OTHER, Start::Earliest);
        let mut hand = Hand::new(world, LIVING, 1..=5);
        (0..world.topic().shape().slots()).for_each(|value| assert!(hand.post(10 + value)));
        Self { living, dead, hand }
    }

    /// At rest, after the recovery: every message is done once, and the topic goes on.
    fn end(self, world: &World) {
        self.living.account(Seq(0), self.dead.map(Worker::bury));
        drop(self.hand);
        world.assert_sound();
    }
}

/// What the dead does until it dies.
type Act = fn(&mut Option<Worker>);

/// Takes, is done, and takes the next one.
fn take(dead: &mut Option<Worker>) {
    let dead = dead.as_mut().unwrap();
    dead.finish();
    dead.hold();
}

/// Gives two messages back, for one of which there is room; takes the other one again.
fn give_back(dead: &mut Option<Worker>) {
    let dead = dead.as_mut().unwrap();
    dead.refuse();
    dead.refuse();
    dead.hold();
}

/// Takes a message and leaves.
fn leave(dead: &mut Option<Worker>) {
    dead.as_mut().unwrap().hold();
    // What it was done with is nothing.
    drop(dead.take());
}

fn dies(act: Act) -> impl Fn(&RefCell<Option<Worker>>, u32) -> bool + Copy + Send + Sync {
    move |dead, writes| crash_at(writes, || act(&mut dead.borrow_mut()))
}

/// The dead is recovered from at rest.
fn death(before: fn(&mut Worker), act: Act) {
    for_every_death(0, dies(act), move |die| {
        with_group(1, Flow::Lossless, 5, |world| {
            let Scene { mut living, dead, hand } = Scene::new(world);
            before(&mut living);
            let dead = RefCell::new(dead);
            die(&dead);
            world.recover(&[DEAD]);
            Scene { living, dead: dead.into_inner(), hand }.end(world);
        });
    });
}

#[test]
fn member_that_dies_leaves_what_it_was_not_done_with() {
    death(|_| (), take);
    death(|_| (), give_back);
    death(|_| (), leave);
}

#[test]
fn member_that_dies_with_a_returned_message_leaves_it() {
    death(
        |living| _ = living.refuse(),
        |dead| {
            take(dead);
            dead.as_mut().unwrap().give_back();
        },
    );
}

/// The dead looks at a message of a lossy topic, which is overrun.
#[test]
fn member_that_dies_in_a_lossy_topic_holds_nothing() {
    for_every_death(0, dies(take), |die| {
        with_group(1, Flow::Lossy, 5, |world| {
            let Scene { living, dead, mut hand } = Scene::new(world);
            let dead = RefCell::new(dead);
            die(&dead);
            hand.post_each([12, 13]);
            world.recover(&[DEAD]);
            living.count(Seq(0), dead.into_inner().map(Worker::bury));
            drop(hand);
            world.assert_sound();
        });
    });
}

/// The dead and its recoverer work beside a living thread.
fn death_beside(act: Act, beside: fn(&mut Worker, &mut Hand<'static>)) {
    for_every_death(2, dies(act), move |die| {
        with_group(1, Flow::Lossless, 5, |world| {
            let Scene { mut living, dead, mut hand } = Scene::new(world);
            let dead = RefCell::new(dead);
            let other = spawn(move || {
                beside(&mut living, &mut hand);
                (living, hand)
            });
            die(&dead);
            world.recover(&[DEAD]);
            let (living, hand) = other.join().unwrap();
            Scene { living, dead: dead.into_inner(), hand }.end(world);
        });
    });
}

fn take_one(dead: &mut Option<Worker>) {
    dead.as_mut().unwrap().finish();
}

fn give_back_one(dead: &mut Option<Worker>) {
    dead.as_mut().unwrap().refuse();
}

#[test]
fn message_of_the_dead_is_done_once_beside_a_living_member() {
    death_beside(take_one, |living, _| _ = living.finish());
}

#[test]
fn message_that_the_dead_gave_back_is_done_once_beside_a_living_member() {
    death_beside(give_back_one, |living, _| _ = living.finish());
}

#[test]
fn message_of_the_dead_stays_beside_a_poster() {
    death_beside(take_one, |_, hand| hand.post_each([12]));
    death_beside(give_back_one, |_, hand| hand.post_each([12]));
}

/// Whoever makes the group and takes its first message dies, and another one joins.
#[test]
fn group_whose_founder_dies_is_opened_by_the_next() {
    for_every_death(
        0,
        |(world, dead): &(&'static World, RefCell<Option<Worker>>), writes| {
            crash_at(writes, || {
                let mut dead = dead.borrow_mut();
                dead.insert(Worker::new(world, DEAD, Start::Earliest)).hold();
            })
        },
        |die| {
            with_group(1, Flow::Lossless, 5, |world| {
                let mut hand = Hand::new(world, LIVING, 1..=5);
                assert!(hand.post(10));
                let dead = (world, RefCell::new(None));
                die(&dead);
                world.recover(&[DEAD]);
                let living = Worker::new(world, OTHER, Start::Earliest);
                assert!(hand.post(11));
                Scene { living, dead: dead.1.into_inner(), hand }.end(world);
            });
        },
    );
}

/// One member gave its message back, another one was done with its; whoever closes the group dies.
#[test]
fn group_whose_closer_dies_is_kept_or_given_up() {
    for_every_death(
        0,
        |world: &&'static World, writes| {
            crash_at(writes, || world.topic().close_group(GROUP, DEAD).unwrap())
        },
        |die| {
            with_group(1, Flow::Lossless, 5, |world| {
                let Scene { mut living, dead, mut hand } = Scene::new(world);
                let mut other = dead.expect("it lives yet");
                other.finish();
                living.refuse();
                drop((living, other));
                let died = die(&world);
                world.recover(&[DEAD]);
                let mut late = Worker::new(world, OTHER, Start::Earliest);
                assert_eq!(late.cursor(), Seq(2));
                let kept = late.finish();
                assert!(died || !kept, "closed, and kept");
                drop(late);
                world.topic().close_group(GROUP, LIVING).unwrap();
                hand.post_each([12, 13]);
                drop(hand);
                world.assert_sound();
            });
        },
    );
}

/// A member dies before any of its writes, and so does its recoverer.
#[test]
fn recoverer_of_a_member_that_dies_too_leaves_what_the_next_one_ends() {
    for_every_death(0, dies(give_back), |die| {
        for of_recovery in 0..WRITES_MAX {
            let mut again = true;
            with_group(1, Flow::Lossless, 5, |world| {
                let Scene { living, dead, hand } = Scene::new(world);
                let dead = RefCell::new(dead);
                die(&dead);
                again = crash_at(of_recovery, || world.recover(&[DEAD]));
                world.recover(&[DEAD, DEAD_RECOVERER]);
                Scene { living, dead: dead.into_inner(), hand }.end(world);
            });
            if !again {
                return;
            }
        }
        panic!("a recovery of more than {WRITES_MAX} writes");
    });
}
