//! The project's verbs, run as `cargo xtask <verb>`; `cargo xtask --help` lists them.
//!
//! A verb that judges ends with exactly one line on stdout, `verdict: ok name=value …` or
//! `verdict: FAILED name=value …`, and an exit code to match.

mod bench;
mod ci;
mod endurance;
mod fuzz;
mod hostile;
mod kill;
mod messages;
mod model;
mod process;
mod program;
mod sanitize;
mod soak;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::verdict::{Outcome, Verdict};

/// The project's verbs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run everything that the gate runs, in order, and stop at the first failure
    Ci(ci::Args),
    /// Check the ripple's state machine with loom, over all interleavings within a bound
    Model(model::Args),
    /// Run the endurance workload, optimised: random sizes, random frees, then the accounts
    Endurance(endurance::Args),
    /// Send messages from process to process, and check that all arrive
    Messages(messages::Args),
    /// Kill a process at every instruction of every operation, or many at random
    Kill(kill::Args),
    /// Damage a segment under a process that uses it
    Hostile(hostile::Args),
    /// Let a fuzzer choose the damages
    Fuzz(fuzz::Args),
    /// Run the compiler's sanitizers over threads that exchange blocks
    Sanitize(sanitize::Args),
    /// Break everything in turn, for as long as there is time
    Soak(soak::Args),
    /// Measure: the allocator alone, or beside its peers
    #[command(subcommand)]
    Bench(bench::Which),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Ci(args) => ci::run(&args),
        Verb::Model(args) => model::run(&args),
        Verb::Endurance(args) => endurance::run(&args),
        Verb::Messages(args) => messages::run(&args),
        Verb::Kill(args) => kill::run(&args),
        Verb::Hostile(args) => hostile::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Sanitize(args) => sanitize::run(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::Bench(which) => bench::run(&which),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Outcome::Judge(Verdict::failed("error=1"))
    });
    outcome.finish()
}
