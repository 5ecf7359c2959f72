//! A reader that is killed asleep makes no later post slower: a poster that may make no system call but `write` and
//! `exit` goes on posting. The kernel kills it at the first other call.

mod common;

use atomic_matrix::{Matrix, Poster, Topic};
use common::{MIB, Scratch};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::thread;
use std::time::Duration;

/// How a reader waits that will be killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    Asleep,
    Bell,
}

/// What happens between the reader's death and the posts without system calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    Nothing,
    Post,
    Recovery,
}

fn topic(matrix: &Matrix) -> Topic<u64> {
    // Lossy: posts do not wait for the dead, which would be another matter.
    matrix.topic("t").lossy().open_or_create().expect("opens")
}

/// A forked child, and the pipe by which it says that it is ready.
fn child(body: impl FnOnce(PipeWriter)) -> (Pid, PipeReader) {
    let (said, says) = pipe().unwrap();
    // SAFETY: the child opens the segment anew, which allocates; no other thread is in the heap now, since this
    // test runs alone in its binary.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(said);
            body(says);
            // SAFETY: ends this process without the parent's destructors.
            unsafe { libc::_exit(9) }
        }
        ForkResult::Parent { child } => (child, said),
    }
}

fn wait(segment: &str, how: Wait, mut says: PipeWriter) {
    let matrix = Matrix::builder().open(segment).expect("opens");
    let topic = topic(&matrix);
    match how {
        Wait::Asleep => {
            let mut reader = topic.reader().open().expect("joins");
            says.write_all(b"!").expect("is heard");
            drop(reader.read());
        }
        Wait::Bell => {
            let mut reader = topic.reader().with_bell().open().expect("joins");
            assert!(reader.arm().expect("arms"));
            says.write_all(b"!").expect("is heard");
            loop {
                thread::park();
            }
        }
    }
}

/// Opens before the reader dies, and posts when it is dead.
fn post(segment: &str, between: Between, mut go: PipeReader, mut says: PipeWriter) {
    let matrix = Matrix::builder().open(segment).expect("opens");
    let poster = topic(&matrix).poster().expect("has a number");
    // The thread's cache is made now.
    poster.loan(0).expect("there is memory");
    says.write_all(b"!").expect("is heard");
    go.read_exact(&mut [0]).expect("is told");
    if between == Between::Post {
        poster.post(&0).expect("posts");
    }
    // SAFETY: no memory is passed. From here on the kernel kills this thread, the only one, at any call but
    // read, write, exit and sigreturn.
    let strict = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) } == 0;
    let code = if strict { i32::from(!posts(&poster)) } else { 3 };
    // SAFETY: ends this thread; `exit_group`, which libraries use, is forbidden.
    unsafe { libc::syscall(libc::SYS_exit, code) };
}

fn posts(poster: &Poster<u64>) -> bool {
    (0..1000).all(|number| poster.post(&number).is_ok())
}

/// Kills a reader that waits, and tells how the poster fared.
fn run(how: Wait, between: Between) -> WaitStatus {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let _topic = topic(&matrix);
    let (go, mut tells) = pipe().unwrap();
    let (poster, mut is_ready) = child(|says| post(&scratch.name(), between, go, says));
    is_ready.read_exact(&mut [0]).expect("the poster is there");
    let (reader, mut waits) = child(|says| wait(&scratch.name(), how, says));
    waits.read_exact(&mut [0]).expect("the reader is there");
    // It falls asleep, now and whenever a slice of its sleep is over.
    thread::sleep(Duration::from_millis(200));
    kill(reader, Signal::SIGKILL).unwrap();
    waitpid(reader, None).unwrap();
    if between == Between::Recovery {
        assert_eq!(matrix.recover().readers, 1);
    }
    tells.write_all(b"!").unwrap();
    let status = waitpid(poster, None).unwrap();
    matrix.destroy().expect("removes the bells as well");
    status
}

#[test]
fn reader_killed_while_it_waits_costs_one_call_and_after_recovery_none() {
    for how in [Wait::Asleep, Wait::Bell] {
        for between in [Between::Post, Between::Recovery] {
            let status = run(how, between);
            if let WaitStatus::Exited(_, 3) = status {
                println!("SKIPPED: this kernel has no strict seccomp");
                return;
            }
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{how:?}, {between:?}: {status:?}");
        }
        // The check can fail: there is the one call.
        let status = run(how, Between::Nothing);
        assert!(matches!(status, WaitStatus::Signaled(..)), "{how:?}: {status:?}");
    }
}
