//! Bells: who rings them, who may not, and what becomes of them when their readers die.

mod common;

use std::fs;
use std::io::{Read, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use am_shm::{Bell, Error, Place, Ringer, Segment};
use common::actor::{self, Actor, say};
use common::fork::forked;
use common::{Scratch, options, skip};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, mkfifo, setuid};

const TOPIC: &str = "eu/orders";
const READER: u32 = 7;
const NOBODY: u32 = 65_534;
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn listen(scratch: &Scratch) -> Bell {
    Bell::listen(&scratch.path(), TOPIC, READER).expect("listens")
}

fn ringer(scratch: &Scratch) -> Ringer {
    Ringer::open(&scratch.path(), TOPIC, READER).expect("opens the bell")
}

/// Where the bell of the tests is.
fn path(scratch: &Scratch) -> PathBuf {
    let name = scratch.path().file_name().unwrap().to_str().unwrap().to_owned();
    scratch.path().with_file_name(format!("{name}.eu%2Forders.7.bell"))
}

/// What `poll` says within `wait`.
fn polled(bell: &Bell, wait: Duration) -> PollFlags {
    let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(wait).expect("a short time");
    poll(&mut fds, timeout).expect("polls");
    fds[0].revents().expect("known flags only")
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[track_caller]
fn assert_nobody<T>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::NobodyListens { .. })), "{:?}", result.err());
}

#[track_caller]
fn assert_ended_well(child: Pid) {
    assert_eq!(waitpid(child, None).expect("waits"), WaitStatus::Exited(child, 0));
}

// --- the child's side ---------------------------------------------------------------------------

#[test]
#[ignore = "the other tests start it as a child process"]
fn child_acts_its_role() {
    let Some((role, Place::Path(path))) = actor::role() else { return };
    match role.as_str() {
        "listen" => {
            let bell = Bell::listen(&path, TOPIC, READER).expect("listens");
            say("listening");
            assert!(polled(&bell, PATIENCE).contains(PollFlags::POLLIN));
            assert!(bell.drain().expect("drains"));
            say("rung");
            stdin().read_to_end(&mut Vec::new()).expect("waits for the end");
        }
        "ring" => {
            Ringer::open(&path, TOPIC, READER).expect("opens").ring().expect("rings");
            say("rang");
        }
        "come and go" => come_and_go(&path),
        other => panic!("no such role: {other}"),
    }
}

