//! `overhead`: how many bytes of memory does a byte of payload take?

use std::fs;
use std::hint::black_box;
use std::ptr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Job, Reading, Task};
use crate::heap::{Access, Heap, Sectors, Setup};
use crate::peers::Peer;
use crate::random::Random;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, Sheet};
use crate::workload::ENDURANCE_SIZES;

const MIB: usize = 1 << 20;
/// Sizes of blocks, in bytes.
const SIZES: [usize; 5] = [32, 64, 256, 1024, 4096];

/// Fills a heap with blocks of one size, or of the endurance workload's sizes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fill {
    sectors: Sectors,
    /// Size of the segment; for private heaps, of all payload together.
    bytes: usize,
    /// `None`: the endurance workload's sizes.
    block_bytes: Option<usize>,
}

impl Job for Fill {
    /// Figures: `bytes_per_byte`: of a segment, its size by the payload that it took before it
    /// refused; of a private heap, the growth of resident memory by payload, all of it written.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading> {
        let request_bytes_max = self.block_bytes.unwrap_or(ENDURANCE_SIZES.end - 1);
        let (segment_bytes, sectors) = (self.bytes, self.sectors);
        let thread_caches = true;
        let setup = Setup { id, segment_bytes, request_bytes_max, sectors, thread_caches };
        let heap = H::create(&setup)?;
        let access = heap.enter()?;
        let mut random = Random::new(1);
        let mut next_bytes = || match self.block_bytes {
            Some(bytes) => bytes,
            None => ENDURANCE_SIZES.start + random.below(ENDURANCE_SIZES.len()),
        };
        let before = resident_bytes()?;
        let mut payload_bytes = 0;
        while H::FIXED || payload_bytes < self.bytes {
            let bytes = next_bytes();
            let Some(mut block) = access.alloc(bytes) else { break };
            if !H::FIXED {
                let payload = access.payload(&mut block).as_ptr();
                // SAFETY: the block is ours, and `bytes` long.
                unsafe { ptr::write_bytes(payload, 1, bytes) };
                // The compiler knows malloc, and leaves out one whose block nobody looks at.
                black_box(payload);
            }
            // Kept until the process ends: a list of blocks would count as memory.
            std::mem::forget(block);
            payload_bytes += bytes;
        }
        let used = if H::FIXED { self.bytes } else { resident_bytes()?.saturating_sub(before) };
        let mut reading = Reading::default();
        reading.set("bytes_per_byte", used as f64 / payload_bytes as f64);
        Ok(reading)
    }
}

/// Returns the resident memory of this process, in bytes.
fn resident_bytes() -> Result<usize> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    Ok(kib.context("the kernel does not say how much memory is resident")? << 10)
}

/// Returns why `peer` does not take part, if it does not.
fn excludes(peer: Peer) -> Option<&'static str> {
    match peer {
        Peer::Ours | Peer::OursUnshared | Peer::OursCache => Some("the raw offsets stand for it"),
        Peer::Slots => Some("no allocator"),
        other => other.excluded_from_sizes(),
    }
}

/// Measures the peers.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common) -> Result<Verdict> {
    let bytes = if common.quick { 8 * MIB } else { 64 * MIB };
    let sizes = SIZES.map(Some).into_iter().chain([None]);
    let mut cells = Vec::new();
    for block_bytes in sizes {
        let group = block_bytes.map_or("endurance mix".to_owned(), |bytes| format!("{bytes} B"));
        let fill = |sectors| Task::Fill(Fill { sectors, bytes, block_bytes });
        let ours = [
            (Sectors::Small, "AtomicMatrix, small sector"),
            (Sectors::Medium, "AtomicMatrix, medium sector"),
            (Sectors::Large, "AtomicMatrix, large sector"),
        ];
        for (sectors, label) in ours {
            let cell = Cell::new(&group, Peer::OursOffset, fill(sectors));
            cells.push(Cell { label: label.to_owned(), ..cell });
        }
        let others = common.chosen(&Peer::ALL).into_iter().filter(|peer| !peer.is_ours());
        for peer in others.filter(|peer| excludes(*peer).is_none()) {
            cells.push(Cell::new(&group, peer, fill(Sectors::Usual)));
        }
    }
    let title = format!(
        "Bytes of memory per byte of payload. Segments (AtomicMatrix, Boost, rlsf, talc): {} MiB, \
         filled until they refuse. Private heaps: growth of resident memory over as much payload",
        bytes / MIB
    );
    let notes = common.left_out(excludes).into_iter().collect();
    run::run("overhead", common, cells, notes, |seen| {
        vec![Sheet {
            title,
            axis: "block".to_owned(),
            unit: "bytes per byte".to_owned(),
            more_is_better: false,
            chart: Chart::Lines,
            columns: Vec::new(),
            rows: seen.iter().map(|seen| seen.row("bytes_per_byte", Vec::new())).collect(),
        }]
    })
}
