//! Locks by which processes tell each other that they are alive: who excludes whom, what a death
//! frees, and what a fork does not take along.
//!
//! A child that [lingers](linger) does so until its standard input ends; so do the children of its
//! own, which may outlive it.

mod common;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, stdin};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use am_shm::{Locks, Place, Segment};
use common::actor::{self, Actor, say};
use common::fork::{cloned, descriptors, forked};
use common::{SIZE_BYTES, Scratch, options, skip, stamp};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, fork, setuid};

/// The byte that the tests lock, and one beyond the end of the file.
const BYTE: u64 = 16;
const FAR: u64 = SIZE_BYTES + 12_345;
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;
/// How many children the storm makes, and how many locks at the moment of each.
const STORM_FORKS: u64 = 80;
const LOCKS_PER_FORK: u64 = 5;

// --- the child's side ---------------------------------------------------------------------------

#[test]
#[ignore = "the other tests start it as a child process"]
fn child_acts_its_role() {
    let Some((role, place)) = actor::role() else { return };
    let segment = Segment::open(&place, &options()).expect("opens");
    match role.as_str() {
        "hold" => hold(&segment),
        "hold and fork" => hold_and_fork(&segment),
        "hold and exec" => hold_and_exec(&segment),
        "hold in a namespace" => in_namespace(|| hold(&segment)),
        "watch in a namespace" => in_namespace(|| watch(&segment)),
        "inherit by fork" => inherit(&segment, Inherited::Closed),
        "inherit by clone" => inherit(&segment, Inherited::Open),
        "be denied" => be_denied(),
        "storm" => storm(&segment),
        other => panic!("no such role: {other}"),
    }
}

/// Waits for the end of the standard input.
fn linger() {
    stdin().read_to_end(&mut Vec::new()).expect("waits for the end");
}

fn locked(segment: &Segment) -> Locks {
    let locks = segment.locks().expect("makes locks");
    assert!(locks.try_lock(BYTE).expect("locks"));
    locks
}

fn hold(segment: &Segment) {
    let _locks = locked(segment);
    say("locked");
    linger();
}

fn hold_and_fork(segment: &Segment) {
    let _locks = locked(segment);
    forked(|| {
        say("locked and forked");
        linger();
        say("outlived");
    });
    linger();
}

fn hold_and_exec(segment: &Segment) {
    let _locks = locked(segment);
    let mut cat = Command::new("cat").stdout(Stdio::null()).spawn().expect("runs cat");
    say(&cat.id().to_string());
    linger();
    cat.wait().expect("cat ends with its input");
}

fn watch(segment: &Segment) {
    let locks = segment.locks().expect("makes locks");
    say(if locks.is_locked_elsewhere(BYTE).expect("asks") { "seen" } else { "missed" });
    await_free(&locks, BYTE);
    say("free");
}

/// Acts as the first process of a new PID namespace; tells its PID outside, or why there is none.
fn in_namespace(act: impl FnOnce()) {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWPID) {
        return say(&format!("refused: {errno}"));
    }
    let pid = forked(|| {
        assert_eq!(std::process::id(), 1);
        // The parent speaks first.
        thread::sleep(Duration::from_millis(50));
        act();
    });
    say(&pid.to_string());
    linger();
}

/// What becomes of the locks' descriptors in a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inherited {
    Closed,
    Open,
}

fn inherit(segment: &Segment, inherited: Inherited) {
    let mut locks = Some((locked(segment), segment.locks().expect("makes locks")));
    let count = descriptors().len();
    let act = || {
        let (first, second) = locks.take().expect("is the only one to take them");
        assert_eq!(first.alive().load(Ordering::Relaxed), 0);
        // Writing to the word that was given out changes nothing.
        first.alive().store(1, Ordering::Relaxed);
        refuses_as_inherited(&first);
        let kept = count - if inherited == Inherited::Closed { 2 } else { 0 };
        assert_eq!(descriptors().len(), kept);

        // These fill the numbers that the handler has freed, if it has.
        let files: Vec<_> = (0..8).map(|_| File::open("/dev/null").expect("opens")).collect();
        drop(first);
        drop(second);
        assert_eq!(descriptors().len(), kept + files.len(), "a drop closed something");
        files.iter().for_each(|file| _ = fcntl(file, FcntlArg::F_GETFD).expect("is open"));

        // The child may have locks of its own, and its children do not keep those either.
        let own = segment.locks().expect("makes locks");
        assert_eq!(own.alive().load(Ordering::Relaxed), 1);
        assert!(own.is_locked_elsewhere(BYTE).expect("asks"), "the parent's lock is gone");
        assert!(own.try_lock(FAR).expect("locks"));
        let grandchild = forked(|| {
            refuses_as_inherited(&own);
            assert_eq!(descriptors().len(), count - 2 + files.len());
        });
        assert_eq!(waitpid(grandchild, None), Ok(WaitStatus::Exited(grandchild, 0)));
    };
    let child = match inherited {
        Inherited::Closed => forked(act),
        Inherited::Open => cloned(act),
    };
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    let (first, _second) = locks.expect("the child took copies");
    assert_eq!(first.alive().load(Ordering::Relaxed), 1);
    assert!(segment.locks().expect("makes locks").is_locked_elsewhere(BYTE).expect("asks"));
    say("right");
}

