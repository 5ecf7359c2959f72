//! The kernel's pool of huge pages: what it has, for errors that say what to change.

use std::fmt;
use std::fs::{File, read_dir, read_to_string};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;

use crate::error::Error;
use crate::pages::FilePages;

const POOLS_DIR: &str = "/sys/kernel/mm/hugepages";
/// Sets the size of the pool of the system's default huge pages.
const DEFAULT_KNOB: &str = "/proc/sys/vm/nr_hugepages";

/// A pool of huge pages as it was when it had too few.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePool {
    /// Size of one page, in bytes.
    pub page_bytes: u64,
    /// Pages in the pool; `None` when the kernel does not tell.
    pub total_pages: Option<u64>,
    /// Those that are neither in use nor set aside for a mapping; `None` when it does not tell.
    pub free_pages: Option<u64>,
    /// Pages that the file's mount still allows; `None` when the mount sets no limit.
    pub mount_free_pages: Option<u64>,
    /// The file that sets the size of the pool, by a number of pages written to it.
    pub knob: PathBuf,
}

impl HugePool {
    /// Reads the pool that `file`, whose pages are `pages`, takes its pages from.
    fn of(file: &File, pages: FilePages) -> Self {
        let page_bytes = pages.page_bytes;
        let directory = Path::new(POOLS_DIR).join(format!("hugepages-{}kB", page_bytes >> 10));
        let count = |name| read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
        let unused = count("free_hugepages");
        let set_aside = count("resv_hugepages");
        let is_default = default_page_bytes() == Some(page_bytes);
        Self {
            page_bytes,
            total_pages: count("nr_hugepages"),
            free_pages: unused.zip(set_aside).map(|(unused, aside)| unused.saturating_sub(aside)),
            // A mount without a limit says that it has no blocks at all.
            mount_free_pages: fstatfs(file)
                .ok()
                .filter(|stat| stat.blocks() > 0)
                .map(|stat| stat.blocks_available()),
            knob: if is_default { DEFAULT_KNOB.into() } else { directory.join("nr_hugepages") },
        }
    }
}

impl fmt::Display for HugePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.free_pages, self.total_pages) {
            (Some(free), Some(total)) => {
                write!(f, "{free} of the {total} in {} are free", self.knob.display())?;
            }
            _ => write!(f, "{} sets how many there are", self.knob.display())?,
        }
        match self.mount_free_pages {
            Some(free) => write!(f, ", and the mount allows {free} more"),
            None => Ok(()),
        }
    }
}

/// The error of an operation that may have failed for lack of pages.
///
/// `errnos` are those by which the kernel means that, for this operation; on a file of huge pages
/// they become [`Error::NoHugePages`], elsewhere what `else_error` makes of them.
pub(crate) fn lack(
    file: &File,
    path: &Path,
    requested_bytes: u64,
    cause: io::Error,
    errnos: &[Errno],
    else_error: impl FnOnce(io::Error) -> Error,
) -> Error {
    let meant = cause.raw_os_error().is_some_and(|raw| errnos.contains(&Errno::from_raw(raw)));
    match FilePages::of(file, path) {
        Ok(pages) if meant && pages.huge => {
            let pool = Box::new(HugePool::of(file, pages));
            Error::NoHugePages { path: path.into(), requested_bytes, pool }
        }
        _ => else_error(cause),
    }
}

/// The sizes of huge pages that the kernel knows, in bytes, ascending.
pub(crate) fn page_sizes() -> Vec<u64> {
    let size = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let kilobytes = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Some(kilobytes.parse::<u64>().ok()? << 10)
    };
    let mut sizes: Vec<u64> = read_dir(POOLS_DIR).into_iter().flatten().filter_map(size).collect();
    sizes.sort_unstable();
    sizes
}

fn default_page_bytes() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
