//! What becomes of a process's blocks when it dies, and of a child's when it is forked.

mod common;

use atomic_matrix::{Error, Matrix, Offset, OpenError};
use common::child::{Actor, role, say};
use common::{MIB, Scratch, assert_sound, assert_whole};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io::BufRead;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

/// A child of these tests: holds what it is told to, until it is killed.
#[test]
fn child_entry() {
    let Some((role, segment)) = role() else { return };
    let matrix = Matrix::builder().open(&segment).expect("opens");
    let guards = match role.as_str() {
        "holder" => (0..10).map(|n| matrix.allocate(100 << n).expect("fits")).collect(),
        "keeper" => {
            // Each dropped before the next, so that each is parked.
            (0..8).for_each(|n| drop(matrix.allocate(100 << n).expect("fits")));
            Vec::new()
        }
        _ => Vec::new(),
    };
    let raw = matrix.allocate_offset(5000).expect("fits");
    say(raw.to_raw());
    for line in std::io::stdin().lock().lines() {
        if line.expect("text") == "give" {
            let block = matrix.allocate(77).expect("fits");
            say(block.into_offset().to_raw());
        }
    }
    drop(guards);
    let _ = matrix.ack(raw);
}

fn segment(scratch: &Scratch) -> Matrix {
    Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates")
}

fn offset(answer: String) -> Offset {
    Offset::from_raw(answer.parse().expect("an offset"))
}

/// Kills an actor and waits until the kernel has dropped its lock.
fn kill_and_wait(actor: Actor, matrix: &Matrix, dead: usize) {
    drop(actor);
    let begin = Instant::now();
    while matrix.participants().iter().filter(|p| !p.alive).count() < dead {
        assert!(begin.elapsed() < Duration::from_secs(10), "the kernel keeps a dead one's lock");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn participants_are_told_with_what_they_hold() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let begin = SystemTime::now() - Duration::from_secs(60);
    let _mine = matrix.allocate(1000).unwrap();
    let mut actor = Actor::start("holder", &scratch.name());
    actor.answer();

    let all = matrix.participants();
    assert_eq!(all.len(), 2, "{all:?}");
    let (own, other) = (&all[0], &all[1]);
    assert!(own.own && own.alive && !other.own && other.alive, "{all:?}");
    assert_eq!((own.pid, own.blocks), (std::process::id(), 1));
    assert_eq!(own.bytes, 1056); // 32 of header, 1000, in granules of 32
    assert_eq!(other.blocks, 10);
    assert!(other.since >= begin && other.since <= SystemTime::now() + Duration::from_secs(60));
    actor.finish();
    assert_eq!(matrix.participants().len(), 1, "who left cleanly is listed no more");
}

#[test]
fn death_gives_back_what_guards_held_and_nothing_else() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mut actor = Actor::start("holder", &scratch.name());
    let raw = offset(actor.answer());
    let given = offset(actor.ask("give"));
    kill_and_wait(actor, &matrix, 1);

    let recovery = matrix.recover();
    assert_eq!((recovery.blocks, recovery.deferred, recovery.busy), (10, 0, false));
    assert_eq!((recovery.dead.len(), recovery.dead[0].blocks), (1, 10));
    // Its guards' blocks, and what its cache had been refilled with.
    let dead = recovery.dead[0];
    assert_eq!(dead.bytes + dead.cached_bytes, recovery.bytes);
    assert!(recovery.limbo.is_empty());
    assert!(matrix.recover().is_empty(), "a second time there is nothing");
    assert_eq!(matrix.participants().len(), 1);
    assert_eq!(
        matrix.stats().sectors.iter().map(|sector| sector.recovered).sum::<u64>(),
        10 + recovery.cached
    );
    assert_sound(&matrix);
    assert_eq!(matrix.from_offset(given).unwrap().len(), 77);
    matrix.ack(raw).unwrap();
    assert_whole(&matrix);
}

