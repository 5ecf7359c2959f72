//! `kit kill`: every operation, interrupted.

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::accounts::Care;
use crate::ops::{self, Op};
use crate::sweep::{self, Reach, Swept};
use crate::verdict::Verdict;

/// Failures of one operation that are printed.
const PRINTED_MAX: usize = 5;
/// Longest operation that gets a kill at every instruction, in instructions.
const EVERY_MAX: u64 = 5_000;

/// What to kill, and where.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Kill at every instruction of every operation of up to 5000, in place of a selection
    #[arg(long, conflicts_with = "at")]
    pub all: bool,
    /// Only the operations whose name contains this; `small/carve` is one, `small/` are many
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
    /// List the operations and end
    #[arg(long)]
    pub list: bool,
}

/// Runs the sweeps.
///
/// # Errors
/// No operation has such a name, or one of them does not work at all.
pub fn run(args: &Args) -> Result<Verdict> {
    let exact = args.at.is_some();
    let chosen = |op: &Op| match &args.op {
        Some(name) if exact => op.name == *name,
        Some(name) => op.name.contains(name.as_str()),
        None => true,
    };
    let ops: Vec<Op> = ops::all().into_iter().filter(chosen).collect();
    ensure!(!ops.is_empty(), "no operation has such a name; --list has them all");
    if args.list {
        ops.iter().for_each(|op| println!("{:<36} {}", op.name, op.layout));
        return Ok(Verdict::default());
    }
    println!("seed {}", args.seed);
    println!(
        "{:<36} {:>7} {:>7} {:>6} {:>7} {:>7}",
        "operation", "steps", "changes", "kills", "covered", "failed"
    );
    let mut total = Verdict::default();
    for op in &ops {
        let swept = sweep_one(op, args)?;
        report(op, &swept, args.self_test);
        total.points += swept.covered;
        total.blocks += swept.blocks;
        total.failures += swept.failures.len() as u64;
    }
    if args.self_test {
        println!("self-test: without recovery, {} kills left something amiss", total.failures);
        total.failures = u64::from(total.failures == 0);
    }
    Ok(total)
}

fn sweep_one(op: &Op, args: &Args) -> Result<Swept> {
    let reach = match args.at {
        Some(at) => Reach::At(at),
        None if args.all => Reach::Every { most: EVERY_MAX },
        None => Reach::Changes { random: 8 },
    };
    let bar = ProgressBar::new(0).with_message(op.name.clone());
    bar.set_style(ProgressStyle::with_template("{msg:36} {bar:40} {pos}/{len}")?);
    let tick = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let care = args.self_test.then_some(Care::Neglect);
    let swept = sweep::sweep(op, reach, care, args.seed, &tick);
    bar.finish_and_clear();
    match swept {
        Ok(swept) => Ok(swept),
        Err(error) => {
            let seen = format!("{error:#}");
            Ok(Swept { failures: vec![sweep::Failure { at: 0, seen }], ..Swept::default() })
        }
    }
}

fn report(op: &Op, swept: &Swept, quiet: bool) {
    let Swept { steps, changes, kills, covered, failures, .. } = swept;
    println!(
        "{:<36} {steps:>7} {changes:>7} {kills:>6} {covered:>7} {:>7}",
        op.name,
        failures.len()
    );
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
