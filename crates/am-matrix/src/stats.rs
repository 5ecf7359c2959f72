//! What a matrix can tell of itself: statistics, a check of every invariant, and a map.

use crate::error::SectorId;
use crate::matrix::Matrix;
use crate::part::Part;
use am_layout::counter::Event;
use am_layout::{Offset, Seen, State};
use am_tlsf::{CHUNK_SHIFT, Cell, Headers, Run};
use std::fmt;

/// Statistics of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One entry per sector there is, in the order in which they lie in the segment.
    pub sectors: Vec<SectorStats>,
}

/// Statistics of one sector. Sizes count whole blocks, headers included.
///
/// Exact when nobody operates; beside live traffic a picture that was true part by part. The
/// counters are the segment's, over all processes, and wrap at 2³².
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectorStats {
    /// Which sector.
    pub sector: SectorId,
    /// Size of the sector, metadata not counted.
    pub size_bytes: u64,
    /// Size of a granule.
    pub granule_bytes: u64,
    /// Metadata of the sector: granule words and index.
    pub metadata_bytes: u64,
    /// Bytes in free blocks.
    pub free_bytes: u64,
    /// Bytes of the longest free block.
    pub largest_free_bytes: u64,
    /// Bytes in blocks that somebody uses.
    pub allocated_bytes: u64,
    /// Bytes of those that are in blocks which belong to no participant.
    pub common_bytes: u64,
    /// Bytes in blocks that thread caches keep: nobody's, but not for everybody to take.
    pub cached_bytes: u64,
    /// Bytes in blocks on their way back.
    pub in_flight_bytes: u64,
    /// Number of free blocks: fragments.
    pub free_blocks: u64,
    /// Number of blocks that no guard owns.
    pub allocated_blocks: u64,
    /// Number of blocks that a guard owns.
    pub held_blocks: u64,
    /// Number of blocks that are held and belong to no participant.
    pub common_blocks: u64,
    /// Number of blocks in thread caches.
    pub cached_blocks: u64,
    /// Number of blocks and ranges on their way back.
    pub in_flight_blocks: u64,
    /// Compare-exchanges lost to another thread.
    pub lost_cas: u64,
    /// Hints that led to nothing.
    pub stale_hints: u64,
    /// Hints restored when they were looked at again.
    pub restored_hints: u64,
    /// Walks of the slow path.
    pub slow_walks: u64,
    /// Merges that the slow path made.
    pub healed_merges: u64,
    /// Allocations that failed as exhausted.
    pub exhausted: u64,
    /// Allocations that failed as contended.
    pub contended: u64,
    /// Ripples that left a merge to a later operation.
    pub ripples_cut: u64,
    /// Illegal words met.
    pub corrupt: u64,
    /// Ranges and blocks of the dead that were given back.
    pub recovered: u64,
}

impl SectorStats {
    /// Returns how scattered the free bytes are: 0 when they are one block, towards 1 when many.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        if self.free_bytes == 0 {
            return 0.0;
        }
        1.0 - self.largest_free_bytes as f64 / self.free_bytes as f64
    }

    /// Returns the number of blocks that somebody uses.
    #[must_use]
    pub fn live_blocks(&self) -> u64 {
        self.allocated_blocks + self.held_blocks + self.common_blocks
    }
}

