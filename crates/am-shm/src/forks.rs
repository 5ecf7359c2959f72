//! What a fork must not take along: descriptors that hold locks, and the word that says who made
//! them.
//!
//! A forked child inherits every descriptor, and with it a share in each description: the parent's
//! locks would outlive the parent. So the descriptors that hold locks are entered in a list, and a
//! handler closes them in the child before `fork` returns there. The handler takes no lock and
//! allocates nothing, for the child may have been forked while another thread held any lock.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use memmap2::{MmapMut, MmapRaw};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};

use crate::error::Error;

/// No descriptor: the slot is free.
const NONE: RawFd = -1;
/// Most often that a descriptor is opened anew because the process forked meanwhile.
const ATTEMPTS_MAX: u32 = 1_000;
/// Pause between two such attempts.
const POLL: Duration = Duration::from_millis(1);

// --- the list of descriptors --------------------------------------------------------------------

/// A place for one descriptor. Slots are never freed, only used again.
#[derive(Debug)]
struct Slot {
    fd: AtomicI32,
    /// Does not change once the slot is in the list.
    next: AtomicPtr<Slot>,
}

static FIRST: AtomicPtr<Slot> = AtomicPtr::new(null_mut());

fn slots() -> impl Iterator<Item = &'static Slot> {
    let follow = |link: &AtomicPtr<Slot>| {
        let slot = link.load(Ordering::Acquire);
        // SAFETY: null, or a slot that was leaked for this list and is only ever shared.
        unsafe { slot.as_ref() }
    };
    std::iter::successors(follow(&FIRST), move |last| follow(&last.next))
}

/// Enters a descriptor in a free slot, or in a new one.
fn enter(fd: RawFd) -> &'static Slot {
    let take = |slot: &&Slot| {
        slot.fd.compare_exchange(NONE, fd, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    };
    if let Some(slot) = slots().find(take) {
        return slot;
    }
    let next = AtomicPtr::new(null_mut());
    let slot: &Slot = Box::leak(Box::new(Slot { fd: AtomicI32::new(fd), next }));
    let mut first = FIRST.load(Ordering::Acquire);
    // Goes round only when another thread of this process has entered a slot meanwhile.
    loop {
        slot.next.store(first, Ordering::Relaxed);
        let link = std::ptr::from_ref(slot).cast_mut();
        match FIRST.compare_exchange(first, link, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return slot,
            Err(newer) => first = newer,
        }
    }
}

// --- the handlers -------------------------------------------------------------------------------

/// How many forks of this process have begun, and how many of these are over. Between the two, a
/// child may get a copy of a descriptor that no slot has yet.
static BEGUN: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicU32 = AtomicU32::new(0);

extern "C" fn before_fork() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_fork_in_parent() {
    // Some C libraries call this, and not the one before, when registered in mid-fork.
    let begun = BEGUN.load(Ordering::SeqCst);
    let _ = OVER.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |over| {
        (over != begun).then(|| over.wrapping_add(1))
    });
}

extern "C" fn after_fork_in_child() {
    // Other threads' forks do not go on in here.
    OVER.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    for slot in slots() {
        let fd = slot.fd.swap(NONE, Ordering::SeqCst);
        if fd != NONE {
            // SAFETY: the number was in the list, so it is the child's copy of a descriptor that
            // only a `Hidden` owns; that one finds itself inherited and never uses the number.
            unsafe { libc::close(fd) };
        }
    }
}

/// Has the handlers run at every fork from now on.
fn watch_forks() -> io::Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    // Two threads at once may both register: twice is as good as once, and nobody has to wait,
    // which a child forked right here could not.
    if WATCHED.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: the handlers live as long as the program, and use only atomics and close(2), which
    // is async-signal-safe.
    let errno = unsafe {
        libc::pthread_atfork(
            Some(before_fork),
            Some(after_fork_in_parent),
            Some(after_fork_in_child),
        )
    };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    WATCHED.store(true, Ordering::Release);
    Ok(())
}

// --- what is hidden -----------------------------------------------------------------------------

/// A file that forked children do not keep open.
#[derive(Debug)]
pub(crate) struct Hidden {
    file: ManuallyDrop<File>,
    slot: &'static Slot,
    alive: Alive,
}

