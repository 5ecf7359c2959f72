//! `cargo xtask bench`: measurements. They judge soundness at most, never speed.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::verdict::Outcome;

/// Which measurement.
#[derive(clap::Subcommand, Debug)]
pub enum Which {
    /// The allocator alone, with criterion (single operations, steps, batches, hand-over)
    Criterion {
        /// Arguments for criterion, after `--`: a filter, `--save-baseline NAME`, …
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Side by side with other allocators, interleaved: endurance, or another `--workload`
    Peers(Args),
    /// Latency of single calls, up to the worst
    Latency(Args),
    /// Blocks from one process to another
    Ipc(Args),
    /// Messages from process to process, beside iceoryx2 and others
    Messages(Args),
    /// One sequence of operations on nearly full heaps: refusals, fragmentation
    Trace(Args),
    /// Bytes of memory per byte of payload
    Overhead(Args),
    /// How the cost of an operation depends on the segment's size and fill
    Flat(Args),
    /// Everything beside the peers, one after the other, and the report
    All(Args),
    /// One page of tables and pictures of what was measured beside the peers last
    Report(Args),
    /// Read-modify-writes on shared words that an operation takes: exact, unlike times
    Rmw,
}

/// What the program beside the peers is told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Arguments for the program, after `--`; try `-- --help`, or `-- --quick` for a first look
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs one measurement.
pub fn run(which: &Which) -> Result<Outcome> {
    match which {
        Which::Criterion { args } => {
            let mut command = beside_the_workspace("bench")?;
            process::run(command.args(["--package=am-alone", "--bench=direct", "--"]).args(args))?;
        }
        Which::Peers(args) => return run_peers(None, args),
        Which::Latency(args) => return run_peers(Some("latency"), args),
        Which::Ipc(args) => return run_peers(Some("ipc"), args),
        Which::Messages(args) => return run_peers(Some("messages"), args),
        Which::Trace(args) => return run_peers(Some("trace"), args),
        Which::Overhead(args) => return run_peers(Some("overhead"), args),
        Which::Flat(args) => return run_peers(Some("flat"), args),
        Which::All(args) => return run_peers(Some("all"), args),
        Which::Report(args) => return run_peers(Some("report"), args),
        Which::Rmw => return count_read_modify_writes(),
    }
    Ok(Outcome::Done)
}

/// Builds the words with a counter, in a folder of its own, and runs the counting example.
fn count_read_modify_writes() -> Result<Outcome> {
    let mut command =
        process::cargo(["run", "--quiet", "--release", "--package=am-matrix", "--example=rmw"]);
    command
        .env("CARGO_TARGET_DIR", process::target_dir().join("count"))
        .env("RUSTFLAGS", process::rustflags("--cfg am_count"));
    Ok(Outcome::Judged(process::run_judging(&mut command)?))
}

/// Returns the features of those peers that come as sources and can be built here; of the others it
/// warns. (Peers that come with the system are looked for by the program's build script.)
fn buildable_peers() -> Vec<&'static str> {
    // Its first word: CXX may hold arguments too, or a wrapper before the compiler.
    let compiler = std::env::var("CXX").unwrap_or_default();
    let compiler = compiler.split_whitespace().next().unwrap_or("c++").to_owned();
    let needs = [("jemalloc", "make".to_owned()), ("snmalloc", compiler)];
    let built = needs.into_iter().filter(|(peer, tool)| {
        let found = process::is_program(tool);
        if !found {
            eprintln!("warning: {tool} is not here: the peer {peer} will be skipped");
        }
        found
    });
    built.map(|(peer, _)| peer).collect()
}

/// A verb of cargo's in the workspace of the benches.
fn beside_the_workspace(verb: &str) -> Result<Command> {
    if !process::root().join("benches/Cargo.toml").is_file() {
        bail!("benches/Cargo.toml is missing: this is no full checkout");
    }
    Ok(process::cargo([verb, "--manifest-path=benches/Cargo.toml"]))
}

/// Runs the program in `benches/`, a package of its own: its peers are no burden to the workspace.
/// It checks what it measures, and prints a verdict of its own unless it only explains itself.
fn run_peers(verb: Option<&str>, Args { args }: &Args) -> Result<Outcome> {
    let mut command = beside_the_workspace("run")?;
    command.args(["--release", "--no-default-features"]);
    command.args(["--features", &buildable_peers().join(",")]);
    command.args(["--bin=peers", "--"]).args(verb).args(args);
    let mut judged = false;
    let ok = process::run_reading(&mut command, |line| judged |= line.starts_with("verdict: "))?;
    match (ok, judged) {
        (_, true) => Ok(Outcome::Judged(ok)),
        (true, false) => Ok(Outcome::Done),
        (false, false) => bail!("the program did not build, or ended without a verdict"),
    }
}
