//! Files that are no segment, or no longer one: each is a clear error, and nothing is overwritten.

mod common;

use am_layout::guard::VERSION;
use am_layout::{CONTROL_AT_BYTES, ROSTER_AT_BYTES};
use atomic_matrix::{Error, Matrix, OpenError, SegmentError};
use common::{MIB, Random, Scratch};
use std::fs::OpenOptions;

const SIZE: u64 = MIB as u64;

/// Opens what lies there, both ways, which must fail and change nothing.
fn refused(scratch: &Scratch) -> OpenError {
    let before = std::fs::read(scratch.path()).expect("a file");
    let created = Matrix::builder().size(SIZE).open_or_create(&scratch.name());
    let created = created.expect_err("no segment").to_string();
    let error = Matrix::builder().open(&scratch.name()).expect_err("no segment");
    assert_eq!(error.to_string(), created);
    assert!(std::fs::read(scratch.path()).expect("a file") == before, "the file was changed");
    error
}

fn made() -> Scratch {
    let scratch = Scratch::new();
    drop(Matrix::builder().size(SIZE).create(&scratch.name()).expect("creates"));
    scratch
}

fn cut(scratch: &Scratch, len: u64) {
    let file = OpenOptions::new().write(true).open(scratch.path()).expect("opens");
    file.set_len(len).expect("cuts");
}

#[test]
fn segment_that_was_cut_short_is_refused() {
    for len in [SIZE - 1, SIZE / 2, ROSTER_AT_BYTES + 1, ROSTER_AT_BYTES, CONTROL_AT_BYTES] {
        let scratch = made();
        cut(&scratch, len);
        let error = refused(&scratch);
        assert!(matches!(error, OpenError::Matrix(Error::BadGeometry(_))), "{len}: {error}");
    }
    for len in [CONTROL_AT_BYTES - 1, 100, 17, 16] {
        let scratch = made();
        cut(&scratch, len);
        let error = refused(&scratch);
        assert!(matches!(error, OpenError::Matrix(Error::TooShort { .. })), "{len}: {error}");
    }
    for len in [15, 4, 1] {
        let scratch = made();
        cut(&scratch, len);
        let error = refused(&scratch);
        let truncated = matches!(error, OpenError::Segment(SegmentError::Truncated { .. }));
        assert!(truncated, "{len}: {error}");
    }
}

#[test]
fn segment_of_an_older_version_is_refused() {
    for version in [0u32, 1, 2, 3, 4, VERSION + 1, u32::MAX] {
        let scratch = made();
        let mut bytes = std::fs::read(scratch.path()).unwrap();
        bytes[8..12].copy_from_slice(&version.to_ne_bytes());
        std::fs::write(scratch.path(), bytes).unwrap();
        let error = refused(&scratch);
        assert!(
            matches!(error, OpenError::Segment(SegmentError::Version { seen, .. }) if seen == version)
        );
    }
}

#[test]
fn file_of_random_bytes_is_refused() {
    for seed in 1..50 {
        let scratch = Scratch::new();
        let mut random = Random(seed);
        let bytes: Vec<u8> =
            (0..1 + random.below(100_000)).map(|_| random.below(256) as u8).collect();
        std::fs::write(scratch.path(), &bytes).unwrap();
        refused(&scratch);
    }
}

#[test]
fn segment_with_any_word_of_its_head_damaged_is_refused_or_works() {
    let whole = made();
    let bytes = std::fs::read(whole.path()).unwrap();
    let mut random = Random(7);
    let mut worked = 0;
    for word in 4..64 {
        for _ in 0..8 {
            let scratch = Scratch::new();
            let mut damaged = bytes.clone();
            let value = match random.below(4) {
                0 => 0,
                1 => u32::MAX,
                2 => 1 << random.below(32),
                _ => random.below(usize::MAX) as u32,
            };
            damaged[4 * word..4 * word + 4].copy_from_slice(&value.to_ne_bytes());
            std::fs::write(scratch.path(), &damaged).unwrap();
            // Where the geometry still makes sense it is one, if another than before.
            if let Ok(matrix) = Matrix::builder().open(&scratch.name()) {
                worked += 1;
                let _ = (matrix.allocate(100).map(drop), matrix.check(), matrix.recover());
            }
        }
    }
    assert!(worked < 60 * 8, "nothing was refused");
}

#[test]
fn segment_that_others_may_write_to_is_refused_unless_they_are_trusted() {
    use std::os::unix::fs::PermissionsExt;
    for mode in [0o620, 0o602, 0o666] {
        let scratch = made();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = refused(&scratch);
        assert!(matches!(error, OpenError::OpenToOthers { mode: seen } if seen == mode), "{error}");
        // SAFETY: nobody else opens it.
        let trusting = unsafe { Matrix::builder().trust_peers(0o600) };
        assert!(trusting.open(&scratch.name()).is_ok());
    }
    let scratch = Scratch::new();
    // SAFETY: nobody else opens it.
    let trusting = unsafe { Matrix::builder().size(SIZE).trust_peers(0o660) };
    drop(trusting.create(&scratch.name()).expect("creates"));
    let made = std::fs::metadata(scratch.path()).unwrap().permissions().mode();
    assert_eq!(made & 0o777, 0o660);
}
