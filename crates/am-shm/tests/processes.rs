//! Races and deaths of processes.
//!
//! A child waits for the end of its standard input where a start is to be simultaneous.

mod common;

use std::fs;
use std::io::{Read, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use am_shm::{Error, InitError, Options, Place, Segment};
use common::actor::{self, Actor, say};
use common::{SIZE_BYTES, Scratch, options, payload, stamp, stamp_of};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, setuid};

const PROCESSES: usize = 8;
const NOBODY: u32 = 65_534;

// --- the child's side ---------------------------------------------------------------------------

#[test]
#[ignore = "the other tests start it as a child process"]
fn child_acts_its_role() {
    let Some((role, place)) = actor::role() else { return };
    match role.as_str() {
        "race" => race(&place, &options()),
        "race under a hostile umask" => {
            if Uid::effective().is_root() {
                setuid(Uid::from_raw(NOBODY)).expect("gives up being root");
            }
            umask(Mode::from_bits_truncate(0o777));
            race(&place, &options());
        }
        "stall" => stall(&place),
        "modes" => modes(&place),
        "attach" => attach(),
        other => panic!("no such role: {other}"),
    }
}

fn race(place: &Place, options: &Options) {
    say("waiting");
    stdin().read_to_end(&mut Vec::new()).expect("waits for the start");
    let pid = std::process::id();
    let segment =
        Segment::open_or_create(place, options, |mapping| stamp(mapping, pid)).expect("opens");
    let how = if segment.formatted_here() { "formatted" } else { "opened" };
    say(&format!("{how} {}", stamp_of(&segment)));
}

/// Dirties the whole payload, says so, and never finishes.
fn stall(place: &Place) {
    let made = Segment::open_or_create(place, &options(), |mapping| {
        for word in payload(mapping) {
            word.store(u32::MAX);
        }
        say("formatting");
        thread::sleep(Duration::from_secs(600));
        Err("nobody killed the stalled formatter")
    });
    panic!("{made:?}");
}

fn modes(place: &Place) {
    for mask in [0o000, 0o022, 0o077, 0o777] {
        umask(Mode::from_bits_truncate(mask));
        for mode in [0o600, 0o640, 0o666, 0o777] {
            let wanted = Options { mode, ..options() };
            let segment = Segment::create(place, &wanted, |m| stamp(m, 1)).expect("creates");
            let path = segment.place().expect("has a path");
            let seen = fs::metadata(path).expect("exists").permissions().mode() & 0o7777;
            assert_eq!(seen, mode, "{seen:#o} under umask {mask:#o}");
            segment.destroy().expect("destroys");
        }
    }
    say("exact");
}

fn attach() {
    let fd = stdin().as_fd().try_clone_to_owned().expect("has a standard input");
    let segment = Segment::attach(fd, &options()).expect("attaches");
    assert!(segment.sealed() && !segment.formatted_here());
    let stamp = stamp_of(&segment);
    payload(segment.mapping())[1].store(stamp + 1);
    say("attached");
}

// --- the parent's side --------------------------------------------------------------------------

/// Starts a race of `PROCESSES` children; returns how many formatted.
fn run_race(role: &str, scratch: &Scratch) -> usize {
    let mut actors: Vec<_> =
        (0..PROCESSES).map(|_| Actor::start(role, scratch, Stdio::piped())).collect();
    actors.iter_mut().for_each(|actor| actor.expect("waiting"));
    actors.iter_mut().for_each(Actor::go);
    let answers: Vec<_> = actors.iter_mut().map(Actor::answer).collect();
    let stamps: Vec<_> = answers.iter().map(|a| a.split_once(' ').expect("two words").1).collect();
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{answers:?}");
    answers.iter().filter(|answer| answer.starts_with("formatted")).count()
}

#[test]
fn processes_racing_find_one_formatter() {
    for round in 0..10 {
        let scratch = Scratch::new();
        assert_eq!(run_race("race", &scratch), 1, "round {round}");
        let segment = Segment::open(&scratch.place(), &options()).unwrap();
        assert_eq!(segment.takeovers(), 0, "round {round}");
    }
}

#[test]
fn processes_racing_under_a_hostile_umask_find_one_formatter() {
    for round in 0..5 {
        let scratch = Scratch::new();
        assert_eq!(run_race("race under a hostile umask", &scratch), 1, "round {round}");
        assert_eq!(fs::metadata(scratch.path()).unwrap().mode() & 0o7777, 0o600);
    }
}

