//! What the kernel tells about a mapping in `/proc/self/smaps`.

use std::fs::read_to_string;
use std::io;
use std::ops::Range;

use crate::mapping::Mapping;

/// Fields of huge pages that smaps counts apart from `Rss`.
const HUGETLB: [&str; 2] = ["Shared_Hugetlb", "Private_Hugetlb"];
/// Fields of transparent huge pages that are mapped as such; smaps counts them in `Rss` too.
const TRANSPARENT: [&str; 3] = ["AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"];

/// What smaps says about one mapping, all its parts added up: policies for parts of it split it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Smaps {
    /// Size of the pages, in bytes; 0 when nothing was found.
    pub(crate) page_bytes: u64,
    /// Bytes in the page tables of this process.
    pub(crate) mapped_bytes: u64,
    /// Those of them that lie in huge pages.
    pub(crate) huge_bytes: u64,
    /// Whether any part may have transparent huge pages; `None` when the kernel does not tell.
    pub(crate) eligible: Option<bool>,
}

impl Smaps {
    /// Reads what the kernel tells about `mapping` now.
    pub(crate) fn of(mapping: &Mapping) -> io::Result<Self> {
        let start = mapping.as_ptr().addr();
        Ok(Self::parse(&read_to_string("/proc/self/smaps")?, &(start..start + mapping.len())))
    }

    /// Adds up the parts that overlap `range`.
    fn parse(smaps: &str, range: &Range<usize>) -> Self {
        let mut sum = Self::default();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some(part) = address_range(line) {
                inside = part.start < range.end && range.start < part.end;
            } else if inside && let Some((name, value)) = line.split_once(':') {
                sum.add(name, value.trim());
            }
        }
        sum
    }

    fn add(&mut self, name: &str, value: &str) {
        let bytes = || {
            let kilobytes = value.strip_suffix("kB").and_then(|text| text.trim().parse().ok());
            kilobytes.unwrap_or(0_u64) << 10
        };
        match name {
            "KernelPageSize" => self.page_bytes = bytes(),
            "Rss" => self.mapped_bytes += bytes(),
            "THPeligible" => self.eligible = Some(self.eligible == Some(true) || value != "0"),
            _ if HUGETLB.contains(&name) => {
                self.mapped_bytes += bytes();
                self.huge_bytes += bytes();
            }
            _ if TRANSPARENT.contains(&name) => self.huge_bytes += bytes(),
            _ => {}
        }
    }
}

/// The address range that begins a header line of smaps; other lines begin with a keyword.
fn address_range(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-s 00000000 00:1a 5    /dev/shm/a
Size:               4096 kB
KernelPageSize:        4 kB
Rss:                3072 kB
ShmemPmdMapped:     2048 kB
THPeligible:           1
7f0000400000-7f0000800000 rw-s 00000000 00:1a 6    /dev/shm/b
Rss:                   8 kB
THPeligible:           0
7f0000800000-7f0000c00000 rw-s 00000000 00:1a 7    /dev/hugepages/c
KernelPageSize:     2048 kB
Rss:                   0 kB
Shared_Hugetlb:     2048 kB
Private_Hugetlb:    2048 kB
7f0000c00000-7f0000d00000 rw-s 00000000 00:1a 8    /dev/shm/d
THPeligible:           1
";
    const MIB: u64 = 1 << 20;

    fn at(start: usize, end: usize) -> Smaps {
        Smaps::parse(SMAPS, &(start..end))
    }

    #[test]
    fn smaps_with_several_mappings_answers_for_the_one_asked() {
        assert_eq!(at(0x7f00_0000_0000, 0x7f00_0040_0000).eligible, Some(true));
        assert_eq!(at(0x7f00_0040_0000, 0x7f00_0080_0000).eligible, Some(false));
        let eligible = at(0x7f00_0080_0000, 0x7f00_00c0_0000).eligible;
        assert_eq!(eligible, None, "the next mapping's answer");
        assert_eq!(at(0x1000, 0x2000), Smaps::default());
    }

    #[test]
    fn smaps_of_transparent_huge_pages_are_counted_once() {
        let told = at(0x7f00_0000_0000, 0x7f00_0040_0000);
        assert_eq!((told.page_bytes, told.mapped_bytes, told.huge_bytes), (4096, 3 * MIB, 2 * MIB));
    }

    #[test]
    fn smaps_of_hugetlb_pages_count_what_rss_leaves_out() {
        let told = at(0x7f00_0080_0000, 0x7f00_00c0_0000);
        assert_eq!(
            (told.page_bytes, told.mapped_bytes, told.huge_bytes),
            (2 * MIB, 4 * MIB, 4 * MIB)
        );
    }

    #[test]
    fn smaps_of_a_mapping_in_parts_are_added_up() {
        let told = at(0x7f00_0000_0000, 0x7f00_0080_0000);
        assert_eq!(told.mapped_bytes, 3 * MIB + 8192);
        assert_eq!(told.eligible, Some(true));
    }
}
