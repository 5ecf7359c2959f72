//! The operations that are interrupted at every instruction, each in a heap laid out for its path.
//!
//! A row is a name, a layout ([`Stage::lay`]), and what the actor does, which it marks with
//! [`Actor::mark`]. What must be true of a killed actor follows from a few words beside it: what
//! becomes of the blocks it was given, and how many it gives away to nobody.

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Block, Error, Matrix, Offset, SectorId};
use std::alloc::Layout;

use crate::product;
use crate::stage::{Given, Shape, Stage};
use crate::stepper::Mark;

/// Actor A of a stage, or actor B.
pub const A: usize = 0;
/// See [`A`].
pub const B: usize = 1;

/// What a child that is stepped has in hand.
pub struct Actor<'a> {
    /// The kind of segment.
    pub shape: Shape,
    /// The heap, as it was laid out; `None` before there is a segment.
    pub stage: Option<&'a Stage<'a>>,
    /// The name of the segment, if it has one.
    pub name: Option<&'a str>,
    /// Which one it is: [`A`] or [`B`].
    pub number: usize,
    /// What it marks its operation with.
    pub mark: &'a Mark<'a>,
}

impl<'a> Actor<'a> {
    /// Runs the operation itself: what lies in `work` is interrupted.
    pub fn mark<T>(&self, work: impl FnOnce() -> T) -> T {
        self.mark.around(work)
    }

    /// Opens the segment as a participant.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self) -> Result<Matrix> {
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

    fn name(&self) -> Result<&'a str> {
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

/// What becomes of blocks given to an actor that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are its own before it begins, and so they go back.
    Returned,
    /// They are given away before it begins, and gone when it has ended.
    Consumed,
    /// They are its own before it begins, and given away when it has ended.
    GivenAway,
    /// They are given away before and after; in between it may have had them.
    Tried,
}

/// Something that the survivor does while the actor stands in the middle of the operation.
#[derive(Clone, Copy)]
pub enum Meanwhile {
    /// Just before the first given block becomes free, the survivor frees the block it holds of
    /// that number, counted from the left.
    FreeHeld(usize),
}

/// How the operation's actor begins and ends.
#[derive(Clone, Copy)]
pub enum Kind {
    /// In a segment that the survivor made, has open, and laid out.
    Inside,
    /// By making the segment; the survivor comes after it.
    Making,
}

/// An operation, its heap, and what must be true of the heap when its actor died.
#[derive(Clone)]
pub struct Op {
    /// Its name, with the word of its shape.
    pub name: String,
    /// How it begins and ends.
    pub kind: Kind,
    /// Which segment.
    pub shape: Shape,
    /// The heap.
    pub layout: &'static str,
    /// What is done.
    pub act: Act,
    /// What becomes of the given blocks.
    pub fate: Fate,
    /// Blocks that belong to nobody when the operation has ended.
    pub strays: u64,
    /// The segment has a name.
    pub named: bool,
    /// The index's hints are cleared before.
    pub spoiled: bool,
    /// No block of two granules may be free before recovery.
    pub full: bool,
    /// What the survivor does meanwhile.
    pub meanwhile: Option<Meanwhile>,
    /// The operation (actor B's blocks) in whose middle another process died before, and how far
    /// it had come: so many hundredths of the changes it makes.
    pub victim: Option<(Act, u64)>,
}

impl Op {
    fn new(name: &str, shape: Shape, layout: &'static str, act: Act) -> Self {
        Self {
            name: format!("{}/{name}", shape.word()),
            kind: Kind::Inside,
            shape,
            layout,
            act,
            fate: Fate::Returned,
            strays: 0,
            named: false,
            spoiled: false,
            full: layout.starts_with('|'),
            meanwhile: None,
            victim: None,
        }
    }

    fn fate(self, fate: Fate) -> Self {
        Self { fate, ..self }
    }

    fn strays(self, strays: u64) -> Self {
        Self { strays, ..self }
    }

    fn named(self) -> Self {
        Self { named: true, ..self }
    }

    fn spoiled(self) -> Self {
        Self { spoiled: true, ..self }
    }

    fn meanwhile(self, meanwhile: Meanwhile) -> Self {
        Self { meanwhile: Some(meanwhile), ..self }
    }

    fn after_death_of(self, victim: Act, hundredths: u64) -> Self {
        Self { victim: Some((victim, hundredths)), ..self }
    }
}

/// Returns the table of operations.
#[must_use]
pub fn all() -> Vec<Op> {
    let mut ops = Vec::new();
    for shape in Shape::ALL {
        carves(shape, &mut ops);
        returns(shape, &mut ops);
        changes(shape, &mut ops);
    }
    let small = Shape::Only(SectorId::Small);
    slow_paths(small, &mut ops);
    threads(small, &mut ops);
    recoveries(small, &mut ops);
    recoveries(Shape::Three, &mut ops);
    lives(small, &mut ops);
    ops
}

