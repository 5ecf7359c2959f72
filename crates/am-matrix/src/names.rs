//! Names: a directory in the segment, by which processes find common blocks.
//!
//! Whoever changes the directory holds a lock of the kernel's, which falls when its holder dies. Readers take
//! none. A change goes through three stores, and a death at any point leaves either what was before or what
//! comes after, once the entry is *settled*:
//!
//! | dies | entry | block | settled as |
//! |---|---|---|---|
//! | **create** before the entry says that it changes | free | the dead's | – ; the block goes back |
//! | after that | changing | the dead's | free; the block goes back |
//! | after the block became common | changing | common | ready: the name is there |
//! | after the entry says that it is ready | ready | common | – |
//! | **remove** before the entry says that it changes | ready | common | – |
//! | after that | changing | common | ready: the name is still there |
//! | after the block was adopted | changing | the dead's | free; the block goes back |
//! | after the entry says that it is free | free | the dead's | – ; the block goes back |
//!
//! So one rule settles an entry in change whose changer is dead: ready if its block is common, else free.
//! Whoever changes names next does so, and so does a recoverer, *before* it gives the dead's blocks back: as
//! long as the entry is unsettled, the block that it names is what its changer left, and nobody else's.

use crate::attachment::Attachment;
use crate::block::Block;
use crate::common::Common;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::part::Part;
use crate::stats::Violation;
use crate::topics::{SERVICE_KIND, TOPIC_KIND};
use am_layout::names::{BadName, Entry, NAME_BYTES_MAX, NAMES, Named, Names, Phase};
use am_layout::{NAMES_AT_BYTES, Name, SECTORS};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The byte of the segment whose lock the one who changes names holds: the directory's first.
pub(crate) const NAMES_LOCK_BYTE: u64 = NAMES_AT_BYTES;
/// How long a call waits for others who change names.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(1);

/// A common block that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedBlock {
    /// What it is called.
    pub name: Name,
    /// What its maker said it is.
    pub kind: u32,
    /// Where it lies and how long it is.
    pub block: Common,
}

impl Matrix {
    /// Makes a block common and gives it a name, for others to find it by.
    ///
    /// `name` has 1 to 48 bytes; `kind` is any number, by which users tell apart what lives in blocks. What
    /// was written to the block is visible to whoever opens it. If this process dies in the call, the name
    /// is there with its block, or neither is. Takes locks of the kernel's, and waits for others who change
    /// names, at most 5 seconds.
    ///
    /// # Errors
    /// [`Error::KindReserved`] for topics' and services' kinds; [`Error::NameEmpty`], [`Error::NameTooLong`],
    /// [`Error::NameTaken`], [`Error::TooManyNames`] when
    /// there are 64, [`Error::NamesBusy`], [`Error::Locks`], [`Error::OtherMatrix`], [`Error::Forked`];
    /// the block goes back then. [`Error::Corrupt`] or [`Error::NameDamaged`] when somebody scribbled.
    pub fn create_named(&self, name: &str, kind: u32, block: Block<'_>) -> Result<Common, Error> {
        if [TOPIC_KIND, SERVICE_KIND].contains(&kind) {
            return Err(Error::KindReserved { kind });
        }
        // SAFETY: it is none of those kinds.
        unsafe { self.create_named_as(name, kind, block) }
    }

