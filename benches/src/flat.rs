//! Is the cost of an operation flat? Against the segment's size, and against the live blocks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::value_parser;
use indicatif::ProgressBar;
use serde::Serialize;
use uuid::Uuid;

use crate::heap::Heap;
use crate::machine::Machine;
use crate::peers::mimalloc::Mimalloc;
use crate::peers::ours::Ours;
use crate::peers::slots::Slots;
use crate::random::Random;
use crate::report::{create_json, markdown_table, write_json};
use crate::stats::{Spread, figure};
use crate::workload::{Client, ENDURANCE_LIVE_MAX, Endurance, Load, Tally};

const MIB: usize = 1 << 20;
/// Sizes of the segment, in bytes; the largest stays sparse.
const SEGMENTS: [usize; 6] = [MIB, 16 * MIB, 50 * MIB, 256 * MIB, 1024 * MIB, 8192 * MIB];
/// Live blocks in the steady state.
const LIVE: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
/// Segment bytes per live block: payload (288 on average), header, rounding, and as much again free.
const SEGMENT_BYTES_PER_BLOCK: usize = 1024;
/// The whole segment for small blocks: one sector, so that its size is the segment's.
const SPLIT: (u8, u8) = (100, 0);
/// Turns between two looks at the clock.
const TURNS_PER_LOOK: u64 = 1024;
/// Sizes of blocks, as in the endurance workload: 32..544 bytes.
const SIZE_MIN: usize = 32;
const SIZE_SPAN: usize = 512;

/// Options of `peers flat`.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds; every heap is measured once per point and round
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of counting per heap, point and round
    #[arg(long, default_value_t = 0.3, value_parser = crate::parse_seconds)]
    seconds: f64,
    /// Write all raw figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One measured figure.
#[derive(Serialize)]
struct Point {
    round: u32,
    segment_bytes: usize,
    live_blocks: usize,
    heap: Kind,
    ns_per_op: f64,
    tally: Tally,
    audit: Vec<String>,
}

/// The file of raw figures.
#[derive(Serialize)]
struct Raw<'r> {
    machine: &'r Machine,
    points: &'r [Point],
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Ours,
    Mimalloc,
    Slots,
}

const KINDS: [Kind; 3] = [Kind::Ours, Kind::Mimalloc, Kind::Slots];

/// A place on one of the two axes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment_bytes: usize,
    /// `None`: the endurance workload; else the steady state with so many blocks.
    live: Option<usize>,
}

/// Measures both axes, prints the tables and the verdict.
///
/// # Errors
/// When a heap cannot be created or the file of raw figures cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    let sizes = SEGMENTS.map(|segment_bytes| Place { segment_bytes, live: None });
    let counts = LIVE.map(|live| Place {
        segment_bytes: (live * SEGMENT_BYTES_PER_BLOCK).next_multiple_of(16 * MIB),
        live: Some(live),
    });
    let places: Vec<Place> = sizes.into_iter().chain(counts).collect();
    let machine = Machine::detect();
    let json = create_json(options.json.as_deref())?;
    let points = measure(options, &places)?;
    machine.print();
    print_sizes(&points, &sizes);
    print_counts(&points, &counts);
    write_json(json, &Raw { machine: &machine, points: &points })?;
    let counts = format!("points={} rounds={}", places.len(), options.rounds);
    Ok(crate::verdict(&faults(&points), &counts))
}

