//! `cargo xtask hostile`: a segment damaged under a process that uses it.

use anyhow::Result;

use crate::process;
use crate::program::kit;
use crate::verdict::Outcome;

/// How many damages, and which.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Words to overwrite
    #[arg(long, default_value_t = 10_000)]
    pub mutations: u64,
    /// Everything follows from it [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Repeat the round of this mutation alone, and print its steps
    #[arg(long)]
    pub only: Option<u64>,
    /// Check the check: panic, reach outside, hang, hand out the wrong place, and see it noticed
    #[arg(long, conflicts_with = "only")]
    pub self_test: bool,
}

impl Args {
    /// What the gate runs: the check of the check, or some damages.
    pub fn gate(self_test: bool) -> Self {
        Self { mutations: 20_000, seed: None, only: None, self_test }
    }
}

/// Runs the kit, which prints the verdict.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut command = kit("hostile")?;
    command
        .arg(format!("--mutations={}", args.mutations))
        .args(args.seed.map(|seed| format!("--seed={seed}")))
        .args(args.only.map(|only| format!("--only={only}")))
        .args(args.self_test.then_some("--self-test"));
    Ok(Outcome::Judged(process::run_judging(&mut command)?))
}
