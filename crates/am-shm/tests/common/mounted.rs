//! File systems of a test's own, and pages in the kernel's pool. Both need root; elsewhere the
//! tests skip, with a notice.

use std::fs::{self, File, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Scratch, skip};

/// A mount that this thread alone sees, unmounted at the end.
pub struct Mounted(PathBuf);

impl Deref for Mounted {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Mounts a tmpfs; `None`, with a notice, where mounting is not possible.
pub fn tmpfs(test: &str, scratch: &Scratch, data: &str) -> Option<Mounted> {
    mounted(test, scratch, "tmpfs", data)
}

/// Mounts a hugetlbfs; `None`, with a notice, where mounting is not possible.
pub fn hugetlbfs(test: &str, scratch: &Scratch, data: &str) -> Option<Mounted> {
    mounted(test, scratch, "hugetlbfs", data)
}

fn mounted(test: &str, scratch: &Scratch, kind: &str, data: &str) -> Option<Mounted> {
    let directory = scratch.path();
    fs::create_dir(&directory).expect("makes the mount point");
    let mounted = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("none"), &directory, Some(kind), MsFlags::empty(), Some(data))
    });
    match mounted {
        Ok(()) => {
            let mounted = Mounted(directory);
            fs::set_permissions(&*mounted, Permissions::from_mode(0o755)).expect("is the mount's");
            Some(mounted)
        }
        Err(errno) => {
            skip(test, &format!("cannot mount a {kind} with {data}: {errno}"));
            None
        }
    }
}

/// The turn of one test at the kernel's pool, so that none takes the pages of another. Also for tests that want more than there is, since they take one on the way.
pub fn pool_turn() -> Result<Flock<File>, String> {
    let turn = File::open("/proc/sys/vm/nr_hugepages").map_err(|cause| cause.to_string())?;
    Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, errno)| format!("no turn: {errno}"))
}

/// Huge pages added to the kernel's pool, taken away at the end. Tests that have some exclude each
/// other, in other processes too.
pub struct HugePages {
    knob: PathBuf,
    before: u64,
    _turn: Flock<File>,
}

impl HugePages {
    /// Adds `count` pages of `page_bytes`; `None`, with a notice, where that is not possible.
    pub fn add(test: &str, page_bytes: u64, count: u64) -> Option<Self> {
        let why = match Self::try_add(page_bytes, count) {
            Ok((pages, got)) if got >= count => return Some(pages),
            Ok((_, got)) => format!("the kernel has {got} of {count} contiguous pages"),
            Err(why) => why,
        };
        skip(test, &format!("huge pages of {page_bytes} bytes: {why}"));
        None
    }

    fn try_add(page_bytes: u64, count: u64) -> Result<(Self, u64), String> {
        let name = format!("hugepages-{}kB/nr_hugepages", page_bytes >> 10);
        let knob = Path::new("/sys/kernel/mm/hugepages").join(name);
        let turn = pool_turn()?;
        let before = read(&knob)?;
        fs::write(&knob, (before + count).to_string()).map_err(|cause| cause.to_string())?;
        // From here on, whatever was added is taken away again.
        let pages = Self { knob, before, _turn: turn };
        let got = read(&pages.knob)?.saturating_sub(before);
        Ok((pages, got))
    }

    /// Pages in the pool now, used or not.
    pub fn total(&self) -> u64 {
        read(&self.knob).expect("was read before")
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(&self.knob, self.before.to_string());
    }
}

fn read(knob: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(knob).map_err(|cause| cause.to_string())?;
    text.trim().parse().map_err(|error| format!("{}: {error}", knob.display()))
}
