//! A segment that somebody scribbles on.
//!
//! A victim, a process of its own, makes every call of a matrix while words of the allocator are
//! overwritten: guard, geometry, control words, index, granule words, block headers, and the words of two
//! topics, on which it posts and reads, and of a service, where it asks and answers. Mostly the
//! victim does it to itself at fixed steps, so that a seed repeats it exactly; every eighth round
//! another process does it at any moment. The memory lies between inaccessible pages as far as any
//! offset reaches; every eighth round or so it is a segment of the product's own making instead.
//!
//! Demanded: each call returns, in time, an `Ok` or a named error; no panic, no signal; and what
//! is handed out lies in a sector. Allowed, once there is damage: blocks that overlap, blocks that
//! are lost, violations in `check`. So payloads prove nothing here and are not compared.
//!
//! Behind the rounds drawn at random comes a [sweep]: every word of a topic that says something, and of a
//! message's header, each with every value that may mislead, under a poster, readers and a group.
//!
//! After a number of damages the segment is made anew. The round that a damage belongs to can be
//! repeated alone, with every step printed.

pub mod bed;
mod damage;
mod death;
mod messages;
pub mod player;
mod service;
pub mod step;
pub mod sweep;
mod victim;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use self::bed::{Bed, Region};
use self::player::{Broken, Player};
use self::step::{DAMAGES, Step, script};
use self::victim::{Board, Plan, SABOTAGES, play, scribble};
use crate::process::fork_child;
use crate::verdict::Verdict;

/// How much longer than it may compute a call may wait.
const WAIT_FACTOR: u32 = 10;
/// How often the supervisor looks whether its victim is alive.
const LOOK: Duration = Duration::from_millis(50);
/// Turns of a racing round that is repeated alone: the interleaving is another each time.
const RACE_AGAIN: usize = 500;
/// Victims that may die before the run is given up.
const DEATHS_MAX: u64 = 50;
/// Failures of one kind that are printed.
const SHOWN_MAX: u64 = 3;

/// How many damages, and which.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Words to overwrite, rounded up to whole rounds
    #[arg(long, default_value_t = 10_000)]
    pub mutations: u64,
    /// Everything follows from it [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Repeat the round of this mutation alone, and print its steps
    #[arg(long)]
    pub only: Option<u64>,
    /// Milliseconds that one call may compute; ten times as long it may wait
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_ms: u64,
    /// Check the check: panic, reach outside, hang, hand out the wrong place, and see it noticed
    #[arg(long, conflicts_with = "only")]
    pub self_test: bool,
}

/// Runs it.
///
/// # Errors
/// No memory, or no process could be made.
pub fn run(args: &Args) -> Result<Verdict> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let plan = Plan { seed, beds: beds()?, sabotage: args.self_test };
    let memory = Region::guarded(size_of::<Board>())?;
    let board = Board::of(&memory);
    let scribbler = fork_child(|| scribble(&plan, board))?;
    let mut watch = Watch { args, plan: &plan, board, failures: Failures::default() };
    let outcome = watch.all();
    end(scribbler);
    outcome?;
    let [calls, refused, longest] =
        [&board.calls, &board.refused, &board.longest_ns].map(|n| n.load(Relaxed));
    println!("calls {calls}, refused {refused}");
    let [round, step] = [&board.longest_at[0], &board.longest_at[1]].map(|n| n.load(Relaxed));
    let number = mutation_of(&script(seed, round), round, step);
    println!("the longest took {} us: step {step} of mutation {number}", longest / 1000);
    let mut failures = watch.failures.count;
    if args.self_test {
        println!("self-test: {failures} of {SABOTAGES} sabotages noticed");
        failures = failures.abs_diff(SABOTAGES);
    }
    Ok(Verdict { points: board.damages.load(Relaxed), blocks: calls, failures })
}

/// Plays one round on a new segment, in this process and without a net.
///
/// # Errors
/// What is wrong, if it is not a panic or a signal.
///
/// # Panics
/// When the allocator does, or a new segment cannot be used.
pub fn play_steps(bed: &Bed, steps: &[Step]) -> Result<(), Broken> {
    bed.reset();
    let attach = || bed.attach().expect("a new segment can be used");
    let handles = [attach(), attach()];
    let mut player = Player::new(bed, &handles);
    for step in steps {
        match step {
            Step::Do(operation) => player.perform(*operation)?,
            Step::Tell(telling) => player.tell(*telling)?,
            Step::Ask(asking) => player.ask(*asking)?,
            Step::Damage(damage) => damage.apply(bed),
        }
    }
    player.finish()?;
    drop(player);
    drop(bed.attach());
    Ok(())
}

/// The segments, the last of the product's own making.
fn beds() -> Result<Vec<Bed>> {
    Ok(vec![
        Bed::guarded(576 << 10, (40, 30))?,
        Bed::guarded(1 << 20, (20, 30))?,
        Bed::guarded(480 << 10, (100, 0))?,
        Bed::guarded(640 << 10, (0, 50))?,
        // So long that the index is three levels high.
        Bed::guarded(2 << 20, (90, 5))?,
        Bed::memfd(576 << 10, (40, 30))?,
    ])
}

fn end(child: Pid) {
    // It may be dead already.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
}

/// What went wrong, by kind.
#[derive(Default)]
struct Failures {
    count: u64,
    deaths: u64,
    kinds: BTreeMap<String, u64>,
}