/// Listens at a few bells again and again, and rings what it finds, until it is killed.
fn come_and_go(path: &Path) {
    say("ready");
    for n in 0_u32.. {
        match Bell::listen(path, TOPIC, n % 3) {
            Ok(bell) => match Ringer::open(path, TOPIC, n % 3).and_then(|ringer| ringer.ring()) {
                Ok(()) => assert!(bell.drain().expect("drains"), "a ring was lost"),
                Err(error) => panic!("its own bell: {error}"),
            },
            Err(Error::BellTaken { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match Ringer::open(path, TOPIC, (n + 1) % 3).and_then(|ringer| ringer.ring()) {
            Ok(()) | Err(Error::NobodyListens { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

// --- ringing ------------------------------------------------------------------------------------

#[test]
fn bell_is_readable_from_ring_to_drain() {
    let scratch = Scratch::new();
    let (bell, ringer) = (listen(&scratch), ringer(&scratch));
    assert_eq!(polled(&bell, Duration::ZERO), PollFlags::empty());
    for _ in 0..3 {
        ringer.ring().unwrap();
        ringer.ring().unwrap();
        assert_eq!(polled(&bell, PATIENCE), PollFlags::POLLIN);
        assert!(bell.drain().unwrap());
        assert!(!bell.drain().unwrap());
        assert_eq!(polled(&bell, Duration::ZERO), PollFlags::empty());
    }
}

#[test]
fn bell_without_ringers_hangs_up_on_nobody() {
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    drop(ringer(&scratch));
    assert_eq!(polled(&bell, Duration::from_millis(5)), PollFlags::empty());
    ringer(&scratch).ring().unwrap();
    assert_eq!(polled(&bell, PATIENCE), PollFlags::POLLIN);
}

#[test]
fn ring_at_a_reader_that_never_drains_does_not_block() {
    let scratch = Scratch::new();
    let (bell, ringer) = (listen(&scratch), ringer(&scratch));
    for _ in 0..200_000 {
        ringer.ring().unwrap();
    }
    assert!(bell.drain().unwrap());
    assert!(!bell.drain().unwrap(), "one drain takes all");
}

#[test]
fn bells_of_other_readers_and_topics_stay_silent() {
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    let others = [
        Bell::listen(&scratch.path(), TOPIC, 8).unwrap(),
        Bell::listen(&scratch.path(), "eu", READER).unwrap(),
    ];
    ringer(&scratch).ring().unwrap();
    assert!(bell.drain().unwrap());
    assert!(others.iter().all(|other| !other.drain().unwrap()));
}

#[test]
fn ring_from_another_process_arrives() {
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    let mut other = Actor::start("ring", &scratch, Stdio::null());
    assert_eq!(polled(&bell, PATIENCE), PollFlags::POLLIN);
    other.expect("rang");
    assert!(bell.drain().unwrap());
}

// --- who listens --------------------------------------------------------------------------------

#[test]
fn bell_dropped_leaves_no_file_and_tells_its_ringers() {
    let scratch = Scratch::new();
    assert_nobody(Ringer::open(&scratch.path(), TOPIC, READER));
    let (bell, ringer) = (listen(&scratch), ringer(&scratch));
    assert_eq!(bell.path(), path(&scratch));
    assert!(is_there(&path(&scratch)));
    drop(bell);
    assert!(!is_there(&path(&scratch)));
    assert_nobody(ringer.ring());
    assert_nobody(Ringer::open(&scratch.path(), TOPIC, READER));
}

#[test]
fn listening_twice_is_refused_and_leaves_the_first_alone() {
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    ringer(&scratch).ring().unwrap();
    let again = Bell::listen(&scratch.path(), TOPIC, READER);
    assert!(matches!(again, Err(Error::BellTaken { .. })), "{again:?}");
    assert!(bell.drain().unwrap(), "its ring was taken away");
    ringer(&scratch).ring().unwrap();
}

/// A bell whose reader was killed after one ring, and a ringer of it.
fn dead_bell(scratch: &Scratch) -> Ringer {
    let mut reader = Actor::start("listen", scratch, Stdio::piped());
    reader.expect("listening");
    let ringer = ringer(scratch);
    ringer.ring().unwrap();
    reader.expect("rung");
    reader.signal(Signal::SIGKILL);
    let begun = Instant::now();
    while ringer.ring().is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the ringer never notices the death");
        thread::sleep(Duration::from_millis(1));
    }
    assert_nobody(ringer.ring());
    assert!(is_there(&path(scratch)), "nobody has come yet");
    ringer
}

#[test]
fn bell_of_a_killed_reader_is_removed_by_who_wants_to_ring_it() {
    let scratch = Scratch::new();
    dead_bell(&scratch);
    assert_nobody(Ringer::open(&scratch.path(), TOPIC, READER));
    assert!(!is_there(&path(&scratch)));
}

#[test]
fn bell_of_a_killed_reader_is_removed_by_who_listens_elsewhere() {
    let scratch = Scratch::new();
    dead_bell(&scratch);
    let _other = Bell::listen(&scratch.path(), "another", 0).unwrap();
    assert!(!is_there(&path(&scratch)));
}

#[test]
fn bell_of_a_killed_reader_is_removed_with_the_segment() {
    let scratch = Scratch::new();
    let segment =
        Segment::create(&scratch.place(), &options(), |_| Ok::<(), ()>(())).expect("creates");
    dead_bell(&scratch);
    let living = Bell::listen(&scratch.path(), TOPIC, 8).unwrap();
    // Listening has swept it already, so another one must die.
    dead_bell(&scratch);
    segment.destroy().unwrap();
    assert!(!is_there(&path(&scratch)));
    assert!(is_there(living.path()), "its reader lives");
}

#[test]
fn bell_of_a_killed_reader_is_taken_up_by_its_successor_without_old_rings() {
    let scratch = Scratch::new();
    let old = dead_bell(&scratch);
    let bell = listen(&scratch);
    assert!(!bell.drain().unwrap());
    // Whether the old file was removed or taken up, a ringer opened anew reaches the successor.
    if old.ring().is_err() {
        ringer(&scratch).ring().unwrap();
    }
    assert!(bell.drain().unwrap());
}

#[test]
fn forked_child_neither_drains_nor_removes_the_bell() {
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    let ringer = ringer(&scratch);
    ringer.ring().unwrap();
    assert_ended_well(forked(|| {
        let error = bell.drain().unwrap_err();
        assert!(error.to_string().contains("inherited by fork"), "{error}");
        // SAFETY: the copy is the child's own, and is not used after this.
        drop(unsafe { std::ptr::read(&bell) });
        ringer.ring().expect("the parent listens");
    }));
    assert!(is_there(&path(&scratch)));
    assert!(bell.drain().unwrap());
}

#[test]
fn bells_whose_readers_come_and_go_and_are_killed_leave_no_litter() {
    let scratch = Scratch::new();
    for _ in 0..4 {
        let mut actors: Vec<_> =
            (0..3).map(|_| Actor::start("come and go", &scratch, Stdio::null())).collect();
        actors.iter_mut().for_each(|actor| actor.expect("ready"));
        thread::sleep(Duration::from_millis(150));
        for mut actor in actors {
            assert!(actor.is_running(), "it failed: {}", actor.answer());
        }
    }
    let name = scratch.path().file_name().unwrap().to_str().unwrap().to_owned() + ".";
    let left = || {
        let entries = fs::read_dir("/dev/shm").unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|n| n.starts_with(&name)))
    };
    let swept = Bell::sweep(&scratch.path());
    assert!(swept <= 3, "{swept} of 3 names");
    assert_eq!(left().count(), 0);
}

// --- whose it is --------------------------------------------------------------------------------

#[test]
fn bell_is_a_pipe_of_its_user_alone() {
    let scratch = Scratch::new();
    // Whatever mode somebody left behind.
    mkfifo(&path(&scratch), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(path(&scratch), fs::Permissions::from_mode(0o666)).unwrap();
    let bell = Bell::listen(&scratch.path(), TOPIC, READER).unwrap();
    let meta = bell.path().symlink_metadata().unwrap();
    assert!(meta.file_type().is_fifo());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn name_of_something_else_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = path(&scratch);
    let refused = |kind: &str| {
        let errors = [
            Bell::listen(&scratch.path(), TOPIC, READER).unwrap_err(),
            Ringer::open(&scratch.path(), TOPIC, READER).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::NotABell { .. }), "{error:?}");
            assert!(error.to_string().contains(kind), "{error}");
        }
        assert_eq!(Bell::sweep(&scratch.path()), 0);
        assert!(is_there(&path));
        fs::remove_file(&path).unwrap();
    };
    fs::write(&path, "mine").unwrap();
    refused("regular file");
    symlink("/dev/null", &path).unwrap();
    refused("symbolic link");
}

#[test]
fn another_user_can_neither_listen_nor_ring() {
    if !Uid::effective().is_root() {
        return skip(
            "another_user_can_neither_listen_nor_ring",
            "only root can become somebody else",
        );
    }
    let scratch = Scratch::new();
    let bell = listen(&scratch);
    assert_ended_well(forked(|| {
        setuid(Uid::from_raw(NOBODY)).expect("becomes nobody");
        let foreign = |error: Error| matches!(error, Error::ForeignOwner { uid: 0, .. });
        assert!(foreign(Bell::listen(&scratch.path(), TOPIC, READER).unwrap_err()));
        assert!(foreign(Ringer::open(&scratch.path(), TOPIC, READER).unwrap_err()));
        assert_eq!(Bell::sweep(&scratch.path()), 0);
    }));
    assert!(!bell.drain().unwrap());
}
