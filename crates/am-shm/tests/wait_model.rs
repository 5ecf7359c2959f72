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

/// A topic of one word, which counts the messages, and one reader's bell.
struct Topic {
    posted: Word,
    asleep: Word,
    wakes: Word,
    /// The reader of the bell waits for it.
    armed: Word,
    rings: Mutex<bool>,
    rung: Condvar,
}

impl Topic {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            posted: Word::new(0),
            asleep: Word::new(0),
            wakes: Word::new(0),
            armed: Word::new(0),
            rings: Mutex::new(false),
            rung: Condvar::new(),
        })
    }

    fn berth(&self) -> Berth<'_> {
        Berth::new(&self.asleep, &self.wakes)
    }

    fn post(&self) {
        self.posted.increment_full();
        self.berth().rouse();
        if self.berth().disarm() && self.armed.swap_full(0) == 1 {
            self.ring();
        }
    }

    fn look(&self, count: u32) -> Option<()> {
        (self.posted.load() >= count).then_some(())
    }

    /// Sleeps until there are `count` messages.
    fn read(&self, count: u32) {
        let look = || self.look(count);
        while look().is_none() && self.berth().sleep(look, Duration::MAX).is_none() {}
    }

    /// Waits for the bell until there are `count` messages.
    fn listen(&self, count: u32) {
        while self.look(count).is_none() {
            // It is drained first.
            *self.rings.lock().unwrap() = false;
            self.armed.swap_full(1);
            if self.berth().arm(|| self.look(count)).is_some() {
                return;
            }
            self.poll();
        }
    }

    fn ring(&self) {
        *self.rings.lock().unwrap() = true;
        self.rung.notify_all();
    }

    /// Waits until the bell is rung.
    fn poll(&self) {
        let mut rings = self.rings.lock().unwrap();
        while !*rings {
            rings = self.rung.wait(rings).unwrap();
        }
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
        let berth = topic.topic().berth();
        (berth.rouse(), berth.disarm());
        assert!(!berth.has_sleeper() && !berth.has_armed(), "posts would call the kernel for ever");
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

#[test]
fn sleeper_that_dies_neither_hides_another_nor_costs_more_than_one_wake() {
    check(&[
        |t| t.read(1),
        |t| {
            // All that it leaves behind.
            t.asleep.fetch_or_full(1);
        },
        |t| t.post(),
    ]);
}

#[test]
fn bell_is_rung_for_a_message_posted_while_its_reader_arms() {
    check(&[|t| t.listen(1), |t| t.post()]);
}

#[test]
fn bell_is_rung_for_the_last_message_of_two_posters() {
    check(&[|t| t.listen(2), |t| t.post(), |t| t.post()]);
}

#[test]
fn message_reaches_a_sleeper_and_a_bell() {
    check(&[|t| t.post(), |t| t.listen(1), |t| t.read(1)]);
}

// --- what must fail -----------------------------------------------------------------------------

/// Sleeps as [`Berth::sleep`] does, by steps that a model changes.
fn sleep_if(t: &Topic, seen: u32, count: u32) {
    if t.look(count).is_none() {
        futex_wait(&t.wakes, seen, None);
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn publication_without_a_barrier_loses_a_wake() {
    check(&[
        |t| t.read(1),
        |t| {
            t.posted.store(1);
            t.berth().rouse();
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
            if t.asleep.swap_full(0) != 0 {
                futex_wake(&t.wakes, u32::MAX);
            }
        },
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn wake_that_is_counted_before_the_bit_is_cleared_is_lost() {
    check(&[
        |t| t.read(1),
        |t| {
            // It is about another message, which nobody waits for.
            if t.asleep.load() != 0 {
                t.wakes.increment_full();
                t.asleep.swap_full(0);
                futex_wake(&t.wakes, u32::MAX);
            }
        },
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sleeper_that_says_so_without_a_barrier_loses_a_wake() {
    check(&[
        |t| {
            let seen = t.wakes.load();
            t.asleep.store(1);
            sleep_if(t, seen, 1);
        },
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sleeper_that_reads_the_wakes_after_it_said_so_loses_a_wake() {
    check(&[
        |t| {
            while t.look(2).is_none() {
                t.asleep.swap_full(1);
                let seen = t.wakes.load();
                sleep_if(t, seen, 2);
            }
        },
        |t| t.post(),
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn bell_that_is_armed_without_a_second_look_is_not_rung() {
    check(&[
        |t| {
            while t.look(1).is_none() {
                t.armed.swap_full(1);
                let _ = t.berth().arm(|| None::<()>);
                t.poll();
            }
        },
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn bell_that_is_drained_after_it_was_armed_loses_a_ring() {
    check(&[
        |t| {
            while t.look(1).is_none() {
                t.armed.swap_full(1);
                if t.berth().arm(|| t.look(1)).is_some() {
                    return;
                }
                *t.rings.lock().unwrap() = false;
                t.poll();
            }
        },
        |t| t.post(),
    ]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn bell_whose_reader_is_named_after_it_is_armed_is_not_rung() {
    check(&[
        |t| {
            while t.look(1).is_none() {
                if t.berth().arm(|| t.look(1)).is_some() {
                    return;
                }
                t.armed.swap_full(1);
                t.poll();
            }
        },
        |t| t.post(),
    ]);
}
