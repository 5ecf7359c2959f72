//! What the tests share: files that go away, whatever happens, and a payload to format.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod actor;
pub mod fork;
pub mod mounted;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use am_layout::Word;
use am_layout::guard::{GUARD_BYTES, MAGIC, VERSION};
use am_shm::{Mapping, Options, Place, Segment};

/// A name in `/dev/shm` that nobody else has; whatever lies there at the end is removed.
pub struct Scratch {
    name: String,
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("am-shm-test-{}-{count}", std::process::id()) }
    }

    /// A fresh name that holds `bytes`.
    pub fn holding(bytes: &[u8]) -> Self {
        let scratch = Self::new();
        std::fs::write(scratch.path(), bytes).expect("writes a scratch file");
        scratch
    }

    pub fn place(&self) -> Place {
        Place::Shm(self.name.clone())
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.name)
    }

    pub fn exists(&self) -> bool {
        self.path().symlink_metadata().is_ok()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.path();
        let _ = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
            _ => std::fs::remove_file(path),
        };
    }
}

pub const SIZE_BYTES: u64 = 64 << 10;

pub fn options() -> Options {
    Options { size_bytes: SIZE_BYTES, wait: Duration::from_secs(20), ..Options::default() }
}

/// All words behind the guard.
pub fn payload(mapping: &Mapping) -> &[Word] {
    let count = (mapping.len() - GUARD_BYTES) / 4;
    // SAFETY: the tests access the payload as words only and never cut a mapped file short.
    unsafe { mapping.words(GUARD_BYTES, count) }.expect("the payload lies within the mapping")
}

/// Formats: every word of the payload becomes `stamp`. Errors when it was not all zeroes.
pub fn stamp(mapping: &Mapping, stamp: u32) -> Result<(), String> {
    for word in payload(mapping) {
        if word.load() != 0 {
            return Err(format!("the payload held {} before it was formatted", word.load()));
        }
        word.store(stamp);
    }
    Ok(())
}

/// The one stamp that the whole payload bears.
pub fn stamp_of(segment: &Segment) -> u32 {
    let words = payload(segment.mapping());
    let stamp = words[0].load();
    assert_ne!(stamp, 0, "the segment was opened before it was formatted");
    for word in words {
        assert_eq!(word.load(), stamp, "the segment was formatted by two");
    }
    stamp
}

/// The bytes of a guard.
pub fn guard(state: u32, magic: u32, version: u32, takeovers: u32) -> Vec<u8> {
    [state, magic, version, takeovers].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The bytes of a file of `SIZE_BYTES` that begins with a guard in `state`.
pub fn file_in_state(state: u32) -> Vec<u8> {
    let mut bytes = guard(state, MAGIC, VERSION, 0);
    bytes.resize(SIZE_BYTES as usize, 0xee);
    bytes
}

/// The state word in the file at `path`, read through the descriptor.
pub fn state_at(path: &std::path::Path) -> u32 {
    let mut bytes = [0; 4];
    let file = std::fs::File::open(path).expect("opens the file");
    file.read_exact_at(&mut bytes, 0).expect("reads the state word");
    u32::from_ne_bytes(bytes)
}

/// Tells on the terminal why a test could not be run here; written directly, since the test runner
/// hides what a passing test prints.
pub fn skip(test: &str, why: &str) {
    // In one piece, since other tests write at the same time.
    let notice = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::stderr().write_all(notice.as_bytes());
}