    /// As [`create_named`](Self::create_named), of any kind.
    ///
    /// # Errors
    /// As [`create_named`](Self::create_named), but for the kind.
    ///
    /// # Safety
    /// If it is the kind of topics, or of services, the block holds such, and nobody uses it in another way.
    #[doc(hidden)]
    pub unsafe fn create_named_as(
        &self,
        name: &str,
        kind: u32,
        block: Block<'_>,
    ) -> Result<Common, Error> {
        let name = read_name(name)?;
        let offset = block.offset();
        if !block.belongs_to(self) {
            return Err(Error::OtherMatrix { offset });
        }
        self.change_names(|names, owner| {
            if let Some((_, taken)) = find(&names, &name) {
                return Err(Error::NameTaken { offset: taken.offset });
            }
            let free = names.entries().find(|entry| entry.state().phase() == Phase::Free);
            let entry = free.ok_or(Error::TooManyNames { maximum: NAMES as u32 })?;
            entry.write(&name, kind, offset);
            let state = entry.state();
            let changing = state.changing(owner);
            if !entry.change(state, changing) {
                return Err(Error::NameDamaged { offset });
            }
            match block.into_common() {
                Ok(common) if entry.change(changing, changing.ready()) => Ok(common),
                Ok(_) => Err(Error::NameDamaged { offset }),
                Err(error) => {
                    // If it does not work, somebody scribbled; the error says so already.
                    let _ = entry.change(changing, changing.free());
                    Err(error)
                }
            }
        })
    }

    /// Finds a common block by its name and kind.
    ///
    /// It may be removed at any time by whoever may do so. A name whose maker or remover died on the way is
    /// found once somebody recovered, or changed names. Wait-free: a look at 64 entries, no lock.
    ///
    /// # Errors
    /// [`Error::NameEmpty`], [`Error::NameTooLong`], [`Error::NoSuchName`], [`Error::WrongKind`];
    /// [`Error::NotAPayload`] or [`Error::NotCommon`] when somebody scribbled, or removed the name at this
    /// moment.
    pub fn open_named(&self, name: &str, kind: u32) -> Result<Common, Error> {
        let (_, named) = find(&self.directory(), &read_name(name)?).ok_or(Error::NoSuchName)?;
        of_kind(&named, kind)?;
        self.common(named.offset)
    }

    /// Every name there is, with its block.
    ///
    /// Beside others who change names a picture that was true entry by entry.
    pub fn names(&self) -> impl Iterator<Item = NamedBlock> {
        let entries = self.directory().entries();
        entries.filter_map(move |entry| {
            let Named { name, kind, offset, .. } = entry.read()?;
            Some(NamedBlock { name, kind, block: self.common(offset).ok()? })
        })
    }

    /// Takes a name away, and its block with it: the block becomes a guard's, as by
    /// [`adopt_common`](Self::adopt_common).
    ///
    /// If this process dies in the call, the name is there with its block, or neither is. Waits as
    /// [`create_named`](Self::create_named).
    ///
    /// # Errors
    /// As [`open_named`](Self::open_named); [`Error::NamesBusy`], [`Error::Locks`], [`Error::Forked`];
    /// nothing is changed then. [`Error::NameDamaged`] when somebody scribbled; the block goes back.
    ///
    /// # Safety
    /// As [`adopt_common`](Self::adopt_common), for the block of that name.
    pub unsafe fn remove_named(&self, name: &str, kind: u32) -> Result<Block<'_>, Error> {
        let name = read_name(name)?;
        self.change_names(|names, owner| {
            let (entry, named) = find(&names, &name).ok_or(Error::NoSuchName)?;
            of_kind(&named, kind)?;
            let offset = named.offset;
            self.common(offset)?;
            let changing = named.state.changing(owner);
            if !entry.change(named.state, changing) {
                return Err(Error::NameDamaged { offset });
            }
            // SAFETY: promised by the caller.
            let adopted = unsafe { self.adopt_common(offset) };
            let rest = if adopted.is_ok() { changing.free() } else { changing.ready() };
            let changed = entry.change(changing, rest);
            adopted.and_then(
                |block| if changed { Ok(block) } else { Err(Error::NameDamaged { offset }) },
            )
        })
    }

    /// Entries that are no names of common blocks, with nobody changing names.
    pub(crate) fn check_names(&self) -> impl Iterator<Item = Violation> {
        self.directory().entries().enumerate().filter_map(|(number, entry)| {
            let right = match entry.state().phase() {
                Phase::Free => true,
                Phase::Ready => entry.read().is_some_and(|named| self.common(named.offset).is_ok()),
                Phase::Changing { .. } => false,
            };
            let wrong = Violation::BadName { entry: number as u32, offset: entry.offset() };
            (!right).then_some(wrong)
        })
    }

    /// The directory.
    fn directory(&self) -> Names<'_> {
        self.attachment().names()
    }

    /// Changes names as the only one who does, after what dead changers left is settled. `change` is told how
    /// this participant is called in entries.
    fn change_names<T>(
        &self,
        change: impl FnOnce(Names<'_>, u32) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.lanes()?; // not in a forked child
        let attachment = self.attachment();
        let names = self.directory();
        attachment.while_naming(|| {
            for entry in names.entries() {
                // Its changer held the lock, and does not now.
                settle(&entry, self.all_parts());
            }
            change(names, attachment.owner())
        })
    }
}

