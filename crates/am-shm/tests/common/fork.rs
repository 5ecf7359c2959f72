//! Children without an exec.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `act` in a forked child, which ends with status 0 unless it panics.
pub fn forked<F: FnOnce()>(act: F) -> Pid {
    // SAFETY: the parent's other threads are idle, so no lock of theirs is held in the child.
    match unsafe { fork() }.expect("forks") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => end(act),
    }
}

/// Like [`forked`], by a system call that runs no handlers.
pub fn cloned<F: FnOnce()>(act: F) -> Pid {
    let zero: libc::c_long = 0;
    // SAFETY: without flags, this is a fork; the parent's other threads are idle.
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, zero, zero, zero, zero) } {
        0 => end(act),
        pid => Pid::from_raw(pid.try_into().expect("is a pid")),
    }
}

fn end<F: FnOnce()>(act: F) -> ! {
    let failed = catch_unwind(AssertUnwindSafe(act)).is_err();
    // SAFETY: ends the child without running what belongs to its parent.
    unsafe { libc::_exit(failed.into()) }
}

/// The numbers of this process's descriptors.
pub fn descriptors() -> Vec<u32> {
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    fs::read_dir("/proc/self/fd").expect("lists descriptors").filter_map(number).collect()
}
