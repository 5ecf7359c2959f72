//! A child process that runs one instruction at a time.
//!
//! The child marks the stretch to be stepped with [`Mark::around`]: there it asks to be traced,
//! stops itself, and says in a page that it shares with its parent when the stretch begins and
//! ends. The parent reads that page after each step, so it needs to know no address and sets no
//! breakpoint. Step 0 is the instruction behind the store that says "begun".
//!
//! Only a process with one thread may make steppers: the child goes on with whatever the fork
//! caught of the others' locks.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::ptrace;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, gettid};

/// Seconds that a child may go without a stop before it counts as hung: others may share the machine.
const PATIENCE_SECONDS: u32 = 20;
/// Alarms in one wait that end it.
const ALARMS_MAX: u32 = 2;
/// Instructions after which patience begins anew: a child that goes on is not hung, however slowly it is stepped on
/// a busy machine.
const STEPS_PER_ALARM: u64 = 256;
/// Signals from outside that interrupt one step.
const OUTSIDERS_MAX: u32 = 1000;
/// Bytes of the child's last words.
const WORDS_MAX: usize = 1024;

/// Nothing of the stretch was run.
const READY: u32 = 0;
const BEGUN: u32 = 1;
const ENDED: u32 = 2;

/// What child and parent share.
#[repr(C)]
struct Page {
    phase: AtomicU32,
    /// The thread to be stepped, once it may be.
    tracee: AtomicI32,
    /// Why the child failed, NUL-terminated.
    words: [AtomicU8; WORDS_MAX],
}

/// A mapping of one [`Page`], the same memory after a fork.
struct SharedPage(NonNull<Page>);

impl SharedPage {
    fn new() -> Result<Self> {
        let len = NonZeroUsize::new(size_of::<Page>()).context("a page has bytes")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let page = unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_SHARED) }?;
        Ok(Self(page.cast()))
    }
}

impl std::ops::Deref for SharedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: mapped as long as `self`, page-aligned, and zeroes are a valid value of it.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no reference outlives `self`.
        let _ = unsafe { munmap(self.0.cast(), size_of::<Page>()) };
    }
}

/// The child's side: where the stretch to be stepped begins and ends.
pub struct Mark<'a> {
    page: &'a Page,
    ends_later: AtomicBool,
}

impl Mark<'_> {
    /// Runs `work` as the stretch to be stepped. Once per child, in the thread to be stepped.
    pub fn around<T>(&self, work: impl FnOnce() -> T) -> T {
        self.begin();
        let result = work();
        if !self.ends_later.load(SeqCst) {
            self.page.phase.store(ENDED, SeqCst);
        }
        result
    }

    /// Begins a stretch that ends with the calling thread.
    pub fn until_the_thread_ends(&self) {
        self.ends_later.store(true, SeqCst);
        self.begin();
    }

    fn begin(&self) {
        ptrace::traceme().expect("a parent traces its child");
        self.page.tracee.store(gettid().as_raw(), SeqCst);
        signal::raise(Signal::SIGSTOP).expect("a process may stop itself");
        self.page.phase.store(BEGUN, SeqCst);
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One instruction more was run.
    Done,
    /// The stretch, or its thread, has ended; nothing was counted.
    Ended,
}

/// The parent's side of a child that is stepped.
pub struct Stepper {
    page: SharedPage,
    pid: Pid,
    /// The thread that is stepped.
    tracee: Pid,
    steps: u64,
    tracee_gone: bool,
    reaped: bool,
}

