//! `cargo xtask sanitize`: the compiler's sanitizers, as far as they see.
//!
//! The thread sanitizer watches threads of one process that exchange blocks: it knows nothing of
//! other processes, nor of what the standard library does between `spawn` and `join`. The address
//! sanitizer sees what leaves the arena; within it, every byte is fair to it. Both are compiler
//! flags that stable compilers hide.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::verdict::{Outcome, Verdict};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Which sanitizer.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanitizer {
    /// Data races
    Thread,
    /// Accesses outside of what was allocated
    Address,
}

/// Which sanitizer, and for how long.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Which one; without it both
    pub sanitizer: Option<Sanitizer>,
    /// Operations of each of four threads
    #[arg(long, default_value_t = 100_000)]
    pub operations: u64,
    /// Check the check alone: a deliberate defect must be noticed
    #[arg(long)]
    pub self_test: bool,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Address => "address",
        }
    }

    /// The deliberate defect, and what the sanitizer says of it.
    fn defect(self) -> (&'static str, &'static str) {
        match self {
            Self::Thread => ("--race", "ThreadSanitizer: data race"),
            Self::Address => ("--overrun", "AddressSanitizer: heap-buffer-overflow"),
        }
    }

    /// The kit's threads, built with the sanitizer.
    fn threads(self) -> Command {
        let name = self.name();
        let flags = format!("-Zsanitizer={name} -Cunsafe-allow-abi-mismatch=sanitizer");
        let mut command = process::cargo(["run", "--quiet", "--release", "--target", TARGET]);
        command
            .args(["--package=am-testkit", "--bin=kit", "--", "threads"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", process::rustflags(&flags))
            .env("CARGO_TARGET_DIR", process::target_dir().join(format!("sanitize-{name}")));
        command
    }

    /// Sees whether the sanitizer notices what it is for.
    fn check_the_check(self) -> Result<()> {
        let (flag, text) = self.defect();
        let output = output(self.threads().args([flag, "--operations=100"]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(text) {
            bail!("the {} sanitizer does not notice {flag}:\n{said}", self.name());
        }
        Ok(())
    }
}

/// Runs the sanitizers, each after a check of itself.
pub fn run(args: &Args) -> Result<Outcome> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("only for {TARGET}");
    }
    let both = [Sanitizer::Thread, Sanitizer::Address];
    let chosen = both.into_iter().filter(|s| args.sanitizer.is_none_or(|only| only == *s));
    let mut names = Vec::new();
    for sanitizer in chosen {
        sanitizer.check_the_check()?;
        names.push(sanitizer.name());
        if args.self_test {
            continue;
        }
        let operations = format!("--operations={}", args.operations);
        if !process::run_judging(sanitizer.threads().arg(operations))? {
            return Ok(Outcome::Judge(Verdict::failed(format!("sanitizer={}", sanitizer.name()))));
        }
    }
    // Four threads each; of a self-test nothing but the notice counts.
    let threads = 4 * names.len() as u64;
    let blocks = if args.self_test { 0 } else { threads * args.operations };
    let values = format!("points={threads} blocks={blocks} failures=0");
    Ok(Outcome::Judge(Verdict::ok(format!("{values} sanitizers={}", names.join(",")))))
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().context("cannot start cargo")
}
