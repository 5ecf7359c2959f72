//! What actors do: each of these is an operation with what must be ready before it.

use std::alloc::Layout;

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Block, Error, Matrix, Offset};

use crate::product;
use crate::stage::{Given, Shape, Stage};
use crate::stepper::Mark;

/// What a child that is stepped has in hand.
pub struct Actor<'a> {
    /// The kind of segment.
    pub shape: Shape,
    /// The heap, as it was laid out; `None` before there is a segment.
    pub stage: Option<&'a Stage<'a>>,
    /// The name of the segment, if it has one.
    pub name: Option<&'a str>,
    /// Which one it is: [`A`](crate::ops::A), `B` or `C`.
    pub number: usize,
    /// What it marks its operation with.
    pub mark: &'a Mark<'a>,
}

impl<'a> Actor<'a> {
    /// Runs the operation itself: what lies in `work` is interrupted.
    pub fn mark<T>(&self, work: impl FnOnce() -> T) -> T {
        self.mark.around(work)
    }

    /// Opens the segment as a participant, by a handle without thread caches.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self) -> Result<Matrix> {
        Ok(self.open_cached()?.with_thread_caches(false))
    }

    /// Opens the segment as a participant, by a handle as users have it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_cached(&self) -> Result<Matrix> {
        self.stage.context("there is no segment yet")?.open_anew()
    }

    /// Opens it, and lets this thread do a first operation, if there is room for one.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_warm(&self) -> Result<Matrix> {
        let matrix = self.open()?;
        drop(matrix.allocate(self.bytes(2)));
        Ok(matrix)
    }

    /// Returns the payload bytes of a block of `granules`.
    #[must_use]
    pub fn bytes(&self, granules: u32) -> usize {
        self.stage.map_or(0, |stage| stage.bytes(granules))
    }

    /// Returns the blocks given to this actor, from left to right.
    #[must_use]
    pub fn given(&self) -> &'a [Given] {
        self.stage.map_or(&[], |stage| &stage.given[self.number])
    }

    pub(crate) fn name(&self) -> Result<&'a str> {
        self.name.context("the segment has no name")
    }

    /// Takes the given block of that number.
    ///
    /// # Errors
    /// It is not there.
    pub fn take<'m>(&self, matrix: &'m Matrix, number: usize) -> Result<Block<'m>> {
        Ok(matrix.from_offset(self.offset(number)?)?)
    }

    /// Returns where the given block of that number lies.
    ///
    /// # Errors
    /// The layout has none.
    pub fn offset(&self, number: usize) -> Result<Offset> {
        Ok(self.given().get(number).context("the layout gives no such block")?.offset)
    }
}

/// What an actor does.
pub type Act = fn(&Actor<'_>) -> Result<()>;

pub(crate) fn carve_held(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    Ok(())
}

pub(crate) fn carve_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate_offset(actor.bytes(3)))?;
    Ok(())
}

pub(crate) fn carve_long(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate(actor.bytes(40)))?;
    Ok(())
}

pub(crate) fn carve_aligned(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    // Eight granules, but a whole page in the large sector: the block lies where it may, and what
    // is behind it goes back.
    let granule_bytes = actor.stage.context("no heap")?.sector().granule_bytes() as usize;
    let align_bytes = (8 * granule_bytes).min(4096);
    let layout = Layout::from_size_align(actor.bytes(3), align_bytes)?;
    actor.mark(|| matrix.allocate_aligned(layout))?;
    Ok(())
}

pub(crate) fn allocate_many(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let blocks = actor.mark(|| matrix.allocate_many(4, actor.bytes(3)))?;
    ensure!(blocks.len() == 4, "{} blocks of four", blocks.len());
    Ok(())
}

pub(crate) fn drop_first(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| block.free())?;
    Ok(())
}

pub(crate) fn ack_first(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.ack(offset))?;
    Ok(())
}

pub(crate) fn free_many(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let take = |number| actor.take(&matrix, number);
    let blocks = (0..actor.given().len()).map(take).collect::<Result<Vec<_>>>()?;
    actor.mark(|| matrix.free_many(blocks));
    Ok(())
}