#[test]
fn mode_under_every_umask_is_exact() {
    let scratch = Scratch::new();
    Actor::start("modes", &scratch, Stdio::null()).expect("exact");
}

#[test]
fn formatter_killed_half_way_is_taken_over_by_one_who_waits() {
    let scratch = Scratch::new();
    let mut formatter = Actor::start("stall", &scratch, Stdio::null());
    formatter.expect("formatting");
    thread::scope(|scope| {
        let waiters: Vec<_> = (1..=4)
            .map(|i| {
                let place = scratch.place();
                // Another size than the dead one's: whoever formats decides.
                let other = Options { size_bytes: SIZE_BYTES / 2, ..options() };
                // `stamp` fails unless what the dead formatter wrote is gone.
                scope.spawn(move || Segment::open_or_create(&place, &other, |m| stamp(m, i)))
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        let early = waiters.iter().any(|waiter| waiter.is_finished());
        formatter.signal(Signal::SIGKILL);
        let segments: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap().unwrap()).collect();
        assert!(!early, "a waiter did not wait for the living formatter");
        assert_eq!(segments.iter().filter(|s| s.formatted_here()).count(), 1);
        for segment in &segments {
            assert_eq!(segment.takeovers(), 1);
            assert_eq!(segment.mapping().len() as u64, SIZE_BYTES / 2);
            assert_eq!(stamp_of(segment), stamp_of(&segments[0]));
        }
    });
}

#[test]
fn formatter_killed_half_way_without_successor_leaves_a_half_formatted_file() {
    let scratch = Scratch::new();
    let mut formatter = Actor::start("stall", &scratch, Stdio::null());
    formatter.expect("formatting");
    let place = scratch.place();
    let waiter = thread::spawn(move || Segment::open(&place, &options()));
    thread::sleep(Duration::from_millis(20));
    formatter.signal(Signal::SIGKILL);
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::HalfFormatted { takeovers: 0, .. }), "{error:?}");
}

#[test]
fn formatter_stopped_half_way_stalls_others_no_longer_than_they_will_wait() {
    let scratch = Scratch::new();
    let mut formatter = Actor::start("stall", &scratch, Stdio::null());
    formatter.expect("formatting");
    formatter.signal(Signal::SIGSTOP);
    let wait = Duration::from_millis(300);
    let hasty = Options { wait, ..options() };
    let start = Instant::now();
    let opened = Segment::open(&scratch.place(), &hasty).unwrap_err();
    let made = Segment::open_or_create(&scratch.place(), &hasty, |m| stamp(m, 1)).unwrap_err();
    let took = start.elapsed();
    let InitError::Segment(made) = made else { panic!("{made:?}") };
    for error in [opened, made] {
        assert!(
            matches!(error, Error::FormatterStalled { waited, .. } if waited >= wait),
            "{error:?}"
        );
    }
    assert!(took < 2 * wait + Duration::from_secs(5), "{took:?}");
    assert!(scratch.exists());
}

/// Kills two racers at many moments, from before the file exists to after it is ready: whatever
/// they leave, the next one finds or makes a whole segment.
#[test]
fn racers_killed_at_any_moment_leave_a_file_that_can_be_opened_or_created() {
    for round in 0..60_u32 {
        let scratch = Scratch::new();
        let mut racers = [(); 2].map(|()| Actor::start("race", &scratch, Stdio::piped()));
        racers.iter_mut().for_each(|racer| racer.expect("waiting"));
        racers.iter_mut().for_each(Actor::go);
        thread::sleep(Duration::from_micros(u64::from(round) * 20));
        racers.iter().for_each(|racer| racer.signal(Signal::SIGKILL));
        let segment = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, u32::MAX))
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(stamp_of(&segment) == u32::MAX, segment.formatted_here(), "round {round}");
        assert!(segment.takeovers() <= 2, "round {round}: {} takeovers", segment.takeovers());
    }
}

#[test]
fn memfd_passed_to_a_child_is_the_same_memory() {
    let place = Place::Memfd("passed".into());
    let segment = Segment::create(&place, &options(), |m| stamp(m, 40)).unwrap();
    let fd = segment.as_fd().try_clone_to_owned().unwrap();
    let mut child = Actor::start("attach", &Scratch::new(), Stdio::from(fd));
    child.expect("attached");
    assert_eq!(payload(segment.mapping())[1].load(), 41);
}
