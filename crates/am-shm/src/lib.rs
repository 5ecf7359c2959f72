//! A shared-memory segment: one file, mapped shared, formatted exactly once.
//!
//! The file lies in `/dev/shm`, at any path, or nowhere (a memfd). However many processes come at
//! the same moment, one of them formats the segment and the others find it ready; if that one dies
//! half-way, another begins anew. What "format" means is the caller's closure: this crate knows
//! the first 16 bytes and nothing of the rest. After a segment is open, using it needs neither this
//! crate nor the kernel.
//!
//! ```
//! use am_shm::{Options, Place, Segment};
//!
//! let place = Place::Shm(format!("am-shm-example-{}", std::process::id()));
//! let options = Options { size_bytes: 1 << 20, ..Options::default() };
//!
//! // The first one formats: here, word 4 (the first behind the guard) becomes 7.
//! let first = Segment::open_or_create(&place, &options, |mapping| {
//!     // SAFETY: these bytes are used as words only.
//!     let words = unsafe { mapping.words(16, 1) }.ok_or("too small")?;
//!     words[0].store(7);
//!     Ok::<(), &str>(())
//! })?;
//! assert!(first.formatted_here());
//!
//! // Another one, in this process or any other, finds it ready.
//! let second = Segment::open(&place, &options)?;
//! // SAFETY: these bytes are used as words only.
//! let words = unsafe { second.mapping().words(16, 1) }.unwrap();
//! assert_eq!(words[0].load(), 7);
//!
//! first.destroy()?;
//! assert!(Segment::open(&place, &options).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The init guard
//!
//! The first 16 bytes are four words, in the byte order of the machine ([`am_layout::guard`] has
//! the constants):
//!
//! | byte | word | meaning |
//! |---|---|---|
//! | 0 | state | UNINITIALIZED 0 → FORMATTING 1 → READY 2; READY stays |
//! | 4 | magic | "AMx2" |
//! | 8 | version | of the layout; others are refused |
//! | 12 | takeovers | how often a formatter was replaced |
//!
//! # How one formatter is found
//!
//! - Whoever sees READY maps the file and is done; no lock is taken.
//! - Whoever does not tries an open-file-description write lock on the guard's bytes, every
//!   millisecond, for at most [`Options::wait`]; then it is [`Error::FormatterStalled`]. The lock
//!   sits on a description of its own, which is never mapped, and the kernel drops it when its
//!   holder dies. Two threads exclude each other like two processes.
//! - Under the lock it checks that the name still means the locked file, else it begins again. It
//!   writes FORMATTING with magic and version, gives the file its size, maps it, calls the closure,
//!   stores READY (release), and gives the lock up.
//! - Whoever finds FORMATTING under its own lock knows that the formatter died or failed. It counts
//!   `takeovers` up, cuts the file down to the guard and lets it grow again, so that it holds
//!   zeroes, and formats anew. Nobody maps a file before READY, so nobody is cut off.
//! - A formatter that fails or panics removes the file it created, still under the lock.
//!   [`Segment::destroy`] removes the name under the lock too, so a name never passes to another
//!   file between the look and the removal.
//!
//! All this holds among processes that use this crate; nothing keeps others with the permission
//! from writing to the file. A file on a disk is not made durable: after a power loss, make it anew.
//!
//! # Why a file of zeroes is refused
//!
//! A formatter that gave the file its size first and wrote the guard second could die in between,
//! and leave a file of zeroes that nothing tells from somebody's fresh disk image. Here the guard
//! comes first, in one write to the empty file; a takeover rewrites it before it cuts the file
//! down, and never cuts into it. So at every instant an unfinished file of ours is either empty or
//! begins with our magic: an empty file may be formatted, for it holds nothing that could be lost,
//! and anything else without the magic is [`Error::NotASegment`], zeroes included.
//!
//! On a hugetlbfs files can be mapped but not written to, so there the size comes first, of one page,
//! and the guard second, through a mapping, its magic last. In between the file holds zeroes, and
//! bears the sticky bit, set while it was still empty: a file with that bit, on a hugetlbfs, without
//! the magic counts as empty. A takeover sets the bit again, cuts the file down to nothing, and goes
//! on from there; if it dies before the guard is back, the count of takeovers begins anew.
//!
//! # Who is alive
//!
//! [`Segment::locks`] gives locks on single bytes of the file, for processes to tell by them
//! whether others are alive: each locks a byte that the parties agreed upon, and as long as it
//! lives, [`Locks::is_locked_elsewhere`] says so to everybody else.
//!
//! - The kernel drops the locks of a process that dies, by `SIGKILL` too, in whatever PID
//!   namespace, and before its zombie is reaped. A process that is stopped keeps them. No PID is
//!   involved, so none can be mistaken for another's.
//! - They are open-file-description locks, on a description that is opened anew for each [`Locks`],
//!   and never mapped or duplicated: nothing but its own descriptor keeps it alive. `exec` closes
//!   that one.
//! - A forked child would inherit it, and the parent's locks would outlive the parent. A handler
//!   that runs at every `fork` (`pthread_atfork`) closes it in the child before `fork` returns
//!   there. The child's copy of the [`Locks`] refuses everything with "inherited by fork", and
//!   dropping it does nothing; a child that wants locks makes its own.
//! - A child made by a system call that runs no handlers (a raw `clone`, `_Fork`) keeps the
//!   parent's locks until it execs or exits. That delays the notice of the parent's death; it never
//!   lets a living process seem dead. So does a fork in the very instant in which the first
//!   [`Locks`] of the process are being made.
//! - [`Locks::alive`] is a word that the kernel sets to 0 in every child, however made: a cheap way
//!   to ask "is it still me?".
//!
//! # Waiting
//!
//! Processes sleep on words of a segment ([`futex_wait`]), at a [`Berth`] where no wake is lost, by a
//! [`WaitStrategy`]; or they poll a [`Bell`].
//!
//! # Pages
//!
//! | asked for | is | told by |
//! |---|---|---|
//! | [`Pages::Transparent`] | a wish to the kernel for huge pages, as they are to be had | [`Segment::hugepages`]; [`Residence::huge_bytes`] |
//! | [`Pages::Huge`], for a memfd or on a hugetlbfs mount | a promise: all pages from the pool, set aside at mapping, or an error | [`Segment::hugepages`], [`Residence::page_bytes`] |
//! | [`Options::reserve`] | a promise: the file's pages exist, for everybody, or [`Error::NoSpace`] | [`Residence::allocated_bytes`] |
//! | [`Options::prefault`] | a promise for the moment: they are in this process's page tables, or an error; swapping takes them out | [`Residence::mapped_bytes`] |
//! | `Options::bind`, `Segment::bind` (feature `numa`) | a promise on tmpfs, hugetlbfs and memfds, nothing elsewhere: pages that come later come from a node | `Bound`, `Segment::nodes` |
//!
//! # What can go wrong later
//!
//! Pages come as they are first touched. On a full file system that touch is a `SIGBUS`, unless
//! [`Options::reserve`] allocated them all at the start. Huge pages of the pool are set aside at
//! mapping; a touch may still be refused by a control group's limit or by a node they are bound to,
//! a `SIGBUS` too, which `reserve` and `prefault` find out first. So is a touch beyond the end of a file
//! that somebody cut short: a memfd made here is sealed against it, and [`Segment::sealed`] tells
//! about one that was passed in; a named file is protected by its permissions alone, which is why
//! another user's is refused ([`Error::ForeignOwner`]).
//!
//! Linux only: the locks, memfds and seals are Linux's.

// The model checker's words are not plain memory, so a model build has no segments.
#![cfg(not(loom))]

#[cfg(not(target_os = "linux"))]
compile_error!("am-shm needs Linux: open-file-description locks, memfd and seals");

mod error;
mod file;
mod forks;
mod guard;
mod hugepages;
mod init;
mod lock;
mod locks;
mod mapping;
mod memfd;
#[cfg(feature = "numa")]
mod mempolicy;
#[cfg(feature = "numa")]
mod numa;
mod options;
mod pages;
mod patience;
mod place;
mod pool;
mod prefault;
mod residence;
mod segment;
mod smaps;
mod wait;

pub use error::{Error, InitError};
pub use hugepages::Hugepages;
pub use locks::Locks;
pub use mapping::Mapping;
#[cfg(feature = "numa")]
pub use numa::{Binding, Bound, Nodes};
pub use options::Options;
pub use pages::Pages;
pub use place::Place;
pub use pool::HugePool;
pub use residence::Residence;
pub use segment::Segment;
pub use wait::{
    Bell, Berth, Ringer, SLICE_MAX, SLICE_MIN, Slept, WaitStrategy, Waiter, futex_wait, futex_wake,
};
