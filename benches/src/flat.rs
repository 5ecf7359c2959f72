//! `flat`: is the cost of an operation flat? Against the segment's size, and against the live blocks.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Job, Reading, Task};
use crate::client::{Client, Tally};
use crate::heap::{Access, Heap, Sectors, Setup};
use crate::peers::Peer;
use crate::random::Random;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, Row, Seen, Sheet};
use crate::workload::{ENDURANCE_LIVE_MAX, ENDURANCE_SIZES, Endurance, Load};

const MIB: usize = 1 << 20;
/// Sizes of the segment, in MiB; the larger ones stay sparse.
const SEGMENTS_MIB: [usize; 7] = [1, 16, 64, 256, 1024, 4096, 16384];
/// The largest segment of a quick run, in MiB.
const QUICK_MIB_MAX: usize = 1024;
/// Live blocks in the steady state, as powers of ten.
const LIVE_EXPONENTS: std::ops::RangeInclusive<u32> = 2..=7;
/// The most live blocks of a quick run, as a power of ten.
const QUICK_EXPONENT_MAX: u32 = 4;
/// Segment bytes per live block: payload (288 on average), header, rounding, and as much again free.
const SEGMENT_BYTES_PER_BLOCK: usize = 1024;
/// Memory that one live block takes, in bytes: as a slot, and in the client's list.
const RESIDENT_BYTES_PER_BLOCK: u64 = 576 + 64;
/// Turns between two looks at the clock.
const TURNS_PER_LOOK: u64 = 1024;
/// Who takes part.
const PEERS: [Peer; 4] = [Peer::Ours, Peer::OursOffset, Peer::Mimalloc, Peer::Slots];

/// One thread on one heap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Steady {
    segment_bytes: usize,
    /// `None`: the endurance workload; else the steady state with so many blocks.
    live: Option<usize>,
    seconds: f64,
}

impl Job for Steady {
    /// Figures: `ns` per operation, and those of a tally.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let heap = H::create(&Setup {
            id,
            segment_bytes: self.segment_bytes,
            request_bytes_max: ENDURANCE_SIZES.end - 1,
            // One sector, so that its size is the segment's.
            sectors: Sectors::Small,
            thread_caches: true,
        })?;
        let (tally, ns) = self.timed(Client::new(heap.enter()?, 0, 1));
        let mut reading = Reading::of_tally(&tally);
        reading.set("ns", ns);
        reading.faults.extend(heap.audit());
        Ok(reading)
    }
}

impl Steady {
    /// Returns how long it may take, in seconds.
    pub fn limit_s(&self) -> f64 {
        // Filling, one turnover and draining, a microsecond each and more than that to spare.
        20.0 + 2.0 * self.seconds + self.live.unwrap_or(0) as f64 * 10e-6
    }

    /// Runs the loop; returns the counts and ns per operation.
    fn timed(&self, mut client: Client<impl Access, false>) -> (Tally, f64) {
        let ns = match self.live {
            None => {
                let mut load = Endurance::new(0);
                clocked(&mut client, self.seconds, |client| load.step(client))
            }
            Some(live) => {
                let mut random = Random::new(1);
                let size = |random: &mut Random| {
                    ENDURANCE_SIZES.start + random.below(ENDURANCE_SIZES.len())
                };
                for _ in 0..live {
                    client.keep(size(&mut random));
                }
                let mut replace = |client: &mut Client<_, false>| {
                    if !client.live.is_empty() {
                        client.drop_one(random.below(client.live.len()));
                    }
                    client.keep(size(&mut random));
                };
                // Every block is replaced once on average before counting begins.
                for _ in 0..live {
                    replace(&mut client);
                }
                clocked(&mut client, self.seconds, replace)
            }
        };
        client.drain();
        (client.tally, ns)
    }
}

