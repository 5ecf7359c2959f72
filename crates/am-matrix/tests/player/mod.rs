//! Plays operations on a matrix and on one oracle per sector, and compares after each.
//!
//! To the oracle a block that a thread cache keeps is free. It is, to the player's one thread; but it does not
//! merge, so what is kept is given back before the two are compared to the last block.

use crate::common::{assert_sound, assert_whole, pattern, payload};
use crate::ops::{Op, Oracle};
use am_layout::{SECTORS, SectorGeometry};
use am_matrix::{Block, Error, Matrix, Offset, SectorId, Seen, Spill, State};
use std::alloc::Layout;

/// Who can free a live block.
enum Owner<'m> {
    Guard(Block<'m>),
    Offset(Offset),
}

struct Live<'m> {
    owner: Owner<'m>,
    bytes: usize,
    stamp: u64,
}

/// A block's place: sector and granule.
type At = (usize, u32);

/// Steps between two of which the thread's caches give back everything.
const TRIM_EVERY: u32 = 16;

pub struct Player<'m> {
    matrix: &'m Matrix,
    spill: Spill,
    cached: bool,
    sectors: [Oracle<Live<'m>>; SECTORS],
    freed_last: Option<Offset>,
    stamps: u64,
    turns: u32,
    audit_every: u32,
    exhausted: [u64; SECTORS],
}

impl<'m> Player<'m> {
    pub fn new(matrix: &'m Matrix, spill: Spill, cached: bool) -> Self {
        // An audit reads every granule.
        let granules: u32 = matrix.geometry().sectors.iter().map(|sector| sector.granules).sum();
        Self {
            matrix,
            spill,
            cached,
            sectors: matrix.geometry().sectors.map(|sector| Oracle::new(sector.granules)),
            freed_last: None,
            stamps: 0,
            turns: 0,
            audit_every: 1 + granules / 2_000,
            exhausted: [0; SECTORS],
        }
    }

    /// Plays one step and looks at everything, if it is small.
    pub fn play(&mut self, op: &Op) {
        match *op {
            Op::Allocate { size, align_log, held } => {
                self.allocate(self.bytes(size), 1 << align_log, held);
            }
            Op::Free { which } => self.free(which),
            Op::AckRaw { which } => {
                let at = self.pick(which);
                at.into_iter().for_each(|at| self.forged_ack(self.offset_of(at)));
            }
            Op::DoubleAck => self.freed_last.into_iter().for_each(|at| self.forged_ack(at)),
            Op::ForgedAck { place } => {
                let units = (self.matrix.geometry().size_bytes / 32) as u32;
                self.forged_ack(Offset::from_raw(place % (units + units / 8)));
            }
            Op::Give { which } => self.give(which),
            Op::Take { which } => self.take(which),
            Op::Grow { which, size } => self.grow(which, self.bytes(size)),
            Op::Shrink { which, size } => self.shrink(which, self.bytes(size).max(1)),
            Op::AllocateMany { count, size } => self.allocate_many(count, self.bytes(size)),
            Op::FreeMany { which, count } => self.free_many(which, count),
            Op::Repair => assert_eq!(self.matrix.heap_map(40).lines().count(), self.present()),
        }
        self.turns += 1;
        if self.turns.is_multiple_of(self.audit_every) {
            self.audit();
        }
        // Seldom, so that the caches fill between.
        if self.turns.is_multiple_of(TRIM_EVERY) {
            self.trim();
            self.audit();
        }
    }

    /// Frees what is left and requires one free block per sector.
    pub fn finish(mut self) {
        while self.count() > 0 {
            self.free(self.count() / 2);
        }
        self.trim();
        self.audit();
        assert_whole(self.matrix);
    }

    fn trim(&self) {
        assert_eq!(self.matrix.trim(), Ok(()));
        let cached =
            self.matrix.stats().sectors.iter().map(|stats| stats.cached_blocks).sum::<u64>();
        assert_eq!(cached, 0, "a trimmed cache keeps nothing");
    }

    // --- geometry, computed anew ------------------------------------------------------------------

    fn bytes(&self, size: u32) -> usize {
        let most = self.matrix.geometry().size_bytes as usize;
        size as usize % (most + most / 8)
    }

