//! The operations that are interrupted at every instruction, each in a heap laid out for its path.
//!
//! A row is a name, a layout ([`Stage::lay`](crate::stage::Stage::lay)), and what the actor does, which it marks with
//! [`Actor::mark`](crate::acts::Actor::mark). Actors work on the sectors directly; those with a thread cache
//! are in `cache_ops`, those on common blocks and names in `common_ops`, those on topics in `topic_ops` and
//! `sleep_ops`, those on services in `service_ops`. What must be true of a killed actor follows from a few words beside it: what
//! becomes of the blocks it was given, and how many it gives away to nobody.

use atomic_matrix::SectorId;

use crate::acts::{
    Act, ack_first, allocate_many, allocate_two, attach, carve_aligned, carve_held, carve_long,
    carve_raw, create, destroy, detach, detach_forgotten, drop_first, exhausted, first_ack,
    first_allocation, free_many, from_offset, grow, into_offset, open_by_name, open_or_create,
    recover, shrink, take_and_stay, thread_exit, value_of_wrong_size, walk, walk_raw,
};
use crate::cache_ops;
use crate::common_ops::{self, Commons};
use crate::scene::Plot;
use crate::service_ops;
use crate::sleep_ops;
use crate::stage::Shape;
use crate::topic_ops;

/// The actor whose operation is interrupted.
pub const A: usize = 0;
/// The actor who works beside it.
pub const B: usize = 1;
/// The actor who died before.
pub const C: usize = 2;

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

/// An operation beside the interrupted one.
#[derive(Clone, Copy)]
pub struct Beside {
    /// What is done.
    pub act: Act,
    /// What becomes of the blocks given to actor B.
    pub fate: Fate,
    /// Blocks that belong to nobody when it has ended.
    pub strays: u64,
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
    /// The actor's thread finds no lane of its own, and shares one.
    pub crowded: bool,
    /// No block of two granules may be free before recovery.
    pub full: bool,
    /// Common blocks that there must be.
    pub commons: Commons,
    /// The topic or service that there is, and what must become of it.
    pub plot: Option<Plot>,
    /// What the survivor does meanwhile.
    pub meanwhile: Option<Meanwhile>,
    /// The operation in whose middle actor C died before, and how far it had come: so many
    /// hundredths of the changes it makes.
    pub victim: Option<(Act, u64)>,
    /// What actor B does from beginning to end while actor A sleeps.
    pub beside: Option<Beside>,
    /// It sleeps in the kernel: it is killed in the middle of system calls, too.
    pub dozes: bool,
    /// It takes long and tells little that others do not: only where all is asked for.
    pub thorough: bool,
    /// Of what would be interrupted in the gate only every so-manyth instruction is, and both ends.
    pub stride: usize,
}

impl Op {
    pub(crate) fn new(name: &str, shape: Shape, layout: &'static str, act: Act) -> Self {
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
            crowded: false,
            full: layout.starts_with('|'),
            commons: Commons::NONE,
            plot: None,
            meanwhile: None,
            victim: None,
            beside: None,
            dozes: false,
            thorough: false,
            stride: 1,
        }
    }

    pub(crate) fn fate(self, fate: Fate) -> Self {
        Self { fate, ..self }
    }

    pub(crate) fn strays(self, strays: u64) -> Self {
        Self { strays, ..self }
    }

    pub(crate) fn plot(self, plot: impl Into<Plot>) -> Self {
        Self { plot: Some(plot.into()), ..self }
    }

    pub(crate) fn commons(self, commons: Commons) -> Self {
        Self { commons, ..self }
    }

    pub(crate) fn named(self) -> Self {
        Self { named: true, ..self }
    }

    fn spoiled(self) -> Self {
        Self { spoiled: true, ..self }
    }

    fn meanwhile(self, meanwhile: Meanwhile) -> Self {
        Self { meanwhile: Some(meanwhile), ..self }
    }

    fn beside(self, act: Act, fate: Fate, strays: u64) -> Self {
        Self { beside: Some(Beside { act, fate, strays }), ..self }
    }

    pub(crate) fn thorough_if(self, thorough: bool) -> Self {
        Self { thorough, ..self }
    }

    pub(crate) fn dozes(self) -> Self {
        Self { dozes: true, ..self }
    }

    pub(crate) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(crate) fn after_death_of(self, victim: Act, hundredths: u64) -> Self {
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
    cache_ops::all(small, &mut ops);
    cache_ops::all(Shape::Three, &mut ops);
    common_ops::all(small, &mut ops);
    common_ops::all(Shape::Three, &mut ops);
    topic_ops::all(&mut ops);
    sleep_ops::all(&mut ops);
    service_ops::all(&mut ops);
    ops
}

