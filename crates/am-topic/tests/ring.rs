//! One topic, posted to and read by threads; every message is accounted for.
#![cfg(not(loom))]

mod world;

use am_topic::{Flow, Next, NoRoom, Seq, Start};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use world::World;

const LOG: u32 = 7;
const SLOTS: u64 = 1 << LOG;

#[test]
fn reader_sees_what_was_posted_in_order() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut reader = topic.reader(2, Start::Earliest).unwrap();
    assert_eq!(reader.next(), Next::Nothing);
    for n in 0..3 * SLOTS {
        assert_eq!(world.post(&mut poster, n), Ok(Seq(n)));
        assert_eq!(world.read(&mut reader), Some((Seq(n), n)));
        assert_eq!(reader.next(), Next::Nothing);
    }
    assert_eq!(reader.missed(), 0);
}

#[test]
fn poster_of_a_lossless_topic_finds_no_room_until_the_slowest_reader_goes_on() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut slow = topic.reader(2, Start::Earliest).unwrap();
    let mut fast = topic.reader(3, Start::Earliest).unwrap();
    for n in 0..SLOTS {
        world.post(&mut poster, n).unwrap();
        world.read(&mut fast).unwrap();
    }
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom));
    assert!(matches!(slow.next(), Next::Message(_)));
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "it is held still");
    slow.done();
    assert_eq!(world.post(&mut poster, 7), Ok(Seq(SLOTS)));
    drop(slow);
    for n in 1..SLOTS {
        world.post(&mut poster, n).unwrap();
    }
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "the fast one stopped");
    drop(fast);
    world.post(&mut poster, 0).unwrap();
}

#[test]
fn reader_that_comes_late_finds_the_history() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    (0..1000).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    let history = topic.shape().history();
    let mut earliest = topic.reader(2, Start::Earliest).unwrap();
    assert_eq!(world.read(&mut earliest), Some((Seq(1000 - history), 1000 - history)));
    let mut at = topic.reader(3, Start::At(Seq(990))).unwrap();
    assert_eq!(world.read(&mut at), Some((Seq(990), 990)));
    let mut gone = topic.reader(4, Start::At(Seq(3))).unwrap();
    assert_eq!(world.read(&mut gone), Some((Seq(1000 - history), 1000 - history)));
    let mut latest = topic.reader(5, Start::Latest).unwrap();
    assert_eq!(latest.next(), Next::Nothing);
    world.post(&mut poster, 1000).unwrap();
    assert_eq!(world.read(&mut latest), Some((Seq(1000), 1000)));
}

#[test]
fn slow_reader_of_a_lossy_topic_keeps_what_it_holds_and_learns_what_it_missed() {
    let world = World::new(LOG, Flow::Lossy);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut reader = topic.reader(2, Start::Earliest).unwrap();
    world.post(&mut poster, 0).unwrap();
    let Next::Message(held) = reader.next() else { panic!("posted") };
    for n in 1..10 * SLOTS {
        world.post(&mut poster, n).unwrap();
        assert_eq!(world.payload(held.entry.place), 0, "held");
    }
    reader.done();
    let (seq, value) = world.read(&mut reader).unwrap();
    assert_eq!(seq.0, value);
    assert_eq!(reader.missed(), seq.0 - 1);
    // The one held comes back by the next poster that looks.
    world.collect(&mut poster);
    assert_eq!(world.in_use(), SLOTS as usize);
}

#[test]
fn reader_that_advances_over_what_it_holds_goes_on_once() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut reader = topic.reader(2, Start::Earliest).unwrap();
    (0..3).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert!(matches!(reader.next(), Next::Message(_)));
    reader.advance(2);
    reader.done();
    assert_eq!(world.read(&mut reader), Some((Seq(2), 2)), "one more was skipped");
}

#[test]
fn number_that_is_not_published_is_missed() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut reader = topic.reader(2, Start::Earliest).unwrap();
    let mut claims = poster.claim(3).unwrap();
    let first = claims.next().unwrap();
    drop(first);
    assert_eq!(reader.next(), Next::Nothing);
    drop(claims);
    world.post(&mut poster, 9).unwrap();
    assert_eq!(world.read(&mut reader), Some((Seq(3), 9)));
    assert_eq!(reader.missed(), 3);
}

/// Several posters and readers; each message is its poster and a count.
fn storm(flow: Flow, posters: u64, readers: u32, each: u64) {
    let world = World::new(LOG, flow);
    let done = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    let joined = std::sync::Barrier::new(posters as usize + readers as usize);
    thread::scope(|scope| {
        let (world, done, seen, joined) = (&world, &done, &seen, &joined);
        for number in 0..readers {
            scope.spawn(move || {
                let topic = world.topic();
                let mut reader = topic.reader(100 + number, Start::Earliest).unwrap();
                joined.wait();
                let mut last = vec![None; posters as usize];
                let mut count = 0;
                loop {
                    let finished = done.load(Ordering::Acquire);
                    match world.read(&mut reader) {
                        Some((_, value)) => {
                            let (poster, n) = ((value >> 32) as usize, value as u32);
                            assert!(last[poster].is_none_or(|last| last < n), "order of a poster");
                            last[poster] = Some(n);
                            count += 1;
                        }
                        None if finished => break,
                        None => thread::yield_now(),
                    }
                }
                assert_eq!(count + reader.missed(), posters * each);
                if flow == Flow::Lossless {
                    assert_eq!(reader.missed(), 0);
                }
                seen.fetch_add(count, Ordering::Relaxed);
            });
        }
        let mut threads = Vec::new();
        for number in 0..posters {
            threads.push(scope.spawn(move || {
                let topic = world.topic();
                let mut poster = topic.poster(1 + number as u32).unwrap();
                joined.wait();
                for n in 0..each {
                    while world.post(&mut poster, number << 32 | n).is_err() {
                        thread::yield_now();
                    }
                }
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Release);
    });
    let mut poster = world.topic().poster(1).unwrap();
    world.collect(&mut poster);
    assert_eq!(world.in_use(), (posters * each).min(SLOTS) as usize);
    assert!(seen.into_inner() > 0);
}

#[test]
fn storm_lossless() {
    storm(Flow::Lossless, 1, 1, 100_000);
    storm(Flow::Lossless, 3, 3, 20_000);
}

#[test]
fn storm_lossy() {
    storm(Flow::Lossy, 1, 2, 100_000);
    storm(Flow::Lossy, 3, 3, 20_000);
}

#[test]
fn readers_that_come_and_go_see_no_message_torn() {
    let world = World::new(LOG, Flow::Lossy);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (world, done) = (&world, &done);
        for number in 0..2 {
            scope.spawn(move || {
                let topic = world.topic();
                while !done.load(Ordering::Acquire) {
                    let mut reader = topic.reader(100 + number, Start::Earliest).unwrap();
                    for _ in 0..50 {
                        let _ = world.read(&mut reader);
                    }
                }
            });
        }
        let topic = world.topic();
        let mut poster = topic.poster(1).unwrap();
        (0..100_000).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
        done.store(true, Ordering::Release);
    });
}
