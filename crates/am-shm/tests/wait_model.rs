//! The model of sleeping and rousing: loom runs the very code of `wait/berth.rs` through every
//! interleaving, with words of its own and with sleeps in the place of the kernel's that have no end
//! but a wake. So a lost wake is a deadlock, which loom reports.
//!
//! `cargo xtask model` runs it. Each model that must fail breaks one step of the argument.
#![cfg(loom)]

use core::time::Duration;

use am_layout::Word;
use berth::Berth;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

// Whatever the models do not call is not missed.
#[allow(dead_code)]
#[path = "../src/wait/berth.rs"]
mod berth;

loom::lazy_static! {
    /// The kernel's lock on what sleeps, and its list of sleepers.
    static ref BUCKET: Mutex<()> = Mutex::new(());
    static ref ASLEEP: Condvar = Condvar::new();
}

/// Sleeps if the word holds `expected`; look and sleep are one step under the kernel's lock. Returns
/// whether it slept.
fn futex_wait(word: &Word, expected: u32, _: Option<Duration>) -> bool {
    let bucket = BUCKET.lock().unwrap();
    let sleeps = word.load_relaxed() == expected;
    if sleeps {
        drop(ASLEEP.wait(bucket).unwrap());
    }
    sleeps
}

fn futex_wake(_: &Word, _: u32) -> usize {
    let _bucket = BUCKET.lock().unwrap();
    ASLEEP.notify_all();
    0
}

/// A topic of one word, which counts the messages.
struct Topic {
    posted: Word,
    sleepers: Word,
    wakes: Word,
}

impl Topic {
    fn new() -> Arc<Self> {
        Arc::new(Self { posted: Word::new(0), sleepers: Word::new(0), wakes: Word::new(0) })
    }

    fn berth(&self) -> Berth<'_> {
        Berth::new(&self.sleepers, &self.wakes)
    }

    fn post(&self) {
        self.posted.increment_full();
        self.berth().rouse(u32::MAX);
    }

    /// Sleeps until there are `count` messages.
    fn read(&self, count: u32) {
        let look = || (self.posted.load() >= count).then_some(());
        while look().is_none() && self.berth().sleep(look, Duration::MAX).is_none() {}
    }
}

/// A share in a topic. It is left alone after a deadlock: loom's objects are no more by then, and a
/// second panic would end the process.
struct Share(Option<Arc<Topic>>);

impl Share {
    fn topic(&self) -> &Topic {
        self.0.as_ref().expect("is there until dropped")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let topic = self.0.take();
        if std::thread::panicking() {
            std::mem::forget(topic);
        }
    }
}

/// Runs posters and readers at once, each of which ends only if no wake is lost.
fn check(bodies: &'static [fn(&Topic)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(move || {
        let topic = Share(Some(Topic::new()));
        let (first, others) = bodies.split_first().unwrap();
        let others: Vec<_> = others
            .iter()
            .map(|body| {
                let share = Share(topic.0.clone());
                thread::spawn(move || body(share.topic()))
            })
            .collect();
        first(topic.topic());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(topic.topic().sleepers.load(), 0, "somebody was not counted out");
    });
}

#[test]
fn message_posted_while_a_reader_falls_asleep_wakes_it() {
    check(&[|t| t.read(1), |t| t.post()]);
}

#[test]
fn message_wakes_two_readers() {
    check(&[|t| t.post(), |t| t.read(1), |t| t.read(1)]);
}

#[test]
fn messages_of_two_posters_wake_a_reader_each() {
    check(&[|t| t.read(2), |t| t.post(), |t| t.post()]);
}

#[test]
fn messages_one_after_the_other_wake_a_reader_that_slept_before() {
    let twice = |t: &Topic| {
        t.post();
        t.post();
    };
    check(Box::leak(Box::new([(|t: &Topic| t.read(2)) as fn(&Topic), twice])));
}

// --- what must fail -----------------------------------------------------------------------------

#[test]
#[should_panic(expected = "deadlock")]
fn publication_without_a_barrier_loses_a_wake() {
    check(&[
        |t| t.read(1),
        |t| {
            t.posted.store(1);
            t.berth().rouse(u32::MAX);
        },
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sleep_without_a_second_look_loses_a_wake() {
    check(&[
        |t| {
            while t.posted.load() == 0 {
                let _ = t.berth().sleep(|| None::<()>, Duration::MAX);
            }
        },
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn wake_that_is_not_counted_is_lost() {
    check(&[
        |t| t.read(1),
        |t| {
            t.posted.increment_full();
            if t.berth().sleepers() != 0 {
                futex_wake(&t.wakes, u32::MAX);
            }
        },
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sleeper_that_counts_itself_without_a_barrier_loses_a_wake() {
    check(&[
        |t| {
            t.sleepers.count(1);
            let seen = t.wakes.load();
            if t.posted.load() == 0 {
                futex_wait(&t.wakes, seen, None);
            }
            t.sleepers.decrement();
        },
        |t| t.post(),
    ]);
}
