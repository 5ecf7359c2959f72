//! Children of a program that has one thread.

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};

/// Forks a child that does `body` and exits with success; it dies with its parent.
///
/// The caller has one thread only.
///
/// # Errors
/// What the kernel says.
pub fn fork_child(body: impl FnOnce()) -> Result<Pid> {
    // SAFETY: this program starts no thread before it forks, so the child may do anything.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // A kernel that does not know this leaves a child behind at the worst.
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            body();
            std::process::exit(0);
        }
    }
}
