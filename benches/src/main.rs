//! `peers`: AtomicMatrix side by side with other allocators. See README.md.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use campaign::Common;
use run::Verdict;
use workload::Workload;

mod campaign;
mod capacity;
mod chart;
mod child;
mod client;
mod compare;
mod flat;
mod heap;
mod ipc;
mod latency;
mod machine;
mod messages;
mod overhead;
mod page;
mod pattern;
mod peers;
mod random;
mod run;
mod sheet;
mod stats;
mod throughput;
mod trace;
mod workload;

/// Measures AtomicMatrix side by side with other allocators and carriers of messages, interleaved, in one run.
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
    /// Messages from process to process: how many a second, and there and back
    Messages(Common),
    /// The same sequence of operations on nearly full heaps: refusals, fragmentation
    Trace(Measure<trace::Options>),
    /// Bytes of memory per byte of payload
    Overhead(Common),
    /// Cost per operation against segment size and number of live blocks, one thread
    Flat(Common),
    /// Everything, one after the other, and the report
    All(Common),
    /// One page of tables and pictures of what was measured last
    Report(page::Options),
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

/// Measures everything with the usual options, and makes the report of it.
fn all(common: &Common) -> Result<Verdict> {
    ensure!(common.json.is_none(), "every measurement writes a file of its own: no --json");
    let mut verdict = Verdict::default();
    for workload in Workload::ALL {
        verdict.add(compare::run(common, &compare::Options::of(workload))?);
    }
    verdict.add(ipc::run(common)?);
    verdict.add(messages::run(common)?);
    verdict.add(latency::run(common, &latency::Options::usual())?);
    verdict.add(trace::run(common, &trace::Options::usual())?);
    verdict.add(overhead::run(common)?);
    verdict.add(flat::run(common)?);
    page::report(&page::Options::default())?;
    Ok(verdict)
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let verdict = match cli.verb {
        None => compare::run(&cli.compare.common, &cli.compare.options),
        Some(Verb::Latency(m)) => latency::run(&m.common, &m.options),
        Some(Verb::Ipc(common)) => ipc::run(&common),
        Some(Verb::Messages(common)) => messages::run(&common),
        Some(Verb::Trace(m)) => trace::run(&m.common, &m.options),
        Some(Verb::Overhead(common)) => overhead::run(&common),
        Some(Verb::Flat(common)) => flat::run(&common),
        Some(Verb::All(common)) => all(&common),
        Some(Verb::Report(options)) => {
            return page::report(&options).map(|()| ExitCode::SUCCESS);
        }
        Some(Verb::Child { order }) => return child::serve(&order).map(|()| ExitCode::SUCCESS),
    }?;
    Ok(if verdict.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
