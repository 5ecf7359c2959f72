//! What becomes of messages whose reader is killed: a group's go to another member, and followers go on.

mod common;

use atomic_matrix::{Error, Matrix, PostError, ReaderId, Seq, Start, Topic};
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

#[test]
fn child_of_fork_leaves_its_parents_posters_and_readers_alone() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let topic = topic(&matrix);
    let poster = topic.poster().unwrap();
    let mut reader = topic.reader().start(Start::Earliest).open().unwrap();
    let mut member = topic.reader().group("workers").start(Start::Earliest).open().unwrap();
    poster.post_many(&[1, 2]).unwrap();
    let read = reader.read();
    // SAFETY: the child uses what it inherited only to be refused, and ends without returning.
    match unsafe { nix::unistd::fork() }.expect("forks") {
        nix::unistd::ForkResult::Child => {
            drop(read);
            let refused = matches!(poster.try_post(&3), Err(PostError::Memory(Error::Forked)))
                && poster.try_post_many(&[3, 4]).is_err();
            let nothing = reader.try_read().is_none()
                && reader.try_read_many(2).is_none()
                && member.try_read().is_none();
            drop((poster, reader, member));
            // SAFETY: ends this process at once.
            unsafe { nix::libc::_exit(if refused && nothing { 0 } else { 1 }) };
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).expect("ends");
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    // Number, seats and cursors are what they were.
    assert_eq!(read.view(), Ok(&1));
    drop(read);
    let other = topic.poster().unwrap();
    other.post(&3).unwrap();
    poster.post(&4).unwrap();
    let rest: Vec<u64> =
        std::iter::from_fn(|| reader.try_read().map(|read| *read.view().unwrap())).collect();
    assert_eq!(rest, [2, 3, 4]);
    let all: Vec<u64> =
        std::iter::from_fn(|| member.try_read().map(|read| *read.view().unwrap())).collect();
    assert_eq!(all, [1, 2, 3, 4]);
    let seats: Vec<_> = std::iter::from_fn(|| topic.reader().open().ok()).collect();
    assert_eq!(seats.len(), 63, "one seat is the reader's");
}
