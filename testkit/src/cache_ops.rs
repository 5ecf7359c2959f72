//! The operations on thread caches that are interrupted at every instruction; see [`ops`](crate::ops).

use atomic_matrix::SectorId;

use crate::acts::{Act, carve_held, drop_first, recover};
use crate::cache_acts::{
    answer_pressure, flush, hit, hit_raw, park, park_all, park_and_detach, park_and_end_thread,
    park_first, park_raw, park_unshared, press, refill_line, refill_several, refill_short, trim,
    work,
};
use crate::ops::{Fate, Op, pair};
use crate::stage::Shape;

/// Blocks beside each other, apart, and beside free ones.
const SCATTERED: &str = "S2 A3 A4 A2 S2 F3 A2 A3 F4 S2";
/// More than a cache of the small sector keeps: runs of neighbours, and some by themselves.
const TOO_MUCH: &str = "S2 A3 A4 A2 S2 A5 S2 A50 A60 S2 A3 A6 F3 A4 S2 A4 S2 A70 A80 S2 A90 S2";
/// As much, with another one's block beside.
const TOO_MUCH_BESIDE: &str = "S2 A3 A4 B2 A5 S2 A50 A60 S2 A3 A6 F3 A4 S2 A4 S2 A70 A80 S2 A90 S2";

/// Returns the rows of the table.
pub(crate) fn all(shape: Shape, ops: &mut Vec<Op>) {
    let small = shape == Shape::Only(SectorId::Small);
    ops.extend([
        Op::new("cache-hit", shape, "S2", hit),
        Op::new("cache-hit-raw", shape, "S2", hit_raw).strays(1),
        Op::new("cache-park", shape, "S2 A3 S2", park),
        Op::new("cache-park-first", shape, "S2 A3 F4 S2", park_first),
        Op::new("cache-park-raw", shape, "S2 A4 S2", park_raw).fate(Fate::Consumed),
        Op::new("cache-park-unshared", shape, "S2 A4 S2", park_unshared).fate(Fate::Consumed),
        Op::new("cache-refill-line", shape, "S2", refill_line),
        Op::new("cache-refill-several", shape, "S2", refill_several),
        // Blocks are there, and more are asked for.
        Op::new("cache-refill-short", shape, "|S2 F13 S2", refill_short).thorough_if(!small),
    ]);
    // They look at every magazine, which takes many steps and is the same for every shape.
    let long = [
        Op::new("cache-trim", shape, SCATTERED, trim),
        Op::new("cache-pressure", shape, SCATTERED, answer_pressure),
        Op::new("cache-press", shape, "|S2 A3 A4 S2 A2 S2", press),
        Op::new("cache-thread-exit", shape, SCATTERED, park_and_end_thread),
    ];
    ops.extend(long.map(|op| op.thorough_if(!small)));
    let detach = Op::new("cache-detach", shape, SCATTERED, park_and_detach);
    ops.push(detach.thorough_if(true));
    if small {
        ops.push(Op::new("cache-flush", shape, TOO_MUCH, flush));
    }
    recoveries(shape, ops);
}

/// Recovery after the death of somebody with parked blocks, or in the middle of passing some.
fn recoveries(shape: Shape, ops: &mut Vec<Op>) {
    for (name, layout, victim, parts) in [
        ("cache-recover-parked", "S2 F3 C4 C2 S2 C3 F4 S2 C2 S2", park_all as Act, &[50, 100][..]),
        ("cache-recover-trim", "S2 C3 C4 C2 S2 F3 C2 C3 F4 S2", trim, &[20, 60]),
        ("cache-recover-refill", "S2", refill_several, &[20, 60, 100]),
    ] {
        for &part in parts {
            let op = Op::new(&format!("{name}-{part}"), shape, layout, recover);
            // One that left blocks, and one that left limbo.
            let few = ["cache-recover-parked-100", "cache-recover-trim-60"];
            let thorough = shape == Shape::Three || !few.iter().any(|few| op.name.ends_with(few));
            ops.push(op.thorough_if(thorough).after_death_of(victim, part));
        }
    }
}

/// Returns the pairs: refill, flush or trim asleep, and somebody at work beside it.
pub(crate) fn pairs(shape: Shape, pairs: &mut Vec<Op>) {
    let pair =
        |name: &str, layout, a: Act, b: Act| pair(&format!("cache-{name}"), shape, layout, a, b);
    pairs.extend([
        pair("refill-carve", "S2", refill_several, carve_held),
        pair("refill-work", "S2", refill_several, work),
        pair("refill-drop-left", "S2 B4 F40 S2", refill_line, drop_first),
        pair("refill-recover", "S2", refill_line, recover),
        pair("flush-work", TOO_MUCH, flush, work),
        pair("flush-drop-beside", TOO_MUCH_BESIDE, flush, drop_first),
        pair("trim-carve-from-its-left", "A3 A4 S2", trim, carve_held),
        pair("trim-drop-between", "S2 A3 B4 A2 S2", trim, drop_first),
        pair("trim-trim", "S2 A3 B4 A2 B3 S2", trim, trim),
        pair("trim-recover", "S2 A3 A4 F3 S2", trim, recover),
        pair("park-work", "S2 A3 S2", park, work),
        pair("park-raw-recover", "S2 A3 S2", park_raw, recover).fate(Fate::Consumed),
        pair("carve-trim", "B3 S2", carve_held, trim),
    ]);
    // Their owner is dead, and somebody's free neighbours change meanwhile.
    let parked = pair("recover-trim", "S2 F3 C4 B5 C2 S2", recover, trim);
    pairs.push(parked.thorough_if(true).after_death_of(park_all, 100));
    let trimmed = pair("trim-recover-dead", "S2 A3 C4 C2 A5 S2", trim, recover);
    pairs.push(trimmed.after_death_of(trim, 40));
}
