//! Existing files of every kind, names, sizes and removal, within one process.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use am_layout::guard::{FORMATTING, MAGIC, READY, UNINITIALIZED, VERSION};
use am_shm::{Error, InitError, Options, Place, Segment};
use common::{SIZE_BYTES, Scratch, file_in_state, guard, options, payload, skip, stamp, stamp_of};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::unistd::geteuid;

/// Every way of opening refuses the file, and leaves every byte of it.
#[track_caller]
fn assert_refused(bytes: &[u8], is_expected: impl Fn(&Error) -> bool) {
    let scratch = Scratch::holding(bytes);
    let error = Segment::open(&scratch.place(), &options()).expect_err("open accepted it");
    assert!(is_expected(&error), "open says {error:?}");
    let made = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 1));
    match made.expect_err("open_or_create accepted it") {
        InitError::Segment(error) => assert!(is_expected(&error), "open_or_create says {error:?}"),
        other => panic!("open_or_create says {other:?}"),
    }
    let fd = fs::File::options().read(true).write(true).open(scratch.path()).unwrap();
    let error = Segment::attach(fd.into(), &options()).expect_err("attach accepted it");
    assert!(is_expected(&error), "attach says {error:?}");
    assert_eq!(fs::read(scratch.path()).unwrap(), bytes, "the file was changed");
}

#[test]
fn file_shorter_than_the_guard_is_truncated() {
    assert_refused(b"AMx2!", |e| matches!(e, Error::Truncated { len_bytes: 5, .. }));
    let whole = file_in_state(READY);
    for len in [1, 4, 12, 15] {
        assert_refused(
            &whole[..len],
            |e| matches!(e, Error::Truncated { len_bytes, .. } if *len_bytes == len as u64),
        );
    }
}

/// The guard tells no size: what was cut off is for whoever reads the payload to miss.
#[test]
fn ready_file_cut_short_behind_its_guard_maps_what_is_left() {
    for len in [16, 17, 4095, 4096, SIZE_BYTES as usize - 1] {
        let bytes = &file_in_state(READY)[..len];
        let scratch = Scratch::holding(bytes);
        let opened = Segment::open(&scratch.place(), &options()).unwrap();
        let made = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 1)).unwrap();
        let fd = opened.as_fd().try_clone_to_owned().unwrap();
        let attached = Segment::attach(fd, &options()).unwrap();
        for segment in [&opened, &made, &attached] {
            assert_eq!((segment.mapping().len(), segment.formatted_here()), (len, false));
        }
        assert_eq!(fs::read(scratch.path()).unwrap(), bytes, "the file was changed");
    }
}

#[test]
fn file_of_random_bytes_is_refused() {
    for seed in 1..=200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let len = 16 + next() as usize % 6000;
        let mut bytes: Vec<u8> = (0..len).map(|_| (next() >> 24) as u8).collect();
        // The more of the guard is right, the closer the look at the rest.
        if seed % 3 > 0 {
            bytes[4..8].copy_from_slice(&MAGIC.to_ne_bytes());
        }
        if seed % 3 > 1 {
            bytes[8..12].copy_from_slice(&VERSION.to_ne_bytes());
        }
        assert_refused(&bytes, |error| {
            let is_right = match seed % 3 {
                0 => matches!(error, Error::NotASegment { .. }),
                1 => matches!(error, Error::Version { .. }),
                _ => matches!(error, Error::CorruptGuard { .. }),
            };
            assert!(is_right, "seed {seed}: {error:?}");
            true
        });
    }
}

#[test]
fn file_of_foreign_content_is_not_a_segment() {
    let seen_there = u32::from_ne_bytes(*b"tes,");
    let text = b"#!/bin/tes, and more of the same";
    let mut bytes = text.to_vec();
    bytes[4..8].copy_from_slice(b"tes,");
    assert_refused(&bytes, |e| matches!(e, Error::NotASegment { seen, .. } if *seen == seen_there));
}

#[test]
fn file_of_zeroes_of_the_requested_size_is_not_a_segment() {
    let zeroes = vec![0; SIZE_BYTES as usize];
    assert_refused(&zeroes, |e| matches!(e, Error::NotASegment { seen: 0, .. }));
}

