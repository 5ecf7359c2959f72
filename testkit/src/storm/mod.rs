//! Processes killed at random while all of them work.
//!
//! Children run the endurance mix on one segment, with guards, every payload filled and verified.
//! Every few milliseconds the parent kills one with SIGKILL, wherever it is, and replaces it at
//! once; now and then it stops one for a while instead, which then must lose nothing. The parent
//! has blocks of its own all the time. All of them work as users do, by way of thread caches. In the end all children are killed, the parent recovers,
//! and the books must balance: every byte free or the parent's, no violation, no payload changed.
//!
//! A child killed between `into_offset` and `from_offset` leaves a block that belongs to nobody,
//! and recovery must leave it: it may be on its way to somebody. At most one per kill and thread.

mod end;
mod worker;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use atomic_matrix::{Error, Matrix, OpenError};
use indicatif::ProgressBar;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::end::{Findings, balance, recover_all, whole};
use self::worker::{Tally, Worker};
use crate::hostile::bed::Region;
use crate::hostile::step::mix;
use crate::process::fork_child;
use crate::product;
use crate::verdict::Verdict;

/// One in so many events is a stop, not a kill.
const STOP_ONE_IN: u32 = 12;
/// Events for which a stopped child sleeps.
const STOP_EVENTS: u64 = 6;
/// The parent's own steps between two events.
const OWN_STEPS: u32 = 20;
/// The parent recovers after so many events.
const RECOVER_EVERY: u64 = 8;

/// How long a process tries to become a participant.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How much nicer than the parent children are.
const BELOW_PARENT: i32 = 10;

/// How hard, and for how long.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Processes that work and are killed
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub processes: u32,
    /// Threads in each of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub threads: u32,
    /// Seconds until all are killed
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Milliseconds between two kills, on the average; 0 for none before the end
    #[arg(long, default_value_t = 5)]
    pub kill_every_ms: u64,
    /// Who does what follows from it, though not when [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Fill every payload, and check every byte of it before the free
    #[arg(long)]
    pub verify: bool,
    /// Size of the segment in MiB
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..=4096))]
    pub size_mib: u64,
    /// Check the check: leave the last recovery out, and see it fail
    #[arg(long)]
    pub self_test: bool,
}

/// Set by SIGINT and SIGTERM: the storm ends, the accounts follow all the same.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: i32) {
    INTERRUPTED.store(true, Relaxed);
}

/// Runs it.
///
/// # Errors
/// No segment, or no process could be made.
pub fn run(args: &Args) -> Result<Verdict> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let action =
        SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    let segment = Segment::create(args.size_mib << 20)?;
    let memory = Region::guarded((args.processes as usize + 1) * size_of::<Tally>())?;
    let storm = Storm { args, seed, segment: &segment, memory: &memory };
    let outcome = storm.run()?;
    let failed = outcome.failures > 0;
    if args.self_test {
        println!("self-test: {} failures noticed without recovery", outcome.failures);
        return Ok(Verdict { failures: u64::from(!failed), ..outcome });
    }
    if failed {
        println!("repeat it (the moments of the kills will differ): {}", args.command(seed));
    }
    Ok(outcome)
}

impl Args {
    fn command(&self, seed: u64) -> String {
        let verify = if self.verify { " --verify" } else { "" };
        format!(
            "kit storm --processes {} --threads {} --seconds {} --kill-every-ms {} --size-mib {} \
             --seed {seed}{verify}",
            self.processes, self.threads, self.seconds, self.kill_every_ms, self.size_mib
        )
    }
}

/// The segment of the run; its name goes away with this value.
struct Segment {
    name: String,
    matrix: Matrix,
    fd: OwnedFd,
}

impl Segment {
    fn create(size_bytes: u64) -> Result<Self> {
        let name = format!("am-kit-storm-{}", std::process::id());
        let matrix = Matrix::builder().size(size_bytes).create(&name)?;
        let fd = matrix.as_fd().try_clone_to_owned()?;
        Ok(Self { name, matrix, fd })
    }

