//! Files by name: opened without following links, checked, sized, removed.

use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use am_layout::guard::GUARD_BYTES;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::libc::off_t;
use nix::unistd::geteuid;

use crate::error::Error;
use crate::pages::FilePages;
use crate::pool;

/// Bytes reserved by one call: small enough to finish between two signals.
const RESERVE_BYTES: u64 = 16 << 20;
/// Most interruptions by signals that one such call may suffer.
const INTERRUPTS_MAX: u32 = 1_000;

/// Unit of the blocks that `stat` counts, in bytes.
const BLOCK_BYTES: u64 = 512;
/// The sticky bit: see [`is_unborn`].
const UNBORN: u32 = 0o1000;

/// Which file it is, whatever names it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self, Error> {
        Ok(Self::from(&stat(file, path)?))
    }

    /// Tells whether `path` names this file now.
    pub(crate) fn is_named(self, path: &Path) -> Result<bool, Error> {
        match path.symlink_metadata() {
            Ok(meta) => Ok(self == Self::from(&meta)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::syscall("look up", path, cause)),
        }
    }

    /// Removes the name `path` if it means this file. The caller holds the file's lock: a name is
    /// only ever removed under the lock of the file it means, so it cannot have become another
    /// file's between the look and the removal.
    pub(crate) fn unlink(self, path: &Path) -> Result<(), Error> {
        let gone = || Error::AlreadyGone { path: path.into() };
        if !self.is_named(path)? {
            return Err(gone());
        }
        std::fs::remove_file(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => gone(),
            _ => Error::syscall("unlink", path, cause),
        })
    }
}

impl From<&Metadata> for Identity {
    fn from(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// Opens an existing file for reading and writing, and [vets](vet) it.
pub(crate) fn open(path: &Path, any_owner: bool) -> Result<File, Error> {
    let file = options().open(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.into() },
        _ => refused_open(path, cause),
    })?;
    vet(&file, path, any_owner)?;
    Ok(file)
}

/// Creates a file that must not exist, with exactly the permissions of `mode`.
pub(crate) fn create_new(path: &Path, mode: u32) -> Result<File, Error> {
    let file =
        options().create_new(true).mode(mode).open(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
            _ => Error::syscall("create", path, cause),
        })?;
    // The umask may have taken bits away. It adds none, so the file was never open to more.
    if let Err(error) = set_mode(&file, path, mode) {
        let _ = Identity::of(&file, path).and_then(|identity| identity.unlink(path));
        return Err(error);
    }
    Ok(file)
}

/// Opens the same file anew, for reading and writing: a description of its own.
///
/// By `path` while that means this very file, else through `/proc`, which needs no name.
pub(crate) fn reopen(file: &File, path: Option<&Path>, label: &Path) -> Result<File, Error> {
    let identity = Identity::of(file, label)?;
    let is_same = |again: &File| Identity::of(again, label).is_ok_and(|other| other == identity);
    // Looked up first, so that nothing else under the name is even opened.
    let named = path.filter(|path| identity.is_named(path).unwrap_or(false));
    if let Some(again) = named.and_then(|path| options().open(path).ok()).filter(is_same) {
        return Ok(again);
    }
    // A link of `/proc` leads to the file itself, whatever became of its name, so it is followed.
    // The thread's, since a thread can have descriptors of its own.
    let link = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let fail = |kind, why: &dyn Display| {
        let cause = io::Error::new(kind, format!("no path leads to it, and {link}: {why}"));
        Error::syscall("reopen", label, cause)
    };
    // The flags that `options` has, but for O_NOFOLLOW; the standard library adds O_CLOEXEC.
    let again = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(&link)
        .map_err(|cause| fail(cause.kind(), &cause))?;
    match is_same(&again) {
        true => Ok(again),
        false => Err(fail(io::ErrorKind::Other, &"it is another file")),
    }
}

/// The one way files are opened by name. Non-blocking, so that a device with this name is refused
/// and not waited for; it means nothing to a regular file. A named pipe, opened for both, does not wait for another end.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    options.read(true).write(true).custom_flags(flags.bits());
    options
}

