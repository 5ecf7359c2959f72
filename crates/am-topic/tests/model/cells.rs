//! Messages in the cells of their slots, beside those in blocks.

use crate::world::{DEAD, Hand, LIVING, OTHER, READER, Watch, spawn, with_cells};
use am_layout::model::{check, for_every_death};
use am_layout::mutation::crash_at;
use am_topic::Start;
use std::cell::RefCell;

#[test]
fn short_messages_around_the_end_of_the_ring_are_seen_as_they_were_posted() {
    check(3, || {
        with_cells(1, 3, |world| {
            let mut watch = Watch::new(world, READER, Start::Earliest);
            let mut hand = Hand::new(world, LIVING, 1..=3);
            assert!(hand.post_short(10));
            let poster = spawn(move || {
                hand.post_shorts(11..=13);
                hand
            });
            watch.read();
            watch.read();
            let hand = poster.join().unwrap();
            watch.assert_saw(hand.posted.clone());
            drop(hand);
            world.assert_sound();
        });
    });
}

#[test]
fn short_messages_and_long_ones_follow_each_other_in_one_slot() {
    check(2, || {
        with_cells(1, 5, |world| {
            let mut watch = Watch::new(world, READER, Start::Earliest);
            let mut hand = Hand::new(world, LIVING, 1..=5);
            assert!(hand.post_short(10) && hand.post(11));
            let poster = spawn(move || {
                // Over the short one, and over the long one.
                hand.post(12);
                hand.post_short(13);
                hand
            });
            watch.read();
            watch.read();
            let hand = poster.join().unwrap();
            watch.assert_saw(hand.posted.clone());
            drop(hand);
            world.assert_sound();
        });
    });
}

#[test]
fn two_posters_that_go_around_at_once_never_write_one_cell() {
    check(2, || {
        with_cells(1, 3, |world| {
            // Nobody reads: only they keep each other from it.
            let mut one = Hand::new(world, LIVING, [1, 2, 3]);
            let mut two = Hand::new(world, OTHER, []);
            let poster = spawn(move || {
                two.post_shorts([20, 21]);
                two
            });
            one.post_shorts([10, 11]);
            drop((one, poster.join().unwrap()));
            world.assert_sound();
        });
    });
}

#[test]
fn reader_that_joins_beside_short_messages_is_not_overtaken() {
    check(2, || {
        with_cells(2, 5, |world| {
            let mut hand = Hand::new(world, LIVING, 1..=5);
            (10..14).for_each(|value| assert!(hand.post_short(value)));
            let poster = spawn(move || {
                hand.post_shorts(14..17);
                hand
            });
            let mut watch = Watch::new(world, READER, Start::Earliest);
            watch.read();
            watch.read();
            drop(poster.join().unwrap());
            let (_, missed) = watch.account();
            assert_eq!(missed, 0);
            world.assert_sound();
        });
    });
}

/// The dead posts a short message, over a short one or a long one, and dies on the way.
fn death_over(long: bool) {
    for_every_death(
        0,
        |scene: &RefCell<(Hand<'static>, Hand<'static>)>, writes| {
            let mut scene = scene.borrow_mut();
            crash_at(writes, || assert!(scene.1.post_short(20), "there is room"))
        },
        move |die| {
            with_cells(1, 4, |world| {
                let mut watch = Watch::new(world, READER, Start::Earliest);
                let mut living = Hand::new(world, LIVING, 1..=4);
                assert!(if long { living.post(10) } else { living.post_short(10) });
                assert!(living.post_short(11));
                watch.read();
                watch.read();
                let scene = RefCell::new((living, Hand::new(world, DEAD, [])));
                die(&scene);
                world.recover(&[DEAD]);
                let (mut living, dead) = scene.into_inner();
                assert!(living.post_short(30), "a slot is stuck");
                watch.account();
                drop(living);
                // Whether it died or not, its number is no longer its own.
                std::mem::forget(dead);
                world.assert_sound();
            });
        },
    );
}

#[test]
fn poster_that_dies_over_a_cell_costs_its_message_at_most() {
    death_over(false);
    death_over(true);
}
