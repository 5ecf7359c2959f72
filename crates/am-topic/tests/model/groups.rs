//! Groups: members that take messages, give them back and leave, beside each other and beside posters.

use crate::crew::{GROUP, Worker};
use crate::world::{Hand, LIVING, OTHER, READER, World, spawn, with_group};
use am_layout::model::check;
use am_topic::{Flow, Seq, Start};

/// A full ring, a poster, and two members that have taken nothing yet.
fn full(world: &'static World) -> (Worker, Worker, Hand<'static>) {
    let one = Worker::new(world, READER, Start::Earliest);
    let two = Worker::new(world, OTHER, Start::Earliest);
    let mut hand = Hand::new(world, LIVING, 1..=5);
    (0..world.topic().shape().slots()).for_each(|value| assert!(hand.post(10 + value)));
    (one, two, hand)
}

/// At rest: nothing is lost, nothing is done twice, and the topic goes on.
fn end(world: &World, workers: [Worker; 2], hand: Hand<'static>) {
    let [one, two] = workers;
    let done = one.done.clone();
    drop(one);
    two.account(Seq(0), [done]);
    drop(hand);
    world.assert_sound();
}

/// Two members work beside each other on a full ring.
fn beside_each_other(first: fn(&mut Worker), second: fn(&mut Worker)) {
    // 3 takes minutes.
    check(2, move || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, hand) = full(world);
            let other = spawn(move || {
                first(&mut one);
                one
            });
            second(&mut two);
            end(world, [other.join().unwrap(), two], hand);
        });
    });
}

fn finish_two(worker: &mut Worker) {
    worker.finish();
    worker.finish();
}

#[test]
fn messages_that_two_members_take_at_once_go_to_one_each() {
    beside_each_other(finish_two, finish_two);
}

#[test]
fn message_that_is_given_back_beside_a_taker_is_done_once() {
    beside_each_other(|one| _ = one.refuse(), finish_two);
}

#[test]
fn messages_that_two_members_give_back_at_once_are_done_once() {
    beside_each_other(|one| _ = one.refuse(), |two| _ = two.refuse());
}

#[test]
fn message_that_was_given_back_goes_to_one_of_two() {
    check(3, || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, hand) = full(world);
            one.hold();
            two.finish();
            one.give_back();
            let other = spawn(move || {
                one.finish();
                one
            });
            two.finish();
            end(world, [other.join().unwrap(), two], hand);
        });
    });
}

fn refuse_twice(worker: &mut Worker) {
    worker.refuse();
    worker.refuse();
}

#[test]
fn message_that_there_is_no_room_for_stays_its_members() {
    beside_each_other(refuse_twice, |two| _ = two.finish());
}

#[test]
fn message_that_a_member_leaves_behind_is_done_by_another() {
    check(2, || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, hand) = full(world);
            // The table of returns is full, and the second message stays in the seat.
            refuse_twice(&mut one);
            let other = spawn(move || {
                one.hold();
                drop(one);
            });
            two.finish();
            two.finish();
            other.join().unwrap();
            two.account(Seq(0), []);
            drop(hand);
            world.assert_sound();
        });
    });
}

/// A member works beside a poster that finds room only when the group is done with the first message.
fn beside_a_poster(before: fn(&mut Worker, &mut Worker), works: fn(&mut Worker, &mut Worker)) {
    check(3, move || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, mut hand) = full(world);
            before(&mut one, &mut two);
            let poster = spawn(move || {
                hand.post_each([12]);
                hand
            });
            works(&mut one, &mut two);
            let hand = poster.join().unwrap();
            end(world, [one, two], hand);
        });
    });
}

#[test]
fn message_that_members_take_beside_a_poster_stays() {
    beside_a_poster(
        |_, _| (),
        |one, two| {
            one.hold();
            two.finish();
            one.done();
        },
    );
}

#[test]
fn message_that_is_given_back_beside_a_poster_stays() {
    beside_a_poster(
        |one, _| _ = one.hold(),
        |one, two| {
            one.give_back();
            two.finish();
        },
    );
}

#[test]
fn message_that_was_given_back_stays_beside_a_poster_until_it_is_done() {
    beside_a_poster(
        |one, two| {
            one.hold();
            two.finish();
            one.give_back();
        },
        |one, two| {
            two.hold();
            one.finish();
            two.done();
        },
    );
}

#[test]
fn message_that_is_given_back_beside_its_next_taker_and_a_poster_stays() {
    check(2, || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, mut hand) = full(world);
            one.hold();
            two.finish();
            let poster = spawn(move || {
                hand.post_each([12]);
                hand
            });
            let giver = spawn(move || {
                one.give_back();
                one
            });
            two.finish();
            let hand = poster.join().unwrap();
            let one = giver.join().unwrap();
            end(world, [one, two], hand);
        });
    });
}

#[test]
fn group_that_is_opened_beside_a_poster_that_wraps_is_not_overtaken() {
    for (slots_log, bound) in [(1, 3), (2, 2)] {
        check(bound, move || {
            with_group(slots_log, Flow::Lossless, 12, |world| {
                let mut hand = Hand::new(world, LIVING, 1..=12);
                assert!(hand.post_batch(0) && hand.post_batch(2));
                let poster = spawn(move || {
                    hand.post_batch(4);
                    hand.post_batch(6);
                });
                let mut worker = Worker::new(world, READER, Start::Earliest);
                let first = worker.cursor();
                worker.finish();
                poster.join().unwrap();
                worker.account(first, []);
                world.assert_sound();
            });
        });
    }
}

/// In a lossy topic a member that looks at a message holds it, and what is overrun is missed by the group.
#[test]
fn message_that_is_overrun_while_a_member_looks_at_it_stays() {
    check(2, || {
        with_group(1, Flow::Lossy, 5, |world| {
            let (one, mut two, mut hand) = full(world);
            drop(one);
            let poster = spawn(move || assert!(hand.post(12)));
            two.finish();
            poster.join().unwrap();
            two.count(Seq(0), []);
            world.assert_sound();
        });
    });
}

/// What is given back is kept or given up, but nobody looks at it while it is overwritten.
#[test]
fn group_that_is_closed_beside_one_who_joins_is_kept_or_given_up() {
    check(2, || {
        with_group(1, Flow::Lossless, 5, |world| {
            let (mut one, mut two, mut hand) = full(world);
            two.finish();
            one.refuse();
            let mut done = two.done.clone();
            drop((one, two));
            let late = spawn(move || {
                let mut late = Worker::new(world, READER, Start::Earliest);
                late.finish();
                late
            });
            let closed = world.topic().close_group(GROUP, LIVING).is_ok();
            hand.post_each([12, 13]);
            let mut late = late.join().unwrap();
            while late.finish() {}
            done.extend(late.done.clone());
            done.sort_unstable();
            assert!(
                closed || done.starts_with(&[Seq(0), Seq(1)]),
                "given up, and not closed: {done:?}"
            );
            assert!(done.is_sorted_by(|one, two| one < two), "done twice: {done:?}");
            drop((late, hand));
            world.assert_sound();
        });
    });
}
