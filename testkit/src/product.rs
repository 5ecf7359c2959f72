//! What the kit asks of the product beside what has always been there: who takes part, and giving
//! back what the dead left.

use am_matrix::Matrix;
use anyhow::{Result, ensure};

/// What one call of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks given back that dead participants' guards held, or their caches kept.
    pub blocks: u64,
    /// Bytes given back, limbo included.
    pub bytes: u64,
    /// Numbers of topics that the dead had claimed.
    pub claims: u64,
    /// Ranges left for a later call, because a live thread may be concerned.
    pub deferred: u32,
    /// Somebody else was recovering.
    pub busy: bool,
}

/// Returns to the sectors what dead participants left.
pub fn recover(matrix: &Matrix) -> Recovered {
    let recovery = matrix.recover();
    Recovered {
        blocks: recovery.blocks + recovery.cached,
        bytes: recovery.bytes,
        claims: recovery.claims,
        deferred: recovery.deferred,
        busy: recovery.busy,
    }
}

/// Returns how many participants the segment knows.
#[must_use]
pub fn participants(matrix: &Matrix) -> usize {
    matrix.participants().len()
}

/// Checks that nobody but the owner of this handle takes part, dead or alive.
///
/// # Errors
/// Who else does.
pub fn alone(matrix: &Matrix) -> Result<()> {
    let mut others = matrix.participants();
    others.retain(|participant| !participant.own);
    ensure!(others.is_empty(), "others take part: {others:?}");
    Ok(())
}