impl Stepper {
    /// Forks a child that runs `body`, and waits until it stands before its mark.
    ///
    /// # Errors
    /// The child ended, failed or hung before the mark; its last words are in the error.
    pub fn start(body: impl FnOnce(&Mark<'_>) -> Result<()>) -> Result<Self> {
        arm_alarm()?;
        let page = SharedPage::new()?;
        let parent = nix::unistd::getpid();
        // SAFETY: this process has one thread, so the child finds every lock free.
        match unsafe { fork() }? {
            ForkResult::Child => run_child(&page, parent, body),
            ForkResult::Parent { child } => Self::await_mark(page, child),
        }
    }

    fn await_mark(page: SharedPage, pid: Pid) -> Result<Self> {
        let mut this = Self { page, pid, tracee: pid, steps: 0, tracee_gone: false, reaped: false };
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS.into());
        loop {
            let tracee = Pid::from_raw(this.page.tracee.load(SeqCst));
            if tracee.as_raw() != 0 {
                this.tracee = tracee;
                match wait_for(tracee)? {
                    WaitStatus::Stopped(_, Signal::SIGSTOP) => break,
                    other => bail!("at its mark the child is {other:?}"),
                }
            }
            match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
                WaitStatus::StillAlive => {}
                WaitStatus::Stopped(_, Signal::SIGSTOP) => break,
                status => {
                    this.reaped =
                        matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                    bail!("before its mark the child is {status:?}: {}", this.last_words());
                }
            }
            ensure!(Instant::now() < deadline, "the child hangs before its mark");
            std::thread::sleep(Duration::from_micros(20));
        }
        ptrace::setoptions(this.tracee, ptrace::Options::PTRACE_O_EXITKILL)?;
        alarm::set(PATIENCE_SECONDS);
        // The rest of `raise` belongs to no operation.
        while this.page.phase.load(SeqCst) == READY {
            ensure!(this.step_raw()?, "the child ended at its mark: {}", this.last_words());
        }
        this.steps = 0;
        Ok(this)
    }

    /// Runs one instruction; a system call is one.
    ///
    /// # Errors
    /// The child got a signal, or sleeps in the kernel for longer than patience lasts.
    pub fn step(&mut self) -> Result<Step> {
        if self.ended() || !self.step_raw()? || self.ended() {
            return Ok(Step::Ended);
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_ALARM) {
            alarm::set(PATIENCE_SECONDS);
        }
        Ok(Step::Done)
    }

    /// Runs `count` instructions, or fewer if the stretch ends; returns how many.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn steps(&mut self, count: u64) -> Result<u64> {
        for done in 0..count {
            if self.step()? == Step::Ended {
                return Ok(done);
            }
        }
        Ok(count)
    }

    /// Begins the next instruction, a system call, and leaves the child in it if it sleeps there; else it is over.
    ///
    /// # Errors
    /// It neither sleeps nor ends.
    pub fn enter(&mut self) -> Result<()> {
        ptrace::step(self.tracee, None)?;
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS.into());
        while Instant::now() < deadline {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.tracee))?;
            // Behind the name, which may have any letters in it.
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            if matches!(state, Some('S' | 't')) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        bail!("a system call neither sleeps nor ends")
    }

    /// Returns the number of instructions run since the stretch began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.steps
    }

    /// Tells whether the stretch has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.tracee_gone || self.page.phase.load(SeqCst) == ENDED
    }

    /// Returns the address of the next instruction, and whether it is a system call; `None` where
    /// that cannot be known.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn next_instruction(&self) -> Option<(u64, bool)> {
        const SYSCALL: i64 = 0x050f;
        let address = ptrace::getregs(self.tracee).ok()?.rip;
        let code = ptrace::read(self.tracee, address as *mut _).ok()?;
        Some((address, code & 0xffff == SYSCALL))
    }

    /// See above.
    #[cfg(not(target_arch = "x86_64"))]
    #[must_use]
    pub fn next_instruction(&self) -> Option<(u64, bool)> {
        None
    }

    /// Runs at full speed until the child is about to run the instruction at `address`, after it
    /// has run it `passes` times; that is instruction number `count` of the stretch. False when it
    /// ended before.
    ///
    /// # Errors
    /// It stops elsewhere.
    #[cfg(target_arch = "x86_64")]
    pub fn run_to(&mut self, address: u64, passes: u32, count: u64) -> Result<bool> {
        const BREAK: i64 = 0xcc;
        let place = address as *mut _;
        let code = ptrace::read(self.tracee, place)?;
        for pass in 0..=passes {
            alarm::set(PATIENCE_SECONDS);
            if pass > 0 && !self.step_raw()? {
                return Ok(false);
            }
            ptrace::write(self.tracee, place, code & !0xff | BREAK)?;
            match self.run()? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                WaitStatus::Exited(..) => {
                    self.tracee_gone = true;
                    self.reaped = self.tracee == self.pid;
                    return Ok(false);
                }
                other => bail!("on its way to the breakpoint it ended with {other:?}"),
            }
            ptrace::write(self.tracee, place, code)?;
            let mut registers = ptrace::getregs(self.tracee)?;
            ensure!(registers.rip == address + 1, "it stopped at {:#x}", registers.rip);
            registers.rip = address;
            ptrace::setregs(self.tracee, registers)?;
        }
        self.steps = count;
        Ok(true)
    }

    /// Breakpoints are x86-64's; elsewhere every instruction is stepped.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn run_to(&mut self, _address: u64, _passes: u32, _count: u64) -> Result<bool> {
        bail!("no breakpoints here")
    }

    /// Lets the child run to its end.
    ///
    /// # Errors
    /// It ended otherwise than by itself and well; its last words are in the error.
    pub fn finish(mut self) -> Result<()> {
        if !self.tracee_gone {
            ptrace::detach(self.tracee, None)?;
        }
        alarm::set(PATIENCE_SECONDS);
        let status = wait_for(self.pid)?;
        alarm::cancel();
        self.reaped = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        match status {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => bail!("the child is {status:?}: {}", self.last_words()),
        }
    }

    /// Kills the child with `SIGKILL` where it stands, and reaps it.
    ///
    /// # Errors
    /// It could not be killed.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        alarm::cancel();
        if self.reaped {
            return Ok(());
        }
        signal::kill(self.pid, Signal::SIGKILL)?;
        if self.tracee != self.pid && !self.tracee_gone {
            waitpid(self.tracee, Some(WaitPidFlag::__WALL))?;
        }
        loop {
            let status = waitpid(self.pid, Some(WaitPidFlag::__WALL))?;
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                self.reaped = true;
                return Ok(());
            }
        }
    }

    /// Runs one instruction; false when the thread has ended.
    fn step_raw(&mut self) -> Result<bool> {
        for _ in 0..OUTSIDERS_MAX {
            ptrace::step(self.tracee, None)?;
            match wait_for(self.tracee)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Ok(true),
                // It stopped before it ran anything.
                WaitStatus::Stopped(_, signal) if is_outsiders(signal) => {}
                WaitStatus::Exited(..) => {
                    self.tracee_gone = true;
                    self.reaped = self.tracee == self.pid;
                    return Ok(false);
                }
                other => bail!("step {} ended with {other:?}", self.steps + 1),
            }
        }
        bail!("somebody stops the child again and again")
    }

    /// Lets the child run at full speed until it stops.
    fn run(&self) -> Result<WaitStatus> {
        for _ in 0..OUTSIDERS_MAX {
            ptrace::cont(self.tracee, None)?;
            match wait_for(self.tracee)? {
                WaitStatus::Stopped(_, signal) if is_outsiders(signal) => {}
                status => return Ok(status),
            }
        }
        bail!("somebody stops the child again and again")
    }

    fn last_words(&self) -> String {
        let bytes = self.page.words.iter().map(|byte| byte.load(SeqCst));
        let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Runs the child's side, and ends the process without any destructor: what lies in memory is a
/// copy of the parent's.
fn run_child(page: &Page, parent: Pid, body: impl FnOnce(&Mark<'_>) -> Result<()>) -> ! {
    let die_with_parent = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if die_with_parent.is_err() || nix::unistd::getppid() != parent {
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(3) };
    }
    let mark = Mark { page, ends_later: AtomicBool::new(false) };
    let run = std::panic::AssertUnwindSafe(|| body(&mark));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    let code = i32::from(result.is_err());
    if let Err(error) = result {
        let text = format!("{error:#}");
        for (to, byte) in page.words[..WORDS_MAX - 1].iter().zip(text.bytes()) {
            to.store(byte, SeqCst);
        }
    }
    // SAFETY: ends this process at once, without running what the parent registered.
    unsafe { libc::_exit(code) }
}

/// Whether a signal comes from whoever stops and wakes all processes, as a terminal does; the child is stopped
/// by its tracer anyway, and gets none of them.
fn is_outsiders(signal: Signal) -> bool {
    matches!(signal, Signal::SIGSTOP | Signal::SIGCONT | Signal::SIGTSTP)
}

/// Waits until a thread stops or ends. The second alarm in vain ends the wait: the first one says nothing if somebody had
/// stopped all processes meanwhile.
fn wait_for(thread: Pid) -> Result<WaitStatus> {
    let mut alarms = 0;
    while alarms < ALARMS_MAX {
        match waitpid(thread, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) if RANG.swap(false, SeqCst) => {
                alarms += 1;
                alarm::set(PATIENCE_SECONDS);
            }
            Err(Errno::EINTR) => {}
            status => return status.context("cannot wait for the child"),
        }
    }
    bail!("it waits in the kernel for more than {PATIENCE_SECONDS} s")
}

