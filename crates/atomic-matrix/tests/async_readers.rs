//! Async readers of several processes: what is posted comes, and while nothing is posted they use no processor.
#![cfg(feature = "async")]

mod common;

use atomic_matrix::{Matrix, Poster, Topic};
use common::child::{Actor, role, say};
use common::{MIB, Scratch};
use futures_lite::{StreamExt, future};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::thread;
use std::time::{Duration, Instant};

const COUNT: u64 = 300;
/// How long a ring may take on a busy machine; without it, the reader looks after a second.
const SOON: Duration = Duration::from_millis(500);

fn topic(matrix: &Matrix) -> Topic<u64> {
    matrix.topic("t").stamped(true).open_or_create().expect("opens")
}

fn processor_time_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("tells");
    (usage.user_time() + usage.system_time()).num_microseconds()
}

/// A child of these tests: reads a stream and a lending reader at once, then is idle.
#[test]
fn child_entry() {
    let Some((role, segment)) = role() else { return };
    let matrix = Matrix::builder().open(&segment).expect("opens");
    let topic = topic(&matrix);
    let copies = topic.reader().open_async().expect("joins").into_stream();
    let mut lent = topic.reader().open_async().expect("joins");
    say("ready");
    if role == "sleep" {
        async_io::block_on(lent.next());
        return;
    }
    let mut latest = Duration::ZERO;
    let look = async {
        for number in 0..COUNT {
            let message = lent.next().await;
            latest = latest.max(message.info().age().expect("stamped"));
            assert_eq!(message.view(), Ok(&number));
        }
    };
    let copies = copies.take(COUNT as usize).map(|copy| *copy.view().unwrap()).collect();
    let (copies, ()): (Vec<_>, ()) = async_io::block_on(future::zip(copies, look));
    assert_eq!(copies, (0..COUNT).collect::<Vec<_>>());
    say(latest.as_micros());

    let before = processor_time_us();
    let idle = future::or(async { Some(*lent.next().await.view().unwrap()) }, async {
        async_io::Timer::after(Duration::from_secs(2)).await;
        None
    });
    assert_eq!(async_io::block_on(idle), None);
    say(processor_time_us() - before);
    assert_eq!(lent.missed(), 0);
}

/// Posts so slowly that readers fall asleep in between.
fn post(poster: &Poster<u64>) {
    for number in 0..COUNT {
        poster.post(&number).expect("posts");
        thread::sleep(Duration::from_micros(number % 3 * 500));
    }
}

#[test]
fn messages_come_when_they_are_posted_and_idle_readers_use_no_processor() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let topic = topic(&matrix);
    let mut actor = Actor::start("read", &scratch.name());
    assert_eq!(actor.answer(), "ready");
    post(&topic.poster().unwrap());
    let latest = Duration::from_micros(actor.answer().parse().expect("a number"));
    assert!(latest < SOON, "a message came after {latest:?}: it was not rung for");
    let used_us: u64 = actor.answer().parse().expect("a number");
    println!(
        "latest message after {latest:?}; two idle seconds took {used_us} µs of processor time"
    );
    assert!(used_us < 10_000, "two idle seconds took {used_us} µs of processor time");
    actor.finish();
    assert_eq!(litter(&scratch), 0, "readers that end remove their bells");
}

#[test]
fn async_reader_that_was_killed_costs_one_ring_and_leaves_no_litter() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let topic = topic(&matrix);
    let mut actor = Actor::start("sleep", &scratch.name());
    assert_eq!(actor.answer(), "ready");
    let begun = Instant::now();
    while litter(&scratch) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "there are no bells");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(100));
    drop(actor);
    // Whoever rings the dead one removes its bell; the other one was not armed.
    topic.poster().unwrap().post(&1).unwrap();
    assert_eq!(litter(&scratch), 1);
    assert_eq!(matrix.recover().readers, 2);
    let mut reader = topic.reader().open_async().unwrap();
    assert_eq!(litter(&scratch), 1, "the other one is removed by the next who listens");
    topic.poster().unwrap().post(&2).unwrap();
    assert_eq!(async_io::block_on(reader.next()).view(), Ok(&2));
}

/// How many bells there are.
fn litter(scratch: &Scratch) -> usize {
    let names = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name());
    let bells = names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with(&scratch.name()) && name.ends_with(".bell")
    });
    bells.count()
}
