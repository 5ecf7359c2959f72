//! `kit kill`: every operation, interrupted at every instruction, by death or by sleep.
//!
//! The stepping processes have one thread each, so the work is shared among processes: the program
//! starts itself anew, once per core, and whichever is ready takes the next operation out of a pipe.

use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe, stdin};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::accounts::Care;
use crate::ops::{self, Op};
use crate::pair::{self, Paired};
use crate::stage::Shape;
use crate::sweep::{self, Failure, Reach, Swept};
use crate::verdict::Verdict;

/// Failures of one operation that are printed.
const PRINTED_MAX: usize = 5;
/// What a pipe holds at least, in bytes.
const PIPE_BYTES: usize = 4096;
/// Longest operation that gets a kill at every instruction, in instructions.
const EVERY_MAX: u64 = 5_000;

/// What to kill, and where.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// All operations, and those of up to 5000 instructions at every one, in place of a selection
    #[arg(long, conflicts_with = "at")]
    pub all: bool,
    /// Only the operations whose name contains this, as `small/`; `--list` has them all
    #[arg(long)]
    pub op: Option<String>,
    /// Only at this instruction; the operation must be named in full
    #[arg(long, requires = "op")]
    pub at: Option<u64>,
    /// Seed of the instructions drawn at random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Never recover, and see that the accounts notice
    #[arg(long, conflicts_with = "all")]
    pub self_test: bool,
    /// List the operations, and end
    #[arg(long)]
    pub list: bool,
    /// Processes that share the work [default: one per core]
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Do only operations whose numbers come from stdin, as this one of the processes
    #[arg(long, hide = true)]
    pub part: Option<usize>,
}

/// Runs the sweeps and the pairs.
///
/// # Errors
/// No operation has such a name, or a process of one's own cannot be started.
pub fn run(args: &Args) -> Result<Verdict> {
    let ops = chosen(args);
    ensure!(!ops.is_empty(), "no operation has such a name; --list has them all");
    if args.list {
        ops.iter().for_each(|op| println!("{:<40} {}", op.name, op.layout));
        return Ok(Verdict::default());
    }
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or_else(cores).clamp(1, ops.len());
    let mut total = match args.part {
        Some(part) => {
            // Whoever started this one may be interrupted.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            stay_on_one_core(part)?;
            // Not by way of its buffer, which would take all that there is.
            let numbers = stdin().as_fd().try_clone_to_owned()?;
            return Ok(run_part(numbers_from(numbers.into()).filter_map(|n| ops.get(n)), args));
        }
        None => {
            println!("seed {}", args.seed);
            println!("{}", row(["operation", "steps", "changes", "tried", "covered", "failed"]));
            if jobs == 1 {
                stay_on_one_core(0)?;
                run_part(ops.iter(), args)
            } else {
                run_parts(args, jobs, ops.len())?
            }
        }
    };
    if args.self_test {
        println!("without recovery, {} deaths left something amiss", total.failures);
        total.failures = u64::from(total.failures == 0);
    }
    Ok(total)
}

/// Keeps this process, and the children it will step through, on one of the cores it may use. Each
/// step is a turn of the child and one of its tracer; on two cores each turn would wake the other one.
fn stay_on_one_core(part: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let usable = sched_getaffinity(this)?;
    let cores: Vec<usize> =
        (0..CpuSet::count()).filter(|&core| usable.is_set(core) == Ok(true)).collect();
    let mut one = CpuSet::new();
    one.set(cores[part % cores.len()])?;
    Ok(sched_setaffinity(this, &one)?)
}

fn chosen(args: &Args) -> Vec<Op> {
    let is_chosen = |op: &Op| match &args.op {
        Some(name) if args.at.is_some() => op.name == *name,
        Some(name) => op.name.contains(name.as_str()),
        None => args.all || args.list || !op.thorough,
    };
    let mut ops = ops::all();
    if !args.self_test {
        // Who only sleeps leaves nothing to recover.
        ops.extend(ops::pairs());
    }
    ops.into_iter().filter(is_chosen).collect()
}

/// Runs operations in this process, and prints a line for each.
fn run_part<'a>(ops: impl Iterator<Item = &'a Op>, args: &Args) -> Verdict {
    let mut total = Verdict::default();
    for op in ops {
        let paired = run_one(op, args);
        report(op, &paired, args.self_test);
        let swept = paired.swept;
        total.points += swept.covered;
        total.blocks += swept.blocks;
        total.failures += swept.failures.len() as u64;
    }
    total
}

/// The numbers of all operations in a pipe that ends after them; several readers may take them. A read
/// takes one number whole: all are equally long, so none lies across two pages of the pipe.
fn numbers_to_take(ops: usize) -> Result<PipeReader> {
    let (numbers, mut all) = pipe()?;
    let list: Vec<u8> = (0..u32::try_from(ops)?).flat_map(u32::to_ne_bytes).collect();
    // Nobody reads yet: what has no room would wait for ever.
    ensure!(list.len() <= PIPE_BYTES, "{ops} operations are too many for a pipe");
    all.write_all(&list)?;
    Ok(numbers)
}