#[test]
fn death_gives_back_what_thread_caches_kept() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mine = matrix.allocate(600).unwrap().offset();
    let mut actor = Actor::start("keeper", &scratch.name());
    let raw = offset(actor.answer());
    let keeper = matrix.participants()[1];
    // 100, 200 … 12800 bytes and a header each, the last two in granules of 256.
    let small: u64 = (0..6).map(|n| ((100_u64 << n) + 32).next_multiple_of(32)).sum();
    let medium: u64 = (6..8).map(|n| ((100_u64 << n) + 32).next_multiple_of(256)).sum();
    // And what the refills of short lengths carved beside them.
    assert!(keeper.blocks == 0 && keeper.cached_blocks >= 8, "{keeper:?}");
    assert!(keeper.cached_bytes >= small + medium, "{keeper:?}");
    kill_and_wait(actor, &matrix, 1);

    let recovery = matrix.recover();
    let (blocks, bytes) = (keeper.cached_blocks, keeper.cached_bytes);
    assert_eq!((recovery.cached, recovery.blocks, recovery.deferred), (blocks, 0, 0));
    assert_eq!((recovery.dead.len(), recovery.dead[0].cached_blocks), (1, blocks));
    assert_eq!((recovery.bytes, recovery.dead[0].cached_bytes), (bytes, bytes));
    assert!(recovery.limbo.is_empty());
    assert!(matrix.recover().is_empty(), "a second time there is nothing");
    let cached: u64 = matrix.stats().sectors.iter().map(|sector| sector.cached_blocks).sum();
    assert_eq!(cached, 1, "the living one's stays");
    assert_eq!(matrix.allocate(600).unwrap().offset(), mine);
    matrix.ack(raw).unwrap();
    assert_whole(&matrix);
}

#[test]
fn death_of_a_holder_is_noticed_by_who_opens_the_segment() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mut actor = Actor::start("holder", &scratch.name());
    let raw = offset(actor.answer());
    kill_and_wait(actor, &matrix, 1);
    let other = Matrix::builder().open(&scratch.name()).unwrap();
    assert_eq!(other.participants().len(), 2);
    assert_eq!((other.recovered_first().blocks, other.recovered_first().dead.len()), (10, 1));
    assert!(other.recover().is_empty());
    other.ack(raw).unwrap();
    other.trim().unwrap();
    assert_whole(&matrix);
}

#[test]
fn death_of_a_holder_is_noticed_by_an_allocation_that_finds_no_block() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mut actor = Actor::start("holder", &scratch.name());
    actor.answer();
    // Everything that is left.
    let mut filled = Vec::new();
    while let Ok(block) = matrix.allocate(3000) {
        filled.push(block);
    }
    assert!(matches!(matrix.allocate(3000), Err(Error::Exhausted { .. })));
    kill_and_wait(actor, &matrix, 1);
    assert!(matrix.allocate(100).is_ok(), "a dead one's blocks are in the way");
}

#[test]
fn process_that_is_stopped_keeps_everything() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mut actor = Actor::start("holder", &scratch.name());
    actor.answer();
    let pid = Pid::from_raw(matrix.participants()[1].pid as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    assert!(matrix.recover().is_empty());
    assert_eq!(matrix.participants()[1].blocks, 10);
    kill(pid, Signal::SIGCONT).unwrap();
    actor.finish();
}

#[test]
fn guard_that_is_forgotten_goes_back_when_its_handle_leaves() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let other = Matrix::builder().open(&scratch.name()).unwrap();
    std::mem::forget(other.allocate(1000).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(other.allocate(1000).unwrap())).join().unwrap();
    });
    let kept = matrix.allocate(1000).unwrap();
    drop(other);
    assert_eq!(matrix.participants().len(), 1);
    assert_eq!(matrix.stats().sectors[0].held_blocks, 1);
    drop(kept);
    assert_whole(&matrix);
}

