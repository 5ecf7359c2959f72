//! `cargo xtask kill`: processes killed at every instruction, or at random in a storm.

use anyhow::Result;

use crate::process;
use crate::program::kit;
use crate::verdict::Outcome;

/// What to kill, and where; the kit's `--help` says more.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Args {
    /// Kill at random while many processes work, in place of at every instruction
    #[arg(long)]
    pub storm: bool,
    /// What is passed on to `kit kill` or, with `--storm`, to `kit storm`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub rest: Vec<String>,
}

impl Args {
    /// What the gate runs: the check of the check, or the bounded selection.
    pub fn gate(self_test: bool) -> Self {
        let rest = if self_test { vec!["--self-test".into()] } else { Vec::new() };
        Self { storm: false, rest }
    }

    /// What the gate runs of the storm: short, and every byte checked.
    pub fn storm() -> Self {
        let rest = ["--seconds=5", "--verify", "--seed=1"].map(String::from);
        Self { storm: true, rest: rest.into() }
    }
}

/// Runs the kit, which prints the verdict.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut command = kit(if args.storm { "storm" } else { "kill" })?;
    Ok(Outcome::Judged(process::run_judging(command.args(&args.rest))?))
}