fn carves(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("carve", shape, "S2", carve_held),
        Op::new("carve-raw", shape, "S2", carve_raw).strays(1),
        // Of two ends beside each other at most one is where an aligned block may end.
        Op::new("carve-aligned", shape, "S3", carve_aligned),
        Op::new("carve-aligned-beside", shape, "S4", carve_aligned),
        Op::new("exact-fit", shape, "S2 F3 S2", carve_held),
        Op::new("exact-fit-raw", shape, "S2 F3 S2", carve_raw).strays(1),
        Op::new("exact-fit-long", shape, "|S2 F40 S2", carve_long),
        Op::new("allocate-many", shape, "S2", allocate_many),
    ]);
}

fn returns(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("drop-alone", shape, "S2 A3 S2", drop_first),
        Op::new("drop-absorbing-right", shape, "S2 A3 F4 S2", drop_first),
        Op::new("drop-absorbing-left", shape, "S2 F4 A3 S2", drop_first),
        Op::new("drop-absorbing-both", shape, "S2 F4 A3 F5 S2", drop_first),
        Op::new("drop-absorbing-long", shape, "S2 F34 A3 F35 S2", drop_first),
        Op::new("drop-into-origin", shape, "A3 S2", drop_first),
        Op::new("ack-alone", shape, "S2 A3 S2", ack_first).fate(Fate::Consumed),
        Op::new("ack-absorbing-right", shape, "S2 A3 F4 S2", ack_first).fate(Fate::Consumed),
        Op::new("ack-absorbing-left", shape, "S2 F4 A3 S2", ack_first).fate(Fate::Consumed),
        Op::new("ack-absorbing-both", shape, "S2 F4 A3 F5 S2", ack_first).fate(Fate::Consumed),
        Op::new("free-many", shape, "S2 A3 A4 A2 S2 F3 A2 A3 F4 S2", free_many),
        Op::new("look-again-right", shape, "S2 A3 S4 R2", ack_first)
            .fate(Fate::Consumed)
            .meanwhile(Meanwhile::FreeHeld(1)),
        Op::new("look-again-left", shape, "R2 S4 A3 S2", ack_first)
            .fate(Fate::Consumed)
            .meanwhile(Meanwhile::FreeHeld(0)),
    ]);
}

fn changes(shape: Shape, ops: &mut Vec<Op>) {
    // Of few bytes, and yet as long as the layout can make it.
    let few_bytes = match shape {
        Shape::Only(SectorId::Medium | SectorId::Large) => "S2 A1 S2",
        _ => "S2 A2 S2",
    };
    ops.extend([
        Op::new("into-offset", shape, "S2 A3 S2", into_offset).fate(Fate::GivenAway),
        Op::new("from-offset", shape, "S2 A3 S2", from_offset).fate(Fate::Consumed),
        Op::new("value-of-wrong-size", shape, few_bytes, value_of_wrong_size).fate(Fate::Tried),
        Op::new("shrink", shape, "S2 A5 S2", shrink),
        Op::new("shrink-by-one", shape, "S2 A3 F4 S2", shrink),
        Op::new("grow", shape, "S2 A3 F4 S2", grow),
        Op::new("grow-exactly", shape, "S2 A3 F3 S2", grow),
        Op::new("grow-long", shape, "S2 A3 F40 S2", grow),
    ]);
}

fn slow_paths(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("walk", shape, "S2 F3 S4 F6 S2", carve_held).spoiled(),
        Op::new("walk-raw", shape, "S2 F3 S4 F6 S2", carve_raw).spoiled().strays(1),
        Op::new("exhausted", shape, "|S2 R3 S2", exhausted),
        Op::new("exhausted-beside-free", shape, "|S2 F2 S3 F2 S2", exhausted),
    ]);
}

fn threads(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("first-allocation", shape, "S2", first_allocation),
        Op::new("first-ack", shape, "S2 A3 F4 S2", first_ack).fate(Fate::Consumed),
        Op::new("thread-exit", shape, "S2", thread_exit),
    ]);
}

fn recoveries(shape: Shape, ops: &mut Vec<Op>) {
    let merge = "S2 F4 B3 F5 S2";
    for (name, layout, victim) in [
        ("recover-after-drop", merge, drop_first as Act),
        ("recover-after-carve", "S2", carve_held),
        ("recover-after-allocate-many", "S2", allocate_many),
        ("recover-after-free-many", "S2 B3 B4 B2 S2 F3 B2 B3 F4 S2", free_many),
    ] {
        for hundredths in [25, 60, 100] {
            let name = format!("{name}-{hundredths}");
            ops.push(Op::new(&name, shape, layout, recover).after_death_of(victim, hundredths));
        }
    }
    ops.extend([
        Op::new("exhausted-recovers", shape, "|S2 B3 S2", allocate_two)
            .after_death_of(take_and_stay, 100),
        Op::new("attach-recovers", shape, merge, attach).after_death_of(drop_first, 60),
    ]);
}

