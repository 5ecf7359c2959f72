//! `peers`: AtomicMatrix side by side with other allocators. See README.md.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use campaign::Common;

mod campaign;
mod child;
mod client;
mod compare;
mod heap;
mod machine;
mod pattern;
mod peers;
mod random;
mod run;
mod sheet;
mod stats;
mod throughput;
mod workload;

/// Measures AtomicMatrix side by side with other allocators, interleaved, in one run.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    compare: Measure<compare::Options>,
}

#[derive(Subcommand)]
enum Verb {
    /// Does one task; the parent process calls this
    #[command(name = child::SUBCOMMAND, hide = true)]
    Child {
        /// The order as JSON
        order: String,
    },
}

/// What a measurement is told.
#[derive(Args)]
struct Measure<O: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    options: O,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let ok = match cli.verb {
        None => compare::run(&cli.compare.common, &cli.compare.options),
        Some(Verb::Child { order }) => child::serve(&order).map(|()| true),
    }?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
