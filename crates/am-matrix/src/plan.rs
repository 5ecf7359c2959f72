//! Planning a segment: how many granules each sector gets, and where everything lies.

use crate::Error;
use am_layout::{
    FIXED_BYTES, GRANULE_MIN_BYTES, Geometry, LEN_MAX, OFFSET_UNIT_BYTES, REACH_BYTES,
    SECTOR_ALIGN_BYTES, SECTORS, SectorGeometry,
};
use am_tlsf::IndexShape;

/// Granules of the small, medium and large sector, as powers of two.
const GRANULE_SHIFTS: [u32; SECTORS] = [5, 8, 12];
/// Largest payload of the small sector, in bytes.
const SMALL_MAX_BYTES: u64 = 4 << 10;
/// Largest payload of the medium sector, in bytes.
const MEDIUM_MAX_BYTES: u64 = 128 << 10;
/// Fewest granules that make a sector: a header and a payload.
const GRANULES_MIN: u32 = 2;
/// Metadata is aligned to cache lines.
const LINE_BYTES: u64 = 64;

/// Plans a segment of `size_bytes` with the small and the medium sector's percentages; the large
/// sector gets the rest. A sector of 0 % is absent.
///
/// # Errors
/// [`Error::SplitAbove100`], [`Error::SegmentTooLarge`], or [`Error::TooSmall`] with the smallest
/// size that works.
pub fn plan(size_bytes: u64, small_percent: u8, medium_percent: u8) -> Result<Geometry, Error> {
    if u32::from(small_percent) + u32::from(medium_percent) > 100 {
        return Err(Error::SplitAbove100 { small: small_percent, medium: medium_percent });
    }
    let maximum_bytes = (REACH_BYTES - 1).min(isize::MAX as u64);
    if size_bytes > maximum_bytes {
        return Err(Error::SegmentTooLarge { size_bytes, maximum_bytes });
    }
    try_plan(size_bytes, small_percent, medium_percent).ok_or_else(|| Error::TooSmall {
        size_bytes,
        minimum_bytes: minimum(small_percent, medium_percent),
    })
}

/// The smallest size that works with this split; never above a few hundred kilobytes times 100.
fn minimum(small: u8, medium: u8) -> u64 {
    let works = |size: u64| try_plan(size, small, medium).is_some();
    let (mut low, mut high) = (0, 4096);
    while !works(high) {
        low = high;
        high *= 2;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if works(middle) { high = middle } else { low = middle }
    }
    high
}

fn try_plan(size_bytes: u64, small: u8, medium: u8) -> Option<Geometry> {
    let percents = [small, medium, 100 - small - medium].map(u64::from);
    let mut geometry = Geometry {
        size_bytes,
        small_percent: small,
        medium_percent: medium,
        small_max_bytes: SMALL_MAX_BYTES,
        medium_max_bytes: MEDIUM_MAX_BYTES,
        sectors: Default::default(),
    };
    // Before each sector its payloads' alignment may cost up to one alignment's worth of padding.
    let padding = SECTORS as u64 * (SECTOR_ALIGN_BYTES + 3 * LINE_BYTES);
    let share = size_bytes.checked_sub(FIXED_BYTES + padding)?;
    for ((sector, percent), shift) in geometry.sectors.iter_mut().zip(percents).zip(GRANULE_SHIFTS)
    {
        if percent > 0 {
            *sector = fill(u128::from(share) * u128::from(percent) / 100, shift)?;
        }
    }
    place(&mut geometry)?;
    (geometry.validate(size_bytes).is_ok()).then_some(geometry)
}

/// Finds the most granules whose words, index and data fit the budget.
fn fill(budget: u128, shift: u32) -> Option<SectorGeometry> {
    // A sector longer than a length can say gets coarser granules.
    let shift = (shift..32).find(|s| budget >> s <= u128::from(LEN_MAX))?;
    let cost = |granules: u32| {
        let index = u128::from(IndexShape::new(granules).words()) * 4;
        index + u128::from(granules) * (4 + (1u128 << shift))
    };
    let (mut low, mut high) = (0, (budget >> shift) as u32 + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if cost(middle) <= budget { low = middle } else { high = middle }
    }
    let index_words = u32::try_from(IndexShape::new(low.max(1)).words()).ok()?;
    (low >= GRANULES_MIN).then_some(SectorGeometry {
        granule_shift: shift,
        granules: low,
        index_words,
        ..SectorGeometry::default()
    })
}

