//! No system call on the hot path: a child that may make none but `write` and `exit` allocates,
//! hands over, resizes and frees. The kernel kills it at the first other call.

use atomic_matrix::{Error, Matrix};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::os::fd::{AsFd, OwnedFd};

/// What must need no kernel. Returns false where something fails.
fn hot_path(matrix: &Matrix) -> bool {
    let mut live = [const { None }; 50];
    for turn in 0..5_000usize {
        let slot = turn * 7 % live.len();
        if let Some(offset) = live[slot].take() {
            let Ok(block) = matrix.from_offset(offset) else { return false };
            drop(block);
        }
        let Ok(mut block) = matrix.allocate(1 + turn * 37 % 3000) else { return false };
        block[0] = turn as u8;
        let _ = block.try_grow(3500);
        if block.shrink(1).is_err() {
            return false;
        }
        live[slot] = Some(block.into_offset());
        let Ok(raw) = matrix.allocate_offset(100_000) else { return false };
        if matrix.ack(raw).is_err() {
            return false;
        }
    }
    // The slow path, too: with half of the large sector held, it walks and finds nothing.
    let half = matrix.allocate(3 << 19);
    let walked = matches!(matrix.allocate(3 << 19), Err(Error::Exhausted { .. }));
    half.is_ok() && walked && live.into_iter().flatten().all(|o| matrix.ack(o).is_ok())
}

fn child(segment: OwnedFd, cached: bool, forbidden_call: bool) -> ! {
    // The only participant: before an allocation fails, the kernel is asked whether others live.
    let matrix = Matrix::builder().attach(segment).expect("attaches");
    let matrix = &matrix.with_thread_caches(cached);
    // SAFETY: no memory is passed. From here on the kernel kills this process at any call but
    // read, write, exit and sigreturn.
    let strict = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) } == 0;
    if forbidden_call {
        // SAFETY: a call without arguments; it ends the process.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    let code = if !strict { 3 } else { i32::from(!hot_path(matrix)) };
    // SAFETY: ends this thread, the only one of a forked child, and nothing else; `exit_group`,
    // which libraries use, is forbidden.
    unsafe { libc::syscall(libc::SYS_exit, code) };
    unreachable!("exited")
}

fn run(cached: bool, forbidden_call: bool) -> WaitStatus {
    let matrix = Matrix::builder().size(8 << 20).memfd("no-kernel").unwrap();
    let segment = matrix.as_fd().try_clone_to_owned().unwrap();
    drop(matrix);
    // SAFETY: the child attaches, which allocates; no other thread of the parent is in the heap now,
    // since this test runs alone in its binary. The matrix has no lock, and its guards need no heap.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => child(segment, cached, forbidden_call),
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).unwrap();
            if !forbidden_call {
                let matrix = Matrix::builder().attach(segment).unwrap();
                assert!(matrix.check().is_empty());
            }
            status
        }
    }
}

#[test]
fn hot_path_makes_no_system_call() {
    for cached in [true, false] {
        let status = run(cached, false);
        if let WaitStatus::Exited(_, 3) = status {
            println!("SKIPPED: this kernel has no strict seccomp");
            return;
        }
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "with caches: {cached}; {status:?}");
    }
    // The check can fail: a child that does make a call is killed.
    assert!(matches!(run(true, true), WaitStatus::Signaled(..)));
}