impl Attachment {
    /// Does something as the only one, in any process, who changes names.
    fn while_naming<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let begin = Instant::now();
        loop {
            // The kernel's lock is the attachment's: among its own threads, the mutex decides.
            let mutex = match self.naming.try_lock() {
                Ok(mutex) => Some(mutex),
                // Whoever panicked left the directory as one who died, to be settled.
                Err(std::sync::TryLockError::Poisoned(poison)) => {
                    Some(PoisonError::into_inner(poison))
                }
                Err(std::sync::TryLockError::WouldBlock) => None,
            };
            if let Some(_mutex) = mutex
                && self.liveness().try_lock(NAMES_LOCK_BYTE).map_err(Error::locks)?
            {
                let _lock = NamesLock(self);
                return act();
            }
            let waited = begin.elapsed();
            if waited >= PATIENCE {
                return Err(Error::NamesBusy { waited_ms: waited.as_millis() as u64 });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The kernel's lock on the directory, held.
struct NamesLock<'a>(&'a Attachment);

impl Drop for NamesLock<'_> {
    fn drop(&mut self) {
        // Giving up a lock of one's own has no way to fail that closing would not put right.
        let _ = self.0.liveness().unlock(NAMES_LOCK_BYTE);
    }
}

/// Ends the change of an entry whose changer is dead: as a name if its block is common, else as none. An
/// entry that is in no change stays as it is.
fn settle(entry: &Entry<'_>, parts: &[Option<Part<'_>>; SECTORS]) {
    let state = entry.state();
    if let Phase::Changing { .. } = state.phase() {
        let offset = entry.offset();
        let common = parts.iter().flatten().any(|part| part.has_common(offset));
        // An exchange: a recoverer may settle it at the same time, and then have the block given back. What
        // was looked at above was the changer's block as long as the entry is as it was.
        let _ = entry.change(state, if common { state.ready() } else { state.free() });
    }
}

/// Settles what dead changers left, for the one recoverer, before it gives their blocks back.
pub(crate) fn settle_dead(
    names: Names<'_>,
    parts: &[Option<Part<'_>>; SECTORS],
    is_dead: impl Fn(u32) -> bool,
) {
    for entry in names.entries() {
        if let Phase::Changing { by } = entry.state().phase()
            && is_dead(by)
        {
            settle(&entry, parts);
        }
    }
}

fn find<'a>(names: &Names<'a>, name: &Name) -> Option<(Entry<'a>, Named)> {
    names.entries().find_map(|entry| {
        let named = entry.read()?;
        (named.name == *name).then_some((entry, named))
    })
}

fn of_kind(named: &Named, expected: u32) -> Result<(), Error> {
    let seen = named.kind;
    if seen == expected { Ok(()) } else { Err(Error::WrongKind { seen, expected }) }
}

fn read_name(text: &str) -> Result<Name, Error> {
    Name::new(text).map_err(|BadName { bytes }| match bytes {
        0 => Error::NameEmpty,
        _ => Error::NameTooLong { bytes, maximum_bytes: NAME_BYTES_MAX },
    })
}
