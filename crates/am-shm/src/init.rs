//! The init protocol: who formats, who waits, who takes over.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, InitError};
use crate::file::{self, Identity};
use crate::guard::{self, Seen};
use crate::hugepages::{self, Advised};
use crate::lock::{self, Attempt, GuardLock};
use crate::mapping::Mapping;
use crate::options::{Options, check_size};
use crate::pages::FilePages;
use crate::patience::Patience;
use crate::prefault::{populate, prefault};

/// How many pauses an empty file is given to get a formatter. Its creator locks it within
/// microseconds, unless it died in between.
const NEWBORN_PAUSES: u32 = 100;

/// A segment that is ready and mapped.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) mapping: Mapping,
    pub(crate) advised: Advised,
    #[cfg(feature = "numa")]
    pub(crate) bound: Vec<crate::Bound>,
    pub(crate) formatted_here: bool,
}

/// Whether the file may exist already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Accept,
}

/// Opens the file at `path`; waits while a live process formats it.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened, Error> {
    let mut patience = Patience::new(path, options.wait);
    loop {
        let file = open_named(options, &patience)?;
        let identity = Identity::of(&file, path)?;
        if await_ready(&file, &patience, || identity.is_named(path))? {
            return map_ready(file, path, options);
        }
        patience.begin_anew()?;
    }
}

/// Maps what `file` holds; waits while a live process formats it.
pub(crate) fn attach(file: File, label: &Path, options: &Options) -> Result<Opened, Error> {
    file::vet(&file, label, options.any_owner)?;
    await_ready(&file, &Patience::new(label, options.wait), || Ok(true))?;
    map_ready(file, label, options)
}

/// Creates the file at `path`, or opens it; formats it if this call's turn comes.
pub(crate) fn create<E>(
    path: &Path,
    options: &Options,
    existing: Existing,
    format: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<Opened, InitError<E>> {
    options.check_for_format()?;
    match find_turn(path, options, existing)? {
        Turn::Open(_) if existing == Existing::Refuse => {
            Err(Error::Exists { path: path.into() }.into())
        }
        Turn::Open(file) => Ok(map_ready(file, path, options)?),
        Turn::Format { claim, file, takeovers } => {
            size(&file, path, options, takeovers)?;
            let opened = fill(file, path, options, format)?;
            claim.keep();
            Ok(opened)
        }
    }
}

/// Removes the name `path` if it still means the file `identity`.
pub(crate) fn remove(path: &Path, identity: Identity, options: &Options) -> Result<(), Error> {
    let gone = || Error::AlreadyGone { path: path.into() };
    if !identity.is_named(path)? {
        return Err(gone());
    }
    let mut file = match file::open(path, true) {
        Err(Error::NotFound { .. } | Error::NotARegularFile { .. }) => return Err(gone()),
        opened => opened?,
    };
    if Identity::of(&file, path)? != identity {
        return Err(gone());
    }
    let patience = Patience::new(path, options.wait);
    loop {
        match GuardLock::try_take(file, path)? {
            Attempt::Taken(_lock) => return identity.unlink(path),
            Attempt::Held(back) => file = back,
        }
        patience.pause()?;
    }
}

/// What a call that may format comes to do.
enum Turn<'a> {
    Open(File),
    Format { claim: Claim<'a>, file: File, takeovers: u32 },
}

/// The right to format. Dropped before [`keep`](Self::keep), by an error or a panic, it removes
/// the file that this call created, then gives the lock up: whoever waits for it sees the name
/// gone. A file that others created stays, and says FORMATTING: the next one takes it over.
struct Claim<'a> {
    // Dropped after `drop` below has run: the name goes under the lock.
    lock: GuardLock,
    path: &'a Path,
    identity: Identity,
    created: bool,
}

impl Claim<'_> {
    fn keep(mut self) {
        self.created = false;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.created {
            // The error or panic under way is the one to report.
            let _ = self.identity.unlink(self.path);
        }
    }
}