    /// A handle of a child's own: by the name, or by the descriptor.
    fn open(&self, by_name: bool, tally: &Tally) -> Result<Matrix> {
        let begin = Instant::now();
        loop {
            let opened = match by_name {
                true => Matrix::builder().open(&self.name),
                false => Matrix::builder().attach(self.fd.try_clone()?),
            };
            match opened {
                Err(OpenError::Matrix(Error::TooManyParticipants { .. }))
                    if begin.elapsed() < OPEN_PATIENCE =>
                {
                    // A failure of the run; but the run shall show whether there are others.
                    tally.turned_away.fetch_add(1, Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return Ok(other?),
            }
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Err(error) = self.matrix.destroy() {
            eprintln!("warning: /dev/shm/{} stays: {error}", self.name);
        }
    }
}

/// What all processes of a storm agree on.
struct Storm<'a> {
    args: &'a Args,
    seed: u64,
    segment: &'a Segment,
    memory: &'a Region,
}

/// The children, and what was done to them.
struct Crew<'a> {
    storm: &'a Storm<'a>,
    rng: fastrand::Rng,
    pids: Vec<Pid>,
    /// Killed, and not yet seen dead.
    dying: VecDeque<Pid>,
    born: u32,
    kills: u64,
    stops: u64,
    /// Participants seen at once, at most; the dead count until they are recovered.
    crowd: usize,
    /// Stopped children, by their place, and the event at which they go on.
    asleep: Vec<(usize, u64)>,
}

impl Storm<'_> {
    fn tally(&self, place: usize) -> &Tally {
        let first = self.memory.base().cast::<Tally>();
        assert!(place <= self.args.processes as usize, "no such place");
        // SAFETY: the memory has one tally more than there are processes.
        let at = unsafe { first.add(place) };
        // SAFETY: mapped as long as the region, aligned, zeroes at first, all fields atomic.
        unsafe { at.as_ref() }
    }

    fn sum(&self, count: fn(&Tally) -> &AtomicU64) -> u64 {
        (0..=self.args.processes as usize).map(|i| count(self.tally(i)).load(Relaxed)).sum()
    }

    fn run(&self) -> Result<Verdict> {
        let matrix = &self.segment.matrix;
        let own = self.tally(self.args.processes as usize);
        let mut worker = Worker::new(matrix, own, self.seed, 0, self.args.verify);
        let mut findings = Findings::default();
        let mut crew = Crew::new(self);
        for place in 0..self.args.processes as usize {
            crew.start(place)?;
        }
        let begin = Instant::now();
        let weather = self.weather(&mut crew, &mut worker, begin);
        let seconds = begin.elapsed().as_secs_f64();
        if let Err(error) = weather {
            findings.0.push(format!("{error:#}"));
        }
        crew.kill_all(&mut findings);

        let mut recovered = self.sum(|t| &t.recovered);
        if !self.args.self_test {
            match recover_all(matrix) {
                Ok(blocks) => recovered += blocks,
                Err(error) => findings.0.push(format!("{error:#}")),
            }
        }
        if let Err(error) = matrix.trim() {
            findings.0.push(format!("the parent: {error}"));
        }
        let losses = crew.kills * u64::from(self.args.threads);
        let orphans = balance(matrix, worker.live() as u64, losses, &mut findings);
        if let Err(error) = worker.drain() {
            findings.0.push(format!("the parent: {error:#}"));
        }
        if let Err(error) = matrix.trim() {
            findings.0.push(format!("the parent: {error}"));
        }
        whole(matrix, &mut findings);
        let corrupted = self.sum(|t| &t.corrupted);
        findings.demand(corrupted == 0, || format!("{corrupted} payloads were overwritten"));

        let turned_away = self.sum(|t| &t.turned_away);
        // Not what the check of the check is about.
        findings.demand(turned_away == 0 || self.args.self_test, || {
            let alive = 2 * self.args.processes + 1;
            format!("{turned_away} times no slot was free, with at most {alive} processes alive")
        });

        let (operations, refused) = (self.sum(|t| &t.operations), self.sum(|t| &t.refused));
        println!("kills {}, stops {}, seconds {seconds:.1}", crew.kills, crew.stops);
        println!("operations {operations}, refused {refused}");
        println!("blocks recovered {recovered}, given away to nobody {orphans}");
        let (deferred, busy) = (self.sum(|t| &t.deferred), self.sum(|t| &t.busy));
        println!(
            "recoveries deferred {deferred}, busy {busy}; at most {} participants",
            crew.crowd
        );
        for finding in &findings.0 {
            println!("FAILED: {finding}");
        }
        let failures = findings.0.len() as u64;
        Ok(Verdict { points: crew.kills, blocks: recovered, failures })
    }

