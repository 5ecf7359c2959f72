//! `cargo xtask endurance`: the example of that name, optimised.

use anyhow::Result;

use crate::process;
use crate::program::example;
use crate::verdict::Outcome;

/// What the endurance run is to do; the example's `--help` says more.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Threads in each process
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Seconds of the timed part
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Processes that share the segment
    #[arg(long, default_value_t = 1)]
    pub processes: u32,
    /// Fill every payload, and check every byte of it before the free
    #[arg(long)]
    pub verify: bool,
    /// Size of the segment in MiB
    #[arg(long, default_value_t = 50)]
    pub size_mib: usize,
}

impl Args {
    /// What the gate runs: short, and every byte checked.
    pub fn gate(processes: u32) -> Self {
        Self { threads: 8, seconds: 5, processes, verify: true, size_mib: 50 }
    }
}

/// Runs the example, which prints the verdict.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut command = example("endurance")?;
    command
        .arg(format!("--threads={}", args.threads))
        .arg(format!("--seconds={}", args.seconds))
        .arg(format!("--processes={}", args.processes))
        .arg(format!("--size-mib={}", args.size_mib))
        .args(args.verify.then_some("--verify"));
    Ok(Outcome::Judged(process::run_judging(&mut command)?))
}