/// Repeats `turn` for a tenth of `seconds` uncounted, then for `seconds`; returns ns per operation.
fn clocked<A: Access>(
    client: &mut Client<A, false>,
    seconds: f64,
    mut turn: impl FnMut(&mut Client<A, false>),
) -> f64 {
    let mut turn_for = |client: &mut Client<A, false>, limit: Duration| {
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

/// Measures both axes.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common) -> Result<Verdict> {
    let seconds = common.seconds();
    let mut cells = Vec::new();
    let mut add = |group: String, segment_bytes: usize, live: Option<usize>| {
        for peer in common.chosen(&PEERS) {
            let task = Task::Steady(Steady { segment_bytes, live, seconds });
            cells.push(Cell::new(group.clone(), peer, task));
        }
    };
    let mut left_out = Vec::new();
    for mib in SEGMENTS_MIB {
        if common.quick && mib > QUICK_MIB_MAX {
            left_out.push(format!("{mib} MiB (quick)"));
            continue;
        }
        add(format!("{mib} MiB"), mib * MIB, None);
    }
    let room = memory_bytes();
    for exponent in LIVE_EXPONENTS {
        let live = 10usize.pow(exponent);
        if common.quick && exponent > QUICK_EXPONENT_MAX {
            left_out.push(format!("10^{exponent} blocks (quick)"));
        } else if live as u64 * RESIDENT_BYTES_PER_BLOCK > room / 2 {
            left_out.push(format!(
                "10^{exponent} blocks (more than half of the {} MiB free)",
                room >> 20
            ));
        } else {
            let segment_bytes = (live * SEGMENT_BYTES_PER_BLOCK).next_multiple_of(16 * MIB);
            add(format!("10^{exponent} blocks"), segment_bytes, Some(live));
        }
    }
    let mut notes = vec![MISSES_NOTE.to_owned()];
    if !left_out.is_empty() {
        notes.push(format!("Left out: {}", left_out.join(", ")));
    }
    notes.extend(common.left_out(|peer| {
        (!PEERS.contains(&peer)).then_some("what grows is the matrix; two bounds are enough")
    }));
    run::run("flat", common, cells, notes, |seen| sheets(seen).into())
}

/// Says how the loop's own misses are told from the allocator's.
const MISSES_NOTE: &str = "With many live blocks the loop itself misses cache and TLB: it picks an entry \
    of its list at random, and writes the first line of the payload. The third table takes that out: \
    `slots` is the same loop, list and payloads, with a stack of free places per thread for an \
    allocator, and its ns/op are subtracted round by round. What stays is what an allocator adds, \
    with the misses on its own words and headers. A little of that is missing: slots lie 576 B apart, \
    an allocator's blocks closer together.";

/// Returns how much memory is free, in bytes: the kernel's word, and that of the file system that
/// segments lie in. 0 where neither can be had.
fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let shm = statvfs("/dev/shm").map(|fs| fs.blocks_available() * fs.fragment_size());
    (kib.unwrap_or(0) << 10).min(shm.unwrap_or(0))
}

fn sheets(seen: &[Seen<'_>]) -> [Sheet; 3] {
    let rows_of = |unit_of_group: &str| -> Vec<Row> {
        let here = seen.iter().filter(|seen| seen.cell.group.ends_with(unit_of_group));
        here.map(|seen| seen.row("ns", Vec::new())).collect()
    };
    let sheet = |title: &str, axis: &str, rows: Vec<Row>| Sheet {
        title: title.to_owned(),
        axis: axis.to_owned(),
        unit: "ns/op".to_owned(),
        more_is_better: false,
        chart: Chart::Lines,
        columns: Vec::new(),
        rows,
    };
    let sizes = format!(
        "Segment size: endurance workload, one thread, at most {ENDURANCE_LIVE_MAX} live blocks, one \
         sector"
    );
    let counts = "Live blocks: steady state, one thread, a block chosen uniformly is freed and another \
                  of 32–543 B allocated. The loop touches random memory: its cache and TLB misses are \
                  part of every figure";
    let above = "Live blocks, the loop taken out: ns/op above those of `slots` in the same round";
    let live = rows_of("blocks");
    let above_slots = above_slots(&live);
    [
        sheet(&sizes, "segment", rows_of("MiB")),
        sheet(counts, "live", live),
        sheet(above, "live", above_slots),
    ]
}

/// Subtracts the row of the slots from each other row of its group, round by round.
fn above_slots(rows: &[Row]) -> Vec<Row> {
    let slots = Peer::Slots.title();
    let is_slots = |row: &&Row| row.label == slots;
    let above = |row: &Row| {
        let loop_alone = rows.iter().filter(is_slots).find(|slots| slots.group == row.group)?;
        let rounds = row.rounds.iter().filter_map(|&(round, ns)| {
            let (_, loop_ns) = loop_alone.rounds.iter().find(|(theirs, _)| *theirs == round)?;
            Some((round, ns - loop_ns))
        });
        Some(Row { rounds: rounds.collect(), ..row.clone() })
    };
    rows.iter().filter(|row| !is_slots(row)).filter_map(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_slots_subtracts_the_same_round_of_the_same_group() {
        let row = |group: &str, label: String, rounds: &[(u32, f64)]| Row {
            group: group.to_owned(),
            label,
            rounds: rounds.to_vec(),
            remark: None,
            extra: Vec::new(),
        };
        let rows = [
            row("a", Peer::Ours.title(), &[(1, 30.0), (2, 31.0)]),
            row("a", Peer::Slots.title(), &[(1, 10.0), (3, 12.0)]),
            row("b", Peer::Ours.title(), &[(1, 70.0)]),
        ];
        let above = above_slots(&rows);
        // Group b has no slots, and round 2 of group a neither.
        assert_eq!(above.len(), 1);
        assert_eq!(above[0].rounds, [(1, 20.0)]);
    }
}