/// Returns the table of pairs: an operation that sleeps, and one beside it.
#[must_use]
pub fn pairs() -> Vec<Op> {
    let mut pairs = Vec::new();
    for shape in [Shape::Only(SectorId::Small), Shape::Only(SectorId::Large)] {
        living(shape, &mut pairs);
        beside_the_dead(shape, &mut pairs);
    }
    cache_ops::pairs(Shape::Only(SectorId::Small), &mut pairs);
    topic_ops::pairs(&mut pairs);
    service_ops::pairs(&mut pairs);
    pairs
}

/// `a` sleeps, `b` works.
pub(crate) fn pair(name: &str, shape: Shape, layout: &'static str, a: Act, b: Act) -> Op {
    let pair = Op::new(&format!("pair-{name}"), shape, layout, a).beside(b, Fate::Returned, 0);
    pair.thorough_if(shape != Shape::ALL[0])
}

fn living(shape: Shape, pairs: &mut Vec<Op>) {
    let pair = |name: &str, layout, a: Act, b: Act| pair(name, shape, layout, a, b);
    pairs.extend([
        pair("drop-drop", "S2 A3 B4 S2", drop_first, drop_first),
        pair("drop-drop-right-to-left", "S2 B3 A4 S2", drop_first, drop_first),
        pair("drop-drop-between-free", "S2 F4 A3 B5 F4 S2", drop_first, drop_first),
        pair("drop-drop-around-free", "S2 A3 F4 B5 S2", drop_first, drop_first),
        pair("drop-carve-from-its-left", "A3 S2", drop_first, carve_held),
        pair("drop-carve-from-its-right", "S2 A3 F9 S2", drop_first, carve_held),
        pair("carve-carve", "S2", carve_held, carve_held),
        pair("carve-drop-behind", "B3 S2", carve_held, drop_first),
        pair("exact-fit-drop-left", "S2 B4 F3 S2", carve_held, drop_first),
        pair("grow-drop-right", "S2 A3 F4 B3 S2", grow, drop_first),
        pair("shrink-drop-right", "S2 A5 B3 S2", shrink, drop_first),
        pair("free-many-drop", "S2 A3 B2 A4 F3 S2", free_many, drop_first),
        pair("allocate-many-carve", "S2", allocate_many, carve_held),
        pair("carve-allocate-many", "S2", carve_held, allocate_many),
        pair("drop-recover", "S2 F4 A3 F5 S2", drop_first, recover),
        pair("carve-recover", "S2", carve_held, recover),
        pair("drop-first", "S2 F4 A3 F5 S2", drop_first, first_allocation),
    ]);
}

