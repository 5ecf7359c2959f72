//! The named pipes of bells: their names, and the two locks on them.
//!
//! A bell's pipe is only ever looked at through its locks, which lie on bytes that a pipe does not
//! have: [`Span::LISTENER`] is held by the reader as long as it lives, and [`Span::NAME`] for a
//! moment, by whoever takes the bell up or removes its name. So a name is never removed while
//! somebody begins to listen at it. The kernel drops both with their holder.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use crate::error::Error;
use crate::file::{self, Identity};
use crate::lock::Span;

/// How a bell's name ends.
const SUFFIX: &str = ".bell";
/// Longest file name, in bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// Permissions of a bell: its user's alone.
const MODE: u32 = 0o600;
/// Longest wait for who takes up or removes the same bell; they take microseconds.
const NAME_WAIT: Duration = Duration::from_secs(1);
/// Pause between two attempts.
const POLL: Duration = Duration::from_millis(1);

/// Where the bell is: `SEGMENT.TOPIC.READER.bell`, beside the segment's file.
///
/// Whatever is not an ASCII letter, a digit, `_` or `-` is written as `%` and two hexadecimal digits
/// a byte, so that a topic cannot lead out of the folder, and no two of them have the same name.
pub(super) fn path_of(segment: &Path, topic: &str, reader: u32) -> Result<PathBuf, Error> {
    let refuse = |reason| Error::BadTopic { segment: segment.into(), topic: topic.into(), reason };
    if topic.is_empty() {
        return Err(refuse("its name is empty"));
    }
    let path = absolute_path(segment)?;
    let mut name = path.file_name().ok_or_else(|| refuse("the segment has no name"))?.to_owned();
    name.push(format!(".{}.{reader}{SUFFIX}", escaped(topic)));
    if name.len() > NAME_BYTES_MAX {
        return Err(refuse("the bell's name would be longer than 255 bytes"));
    }
    Ok(path.with_file_name(name))
}

pub(super) fn absolute_path(segment: &Path) -> Result<PathBuf, Error> {
    absolute(segment).map_err(|cause| Error::syscall("resolve the path", segment, cause))
}

fn escaped(topic: &str) -> String {
    topic.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'_' | b'-' => text.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

/// Tells whether `name` is that of a bell of the segment with the file name `segment`.
pub(super) fn is_bell_of(segment: &OsStr, name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(segment.as_bytes());
    let Some(rest) = rest.and_then(|rest| std::str::from_utf8(rest).ok()) else { return false };
    let parts = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(SUFFIX));
    // A topic has no dot, so what has more is another segment's, whose name begins alike.
    parts.and_then(|parts| parts.split_once('.')).is_some_and(|(topic, reader)| {
        !topic.is_empty() && reader.parse::<u32>().is_ok_and(|n| n.to_string() == reader)
    })
}

/// Opens the pipe, for both directions, so that it never ends nor breaks; `None` when there is none.
///
/// # Errors
/// [`Error::NotABell`], [`Error::ForeignOwner`], or the kernel's.
pub(super) fn open(path: &Path) -> Result<Option<File>, Error> {
    let gone_or = |cause: io::Error| match cause.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(Error::syscall("open", path, cause)),
    };
    match path.symlink_metadata() {
        // Before it is opened, for that may do something to a device; and after, for the name may
        // have become another file's.
        Ok(meta) => vet(&meta, path)?,
        Err(cause) => return gone_or(cause),
    }
    let pipe = match file::options().open(path) {
        Ok(pipe) => pipe,
        Err(cause) => return gone_or(cause),
    };
    vet(&file::stat(&pipe, path)?, path)?;
    Ok(Some(pipe))
}

/// Requires a named pipe of this process's user.
fn vet(meta: &Metadata, path: &Path) -> Result<(), Error> {
    if !meta.file_type().is_fifo() {
        return Err(Error::NotABell { path: path.into(), kind: file::kind_of(meta) });
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(Error::ForeignOwner { path: path.into(), uid: meta.uid() });
    }
    Ok(())
}

/// Makes the pipe if there is none, and opens it; `None` when it was removed meanwhile.
pub(super) fn open_or_make(path: &Path) -> Result<Option<File>, Error> {
    match mkfifo(path, Mode::from_bits_truncate(MODE)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::syscall("make the named pipe", path, errno)),
    }
    let pipe = open(path)?;
    if let Some(pipe) = &pipe {
        file::set_mode(pipe, path, MODE)?;
    }
    Ok(pipe)
}

