//! The end of a bell that rings.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

use super::fifo;

/// Rings one [`Bell`](super::Bell), of this process or any other of the same user.
///
/// It may be used by several threads, and in a forked child as well.
#[derive(Debug)]
pub struct Ringer {
    pipe: File,
    path: PathBuf,
}

impl Ringer {
    /// Opens the bell `reader` of `topic`; removes it when its reader is dead.
    ///
    /// `segment` is the path of the segment's file, as [`Bell::listen`](super::Bell::listen) got it.
    /// May wait for another process that takes up or removes the bell, a second at most.
    ///
    /// # Errors
    /// [`Error::NobodyListens`] when there is no such bell, or its reader is dead;
    /// [`Error::BadTopic`]; [`Error::NotABell`] or [`Error::ForeignOwner`] when the name is
    /// something else's; [`Error::Syscall`].
    pub fn open(segment: &Path, topic: &str, reader: u32) -> Result<Self, Error> {
        let path = fifo::path_of(segment, topic, reader)?;
        match fifo::open(&path)? {
            // The second look is under the lock: the first may have come just before it listens.
            Some(pipe) if fifo::has_listener(&pipe, &path)? || !fifo::bury(&pipe, &path)? => {
                Ok(Self { pipe, path })
            }
            _ => Err(Error::NobodyListens { path }),
        }
    }

    /// Makes the bell readable, if it is not already. Ring after what the reader is to find was
    /// published. Never waits; two system calls, some microseconds: let readers say when they are about
    /// to poll, and ring those only.
    ///
    /// # Errors
    /// [`Error::NobodyListens`] when the reader is dead or gone: drop this, and [open](Self::open)
    /// anew if another reader takes its place. Else [`Error::Syscall`].
    pub fn ring(&self) -> Result<(), Error> {
        if !fifo::has_listener(&self.pipe, &self.path)? {
            return Err(Error::NobodyListens { path: self.path.clone() });
        }
        match (&self.pipe).write(&[1]) {
            Ok(_) => Ok(()),
            // It is full, so it is readable, and who drains it looks afterwards.
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(cause) => Err(Error::syscall("ring the bell", &self.path, cause)),
        }
    }

    /// The bell's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
