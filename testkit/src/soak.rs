//! Everything in turn, for as long as there is time.
//!
//! Short rounds, each with a seed of its own under one seed: storms, damages, kills at random
//! points, endurance. What a round runs is this program or the endurance example, started anew;
//! the command that repeats a failed round is printed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use crate::hostile::step::mix;
use crate::ops;
use crate::verdict::Verdict;

/// Last lines of a failed round that are printed.
const SHOWN_MAX: usize = 40;

/// How long.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Minutes after which no new round begins
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// Everything follows from it [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Play this round alone
    #[arg(long)]
    pub round: Option<u64>,
    /// The endurance example; without it that is left out
    #[arg(long)]
    pub endurance: Option<PathBuf>,
}

/// One round: a program and its arguments.
struct Round {
    program: PathBuf,
    args: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// A program could not be started.
pub fn run(args: &Args) -> Result<Verdict> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let kit = std::env::current_exe().context("this program has no path")?;
    if let Some(endurance) = &args.endurance {
        ensure!(endurance.exists(), "{} does not exist", endurance.display());
    }
    let begin = Instant::now();
    let limit = Duration::from_secs(args.minutes.saturating_mul(60));
    let mut verdict = Verdict::default();
    for number in args.round.unwrap_or(0).. {
        if begin.elapsed() >= limit && args.round.is_none() {
            break;
        }
        let round = Round::draw(&kit, args.endurance.as_deref(), mix(seed, number));
        println!("round {number}: {}", round.command());
        verdict.points += 1;
        if let Some(output) = round.play()? {
            verdict.failures += 1;
            for line in output {
                println!("  {line}");
            }
            println!("FAILED: round {number} of seed {seed}");
            println!("  repeat it: {}", round.command());
        }
        if args.round.is_some() {
            break;
        }
    }
    Ok(verdict)
}

impl Round {
    /// What a round does follows from its seed alone.
    fn draw(kit: &Path, endurance: Option<&Path>, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let seed = rng.u32(1..);
        match rng.u32(..10) {
            0..3 => Self::storm(kit, seed, &mut rng),
            3..6 => {
                let mutations = rng.u32(10_000..200_000);
                Self::new(kit, format!("hostile --mutations {mutations} --seed {seed}"))
            }
            6..9 => {
                let ops = ops::all();
                let op = &ops[rng.usize(..ops.len())].name;
                Self::new(kit, format!("kill --op {op} --seed {seed}"))
            }
            _ => match endurance {
                Some(program) => {
                    let (processes, threads) = (rng.u32(1..=4), rng.u32(1..=8));
                    let work = format!("--processes {processes} --threads {threads}");
                    Self::new(program, format!("{work} --seconds 5 --verify --seed {seed}"))
                }
                None => Self::storm(kit, seed, &mut rng),
            },
        }
    }

    fn storm(kit: &Path, seed: u32, rng: &mut Rng) -> Self {
        let (processes, threads) = (rng.u32(2..=12), rng.u32(1..=3));
        let (seconds, pause_ms, size_mib) = (rng.u32(3..=15), rng.u32(1..=20), rng.u32(4..=64));
        let work = format!("storm --processes {processes} --threads {threads} --seconds {seconds}");
        let rest = format!("--kill-every-ms {pause_ms} --size-mib {size_mib} --verify");
        Self::new(kit, format!("{work} {rest} --seed {seed}"))
    }

    fn new(program: &Path, args: String) -> Self {
        let args = args.split(' ').map(str::to_owned).collect();
        Self { program: program.to_owned(), args }
    }

    fn command(&self) -> String {
        format!("{} {}", self.program.display(), self.args.join(" "))
    }

    /// Returns the last lines of what it said, when its verdict is not ok.
    fn play(&self) -> Result<Option<Vec<String>>> {
        let output = Command::new(&self.program)
            .args(&self.args)
            .output()
            .with_context(|| format!("cannot start {}", self.command()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().last().unwrap_or_default();
        if output.status.success() && last.starts_with("verdict: ok") {
            return Ok(None);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let status = format!("ended with {}", output.status);
        let lines: Vec<_> = errors.lines().chain(said.lines()).chain([&*status]).collect();
        let from = lines.len().saturating_sub(SHOWN_MAX);
        Ok(Some(lines[from..].iter().map(|line| (*line).to_owned()).collect()))
    }
}
