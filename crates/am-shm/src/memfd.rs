//! Segments without a name.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, InitError};
use crate::init::{self, Opened};
use crate::mapping::Mapping;
use crate::options::Options;

/// Makes a memfd and formats it. Nobody else can have its descriptor before this returns, so
/// there is nothing to lock; its guard still says FORMATTING until the end.
pub(crate) fn create<E>(
    name: &str,
    label: &Path,
    options: &Options,
    format: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<Opened, InitError<E>> {
    options.check_for_format()?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(name, flags).map_err(|errno| Error::syscall("create", label, errno))?;
    let file = File::from(fd);
    init::size(&file, label, options, 0)?;
    seal(&file, label)?;
    let (mapping, advised) = init::fill(&file, label, options, format)?;
    Ok(Opened { file, mapping, advised, formatted_here: true })
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