fn refuses_as_inherited(locks: &Locks) {
    let answers: [io::Result<()>; 3] = [
        locks.try_lock(BYTE).map(drop),
        locks.unlock(BYTE),
        locks.is_locked_elsewhere(BYTE).map(drop),
    ];
    for answer in answers {
        let error = answer.expect_err("an inherited lock was used");
        assert_eq!(error.kind(), ErrorKind::Other);
        assert!(error.to_string().contains("inherited by fork"), "{error}");
    }
}

/// Asks for locks on a file whose mode keeps out even its owner.
fn be_denied() {
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(NOBODY)).expect("gives up being root");
    }
    let place = Place::Memfd("denied".into());
    let segment = Segment::create(&place, &options(), |m| stamp(m, 1)).expect("creates");
    fchmod(&segment, Mode::empty()).expect("sets the mode");
    let error = segment.locks().expect_err("was let in").to_string();
    assert!(error.starts_with("cannot reopen memfd:denied: "), "{error}");
    assert!(error.ends_with("Permission denied (os error 13)"), "{error}");
    say("denied");
}

/// Makes locks and children at the same moments; then the children live on.
fn storm(segment: &Segment) {
    let start = Barrier::new(2);
    let kept = thread::scope(|scope| {
        let locking = scope.spawn(|| {
            let lock = |i| {
                if i % LOCKS_PER_FORK == 0 {
                    start.wait();
                }
                let locks = segment.locks().expect("makes locks");
                assert!(locks.try_lock(BYTE + i).expect("locks"));
                locks
            };
            (0..STORM_FORKS * LOCKS_PER_FORK).map(lock).collect::<Vec<_>>()
        });
        for _ in 0..STORM_FORKS {
            start.wait();
            fork_a_lingerer();
        }
        locking.join().expect("locks them all")
    });
    say("locked");
    linger();
    drop(kept);
}

/// Forks beside busy threads: the child does nothing but wait for the end of its standard input.
fn fork_a_lingerer() {
    // SAFETY: the child makes two system calls and returns to nothing.
    if unsafe { fork() }.expect("forks").is_parent() {
        return;
    }
    let mut byte = 0_u8;
    let at = std::ptr::from_mut(&mut byte).cast();
    // SAFETY: `at` is one byte that may be written.
    unsafe { libc::read(0, at, 1) };
    // SAFETY: ends the child without running what belongs to its parent.
    unsafe { libc::_exit(0) };
}

// --- the parent's side --------------------------------------------------------------------------

/// A segment, and locks on it to ask with.
fn watched() -> (Scratch, Segment, Locks) {
    let scratch = Scratch::new();
    let segment = Segment::create(&scratch.place(), &options(), |m| stamp(m, 1)).expect("creates");
    let locks = segment.locks().expect("makes locks");
    (scratch, segment, locks)
}

fn start(role: &str, scratch: &Scratch) -> Actor {
    Actor::start(role, scratch, Stdio::piped())
}

#[track_caller]
fn assert_held(locks: &Locks, byte: u64) {
    assert!(locks.is_locked_elsewhere(byte).expect("asks"), "byte {byte} is free");
    assert!(!locks.try_lock(byte).expect("tries"), "byte {byte} was taken twice");
}

#[track_caller]
fn assert_free(locks: &Locks, byte: u64) {
    assert!(!locks.is_locked_elsewhere(byte).expect("asks"), "byte {byte} is locked");
    assert!(locks.try_lock(byte).expect("tries"), "byte {byte} cannot be taken");
    locks.unlock(byte).expect("unlocks");
}

#[track_caller]
fn await_free(locks: &Locks, byte: u64) {
    await_that("the lock is free", || !locks.is_locked_elsewhere(byte).expect("asks"));
    assert_free(locks, byte);
}

