//! Waiting on words of a segment: no wake is lost between threads and between processes, a lost one
//! costs one slice, and who sleeps uses no processor time.

mod common;

use std::io::{Read, stdin};
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use am_layout::Word;
use am_shm::{Berth, Segment, Slept, WaitStrategy, Waiter, futex_wait, futex_wake};
use common::actor::{self, Actor, say};
use common::{Scratch, options, payload};
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeValLike;

/// How long anything here may take: who waits so long has lost a wake.
const PATIENCE: Duration = Duration::from_secs(20);
/// Parks at once, so that every wait is a sleep.
const PARK: WaitStrategy = WaitStrategy::SpinThenPark { spins: 0, yields: 0 };
/// How many times two processes send each other a turn.
const TURNS: u32 = 5_000;

/// A place where one is told that a number of messages was posted.
struct Topic<'a> {
    posted: &'a Word,
    asleep: &'a Word,
    wakes: &'a Word,
}

impl<'a> Topic<'a> {
    /// The `n`-th one of a segment.
    fn of(segment: &'a Segment, n: usize) -> Self {
        let [posted, asleep, wakes] = &payload(segment.mapping())[3 * n..3 * n + 3] else {
            unreachable!("a slice of three")
        };
        Self { posted, asleep, wakes }
    }

    fn berth(&self) -> Berth<'a> {
        Berth::new(self.asleep, self.wakes)
    }

    fn post(&self) {
        self.posted.increment_full();
        self.berth().rouse();
    }

    /// Waits for more than `seen` messages, in sleeps as long as may be; panics if that takes too
    /// long.
    #[track_caller]
    fn read(&self, waiter: &mut Waiter, seen: u32) {
        let look = || (self.posted.load() > seen).then_some(());
        let begun = Instant::now();
        let found = waiter.wait(self.berth(), look, Some(begun + PATIENCE));
        assert!(found.is_some(), "message {seen} never came");
        // A sleep that ran to its end was one that lost its wake.
        assert!(begun.elapsed() < am_shm::SLICE_MAX, "a wake was lost: {:?}", begun.elapsed());
    }
}

fn patient(strategy: WaitStrategy) -> Waiter {
    Waiter::new(strategy).slice(am_shm::SLICE_MAX)
}

/// A segment of zeroes.
fn blank(scratch: &Scratch) -> Segment {
    Segment::create(&scratch.place(), &options(), |_| Ok::<(), ()>(())).expect("creates")
}

// --- the child's side ---------------------------------------------------------------------------

#[test]
#[ignore = "the other tests start it as a child process"]
fn child_acts_its_role() {
    let Some((role, place)) = actor::role() else { return };
    let segment = Segment::open(&place, &options()).expect("opens");
    match role.as_str() {
        "answer" => answer(&segment),
        "sleep" => sleep_for_ever(&segment),
        other => panic!("no such role: {other}"),
    }
}

/// Answers each turn.
fn answer(segment: &Segment) {
    let (calls, answers) = (Topic::of(segment, 0), Topic::of(segment, 1));
    let mut waiter = patient(PARK);
    say("ready");
    for turn in 0..TURNS {
        calls.read(&mut waiter, turn);
        answers.post();
    }
    say("done");
}

fn sleep_for_ever(segment: &Segment) {
    say("ready");
    let never = || None::<()>;
    patient(PARK).wait(Topic::of(segment, 0).berth(), never, None);
    stdin().read_to_end(&mut Vec::new()).expect("waits for the end");
}

// --- wakes --------------------------------------------------------------------------------------

#[test]
fn processes_in_turn_lose_no_wake() {
    let scratch = Scratch::new();
    let segment = blank(&scratch);
    let mut other = Actor::start("answer", &scratch, Stdio::null());
    other.expect("ready");

    let (calls, answers) = (Topic::of(&segment, 0), Topic::of(&segment, 1));
    let mut waiter = patient(PARK);
    for turn in 0..TURNS {
        calls.post();
        answers.read(&mut waiter, turn);
    }
    other.expect("done");
}

#[test]
fn readers_of_every_strategy_at_two_mappings_get_every_message() {
    const MESSAGES: u32 = 2_000;
    let scratch = Scratch::new();
    let (one, two) = (blank(&scratch), Segment::open(&scratch.place(), &options()).unwrap());
    let few = WaitStrategy::SpinThenPark { spins: 50, yields: 2 };
    let strategies = [PARK, few, WaitStrategy::SpinThenYield { spins: 50 }, WaitStrategy::PARK];
    // All have read a message before the next one is posted, so each falls asleep each time.
    let round = Barrier::new(strategies.len() + 1);
    thread::scope(|scope| {
        for (n, strategy) in strategies.into_iter().enumerate() {
            let topic = Topic::of(if n % 2 == 0 { &one } else { &two }, 0);
            let round = &round;
            scope.spawn(move || {
                let mut waiter = patient(strategy);
                for seen in 0..MESSAGES {
                    topic.read(&mut waiter, seen);
                    round.wait();
                }
            });
        }
        let topic = Topic::of(&one, 0);
        for _ in 0..MESSAGES {
            topic.post();
            round.wait();
        }
    });
}