fn find_turn<'a>(path: &'a Path, options: &Options, existing: Existing) -> Result<Turn<'a>, Error> {
    let mut patience = Patience::new(path, options.wait);
    loop {
        let found = match existing {
            Existing::Refuse => Err(Error::NotFound { path: path.into() }),
            Existing::Accept => open_named(options, &patience),
        };
        let turn = match found {
            Ok(file) => take_turn(file, false, options, &patience)?,
            Err(Error::NotFound { .. }) => match file::create_new(path, options.mode) {
                Ok(file) => take_turn(file, true, options, &patience)?,
                Err(Error::Exists { .. }) if existing == Existing::Accept => None,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if let Some(turn) = turn {
            return Ok(turn);
        }
        patience.begin_anew()?;
    }
}

/// Waits until `file` is ready or its lock is free; `None` when the name means another file by
/// then.
fn take_turn<'a>(
    mut file: File,
    created: bool,
    options: &Options,
    patience: &Patience<'a>,
) -> Result<Option<Turn<'a>>, Error> {
    let path = patience.path();
    let identity = Identity::of(&file, path)?;
    loop {
        let seen = Seen::of(&file, path)?;
        if seen == Seen::Ready {
            return Ok(Some(Turn::Open(file)));
        }
        if seen.is_foreign_for_sure() {
            seen.require_ready(path)?;
        }
        match GuardLock::try_take(file, path) {
            Ok(Attempt::Held(back)) => file = back,
            Ok(Attempt::Taken(lock)) => {
                return under_lock(Claim { lock, path, identity, created }, options);
            }
            Err(error) => {
                // Nothing can be locked here, so nobody else formats this new file either.
                if created {
                    let _ = identity.unlink(path);
                }
                return Err(error);
            }
        }
        patience.pause()?;
    }
}

/// Decides under the lock, where nobody else changes the file.
fn under_lock<'a>(claim: Claim<'a>, options: &Options) -> Result<Option<Turn<'a>>, Error> {
    let path = claim.path;
    // A second description, since the locked one must not be mapped. That it is the same file
    // shows as well that the name was not removed or replaced before the lock was taken.
    let file = match file::open(path, options.any_owner) {
        Err(Error::NotFound { .. }) => return Ok(None),
        opened => opened?,
    };
    if Identity::of(&file, path)? != Identity::of(claim.lock.file(), path)? {
        return Ok(None);
    }
    let takeovers = match Seen::of(&file, path)? {
        Seen::Empty => 0,
        Seen::Half { takeovers } => takeovers.saturating_add(1),
        settled => {
            // Ready, or written by somebody who does not know of locks: no longer this call's.
            claim.keep();
            settled.require_ready(path)?;
            return Ok(Some(Turn::Open(file)));
        }
    };
    Ok(Some(Turn::Format { claim, file, takeovers }))
}

/// Opens the file at `path`. A file that was created this instant may lack permission bits which
/// its creator's umask took away and which it is about to set: such a refusal is waited out.
fn open_named(options: &Options, patience: &Patience<'_>) -> Result<File, Error> {
    let path = patience.path();
    let mut pauses = 0;
    loop {
        match file::open(path, options.any_owner) {
            Err(Error::Syscall { cause, .. })
                if cause.kind() == io::ErrorKind::PermissionDenied
                    && pauses < NEWBORN_PAUSES
                    && path.symlink_metadata().is_ok_and(|meta| meta.len() == 0) =>
            {
                pauses += 1;
                patience.pause()?;
            }
            opened => return opened,
        }
    }
}

