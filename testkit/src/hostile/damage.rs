//! Where a damage lands, and what it writes.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use am_layout::roster::LINE_WORDS;
use am_layout::{
    FIXED_BYTES, GUARD_WORDS, HEAD_WORDS, LEN_MAX, Offset, ROSTER_AT_BYTES, SECTORS,
    SectorGeometry, Seen, State,
};
use am_matrix::TOPIC_WORDS_BYTES;
use am_topic::{Topic, WIDES_FIXED, telling_wides};

use super::bed::Bed;
use super::death::lane_at;
use super::step::{Change, Damage, Length, Place, TopicWord};

/// Bytes of a block's header.
const HEADER_BYTES: u64 = 32;
/// Slots of each topic, and wide words of one.
const SLOTS: usize = 128;
const SLOT_WIDES: usize = 4;
/// Slots of the roster that a victim may use.
const SLOTS_USED: usize = 6;
/// Lanes of the roster that a victim may use, those for recovery included.
const LANES_USED: usize = 20;

impl Damage {
    /// Writes it.
    pub fn apply(self, bed: &Bed) {
        let (at, granule) = self.place.find(bed);
        let Some(word) = bed.words().get(at) else { return };
        let old = word.load(Relaxed);
        word.store(self.change.of(old, granule, bed), Relaxed);
    }
}

/// A granule of a sector that exists.
#[derive(Clone, Copy)]
struct Granule<'a> {
    sector: &'a SectorGeometry,
    at: u32,
}

impl<'a> Granule<'a> {
    fn of(bed: &'a Bed, sector: u8, at: u32) -> Self {
        let sectors = &bed.geometry().sectors;
        let first = usize::from(sector) % SECTORS;
        let sector = (0..SECTORS).map(|i| &sectors[(first + i) % SECTORS]);
        let sector = sector.clone().find(|s| s.granules > 0).unwrap_or(&sectors[0]);
        Self { sector, at: at % sector.granules.max(1) }
    }

    fn index(self) -> usize {
        self.sector.words_bytes as usize / 4 + self.at as usize
    }

    fn word(self, bed: &Bed) -> &AtomicU32 {
        &bed.words()[self.index()]
    }

    fn plus(self, delta: i64) -> Self {
        let at = i64::from(self.at) + delta;
        Self { at: at.rem_euclid(self.sector.granules.max(1).into()) as u32, ..self }
    }

    /// The `number`th block of a sector, found as the allocator finds it, as far as words allow.
    fn block(bed: &'a Bed, sector: u8, number: u8) -> Self {
        let mut block = Self::of(bed, sector, 0);
        for _ in 0..number {
            let end = block.end(bed);
            if end.at <= block.at {
                break;
            }
            block = end;
        }
        block
    }

    /// The `number`th block of a sector that a thread's cache keeps, round and round; the first block if none
    /// is kept.
    fn parked(bed: &'a Bed, sector: u8, number: u8) -> Self {
        let first = Self::of(bed, sector, 0);
        let granules = (0..first.sector.granules).map(|at| Self { at, ..first });
        let is_parked = |granule: &Self| {
            let word = granule.word(bed).load(Relaxed);
            matches!(Seen::decode(word), Seen::Head(State::Cached, _))
        };
        let parked: Vec<Self> = granules.filter(is_parked).collect();
        let at = usize::from(number).checked_rem(parked.len());
        at.map_or(first, |at| parked[at])
    }

    fn end(self, bed: &Bed) -> Self {
        self.plus((self.word(bed).load(Relaxed) & LEN_MAX).into())
    }
}

