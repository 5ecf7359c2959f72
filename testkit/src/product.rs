//! What the kit asks of the product beside what has always been there: who takes part, and giving
//! back what the dead left.

use am_matrix::Matrix;

/// What one call of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks given back that dead participants held.
    pub blocks: u64,
    /// Bytes given back, limbo included.
    pub bytes: u64,
    /// Ranges left for a later call, because a live thread may be concerned.
    pub deferred: u32,
    /// Somebody else was recovering.
    pub busy: bool,
}

/// Returns to the sectors what dead participants left.
pub fn recover(_matrix: &Matrix) -> Recovered {
    Recovered::default()
}

/// Returns how many participants the segment knows.
#[must_use]
pub fn participants(_matrix: &Matrix) -> usize {
    0
}

/// Checks that nobody but the owner of this handle takes part.
///
/// # Errors
/// How many others there are.
pub fn alone(_matrix: &Matrix) -> anyhow::Result<()> {
    Ok(())
}