fn measure(options: &Options, places: &[Place]) -> Result<Vec<Point>> {
    let bar = ProgressBar::new((options.rounds as usize * places.len() * KINDS.len()) as u64);
    let mut random = Random::new(1);
    let mut points = Vec::new();
    for round in 1..=options.rounds {
        for &place in places {
            let mut order = KINDS;
            random.shuffle(&mut order);
            for kind in order {
                points.push(measure_one(round, place, kind, options.seconds)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(points)
}

fn measure_one(round: u32, place: Place, kind: Kind, seconds: f64) -> Result<Point> {
    let Place { segment_bytes, live } = place;
    let id = Uuid::new_v4();
    let (tally, ns_per_op, audit) = match kind {
        Kind::Ours => timed(&Ours::with_split(id, segment_bytes, SPLIT)?, live, seconds),
        Kind::Mimalloc => timed(&Mimalloc::create(id, segment_bytes)?, live, seconds),
        // Only as many slots as blocks live at a time: its memory stays the smallest possible.
        Kind::Slots => {
            timed(&Slots::with_count(live.unwrap_or(ENDURANCE_LIVE_MAX))?, live, seconds)
        }
    };
    let live_blocks = live.unwrap_or(ENDURANCE_LIVE_MAX);
    Ok(Point { round, segment_bytes, live_blocks, heap: kind, ns_per_op, tally, audit })
}

/// Runs the loop on `heap`; returns the counts, ns per operation, and the heap's own check.
fn timed<H: Heap>(heap: &H, live: Option<usize>, seconds: f64) -> (Tally, f64, Vec<String>) {
    let mut client = Client::<H, false>::new(heap, 0, 1);
    let ns_per_op = match live {
        None => {
            let mut load = Endurance::new(0);
            clocked(&mut client, seconds, |client| load.step(client))
        }
        Some(live) => {
            let mut random = Random::new(1);
            let size = |random: &mut Random| SIZE_MIN + random.below(SIZE_SPAN);
            for _ in 0..live {
                client.keep(size(&mut random));
            }
            let mut replace = |client: &mut Client<'_, H, false>| {
                if !client.live.is_empty() {
                    let victim = random.below(client.live.len());
                    let block = client.live.swap_remove(victim);
                    client.release(block);
                }
                client.keep(size(&mut random));
            };
            // Every block is replaced once on average before counting begins.
            for _ in 0..live {
                replace(&mut client);
            }
            clocked(&mut client, seconds, replace)
        }
    };
    client.drain();
    (client.tally, ns_per_op, heap.audit())
}

/// Repeats `turn` for a tenth of `seconds` uncounted, then for `seconds`; returns ns per operation.
fn clocked<H: Heap>(
    client: &mut Client<'_, H, false>,
    seconds: f64,
    mut turn: impl FnMut(&mut Client<'_, H, false>),
) -> f64 {
    let mut turn_for = |client: &mut Client<'_, H, false>, limit: Duration| {
        let start = Instant::now();
        while start.elapsed() < limit {
            for _ in 0..TURNS_PER_LOOK {
                turn(client);
            }
        }
        start.elapsed()
    };
    turn_for(client, Duration::from_secs_f64(seconds / 10.0));
    let before = client.tally;
    let elapsed = turn_for(client, Duration::from_secs_f64(seconds));
    let ops = (client.tally.allocs - before.allocs) + (client.tally.frees - before.frees);
    elapsed.as_nanos() as f64 / ops as f64
}

fn print_sizes(points: &[Point], places: &[Place]) {
    println!(
        "\nSegment size: endurance workload, one thread, at most {ENDURANCE_LIVE_MAX} live blocks. \
         ns per operation, median [min–max].\n"
    );
    print_table(points, places, "segment MiB", |place| place.segment_bytes / MIB);
}

fn print_counts(points: &[Point], places: &[Place]) {
    println!(
        "\nLive blocks: steady state, one thread, a block chosen uniformly is freed and another of \
         32–543 B allocated. ns per operation, median [min–max].\nThe loop touches random memory, so \
         its cache and TLB misses are part of every figure: `slots` is the same loop over fixed slots, \
         with no allocator in it; `mimalloc` the same over a private heap.\n"
    );
    print_table(points, places, "live blocks", |place| place.live.unwrap_or(0));
}

fn print_table(points: &[Point], places: &[Place], axis: &str, value: impl Fn(Place) -> usize) {
    let mut table = markdown_table(&[axis, "AtomicMatrix", "mimalloc", "slots", "failed"], 0);
    for &place in places {
        let mut row = vec![value(place).to_string()];
        row.extend(KINDS.map(|kind| cell(points, place, kind)));
        let ours = at(points, place, Kind::Ours);
        let failed: u64 = ours.map(|p| p.tally.failed_allocs + p.tally.failed_frees).sum();
        row.push(failed.to_string());
        table.add_row(row);
    }
    println!("{table}");
}

fn at(points: &[Point], place: Place, kind: Kind) -> impl Iterator<Item = &Point> {
    let live_blocks = place.live.unwrap_or(ENDURANCE_LIVE_MAX);
    points.iter().filter(move |point| {
        point.heap == kind
            && point.segment_bytes == place.segment_bytes
            && point.live_blocks == live_blocks
    })
}

fn cell(points: &[Point], place: Place, kind: Kind) -> String {
    match Spread::of(at(points, place, kind).map(|point| point.ns_per_op)) {
        Some(ns) => format!("{} [{}]", figure(ns.median), ns.range()),
        None => "–".to_owned(),
    }
}

/// Lists refusals and broken invariants of AtomicMatrix.
fn faults(points: &[Point]) -> Vec<String> {
    let mut faults = Vec::new();
    for point in points.iter().filter(|point| point.heap == Kind::Ours) {
        let place = format!("{} MiB, {} live", point.segment_bytes / MIB, point.live_blocks);
        let refused = point.tally.failed_allocs + point.tally.failed_frees;
        if refused > 0 {
            faults.push(format!("{place}: {refused} calls refused"));
        }
        faults.extend(point.audit.iter().map(|fault| format!("{place}: {fault}")));
    }
    faults
}