#[test]
fn roster_that_is_full_refuses_and_recovers_when_all_are_dead() {
    let scratch = Scratch::new();
    let first = segment(&scratch);
    // SAFETY: the child only opens handles and is killed; no other thread runs in this test's heap
    // at that moment but the test runner's, which waits.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let mut handles = Vec::new();
            let refused = loop {
                match Matrix::builder().open(&scratch.name()) {
                    Ok(handle) => handles.push(handle),
                    Err(error) => break error,
                }
            };
            let full = matches!(refused, OpenError::Matrix(Error::TooManyParticipants { .. }));
            for handle in &handles {
                std::mem::forget(handle.allocate(100));
            }
            let code = if full && handles.len() == 127 { 0 } else { 1 };
            // SAFETY: ends the process without dropping anything, as a kill does.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    };
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    drop(first);
    let matrix = Matrix::builder().open(&scratch.name()).expect("the dead make room");
    assert_eq!(matrix.participants().len(), 1);
    assert_whole(&matrix);
}

/// Runs `body` in a forked child, which must return true.
fn in_child(body: impl FnOnce() -> bool) {
    // SAFETY: the children of these tests open a segment, which allocates; glibc's heap is made safe
    // for that by its own fork handlers.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = i32::from(!body());
            // SAFETY: ends the child at once; the test runner in it is a copy.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

#[test]
fn child_of_fork_is_refused_by_what_it_inherits() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let raw = matrix.allocate_offset(100).unwrap();
    let guards: Vec<_> = (0..6).map(|_| matrix.allocate(100).unwrap()).collect();
    in_child(|| {
        let mut guards = guards.into_iter();
        let forked = |result: Result<(), Error>| result == Err(Error::Forked);
        let all = [
            forked(matrix.allocate(10).map(drop)),
            forked(matrix.allocate_many(3, 10).map(drop)),
            forked(matrix.allocate_offset(10).map(drop)),
            forked(matrix.ack(raw)),
            forked(matrix.from_offset(raw).map(drop)),
            forked(guards.next().unwrap().free()),
            forked(guards.next().unwrap().shrink(1)),
            forked(guards.next().unwrap().try_grow(4000)),
            matrix.recover().busy,
        ];
        let _ = guards.next().unwrap().into_offset();
        matrix.free_many(guards.by_ref().take(1));
        drop(guards);
        all.iter().all(|&refused| refused)
    });
    // The parent's copies of the guards went into the child's closure; here they are dropped.
    assert_eq!(matrix.stats().sectors[0].corrupt, 0);
    matrix.ack(raw).unwrap();
    assert_whole(&matrix);
}

#[test]
fn child_of_fork_leaves_its_parents_pool_alone() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let pool = matrix.pool::<[u64; 4]>(200).unwrap();
    let cache = pool.cache();
    cache.put(pool.get().unwrap());
    let mut blocks = pool.get_many(150).unwrap();
    let kept = pool.get_many(40).unwrap();
    in_child(|| {
        let forked = |error: Option<Error>| error == Some(Error::Forked);
        let all = [
            forked(pool.get().err()),
            forked(pool.get_many(1).err()),
            forked(cache.get().err()),
            std::thread::scope(|scope| scope.spawn(|| forked(pool.get().err())).join().unwrap()),
        ];
        cache.put(blocks.pop().unwrap());
        drop(cache);
        drop(blocks);
        all.iter().all(|&refused| refused)
    });
    // The parent's copies went into the child's closure; here they are dropped.
    let others = pool.get_many(160).unwrap();
    let offsets: std::collections::HashSet<_> =
        kept.iter().chain(&others).map(|block| block.offset()).collect();
    assert_eq!(offsets.len(), 200);
    assert!(pool.get().is_err());
    drop((kept, others));
    drop(pool);
    assert_whole(&matrix);
}

