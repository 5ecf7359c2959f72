//! Readers that follow readers.

use am_matrix::{Arena, Matrix, plan};
use am_message::{NoLeader, ReaderId, Seq, Start, Topic, TopicError, WaitStrategy};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

fn matrix() -> Matrix {
    let size = 16 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

#[test]
fn follower_gets_what_its_leader_let_go() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    let mut first = topic.reader().open().unwrap();
    let mut second = topic.reader().after_id(ReaderId::from_raw(first.id().unwrap().to_raw()));
    second = second.start(Start::Earliest);
    let mut second = second.open().unwrap();
    poster.post_many(&[0, 1, 2]).unwrap();
    assert!(second.try_read().is_none());
    assert_eq!(second.inquire().count(), 0);
    let held = first.read();
    assert!(second.try_read().is_none(), "the leader holds it");
    drop(held);
    assert_eq!(second.inquire().count(), 1);
    let read = second.try_read().unwrap();
    assert_eq!((read.seq(), read.follows_all()), (Seq(0), true));
    drop(read);
    assert!(second.try_read().is_none());
    drop(first.read_many(2));
    assert_eq!(second.try_read_many(10).unwrap().len(), 2);
}

#[test]
fn follower_of_two_waits_for_the_slower() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    let mut fast = topic.reader().open().unwrap();
    let mut slow = topic.reader().open().unwrap();
    let mut last = topic.reader().after(&fast).after(&slow).open().unwrap();
    poster.post_many(&[0, 1]).unwrap();
    drop(fast.read_many(2));
    assert!(last.try_read().is_none());
    drop(slow.read());
    assert_eq!(last.try_read_many(2).unwrap().len(), 1);
    assert!(last.follows_all());
    drop(slow);
    assert!(!last.follows_all());
    assert_eq!(last.try_read().unwrap().seq(), Seq(1), "the other one was faster");
}

#[test]
fn follower_goes_on_by_itself_when_its_leader_left_and_another_has_its_seat() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    let leader = topic.reader().open().unwrap();
    let mut follower = topic.reader().after(&leader).open().unwrap();
    poster.post(&0).unwrap();
    assert!(follower.try_read().is_none());
    let id = leader.id().unwrap();
    drop(leader);
    let next = topic.reader().start(Start::Earliest).open().unwrap();
    assert_ne!(next.id(), Some(id), "its seat's next turn");
    let read = follower.try_read().unwrap();
    assert!(!read.follows_all());
    drop(read);
    let gone = topic.reader().after_id(id).open();
    assert!(matches!(gone, Err(TopicError::NoLeader { cause: NoLeader::Gone, .. })), "{gone:?}");
}

#[test]
fn reader_of_another_topic_is_not_followed() {
    let matrix = matrix();
    let one = Topic::<u64>::builder(&matrix, "one").open_or_create().unwrap();
    let two = Topic::<u64>::builder(&matrix, "two").open_or_create().unwrap();
    let leader = one.reader().open().unwrap();
    let refused = two.reader().after(&leader).open();
    assert!(matches!(refused, Err(TopicError::NoLeader { .. })), "{refused:?}");
}

/// Three stages, one after the other; each finds the work of the one before done.
fn pipeline(lossy: bool, strategy: WaitStrategy) {
    let matrix = matrix();
    let mut builder = Topic::<u64>::builder(&matrix, "t").capacity(64);
    if lossy {
        builder = builder.lossy();
    }
    let topic = builder.open_or_create().unwrap();
    let (count, stages) = (5_000, 3);
    let work: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let mut readers = Vec::new();
    for stage in 0..stages {
        let mut reader = topic.reader().wait(strategy);
        if stage > 0 {
            reader = reader.after(&readers[stage - 1]);
        }
        readers.push(reader.open().unwrap());
    }
    thread::scope(|scope| {
        for (stage, mut reader) in readers.into_iter().enumerate() {
            let work = &work;
            scope.spawn(move || {
                let mut seen = 0;
                while seen + reader.missed() < count {
                    let Some(read) = reader.read_timeout(Duration::from_millis(100)) else {
                        continue;
                    };
                    let number = *read.view().unwrap() as usize;
                    let before = work[number].load(Ordering::Relaxed);
                    // In a lossy topic a stage may have missed it.
                    assert!(before < 1 << stage, "stage {stage} sees {before}");
                    assert!(lossy || before == (1 << stage) - 1, "stage {stage} sees {before}");
                    work[number].store(before + (1 << stage), Ordering::Relaxed);
                    seen += 1;
                }
                assert!(lossy || reader.missed() == 0);
            });
        }
        let poster = topic.poster().unwrap();
        for n in 0..count {
            poster.post(&n).unwrap();
        }
    });
}

#[test]
fn stages_see_each_others_work() {
    pipeline(false, WaitStrategy::SpinThenYield { spins: 100 });
    pipeline(false, WaitStrategy::SpinThenPark { spins: 10, yields: 0 });
    pipeline(true, WaitStrategy::SpinThenYield { spins: 100 });
}
