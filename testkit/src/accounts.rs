//! What must be true of a heap after one of its users died, byte by byte.

use anyhow::{Context, Result, bail, ensure};
use atomic_matrix::{Error, Matrix, Offset};

use crate::common_ops::judge_commons;
use crate::ops::{A, B, Fate, Op};
use crate::pattern;
use crate::product::{self, Recovered};
use crate::scene::Scene;
use crate::stage::{Given, Shape, Stage};

/// Calls of recovery before it counts as endless.
const RECOVERIES_MAX: usize = 4;

/// How far the actor had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It stood before the first instruction.
    Before,
    /// It stood in the middle.
    Amid,
    /// It had done all of it.
    After,
}

/// What the survivor does about the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// It recovers at once.
    Recover,
    /// It works on first, and recovers then.
    WorkAndRecover,
    /// It works on and never recovers: the accounts are to notice.
    Neglect,
}

/// Judges the survivor's heap: it works, nothing is lost, nothing is in flight, every byte that is
/// to stay has stayed, and all of it becomes one block per sector again. Returns how many blocks
/// recovery gave back. `when` tells how far actor A had come; actor B, if there is one, had ended.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn judge(
    stage: &mut Stage<'_>,
    mut scene: Option<Scene>,
    op: &Op,
    when: When,
    care: Care,
) -> Result<u64> {
    let recovered = match care {
        Care::Recover => recover(stage.matrix)?,
        Care::WorkAndRecover => {
            work(stage, op.full).context("before recovery")?;
            scene.as_mut().map_or(Ok(()), |scene| scene.go_on(stage.matrix, when))?;
            recover(stage.matrix)?
        }
        Care::Neglect => Recovered::default(),
    };
    if let Some(scene) = scene {
        scene.judge(stage, op, when, recovered.claims)?;
    }
    if op.spoiled {
        // Whoever walks to the end announces all that is free.
        let all = stage.matrix.allocate(stage.bytes(stage.sector().granules));
        ensure!(matches!(all, Err(Error::Exhausted { .. })), "all at once: {all:?}");
    }
    sound(stage.matrix)?;
    let allocated = count_blocks(stage)?;
    judge_commons(stage, op, when)?;
    let known = take_known(stage, op, when)?;
    let strays = take_strays(stage)?;
    let strays_beside = op.beside.map_or(0, |beside| beside.strays);
    let allowed = match when {
        When::Before => 0..=0,
        When::Amid => 0..=op.strays,
        When::After => op.strays + strays_beside..=op.strays + strays_beside,
    };
    ensure!(allowed.contains(&strays), "{strays} blocks belong to nobody, not {allowed:?}");
    ensure!(allocated == known + strays, "{allocated} blocks given away, not {known} + {strays}");
    for (block, key) in stage.held.drain(..) {
        ensure!(pattern::holds(&block, key), "the payload of {block:?} has changed");
        block.free()?;
    }
    whole(stage.matrix)?;
    work(stage, false).context("after recovery")?;
    whole(stage.matrix).context("after more work")?;
    product::alone(stage.matrix)?;
    Ok(recovered.blocks)
}

/// Recovers until nothing is deferred. With nobody else alive, the first call must do.
fn recover(matrix: &Matrix) -> Result<Recovered> {
    for call in 0..RECOVERIES_MAX {
        let recovered = product::recover(matrix);
        if recovered.deferred == 0 && !recovered.busy {
            ensure!(call == 0, "recovery took {} calls, with nobody alive", call + 1);
            return Ok(recovered);
        }
    }
    bail!("recovery is not done after {RECOVERIES_MAX} calls")
}

/// Allocates, fills, checks and frees blocks of a few sizes, on the sectors and by way of a thread cache. In a
/// `full` sector they may be refused.
fn work(stage: &Stage<'_>, full: bool) -> Result<()> {
    work_by(stage.matrix, stage, full)?;
    let cached = stage.matrix.clone().with_thread_caches(true);
    // Twice, so that the cache hands out what it got.
    for _ in 0..2 {
        work_by(&cached, stage, full).context("by way of a cache")?;
    }
    Ok(cached.trim()?)
}

fn work_by(matrix: &Matrix, stage: &Stage<'_>, full: bool) -> Result<()> {
    let mut sizes = vec![stage.bytes(2), stage.bytes(3), stage.bytes(7)];
    if stage.shape == Shape::Three {
        sizes.extend([5_000, 140_000]);
    }
    let mut blocks = Vec::new();
    for bytes in sizes {
        match matrix.allocate(bytes) {
            Ok(mut block) => {
                let key = pattern::key(3, block.offset().to_raw().into());
                pattern::fill(&mut block, key);
                blocks.push((block, key));
            }
            Err(Error::Exhausted { .. } | Error::Contended { .. }) if full => {}
            Err(error) => bail!("{error}"),
        }
    }
    for (block, key) in blocks {
        ensure!(pattern::holds(&block, key), "the payload of {block:?} was overwritten");
        block.free()?;
    }
    Ok(())
}

