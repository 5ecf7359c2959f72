//! `cargo xtask model`: the loom models of the ripple, of topics, of a pool's depot, of sleeping and rousing.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::verdict::{Outcome, Verdict};

/// What to check, and how deep.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Preemptions in one interleaving, for all models; every step more takes many times as long
    /// [default: $LOOM_MAX_PREEMPTIONS, else what each model sets for itself]
    #[arg(long)]
    pub bound: Option<usize>,
    /// Run only the models whose name contains this
    #[arg(long)]
    pub filter: Option<String>,
    /// Check the checker: break one step of the algorithm at a time, and see a model fail
    #[arg(long, conflicts_with = "filter")]
    pub mutants: bool,
}

impl Args {
    /// What the gate checks: the models, each at its own bound.
    pub fn gate() -> Self {
        Self { bound: None, filter: None, mutants: false }
    }
}

/// Where the models are.
const MODELS: [&str; 11] = [
    "--package=am-cache",
    "--package=am-ripple",
    "--package=am-shm",
    "--package=am-topic",
    "--test=cache",
    "--test=depot",
    "--test=model",
    "--test=names",
    "--test=proof",
    "--test=recovery",
    "--test=wait_model",
];

/// Builds the models under `cfg(loom)` and runs them. No model at all counts as a failure.
pub fn run(args: &Args) -> Result<Outcome> {
    let bound = bound(args)?;
    let mut seen = Seen::default();
    let success = if !args.mutants && process::has_subcommand("nextest") {
        // All models at once on all cores. Without it each program waits for the longest of the one before.
        let mut command = modelling(&["nextest", "run", "--cargo-profile=model"], bound);
        process::run_reading_progress(command.args(&args.filter), |line| seen.read(line))?
    } else {
        let mut command = modelling(&["test", "--profile=model"], bound);
        command.arg("--");
        if args.mutants {
            command.args(["--ignored", "mutants", "--nocapture"]);
        }
        process::run_reading(command.args(&args.filter), |line| seen.read(line))?
    };
    let bound = bound.map_or("own".to_owned(), |bound| bound.to_string());
    let (ok, values) = if args.mutants {
        let Seen { noticed, survived, .. } = seen;
        let ok = noticed > 0 && survived == 0;
        (ok, format!("noticed={noticed} survived={survived} bound={bound}"))
    } else {
        (seen.passed > 0, format!("models={} bound={bound}", seen.passed))
    };
    let ok = ok && success;
    Ok(Outcome::Judge(if ok { Verdict::ok(values) } else { Verdict::failed(values) }))
}

/// A verb of cargo's on the models.
fn modelling(verb: &[&str], bound: Option<usize>) -> Command {
    let mut command = process::cargo(verb);
    command
        .args(MODELS)
        // A folder of its own: the flag would otherwise rebuild everything, here and back again.
        .env("CARGO_TARGET_DIR", process::target_dir().join("loom"))
        .env("RUSTFLAGS", process::rustflags("--cfg loom"))
        .envs(bound.map(|bound| ("LOOM_MAX_PREEMPTIONS", bound.to_string())));
    command
}

/// The preemption bound of all models, by the flag or else the environment; `None` leaves each
/// model its own.
fn bound(args: &Args) -> Result<Option<usize>> {
    let named = std::env::var("LOOM_MAX_PREEMPTIONS").ok();
    let bound = match (args.bound, named) {
        (None, Some(text)) => Some(
            text.parse()
                .with_context(|| format!("LOOM_MAX_PREEMPTIONS is {text:?}, not a number"))?,
        ),
        (given, _) => given,
    };
    if bound == Some(0) {
        bail!("a bound of 0 preemptions checks next to nothing: use 1 or more");
    }
    Ok(bound)
}

/// What the test program said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Tests that passed.
    passed: u64,
    /// Mutants that made a model fail.
    noticed: u64,
    /// Mutants that no model minded.
    survived: u64,
}

impl Seen {
    fn read(&mut self, line: &str) {
        self.passed += passed_in(line);
        if line.contains("mutant ") {
            self.noticed += u64::from(line.contains(": noticed by "));
            self.survived += u64::from(line.ends_with(": SURVIVED"));
        }
    }
}

/// Tests passed, according to one line of the test harness or of nextest; 0 on any other line.
fn passed_in(line: &str) -> u64 {
    let line = line.trim_start();
    if !line.starts_with("test result: ") && !line.starts_with("Summary [") {
        return 0;
    }
    let words: Vec<&str> = line.split([' ', ';', ',']).collect();
    words
        .windows(2)
        .find(|pair| pair[1] == "passed")
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_in_summary_line_is_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out";
        assert_eq!(passed_in(line), 12);
        let line = "     Summary [ 349.086s] 13 tests run: 12 passed (2 slow), 1 failed, 1 skipped";
        assert_eq!(passed_in(line), 12);
    }

    #[test]
    fn seen_mutants_are_counted() {
        let mut seen = Seen::default();
        seen.read("test mutants ... mutant SkipLook: noticed by free_of_two_neighbours");
        seen.read("mutant NoFence: SURVIVED");
        seen.read("test allocate_twice ... ok");
        assert_eq!(seen, Seen { passed: 0, noticed: 1, survived: 1 });
    }

    #[test]
    fn passed_in_other_line_is_nothing() {
        assert_eq!(passed_in("test ripple_two_threads ... ok"), 0);
        assert_eq!(passed_in("7 passed"), 0);
        assert_eq!(passed_in("        PASS [   1.675s] ( 1/12) am-ripple::model 7 passed"), 0);
        assert_eq!(passed_in(""), 0);
    }
}
