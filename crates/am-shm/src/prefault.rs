//! Entering all pages in this process's page tables ahead of their first use.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Advice;
use nix::errno::Errno;

use crate::error::Error;
use crate::file;
use crate::mapping::Mapping;
use crate::pages::small_page_bytes;
use crate::pool;

/// Bytes populated by one call: small enough to finish between two signals.
const SLICE_BYTES: usize = 16 << 20;
/// Most interruptions by signals that one such call may suffer.
const INTERRUPTS_MAX: u32 = 1_000;
/// By these the kernel means that there is no page to be had: a touch would have been a `SIGBUS`,
/// or have met the end of memory.
const LACKS: [Errno; 2] = [Errno::EFAULT, Errno::ENOMEM];

/// Enters every page, and makes those that the file lacks; no byte changes.
///
/// # Errors
/// [`Error::NoSpace`] or [`Error::NoHugePages`] when pages lack; [`Error::Truncated`] when the file
/// was cut short meanwhile.
pub(crate) fn prefault(mapping: &Mapping, file: &File, path: &Path) -> Result<(), Error> {
    match populate(mapping) {
        Ok(()) => Ok(()),
        // Older than Linux 5.14.
        Err(cause) if cause.raw_os_error() == Some(Errno::EINVAL as i32) => {
            touch(mapping, file, path)
        }
        Err(cause) => Err(refused(mapping, file, path, cause)),
    }
}

/// Makes the kernel write to every page, without a change of the bytes.
pub(crate) fn populate(mapping: &Mapping) -> io::Result<()> {
    for from in (0..mapping.len()).step_by(SLICE_BYTES) {
        let len = SLICE_BYTES.min(mapping.len() - from);
        populate_slice(mapping, from, len)?;
    }
    Ok(())
}

fn populate_slice(mapping: &Mapping, from: usize, len: usize) -> io::Result<()> {
    for _ in 0..INTERRUPTS_MAX {
        match mapping.advise(Advice::PopulateWrite, from, len) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
    Err(Errno::EINTR.into())
}

/// Reads a byte of every page, once the file has them all: then no touch is a `SIGBUS`.
fn touch(mapping: &Mapping, file: &File, path: &Path) -> Result<(), Error> {
    file::reserve(file, path, mapping.len() as u64)?;
    for at in (0..mapping.len()).step_by(small_page_bytes()) {
        let byte = mapping.as_ptr().wrapping_add(at);
        // SAFETY: the byte lies within the mapping, and its page exists. It may be changing; that
        // it is volatile keeps the read, whose value nobody uses.
        unsafe { byte.read_volatile() };
    }
    Ok(())
}

fn refused(mapping: &Mapping, file: &File, path: &Path, cause: io::Error) -> Error {
    let requested_bytes = mapping.len() as u64;
    match file::stat(file, path) {
        Ok(meta) if meta.len() < requested_bytes => {
            Error::Truncated { path: path.into(), len_bytes: meta.len() }
        }
        _ => pool::lack(file, path, requested_bytes, cause, &LACKS, |cause| {
            let errno = cause.raw_os_error().map(Errno::from_raw);
            match errno.is_some_and(|errno| LACKS.contains(&errno)) {
                true => Error::NoSpace { path: path.into(), requested_bytes },
                false => Error::syscall("prefault the pages of", path, cause),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Place, Segment};

    #[test]
    fn touch_in_place_of_populate_enters_every_page_and_changes_no_byte() {
        let options = Options { size_bytes: 1 << 20, ..Options::default() };
        let place = Place::Memfd("touched".into());
        let format = |mapping: &Mapping| {
            // SAFETY: these bytes are used as words only.
            unsafe { mapping.words(1 << 19, 1) }.ok_or("too small")?[0].store(7);
            Ok::<(), &str>(())
        };
        let segment = Segment::create(&place, &options, format).unwrap();
        assert!(segment.residence().unwrap().mapped_bytes < 1 << 20);
        touch(segment.mapping(), segment.file(), segment.label()).unwrap();
        let told = segment.residence().unwrap();
        assert_eq!((told.mapped_bytes, told.allocated_bytes), (1 << 20, 1 << 20));
        // SAFETY: these bytes are used as words only.
        let words = unsafe { segment.mapping().words(16, (1 << 18) - 4) }.unwrap();
        assert_eq!(words.iter().filter(|word| word.load() != 0).count(), 1);
    }
}