#[test]
fn file_of_another_version_tells_both_versions() {
    for version in [0, VERSION - 1, VERSION + 1, u32::MAX] {
        for state in [READY, FORMATTING, 7] {
            let mut bytes = guard(state, MAGIC, version, 0);
            bytes.resize(4096, 0);
            assert_refused(&bytes, |e| {
                matches!(e, Error::Version { seen, expected, .. }
                    if *seen == version && *expected == VERSION)
            });
        }
    }
}

#[test]
fn file_with_an_unknown_state_has_a_corrupt_guard() {
    assert_refused(&file_in_state(7), |e| matches!(e, Error::CorruptGuard { seen: 7, .. }));
}

#[test]
fn half_formatted_file_is_refused_by_open_and_taken_over_by_open_or_create() {
    for state in [FORMATTING, UNINITIALIZED] {
        let scratch = Scratch::holding(&file_in_state(state));
        let error = Segment::open(&scratch.place(), &options()).unwrap_err();
        assert!(matches!(error, Error::HalfFormatted { takeovers: 0, .. }), "{error:?}");
        let fd = fs::File::options().read(true).write(true).open(scratch.path()).unwrap();
        let error = Segment::attach(fd.into(), &options()).unwrap_err();
        assert!(matches!(error, Error::HalfFormatted { takeovers: 0, .. }), "{error:?}");
        assert_eq!(fs::read(scratch.path()).unwrap(), file_in_state(state));

        // `stamp` fails unless what the dead formatter wrote is gone.
        let segment =
            Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 5)).unwrap();
        assert!(segment.formatted_here());
        assert_eq!((segment.takeovers(), stamp_of(&segment)), (1, 5));
    }
}

#[test]
fn half_formatted_file_cut_down_to_its_guard_is_taken_over() {
    let scratch = Scratch::holding(&guard(FORMATTING, MAGIC, VERSION, 41));
    let segment = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 5)).unwrap();
    assert_eq!((segment.takeovers(), segment.mapping().len() as u64), (42, SIZE_BYTES));
}

#[test]
fn empty_file_is_refused_by_open_and_formatted_by_open_or_create() {
    let scratch = Scratch::holding(b"");
    let before = Instant::now();
    let error = Segment::open(&scratch.place(), &options()).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error:?}");
    assert!(before.elapsed() < Duration::from_secs(5), "waited {:?}", before.elapsed());

    let segment = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 5)).unwrap();
    assert!(segment.formatted_here());
    assert_eq!((segment.takeovers(), stamp_of(&segment)), (0, 5));
}

#[test]
fn missing_file_is_not_found() {
    let error = Segment::open(&Scratch::new().place(), &options()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
}

#[test]
fn existing_file_is_refused_by_create() {
    for bytes in [vec![], file_in_state(READY), file_in_state(FORMATTING), b"foreign".to_vec()] {
        let scratch = Scratch::holding(&bytes);
        let made = Segment::create(&scratch.place(), &options(), |m| stamp(m, 1));
        let error = made.unwrap_err();
        assert!(matches!(error, InitError::Segment(Error::Exists { .. })), "{error:?}");
        assert_eq!(fs::read(scratch.path()).unwrap(), bytes);
    }
}

#[test]
fn ready_segment_keeps_its_own_size() {
    let scratch = Scratch::new();
    drop(Segment::create(&scratch.place(), &options(), |m| stamp(m, 3)).unwrap());
    let other = Options { size_bytes: 1 << 30, reserve: true, ..options() };
    let segment = Segment::open_or_create(&scratch.place(), &other, |m| stamp(m, 4)).unwrap();
    assert!(!segment.formatted_here());
    assert_eq!((segment.mapping().len() as u64, stamp_of(&segment)), (SIZE_BYTES, 3));
}

#[test]
fn symlink_is_refused_even_when_it_leads_to_a_segment() {
    let (real, link) = (Scratch::new(), Scratch::new());
    let _segment = Segment::create(&real.place(), &options(), |m| stamp(m, 1)).unwrap();
    symlink(real.path(), link.path()).unwrap();
    let is_link = |e: &Error| matches!(e, Error::NotARegularFile { kind: "symbolic link", .. });
    assert!(is_link(&Segment::open(&link.place(), &options()).unwrap_err()));
    let made = Segment::open_or_create(&link.place(), &options(), |m| stamp(m, 1));
    assert!(matches!(made.unwrap_err(), InitError::Segment(e) if is_link(&e)));

    let dangling = Scratch::new();
    let nowhere = Scratch::new();
    symlink(nowhere.path(), dangling.path()).unwrap();
    let made = Segment::open_or_create(&dangling.place(), &options(), |m| stamp(m, 1));
    assert!(matches!(made.unwrap_err(), InitError::Segment(e) if is_link(&e)));
    assert!(!nowhere.exists(), "the link was followed");
}

#[test]
fn descriptor_of_a_segment_is_closed_by_exec() {
    let scratch = Scratch::new();
    let created = Segment::create(&scratch.place(), &options(), |m| stamp(m, 1)).unwrap();
    let opened = Segment::open(&scratch.place(), &options()).unwrap();
    let place = Place::Memfd("exec".into());
    let memfd = Segment::create(&place, &options(), |m| stamp(m, 1)).unwrap();
    for segment in [&created, &opened, &memfd] {
        let flags = fcntl(segment, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }
    for segment in [&created, &opened] {
        let flags = fcntl(segment, FcntlArg::F_GETFL).unwrap();
        assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_NOFOLLOW));
    }
}

