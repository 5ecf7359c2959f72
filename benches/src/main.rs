//! `peers`: AtomicMatrix side by side with other allocators. See README.md.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use campaign::Common;
use workload::Workload;

mod campaign;
mod child;
mod client;
mod compare;
mod flat;
mod heap;
mod ipc;
mod latency;
mod machine;
mod overhead;
mod pattern;
mod peers;
mod random;
mod run;
mod sheet;
mod stats;
mod throughput;
mod trace;
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
    /// How long single calls take: quantiles up to the worst
    Latency(Measure<latency::Options>),
    /// Blocks that one process fills and another checks and frees
    Ipc(Common),
    /// The same sequence of operations on a nearly full segment: failures, fragmentation
    Trace(Measure<trace::Options>),
    /// Bytes of memory per byte of payload
    Overhead(Common),
    /// Cost per operation against segment size and number of live blocks, one thread
    Flat(Common),
    /// Everything, one after the other
    All(Common),
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

/// Measures everything with the usual options; returns whether all of it was ok.
fn all(common: &Common) -> Result<bool> {
    let mut failed = Vec::new();
    let mut note = |name: &str, ok: bool| {
        if !ok {
            failed.push(name.to_owned());
        }
    };
    for workload in Workload::ALL {
        note(workload.name(), compare::run(common, &compare::Options::of(workload))?);
    }
    note("latency", latency::run(common, &latency::Options::usual())?);
    note("ipc", ipc::run(common)?);
    note("trace", trace::run(common, &trace::Options::usual())?);
    note("overhead", overhead::run(common)?);
    note("flat", flat::run(common)?);
    Ok(run::verdict(&failed, "run=all"))
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let ok = match cli.verb {
        None => compare::run(&cli.compare.common, &cli.compare.options),
        Some(Verb::Latency(m)) => latency::run(&m.common, &m.options),
        Some(Verb::Ipc(common)) => ipc::run(&common),
        Some(Verb::Trace(m)) => trace::run(&m.common, &m.options),
        Some(Verb::Overhead(common)) => overhead::run(&common),
        Some(Verb::Flat(common)) => flat::run(&common),
        Some(Verb::All(common)) => all(&common),
        Some(Verb::Child { order }) => child::serve(&order).map(|()| true),
    }?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
