//! `kit <verb>`: one run of the test kit; the last line is its verdict, and the exit code agrees.
//!
//! No thread may be started before a verb runs: some of them fork.

use std::process::ExitCode;

use am_testkit::verdict::Verdict;
use am_testkit::{hostile, kill, soak, storm, threads};
use clap::{Parser, Subcommand};

/// Break the allocator on purpose, and look whether it holds.
#[derive(Parser)]
#[command(name = "kit")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Kill a process at every instruction of every operation
    Kill(kill::Args),
    /// Kill processes at random while all of them work, and replace them
    Storm(storm::Args),
    /// Damage a segment under a process that uses it
    Hostile(hostile::Args),
    /// Let threads exchange blocks, for the compiler's sanitizers
    Threads(threads::Args),
    /// Everything in turn, for as long as there is time
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let verdict = match Cli::parse().verb {
        Verb::Kill(args) => kill::run(&args),
        Verb::Storm(args) => storm::run(&args),
        Verb::Hostile(args) => hostile::run(&args),
        Verb::Threads(args) => threads::run(&args),
        Verb::Soak(args) => soak::run(&args),
    };
    let verdict = verdict.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Verdict { points: 0, blocks: 0, failures: 1 }
    });
    println!("{verdict}");
    if verdict.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
