//! Reading and writing the init guard.
//!
//! Before READY the guard is read through the descriptor, never through a mapping: a file that is
//! not ready may be cut short by whoever formats it anew, and a mapping would meet `SIGBUS` then.
//! Once READY, it stays so, and the payload may be mapped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use am_layout::Word;
use am_layout::guard::{
    FORMATTING, GUARD_BYTES, GUARD_WORDS, MAGIC, MAGIC_AT, READY, STATE, TAKEOVERS_AT,
    UNINITIALIZED, VERSION, VERSION_AT,
};

use crate::error::Error;
use crate::file;
use crate::mapping::Mapping;

/// What the first bytes of a file say. Without the lock it is an allegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No bytes, or [unborn](file::is_unborn): just created, by somebody who has not locked yet or
    /// died before the guard was written.
    Empty,
    /// Ours, and not ready: being formatted, or left half-way.
    Half {
        takeovers: u32,
    },
    Ready,
    Truncated {
        len_bytes: u64,
    },
    Foreign {
        magic: u32,
    },
    OtherVersion {
        version: u32,
    },
    Corrupt {
        state: u32,
    },
}

impl Seen {
    /// Reads the guard of `file`.
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; GUARD_BYTES];
        let len = read_up_to(file, &mut bytes)
            .map_err(|cause| Error::syscall("read the init guard of", path, cause))?;
        Ok(match len {
            0 => Self::Empty,
            GUARD_BYTES => match Self::judge(decode(&bytes)) {
                Self::Foreign { magic: 0 } if file::is_unborn(file, path)? => Self::Empty,
                seen => seen,
            },
            _ => Self::Truncated { len_bytes: len as u64 },
        })
    }

    fn judge(words: [u32; GUARD_WORDS]) -> Self {
        if words[MAGIC_AT] != MAGIC {
            return Self::Foreign { magic: words[MAGIC_AT] };
        }
        if words[VERSION_AT] != VERSION {
            return Self::OtherVersion { version: words[VERSION_AT] };
        }
        match words[STATE] {
            READY => Self::Ready,
            UNINITIALIZED | FORMATTING => Self::Half { takeovers: words[TAKEOVERS_AT] },
            state => Self::Corrupt { state },
        }
    }

    /// Tells whether the verdict stands whoever may be writing: words are never read torn, and no
    /// formatter ever leaves a magic word that is neither zero nor ours.
    pub(crate) fn is_foreign_for_sure(self) -> bool {
        matches!(self, Self::Foreign { magic } if magic != 0)
    }

    /// The error for a file in this state when nobody is going to change it.
    ///
    /// # Errors
    /// Every state but [`Ready`](Self::Ready).
    pub(crate) fn require_ready(self, path: &Path) -> Result<(), Error> {
        let path = path.to_path_buf();
        Err(match self {
            Self::Ready => return Ok(()),
            Self::Empty => Error::Empty { path },
            Self::Half { takeovers } => Error::HalfFormatted { path, takeovers },
            Self::Truncated { len_bytes } => Error::Truncated { path, len_bytes },
            Self::Foreign { magic } => Error::NotASegment { path, seen: magic },
            Self::OtherVersion { version } => Error::version(&path, version),
            Self::Corrupt { state } => Error::CorruptGuard { path, seen: state },
        })
    }
}

/// Writes a guard that says FORMATTING, in one write. The caller holds the lock.
///
/// This comes before the file gets its size. So an unfinished file of ours is empty or bears our
/// magic, and a file of zeroes is never taken for one (see the crate's documentation).
pub(crate) fn begin(file: &File, takeovers: u32) -> io::Result<()> {
    let mut words = [0; GUARD_WORDS];
    words[STATE] = FORMATTING;
    words[MAGIC_AT] = MAGIC;
    words[VERSION_AT] = VERSION;
    words[TAKEOVERS_AT] = takeovers;
    file.write_all_at(&encode(words), 0)
}

/// Writes a guard that says FORMATTING to a file that can only be mapped. The caller holds the lock,
/// and the file is [unborn](file::is_unborn).
pub(crate) fn begin_mapped(mapping: &Mapping, takeovers: u32) {
    let words = guard_words(mapping);
    words[TAKEOVERS_AT].store(takeovers);
    words[VERSION_AT].store(VERSION);
    words[STATE].store(FORMATTING);
    // Last: without it the file counts as unborn, with it as half formatted, whatever it holds.
    words[MAGIC_AT].store(MAGIC);
}

/// Says READY: everything that this thread wrote before is visible to whoever sees it.
pub(crate) fn publish(mapping: &Mapping) {
    guard_words(mapping)[STATE].store(READY);
}

/// Requires READY of a mapped guard; afterwards the formatter's writes are visible.
pub(crate) fn require_ready(mapping: &Mapping, path: &Path) -> Result<(), Error> {
    match guard_words(mapping)[STATE].load() {
        READY => Ok(()),
        seen => Err(Error::CorruptGuard { path: path.into(), seen }),
    }
}

/// How often a formatter was replaced.
pub(crate) fn takeovers(mapping: &Mapping) -> u32 {
    guard_words(mapping)[TAKEOVERS_AT].load_relaxed()
}

fn guard_words(mapping: &Mapping) -> &[Word] {
    // SAFETY: the guard's bytes are accessed as words only: `Mapping::words` asks it of its users,
    // and the writes through a descriptor come before anybody maps the file.
    let words = unsafe { mapping.words(0, GUARD_WORDS) };
    words.expect("every mapping is at least a guard long")
}

fn read_up_to(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(len)
}

fn decode(bytes: &[u8; GUARD_BYTES]) -> [u32; GUARD_WORDS] {
    std::array::from_fn(|i| {
        u32::from_ne_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
    })
}

fn encode(words: [u32; GUARD_WORDS]) -> [u8; GUARD_BYTES] {
    let mut bytes = [0; GUARD_BYTES];
    for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
        four.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