/// Lays metadata and sectors out one after the other.
fn place(geometry: &mut Geometry) -> Option<()> {
    let mut at = FIXED_BYTES.next_multiple_of(LINE_BYTES);
    for sector in geometry.sectors.iter_mut().filter(|s| s.granules > 0) {
        sector.index_bytes = at;
        at = (at + u64::from(sector.index_words) * 4).next_multiple_of(LINE_BYTES);
        sector.words_bytes = at;
        at = (at + u64::from(sector.granules) * 4).next_multiple_of(LINE_BYTES);
    }
    for sector in geometry.sectors.iter_mut().filter(|s| s.granules > 0) {
        // Data begins a header before the aligned payload of granule 0.
        let align = SECTOR_ALIGN_BYTES.max(sector.granule_bytes());
        at = (at + OFFSET_UNIT_BYTES).checked_next_multiple_of(align)? - OFFSET_UNIT_BYTES;
        sector.data_bytes = at;
        at += sector.size_bytes();
    }
    Some(())
}

const _: () = assert!(1 << GRANULE_SHIFTS[0] == GRANULE_MIN_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plan_of_the_usual_split_has_three_sectors_with_little_metadata() {
        let geometry = plan(50 << 20, 40, 30).unwrap();
        for (sector, (percent, overhead)) in
            geometry.sectors.iter().zip([(40, 0.15), (30, 0.02), (30, 0.002)])
        {
            let share = (50 << 20) * percent / 100;
            let lost = 1.0 - sector.size_bytes() as f64 / share as f64;
            assert!(lost < overhead + 0.002, "{sector:?} loses {lost}");
        }
    }

    #[test]
    fn plan_of_one_sector_leaves_the_others_out() {
        let geometry = plan(1 << 20, 100, 0).unwrap();
        assert_eq!(geometry.sectors.map(|s| s.granules > 0), [true, false, false]);
        let geometry = plan(1 << 20, 0, 0).unwrap();
        assert_eq!(geometry.sectors.map(|s| s.granules > 0), [false, false, true]);
    }

    #[test]
    fn plan_too_small_names_the_smallest_size_that_works() {
        for (small, medium) in [(40, 30), (100, 0), (0, 100), (0, 0), (1, 1), (98, 1)] {
            let Err(Error::TooSmall { minimum_bytes, .. }) = plan(100, small, medium) else {
                panic!("100 bytes cannot work");
            };
            assert!(plan(minimum_bytes, small, medium).is_ok());
            assert!(plan(minimum_bytes - 1, small, medium).is_err());
        }
    }

    #[test]
    fn plan_above_100_percent_or_128_gib_is_refused() {
        assert!(matches!(plan(1 << 20, 80, 21), Err(Error::SplitAbove100 { .. })));
        assert!(matches!(plan(1 << 20, 255, 255), Err(Error::SplitAbove100 { .. })));
        assert!(matches!(plan(128 << 30, 40, 30), Err(Error::SegmentTooLarge { .. })));
        assert!(plan((128 << 30) - 4096, 100, 0).is_ok());
    }

    proptest! {
        #[test]
        fn plan_of_any_size_validates_and_uses_what_it_has(
            size in 200_000u64..(64 << 30), small in 0u8..=100, medium in 0u8..=100,
        ) {
            prop_assume!(small + medium <= 100);
            let Ok(geometry) = plan(size, small, medium) else { return Ok(()) };
            prop_assert!(geometry.validate(size).is_ok());
            for sector in geometry.sectors.iter().filter(|s| s.granules > 0) {
                let shape = IndexShape::new(sector.granules);
                prop_assert_eq!(u64::from(sector.index_words), shape.words());
            }
        }
    }
}