    fn geometry(&self, sector: usize) -> &'m SectorGeometry {
        &self.matrix.geometry().sectors[sector]
    }

    fn present(&self) -> usize {
        self.chain(0, Spill::Any).len()
    }

    /// The sectors that a request tries, in order.
    fn chain(&self, bytes: usize, spill: Spill) -> Vec<usize> {
        let present = |&sector: &usize| self.geometry(sector).granules > 0;
        let wanted = match bytes {
            0..=4096 => 0,
            4097..=131_072 => 1,
            _ => 2,
        };
        let first = (wanted..SECTORS).chain((0..wanted).rev()).find(present).expect("a sector");
        let larger = (first + 1..SECTORS).filter(|_| spill != Spill::Off);
        let smaller = (0..first).rev().filter(|_| spill == Spill::Any);
        std::iter::once(first).chain(larger).chain(smaller).filter(present).collect()
    }

    fn granules(&self, sector: usize, bytes: usize) -> u32 {
        let len = (bytes.max(1) as u64 + 32).div_ceil(self.geometry(sector).granule_bytes());
        len.try_into().expect("the tests' sizes are short")
    }

    fn offset_of(&self, (sector, granule): At) -> Offset {
        let geometry = self.geometry(sector);
        let bytes = geometry.data_bytes + u64::from(granule) * geometry.granule_bytes() + 32;
        Offset::from_bytes(bytes).expect("a payload's offset")
    }

    /// The place whose payload begins at `offset`, if one can.
    fn place_of(&self, offset: Offset) -> Option<At> {
        let header = offset.bytes().checked_sub(32)?;
        (0..SECTORS).find_map(|sector| {
            let geometry = self.geometry(sector);
            let inside = header.checked_sub(geometry.data_bytes)?;
            let granule = u32::try_from(inside / geometry.granule_bytes()).ok()?;
            let begins = inside.is_multiple_of(geometry.granule_bytes());
            (begins && granule < geometry.granules).then_some((sector, granule))
        })
    }

    fn count(&self) -> usize {
        self.sectors.iter().map(Oracle::count).sum()
    }

    fn pick(&self, which: usize) -> Option<At> {
        let mut nth = which.checked_rem(self.count())?;
        for (sector, oracle) in self.sectors.iter().enumerate() {
            if nth < oracle.count() {
                return Some((sector, oracle.pick(nth)?));
            }
            nth -= oracle.count();
        }
        None
    }

    // --- the steps --------------------------------------------------------------------------------

    /// Predicts what a request gives: its sector, or its error. Counts the exhausted ones.
    fn predict(&mut self, bytes: usize, align: usize) -> Result<usize, Error> {
        let chain = self.chain(bytes, self.spill);
        for &sector in &chain {
            let len = self.granules(sector, bytes);
            let align = (align as u64 / self.geometry(sector).granule_bytes()).max(1) as u32;
            if len <= self.geometry(sector).granules {
                if self.sectors[sector].fits(len, align) {
                    return Ok(sector);
                }
                self.exhausted[sector] += 1;
            }
        }
        Err(self.refusal(chain[0], bytes))
    }

    fn refusal(&self, first: usize, requested_bytes: usize) -> Error {
        let geometry = self.geometry(first);
        let (sector, requested_bytes) = (SectorId::ALL[first], requested_bytes as u64);
        if self.granules(first, requested_bytes as usize) > geometry.granules {
            let largest_bytes = geometry.size_bytes() - 32;
            return Error::TooLarge { sector, requested_bytes, largest_bytes };
        }
        let largest = u64::from(self.sectors[first].largest_gap()) * geometry.granule_bytes();
        let largest_free_bytes = largest.saturating_sub(32);
        Error::Exhausted { sector, requested_bytes, largest_free_bytes }
    }

    fn allocate(&mut self, bytes: usize, align: usize, held: bool) {
        let predicted = self.predict(bytes, align);
        let matrix = self.matrix;
        let got = if align > 1 {
            let layout = Layout::from_size_align(bytes, align).expect("a layout");
            matrix.allocate_aligned(layout).map(Owner::Guard)
        } else if held {
            matrix.allocate(bytes).map(Owner::Guard)
        } else {
            matrix.allocate_offset(bytes).map(Owner::Offset)
        };
        match got {
            Ok(owner) => self.note(owner, bytes, align, predicted.expect("no gap fits")),
            Err(error) => assert_eq!(Err(error), predicted, "{bytes} bytes aligned to {align}"),
        }
    }

    /// Notes a block that was just allocated, and writes its payload.
    fn note(&mut self, owner: Owner<'m>, bytes: usize, align: usize, sector: usize) {
        let offset = owner.offset();
        let (found, granule) = self.place_of(offset).expect("a place for a payload");
        assert_eq!(found, sector, "{bytes} bytes are in another sector");
        let len = self.granules(sector, bytes);
        let usable = u64::from(len) * self.geometry(sector).granule_bytes() - 32;
        assert_eq!(self.matrix.usable_bytes(offset), Some(usable as usize));
        assert!(usable >= bytes as u64);
        let address = self.matrix.payload_ptr(offset).expect("a payload").as_ptr().addr();
        assert!(address.is_multiple_of(align.max(32)), "{address:#x} is not aligned to {align}");
        self.stamps += 1;
        let mut live = Live { owner, bytes, stamp: self.stamps };
        live.fill(self.matrix);
        self.sectors[sector].insert(granule, len, live);
    }

    fn free(&mut self, which: usize) {
        let Some((sector, granule)) = self.pick(which) else { return };
        let (_, live) = self.sectors[sector].remove(granule);
        live.verify(self.matrix);
        self.freed_last = Some(live.owner.offset());
        match live.owner {
            Owner::Guard(block) => drop(block),
            Owner::Offset(offset) => self.matrix.ack(offset).expect("an allocated block"),
        }
    }

    /// Acks any offset at all: it works for a block that no guard owns, and else changes nothing.
    fn forged_ack(&mut self, offset: Offset) {
        let got = self.matrix.ack(offset);
        let Some((sector, granule)) = self.place_of(offset) else {
            assert_eq!(got, Err(Error::NotAPayload { offset }));
            return;
        };
        match self.sectors[sector].get(granule) {
            Some((_, Live { owner: Owner::Offset(_), .. })) => {
                assert_eq!(got, Ok(()));
                self.sectors[sector].remove(granule);
                self.freed_last = Some(offset);
            }
            Some(&(len, _)) => {
                let seen = Seen::Head(State::Held, len);
                assert_eq!(got, Err(Error::NotAllocated { offset, seen }));
            }
            None => assert!(matches!(got, Err(Error::NotAllocated { .. })), "{got:?}"),
        }
    }

    fn give(&mut self, which: usize) {
        let Some((sector, granule)) = self.pick(which) else { return };
        let offset = self.offset_of((sector, granule));
        let (len, mut live) = self.sectors[sector].remove(granule);
        if let Owner::Guard(block) = live.owner {
            assert_eq!(block.into_offset(), offset);
        }
        live.owner = Owner::Offset(offset);
        self.sectors[sector].insert(granule, len, live);
    }

    fn take(&mut self, which: usize) {
        let Some((sector, granule)) = self.pick(which) else { return };
        let offset = self.offset_of((sector, granule));
        let (len, live) = self.sectors[sector].get_mut(granule);
        if let Owner::Offset(_) = live.owner {
            let block = self.matrix.from_offset(offset).expect("a block that was given away");
            assert_eq!(block.len(), live.bytes);
            live.owner = Owner::Guard(block);
            live.verify(self.matrix);
        }
        let seen = Seen::Head(State::Held, *len);
        let again = self.matrix.from_offset(offset).map(|block| block.len());
        assert_eq!(again, Err(Error::NotAllocated { offset, seen }));
    }

    fn grow(&mut self, which: usize, bytes: usize) {
        let Some((sector, granule)) = self.pick(which) else { return };
        let wanted = self.granules(sector, bytes);
        let room = self.sectors[sector].room_behind(granule);
        let (len, live) = self.sectors[sector].get_mut(granule);
        let Owner::Guard(block) = &mut live.owner else { return };
        let fits = bytes <= live.bytes || wanted <= *len + room;
        let no_room = Error::NoRoom { requested_bytes: bytes as u64 };
        let mut got = block.try_grow(bytes);
        if self.cached && fits && got == Err(no_room) {
            // The neighbour was in the cache.
            assert_eq!(self.matrix.trim(), Ok(()));
            got = block.try_grow(bytes);
        }
        assert_eq!(got, if fits { Ok(()) } else { Err(no_room) });
        if fits && bytes > live.bytes {
            pattern::verify(&block[..live.bytes], live.stamp);
            *len = wanted.max(*len);
            live.bytes = bytes;
            live.fill(self.matrix);
        }
        live.verify(self.matrix);
    }

    fn shrink(&mut self, which: usize, bytes: usize) {
        let Some((sector, granule)) = self.pick(which) else { return };
        let wanted = self.granules(sector, bytes);
        let (len, live) = self.sectors[sector].get_mut(granule);
        let Owner::Guard(block) = &mut live.owner else { return };
        assert_eq!(block.shrink(bytes), Ok(()));
        if bytes < live.bytes {
            live.bytes = bytes;
            *len = wanted;
        }
        live.verify(self.matrix);
    }

    fn allocate_many(&mut self, count: usize, bytes: usize) {
        let chain = self.chain(bytes, self.spill);
        let capacity =
            |&sector: &usize| self.sectors[sector].capacity(self.granules(sector, bytes));
        let fits = chain.iter().map(capacity).sum::<u64>() >= count as u64;
        let mut got = self.matrix.allocate_many(count, bytes);
        if self.cached && fits && got.is_err() {
            // Between blocks in the cache the gaps were cut up.
            self.trim();
            got = self.matrix.allocate_many(count, bytes);
        }
        match got {
            Ok(blocks) => {
                assert!(fits, "{count} blocks of {bytes} bytes where only fewer fit");
                assert_eq!(blocks.len(), count);
                for block in blocks {
                    assert_eq!(block.len(), bytes);
                    let (sector, _) = self.place_of(block.offset()).expect("a place");
                    assert!(chain.contains(&sector));
                    self.note(Owner::Guard(block), bytes, 1, sector);
                }
            }
            Err(error) => {
                assert!(!fits, "{error} for {count} blocks of {bytes} bytes");
                let whole = self.granules(chain[0], bytes) <= self.geometry(chain[0]).granules;
                let right = if whole {
                    matches!(error, Error::Exhausted { .. })
                } else {
                    matches!(error, Error::TooLarge { .. })
                };
                assert!(right, "{error}");
            }
        }
        // How often it looked in vain is its own business.
        for sector in self.matrix.stats().sectors {
            self.exhausted[sector.sector as usize] = sector.exhausted;
        }
    }

    fn free_many(&mut self, which: usize, count: usize) {
        let mut blocks = Vec::new();
        for turn in 0..count {
            let Some((sector, granule)) = self.pick(which.wrapping_add(turn * 3)) else { break };
            if let Some((_, Live { owner: Owner::Guard(_), .. })) =
                self.sectors[sector].get(granule)
            {
                let (_, live) = self.sectors[sector].remove(granule);
                live.verify(self.matrix);
                let Owner::Guard(block) = live.owner else { unreachable!("looked at above") };
                self.freed_last = Some(block.offset());
                blocks.push(block);
            }
        }
        self.matrix.free_many(blocks);
    }

    // --- looking at everything --------------------------------------------------------------------

    fn audit(&self) {
        assert_sound(self.matrix);
        for stats in self.matrix.stats().sectors {
            let sector = stats.sector as usize;
            let oracle = &self.sectors[sector];
            let unit = self.geometry(sector).granule_bytes();
            let bytes = |granules: u64| granules * unit;
            let gaps = oracle.gaps();
            let free = gaps.iter().map(|&(_, len)| u64::from(len)).sum::<u64>();
            let used = oracle.live().map(|(_, len, _)| u64::from(len)).sum::<u64>();
            let held = oracle.live().filter(|(_, _, live)| live.is_held()).count() as u64;
            assert_eq!(stats.size_bytes, bytes(free + used));
            let unused = stats.free_bytes + stats.cached_bytes;
            assert_eq!((unused, stats.allocated_bytes), (bytes(free), bytes(used)));
            assert_eq!(stats.cached_blocks == 0, stats.cached_bytes == 0);
            if stats.cached_blocks == 0 {
                assert_eq!(stats.largest_free_bytes, bytes(oracle.largest_gap().into()));
                assert_eq!(stats.free_blocks, gaps.len() as u64);
            }
            assert!(self.cached || stats.cached_blocks == 0, "{stats:?}");
            assert_eq!(stats.held_blocks, held);
            assert_eq!(stats.live_blocks(), oracle.count() as u64);
            assert_eq!((stats.in_flight_blocks, stats.in_flight_bytes), (0, 0));
            assert_eq!((stats.corrupt, stats.contended, stats.lost_cas), (0, 0, 0));
            assert_eq!(stats.healed_merges, 0, "a ripple left a merge undone");
            assert_eq!(stats.exhausted, self.exhausted[sector]);
        }
    }
}

impl Owner<'_> {
    fn offset(&self) -> Offset {
        match self {
            Owner::Guard(block) => block.offset(),
            Owner::Offset(offset) => *offset,
        }
    }
}

impl Live<'_> {
    fn is_held(&self) -> bool {
        matches!(self.owner, Owner::Guard(_))
    }

    fn fill(&mut self, matrix: &Matrix) {
        let stamp = self.stamp;
        match &mut self.owner {
            Owner::Guard(block) => pattern::fill(block, stamp),
            Owner::Offset(offset) => pattern::fill(payload(matrix, *offset, self.bytes), stamp),
        }
    }

    fn verify(&self, matrix: &Matrix) {
        match &self.owner {
            Owner::Guard(block) => {
                assert_eq!(block.len(), self.bytes);
                pattern::verify(block, self.stamp);
            }
            Owner::Offset(offset) => {
                pattern::verify(payload(matrix, *offset, self.bytes), self.stamp);
            }
        }
    }
}
