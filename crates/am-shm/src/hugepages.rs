//! Transparent huge pages: asking for them, and telling what came of it.
//!
//! `madvise` succeeds whether or not the kernel will ever use huge pages for the mapping, so the
//! report asks the kernel about this very mapping instead (`THPeligible` in `/proc/self/smaps`).

use std::fs::{File, read_to_string};
use std::os::unix::fs::MetadataExt;

use memmap2::Advice;
use nix::sys::stat::{major, minor};

use crate::mapping::Mapping;

const THP_DIR: &str = "/sys/kernel/mm/transparent_hugepage";

/// What came of [`Options::hugepages`](crate::Options::hugepages).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hugepages {
    /// Nobody asked.
    NotAsked,
    /// The kernel may back the mapping with huge pages as they are to be had.
    Eligible,
    /// The kernel took the advice and will not act on it.
    Ignored {
        /// The settings that say so.
        reason: String,
    },
    /// The kernel refused the advice.
    Refused {
        /// Its error number.
        errno: i32,
    },
    /// The kernel took the advice and does not tell what it makes of it.
    Unknown {
        /// Why that cannot be found out.
        reason: String,
    },
}

/// What the kernel answered to the advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advised {
    NotAsked,
    Asked,
    Refused(i32),
}

/// Advises huge pages, if `wanted`; before anybody touches the pages.
pub(crate) fn advise(mapping: &Mapping, wanted: bool) -> Advised {
    if !wanted {
        return Advised::NotAsked;
    }
    match mapping.advise(Advice::HugePage) {
        Ok(()) => Advised::Asked,
        Err(cause) => Advised::Refused(cause.raw_os_error().unwrap_or(0)),
    }
}

/// Touches every page through the advised mapping. Reserving through the descriptor alone would
/// fill the file with small pages, which stay small.
///
/// Whatever fails here, the reserving that follows meets again and reports.
pub(crate) fn populate(mapping: &Mapping) {
    let _ = mapping.advise(Advice::PopulateWrite);
}

/// Tells what the kernel makes of the advice now.
pub(crate) fn report(advised: Advised, mapping: &Mapping, file: &File) -> Hugepages {
    match advised {
        Advised::NotAsked => return Hugepages::NotAsked,
        Advised::Refused(errno) => return Hugepages::Refused { errno },
        Advised::Asked => {}
    }
    let smaps = match read_to_string("/proc/self/smaps") {
        Ok(smaps) => smaps,
        Err(cause) => return Hugepages::Unknown { reason: format!("/proc/self/smaps: {cause}") },
    };
    match is_eligible(&smaps, mapping.as_ptr().addr()) {
        Some(true) => Hugepages::Eligible,
        Some(false) => Hugepages::Ignored { reason: settings(mapping, file) },
        None => Hugepages::Unknown { reason: "/proc/self/smaps has no THPeligible".into() },
    }
}

/// Reads `THPeligible` of the mapping around `address`.
fn is_eligible(smaps: &str, address: usize) -> Option<bool> {
    let around = |line: &str| address_range(line).is_some_and(|range| range.contains(&address));
    smaps
        .lines()
        .skip_while(|line| !around(line))
        .skip(1)
        .take_while(|line| address_range(line).is_none())
        .find_map(|line| line.strip_prefix("THPeligible:"))
        .map(|value| value.trim() != "0")
}

/// The address range that begins a header line of smaps; other lines begin with a keyword.
fn address_range(line: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// The settings that decide about huge pages of `file`, for a person to change.
fn settings(mapping: &Mapping, file: &File) -> String {
    let huge_bytes = read_setting("hpage_pmd_size").and_then(|text| text.parse::<usize>().ok());
    if let Some(huge_bytes) = huge_bytes
        && mapping.len() < huge_bytes
    {
        let len = mapping.len();
        return format!("the segment's {len} bytes are less than a huge page of {huge_bytes}");
    }
    let shmem = read_setting("shmem_enabled")
        .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .unwrap_or_else(|| "unknown".into());
    match mount_of(file) {
        Some(mount) => format!("{mount}; shmem_enabled is {shmem}"),
        // A memfd lies on the kernel's own tmpfs, which is mounted nowhere.
        None => format!("shmem_enabled is {shmem}"),
    }
}

fn read_setting(name: &str) -> Option<String> {
    read_to_string(format!("{THP_DIR}/{name}")).ok().map(|text| text.trim().to_owned())
}

/// Describes the mount that `file` lies on; of this thread's mount namespace.
fn mount_of(file: &File) -> Option<String> {
    let device = file.metadata().ok()?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    describe_mount(&read_to_string("/proc/thread-self/mountinfo").ok()?, &device)
}

fn describe_mount(mountinfo: &str, device: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        if mount.next()? != device {
            return None;
        }
        let at = mount.nth(1)?;
        let mut file_system = file_system.split(' ');
        let kind = file_system.next()?;
        if kind != "tmpfs" {
            return Some(format!("the {kind} at {at} has no say over huge pages"));
        }
        let huge = file_system.nth(1)?.split(',').find_map(|option| option.strip_prefix("huge="));
        Some(format!("the tmpfs at {at} is mounted with huge={}", huge.unwrap_or("never")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-s 00000000 00:1a 5    /dev/shm/a
Size:               4096 kB
THPeligible:           1
7f0000400000-7f0000800000 rw-s 00000000 00:1a 6    /dev/shm/b
Size:               4096 kB
THPeligible:           0
7f0000800000-7f0000c00000 rw-s 00000000 00:1a 7    /dev/shm/c
Size:               4096 kB
7f0000c00000-7f0000d00000 rw-s 00000000 00:1a 8    /dev/shm/d
THPeligible:           1
";

    #[test]
    fn smaps_with_several_mappings_answers_for_the_one_asked() {
        assert_eq!(is_eligible(SMAPS, 0x7f00_0000_0000), Some(true));
        assert_eq!(is_eligible(SMAPS, 0x7f00_0040_0000), Some(false));
        assert_eq!(is_eligible(SMAPS, 0x7f00_0080_0000), None, "the next mapping's answer");
        assert_eq!(is_eligible(SMAPS, 0x1000), None);
    }

    #[test]
    fn mount_of_tmpfs_tells_its_huge_option() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
25 22 0:26 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw,size=1k
26 22 0:27 / /mnt/huge rw - tmpfs none rw,huge=advise,size=1k
";
        let tell = |device| describe_mount(mountinfo, device);
        assert_eq!(tell("0:26").unwrap(), "the tmpfs at /dev/shm is mounted with huge=never");
        assert_eq!(tell("0:27").unwrap(), "the tmpfs at /mnt/huge is mounted with huge=advise");
        assert_eq!(tell("254:0").unwrap(), "the ext4 at / has no say over huge pages");
        assert_eq!(tell("0:2"), None);
    }
}