impl Hidden {
    /// Opens a file with `open`, again if the process forks meanwhile.
    ///
    /// # Errors
    /// Those of `open`; [`Error::Syscall`] when the kernel refuses the page that tells of forks,
    /// or the process forks all the time.
    pub(crate) fn open(path: &Path, open: impl Fn() -> Result<File, Error>) -> Result<Self, Error> {
        let fail = |cause| Error::syscall("watch for forks, to lock bytes of", path, cause);
        watch_forks().map_err(fail)?;
        for _ in 0..ATTEMPTS_MAX {
            let begun = BEGUN.load(Ordering::SeqCst);
            if OVER.load(Ordering::SeqCst) == begun {
                let file = open()?;
                let alive = Alive::new().map_err(fail)?;
                let slot = enter(file.as_raw_fd());
                let hidden = Self { file: ManuallyDrop::new(file), slot, alive };
                if BEGUN.load(Ordering::SeqCst) == begun {
                    return Ok(hidden);
                }
            }
            sleep(POLL);
        }
        Err(fail(io::Error::new(io::ErrorKind::ResourceBusy, "this process forks all the time")))
    }

    /// The file; `None` in a child that inherited it.
    pub(crate) fn file(&self) -> Option<&File> {
        (!self.is_inherited()).then_some(&*self.file)
    }

    /// The word that is 1 here and 0 in every child.
    pub(crate) fn alive(&self) -> &AtomicU32 {
        &self.alive.words()[0]
    }

    fn is_inherited(&self) -> bool {
        // Not the word that is given out: whoever writes to that one must do no harm.
        self.alive.words()[1].load(Ordering::Relaxed) == 0
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // In a child the number is closed, or may be another file's by now. After a raw clone it
        // is still open: its slot stays taken, and a fork of the child's own will close it.
        if self.is_inherited() {
            return;
        }
        // A child forked between the two keeps a copy, without the locks, which are given up by
        // now. The other way round it would close whatever has got the number meanwhile.
        if self.slot.fd.swap(NONE, Ordering::SeqCst) != NONE {
            // SAFETY: this is the only place that drops the file, and `self` is not used after.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// Words that are 1 in the process that made them, and 0 in every process forked from that one.
///
/// The kernel itself wipes their page in a child, whichever system call made the child.
#[derive(Debug)]
struct Alive {
    page: MmapRaw,
}

/// The word to give out, and the one to go by.
type AliveWords = [AtomicU32; 2];

impl Alive {
    fn new() -> io::Result<Self> {
        let page = MmapRaw::from(MmapMut::map_anon(size_of::<AliveWords>())?);
        let start =
            NonNull::new(page.as_mut_ptr().cast()).ok_or_else(|| io::Error::from(Errno::ENOMEM))?;
        // SAFETY: this changes what forks do to a page that nothing else uses.
        unsafe { madvise(start, page.len(), MmapAdvise::MADV_WIPEONFORK) }?;
        let alive = Self { page };
        alive.words().iter().for_each(|word| word.store(1, Ordering::Relaxed));
        Ok(alive)
    }

    fn words(&self) -> &AliveWords {
        // SAFETY: the page is aligned, long enough, mapped as long as `self` lives, and used as
        // these words only; a child gets a page of zeroes of its own in its place.
        unsafe { &*self.page.as_ptr().cast::<AliveWords>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> Result<File, Error> {
        Ok(File::open("/dev/null").expect("opens"))
    }

    #[test]
    fn open_with_a_fork_in_its_midst_opens_anew() {
        let calls = AtomicU32::new(0);
        let open = || {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                before_fork();
                after_fork_in_parent();
            }
            null()
        };
        let hidden = Hidden::open(Path::new("null"), open).unwrap();
        assert!(calls.into_inner() >= 2, "a child has a copy of the only descriptor");
        assert!(hidden.file().is_some());
    }

    #[test]
    fn open_while_a_fork_is_under_way_waits_for_its_end() {
        before_fork();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(20 * POLL);
                is_over.store(true, Ordering::SeqCst);
                after_fork_in_parent();
            });
            let open = || {
                assert!(is_over.load(Ordering::SeqCst), "opened while a fork was under way");
                null()
            };
            Hidden::open(Path::new("null"), open).unwrap();
        });
    }

    #[test]
    fn descriptors_hidden_in_turn_use_the_same_slots() {
        for _ in 0..100 {
            Hidden::open(Path::new("null"), null).unwrap();
        }
        assert!(slots().count() < 10, "{} slots", slots().count());
    }
}