#[test]
fn directory_and_pipe_are_refused_without_waiting() {
    let directory = Scratch::new();
    fs::create_dir(directory.path()).unwrap();
    let error = Segment::open(&directory.place(), &options()).unwrap_err();
    assert!(matches!(error, Error::NotARegularFile { kind: "directory", .. }), "{error:?}");

    let pipe = Scratch::new();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&pipe.path(), mode).unwrap();
    let error = Segment::open(&pipe.place(), &options()).unwrap_err();
    assert!(matches!(error, Error::NotARegularFile { kind: "pipe", .. }), "{error:?}");
}

#[test]
fn foreign_owner_is_refused_unless_any_owner_is_allowed() {
    let scratch = Scratch::new();
    drop(Segment::create(&scratch.place(), &options(), |m| stamp(m, 3)).unwrap());
    let other = if geteuid().as_raw() == 65_534 { 65_533 } else { 65_534 };
    if let Err(why) = chown(scratch.path(), Some(other), None) {
        return skip("foreign_owner", &format!("cannot give a file away: {why}"));
    }
    let error = Segment::open(&scratch.place(), &options()).unwrap_err();
    assert!(matches!(error, Error::ForeignOwner { uid, .. } if uid == other), "{error:?}");
    let lenient = Options { any_owner: true, ..options() };
    assert_eq!(stamp_of(&Segment::open(&scratch.place(), &lenient).unwrap()), 3);
}

#[test]
fn bad_names_are_refused_with_the_reason() {
    let long = "n".repeat(256);
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", &long] {
        let error = Segment::open(&Place::Shm(name.into()), &options()).unwrap_err();
        assert!(matches!(&error, Error::BadName { name: n, .. } if n == name), "{error:?}");
    }
    let made = Segment::create(&Place::Memfd("n".repeat(250)), &options(), |m| stamp(m, 1));
    assert!(matches!(made.unwrap_err(), InitError::Segment(Error::BadName { .. })));
}