/// The error of an open that failed: says what the name means, when that is the reason.
fn refused_open(path: &Path, cause: io::Error) -> Error {
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => not_regular(path, &meta),
        _ => Error::syscall("open", path, cause),
    }
}

/// Requires a regular file of this process's user (of any, with `any_owner`).
pub(crate) fn vet(file: &File, path: &Path, any_owner: bool) -> Result<(), Error> {
    let meta = stat(file, path)?;
    if !meta.is_file() {
        return Err(not_regular(path, &meta));
    }
    if !any_owner && meta.uid() != geteuid().as_raw() {
        return Err(Error::ForeignOwner { path: path.into(), uid: meta.uid() });
    }
    Ok(())
}

fn not_regular(path: &Path, meta: &Metadata) -> Error {
    Error::NotARegularFile { path: path.into(), kind: kind_of(meta) }
}

/// What sort of file it is, in words.
pub(crate) fn kind_of(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => "regular file",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () => "file of unknown type",
    }
}

pub(crate) fn stat(file: &File, path: &Path) -> Result<Metadata, Error> {
    file.metadata().map_err(|cause| Error::syscall("stat", path, cause))
}

/// Gives an own file exactly the permissions of `mode`; somebody else's keeps what it has.
pub(crate) fn set_mode(file: &File, path: &Path, mode: u32) -> Result<(), Error> {
    let meta = stat(file, path)?;
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|cause| Error::syscall("set the mode of", path, cause))
}

/// Sets the size, with nothing but zeroes behind the guard.
pub(crate) fn resize(file: &File, path: &Path, size_bytes: u64) -> Result<(), Error> {
    // Cut down to the guard first: this frees what a dead formatter wrote, and the guard never
    // stops saying that the file is ours and unfinished.
    file.set_len(GUARD_BYTES as u64)
        .and_then(|()| file.set_len(size_bytes))
        .map_err(|cause| Error::space("set the size of", path, size_bytes, cause))
}

/// Cuts a file of huge pages down to nothing and gives it one page of zeroes, [unborn](is_unborn)
/// until [`set_mode`].
///
/// Somebody else's file cannot be marked so. If its formatter dies before the guard is written, the
/// file is refused from then on, for nothing tells it from a file of zeroes.
pub(crate) fn renew_unborn(
    file: &File,
    path: &Path,
    mode: u32,
    page_bytes: u64,
) -> Result<(), Error> {
    set_mode(file, path, mode | UNBORN)?;
    file.set_len(0)
        .and_then(|()| file.set_len(page_bytes))
        .map_err(|cause| Error::syscall("set the size of", path, cause))
}

/// Tells whether a file of huge pages has its first page and no guard yet.
///
/// Such a file cannot be written to, only be mapped, which takes a size first. So it bears the
/// sticky bit, which means nothing else on a file, from before it has a size until it has a guard:
/// whoever finds it with nothing but zeroes knows that they are nobody's.
pub(crate) fn is_unborn(file: &File, path: &Path) -> Result<bool, Error> {
    Ok(stat(file, path)?.mode() & UNBORN != 0 && FilePages::of(file, path)?.huge)
}

/// Bytes that exist of the file, in whole blocks.
pub(crate) fn allocated_bytes(file: &File, path: &Path) -> Result<u64, Error> {
    Ok(stat(file, path)?.blocks() * BLOCK_BYTES)
}

/// Allocates every page of the file.
pub(crate) fn reserve(file: &File, path: &Path, size_bytes: u64) -> Result<(), Error> {
    let mut from = 0;
    while from < size_bytes {
        let len = RESERVE_BYTES.min(size_bytes - from);
        reserve_slice(file, from as off_t, len as off_t).map_err(|errno| {
            let lacks = [Errno::ENOSPC, Errno::ENOMEM];
            pool::lack(file, path, size_bytes, errno.into(), &lacks, |cause| {
                Error::space("reserve the pages of", path, size_bytes, cause)
            })
        })?;
        from += len;
    }
    Ok(())
}

fn reserve_slice(file: &File, from: off_t, len: off_t) -> Result<(), Errno> {
    for _ in 0..INTERRUPTS_MAX {
        match fallocate(file, FallocateFlags::empty(), from, len) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
    Err(Errno::EINTR)
}
