//! Lossy topics: posters that overrun readers, and the list of orphans.

use crate::world::{Hand, LIVING, OTHER, READER, Watch, World, spawn, with_world};
use am_layout::model::check;
use am_topic::{Flow, Start};
use loom::thread::JoinHandle;

/// A ring of two, full, whose reader has looked at nothing yet.
fn full(world: &'static World) -> (Watch, Hand<'static>) {
    let watch = Watch::new(world, READER, Start::Earliest);
    let mut hand = Hand::new(world, LIVING, [1, 2, 3, 4]);
    assert!(hand.post(10) && hand.post(11));
    (watch, hand)
}

/// At rest: all is accounted for.
fn end(world: &World, watch: Watch, posters: impl IntoIterator<Item = JoinHandle<()>>) {
    posters.into_iter().for_each(|poster| poster.join().unwrap());
    watch.account();
    world.assert_sound();
}

#[test]
fn message_that_is_overrun_while_a_reader_looks_at_it_stays() {
    check(3, || {
        with_world(1, Flow::Lossy, 4, |world| {
            let (mut watch, mut hand) = full(world);
            let poster = spawn(move || assert!(hand.post(12)));
            watch.read();
            end(world, watch, [poster]);
        });
    });
}

#[test]
fn reader_that_is_overrun_twice_counts_what_it_missed() {
    check(2, || {
        with_world(1, Flow::Lossy, 5, |world| {
            let (mut watch, mut hand) = full(world);
            let poster = spawn(move || assert!(hand.post(12) && hand.post(13)));
            watch.read();
            watch.read();
            end(world, watch, [poster]);
        });
    });
}

#[test]
fn orphan_that_is_let_go_beside_two_collectors_is_collected_once() {
    check(2, || {
        with_world(1, Flow::Lossy, 6, |world| {
            let (mut watch, mut one) = full(world);
            let mut two = Hand::new(world, OTHER, [5, 6]);
            let place = watch.hold().expect("posted");
            assert!(one.post(12));
            assert_eq!(world.look(place), 10);
            let first = spawn(move || one.collect());
            let second = spawn(move || two.collect());
            watch.done();
            end(world, watch, [first, second]);
        });
    });
}

#[test]
fn orphan_that_is_let_go_while_it_is_listed_is_collected_by_another_poster() {
    check(2, || {
        with_world(1, Flow::Lossy, 6, |world| {
            let (mut watch, mut one) = full(world);
            let mut two = Hand::new(world, OTHER, [5, 6]);
            watch.hold().expect("posted");
            let first = spawn(move || assert!(one.post(12)));
            let second = spawn(move || two.collect());
            watch.done();
            end(world, watch, [first, second]);
        });
    });
}

/// The list's entry that one collector looks at goes to another orphan meanwhile, which is held.
#[test]
fn orphan_that_takes_the_place_of_another_one_is_not_collected_while_it_is_held() {
    check(3, || {
        with_world(1, Flow::Lossy, 6, |world| {
            let (mut watch, mut one) = full(world);
            let mut two = Hand::new(world, OTHER, [5, 6]);
            watch.hold().expect("posted");
            assert!(one.post(12));
            watch.done();
            let place = watch.hold().expect("posted");
            let collector = spawn(move || two.collect());
            assert!(one.post(13));
            assert_eq!(world.look(place), 11);
            collector.join().unwrap();
            assert_eq!(world.look(place), 11);
            watch.done();
            watch.account();
            drop(one);
            world.assert_sound();
        });
    });
}

/// Two readers hold one message; the poster overruns it while one of them comes and the other goes.
#[test]
fn message_that_two_readers_hold_stays_until_both_let_go() {
    check(2, || {
        with_world(1, Flow::Lossy, 5, |world| {
            let (mut watch, mut hand) = full(world);
            let mut late = Watch::new(world, READER, Start::Latest);
            watch.hold().expect("posted");
            let poster = spawn(move || {
                assert!(hand.post(12));
                hand.collect();
            });
            late.read();
            watch.done();
            poster.join().unwrap();
            late.account();
            watch.account();
            world.assert_sound();
        });
    });
}
