//! The endurance workload, over the 0.1 interface: random sizes, random order of frees, any number
//! of threads and processes on one segment; then the accounts, which must balance.
//!
//! `cargo run --release --example endurance -- --threads 8 --seconds 10 --verify`
//!
//! Ctrl-C ends the timed part; the frees and the accounts follow all the same.

mod accounts;
mod children;
mod timing;
mod worker;

use std::process::ExitCode;

use anyhow::{Context, Result};
use atomic_matrix::Matrix;
use atomic_matrix::matrix::core::{AtomicMatrix, MatrixHandler};
use clap::Parser;
use uuid::Uuid;

use crate::accounts::{Fragments, judge};
use crate::children::{run_child, run_children};
use crate::timing::{catch_signals, interrupted, wait_with_bar};
use crate::worker::run_threads;

/// Percent of the segment for small and for medium blocks; the rest is for large ones.
const SPLIT: (u8, u8) = (40, 30);

/// Allocate and free blocks of 32 to 543 bytes at random, then see that nothing is lost.
///
/// Each thread draws from a linear congruential generator: seven times in ten, while it holds fewer
/// than 200 blocks, it allocates; else it frees one of its blocks. Failed calls are counted apart.
/// The last line is the verdict; the exit code agrees with it.
#[derive(Parser, Debug, Clone)]
#[command(verbatim_doc_comment)]
struct Cli {
    /// Threads in each process (so the run has threads times processes)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Seconds of the timed part
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Processes that share the segment; with more than one, all of them are children
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    processes: u32,
    /// Fill every payload with its owner's pattern, and check every byte before the free
    #[arg(long)]
    verify: bool,
    /// Size of the segment in MiB
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    size_mib: u32,
    /// Added to every thread's seed, which is its number over all processes, plus one
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Run as this child of a parent
    #[arg(long, hide = true, requires = "segment")]
    child: Option<u32>,
    /// The segment that the parent made
    #[arg(long, hide = true)]
    segment: Option<Uuid>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = catch_signals().and_then(|()| match (cli.child, cli.segment) {
        (Some(child), Some(segment)) => run_child(&cli, child, segment).map(|()| true),
        _ => run_parent(&cli),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            if cli.child.is_none() {
                println!("verdict: FAILED error=1");
            }
            ExitCode::FAILURE
        }
    }
}

/// The segment of the run; its file goes away with this value.
struct Segment {
    name: Uuid,
    handler: MatrixHandler,
}

impl Segment {
    fn create(cli: &Cli) -> Result<Self> {
        let name = Uuid::new_v4();
        let handler = bootstrap(cli, name)?;
        Ok(Self { name, handler })
    }

    fn matrix(&self) -> &Matrix {
        self.handler.matrix.as_matrix()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Err(error) = self.matrix().destroy() {
            eprintln!("warning: /dev/shm/{} stays: {error}", self.name);
        }
    }
}

fn bootstrap(cli: &Cli, name: Uuid) -> Result<MatrixHandler> {
    let size_bytes = cli.size_mib as usize * 1024 * 1024;
    AtomicMatrix::bootstrap(Some(name), size_bytes, SPLIT).context("cannot map the segment")
}

fn run_parent(cli: &Cli) -> Result<bool> {
    let segment = Segment::create(cli)?;
    let mut live = Fragments::default();
    let look = || {
        live = Fragments::of(segment.matrix());
        Ok(())
    };
    let (counts, dead) = if cli.processes == 1 {
        let wait = || wait_with_bar(cli.seconds);
        (run_threads(cli, &segment.handler, 0, wait, look)?, 0)
    } else {
        run_children(cli, segment.name, look)?
    };
    if interrupted() {
        eprintln!("interrupted: the timed part was cut short");
    }
    Ok(judge(cli, segment.matrix(), counts, &live, dead))
}
