//! What a child of fork inherits of the message layer stays its parent's; and who waits in short turns learns of
//! deaths all the same.

mod common;

use atomic_matrix::{Error, Matrix, PostError, Service, Start, Topic};
use common::{MIB, Scratch};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn segment(scratch: &Scratch) -> Matrix {
    Matrix::builder().size(8 * MIB as u64).create(&scratch.name()).expect("creates")
}

/// Runs `body` in a forked child, which must return true; the child ends without running destructors.
fn in_child(body: impl FnOnce() -> bool) -> Pid {
    // SAFETY: the children of these tests allocate; glibc's heap is made safe for that by its own fork handlers.
    match unsafe { fork() }.expect("forks") {
        ForkResult::Child => {
            let code = i32::from(!body());
            // SAFETY: ends the child at once; the test runner in it is a copy.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    }
}

fn assert_ended(child: Pid) {
    assert_eq!(waitpid(child, None).expect("ends"), WaitStatus::Exited(child, 0));
}

#[test]
fn refused_post_of_a_child_writes_nothing() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let topic: Topic<[u8]> = matrix.topic("t").capacity(64).open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    let mut reader = topic.reader().start(Start::Earliest).open().unwrap();
    // So that the poster has a block at hand for its next message.
    for _ in 0..200 {
        poster.post(&[7; 200][..]).unwrap();
        drop(reader.read());
    }
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let child = in_child(|| {
        there.read_exact(&mut [0]).unwrap();
        let forked = |error| error == PostError::Memory(Error::Forked);
        let refused = poster.try_post(&[0xee; 200][..]).is_err_and(forked)
            && poster.loan_bytes(200).is_err_and(forked)
            && poster.try_post_many([&[0xee; 200][..]]).is_err();
        there.write_all(&[1]).unwrap();
        refused
    });
    poster.post(&[1; 200][..]).unwrap();
    let read = reader.read();
    here.write_all(&[1]).unwrap();
    here.read_exact(&mut [0]).unwrap();
    assert_ended(child);
    assert_eq!(read.bytes(), [1; 200]);
}

#[test]
fn child_that_drops_a_response_moves_nothing() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let service: Service<u64, u64> = matrix.service("s").open_or_create().unwrap();
    let (client, mut server) = (service.client().unwrap(), service.server().unwrap());
    let pending = client.request(&1).unwrap();
    server.receive().respond(&1).unwrap();
    let mut unanswered = client.request(&2).unwrap();
    let mut response = Some(pending.wait().unwrap());
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let child = in_child(|| {
        there.read_exact(&mut [0]).unwrap();
        drop(response.take());
        // The parent's response is none of its business.
        let nothing = unanswered.try_wait().unwrap().is_none();
        there.write_all(&[1]).unwrap();
        nothing
    });
    server.receive().respond(&2).unwrap();
    here.write_all(&[1]).unwrap();
    here.read_exact(&mut [0]).unwrap();
    assert_ended(child);
    drop(response);
    assert_eq!(unanswered.wait().unwrap().view(), Ok(&2));
    for n in 0..300 {
        let pending = client.request(&n).unwrap();
        // A server that knows nothing of cursors yet.
        drop(server);
        server = service.server().unwrap();
        server.receive().respond(&n).unwrap();
        assert_eq!(pending.wait().unwrap().view(), Ok(&n));
    }
}

#[cfg(feature = "async")]
#[test]
fn child_that_drops_an_async_reader_leaves_the_parents_bell_alone() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let topic: Topic<u64> = matrix.topic("t").stamped(true).open_or_create().unwrap();
    let mut reader = Some(topic.reader().open_async().unwrap());
    let child = in_child(|| {
        drop(reader.take());
        true
    });
    assert_ended(child);
    let reader = reader.as_mut().expect("the parent's");
    let best = (0..5).map(|n| {
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                async_io::block_on(async { reader.next().await.info().age().expect("stamped") })
            });
            std::thread::sleep(Duration::from_millis(150));
            topic.poster().unwrap().post(&n).unwrap();
            waits.join().unwrap()
        })
    });
    // Slices alone would take most of a second, mostly.
    assert!(best.min().unwrap() < Duration::from_millis(100));
}

