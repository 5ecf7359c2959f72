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

/// Opens with a cache, and parks one block of three granules, if there is room for one.
fn open_with_one_parked(actor: &Actor<'_>) -> Result<Matrix> {
    let matrix = actor.open_cached()?;
    drop(matrix.allocate(actor.bytes(3)));
    Ok(matrix)
}

pub(crate) fn hit(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    let _block = actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    must_keep(&matrix, 0)
}

pub(crate) fn hit_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = open_with_one_parked(actor)?;
    actor.mark(|| matrix.allocate_offset(actor.bytes(3)))?;
    must_keep(&matrix, 0)
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

/// What the last of some allocations left.
struct Refilled {
    /// Blocks in the cache, one of which was there before.
    kept: u64,
    /// Free blocks of the sector.
    free: u64,
}

/// Allocates so many blocks of two granules, the last of them marked: of that the first one carves its
/// own block, the second one refills with two, the fourth one with more.
fn refill(actor: &Actor<'_>, nth: usize) -> Result<Refilled> {
    let matrix = open_with_one_parked(actor)?;
    let allocate = || matrix.allocate(actor.bytes(2));
    let before = (1..nth).map(|_| allocate()).collect::<Result<Vec<_>, _>>()?;
    let last = actor.mark(allocate)?;
    let refilled = Refilled { kept: kept(&matrix)?, free: matrix.stats().sectors[0].free_blocks };
    drop((before, last));
    Ok(refilled)
}

fn must_leave(refilled: &Refilled, kept: std::ops::Range<u64>) -> Result<()> {
    ensure!(kept.contains(&refilled.kept), "{} blocks are in the cache", refilled.kept);
    Ok(())
}

pub(crate) fn refill_two(actor: &Actor<'_>) -> Result<()> {
    must_leave(&refill(actor, 2)?, 2..3)
}

/// Three or four, as the sector's length allows.
pub(crate) fn refill_several(actor: &Actor<'_>) -> Result<()> {
    must_leave(&refill(actor, 4)?, 3..5)
}

/// A run of as many pieces as are asked for is nowhere.
pub(crate) fn refill_short(actor: &Actor<'_>) -> Result<()> {
    must_leave(&refill(actor, 4)?, 1..3)
}

pub(crate) fn refill_two_exactly(actor: &Actor<'_>) -> Result<()> {
    let refilled = refill(actor, 2)?;
    ensure!(refilled.free == 1, "the gap was not filled");
    must_leave(&refilled, 2..3)
}

pub(crate) fn refill_several_exactly(actor: &Actor<'_>) -> Result<()> {
    let refilled = refill(actor, 4)?;
    ensure!(refilled.free == 1, "the gap was not filled");
    must_leave(&refilled, 3..5)
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
