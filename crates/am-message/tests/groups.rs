//! Groups over a matrix: members that share messages, fail, and leave.

use am_matrix::{Arena, Matrix, plan};
use am_message::{NoGroup, PostError, Reader, Start, Topic, TopicError, WaitStrategy};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

fn matrix() -> Matrix {
    let size = 16 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn topic(matrix: &Matrix) -> Topic<u64> {
    Topic::builder(matrix, "t").capacity(64).open_or_create().unwrap()
}

fn join(topic: &Topic<u64>) -> Reader<u64> {
    topic.reader().group("workers").start(Start::Earliest).open().unwrap()
}

/// The next message's value and how often it was delivered before; it is done then.
fn finish(member: &mut Reader<u64>) -> Option<(u64, u8)> {
    let read = member.try_read()?;
    Some((*read.view().unwrap(), read.attempts()))
}

#[test]
fn members_share_messages_and_get_what_another_gave_back() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let (mut one, mut two) = (join(&topic), join(&topic));
    let mut alone = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post_many(&[0, 1, 2, 3]).unwrap();
    assert_eq!(one.inquire().count(), 4);
    let read = one.read();
    assert!(!read.is_redelivered());
    read.nack();
    assert_eq!(finish(&mut one), Some((1, 0)), "another has the time for what was given back");
    let again = two.read();
    assert_eq!((again.view(), again.attempts(), again.is_redelivered()), (Ok(&0), 1, true));
    again.put_back();
    assert_eq!(finish(&mut two), Some((0, 1)), "put back is not given back");
    let held = one.read_many(10);
    assert_eq!(held.len(), 1, "each message is done by itself");
    assert_eq!(finish(&mut two), Some((3, 0)));
    held.put_back();
    drop(one);
    assert_eq!(finish(&mut two), Some((2, 1)), "its member left");
    assert_eq!(finish(&mut two), None);
    assert_eq!(alone.try_read_many(10).unwrap().len(), 4, "a reader in no group sees all");
    assert_eq!(two.missed(), 0);
}

#[test]
fn message_whose_member_panics_is_not_done() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let (mut one, mut two) = (join(&topic), join(&topic));
    topic.poster().unwrap().post(&7).unwrap();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let read = one.read();
        assert_eq!(read.view(), Ok(&8), "this fails");
    }));
    assert!(failed.is_err());
    assert_eq!(finish(&mut two), Some((7, 1)));
}

#[test]
fn group_keeps_posters_waiting_until_it_is_closed() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let member = join(&topic);
    let poster = topic.poster().unwrap();
    for n in 0..128 {
        poster.try_post(&n).unwrap();
    }
    assert_eq!(poster.try_post(&0), Err(PostError::Full));
    let refused = topic.close_group("workers");
    assert!(matches!(refused, Err(TopicError::NoGroup { cause: NoGroup::HasMembers, .. })));
    drop(member);
    assert_eq!(poster.try_post(&0), Err(PostError::Full), "a group lasts");
    topic.close_group("workers").unwrap();
    poster.try_post(&0).unwrap();
}

#[test]
fn members_follow_a_reader_but_are_not_followed() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let mut first = topic.reader().open().unwrap();
    let mut member = topic.reader().group("workers").after(&first).open().unwrap();
    let refused = topic.reader().after(&member).open();
    assert!(matches!(refused, Err(TopicError::NoLeader { .. })), "{refused:?}");
    topic.poster().unwrap().post(&7).unwrap();
    assert_eq!(member.inquire().count(), 0);
    assert_eq!(finish(&mut member), None);
    assert_eq!(finish(&mut first), Some((7, 0)));
    assert_eq!(finish(&mut member), Some((7, 0)));
}

#[test]
fn sleeping_member_is_woken_by_what_another_gives_back() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let poster = topic.poster().unwrap();
    let mut one = join(&topic);
    let wait = WaitStrategy::SpinThenPark { spins: 0, yields: 0 };
    let mut two = topic.reader().group("workers").wait(wait).open().unwrap();
    poster.post(&7).unwrap();
    let held = one.read();
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            let read = two.read_timeout(Duration::from_secs(20)).expect("given back");
            (*read.view().unwrap(), read.attempts())
        });
        thread::sleep(Duration::from_millis(20));
        held.nack();
        assert_eq!(sleeper.join().unwrap(), (7, 1));
    });
}

#[test]
fn threads_finish_each_message_once() {
    let matrix = matrix();
    let topic = topic(&matrix);
    let (posters, count) = (2, 10_000);
    let finished: Vec<AtomicU32> = (0..posters * count).map(|_| AtomicU32::new(0)).collect();
    let left = AtomicU32::new((posters * count) as u32);
    let waits = [WaitStrategy::PARK, WaitStrategy::SpinThenYield { spins: 10 }, WaitStrategy::PARK];
    thread::scope(|scope| {
        let (topic, finished, left) = (&topic, &finished, &left);
        for wait in waits {
            let open = move || {
                let reader = topic.reader().group("workers").wait(wait);
                reader.start(Start::Earliest).open().unwrap()
            };
            scope.spawn(move || {
                let mut member = open();
                for turn in 0u64.. {
                    if left.load(Ordering::Relaxed) == 0 {
                        break;
                    }
                    let Some(read) = member.read_timeout(Duration::from_millis(20)) else {
                        continue;
                    };
                    if turn % 50 == 7 {
                        read.nack();
                    } else if turn % 500 == 11 {
                        std::mem::forget(read);
                        member = open();
                    } else {
                        finished[*read.view().unwrap() as usize].fetch_add(1, Ordering::Relaxed);
                        drop(read);
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                assert_eq!(member.missed(), 0);
            });
        }
        for number in 0..posters {
            scope.spawn(move || {
                let poster = topic.poster().unwrap();
                for n in 0..count {
                    poster.post(&(number * count + n)).unwrap();
                }
            });
        }
    });
    assert!(finished.iter().all(|times| times.load(Ordering::Relaxed) == 1));
    assert!(matrix.check().is_empty());
}
