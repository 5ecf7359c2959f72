//! The operations on common blocks and names that are interrupted at every instruction; see
//! [`ops`](crate::ops).

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Error, Matrix, Offset, SectorId};

use crate::accounts::When;
use crate::acts::{Actor, recover};
use crate::ops::Op;
use crate::pattern;
use crate::stage::{Shape, Stage};

/// Kind of every name.
const KIND: u32 = 0x6b69_7421;

/// How many common blocks there must be.
#[derive(Clone, Debug)]
pub struct Commons {
    /// Before the operation.
    before: RangeInclusive<u64>,
    /// After it.
    after: RangeInclusive<u64>,
    /// Each has a name; else none has.
    named: bool,
}

impl Commons {
    /// None at all.
    pub const NONE: Self = Self { before: 0..=0, after: 0..=0, named: false };

    const fn unnamed(before: u64, after: u64) -> Self {
        Self { before: before..=before, after: after..=after, named: false }
    }

    const fn named(before: RangeInclusive<u64>, after: RangeInclusive<u64>) -> Self {
        Self { before, after, named: true }
    }

    fn allowed(&self, when: When) -> RangeInclusive<u64> {
        let (before, after) = (&self.before, &self.after);
        match when {
            When::Before => before.clone(),
            When::After => after.clone(),
            When::Amid => *before.start().min(after.start())..=*before.end().max(after.end()),
        }
    }
}

/// Returns the rows of the table.
pub(crate) fn all(shape: Shape, ops: &mut Vec<Op>) {
    let thorough = shape != Shape::Only(SectorId::Small);
    let layout = "S2 A3 S2";
    let rows = [
        Op::new("into-common", shape, layout, into_common).commons(Commons::unnamed(0, 1)),
        Op::new("adopt-common", shape, layout, adopt_common).commons(Commons::unnamed(1, 0)),
        Op::new("name-create", shape, layout, create).commons(Commons::named(0..=0, 1..=1)),
        Op::new("name-create-taken", shape, "S2 A3 A3 S2", create_taken)
            .commons(Commons::named(1..=1, 1..=1)),
        Op::new("name-open", shape, layout, open).commons(Commons::named(1..=1, 1..=1)),
        Op::new("name-remove", shape, layout, remove).commons(Commons::named(1..=1, 0..=0)),
    ];
    ops.extend(rows.map(|op| op.thorough_if(thorough)));
    // The last changes of the victim are the three of the entry and the block, and its lock given up.
    for part in [50, 70, 80, 90, 95, 100] {
        for (name, victim) in [("create", create as crate::acts::Act), ("remove", remove)] {
            let half = Commons::named(0..=1, 0..=1);
            let op = Op::new(&format!("name-recover-{name}-{part}"), shape, "S2 C3 S2", recover);
            let op = op.commons(half).after_death_of(victim, part);
            ops.push(op.thorough_if(thorough || part < 80));
            let one_more = Commons::named(0..=1, 1..=2);
            let name = format!("name-settle-{name}-{part}");
            let op = Op::new(&name, shape, "S2 A3 C3 S2", create_another);
            let op = op.commons(one_more).after_death_of(victim, part);
            ops.push(op.thorough_if(thorough || part != 90));
        }
    }
}

/// Checks that as many common blocks are there as must be, each with its name and its bytes, and frees
/// them.
///
/// # Errors
/// What is not as it must be.
pub(crate) fn judge_commons(stage: &Stage<'_>, op: &Op, when: When) -> Result<()> {
    let matrix = stage.matrix;
    let names: Vec<_> = matrix.names().collect();
    let named = names.len() as u64;
    for name in names {
        // SAFETY: the survivor is the only one that lives.
        let block = unsafe { matrix.remove_named(&name.name, name.kind) };
        take(stage, block.with_context(|| format!("the name {}", name.name))?)?;
    }
    let mut unnamed = 0;
    for sector in &stage.geometry().sectors {
        for granule in 0..u64::from(sector.granules) {
            let at_bytes = sector.data_bytes + (granule << sector.granule_shift) + 32;
            let offset = Offset::from_bytes(at_bytes)?;
            if matrix.common(offset).is_ok() {
                // SAFETY: as above.
                take(stage, unsafe { matrix.adopt_common(offset) }?)?;
                unnamed += 1;
            }
        }
    }
    let (right, wrong) = if op.commons.named { (named, unnamed) } else { (unnamed, named) };
    let allowed = op.commons.allowed(when);
    ensure!(allowed.contains(&right), "{right} common blocks, not {allowed:?}");
    ensure!(wrong == 0, "{named} common blocks have a name, {unnamed} have none");
    Ok(())
}

/// Checks the bytes of a block that was given to an actor, and frees it.
fn take(stage: &Stage<'_>, block: atomic_matrix::Block<'_>) -> Result<()> {
    let given = stage.given.iter().flatten().find(|given| given.offset == block.offset());
    let given = given.with_context(|| format!("{block:?} was given to nobody"))?;
    ensure!(block.len() == given.bytes, "{block:?} had {} bytes", given.bytes);
    ensure!(pattern::holds(&block, given.key), "the payload of {block:?} has changed");
    Ok(block.free()?)
}

fn into_common(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| block.into_common())?;
    Ok(())
}

fn adopt_common(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.take(&matrix, 0)?.into_common()?.offset();
    // SAFETY: nobody else looks at the block or adopts it before this actor is dead.
    actor.mark(|| unsafe { matrix.adopt_common(offset) })?;
    Ok(())
}

fn create_first(actor: &Actor<'_>, matrix: &Matrix, name: &str) -> Result<()> {
    let block = actor.take(matrix, 0)?;
    actor.mark(|| matrix.create_named(name, KIND, block))?;
    Ok(())
}

fn create(actor: &Actor<'_>) -> Result<()> {
    create_first(actor, &actor.open_warm()?, "one")
}

fn create_another(actor: &Actor<'_>) -> Result<()> {
    create_first(actor, &actor.open_warm()?, "another")
}

fn create_taken(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    matrix.create_named("one", KIND, actor.take(&matrix, 0)?)?;
    let block = actor.take(&matrix, 1)?;
    let result = actor.mark(|| matrix.create_named("one", KIND, block));
    ensure!(matches!(result, Err(Error::NameTaken { .. })), "{result:?}");
    Ok(())
}

fn open(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let common = matrix.create_named("one", KIND, actor.take(&matrix, 0)?)?;
    let opened = actor.mark(|| matrix.open_named("one", KIND))?;
    ensure!(opened == common, "{opened:?} is not {common:?}");
    Ok(())
}

fn remove(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    matrix.create_named("one", KIND, actor.take(&matrix, 0)?)?;
    // SAFETY: nobody else looks at the block or adopts it before this actor is dead.
    actor.mark(|| unsafe { matrix.remove_named("one", KIND) })?;
    Ok(())
}