#[test]
fn who_waits_in_short_turns_gets_what_the_dead_had() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let service: Service<u64, u64> = matrix.service("s").open_or_create().unwrap();
    let topic: Topic<u64> = matrix.topic("t").open_or_create().unwrap();
    let mut member = topic.reader().group("g").start(Start::Earliest).open().unwrap();
    topic.poster().unwrap().post(&9).unwrap();
    let client = service.client().unwrap();
    let mut pending = client.request(&1).unwrap();
    let name = scratch.name();
    assert_ended(in_child(|| {
        let matrix = Matrix::builder().open(&name).unwrap();
        let service: Service<u64, u64> = matrix.service("s").open().unwrap();
        let topic: Topic<u64> = matrix.topic("t").open().unwrap();
        std::mem::forget(service.server().unwrap().receive());
        std::mem::forget(topic.reader().group("g").open().unwrap().read());
        // Neither is dropped.
        true
    }));
    let mut server = service.server().unwrap();
    let begun = Instant::now();
    let short = Duration::from_millis(5);
    let (mut message, mut response) = (false, false);
    while !(message && response) && begun.elapsed() < SOON {
        message |= member.read_timeout(short).is_some();
        if let Some(request) = server.receive_timeout(short) {
            request.respond(&2).unwrap();
        }
        response = response || pending.wait_timeout(short).unwrap().is_some();
    }
    assert!(message && response, "message {message}, response {response}");
}

#[test]
fn poster_that_waits_in_short_turns_gets_past_a_dead_reader() {
    for turn in [None, Some(Duration::from_millis(1)), Some(Duration::from_millis(20))] {
        let scratch = Scratch::new();
        let matrix = segment(&scratch);
        let topic: Topic<u64> = matrix.topic("t").capacity(64).open_or_create().unwrap();
        let poster = topic.poster().unwrap();
        let name = scratch.name();
        assert_ended(in_child(|| {
            let matrix = Matrix::builder().open(&name).unwrap();
            let topic: Topic<u64> = matrix.topic("t").open().unwrap();
            std::mem::forget(topic.reader().start(Start::Earliest).open().unwrap());
            true
        }));
        for n in 0..128 {
            poster.try_post(&n).unwrap();
        }
        let begun = Instant::now();
        let post = || match turn {
            None => poster.try_post(&1),
            Some(turn) => poster.post_timeout(&1, turn),
        };
        while post().is_err() {
            assert!(begun.elapsed() < SOON, "turns of {turn:?}");
        }
    }
}

#[test]
fn child_that_is_forked_while_a_message_is_made_posts_nothing() {
    let scratch = Scratch::new();
    let matrix = segment(&scratch);
    let topic: Topic<u64> = matrix.topic("t").open_or_create().expect("makes the topic");
    let mut reader = topic.reader().open().expect("joins");
    let poster = topic.poster().expect("a poster");
    for panics in [false, true] {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut child_pid = None;
        let mut is_child = false;
        let make = |n: u64| {
            if n != 1 {
                return 100 + n;
            }
            // SAFETY: as in `in_child`.
            match unsafe { fork() }.expect("forks") {
                ForkResult::Child => {
                    is_child = true;
                    // When its parent has published: from then on the cells are the readers'.
                    theirs.read_exact(&mut [0]).expect("hears of its parent");
                    assert!(!panics, "on purpose");
                    900
                }
                ForkResult::Parent { child } => {
                    child_pid = Some(child);
                    101
                }
            }
        };
        let posted = catch_unwind(AssertUnwindSafe(|| poster.post_from_fn(3, make)));
        if is_child {
            let cause = posted.map(|posted| posted.map_err(|error| error.cause));
            let is_refused = cause
                .map_or(panics, |cause| cause == Err(PostError::Memory(Error::Forked)) && !panics);
            // SAFETY: as in `in_child`.
            unsafe { nix::libc::_exit(i32::from(!is_refused)) }
        }
        assert_eq!(posted.expect("no panic here").expect("posts").count, 3);
        ours.write_all(&[1]).expect("the child hears of it");
        assert_ended(child_pid.expect("forked"));
        for n in 0..3 {
            assert_eq!(reader.try_read().expect("is there").view(), Ok(&(100 + n)));
        }
    }
    assert_eq!(reader.missed(), 0);
}
