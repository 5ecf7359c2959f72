//! Sectors on NUMA nodes.

use crate::handle::Matrix;
use am_layout::SectorGeometry;
use am_matrix::{Geometry, SectorId};
use am_shm::{Binding, Bound, Error, Nodes, Segment};
use std::ops::Range;

/// A sector's NUMA node: what was asked for, what the kernel answered, and where the pages lie.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectorNodes {
    /// The sector.
    pub sector: SectorId,
    /// The node that this handle asked for ([`Builder::numa`](crate::Builder::numa)).
    pub asked: Option<u32>,
    /// What the kernel answered: for the sector's words, and for its blocks. Empty when nothing was
    /// asked for.
    pub bound: Vec<Bound>,
    /// Where the pages of the sector's blocks lie.
    pub nodes: Nodes,
}

/// The nodes that sectors are to be bound to; one entry for each sector at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes(Vec<(SectorId, u32)>);

/// What came of the wishes, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome(Vec<(SectorId, u32, Vec<Bound>)>);

/// Ranges that one wish becomes.
const RANGES: usize = 2;

impl Wishes {
    pub(crate) fn set(&mut self, sector: SectorId, node: u32) {
        self.0.retain(|(other, _)| *other != sector);
        self.0.push((sector, node));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first sector that a node is wished for and that is absent.
    pub(crate) fn absent(&self, geometry: &Geometry) -> Option<SectorId> {
        let is_absent = |sector: &SectorId| of(geometry, *sector).granules == 0;
        self.0.iter().map(|(sector, _)| *sector).find(is_absent)
    }

    /// What the formatter binds: [`RANGES`] ranges for each wish, in order.
    pub(crate) fn bindings(&self, geometry: &Geometry) -> Vec<Binding> {
        let bind = |&(sector, node): &(SectorId, u32)| {
            ranges(of(geometry, sector)).map(|range| Binding { range, node })
        };
        self.0.iter().flat_map(bind).collect()
    }

    /// What came of the wishes in a segment that was formatted with their bindings.
    pub(crate) fn formatted(&self, segment: &Segment) -> Outcome {
        let answers = segment.bound().chunks(RANGES).map(<[Bound]>::to_vec);
        Outcome(self.0.iter().zip(answers).map(|(&(s, node), bound)| (s, node, bound)).collect())
    }

    /// Binds what exists already.
    pub(crate) fn bind(&self, segment: &Segment, geometry: &Geometry) -> Result<Outcome, Error> {
        let bind = |&(sector, node): &(SectorId, u32)| {
            let bound = ranges(of(geometry, sector)).map(|range| segment.bind(range, node));
            Ok((sector, node, bound.into_iter().collect::<Result<_, Error>>()?))
        };
        self.0.iter().map(bind).collect::<Result<_, Error>>().map(Outcome)
    }
}

impl Matrix {
    /// Tells for each sector on which NUMA nodes its blocks' pages lie, and what came of
    /// [`Builder::numa`](crate::Builder::numa); sectors that are absent are left out.
    ///
    /// Pages that this process has not touched are not told about: see
    /// [`Builder::prefault`](crate::Builder::prefault). Takes a system call for every 4096 pages.
    ///
    /// # Errors
    /// [`SegmentError::Syscall`](crate::SegmentError::Syscall) when the kernel does not tell.
    pub fn nodes(&self) -> Result<Vec<SectorNodes>, Error> {
        let present = |sector: &SectorId| of(self.geometry(), *sector).granules > 0;
        let report = |sector: SectorId| {
            let [_, blocks] = ranges(of(self.geometry(), sector));
            let found = self.outcome().0.iter().find(|(other, ..)| *other == sector);
            Ok(SectorNodes {
                sector,
                asked: found.map(|&(_, node, _)| node),
                bound: found.map(|(_, _, bound)| bound.clone()).unwrap_or_default(),
                nodes: self.segment().nodes(blocks)?,
            })
        };
        SectorId::ALL.into_iter().filter(present).map(report).collect()
    }
}

fn of(geometry: &Geometry, sector: SectorId) -> &SectorGeometry {
    &geometry.sectors[sector as usize]
}

/// The bytes of a sector's index and granule words, and those of its blocks.
fn ranges(sector: &SectorGeometry) -> [Range<u64>; RANGES] {
    let words_end = sector.words_bytes + u64::from(sector.granules) * 4;
    [sector.index_bytes..words_end, sector.data_bytes..sector.end_bytes()]
}
