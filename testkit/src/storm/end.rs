//! The end of a storm: everybody else is dead, and the books must balance.

use am_matrix::{Matrix, Offset, SectorStats};
use anyhow::{Result, ensure};

use crate::product;

/// Calls of recovery until nothing is deferred: nobody else is alive, so one should do.
const RECOVERIES_MAX: u32 = 4;
/// Violations that are printed.
const SHOWN_MAX: usize = 10;

/// What the survivor finds wrong.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<String>);

impl Findings {
    /// Notes it when it does not hold.
    pub fn demand(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(text());
        }
    }
}

/// Recovers what the dead left; returns how many blocks.
///
/// # Errors
/// Something stays deferred though nobody else is alive.
pub fn recover_all(matrix: &Matrix) -> Result<u64> {
    let mut blocks = 0;
    for _ in 0..RECOVERIES_MAX {
        let recovered = product::recover(matrix);
        blocks += recovered.blocks;
        if recovered.deferred == 0 && !recovered.busy {
            return Ok(blocks);
        }
    }
    let last = product::recover(matrix);
    ensure!(last.deferred == 0 && !last.busy, "nobody else is alive, and yet: {last:?}");
    Ok(blocks)
}

/// Looks at a segment whose only user holds `held` blocks, keeps none in a cache, and gave none away; returns
/// how many blocks belonged to nobody, and gives them back.
pub fn balance(matrix: &Matrix, held: u64, kills: u64, findings: &mut Findings) -> u64 {
    let violations = matrix.check();
    for violation in violations.iter().take(SHOWN_MAX) {
        findings.demand(false, || format!("violation: {violation}"));
    }
    let sectors = matrix.stats().sectors;
    for s in &sectors {
        let sum = s.free_bytes + s.allocated_bytes;
        findings.demand(sum == s.size_bytes, || {
            format!("{}: {} bytes are free or used, of {}", s.sector, sum, s.size_bytes)
        });
        findings.demand(s.cached_blocks == 0 && s.cached_bytes == 0, || {
            format!("{}: {} blocks are in the caches of the dead", s.sector, s.cached_blocks)
        });
        findings.demand(s.in_flight_blocks == 0 && s.corrupt == 0, || {
            format!("{}: {} in flight, {} corrupt", s.sector, s.in_flight_blocks, s.corrupt)
        });
    }
    let total = |count: fn(&SectorStats) -> u64| sectors.iter().map(count).sum::<u64>();
    let (now_held, given) = (total(|s| s.held_blocks), total(|s| s.allocated_blocks));
    findings.demand(now_held == held, || {
        format!("{now_held} blocks are held, and the survivor holds {held}")
    });
    findings
        .demand(given <= kills, || format!("{given} blocks belong to nobody, after {kills} kills"));
    let found = ack_everything(matrix);
    findings.demand(found == given, || format!("{given} blocks given away, {found} acked"));
    found
}

/// Looks at a segment that nobody uses: each sector is one free block.
pub fn whole(matrix: &Matrix, findings: &mut Findings) {
    for s in matrix.stats().sectors {
        let one = s.free_blocks == 1 && s.free_bytes == s.size_bytes;
        findings.demand(one, || {
            let (blocks, bytes) = (s.free_blocks, s.free_bytes);
            format!("{}: {bytes} of {} free in {blocks} blocks", s.sector, s.size_bytes)
        });
    }
    findings.demand(matrix.check().is_empty(), || "violations in an empty segment".into());
}

/// Acks every offset there is: only blocks that were given away and not taken are.
fn ack_everything(matrix: &Matrix) -> u64 {
    let units = matrix.geometry().size_bytes / am_layout::OFFSET_UNIT_BYTES;
    (0..units).filter(|&unit| matrix.ack(Offset::from_raw(unit as u32)).is_ok()).count() as u64
}
