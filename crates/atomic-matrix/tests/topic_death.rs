//! What becomes of messages whose reader is killed: a group's go to another member, and followers go on.

mod common;

use atomic_matrix::{Matrix, ReaderId, Seq, Start, Topic};
use common::child::{Actor, role, say};
use common::{MIB, Scratch, assert_sound};
use std::io::BufRead;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn topic(matrix: &Matrix) -> Topic<u64> {
    matrix.topic("t").open_or_create().expect("opens")
}

/// A child of these tests: does what it is told by a line, and answers with a number.
#[test]
fn child_entry() {
    let Some((_, segment)) = role() else { return };
    let matrix = Matrix::builder().open(&segment).expect("opens");
    let topic = topic(&matrix);
    let mut member = topic.reader().group("workers").start(Start::Earliest).open().expect("joins");
    let mut reader = topic.reader().start(Start::Earliest).open().expect("joins");
    say("ready");
    for line in std::io::stdin().lock().lines() {
        match line.expect("text").as_str() {
            "take" => {
                let read = member.read_timeout(SOON).expect("posted");
                say(*read.view().expect("a number"));
                std::mem::forget(read);
            }
            "finish" => say(*member.read_timeout(SOON).expect("posted").view().expect("a number")),
            "read" => say(*reader.read_timeout(SOON).expect("posted").view().expect("a number")),
            "id" => say(reader.id().expect("no member").to_raw()),
            other => panic!("no order: {other}"),
        }
    }
}

fn start(scratch: &Scratch) -> (Matrix, Topic<u64>, Actor) {
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let topic = topic(&matrix);
    let mut actor = Actor::start("any", &scratch.name());
    assert_eq!(actor.answer(), "ready");
    (matrix, topic, actor)
}

#[test]
fn message_that_a_killed_member_held_goes_to_one_that_waits() {
    let scratch = Scratch::new();
    let (matrix, topic, mut actor) = start(&scratch);
    let mut member = topic.reader().group("workers").start(Start::Earliest).open().unwrap();
    topic.poster().unwrap().post_many(&[5, 6]).unwrap();
    assert_eq!(actor.ask("finish"), "5");
    assert_eq!(actor.ask("take"), "6");
    assert!(member.try_read().is_none());
    drop(actor);
    // Nobody recovers but the member itself, while it waits.
    let read = member.read_timeout(SOON).expect("goes to another");
    assert_eq!((read.view(), read.attempts(), read.seq()), (Ok(&6), 1, Seq(1)));
    drop(read);
    assert!(member.try_read().is_none(), "what was done does not come again");
    assert_sound(&matrix);
}

#[test]
fn follower_of_a_killed_reader_goes_on_by_itself() {
    let scratch = Scratch::new();
    let (_matrix, topic, mut actor) = start(&scratch);
    let leader = ReaderId::from_raw(actor.ask("id").parse().expect("a number"));
    let mut follower = topic.reader().start(Start::Earliest).after_id(leader).open().unwrap();
    topic.poster().unwrap().post_many(&[5, 6]).unwrap();
    assert_eq!(actor.ask("read"), "5");
    let read = follower.read_timeout(SOON).expect("let go");
    assert_eq!((read.view(), read.follows_all()), (Ok(&5), true));
    drop(read);
    assert!(follower.try_read().is_none());
    drop(actor);
    let read = follower.read_timeout(SOON).expect("nobody waits for the dead");
    assert_eq!((read.view(), read.follows_all()), (Ok(&6), false));
}