#[test]
fn bad_sizes_and_modes_are_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    for size_bytes in [0, 15, isize::MAX as u64 + 1, u64::MAX] {
        let bad = Options { size_bytes, ..options() };
        let error = Segment::create(&scratch.place(), &bad, |m| stamp(m, 1)).unwrap_err();
        let InitError::Segment(Error::SizeOutOfRange { size_bytes: seen, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(seen, size_bytes);
    }
    for mode in [0o400, 0o066, 0o4755, 0o100_600] {
        let bad = Options { mode, ..options() };
        let error = Segment::create(&scratch.place(), &bad, |m| stamp(m, 1)).unwrap_err();
        assert!(matches!(error, InitError::Segment(Error::BadMode { mode: m }) if m == mode));
    }
    assert!(!scratch.exists());
}

#[test]
fn size_that_cannot_be_mapped_names_the_operation_and_leaves_nothing() {
    let scratch = Scratch::new();
    let huge = Options { size_bytes: isize::MAX as u64 - 4095, ..options() };
    let error = Segment::create(&scratch.place(), &huge, |m| stamp(m, 1)).unwrap_err();
    assert!(matches!(error, InitError::Segment(Error::Syscall { .. })), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("cannot map") || text.contains("cannot set the size"), "{text}");
    assert!(text.contains(scratch.path().to_str().unwrap()), "{text}");
    assert!(!scratch.exists());
}

#[test]
fn smallest_segment_is_a_bare_guard() {
    let scratch = Scratch::new();
    let smallest = Options { size_bytes: 16, ..options() };
    let segment = Segment::create(&scratch.place(), &smallest, |m| stamp(m, 1)).unwrap();
    assert!(payload(segment.mapping()).is_empty());
    assert_eq!(Segment::open(&scratch.place(), &smallest).unwrap().mapping().len(), 16);
}

#[test]
fn failing_closure_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let made = Segment::open_or_create(&scratch.place(), &options(), |_| Err("out of ink"));
    assert!(matches!(made.unwrap_err(), InitError::Format("out of ink")));
    assert!(!scratch.exists());
    let made = Segment::create(&scratch.place(), &options(), |_| Err("out of ink"));
    assert!(matches!(made.unwrap_err(), InitError::Format("out of ink")));
    assert!(!scratch.exists());
    let segment = Segment::create(&scratch.place(), &options(), |m| stamp(m, 9)).unwrap();
    assert_eq!((segment.takeovers(), stamp_of(&segment)), (0, 9));
}

#[test]
fn panicking_closure_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        Segment::create(&scratch.place(), &options(), |_| -> Result<(), String> {
            std::panic::resume_unwind(Box::new("boom"))
        })
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "boom");
    assert!(!scratch.exists());
    let segment = Segment::create(&scratch.place(), &options(), |m| stamp(m, 9)).unwrap();
    assert_eq!(stamp_of(&segment), 9);
}

#[test]
fn failing_closure_on_a_found_file_leaves_it_unfinished() {
    let scratch = Scratch::holding(b"");
    let made = Segment::open_or_create(&scratch.place(), &options(), |m| {
        stamp(m, 1)?;
        Err("out of ink".to_owned())
    });
    assert!(matches!(made.unwrap_err(), InitError::Format(_)));
    assert_eq!(common::state_at(&scratch.path()), FORMATTING);
    let error = Segment::open(&scratch.place(), &options()).unwrap_err();
    assert!(matches!(error, Error::HalfFormatted { .. }), "{error:?}");
    let segment = Segment::open_or_create(&scratch.place(), &options(), |m| stamp(m, 2)).unwrap();
    assert_eq!((segment.takeovers(), stamp_of(&segment)), (1, 2));
}

#[test]
fn destroy_removes_the_name_once_and_mappings_live_on() {
    let scratch = Scratch::new();
    let first = Segment::create(&scratch.place(), &options(), |m| stamp(m, 8)).unwrap();
    let second = Segment::open(&scratch.place(), &options()).unwrap();
    assert_eq!(first.place(), Some(scratch.path().as_path()));
    first.destroy().unwrap();
    assert!(!scratch.exists());
    assert!(matches!(first.destroy(), Err(Error::AlreadyGone { .. })));
    assert!(matches!(second.destroy(), Err(Error::AlreadyGone { .. })));

    let mapping = first.mapping().clone();
    drop(first);
    payload(&mapping)[0].store(77);
    assert_eq!(payload(second.mapping())[0].load(), 77);
}

#[test]
fn destroy_spares_a_file_made_anew_under_the_same_name() {
    let scratch = Scratch::new();
    let old = Segment::create(&scratch.place(), &options(), |m| stamp(m, 1)).unwrap();
    fs::remove_file(scratch.path()).unwrap();
    let new = Segment::create(&scratch.place(), &options(), |m| stamp(m, 2)).unwrap();
    assert!(matches!(old.destroy(), Err(Error::AlreadyGone { .. })));
    assert_eq!(stamp_of(&Segment::open(&scratch.place(), &options()).unwrap()), 2);
    new.destroy().unwrap();

    symlink("/nowhere", scratch.path()).unwrap();
    assert!(matches!(new.destroy(), Err(Error::AlreadyGone { .. })));
    assert!(scratch.exists());
}