static RANG: AtomicBool = AtomicBool::new(false);

/// Lets `SIGALRM` interrupt a wait.
fn arm_alarm() -> Result<()> {
    extern "C" fn ring(_: i32) {
        RANG.store(true, SeqCst);
    }
    RANG.store(false, SeqCst);
    // Without SA_RESTART: `waitpid` is to return.
    let action = SigAction::new(SigHandler::Handler(ring), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal::sigaction(Signal::SIGALRM, &action) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the others' threads would have to hold still during the fork.
    #[test]
    fn stepper_counts_alike_kills_and_hears_last_words() {
        let body = |mark: &Mark<'_>| {
            let sum = mark
                .around(|| (0..std::hint::black_box(10u64)).map(std::hint::black_box).sum::<u64>());
            ensure!(sum == 45, "sums to {sum}");
            bail!("these are my last words")
        };
        let count = |limit: u64| {
            let mut child = Stepper::start(body).unwrap();
            let steps = child.steps(limit).unwrap();
            (steps, child.ended(), child)
        };
        let (all, ended, child) = count(u64::MAX);
        assert!(ended && all > 20, "{all}");
        let error = child.finish().unwrap_err().to_string();
        assert!(error.contains("these are my last words"), "{error}");
        let (half, ended, child) = count(all / 2);
        assert!(!ended && half == all / 2);
        child.kill().unwrap();
        assert_eq!(count(u64::MAX).0, all);
    }
}