#[test]
fn child_of_fork_leaves_its_parents_cache_alone() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let parked = [600, 700, 5000].map(|bytes| matrix.allocate(bytes).unwrap().offset());
    let raw = matrix.allocate_offset(800).unwrap();
    let clone = matrix.clone();
    in_child(|| {
        let forked = |result: Result<(), Error>| result == Err(Error::Forked);
        // SAFETY: nobody else knows the offset.
        let unshared = unsafe { clone.ack_unshared(raw) };
        let all = [
            forked(clone.allocate(100).map(drop)),
            forked(clone.allocate_offset(100).map(drop)),
            forked(clone.allocate(5000).map(drop)),
            forked(clone.ack(raw)),
            forked(clone.ack(parked[0])),
            forked(unshared),
            forked(clone.trim()),
        ];
        drop(clone);
        // A thread of the child ends, with what it inherited.
        std::thread::spawn(|| ()).join().unwrap();
        all.iter().all(|&refused| refused)
    });
    let cached: u64 = matrix.stats().sectors.iter().map(|sector| sector.cached_blocks).sum();
    assert_eq!(cached, 3);
    for (bytes, offset) in [600, 700, 5000].into_iter().zip(parked) {
        assert_eq!(matrix.allocate(bytes).unwrap().offset(), offset);
    }
    matrix.ack(raw).unwrap();
    assert_whole(&matrix);
}

#[test]
fn child_of_fork_that_opens_the_segment_has_a_cache_of_its_own() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let mine = matrix.allocate(600).unwrap().offset();
    in_child(|| {
        let fd = matrix.as_fd().try_clone_to_owned().unwrap();
        let own = Matrix::builder().attach(fd).unwrap();
        let place = own.allocate(600).unwrap().offset();
        let again = own.allocate(600).unwrap().offset();
        let kept: Vec<u64> = own.participants().iter().map(|p| p.cached_blocks).collect();
        std::mem::forget(own); // it dies without a word
        place == again && place != mine && kept == [1, 1]
    });
    let recovery = matrix.recover();
    assert_eq!((recovery.cached, recovery.blocks, recovery.dead.len()), (1, 0, 1));
    assert_eq!(matrix.allocate(600).unwrap().offset(), mine);
    assert_whole(&matrix);
}

#[test]
fn child_of_fork_that_opens_the_segment_is_a_participant_of_its_own() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let _guard = matrix.allocate(100).unwrap();
    in_child(|| {
        let fd = matrix.as_fd().try_clone_to_owned().unwrap();
        let own = Matrix::builder().attach(fd).unwrap();
        let participants = own.participants();
        let held: Vec<u64> = participants.iter().map(|p| p.blocks).collect();
        std::mem::forget(own.allocate(100));
        std::mem::forget(own.allocate(100));
        std::mem::forget(own); // it dies without a word
        participants.len() == 2 && participants[1].own && held == [1, 0]
    });
    let recovery = matrix.recover();
    assert_eq!((recovery.blocks, recovery.dead.len()), (2, 1));
    assert_eq!(matrix.stats().sectors[0].held_blocks, 1, "the parent's stays");
}

#[test]
fn parent_that_dies_is_dead_though_its_child_lives() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    // The middle one opens the segment, forks a sleeper that inherits everything, and dies.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    in_child(|| {
        let own = Matrix::builder().open(&scratch.name()).unwrap();
        std::mem::forget(own.allocate(100));
        // SAFETY: the grandchild only writes its id and sleeps.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let me = std::process::id().to_ne_bytes();
                nix::unistd::write(&writer, &me).unwrap();
                std::thread::sleep(Duration::from_secs(60));
                // SAFETY: ends the grandchild.
                unsafe { nix::libc::_exit(0) }
            }
            // Not before the grandchild has run its fork handlers.
            ForkResult::Parent { .. } => {
                std::thread::sleep(Duration::from_millis(50));
                std::mem::forget(own);
                true
            }
        }
    });
    let mut sleeper = [0; 4];
    nix::unistd::read(&reader, &mut sleeper).unwrap();
    let recovery = matrix.recover();
    kill(Pid::from_raw(u32::from_ne_bytes(sleeper) as i32), Signal::SIGKILL).unwrap();
    assert_eq!((recovery.blocks, recovery.dead.len()), (1, 1));
}