pub(crate) fn into_offset(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    let offset = actor.mark(|| block.into_offset());
    ensure!(offset == actor.offset(0)?, "it lies at {offset} now");
    Ok(())
}

pub(crate) fn from_offset(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.from_offset(offset))?;
    Ok(())
}

pub(crate) fn value_of_wrong_size(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    // As many granules as the block has, but fewer bytes: only a look at the block itself tells.
    let result = actor.mark(|| matrix.value_from_offset::<[u8; 9]>(offset).map(drop));
    ensure!(matches!(result, Err(Error::WrongSize { .. })), "{result:?}");
    Ok(())
}

pub(crate) fn shrink(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let mut block = actor.take(&matrix, 0)?;
    actor.mark(|| block.shrink(actor.bytes(2)))?;
    Ok(())
}

pub(crate) fn grow(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let mut block = actor.take(&matrix, 0)?;
    actor.mark(|| block.try_grow(actor.bytes(6)))?;
    Ok(())
}

pub(crate) fn exhausted(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let result = actor.mark(|| matrix.allocate(actor.bytes(3)).map(drop));
    ensure!(matches!(result, Err(Error::Exhausted { .. })), "{result:?}");
    Ok(())
}

/// By a thread that remembers nothing, with hints that tell nothing.
pub(crate) fn walk(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    let before = walks(&matrix);
    actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    ensure!(walks(&matrix) > before, "it did not walk");
    Ok(())
}

pub(crate) fn walk_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    let before = walks(&matrix);
    actor.mark(|| matrix.allocate_offset(actor.bytes(3)))?;
    ensure!(walks(&matrix) > before, "it did not walk");
    Ok(())
}

fn walks(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.slow_walks).sum()
}

pub(crate) fn first_allocation(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    Ok(())
}

pub(crate) fn first_ack(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.ack(offset))?;
    Ok(())
}

pub(crate) fn thread_exit(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    std::thread::scope(|scope| {
        let work = || {
            let result = matrix.allocate(actor.bytes(3)).map(drop);
            actor.mark.until_the_thread_ends();
            result
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("the thread panicked"))
    })??;
    Ok(())
}

pub(crate) fn recover(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| product::recover(&matrix));
    Ok(())
}

/// In a sector that was full until somebody died.
pub(crate) fn allocate_two(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    // Without recovery this fails; that is for the survivor to notice.
    let _ = actor.mark(|| matrix.allocate(actor.bytes(2)));
    Ok(())
}

pub(crate) fn take_and_stay(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| std::mem::forget(block));
    Ok(())
}

pub(crate) fn attach(actor: &Actor<'_>) -> Result<()> {
    actor.mark(|| actor.open())?;
    Ok(())
}

pub(crate) fn open_by_name(actor: &Actor<'_>) -> Result<()> {
    let name = actor.name()?;
    actor.mark(|| Matrix::builder().open(name))?;
    Ok(())
}

pub(crate) fn detach(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.take(&matrix, 0)?.free()?;
    actor.mark(|| drop(matrix));
    Ok(())
}

/// Who leaves well gives back what its forgotten guards hold.
pub(crate) fn detach_forgotten(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    std::mem::forget(actor.take(&matrix, 0)?);
    actor.mark(|| drop(matrix));
    Ok(())
}

pub(crate) fn destroy(actor: &Actor<'_>) -> Result<()> {
    let matrix = Matrix::builder().open(actor.name()?)?;
    actor.mark(|| matrix.destroy())?;
    Ok(())
}

pub(crate) fn create(actor: &Actor<'_>) -> Result<()> {
    let (builder, name) = (actor.shape.builder(), actor.name()?);
    actor.mark(|| builder.create(name))?;
    Ok(())
}

pub(crate) fn open_or_create(actor: &Actor<'_>) -> Result<()> {
    let (builder, name) = (actor.shape.builder(), actor.name()?);
    actor.mark(|| builder.open_or_create(name))?;
    Ok(())
}