/// Tells whether a bell holds the pipe, other than by `pipe` itself.
pub(super) fn has_listener(pipe: &File, path: &Path) -> Result<bool, Error> {
    Span::LISTENER
        .is_locked_elsewhere(pipe)
        .map_err(|errno| Error::syscall("query the lock of", path, errno))
}

/// Removes the name of a pipe at which nobody listens; false when somebody does by now.
pub(super) fn bury(pipe: &File, path: &Path) -> Result<bool, Error> {
    let lock = NameLock::take(pipe, path)?;
    if has_listener(pipe, path)? {
        return Ok(false);
    }
    match lock.unlink() {
        Err(Error::AlreadyGone { .. }) | Ok(()) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The lock of who takes up a bell or removes its name, held until dropped.
pub(super) struct NameLock<'a> {
    pipe: File,
    path: &'a Path,
}

impl<'a> NameLock<'a> {
    /// Locks, on a description of its own; waits for another one who does, at most a second.
    pub(super) fn take(pipe: &File, path: &'a Path) -> Result<Self, Error> {
        let fail = |cause| Error::syscall("lock the name of", path, cause);
        let pipe = file::reopen(pipe, Some(path), path)?;
        let begun = Instant::now();
        while !Span::NAME.try_lock(&pipe).map_err(|errno| fail(errno.into()))? {
            if begun.elapsed() >= NAME_WAIT {
                let why = format!("another process has held it for {:?}", begun.elapsed());
                return Err(fail(io::Error::new(ErrorKind::TimedOut, why)));
            }
            sleep(POLL);
        }
        Ok(Self { pipe, path })
    }

    /// Tells whether the name still means this pipe.
    pub(super) fn is_named(&self) -> Result<bool, Error> {
        Identity::of(&self.pipe, self.path)?.is_named(self.path)
    }

    /// Removes the name, if it still means this pipe.
    pub(super) fn unlink(&self) -> Result<(), Error> {
        Identity::of(&self.pipe, self.path)?.unlink(self.path)
    }
}

impl Drop for NameLock<'_> {
    fn drop(&mut self) {
        // Closing would do, but for a child that is forked meanwhile and keeps a copy.
        let _ = Span::NAME.unlock(&self.pipe);
    }
}

/// The folder of a segment, and its name in there.
pub(super) fn split(segment: &Path) -> Option<(PathBuf, OsString)> {
    let path = absolute_path(segment).ok()?;
    Some((path.parent()?.into(), path.file_name()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beside_the_segment_and_are_told_apart() {
        let path = |topic| path_of(Path::new("/dev/shm/orders"), topic, 7).unwrap();
        assert_eq!(path("eu-1"), Path::new("/dev/shm/orders.eu-1.7.bell"));
        assert_eq!(path("../x"), Path::new("/dev/shm/orders.%2E%2E%2Fx.7.bell"));
        assert_eq!(path("%2E"), Path::new("/dev/shm/orders.%252E.7.bell"));
        assert_eq!(path("ü"), Path::new("/dev/shm/orders.%C3%BC.7.bell"));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let refused = |segment: &str, topic: &str| {
            path_of(Path::new(segment), topic, 0).unwrap_err().to_string()
        };
        assert!(refused("/dev/shm/orders", "").contains("its name is empty"));
        assert!(refused("/", "eu").contains("the segment has no name"));
        assert!(refused("/dev/shm/orders", &"x".repeat(242)).contains("longer than 255 bytes"));
        assert!(path_of(Path::new("/dev/shm/orders"), &"x".repeat(241), 0).is_ok());
    }

    #[test]
    fn bells_are_those_of_one_segment_only() {
        let is_bell = |name: &str| is_bell_of(OsStr::new("orders"), OsStr::new(name));
        assert!(is_bell("orders.eu.7.bell"));
        assert!(is_bell("orders.%2E.0.bell"));
        for other in [
            "orders",
            "orders.bell",
            "orders.7.bell",
            "orders..7.bell",
            "orders.eu.7",
            "xorders.eu.7.bell",
            "orders2.eu.7.bell",
            "orders.eu.us.7.bell",
            "orders.eu.07.bell",
            "orders.eu.+7.bell",
            "orders.eu.4294967296.bell",
        ] {
            assert!(!is_bell(other), "{other}");
        }
    }
}