#[test]
fn readers_that_take_messages_from_one_another_are_all_woken() {
    const MESSAGES: u32 = 3_000;
    let (posted, taken) = (Word::new(0), Word::new(0));
    let (asleep, wakes) = (Word::new(0), Word::new(0));
    let berth = Berth::new(&asleep, &wakes);
    let take = || {
        let next = taken.load();
        (next < posted.load() && taken.cas(next, next + 1).is_ok()).then_some(next)
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while taken.load() < MESSAGES {
                    let soon = Instant::now() + Duration::from_millis(200);
                    patient(PARK).wait(berth, take, Some(soon));
                }
            });
        }
        for sent in 0..MESSAGES {
            posted.increment_full();
            berth.rouse();
            let begun = Instant::now();
            while taken.load() <= sent {
                assert!(begun.elapsed() < PATIENCE, "message {sent} was not taken");
                thread::yield_now();
            }
            assert!(begun.elapsed() < Duration::from_millis(150), "a wake was lost at {sent}");
        }
    });
}

#[test]
fn wake_that_never_comes_costs_one_slice() {
    let (posted, asleep, wakes) = (Word::new(0), Word::new(0), Word::new(0));
    let slice = Duration::from_millis(50);
    let found_at = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let look = || (posted.load() == 1).then(Instant::now);
            Waiter::new(PARK).slice(slice).wait(Berth::new(&asleep, &wakes), look, None)
        });
        thread::sleep(Duration::from_millis(20));
        posted.store(1); // and the poster dies
        let posted_at = Instant::now();
        reader.join().unwrap().expect("finds it").duration_since(posted_at)
    });
    assert!(found_at < slice + Duration::from_millis(200), "found only after {found_at:?}");
}

#[test]
fn sleeper_that_was_killed_costs_one_call() {
    let scratch = Scratch::new();
    let segment = blank(&scratch);
    let topic = Topic::of(&segment, 0);
    let mut other = Actor::start("sleep", &scratch, Stdio::null());
    other.expect("ready");
    let begun = Instant::now();
    while !topic.berth().has_sleeper() && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    drop(other); // kills it

    assert!(topic.berth().has_sleeper());
    assert_eq!(topic.berth().rouse(), 0, "the dead do not sleep");
    assert!(!topic.berth().has_sleeper(), "the next post calls the kernel for nobody");
    topic.post();
    topic.read(&mut patient(PARK), 0);
}

// --- time ---------------------------------------------------------------------------------------

#[test]
fn deadline_ends_every_strategy() {
    let (asleep, wakes) = (Word::new(0), Word::new(0));
    let berth = Berth::new(&asleep, &wakes);
    let time = Duration::from_millis(60);
    for strategy in [WaitStrategy::Spin, WaitStrategy::YIELD, WaitStrategy::PARK, PARK] {
        let begun = Instant::now();
        let found = patient(strategy).wait(berth, || None::<()>, Some(begun + time));
        let took = begun.elapsed();
        assert!(found.is_none());
        assert!(took >= time && took < time + Duration::from_secs(2), "{strategy:?}: {took:?}");

        let mut looks = 0;
        let look = || {
            looks += 1;
            None::<()>
        };
        assert!(patient(strategy).wait(berth, look, Some(begun)).is_none());
        assert!(looks > 0, "{strategy:?} did not look at all");
    }
}

#[test]
fn signals_neither_end_a_sleep_nor_lengthen_it() {
    static SIGNALS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler touches an atomic only, and no other test uses this signal.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sets the handler");

    let (word, time) = (Word::new(0), Duration::from_millis(300));
    let (is_over, begun) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        // SAFETY: asks for this thread's own id.
        let sleeper = unsafe { libc::pthread_self() };
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                // SAFETY: the sleeper lives, for it waits for this thread at the end of the scope.
                unsafe { libc::pthread_kill(sleeper, libc::SIGUSR1) };
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(futex_wait(&word, 0, Some(time)), Slept::TimedOut);
        is_over.store(true, Ordering::SeqCst);
    });
    let took = begun.elapsed();
    assert!(took >= time && took < time + Duration::from_secs(2), "took {took:?}");
    assert!(SIGNALS.load(Ordering::Relaxed) > 5, "too few signals to tell");
}

#[test]
fn parked_reader_uses_no_processor_time() {
    fn processor_time() -> i64 {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("tells");
        (usage.user_time() + usage.system_time()).num_microseconds()
    }
    let (asleep, wakes) = (Word::new(0), Word::new(0));
    let deadline = Some(Instant::now() + Duration::from_secs(1));
    let mut waiter = Waiter::new(WaitStrategy::default());
    let before = processor_time();
    assert!(waiter.wait(Berth::new(&asleep, &wakes), || None::<()>, deadline).is_none());
    let used = processor_time() - before;
    println!("a second of waiting took {used} us of processor time");
    assert!(used < 5_000, "a second of waiting took {used} us of processor time");
}

#[test]
fn futex_of_another_mapping_is_the_same() {
    let scratch = Scratch::new();
    let (one, two) = (blank(&scratch), Segment::open(&scratch.place(), &options()).unwrap());
    let (here, there) = (&payload(one.mapping())[0], &payload(two.mapping())[0]);
    assert!(!std::ptr::eq(here, there));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| futex_wait(here, 0, Some(PATIENCE)));
        let begun = Instant::now();
        // The word does not change yet, so a sleeper that is woken sleeps again.
        while futex_wake(there, 1) == 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody sleeps there");
            thread::yield_now();
        }
        there.store(1);
        futex_wake(there, 1);
        assert_eq!(sleeper.join().unwrap(), Slept::Woken);
    });
}
