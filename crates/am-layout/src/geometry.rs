//! Where the parts of a segment lie.
//!
//! ```text
//! [ guard 16 B ][ matrix: head | control | roster | names | per sector: index, granule words ]
//! [ padding ][ sector 0 ][ sector 1 ][ sector 2 ]
//! ```
//! A sector begins 32 bytes before a multiple of [`SECTOR_ALIGN_BYTES`], so that every payload,
//! which lies 32 bytes behind its block's head, is aligned to the sector's granule.
//!
//! A [`Geometry`] is written into the head once, by the formatter, and read once, by each
//! attachment, which validates it and keeps it in private memory.

use crate::counter::CONTROL_WORDS;
use crate::names::NAMES_WORDS;
use crate::offset::{OFFSET_UNIT_BYTES, REACH_BYTES};
use crate::roster::ROSTER_WORDS;
use crate::state::LEN_MAX;
use crate::{GUARD_WORDS, HEADER_BYTES, Word};

/// Number of sectors: small, medium, large.
pub const SECTORS: usize = 3;
/// Alignment of the payloads of granule 0 of each sector, in bytes.
pub const SECTOR_ALIGN_BYTES: u64 = 4096;
/// Smallest granule, in bytes.
pub const GRANULE_MIN_BYTES: u64 = 32;
/// Words of the matrix's head, behind the guard's.
pub const HEAD_WORDS: usize = 60;
/// First byte of the control words, behind guard and head.
pub const CONTROL_AT_BYTES: u64 = ((GUARD_WORDS + HEAD_WORDS) * 4) as u64;
/// First byte of the roster, behind the control words.
pub const ROSTER_AT_BYTES: u64 = CONTROL_AT_BYTES + (SECTORS * CONTROL_WORDS * 4) as u64;
/// First byte of the directory of names, behind the roster.
pub const NAMES_AT_BYTES: u64 = ROSTER_AT_BYTES + (ROSTER_WORDS * 4) as u64;
/// First byte behind guard, head, control words, roster and names.
pub const FIXED_BYTES: u64 = NAMES_AT_BYTES + (NAMES_WORDS * 4) as u64;

/// Where one sector and its metadata lie. A sector that is absent has no granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectorGeometry {
    /// Size of a granule, as a power of two: 5 is 32 bytes.
    pub granule_shift: u32,
    /// Number of granules, at most [`LEN_MAX`]; 0 when the sector is absent.
    pub granules: u32,
    /// Byte offset of granule 0.
    pub data_bytes: u64,
    /// Byte offset of the granule words.
    pub words_bytes: u64,
    /// Byte offset of the hint index.
    pub index_bytes: u64,
    /// Number of words of the hint index.
    pub index_words: u32,
}

impl SectorGeometry {
    /// Returns the size of a granule in bytes.
    #[inline]
    #[must_use]
    pub const fn granule_bytes(&self) -> u64 {
        1 << self.granule_shift
    }

    /// Returns the size of the sector in bytes, metadata not counted.
    #[inline]
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        (self.granules as u64) << self.granule_shift
    }

    /// Returns the byte offset behind the last granule.
    #[inline]
    #[must_use]
    pub const fn end_bytes(&self) -> u64 {
        self.data_bytes.saturating_add(self.size_bytes())
    }

    /// Returns the granules that a payload of `bytes` takes, header included, or `None` when no
    /// block is that long.
    #[inline]
    #[must_use]
    pub fn granules_for(&self, bytes: u64) -> Option<u32> {
        let whole = bytes.checked_add(HEADER_BYTES as u64)?;
        let granules = whole.checked_add(self.granule_bytes() - 1)? >> self.granule_shift;
        if granules <= u64::from(LEN_MAX) { Some(granules as u32) } else { None }
    }

    /// As [`granules_for`](Self::granules_for) in fewer instructions, for payloads of at least 1 byte
    /// that take at most [`LEN_MAX`] granules; for others the result means nothing.
    #[inline(always)]
    #[must_use]
    pub const fn granules_for_short(&self, bytes: u64) -> u32 {
        let last_byte = bytes.wrapping_add(HEADER_BYTES as u64 - 1);
        (last_byte.wrapping_shr(self.granule_shift) as u32).wrapping_add(1)
    }

    /// Returns the payload bytes of a block of `len` granules.
    #[inline]
    #[must_use]
    pub const fn usable_bytes(&self, len: u32) -> u64 {
        ((len as u64) << self.granule_shift).saturating_sub(HEADER_BYTES as u64)
    }
}

/// Where everything in a segment lies; small, plain, and private to the process once read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the segment in bytes.
    pub size_bytes: u64,
    /// Percent of the segment for the small sector.
    pub small_percent: u8,
    /// Percent of the segment for the medium sector; the rest is the large sector's.
    pub medium_percent: u8,
    /// Largest payload that the small sector serves, in bytes.
    pub small_max_bytes: u64,
    /// Largest payload that the medium sector serves, in bytes.
    pub medium_max_bytes: u64,
    /// Small, medium, large.
    pub sectors: [SectorGeometry; SECTORS],
}

/// A geometry read from a segment that cannot be one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the segment's geometry is corrupt: {what}")]
pub struct BadGeometry {
    /// Which rule it breaks.
    pub what: &'static str,
}

