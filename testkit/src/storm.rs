//! Processes killed at random while all of them work.

use crate::verdict::Verdict;

/// How hard, and for how long.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// None yet.
pub fn run(_args: &Args) -> anyhow::Result<Verdict> {
    Ok(Verdict::default())
}
