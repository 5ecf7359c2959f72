//! Readers that follow others: what comes to them, their leaders have let go.

use crate::world::{Hand, LIVING, OTHER, READER, World, spawn, with_world};
use am_layout::model::check;
use am_topic::{Flow, Next, Reader, Start};

fn reader(world: &'static World, owner: u32, start: Start) -> Reader<'static> {
    world.topic().reader(owner, start).expect("few read")
}

/// A full ring, its leader, and one who follows it.
fn full(world: &'static World) -> (Reader<'static>, Reader<'static>) {
    let leader = reader(world, READER, Start::Earliest);
    let mut follower = reader(world, OTHER, Start::Earliest);
    follower.follow(leader.id()).unwrap();
    let mut hand = Hand::new(world, LIVING, [1, 2, 3]);
    assert!(hand.post(10) && hand.post(11));
    (leader, follower)
}

/// Looks at the next message, and works on it beside; tells whether there was one.
fn lead(world: &World, leader: &mut Reader<'static>) -> bool {
    let Next::Message(held) = leader.next() else { return false };
    world.look_at(&held);
    world.work_on(held.seq);
    true
}

/// Looks at the next message, if there is one: the leader has worked on it, if it is there still.
fn follow(world: &World, follower: &mut Reader<'static>) {
    let Next::Message(held) = follower.next() else { return };
    world.look_at(&held);
    // Before it is asked: loom notices if this is not after the leader's work.
    let work = world.worked_on(held.seq);
    assert!(
        work == 1 || !follower.follows_all(),
        "{:?} came before its leader let it go",
        held.seq
    );
    follower.done();
}

#[test]
fn follower_sees_what_its_leader_let_go() {
    check(3, || {
        with_world(1, Flow::Lossless, 5, |world| {
            let (mut leader, mut follower) = full(world);
            let first = spawn(move || {
                for _ in 0..2 {
                    assert!(lead(world, &mut leader));
                    leader.done();
                }
                leader
            });
            follow(world, &mut follower);
            follow(world, &mut follower);
            let leader = first.join().unwrap();
            assert!(follower.follows_all());
            drop((leader, follower));
            world.assert_sound();
        });
    });
}

/// The leader leaves while it looks at a message, and another reader takes its seat, which begins further on.
#[test]
fn follower_takes_no_other_reader_for_its_leader() {
    check(3, || {
        with_world(1, Flow::Lossless, 5, |world| {
            let (mut leader, mut follower) = full(world);
            let first = spawn(move || {
                assert!(lead(world, &mut leader));
                drop(leader);
                reader(world, READER, Start::Latest)
            });
            follow(world, &mut follower);
            follow(world, &mut follower);
            let next = first.join().unwrap();
            assert!(!follower.follows_all());
            drop((next, follower));
            world.assert_sound();
        });
    });
}
