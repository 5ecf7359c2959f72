//! Where a segment lives.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Where files named by [`Place::Shm`] are: the tmpfs that every Linux system mounts.
const SHM_DIR: &str = "/dev/shm";
/// Longest file name, in bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// Longest memfd name, in bytes: the kernel puts "memfd:" before it.
const MEMFD_NAME_BYTES_MAX: usize = NAME_BYTES_MAX - "memfd:".len();

/// Where a segment lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `/dev/shm/NAME`. The name has 1 to 255 bytes, no `/`, no NUL, and is not `.` or `..`.
    Shm(String),
    /// A file at this path, on any file system that can map files shared. A relative path is
    /// resolved once, against the working directory at that moment.
    Path(PathBuf),
    /// Memory with a descriptor and no name: it reaches other processes by inheritance or over a
    /// socket, and goes away with its last descriptor and mapping. The name, of at most 249 bytes
    /// and without NUL, only labels it in `/proc`.
    Memfd(String),
}

/// A [`Place`] that was checked.
pub(crate) enum Target {
    Path(PathBuf),
    Memfd(String),
}

impl Place {
    /// Checks the name and makes the path absolute.
    pub(crate) fn resolve(&self) -> Result<Target, Error> {
        match self {
            Self::Shm(name) => {
                check_name(name)?;
                Ok(Target::Path(Path::new(SHM_DIR).join(name)))
            }
            Self::Path(path) => std::path::absolute(path)
                .map(Target::Path)
                .map_err(|cause| Error::syscall("resolve the path", path, cause)),
            Self::Memfd(name) => {
                check_bytes(name, MEMFD_NAME_BYTES_MAX)?;
                Ok(Target::Memfd(name.clone()))
            }
        }
    }
}

/// Refuses what is not a plain file name: a name must not lead out of its directory.
fn check_name(name: &str) -> Result<(), Error> {
    check_bytes(name, NAME_BYTES_MAX)?;
    let refuse = |reason| Err(Error::BadName { name: name.into(), reason });
    match name {
        "" => refuse("it is empty"),
        "." | ".." => refuse("it means a directory"),
        _ if name.contains('/') => refuse("it has a slash"),
        _ => Ok(()),
    }
}

fn check_bytes(name: &str, bytes_max: usize) -> Result<(), Error> {
    let refuse = |reason| Err(Error::BadName { name: name.into(), reason });
    if name.len() > bytes_max {
        return refuse("it is too long");
    }
    if name.contains('\0') {
        return refuse("it has a NUL byte");
    }
    Ok(())
}
