//! `cargo xtask soak`: storms, damages, kills and endurance in turn.

use anyhow::Result;

use crate::process;
use crate::program::{example, kit};
use crate::verdict::Outcome;

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
}

/// Builds what the rounds run, and runs the kit, which prints the verdict.
pub fn run(args: &Args) -> Result<Outcome> {
    let endurance = example("endurance")?;
    let mut command = kit("soak")?;
    command
        .arg(format!("--minutes={}", args.minutes))
        .args(args.seed.map(|seed| format!("--seed={seed}")))
        .args(args.round.map(|round| format!("--round={round}")))
        .arg("--endurance")
        .arg(endurance.get_program());
    Ok(Outcome::Judged(process::run_judging(&mut command)?))
}