/// Whoever watches the victims.
struct Watch<'a> {
    args: &'a Args,
    plan: &'a Plan,
    board: &'a Board,
    failures: Failures,
}

impl Watch<'_> {
    fn all(&mut self) -> Result<()> {
        if let Some(number) = self.args.only {
            let round = number / DAMAGES;
            let turns = if Plan::races(round) { RACE_AGAIN } else { 1 };
            for (at, step) in script(self.plan.seed, round).iter().enumerate() {
                eprintln!("{at:3} {step:?}");
            }
            self.victim(&mut std::iter::repeat_n(round, turns))?;
            return Ok(());
        }
        let rounds = match self.args.self_test {
            true => SABOTAGES,
            false => self.args.mutations.div_ceil(DAMAGES),
        };
        self.rounds(0..rounds)?;
        if !self.args.self_test {
            self.rounds(sweep::FIRST..sweep::FIRST + sweep::rounds())?;
        }
        Ok(())
    }

    fn rounds(&mut self, rounds: Range<u64>) -> Result<()> {
        let bar = ProgressBar::new(rounds.end - rounds.start);
        let mut first = rounds.start;
        while first < rounds.end && self.failures.deaths < DEATHS_MAX {
            self.victim(&mut (first..rounds.end))?;
            first = self.board.round.load(Relaxed) + 1;
            bar.set_position(first - rounds.start);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Starts a victim and watches it to its end, which is that of the rounds or its own.
    fn victim(&mut self, rounds: &mut dyn Iterator<Item = u64>) -> Result<()> {
        let (reader, writer) = nix::unistd::pipe().context("no pipe")?;
        let (plan, board) = (self.plan, self.board);
        let victim = fork_child(|| {
            if let Err(error) = play(plan, board, rounds, writer) {
                eprintln!("error: {error:#}");
                std::process::exit(1);
            }
        })?;
        let hung = self.listen(victim, reader)?;
        let status = waitpid(victim, None).context("the victim is gone")?;
        let what = match status {
            _ if hung => format!("a call took more than {} ms", self.args.limit_ms),
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Signaled(_, signal, _) => format!("the victim died of {signal}"),
            other => format!("the victim ended: {other:?}"),
        };
        self.failures.deaths += 1;
        let (round, step) = (board.round.load(Relaxed), board.step.load(Relaxed));
        self.failure(round, step, &what);
        Ok(())
    }

    /// Reads reports until the victim ends; kills it, and returns true, when it does nothing.
    fn listen(&mut self, victim: Pid, reader: OwnedFd) -> Result<bool> {
        let limit = Duration::from_millis(self.args.limit_ms);
        let clock = clock_getcpuclockid(victim).context("the victim has no clock")?;
        let computed = || clock_gettime(clock).map(Duration::from).unwrap_or_default();
        let mut beat = (self.board.beat.load(Relaxed), Instant::now(), computed());
        let mut lines = BufReader::new(std::fs::File::from(reader));
        loop {
            let mut fds = [PollFd::new(lines.get_ref().as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(LOOK).context("a short time")?;
            if poll(&mut fds, timeout).context("cannot wait")? > 0 {
                let mut line = String::new();
                if lines.read_line(&mut line)? == 0 {
                    return Ok(false);
                }
                let mut words = line.trim_end().splitn(3, ' ');
                let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                let (round, step) = (number(), number());
                self.failure(round, step, words.next().unwrap_or_default());
                continue;
            }
            let now = self.board.beat.load(Relaxed);
            if now != beat.0 {
                beat = (now, Instant::now(), computed());
                continue;
            }
            // Others share the machine, so a call that computes has as much time of its own.
            let computes = computed().saturating_sub(beat.2) > limit;
            if computes || beat.1.elapsed() > limit * WAIT_FACTOR {
                let _ = kill(victim, Signal::SIGKILL);
                return Ok(true);
            }
        }
    }

    /// Counts a failure, and prints it with what repeats it unless its kind is known by now.
    fn failure(&mut self, round: u64, step: u64, text: &str) {
        self.failures.count += 1;
        let kind = self.failures.kinds.entry(kind(text)).or_default();
        *kind += 1;
        if *kind > SHOWN_MAX {
            return;
        }
        let script = script(self.plan.seed, round);
        let number = mutation_of(&script, round, step);
        println!("FAILED at mutation {number}: {text}");
        match script.get(step as usize) {
            Some(step) => println!("  in {step:?}"),
            None => println!("  in the end of the round, when everything is given back"),
        }
        let seed = self.plan.seed;
        println!("  repeat it: cargo xtask hostile --seed {seed} --only {number}");
        if Plan::races(round) {
            println!("  (another process raced; the seed repeats the steps, not their order)");
        }
    }
}

/// The number of the last damage before a step of a round, or of the round's first.
fn mutation_of(script: &[Step], round: u64, step: u64) -> u64 {
    let before = script.iter().take(step as usize + 1);
    let damages = before.filter(|step| matches!(step, Step::Damage(_))).count() as u64;
    round * DAMAGES + damages.saturating_sub(1)
}

/// What failures of one kind have in common: the text up to its first number.
fn kind(text: &str) -> String {
    let place = text.split(' ').find(|word| word.contains(".rs:"));
    place.map_or_else(|| text.chars().take_while(|c| !c.is_ascii_digit()).collect(), str::to_owned)
}
