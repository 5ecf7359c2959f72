//! `cargo xtask messages`: the example of that name, optimised.

use anyhow::Result;

use crate::process;
use crate::program::example;
use crate::verdict::Outcome;

/// What is to be sent; the example's `--help` says more.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Messages in all
    #[arg(long, default_value_t = 1_000_000)]
    pub count: u64,
    /// Processes: half of them post, the others read
    #[arg(long, default_value_t = 2)]
    pub processes: u64,
    /// Bytes of a message's payload
    #[arg(long, default_value_t = 64)]
    pub bytes: u64,
    /// Check every byte of every message
    #[arg(long)]
    pub verify: bool,
}

impl Args {
    /// What the gate runs: short, and every byte checked.
    pub fn gate(processes: u64) -> Self {
        Self { count: 2_000_000, processes, bytes: 64, verify: true }
    }
}

/// Runs the example, which prints the verdict.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut command = example("messages")?;
    command
        .arg(format!("--count={}", args.count))
        .arg(format!("--processes={}", args.processes))
        .arg(format!("--bytes={}", args.bytes))
        .args(args.verify.then_some("--verify"));
    Ok(Outcome::Judged(process::run_judging(&mut command)?))
}