#[track_caller]
fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The state letter of a process; `None` when there is no such process.
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn lock_excludes_other_locks_of_the_same_process() {
    let (_scratch, segment, first) = watched();
    let second = segment.locks().unwrap();
    for byte in [BYTE, FAR, i64::MAX as u64] {
        assert!(first.try_lock(byte).unwrap());
        assert!(first.try_lock(byte).unwrap(), "what is ours already is ours");
        assert!(!first.is_locked_elsewhere(byte).unwrap());
        assert_held(&second, byte);
        assert_free(&second, BYTE + 1);
        second.unlock(byte).unwrap();
        assert_held(&second, byte);
        first.unlock(byte).unwrap();
        assert_free(&second, byte);
        assert!(first.try_lock(byte).unwrap());
    }
    drop(first);
    assert_free(&second, BYTE);
    assert_free(&second, FAR);
}

#[test]
fn lock_excludes_threads_and_may_be_shared_by_them() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let (_scratch, segment, locks) = watched();
    is_shared(&locks);
    let others: Vec<_> = (0..8).map(|_| segment.locks().unwrap()).collect();
    let won = thread::scope(|scope| {
        let threads: Vec<_> =
            others.iter().map(|own| scope.spawn(|| own.try_lock(BYTE).unwrap())).collect();
        threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>()
    });
    assert_eq!(won, 1);
    assert_held(&locks, BYTE);
}

#[test]
fn bytes_of_the_guard_are_refused_and_stay_lockable() {
    let (_scratch, segment, locks) = watched();
    for byte in [0, 15, i64::MAX as u64 + 1, u64::MAX] {
        let answers = [
            locks.try_lock(byte).map(drop),
            locks.unlock(byte),
            locks.is_locked_elsewhere(byte).map(drop),
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(&byte.to_string()), "{error}");
        }
    }
    assert!(locks.try_lock(BYTE).unwrap());
    segment.destroy().expect("nobody holds the guard");
}

#[test]
fn lock_keeps_the_users_descriptors_apart() {
    let (_scratch, segment, locks) = watched();
    assert!(locks.try_lock(BYTE).unwrap());
    let mapping = segment.mapping().clone();
    let watcher = segment.locks().unwrap();
    drop(segment.as_fd().try_clone_to_owned().unwrap());
    drop(segment);
    assert_held(&watcher, BYTE);
    drop(locks);
    assert_free(&watcher, BYTE);
    drop(mapping);
}

#[test]
fn lock_of_a_killed_process_is_free_while_it_is_a_zombie() {
    let (scratch, _segment, locks) = watched();
    let mut holder = start("hold", &scratch);
    holder.expect("locked");
    assert_held(&locks, BYTE);
    holder.signal(Signal::SIGKILL);
    await_free(&locks, BYTE);
    assert_eq!(kill(holder.pid(), None), Ok(()), "nobody has reaped it");
    await_that("it is a zombie", || state(holder.pid()) == Some('Z'));
    assert_free(&locks, BYTE);
}

#[test]
fn lock_of_a_stopped_process_is_kept() {
    let (scratch, _segment, locks) = watched();
    let mut holder = start("hold", &scratch);
    holder.expect("locked");
    holder.signal(Signal::SIGSTOP);
    await_that("it is stopped", || state(holder.pid()) == Some('T'));
    assert_held(&locks, BYTE);
    thread::sleep(Duration::from_millis(100));
    assert_held(&locks, BYTE);
    holder.signal(Signal::SIGKILL);
    await_free(&locks, BYTE);
}

#[test]
fn lock_of_a_process_that_exits_is_free() {
    let (scratch, _segment, locks) = watched();
    let mut holder = start("hold", &scratch);
    holder.expect("locked");
    holder.go();
    await_free(&locks, BYTE);
}

#[test]
fn lock_of_a_killed_parent_is_not_kept_by_its_forked_child() {
    let (scratch, _segment, locks) = watched();
    let mut parent = start("hold and fork", &scratch);
    parent.expect("locked and forked");
    assert_held(&locks, BYTE);
    parent.signal(Signal::SIGKILL);
    await_free(&locks, BYTE);
    parent.go();
    parent.expect("outlived");
}

#[test]
fn lock_of_a_killed_parent_is_not_kept_by_what_it_executed() {
    let (scratch, _segment, locks) = watched();
    let mut parent = start("hold and exec", &scratch);
    let executed = Pid::from_raw(parent.answer().parse().expect("tells a pid"));
    assert_held(&locks, BYTE);
    parent.signal(Signal::SIGKILL);
    await_free(&locks, BYTE);
    // It lives: it sleeps, runs, or waits for a page.
    let state = state(executed);
    assert!(matches!(state, Some('S' | 'R' | 'D')), "{state:?}");
}

