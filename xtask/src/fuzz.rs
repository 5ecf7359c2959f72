//! `cargo xtask fuzz`: a fuzzer chooses what a victim does and what is done to it.

use anyhow::{Result, bail};

use crate::process;
use crate::verdict::{Outcome, Verdict};

/// How long.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
}

/// Runs the fuzzer; whatever it finds, it leaves in `fuzz/artifacts`.
pub fn run(args: &Args) -> Result<Outcome> {
    if !process::has_subcommand("fuzz") {
        bail!("cargo-fuzz is missing (cargo install cargo-fuzz); it also needs a C++ compiler");
    }
    let mut command = process::cargo(["fuzz", "run", "hostile", "--sanitizer", "none", "--"]);
    command
        // The fuzzer's instrumentation is a compiler flag that stable compilers hide.
        .env("RUSTC_BOOTSTRAP", "1")
        .arg(format!("-max_total_time={}", args.seconds))
        // Rounds of many steps from the beginning: short ones find nothing.
        .args(["-timeout=5", "-len_control=0", "-max_len=2048", "-print_final_stats=1"]);
    let verdict = match process::run(&mut command) {
        Ok(()) => Verdict::ok(format!("failures=0 seconds={}", args.seconds)),
        Err(error) => {
            eprintln!("error: {error:#}");
            Verdict::failed("see=fuzz/artifacts/hostile")
        }
    };
    Ok(Outcome::Judge(verdict))
}