    /// The storm itself, until its time is over or a child ends by itself.
    fn weather(&self, crew: &mut Crew<'_>, worker: &mut Worker<'_>, begin: Instant) -> Result<()> {
        let end = Duration::from_secs(self.args.seconds);
        let own = self.tally(self.args.processes as usize);
        let bar = ProgressBar::new(self.args.seconds);
        let mut event = 0;
        while begin.elapsed() < end && !INTERRUPTED.load(Relaxed) {
            let pause_us = crew.rng.u64(..=2 * self.args.kill_every_ms.max(1) * 1000);
            std::thread::sleep(Duration::from_micros(pause_us));
            event += 1;
            crew.still_there()?;
            if self.args.kill_every_ms > 0 {
                crew.event(event)?;
            }
            for _ in 0..OWN_STEPS {
                worker.step().context("the parent")?;
            }
            if event % RECOVER_EVERY == 0 {
                own.recover(&self.segment.matrix);
                crew.crowd = crew.crowd.max(product::participants(&self.segment.matrix));
            }
            bar.set_position(begin.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A child's life: it ends by a signal only.
    fn live(&self, place: usize, number: u32) -> Result<()> {
        // SAFETY: changes nothing but this process's priority: the parent must come in time.
        unsafe { nix::libc::nice(BELOW_PARENT) };
        let tally = self.tally(place);
        let matrix = self.segment.open(number.is_multiple_of(2), tally).context("open")?;
        tally.recover(&matrix);
        let work = |thread: u32| {
            let number = number * self.args.threads + thread + 1;
            let seed = mix(self.seed, number.into());
            let mut worker = Worker::new(&matrix, tally, seed, number, self.args.verify);
            loop {
                if let Err(error) = worker.step() {
                    // The other threads must not hide it.
                    eprintln!("error: worker {number}: {error:#}");
                    std::process::exit(1);
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 1..self.args.threads {
                scope.spawn(move || work(thread));
            }
            work(0)
        })
    }
}

impl<'a> Crew<'a> {
    fn new(storm: &'a Storm<'a>) -> Self {
        let rng = fastrand::Rng::with_seed(mix(storm.seed, u64::MAX));
        let (pids, dying, asleep) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { storm, rng, pids, dying, born: 0, kills: 0, stops: 0, crowd: 0, asleep }
    }

    fn start(&mut self, place: usize) -> Result<()> {
        let (storm, number) = (self.storm, self.born);
        self.born += 1;
        let pid = fork_child(|| {
            if let Err(error) = storm.live(place, number) {
                eprintln!("error: process {number}: {error:#}");
                std::process::exit(1);
            }
        })?;
        if place < self.pids.len() {
            self.pids[place] = pid
        } else {
            self.pids.push(pid)
        }
        Ok(())
    }

    /// Kills a child and replaces it, or stops one for a while.
    fn event(&mut self, event: u64) -> Result<()> {
        let pids = &self.pids;
        self.asleep.retain(|&(place, until)| {
            let over = event >= until;
            if over {
                // It may have been killed and replaced meanwhile; then this does nothing.
                let _ = kill(pids[place], Signal::SIGCONT);
            }
            !over
        });
        let place = self.rng.usize(..self.pids.len());
        if self.rng.u32(..STOP_ONE_IN) == 0 {
            kill(self.pids[place], Signal::SIGSTOP).context("cannot stop a child")?;
            self.stops += 1;
            self.asleep.push((place, event + STOP_EVENTS));
            return Ok(());
        }
        self.end(place)?;
        self.start(place)
    }

    /// Kills a child. It dies when the kernel finds time for it; others begin meanwhile.
    fn end(&mut self, place: usize) -> Result<()> {
        kill(self.pids[place], Signal::SIGKILL).context("cannot kill a child")?;
        self.kills += 1;
        self.dying.push_back(self.pids[place]);
        while self.dying.len() > self.pids.len() {
            self.reap()?;
        }
        Ok(())
    }

    /// Waits for the child that was killed first: it must die of that.
    fn reap(&mut self) -> Result<()> {
        let Some(pid) = self.dying.pop_front() else { return Ok(()) };
        match waitpid(pid, None).context("a child is gone")? {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
            other => bail!("a child was not killed, but ended: {other:?}"),
        }
    }

    /// Looks whether a child ended by itself: none may.
    fn still_there(&self) -> Result<()> {
        for &pid in &self.pids {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)).context("a child is gone")? {
                WaitStatus::StillAlive => {}
                other => bail!("a child ended by itself: {other:?}"),
            }
        }
        Ok(())
    }

    /// Kills all children, and waits until they are gone.
    fn kill_all(&mut self, findings: &mut Findings) {
        for place in 0..self.pids.len() {
            if let Err(error) = self.end(place) {
                findings.0.push(format!("{error:#}"));
            }
        }
        while !self.dying.is_empty() {
            if let Err(error) = self.reap() {
                findings.0.push(format!("{error:#}"));
            }
        }
    }
}
