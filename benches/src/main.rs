//! `peers`: AtomicMatrix side by side with other allocators. See README.md.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, value_parser};
use serde::Serialize;

use campaign::{Plan, Record};
use machine::Machine;
use peers::Peer;
use workload::Workload;

mod campaign;
mod cell;
mod child;
mod flat;
mod heap;
mod machine;
mod pattern;
mod peers;
mod random;
mod report;
mod stats;
mod workload;

/// Measures AtomicMatrix side by side with other allocators, interleaved, in one run.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Subcommand)]
enum Verb {
    /// Cost per operation against segment size and number of live blocks, one thread
    Flat(flat::Options),
    /// Runs one cell; the parent process calls this
    #[command(name = child::SUBCOMMAND, hide = true)]
    Cell {
        /// The cell as JSON
        spec: String,
    },
}

#[derive(Args)]
struct Compare {
    /// What every thread does
    #[arg(long, value_enum, default_value = "endurance")]
    workload: Workload,
    /// Numbers of threads, 1 to 16
    #[arg(long, value_delimiter = ',', default_value = "1,2,8", value_parser = value_parser!(u32).range(1..=16))]
    threads: Vec<u32>,
    /// The peers; AtomicMatrix itself always runs. Default: all but ours-offset
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Option<Vec<Peer>>,
    /// Measuring rounds
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of counting per cell and round
    #[arg(long, default_value_t = 0.5, value_parser = parse_seconds)]
    seconds: f64,
    /// Seconds of warm-up per cell and round
    #[arg(long, default_value_t = 0.1, value_parser = parse_seconds)]
    warmup: f64,
    /// Seconds of the run that fills and verifies whole payloads, once per peer and number of threads
    #[arg(long, default_value_t = 0.3, value_parser = parse_seconds)]
    verify: f64,
    /// Write all raw figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Parses a duration of 0.01 to 3600 seconds.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be 0.01 to 3600 seconds".to_owned())
    }
}

/// The file of raw figures.
#[derive(Serialize)]
struct Raw<'r> {
    machine: &'r Machine,
    plan: &'r Plan,
    records: &'r [Record],
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.verb {
        None => compare(cli.compare),
        Some(Verb::Flat(options)) => flat::run(&options),
        Some(Verb::Cell { spec }) => child::serve(&spec).map(|()| ExitCode::SUCCESS),
    }
}

fn compare(options: Compare) -> Result<ExitCode> {
    let chosen = |peer: &Peer| match &options.peers {
        Some(peers) => *peer == Peer::Ours || peers.contains(peer),
        None => peer.runs_by_default(),
    };
    let (peers, skipped): (Vec<Peer>, Vec<Peer>) =
        Peer::ALL.into_iter().filter(chosen).partition(|peer| peer.skipped_because().is_none());
    let skipped: Vec<_> =
        skipped.into_iter().filter_map(|peer| Some((peer, peer.skipped_because()?))).collect();
    let plan = Plan {
        workload: options.workload,
        segment_bytes: options.workload.segment_bytes(),
        peers,
        threads: options.threads,
        rounds: options.rounds,
        seconds: options.seconds,
        warmup_s: options.warmup,
        verify_s: options.verify,
    };
    let machine = Machine::detect();
    let json = report::create_json(options.json.as_deref())?;
    let records = plan.run()?;
    machine.print();
    report::print(&plan, &records, &skipped);
    report::write_json(json, &Raw { machine: &machine, plan: &plan, records: &records })?;
    let (peers, rounds) = (plan.peers.len(), plan.rounds);
    Ok(verdict(&report::faults(&plan, &records), &format!("peers={peers} rounds={rounds}")))
}

/// Prints the last line; speed never decides it.
fn verdict(faults: &[String], counts: &str) -> ExitCode {
    if faults.is_empty() {
        println!("verdict: ok {counts} failed=0");
        return ExitCode::SUCCESS;
    }
    println!("verdict: FAILED {counts} failed={}: {}", faults.len(), faults.join("; "));
    ExitCode::FAILURE
}