#[test]
fn locks_made_while_forking_are_not_kept_by_any_child() {
    let (scratch, _segment, locks) = watched();
    let mut parent = start("storm", &scratch);
    parent.expect("locked");
    let bytes = BYTE..BYTE + STORM_FORKS * LOCKS_PER_FORK;
    bytes.clone().for_each(|byte| assert_held(&locks, byte));
    parent.signal(Signal::SIGKILL);
    bytes.for_each(|byte| await_free(&locks, byte));
}

#[test]
fn locks_inherited_by_fork_are_refused_and_closed_once() {
    let (scratch, _segment, _locks) = watched();
    start("inherit by fork", &scratch).expect("right");
}

#[test]
fn locks_inherited_by_a_raw_clone_are_refused_and_left_open() {
    let (scratch, _segment, _locks) = watched();
    start("inherit by clone", &scratch).expect("right");
}

#[test]
fn alive_in_the_process_that_made_it_is_one_whatever_it_forks() {
    let (_scratch, _segment, locks) = watched();
    assert_eq!(locks.alive().load(Ordering::Relaxed), 1);
    let status = Command::new("true").status().expect("runs true");
    assert!(status.success());
    assert_eq!(locks.alive().load(Ordering::Relaxed), 1);
    assert_free(&locks, BYTE);
}

/// The first answer of a role in a namespace: a PID; `None`, with a notice, where there is none.
fn namespaced(test: &str, actor: &mut Actor) -> Option<Pid> {
    let answer = actor.answer();
    match answer.parse() {
        Ok(pid) => Some(Pid::from_raw(pid)),
        Err(_) => {
            skip(test, &answer);
            None
        }
    }
}

#[test]
fn lock_held_in_another_pid_namespace_is_seen_and_its_release() {
    let (scratch, _segment, locks) = watched();
    let mut outside = start("hold in a namespace", &scratch);
    let Some(holder) = namespaced("lock_held_in_another_pid_namespace", &mut outside) else {
        return;
    };
    outside.expect("locked");
    assert_held(&locks, BYTE);
    kill(holder, Signal::SIGKILL).unwrap();
    await_free(&locks, BYTE);
}

#[test]
fn lock_held_outside_is_seen_in_another_pid_namespace_and_its_release() {
    let (scratch, _segment, _locks) = watched();
    let mut holder = start("hold", &scratch);
    holder.expect("locked");
    let mut outside = start("watch in a namespace", &scratch);
    if namespaced("lock_held_outside", &mut outside).is_none() {
        return;
    }
    outside.expect("seen");
    holder.signal(Signal::SIGKILL);
    outside.expect("free");
}

/// Locks of each segment exclude each other's.
#[track_caller]
fn assert_same_file(one: &Segment, other: &Segment) {
    let (first, second) = (one.locks().unwrap(), other.locks().unwrap());
    assert!(first.try_lock(BYTE).unwrap());
    assert_held(&second, BYTE);
    drop(first);
    assert_free(&second, BYTE);
}

#[test]
fn locks_of_memfds_and_attached_descriptors_are_on_the_same_file() {
    let place = Place::Memfd("locks".into());
    let memfd = Segment::create(&place, &options(), |m| stamp(m, 1)).unwrap();
    let fd = memfd.as_fd().try_clone_to_owned().unwrap();
    assert_same_file(&memfd, &Segment::attach(fd, &options()).unwrap());

    let (_scratch, named, _locks) = watched();
    let fd = named.as_fd().try_clone_to_owned().unwrap();
    assert_same_file(&named, &Segment::attach(fd, &options()).unwrap());
}

#[test]
fn locks_of_an_unlinked_or_replaced_file_are_on_the_old_one() {
    let (scratch, old, before) = watched();
    assert!(before.try_lock(BYTE).unwrap());
    old.destroy().unwrap();
    assert_held(&old.locks().unwrap(), BYTE);

    let new = Segment::create(&scratch.place(), &options(), |m| stamp(m, 2)).unwrap();
    assert_held(&old.locks().unwrap(), BYTE);
    assert_free(&new.locks().unwrap(), BYTE);

    // A link under the name is not followed.
    let fd = new.as_fd().try_clone_to_owned().unwrap();
    let aside = Scratch::new();
    fs::rename(scratch.path(), aside.path()).unwrap();
    std::os::unix::fs::symlink(aside.path(), scratch.path()).unwrap();
    assert_same_file(&new, &Segment::attach(fd, &options()).unwrap());
}

#[test]
fn locks_of_a_file_that_lets_nobody_in_are_an_error_that_names_it() {
    let (scratch, _segment, _locks) = watched();
    start("be denied", &scratch).expect("denied");
}
