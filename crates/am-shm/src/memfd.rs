//! Segments without a name.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, InitError};
use crate::init::{self, Opened};
use crate::mapping::Mapping;
use crate::options::Options;
use crate::pages::Pages;

/// Makes a memfd and formats it. Nobody else can have its descriptor before this returns, so
/// there is nothing to lock; its guard still says FORMATTING until the end.
pub(crate) fn create<E>(
    name: &str,
    label: &Path,
    options: &Options,
    format: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<Opened, InitError<E>> {
    options.check_for_format()?;
    let file = File::from(open(name, label, options.pages)?);
    init::size(&file, label, options, 0)?;
    seal(&file, label)?;
    init::fill(file, label, options, format)
}

fn open(name: &str, label: &Path, pages: Pages) -> Result<OwnedFd, Error> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | pages.memfd_flags()?;
    memfd_create(name, flags).map_err(|errno| match (pages, errno) {
        // These two say that there is no pool for the size.
        (Pages::Huge(Some(page_bytes)), Errno::ENODEV | Errno::ENOENT) => {
            Error::no_such_pages(page_bytes)
        }
        _ => Error::syscall("create", label, errno),
    })
}

/// Fixes the size for good, and the set of seals: no peer can cut the file short under a mapping,
/// or forbid writing to those who come later.
fn seal(file: &File, label: &Path) -> Result<(), Error> {
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))
        .map(drop)
        .map_err(|errno| Error::syscall("seal the size of", label, errno))
}

/// Tells whether nobody can cut `file` short. Files other than memfds have no seals.
pub(crate) fn is_sealed(file: &File) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK))
}
