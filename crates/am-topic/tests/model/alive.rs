//! Lossless topics, and readers that join: posters and readers that all live.

use crate::world::{Hand, LIVING, READER, Watch, World, spawn, two_hands, with_world};
use am_layout::model::check;
use am_topic::{Flow, Start};
use loom::thread::JoinHandle;

/// A reader that was there from the beginning reads beside a poster.
fn reads_beside(
    world: &'static World,
    mut hand: Hand<'static>,
    before: impl FnOnce(&mut Hand<'static>),
    posts: impl FnOnce(&mut Hand<'static>) + 'static,
) {
    let mut watch = Watch::new(world, READER, Start::Earliest);
    before(&mut hand);
    let poster = spawn(move || {
        posts(&mut hand);
        hand
    });
    watch.read();
    watch.read();
    let hand = poster.join().unwrap();
    watch.assert_saw(hand.posted);
    world.assert_sound();
}

#[test]
fn messages_around_the_end_of_the_ring_are_seen_as_they_were_posted() {
    check(3, || {
        with_world(1, Flow::Lossless, 5, |world| {
            let hand = Hand::new(world, LIVING, 1..=5);
            reads_beside(
                world,
                hand,
                |hand| assert!(hand.post(10)),
                |hand| hand.post_each([11, 12, 13]),
            );
        });
    });
}

#[test]
fn batches_around_the_end_of_the_ring_are_seen_as_they_were_posted() {
    check(2, || {
        with_world(2, Flow::Lossless, 9, |world| {
            let hand = Hand::new(world, LIVING, 1..=9);
            let before = |hand: &mut Hand<'_>| assert!(hand.post_all(&[10, 11]) && hand.post(12));
            reads_beside(world, hand, before, |hand| _ = hand.post_all(&[13, 14]));
        });
    });
}

#[test]
fn messages_of_two_posters_are_seen_once_each() {
    check(2, || {
        with_world(1, Flow::Lossless, 6, |world| {
            let mut watch = Watch::new(world, READER, Start::Earliest);
            let [mut one, mut two] = two_hands(world);
            assert!(one.post(10));
            let poster = spawn(move || {
                two.post(20);
                two
            });
            let reader = spawn(move || {
                watch.read();
                watch
            });
            one.post(11);
            let two = poster.join().unwrap();
            let posted = [one.posted.as_slice(), &two.posted].concat();
            drop((one.posted, two.posted));
            reader.join().unwrap().assert_saw(posted);
            world.assert_sound();
        });
    });
}

/// Two posters go once around a ring at once: neither writes a slot that the other has not finished.
#[test]
fn posters_that_go_around_at_once_wait_for_each_other() {
    check(2, || {
        with_world(1, Flow::Lossless, 6, |world| {
            let [mut one, mut two] = two_hands(world);
            let poster = spawn(move || {
                two.post_each([20, 21]);
            });
            one.post_each([10, 11]);
            poster.join().unwrap();
            drop(one);
            world.assert_sound();
        });
    });
}

/// A poster that was alone, and need not look at slots, looks again when another one came in between.
#[test]
fn poster_that_was_alone_waits_for_one_that_came_in_between() {
    check(2, || {
        with_world(1, Flow::Lossless, 6, |world| {
            let [mut one, mut two] = two_hands(world);
            assert!(one.post(10));
            let poster = spawn(move || {
                two.post_each([20]);
            });
            one.post_each([11, 12]);
            poster.join().unwrap();
            drop(one);
            world.assert_sound();
        });
    });
}

/// A poster that lost its number to another one does not say that there is no room, if there is.
#[test]
fn poster_that_another_one_overtakes_finds_the_room_that_there_is() {
    check(3, || {
        with_world(2, Flow::Lossless, 6, |world| {
            let [mut one, mut two] = two_hands(world);
            let poster = spawn(move || assert!(two.post(20), "there is room"));
            assert!(one.post(10), "there is room");
            poster.join().unwrap();
            drop(one);
            world.assert_sound();
        });
    });
}

/// A reader joins beside posters at work; at rest nothing was overtaken unknown.
fn joins_beside(world: &'static World, posters: impl IntoIterator<Item = JoinHandle<()>>) {
    let mut watch = Watch::new(world, READER, Start::Earliest);
    watch.read();
    posters.into_iter().for_each(|poster| poster.join().unwrap());
    let (_, missed) = watch.account();
    let flow = world.topic().shape().flow;
    assert!(flow == Flow::Lossy || missed == 0, "overtaken unknown");
    world.assert_sound();
}

fn reader_joins_beside_a_poster(slots_log: u32, flow: Flow, bound: usize) {
    check(bound, move || {
        with_world(slots_log, flow, 12, |world| {
            let mut hand = Hand::new(world, LIVING, 1..=12);
            assert!(hand.post_batch(10) && hand.post_batch(20));
            let poster = spawn(move || {
                hand.post_batch(30);
                hand.post_batch(40);
            });
            joins_beside(world, [poster]);
        });
    });
}

#[test]
fn reader_that_joins_beside_a_poster_that_wraps_is_not_overtaken() {
    reader_joins_beside_a_poster(1, Flow::Lossless, 3);
    reader_joins_beside_a_poster(2, Flow::Lossless, 2);
}

#[test]
fn reader_that_joins_a_lossy_topic_beside_a_poster_looks_at_whole_messages() {
    reader_joins_beside_a_poster(1, Flow::Lossy, 2);
}

fn reader_joins_beside_two_posters(flow: Flow, bound: usize) {
    check(bound, move || {
        with_world(1, flow, 6, |world| {
            let [mut one, mut two] = two_hands(world);
            assert!(one.post(10) && one.post(11));
            let second = spawn(move || two.post_each([20]));
            let first = spawn(move || one.post_each([12]));
            joins_beside(world, [first, second]);
        });
    });
}

#[test]
fn reader_that_joins_beside_two_posters_is_not_overtaken() {
    reader_joins_beside_two_posters(Flow::Lossless, 2);
}

#[test]
fn reader_that_joins_a_lossy_topic_beside_two_posters_looks_at_whole_messages() {
    // 2 takes minutes.
    reader_joins_beside_two_posters(Flow::Lossy, 1);
}
