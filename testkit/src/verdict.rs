//! The last line of every run.

use std::fmt;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Situations that were tried: kills, damages.
    pub points: u64,
    /// Blocks recovered, or calls made; what a verb counts beside its points.
    pub blocks: u64,
    /// Situations that did not end as they must.
    pub failures: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { points, blocks, failures } = self;
        let word = if *failures == 0 { "ok" } else { "FAILED" };
        write!(f, "verdict: {word} points={points} blocks={blocks} failures={failures}")
    }
}