/// A broken invariant. When nobody operates, a matrix has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Granules that belong to no block.
    Limbo {
        /// The sector.
        sector: SectorId,
        /// Where the granules begin, in bytes from the segment's base.
        at_bytes: u64,
        /// How many bytes.
        len_bytes: u64,
    },
    /// A block that is on its way back, with nobody operating.
    InFlight {
        /// The sector.
        sector: SectorId,
        /// The payload's offset.
        offset: Offset,
        /// The block's state.
        state: State,
    },
    /// Two free blocks side by side.
    Unmerged {
        /// The sector.
        sector: SectorId,
        /// The payload's offset of the right one.
        offset: Offset,
    },
    /// A free block that the index does not lead to.
    Unreachable {
        /// The sector.
        sector: SectorId,
        /// The payload's offset.
        offset: Offset,
    },
    /// A head word inside another block.
    StrayHead {
        /// The sector.
        sector: SectorId,
        /// Where the granule lies, in bytes from the segment's base.
        at_bytes: u64,
        /// What its word says.
        seen: Seen,
    },
    /// An entry of the directory that is in change with nobody changing names, holds no legal name, or
    /// names no common block.
    BadName {
        /// The entry, below 64.
        entry: u32,
        /// Where it says that its block's payload lies.
        offset: Offset,
    },
    /// A granule word with no legal value, or a length beyond the sector.
    Illegal {
        /// The sector.
        sector: SectorId,
        /// Where the granule lies, in bytes from the segment's base.
        at_bytes: u64,
        /// The word.
        word: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limbo { sector, at_bytes, len_bytes } => {
                write!(f, "{sector}: {len_bytes} bytes at {at_bytes:#x} belong to no block")
            }
            Self::InFlight { sector, offset, state } => {
                write!(f, "{sector}: the block at {offset} is still {state:?}")
            }
            Self::Unmerged { sector, offset } => {
                write!(f, "{sector}: the free block at {offset} has a free left neighbour")
            }
            Self::Unreachable { sector, offset } => {
                write!(f, "{sector}: no hint leads to the free block at {offset}")
            }
            Self::StrayHead { sector, at_bytes, seen } => {
                write!(f, "{sector}: inside a block, at {at_bytes:#x}, is {seen}")
            }
            Self::BadName { entry, offset } => {
                write!(f, "entry {entry} of the names is no name of a common block at {offset}")
            }
            Self::Illegal { sector, at_bytes, word } => {
                write!(f, "{sector}: the word of {at_bytes:#x} is {word:#010x}, which is illegal")
            }
        }
    }
}

impl Matrix {
    /// Walks every sector and adds up what is there.
    ///
    /// Takes time in proportion to the number of blocks; changes nothing and blocks nobody.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { sectors: self.parts().map(Part::stats).collect() }
    }

    /// Walks every sector and returns every violation of the invariants.
    ///
    /// With nobody operating, empty means sound. Beside live traffic, blocks in flight show as
    /// limbo, in flight, unmerged or unreachable.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        self.parts().flat_map(Part::check).chain(self.check_names()).collect()
    }

    /// Draws every sector as a line of `width` (1 ..= 1000) characters, one per equal stretch:
    /// `.` free, `+` partly used, `#` used or in a thread's cache, `~` in flight.
    #[must_use]
    pub fn heap_map(&self, width: usize) -> String {
        let width = width.clamp(1, 1000);
        self.parts().map(|part| format!("{:>6} {}\n", part.id, part.map(width))).collect()
    }
}