#[test]
fn destroy_beside_a_held_guard_waits_its_time_and_removes_nothing() {
    let scratch = Scratch::new();
    let hasty = Options { wait: Duration::from_millis(50), ..options() };
    let segment = Segment::create(&scratch.place(), &hasty, |m| stamp(m, 1)).unwrap();
    let holder = fs::File::options().write(true).open(scratch.path()).unwrap();
    let range = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 16,
        l_pid: 0,
    };
    fcntl(&holder, FcntlArg::F_OFD_SETLK(&range)).unwrap();
    // Ready is ready, whoever holds the lock.
    assert_eq!(stamp_of(&Segment::open(&scratch.place(), &hasty).unwrap()), 1);
    let error = segment.destroy().unwrap_err();
    assert!(matches!(error, Error::FormatterStalled { .. }), "{error:?}");
    assert!(scratch.exists());
    drop(holder);
    segment.destroy().unwrap();
}

#[test]
fn sparse_segment_of_8_gib_uses_only_touched_pages() {
    let scratch = Scratch::new();
    let large = Options { size_bytes: 8 << 30, ..options() };
    let last = (8_usize << 30) - 4;
    let segment = Segment::create(&scratch.place(), &large, |mapping| {
        // SAFETY: the tests access the payload as words only.
        unsafe { mapping.words(last, 1) }.expect("the last word")[0].store(123);
        Ok::<(), String>(())
    })
    .unwrap();
    let again = Segment::open(&scratch.place(), &options()).unwrap();
    // SAFETY: the tests access the payload as words only.
    assert_eq!(unsafe { again.mapping().words(last, 1) }.unwrap()[0].load(), 123);
    let meta = fs::metadata(segment.place().unwrap()).unwrap();
    assert_eq!(meta.len(), 8 << 30);
    assert!(meta.blocks() * 512 <= 8 << 20, "{} blocks are in use", meta.blocks());
}

#[test]
fn reserve_allocates_every_page() {
    let scratch = Scratch::new();
    // More than one slice of the reservation, and not a multiple of it.
    let size_bytes = (40 << 20) + 4096;
    let reserved = Options { size_bytes, reserve: true, ..options() };
    let segment = Segment::create(&scratch.place(), &reserved, |m| stamp(m, 1)).unwrap();
    let meta = fs::metadata(scratch.path()).unwrap();
    assert_eq!(meta.len(), size_bytes);
    assert!(meta.blocks() * 512 >= size_bytes, "{} blocks are in use", meta.blocks());
    assert_eq!(stamp_of(&segment), 1);
}

#[test]
fn words_out_of_bounds_or_alignment_are_none() {
    let scratch = Scratch::new();
    let odd = Options { size_bytes: 4099, ..options() };
    let segment = Segment::create(&scratch.place(), &odd, |_| Ok::<(), String>(())).unwrap();
    let words = |offset, count| {
        // SAFETY: nobody else uses this segment.
        unsafe { segment.mapping().words(offset, count) }.map(<[_]>::len)
    };
    assert_eq!(words(0, 1024), Some(1024));
    assert_eq!(words(4092, 1), Some(1));
    assert_eq!(words(4096, 0), Some(0));
    for (offset, count) in [
        (0, 1025),
        (4096, 1),
        (4100, 0),
        (2, 1),
        (4, usize::MAX),
        (4, usize::MAX / 4),
        (usize::MAX - 3, 1),
    ] {
        assert_eq!(words(offset, count), None, "{count} words at {offset}");
    }
}

#[test]
fn path_that_is_relative_is_resolved_once() {
    let scratch = Scratch::new();
    let up = std::env::current_dir().unwrap().components().count();
    let relative = "../".repeat(up) + scratch.path().to_str().unwrap().trim_start_matches('/');
    let place = Place::Path(relative.into());
    let segment = Segment::create(&place, &options(), |m| stamp(m, 4)).unwrap();
    assert!(segment.place().unwrap().is_absolute());
    assert_eq!(stamp_of(&Segment::open(&scratch.place(), &options()).unwrap()), 4);
    segment.destroy().unwrap();
}