fn lives(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("attach", shape, "S2", attach),
        Op::new("open", shape, "S2", open_by_name).named(),
        Op::new("detach", shape, "S2 A3 S2", detach),
        Op::new("destroy", shape, "S2", destroy).named(),
        Op { kind: Kind::Making, ..Op::new("create", shape, "", create).named() },
        Op { kind: Kind::Making, ..Op::new("open-or-create", shape, "", open_or_create).named() },
    ]);
}

fn carve_held(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    Ok(())
}

fn carve_raw(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate_offset(actor.bytes(3)))?;
    Ok(())
}

fn carve_long(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| matrix.allocate(actor.bytes(40)))?;
    Ok(())
}

fn carve_aligned(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    // Eight granules, but a whole page in the large sector: the block lies where it may, and what
    // is behind it goes back.
    let granule_bytes = actor.stage.context("no heap")?.sector().granule_bytes() as usize;
    let align_bytes = (8 * granule_bytes).min(4096);
    let layout = Layout::from_size_align(actor.bytes(3), align_bytes)?;
    actor.mark(|| matrix.allocate_aligned(layout))?;
    Ok(())
}

fn allocate_many(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let blocks = actor.mark(|| matrix.allocate_many(4, actor.bytes(3)))?;
    ensure!(blocks.len() == 4, "{} blocks of four", blocks.len());
    Ok(())
}

fn drop_first(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| block.free())?;
    Ok(())
}

fn ack_first(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.ack(offset))?;
    Ok(())
}

fn free_many(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let take = |number| actor.take(&matrix, number);
    let blocks = (0..actor.given().len()).map(take).collect::<Result<Vec<_>>>()?;
    actor.mark(|| matrix.free_many(blocks));
    Ok(())
}

fn into_offset(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    let offset = actor.mark(|| block.into_offset());
    ensure!(offset == actor.offset(0)?, "it lies at {offset} now");
    Ok(())
}

fn from_offset(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.from_offset(offset))?;
    Ok(())
}

fn value_of_wrong_size(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let offset = actor.offset(0)?;
    // As many granules as the block has, but fewer bytes: only a look at the block itself tells.
    let result = actor.mark(|| matrix.value_from_offset::<[u8; 9]>(offset).map(drop));
    ensure!(matches!(result, Err(Error::WrongSize { .. })), "{result:?}");
    Ok(())
}

fn shrink(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let mut block = actor.take(&matrix, 0)?;
    actor.mark(|| block.shrink(actor.bytes(2)))?;
    Ok(())
}

fn grow(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let mut block = actor.take(&matrix, 0)?;
    actor.mark(|| block.try_grow(actor.bytes(6)))?;
    Ok(())
}

fn exhausted(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let result = actor.mark(|| matrix.allocate(actor.bytes(3)).map(drop));
    ensure!(matches!(result, Err(Error::Exhausted { .. })), "{result:?}");
    Ok(())
}

fn first_allocation(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    actor.mark(|| matrix.allocate(actor.bytes(3)))?;
    Ok(())
}

fn first_ack(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    let offset = actor.offset(0)?;
    actor.mark(|| matrix.ack(offset))?;
    Ok(())
}

fn thread_exit(actor: &Actor<'_>) -> Result<()> {
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

fn recover(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.mark(|| product::recover(&matrix));
    Ok(())
}

/// In a sector that was full until somebody died.
fn allocate_two(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open()?;
    // Without recovery this fails; that is for the survivor to notice.
    let _ = actor.mark(|| matrix.allocate(actor.bytes(2)));
    Ok(())
}

fn take_and_stay(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    let block = actor.take(&matrix, 0)?;
    actor.mark(|| std::mem::forget(block));
    Ok(())
}

fn attach(actor: &Actor<'_>) -> Result<()> {
    actor.mark(|| actor.open())?;
    Ok(())
}

fn open_by_name(actor: &Actor<'_>) -> Result<()> {
    let name = actor.name()?;
    actor.mark(|| Matrix::builder().open(name))?;
    Ok(())
}

fn detach(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_warm()?;
    actor.take(&matrix, 0)?.free()?;
    actor.mark(|| drop(matrix));
    Ok(())
}

fn destroy(actor: &Actor<'_>) -> Result<()> {
    let matrix = Matrix::builder().open(actor.name()?)?;
    actor.mark(|| matrix.destroy())?;
    Ok(())
}

fn create(actor: &Actor<'_>) -> Result<()> {
    let (builder, name) = (actor.shape.builder(), actor.name()?);
    actor.mark(|| builder.create(name))?;
    Ok(())
}

fn open_or_create(actor: &Actor<'_>) -> Result<()> {
    let (builder, name) = (actor.shape.builder(), actor.name()?);
    actor.mark(|| builder.open_or_create(name))?;
    Ok(())
}