impl Part<'_> {
    fn bytes(&self, granules: u32) -> u64 {
        u64::from(granules) << self.geometry.granule_shift
    }

    fn stats(&self) -> SectorStats {
        let counter = |event| u64::from(self.sector.counted(event));
        let words = u64::from(self.geometry.index_words) + u64::from(self.geometry.granules);
        let mut stats = SectorStats {
            sector: self.id,
            size_bytes: self.geometry.size_bytes(),
            granule_bytes: self.geometry.granule_bytes(),
            metadata_bytes: words * 4,
            free_bytes: 0,
            largest_free_bytes: 0,
            allocated_bytes: 0,
            common_bytes: 0,
            cached_bytes: 0,
            in_flight_bytes: 0,
            free_blocks: 0,
            allocated_blocks: 0,
            held_blocks: 0,
            common_blocks: 0,
            cached_blocks: 0,
            in_flight_blocks: 0,
            lost_cas: counter(Event::LostCas),
            stale_hints: counter(Event::StaleHint),
            restored_hints: counter(Event::HintRestored),
            slow_walks: counter(Event::SlowWalk),
            healed_merges: counter(Event::HealedMerge),
            exhausted: counter(Event::Exhausted),
            contended: counter(Event::Contended),
            ripples_cut: counter(Event::RippleCut),
            corrupt: counter(Event::Corrupt),
            recovered: counter(Event::Recovered),
        };
        for run in self.sector.runs() {
            let bytes = self.bytes(run.len);
            let (blocks, sum) = match run.seen {
                Seen::Head(State::Free, _) => {
                    stats.largest_free_bytes = stats.largest_free_bytes.max(bytes);
                    (&mut stats.free_blocks, &mut stats.free_bytes)
                }
                Seen::Head(State::Allocated, _) => {
                    (&mut stats.allocated_blocks, &mut stats.allocated_bytes)
                }
                Seen::Head(State::Held, _) if self.sector.headers.owner(run.at) == 0 => {
                    stats.common_bytes += bytes;
                    (&mut stats.common_blocks, &mut stats.allocated_bytes)
                }
                Seen::Head(State::Held, _) => (&mut stats.held_blocks, &mut stats.allocated_bytes),
                Seen::Head(State::Cached, _) => (&mut stats.cached_blocks, &mut stats.cached_bytes),
                _ => (&mut stats.in_flight_blocks, &mut stats.in_flight_bytes),
            };
            *blocks += 1;
            *sum += bytes;
        }
        stats
    }

    fn check(&self) -> Vec<Violation> {
        let sector = self.id;
        let mut found = Vec::new();
        let mut left_free = false;
        for run in self.sector.runs() {
            let offset = self.offset_of(run.at);
            let at_bytes = self.geometry.data_bytes + self.bytes(run.at);
            match run.seen {
                Seen::Head(State::Free, len) => {
                    if left_free {
                        found.push(Violation::Unmerged { sector, offset });
                    }
                    if !self.sector.index().reaches(Cell::of(len), run.at >> CHUNK_SHIFT) {
                        found.push(Violation::Unreachable { sector, offset });
                    }
                }
                Seen::Head(State::Allocated | State::Held | State::Cached, _) => {}
                Seen::Head(state, _) => found.push(Violation::InFlight { sector, offset, state }),
                Seen::Interior | Seen::Tail(_) => {
                    let len_bytes = self.bytes(run.len);
                    found.push(Violation::Limbo { sector, at_bytes, len_bytes });
                }
                Seen::Illegal(word) => found.push(Violation::Illegal { sector, at_bytes, word }),
            }
            left_free = matches!(run.seen, Seen::Head(State::Free, _));
            found.extend(self.stray_heads(run));
        }
        found
    }

    /// Head words inside a block.
    fn stray_heads(&self, run: Run) -> impl Iterator<Item = Violation> {
        (run.at + 1..run.at.saturating_add(run.len)).filter_map(move |granule| {
            let seen = self.sector.seen_at(granule);
            let at_bytes = self.geometry.data_bytes + self.bytes(granule);
            let stray = !matches!(seen, Seen::Interior | Seen::Tail(_));
            stray.then_some(Violation::StrayHead { sector: self.id, at_bytes, seen })
        })
    }

    fn map(&self, width: usize) -> String {
        #[derive(Clone, Copy, Default)]
        struct Stretch {
            free: bool,
            used: bool,
            in_flight: bool,
        }
        let granules = u64::from(self.sector.len());
        let width = width as u64;
        let mut columns = vec![Stretch::default(); width as usize];
        for run in self.sector.runs() {
            let at = u64::from(run.at);
            let end = (at + u64::from(run.len)).min(granules);
            // Every column that the run reaches into, even where a granule spans several.
            let first = at * width / granules;
            let last = (end * width - 1) / granules;
            for stretch in &mut columns[first as usize..=last as usize] {
                match run.seen {
                    Seen::Head(State::Free, _) => stretch.free = true,
                    Seen::Head(State::Allocated | State::Held | State::Cached, _) => {
                        stretch.used = true;
                    }
                    _ => stretch.in_flight = true,
                }
            }
        }
        let draw = |stretch: &Stretch| match (stretch.in_flight, stretch.used, stretch.free) {
            (true, ..) => '~',
            (_, true, true) => '+',
            (_, true, false) => '#',
            (_, false, _) => '.',
        };
        columns.iter().map(draw).collect()
    }
}