/// Pairs with somebody dead between them, and recovery asleep or at work.
fn beside_the_dead(shape: Shape, pairs: &mut Vec<Op>) {
    let dead = |name: &str, layout, a: Act, b: Act, (victim, part): (Act, u64)| {
        let name = format!("{name}-{part}");
        pair(&name, shape, layout, a, b).after_death_of(victim, part)
    };
    let (beside, around) = ("S2 A3 C4 F5 S2", "S2 F3 C4 B5 S2");
    for part in [10, 40, 70] {
        let victim = (drop_first as Act, part);
        let thorough = shape != Shape::ALL[0] || part != 40;
        let rows = [
            dead("drop-recover-dead", beside, drop_first, recover, victim),
            dead("carve-recover-dead", "C3 S2", carve_held, recover, victim),
            dead("recover-drop", around, recover, drop_first, victim),
            dead("recover-recover", "S2 F3 C4 F5 S2", recover, recover, victim).thorough_if(true),
        ];
        pairs.extend(rows.map(|op| Op { thorough: op.thorough || thorough, ..op }));
    }
    // The dead one told of granules that it did not come to take, and the sleeper took them: what is
    // in limbo there is a living thread's, and recovery leaves it for later.
    for part in [13, 20] {
        let victim = (carve_held as Act, part);
        pairs.extend([
            dead("told-by-carver-recover", "S2", carve_held, recover, victim),
            dead("told-by-carver-carve", "S2", carve_held, carve_held, victim),
            dead("told-by-carver-in-recovery", "S2", recover, carve_held, victim).thorough_if(true),
        ]);
    }
    let crowded = dead("crowded-drop-recover", beside, drop_first, recover, (drop_first, 40));
    pairs.push(Op { crowded: true, ..crowded });
    for part in [25, 35] {
        let victim = (drop_first as Act, part);
        pairs.push(dead("told-by-absorber", "S2 C3 F4 S2", carve_held, recover, victim));
    }
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
        Op::new("walk", shape, "S2 F3 S4 F6 S2", walk).spoiled(),
        Op::new("walk-raw", shape, "S2 F3 S4 F6 S2", walk_raw).spoiled().strays(1),
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
    for (name, layout, act) in [
        ("carve", "S2", carve_held as Act),
        ("drop", "S2 F4 A3 F5 S2", drop_first),
        ("allocate-many", "S2", allocate_many),
        ("free-many", "S2 A3 A4 A2 S2 F3 A2 A3 F4 S2", free_many),
        ("shrink", "S2 A5 S2", shrink),
        ("grow", "S2 A3 F4 S2", grow),
    ] {
        let op = Op::new(&format!("crowded-{name}"), shape, layout, act);
        ops.push(Op { crowded: true, ..op });
    }
}

fn recoveries(shape: Shape, ops: &mut Vec<Op>) {
    let merge = "S2 F4 C3 F5 S2";
    for (name, layout, victim) in [
        ("recover-after-drop", merge, drop_first as Act),
        ("recover-after-carve", "S2", carve_held),
        ("recover-after-allocate-many", "S2", allocate_many),
        ("recover-after-free-many", "S2 C3 C4 C2 S2 F3 C2 C3 F4 S2", free_many),
    ] {
        for hundredths in [25, 60, 100] {
            let name = format!("{name}-{hundredths}");
            // One that died with limbo in its hands, and one with a block.
            let few = ["recover-after-drop-60", "recover-after-carve-100"].contains(&&*name);
            let thorough = !few || shape == Shape::Three;
            let op = Op::new(&name, shape, layout, recover).thorough_if(thorough);
            ops.push(op.after_death_of(victim, hundredths));
        }
    }
    ops.extend([
        Op::new("exhausted-recovers", shape, "|S2 C3 S2", allocate_two)
            .after_death_of(take_and_stay, 100),
        Op::new("attach-recovers", shape, merge, attach)
            .thorough_if(shape == Shape::Three)
            .after_death_of(drop_first, 60),
    ]);
}

fn lives(shape: Shape, ops: &mut Vec<Op>) {
    ops.extend([
        Op::new("attach", shape, "S2", attach),
        Op::new("open", shape, "S2", open_by_name).named().thorough_if(true),
        Op::new("detach", shape, "S2 A3 S2", detach),
        Op::new("detach-forgotten", shape, "S2 F4 A3 S2", detach_forgotten),
        Op::new("destroy", shape, "S2", destroy).named(),
        Op { kind: Kind::Making, ..Op::new("create", shape, "", create).named().thorough_if(true) },
        Op { kind: Kind::Making, ..Op::new("open-or-create", shape, "", open_or_create).named() },
    ]);
}