impl Place {
    /// The number of the word, and its granule if it is a granule's.
    fn find(self, bed: &Bed) -> (usize, Option<Granule<'_>>) {
        let geometry = bed.geometry();
        let own = (geometry.sectors.iter().filter(|s| s.granules > 0))
            .map(|s| s.data_bytes as usize / 4)
            .min()
            .unwrap_or(1);
        match self {
            Self::Guard(n) => (usize::from(n) % GUARD_WORDS, None),
            Self::Geometry(n) => (GUARD_WORDS + usize::from(n) % HEAD_WORDS, None),
            Self::Own(n) => (n as usize % own, None),
            Self::Fixed(n) => {
                let first = GUARD_WORDS + HEAD_WORDS;
                let indexes = geometry.sectors.iter().filter(|s| s.granules > 0);
                let end = indexes.map(|s| s.index_bytes).min().unwrap_or(FIXED_BYTES) as usize / 4;
                (first + usize::from(n) % (end - first), None)
            }
            Self::Slot(slot, n) => {
                // The roster's own line is before the first slot's.
                let line = usize::from(slot) % (1 + SLOTS_USED);
                (ROSTER_AT_BYTES as usize / 4 + line * LINE_WORDS + usize::from(n % 4), None)
            }
            Self::Lane(lane, n) => {
                (lane_at(usize::from(lane) % LANES_USED) + usize::from(n % 8), None)
            }
            Self::Index(sector, n) => {
                let sector = Granule::of(bed, sector, 0).sector;
                (sector.index_bytes as usize / 4 + (n % sector.index_words) as usize, None)
            }
            Self::IndexTop(sector, n) => {
                let sector = Granule::of(bed, sector, 0).sector;
                (sector.index_bytes as usize / 4 + usize::from(n % 64), None)
            }
            Self::Granule(sector, at) => {
                let found = Granule::of(bed, sector, at);
                (found.index(), Some(found))
            }
            Self::NearHead(sector, number, delta) => {
                let found = Granule::block(bed, sector, number).plus(delta.into());
                (found.index(), Some(found))
            }
            Self::NearParked(sector, number, delta) => {
                let found = Granule::parked(bed, sector, number).plus(delta.into());
                (found.index(), Some(found))
            }
            Self::NearEnd(sector, number, delta) => {
                let found = Granule::block(bed, sector, number).end(bed).plus(delta.into());
                (found.index(), Some(found))
            }
            Self::Header(sector, number, word) => {
                let found = Granule::block(bed, sector, number);
                let bytes = found.sector.data_bytes
                    + (u64::from(found.at) << found.sector.granule_shift)
                    + u64::from(word % 8) * 4;
                (bytes as usize / 4, None)
            }
            Self::Topic(topic, word) => (word.find(bed, topic), None),
        }
    }
}

impl TopicWord {
    /// The number of the word in the segment.
    fn find(self, bed: &Bed, topic: u8) -> usize {
        let number = topic;
        let topic = bed.topic_at(number);
        let wide = |number: usize| topic + TOPIC_WORDS_BYTES / 4 + 2 * number;
        match self {
            Self::Telling(n, high) => {
                let count = telling_wides().count();
                let number = telling_wides().nth(usize::from(n) % count).unwrap_or(0);
                wide(number) + usize::from(high)
            }
            Self::Any(n, high) => {
                wide(usize::from(n) % (WIDES_FIXED + SLOT_WIDES * SLOTS)) + usize::from(high)
            }
            Self::Sleep(bell) => topic + if bell { 0 } else { Topic::WORDS - 1 },
            Self::Slot(slot, n) => {
                let slot = WIDES_FIXED + SLOT_WIDES * (usize::from(slot) % SLOTS);
                wide(slot) + usize::from(n) % (2 * SLOT_WIDES)
            }
            Self::Message(slot, n) => {
                // Its place is the slot's second word, the offset in the lower half.
                let place = Self::Slot(slot, 2).find(bed, number);
                let offset = bed.words().get(place).map_or(0, |word| word.load(Relaxed));
                let header = Offset::from_raw(offset).bytes().saturating_sub(HEADER_BYTES);
                header as usize / 4 + usize::from(n) % 10
            }
        }
    }
}

impl Change {
    fn of(self, old: u32, granule: Option<Granule<'_>>, bed: &Bed) -> u32 {
        match self {
            Self::Flip(bit) => old ^ 1 << (bit % 32),
            Self::Set(value) => value,
            Self::Small(value) => value.into(),
            Self::Most(less) => u32::MAX - u32::from(less),
            Self::Add(n) => old.wrapping_add_signed(n.into()),
            Self::Code(code) => old & !0xff | u32::from(code),
            Self::Number(n) => old.wrapping_add_signed(i32::from(n) << 8),
            Self::Head(state, length) => {
                let len = length.granules(old, granule);
                match State::ALL.get(usize::from(state % 7)) {
                    Some(&state) if len > 0 => am_layout::head(state, len),
                    Some(&state) => am_layout::head(state, 1) & !LEN_MAX,
                    None => len,
                }
            }
            Self::Tail(length) => am_layout::tail(1) & !LEN_MAX | length.granules(old, granule),
            Self::CopyOf(n) => {
                let words = bed.words();
                words[n as usize % words.len()].load(Relaxed)
            }
        }
    }
}

impl Length {
    fn granules(self, old: u32, granule: Option<Granule<'_>>) -> u32 {
        let (at, len) = granule.map_or((0, 1), |g| (g.at, g.sector.granules));
        let granules = match self {
            Self::Same => old,
            Self::ToEnd => len - at,
            Self::OverEnd(n) => len - at + u32::from(n) + 1,
            Self::ToOrigin(n) => at + u32::from(n),
            Self::Most => LEN_MAX,
            Self::Small(n) => n.into(),
        };
        granules & LEN_MAX
    }
}