const SECTOR_WORDS: usize = 12;

impl Geometry {
    /// Writes the geometry into the head's words.
    ///
    /// # Panics
    /// When `head` is shorter than [`HEAD_WORDS`].
    pub fn write(&self, head: &[Word]) {
        put(head, 0, self.size_bytes);
        head[2].store_relaxed(u32::from(self.small_percent));
        head[3].store_relaxed(u32::from(self.medium_percent));
        put(head, 4, self.small_max_bytes);
        put(head, 6, self.medium_max_bytes);
        for (i, sector) in self.sectors.iter().enumerate() {
            let at = 8 + i * SECTOR_WORDS;
            head[at].store_relaxed(sector.granule_shift);
            head[at + 1].store_relaxed(sector.granules);
            put(head, at + 2, sector.data_bytes);
            put(head, at + 4, sector.words_bytes);
            put(head, at + 6, sector.index_bytes);
            head[at + 8].store_relaxed(sector.index_words);
        }
    }

    /// Reads a geometry from the head's words and validates it against the mapping's length.
    ///
    /// # Errors
    /// [`BadGeometry`] naming the first rule broken: every range must lie inside the segment,
    /// aligned, in the documented order, and so without overlap.
    ///
    /// # Panics
    /// When `head` is shorter than [`HEAD_WORDS`].
    pub fn read(head: &[Word], mapped_bytes: u64) -> Result<Self, BadGeometry> {
        let percent = |at: usize| u8::try_from(head[at].load()).unwrap_or(u8::MAX);
        let mut geometry = Geometry {
            size_bytes: get(head, 0),
            small_percent: percent(2),
            medium_percent: percent(3),
            small_max_bytes: get(head, 4),
            medium_max_bytes: get(head, 6),
            sectors: [SectorGeometry::default(); SECTORS],
        };
        for (i, sector) in geometry.sectors.iter_mut().enumerate() {
            let at = 8 + i * SECTOR_WORDS;
            *sector = SectorGeometry {
                granule_shift: head[at].load(),
                granules: head[at + 1].load(),
                data_bytes: get(head, at + 2),
                words_bytes: get(head, at + 4),
                index_bytes: get(head, at + 6),
                index_words: head[at + 8].load(),
            };
        }
        geometry.validate(mapped_bytes)?;
        Ok(geometry)
    }

    /// Checks that every range lies inside the segment, aligned and in order.
    ///
    /// # Errors
    /// [`BadGeometry`] naming the first rule broken.
    pub fn validate(&self, mapped_bytes: u64) -> Result<(), BadGeometry> {
        let rule = |holds: bool, what| if holds { Ok(()) } else { Err(BadGeometry { what }) };
        rule(self.size_bytes <= mapped_bytes, "the segment is longer than its mapping")?;
        rule(self.size_bytes < REACH_BYTES, "the segment is longer than offsets reach")?;
        let percent = u32::from(self.small_percent) + u32::from(self.medium_percent);
        rule(percent <= 100, "the sectors' percentages add up to more than 100")?;
        rule(self.small_max_bytes <= self.medium_max_bytes, "the size limits are out of order")?;
        rule(self.sectors.iter().any(|s| s.granules > 0), "there is no sector")?;
        let mut meta_end = FIXED_BYTES;
        for s in self.sectors.iter().filter(|s| s.granules > 0) {
            rule((5..=31).contains(&s.granule_shift), "a granule's size is out of range")?;
            rule(s.granules <= LEN_MAX, "a sector has too many granules")?;
            rule(s.index_bytes % 64 == 0 && s.words_bytes % 64 == 0, "metadata is not aligned")?;
            rule(s.index_bytes >= meta_end, "metadata overlaps")?;
            let index_end = s.index_bytes.saturating_add(u64::from(s.index_words) * 4);
            rule(s.words_bytes >= index_end, "index and granule words overlap")?;
            meta_end = s.words_bytes.saturating_add(u64::from(s.granules) * 4);
        }
        let mut data_end = meta_end;
        for s in self.sectors.iter().filter(|s| s.granules > 0) {
            let payload_0 = s.data_bytes.saturating_add(OFFSET_UNIT_BYTES);
            let align = SECTOR_ALIGN_BYTES.max(s.granule_bytes());
            rule(payload_0 % align == 0, "a sector is not aligned")?;
            rule(s.data_bytes >= data_end, "sectors overlap")?;
            data_end = s.data_bytes.saturating_add(s.size_bytes());
        }
        rule(data_end <= self.size_bytes, "a sector reaches behind the segment")
    }

    /// Returns the sector whose data covers the byte offset, if any.
    #[inline]
    #[must_use]
    pub fn sector_of(&self, offset_bytes: u64) -> Option<usize> {
        self.sectors
            .iter()
            .position(|s| offset_bytes >= s.data_bytes && offset_bytes < s.end_bytes())
    }
}

fn put(words: &[Word], at: usize, value: u64) {
    words[at].store_relaxed(value as u32);
    words[at + 1].store_relaxed((value >> 32) as u32);
}

fn get(words: &[Word], at: usize) -> u64 {
    u64::from(words[at].load()) | u64::from(words[at + 1].load()) << 32
}
