//! `cargo xtask bench`: measurements. They judge soundness at most, never speed.

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
    /// Side by side with other allocators, interleaved
    Peers {
        /// Arguments for the program, after `--`; try `-- --help`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Read-modify-writes on shared words that an operation takes: exact, unlike times
    Rmw,
    /// How the cost of an operation depends on the segment's size and fill
    Flat {
        /// Arguments for the program, after `--`; try `-- --help`
        #[arg(last = true)]
        args: Vec<String>,
    },
}

/// Runs one measurement.
pub fn run(which: &Which) -> Result<Outcome> {
    match which {
        Which::Criterion { args } => {
            let mut command =
                process::cargo(["bench", "--package=atomic-matrix", "--bench=direct"]);
            process::run(command.arg("--").args(args))?;
        }
        Which::Peers { args } => return run_peers(None, args),
        Which::Rmw => return count_read_modify_writes(),
        Which::Flat { args } => return run_peers(Some("flat"), args),
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

/// Runs the program in `benches/`, a package of its own: its peers are no burden to the workspace.
/// It checks what it measures, and prints a verdict of its own unless it only explains itself.
fn run_peers(verb: Option<&str>, args: &[String]) -> Result<Outcome> {
    if !process::root().join("benches/Cargo.toml").is_file() {
        bail!("benches/Cargo.toml is missing: this is no full checkout");
    }
    let mut command = process::cargo(["run", "--release", "--manifest-path=benches/Cargo.toml"]);
    command.args(["--bin=peers", "--"]).args(verb).args(args);
    let mut judged = false;
    let ok = process::run_reading(&mut command, |line| judged |= line.starts_with("verdict: "))?;
    match (ok, judged) {
        (_, true) => Ok(Outcome::Judged(ok)),
        (true, false) => Ok(Outcome::Done),
        (false, false) => bail!("the program did not build, or ended without a verdict"),
    }
}
