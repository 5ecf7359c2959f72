//! Readers whose waits are futures.
#![cfg(feature = "async")]

use am_matrix::{Arena, Matrix, plan};
use am_message::{AsyncReader, Message, MessageSet, Start, Topic, TopicError};
use futures_lite::{StreamExt, future};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
struct Wide([u64; 8]);

#[derive(MessageSet, Debug, PartialEq)]
enum Feed<'a> {
    Number(u64),
    Wide(&'a Wide),
    Text(&'a str),
}

fn matrix(size: usize) -> Matrix {
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn segment(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("am-streams-{test}-{}", std::process::id()))
}

#[test]
fn future_lends_every_message_and_the_stream_copies_it() {
    let matrix = matrix(4 << 20);
    let topic = Topic::<Feed>::builder(&matrix, "t").bells_beside(&segment("lend"));
    let topic = topic.open_or_create().unwrap();
    let mut lent: AsyncReader<Feed> = topic.reader().open_async().unwrap();
    let copies = topic.reader().open_async().unwrap().into_stream();
    let poster = topic.poster().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..100 {
                thread::sleep(Duration::from_millis(1));
                poster.post(&number).unwrap();
            }
            poster.post(&Wide([7; 8])).unwrap();
            poster.post("end").unwrap();
        });
        let look = async {
            for number in 0..100 {
                assert_eq!(lent.next().await.view(), Ok(Feed::Number(number)));
            }
            assert_eq!(lent.next().await.view(), Ok(Feed::Wide(&Wide([7; 8]))));
        };
        let (copies, ()) = async_io::block_on(future::zip(copies.take(102).collect(), look));
        let copies: Vec<_> = copies;
        // All kept, and aligned, when moved and cloned as well.
        for (number, copy) in (0..100).zip(&copies) {
            assert_eq!(copy.view(), Ok(Feed::Number(number)));
        }
        for copy in [copies[100].clone(), copies[100].clone().clone()] {
            assert_eq!(copy.view(), Ok(Feed::Wide(&Wide([7; 8]))));
        }
        assert_eq!(copies[101].view(), Ok(Feed::Text("end")));
    });
    assert_eq!(lent.missed(), 0);
}

#[test]
fn future_that_is_dropped_takes_nothing() {
    let matrix = matrix(4 << 20);
    let topic = Topic::<u64>::builder(&matrix, "t").bells_beside(&segment("drop"));
    let topic = topic.open_or_create().unwrap();
    let mut reader = topic.reader().start(Start::Earliest).open_async().unwrap();
    async_io::block_on(async {
        assert!(future::poll_once(reader.next()).await.is_none());
        topic.poster().unwrap().post(&1).unwrap();
        drop(reader.next());
        assert_eq!(reader.next().await.view(), Ok(&1));
    });
}

#[test]
fn members_share_a_stream() {
    let matrix = matrix(4 << 20);
    let topic = Topic::<u64>::builder(&matrix, "t").bells_beside(&segment("group"));
    let topic = topic.open_or_create().unwrap();
    let member = || topic.reader().group("g").open_async().unwrap().into_stream();
    let (one, two) = (member(), member());
    let poster = topic.poster().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..200 {
                poster.post(&number).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        });
        let seen = one.or(two).take(200).map(|copy| *copy.view().unwrap());
        let mut seen: Vec<u64> = async_io::block_on(seen.collect());
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn segment_without_a_name_has_no_async_readers() {
    let topic = Topic::<u64>::builder(&matrix(1 << 20), "t").open_or_create().unwrap();
    let refused = topic.reader().open_async();
    assert!(matches!(refused, Err(TopicError::NoBell { .. })), "{refused:?}");
}
