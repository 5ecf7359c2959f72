//! What actors do by way of a thread cache. Each checks afterwards that it went the way it is named for.

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Block, Error, Matrix};

use crate::acts::Actor;

/// Blocks that this participant's caches keep.
fn kept(matrix: &Matrix) -> Result<u64> {
    let own = matrix.participants().into_iter().find(|participant| participant.own);
    Ok(own.context("this handle is no participant")?.cached_blocks)
}

fn must_keep(matrix: &Matrix, blocks: u64) -> Result<()> {
    let kept = kept(matrix)?;
    ensure!(kept == blocks, "{kept} blocks are in the cache, not {blocks}");
    Ok(())
}

fn take_all<'m>(actor: &Actor<'_>, matrix: &'m Matrix) -> Result<Vec<Block<'m>>> {
    (0..actor.given().len()).map(|number| actor.take(matrix, number)).collect()
}

/// Opens with a cache, and parks one block of three granules, if there is room for one; with it, what
/// else its refill carved.
fn open_with_one_parked(actor: &Actor<'_>) -> Result<Matrix> {
    let matrix = actor.open_cached()?;
    drop(matrix.allocate(actor.bytes(3)));
    Ok(matrix)
}

pub(crate) fn hit(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let before = kept(&matrix)?;
    let _block = actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    must_keep(&matrix, before - 1)
}

pub(crate) fn hit_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let before = kept(&matrix)?;
    actor.mark(|| matrix.allocate_offset(actor.bytes(3)))?;
    must_keep(&matrix, before - 1)
}

pub(crate) fn park(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let before = kept(&matrix)?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| drop(block));
    must_keep(&matrix, before + 1)
}

/// By a thread whose cache has no memory yet.
pub(crate) fn park_first(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| drop(block));
    must_keep(&matrix, 1)
}

/// Somebody else's raw block.
pub(crate) fn park_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let before = kept(&matrix)?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.ack(offset))?;
    must_keep(&matrix, before + 1)
}

/// A raw block that was this participant's before.
pub(crate) fn park_unshared(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let before = kept(&matrix)?;
    let offset = actor.take(&matrix, 0)?.into_offset();
    // SAFETY: the survivor looks at it when this process is stopped or dead.
    actor.mark(|| unsafe { matrix.ack_unshared(offset) })?;
    must_keep(&matrix, before + 1)
}

/// Allocates a block of two granules by a refill, which is marked, after so many others; returns how many
/// blocks it brought.
fn refill(actor: &Actor<'_>, others: usize) -> Result<u64> {
    let matrix = open_with_one_parked(actor)?;
    matrix.trim()?;
    let allocate = || matrix.allocate(actor.bytes(2));
    let mut blocks = Vec::new();
    for _ in 0..others {
        blocks.push(allocate()?);
        // The next one refills again, and asks for more.
        matrix.trim()?;
    }
    let before = kept(&matrix)?;
    blocks.push(actor.mark(allocate)?);
    Ok((kept(&matrix)? + 1).saturating_sub(before))
}

/// The first one: from a line of granule words on.
pub(crate) fn refill_line(actor: &Actor<'_>) -> Result<()> {
    let blocks = refill(actor, 0)?;
    ensure!(blocks > 1, "{blocks} blocks came");
    Ok(())
}

/// The sixth one: as many as a quarter of the limit allows.
pub(crate) fn refill_several(actor: &Actor<'_>) -> Result<()> {
    let blocks = refill(actor, 5)?;
    ensure!(blocks > 2, "{blocks} blocks came");
    Ok(())
}

/// No run is anywhere that begins where a line does.
pub(crate) fn refill_short(actor: &Actor<'_>) -> Result<()> {
    let blocks = refill(actor, 3)?;
    ensure!(blocks <= 1, "{blocks} blocks came");
    Ok(())
}

/// Frees more than the cache has room for, one after the other.
pub(crate) fn flush(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    let blocks = take_all(actor, &matrix)?;
    let given = blocks.len() as u64;
    actor.mark(|| blocks.into_iter().try_for_each(Block::free))?;
    let kept = kept(&matrix)?;
    ensure!(0 < kept && kept < given, "{kept} of {given} blocks are in the cache");
    Ok(())
}

pub(crate) fn trim(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    drop(take_all(actor, &matrix)?);
    must_keep(&matrix, actor.given().len() as u64)?;
    actor.mark(|| matrix.trim())?;
    must_keep(&matrix, 0)
}

/// Asks for more than there is of the sector that is laid out, and gives back what came.
fn exhaust(matrix: &Matrix, actor: &Actor<'_>) -> Result<()> {
    // Longer ones may go to another sector.
    let granules = actor.stage.context("no heap")?.sector().granules.min(128);
    let mut filled = Vec::new();
    loop {
        match matrix.allocate(actor.bytes(granules)) {
            Ok(block) => filled.push(block),
            Err(Error::Exhausted { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Another participant asked for more than there is; then the thread frees one block more.
pub(crate) fn answer_pressure(actor: &Actor<'_>) -> Result<()> {
    let (matrix, other) = (actor.open_cached()?, actor.open()?);
    let mut blocks = take_all(actor, &matrix)?;
    let last = blocks.pop().context("the layout gives no block")?;
    drop(blocks);
    exhaust(&other, actor)?;
    must_keep(&matrix, actor.given().len() as u64 - 1)?;
    actor.mark(|| drop(last));
    must_keep(&matrix, 0)
}

/// The thread itself finds nothing but what it has parked.
pub(crate) fn press(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    drop(take_all(actor, &matrix)?);
    let _block = actor.mark(|| matrix.allocate(actor.bytes(7)))?;
    must_keep(&matrix, 0)
}

pub(crate) fn park_and_end_thread(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?.with_thread_caches(true);
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            drop(take_all(actor, &matrix)?);
            must_keep(&matrix, actor.given().len() as u64)?;
            actor.mark.until_the_thread_ends();
            Ok(())
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("the thread panicked"))
    })??;
    must_keep(&matrix, 0)
}

/// The last handle goes while the cache is full.
pub(crate) fn park_and_detach(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    drop(take_all(actor, &matrix)?);
    must_keep(&matrix, actor.given().len() as u64)?;
    actor.mark(|| drop(matrix));
    Ok(())
}

pub(crate) fn park_all(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    let blocks = take_all(actor, &matrix)?;
    actor.mark(|| drop(blocks));
    must_keep(&matrix, actor.given().len() as u64)
}

/// A little of everything, beside somebody who sleeps.
pub(crate) fn work(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let work = || -> Result<(), Error> {
        let first = matrix.allocate(actor.bytes(2))?;
        let second = [matrix.allocate(actor.bytes(2))?, matrix.allocate(actor.bytes(3))?];
        drop(first);
        let raw = matrix.allocate_offset(actor.bytes(2))?;
        drop(second);
        matrix.ack(raw)?;
        matrix.trim()
    };
    Ok(actor.mark(work)?)
}
