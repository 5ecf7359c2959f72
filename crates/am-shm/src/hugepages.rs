//! Huge pages: asking for transparent ones, and telling what came of it.
//!
//! `madvise` succeeds whether or not the kernel will ever use huge pages for the mapping, so the
//! report asks the kernel about this very mapping instead (`THPeligible` in `/proc/self/smaps`).

use std::fs::{File, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memmap2::Advice;
use nix::sys::stat::{major, minor};

use crate::mapping::Mapping;
use crate::pages::{FilePages, Pages};
use crate::smaps::Smaps;

const THP_DIR: &str = "/sys/kernel/mm/transparent_hugepage";

/// Which huge pages a segment has, and what came of asking for them
/// ([`Options::pages`](crate::Options::pages)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hugepages {
    /// Every page is a huge one from the kernel's pool, of so many bytes: the segment lies on a
    /// hugetlbfs, or is a memfd of huge pages. So whether asked for or not.
    Huge {
        /// Size of one page, in bytes.
        page_bytes: u64,
    },
    /// Nobody asked, and the pages are small.
    NotAsked,
    /// The kernel took the advice and may back the mapping with transparent huge pages, as they are
    /// to be had.
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

/// Advises transparent huge pages, if these are asked for; before anybody touches the pages.
pub(crate) fn advise(mapping: &Mapping, pages: Pages) -> Advised {
    if pages != Pages::Transparent {
        return Advised::NotAsked;
    }
    match mapping.advise(Advice::HugePage, 0, mapping.len()) {
        Ok(()) => Advised::Asked,
        Err(cause) => Advised::Refused(cause.raw_os_error().unwrap_or(0)),
    }
}

/// Tells what the kernel makes of the advice now.
pub(crate) fn report(advised: Advised, mapping: &Mapping, file: &File) -> Hugepages {
    if let Ok(FilePages { huge: true, page_bytes }) = FilePages::of(file, Path::new("")) {
        return Hugepages::Huge { page_bytes };
    }
    match advised {
        Advised::NotAsked => return Hugepages::NotAsked,
        Advised::Refused(errno) => return Hugepages::Refused { errno },
        Advised::Asked => {}
    }
    let told = match Smaps::of(mapping) {
        Ok(told) => told,
        Err(cause) => return Hugepages::Unknown { reason: format!("/proc/self/smaps: {cause}") },
    };
    match told.eligible {
        Some(true) => Hugepages::Eligible,
        Some(false) => Hugepages::Ignored { reason: settings(mapping, file) },
        None => Hugepages::Unknown { reason: "/proc/self/smaps has no THPeligible".into() },
    }
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