/// Waits until `file` is ready; false when it is not, and is no longer named either.
fn await_ready(
    file: &File,
    patience: &Patience<'_>,
    is_named: impl Fn() -> Result<bool, Error>,
) -> Result<bool, Error> {
    let path = patience.path();
    let mut pauses = 0;
    loop {
        let seen = Seen::of(file, path)?;
        if seen == Seen::Ready {
            return Ok(true);
        }
        // An unfinished or odd guard counts when nobody held the lock between two equal looks: a
        // formatter at work shows in one of the three.
        if !seen.is_foreign_for_sure()
            && (lock::is_held(file, path)? || Seen::of(file, path)? != seen)
        {
            patience.pause()?;
            continue;
        }
        if !is_named()? {
            return Ok(false);
        }
        if seen != Seen::Empty || pauses == NEWBORN_PAUSES || patience.pause().is_err() {
            seen.require_ready(path)?;
        }
        pauses += 1;
    }
}

/// Maps a file whose guard was seen to say READY.
fn map_ready(file: File, path: &Path, options: &Options) -> Result<Opened, Error> {
    options.pages.check(FilePages::of(&file, path)?, path)?;
    let len = check_size(file::stat(&file, path)?.len())?;
    let mapping = Mapping::new(&file, len, path)?;
    guard::require_ready(&mapping, path)?;
    let advised = hugepages::advise(&mapping, options.pages);
    if options.prefault {
        prefault(&mapping, &file, path)?;
    }
    Ok(Opened {
        file,
        mapping,
        advised,
        #[cfg(feature = "numa")]
        bound: Vec::new(),
        formatted_here: false,
    })
}

/// Writes the guard of an unfinished file and gives the file its mode and size.
pub(crate) fn size(
    file: &File,
    path: &Path,
    options: &Options,
    takeovers: u32,
) -> Result<(), Error> {
    let pages = FilePages::of(file, path)?;
    options.pages.check(pages, path)?;
    pages.check_size(options.size_bytes, path)?;
    if pages.huge {
        return size_huge(file, path, options, pages.page_bytes, takeovers);
    }
    guard::begin(file, takeovers).map_err(|cause| {
        Error::space("write the init guard of", path, options.size_bytes, cause)
    })?;
    file::set_mode(file, path, options.mode)?;
    file::resize(file, path, options.size_bytes)
}

/// The same for a file of huge pages: it can be mapped and not written to, and its size is always
/// a multiple of a page's.
fn size_huge(
    file: &File,
    path: &Path,
    options: &Options,
    page_bytes: u64,
    takeovers: u32,
) -> Result<(), Error> {
    file::renew_unborn(file, path, options.mode, page_bytes)?;
    let first = Mapping::new(file, check_size(page_bytes)?, path)
        // The page was set aside, but a limit of a control group may still forbid it: an error here.
        .and_then(|first| prefault(&first, file, path).map(|()| first))
        .map_err(|error| error.of_whole(options.size_bytes))?;
    guard::begin_mapped(&first, takeovers);
    file::set_mode(file, path, options.mode)?;
    file.set_len(options.size_bytes)
        .map_err(|cause| Error::space("set the size of", path, options.size_bytes, cause))
}

/// Maps a file that has its size, has the caller format it, and says READY.
pub(crate) fn fill<E>(
    file: File,
    path: &Path,
    options: &Options,
    format: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<Opened, InitError<E>> {
    let mapping = Mapping::new(&file, check_size(options.size_bytes)?, path)?;
    let advised = hugepages::advise(&mapping, options.pages);
    #[cfg(feature = "numa")]
    let bound = crate::numa::bind_all(&mapping, &file, path, &options.bind)?;
    if options.prefault {
        prefault(&mapping, &file, path)?;
    } else if options.reserve && advised == Advised::Asked {
        // Reserving through the descriptor alone would fill the file with small pages, which stay
        // small. Whatever fails here, the reserving meets again and reports.
        let _ = populate(&mapping);
    }
    if options.reserve {
        file::reserve(&file, path, options.size_bytes)?;
    }
    format(&mapping).map_err(InitError::Format)?;
    guard::publish(&mapping);
    Ok(Opened {
        file,
        mapping,
        advised,
        #[cfg(feature = "numa")]
        bound,
        formatted_here: true,
    })
}