fn sound(matrix: &Matrix) -> Result<()> {
    let violations = matrix.check();
    let texts: Vec<String> = violations.iter().take(4).map(ToString::to_string).collect();
    ensure!(violations.is_empty(), "{} violations: {}", violations.len(), texts.join("; "));
    Ok(())
}

/// Checks that the bytes add up, that only the survivor holds blocks, and that nothing is left in a cache;
/// returns the number of blocks that nobody holds.
fn count_blocks(stage: &Stage<'_>) -> Result<u64> {
    let stats = stage.matrix.stats();
    for s in &stats.sectors {
        let (blocks, bytes) = (s.cached_blocks, s.cached_bytes);
        ensure!(
            (blocks, bytes) == (0, 0),
            "{}: {blocks} blocks are in a dead one's cache",
            s.sector
        );
        let sum = s.free_bytes + s.allocated_bytes;
        ensure!(sum == s.size_bytes, "{}: {sum} bytes of {}", s.sector, s.size_bytes);
    }
    let held: u64 = stats.sectors.iter().map(|s| s.held_blocks).sum();
    let own = stage.held.len() as u64;
    ensure!(held == own, "{held} blocks are held, {own} of them by the survivor");
    Ok(stats.sectors.iter().map(|s| s.allocated_blocks).sum())
}

/// Takes and frees the blocks that were given away before, as far as they must or may be there;
/// returns how many there were.
fn take_known(stage: &mut Stage<'_>, op: &Op, when: When) -> Result<u64> {
    let mut count = 0;
    for given in stage.raw.drain(..) {
        ensure!(take(stage.matrix, given)?, "the block at {} is gone", given.offset);
        count += 1;
    }
    for (number, given) in std::mem::take(&mut stage.given).into_iter().enumerate() {
        let expected = match number {
            A => stays(op.fate, when),
            B => stays(op.beside.map_or(Fate::Returned, |beside| beside.fate), When::After),
            // It took them before it died.
            _ => Some(false),
        };
        for given in given {
            let there = take(stage.matrix, given)?;
            let word = if there { "there" } else { "gone" };
            let right = expected.is_none_or(|expected| expected == there);
            ensure!(right, "the block at {} is {word}", given.offset);
            count += u64::from(there);
        }
    }
    Ok(count)
}

/// Whether blocks of that fate are still given away; `None` when both may be.
fn stays(fate: Fate, when: When) -> Option<bool> {
    match (fate, when) {
        (Fate::Returned, _) => Some(false),
        (_, When::Amid) => None,
        (Fate::Consumed, when) => Some(when == When::Before),
        (Fate::GivenAway, when) => Some(when == When::After),
        (Fate::Tried, _) => Some(true),
    }
}

/// Takes a block by its offset, checks every byte, and frees it; false when it is not there.
fn take(matrix: &Matrix, given: Given) -> Result<bool> {
    let Ok(block) = matrix.from_offset(given.offset) else { return Ok(false) };
    ensure!(block.len() == given.bytes, "{block:?} had {} bytes", given.bytes);
    ensure!(pattern::holds(&block, given.key), "the payload of {block:?} has changed");
    block.free()?;
    Ok(true)
}

/// Frees every block that nobody knows of; returns how many there were.
fn take_strays(stage: &Stage<'_>) -> Result<u64> {
    let mut count = 0;
    for sector in &stage.geometry().sectors {
        for granule in 0..u64::from(sector.granules) {
            let at_bytes = sector.data_bytes + (granule << sector.granule_shift) + 32;
            let offset = Offset::from_bytes(at_bytes)?;
            let ours = stage.held.iter().any(|(block, _)| block.offset() == offset);
            if !ours && stage.matrix.usable_bytes(offset).is_some() {
                stage.matrix.ack(offset).context("a block that belongs to nobody")?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Checks that every sector is one free block.
fn whole(matrix: &Matrix) -> Result<()> {
    sound(matrix)?;
    for s in &matrix.stats().sectors {
        let whole = s.free_blocks == 1 && s.largest_free_bytes == s.size_bytes;
        ensure!(whole, "{}: with all freed, {} free blocks", s.sector, s.free_blocks);
    }
    Ok(())
}