/// The numbers that are left in such a pipe.
fn numbers_from(mut pipe: PipeReader) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let mut number = [0; size_of::<u32>()];
        pipe.read_exact(&mut number).ok()?;
        Some(u32::from_ne_bytes(number) as usize)
    })
}

/// Starts the processes, passes on what they print, and adds up their verdicts.
fn run_parts(args: &Args, jobs: usize, ops: usize) -> Result<Verdict> {
    let numbers = numbers_to_take(ops)?;
    let (lines, heard) = channel();
    let mut parts = Vec::new();
    for part in 0..jobs {
        parts.push(start_part(args, part, numbers.try_clone()?, lines.clone())?);
    }
    drop((numbers, lines));
    let bar = ProgressBar::new(ops as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}")?);
    let (mut total, mut verdicts, mut done) = (Verdict::default(), 0, 0);
    for line in heard {
        if let Some(values) = line.strip_prefix("verdict: ") {
            add(values, &mut total).with_context(|| format!("a part said {line:?}"))?;
            verdicts += 1;
            continue;
        }
        // Beside the operation's own line there may be more of it, indented.
        done += usize::from(!line.starts_with(' '));
        bar.set_position(done as u64);
        bar.suspend(|| println!("{line}"));
    }
    bar.finish_and_clear();
    for mut part in parts {
        part.wait()?;
    }
    ensure!(verdicts == jobs, "{verdicts} of {jobs} processes came to a verdict");
    ensure!(done == ops, "{done} of {ops} operations were done");
    Ok(total)
}

fn start_part(
    args: &Args,
    part: usize,
    numbers: PipeReader,
    lines: Sender<String>,
) -> Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("kill").args(args.all.then_some("--all"));
    command.args(args.self_test.then_some("--self-test"));
    command.args(args.op.iter().map(|op| format!("--op={op}")));
    command.arg(format!("--seed={}", args.seed));
    command.arg(format!("--part={part}"));
    let mut child = command.stdin(numbers).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no stdout")?;
    thread::spawn(move || {
        let mut heard = BufReader::new(output).lines().map_while(Result::ok);
        heard.try_for_each(|line| lines.send(line))
    });
    Ok(child)
}

/// Adds a verdict's `name=value` pairs.
fn add(values: &str, total: &mut Verdict) -> Result<()> {
    for pair in values.split_whitespace() {
        match pair.split_once('=') {
            Some(("points", value)) => total.points += value.parse::<u64>()?,
            Some(("blocks", value)) => total.blocks += value.parse::<u64>()?,
            Some(("failures", value)) => total.failures += value.parse::<u64>()?,
            _ => {}
        }
    }
    Ok(())
}

fn run_one(op: &Op, args: &Args) -> Paired {
    // The other sectors go through the same code, with other lengths.
    let around = op.beside.is_none() && op.shape == Shape::ALL[0];
    let reach = match args.at {
        Some(at) => Reach::At(at),
        None if args.all => Reach::Every { most: EVERY_MAX },
        // That something is amiss without recovery a few show.
        None if args.self_test && op.plot.is_some() => {
            Reach::Changes { around, random: 6, stride: 4 * op.stride }
        }
        None => Reach::Changes { around, random: 6, stride: op.stride },
    };
    let care = args.self_test.then_some(Care::Neglect);
    let done = match op.beside {
        Some(_) => pair::sleep(op, reach, args.seed),
        None => {
            let swept = sweep::sweep(op, reach, care, args.seed);
            swept.map(|swept| Paired { swept, ..Paired::default() })
        }
    };
    done.unwrap_or_else(|error| {
        let failures = vec![Failure { at: 0, seen: format!("it does not work: {error:#}") }];
        Paired { swept: Swept { failures, ..Swept::default() }, ..Paired::default() }
    })
}

fn report(op: &Op, paired: &Paired, quiet: bool) {
    let Swept { steps, changes, kills, covered, failures, .. } = &paired.swept;
    let failed = failures.len() as u64;
    let [steps, changes, kills, covered, failed] =
        [*steps, *changes, *kills, *covered, failed].map(|number| number.to_string());
    println!("{}", row([&op.name, &steps, &changes, &kills, &covered, &failed]));
    if op.beside.is_some() {
        let Paired { beside_max, deferred, busy, .. } = paired;
        print!("  beside it at most {beside_max} steps; ");
        println!("recovery left something for later {deferred} times, was at work {busy} times");
    }
    if quiet {
        return;
    }
    for failure in failures.iter().take(PRINTED_MAX) {
        println!("  FAILED at {}: {}", failure.at, failure.seen);
        println!("    cargo xtask kill --op {} --at {}", op.name, failure.at);
    }
    if failures.len() > PRINTED_MAX {
        println!("  … and {} more", failures.len() - PRINTED_MAX);
    }
}

fn row(cells: [&str; 6]) -> String {
    let [name, steps, changes, tried, covered, failed] = cells;
    format!("{name:<40} {steps:>7} {changes:>7} {tried:>6} {covered:>7} {failed:>6}")
}
