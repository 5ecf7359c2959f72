//! Segments without a name, and descriptors from elsewhere.

mod common;

use std::fs::File;
use std::os::fd::OwnedFd;

use am_layout::guard::{FORMATTING, MAGIC, VERSION};
use am_shm::{Error, InitError, Place, Segment};
use common::{Scratch, guard, options, stamp, stamp_of};
use nix::errno::Errno;

fn memfd() -> Segment {
    let place = Place::Memfd("test".into());
    Segment::create(&place, &options(), |m| stamp(m, 6)).expect("makes a memfd segment")
}

fn descriptor(segment: &Segment) -> OwnedFd {
    segment.as_fd().try_clone_to_owned().expect("duplicates a descriptor")
}

#[test]
fn memfd_has_no_name_to_open_or_destroy() {
    let segment = memfd();
    assert!(segment.formatted_here());
    assert_eq!(segment.place(), None);
    assert!(matches!(segment.destroy(), Err(Error::NotNamed { .. })));
    let opened = Segment::open(&Place::Memfd("test".into()), &options());
    assert!(matches!(opened, Err(Error::NotNamed { .. })));
}

#[test]
fn memfd_made_twice_is_two_segments() {
    let place = Place::Memfd("test".into());
    let first = Segment::open_or_create(&place, &options(), |m| stamp(m, 1)).unwrap();
    let second = Segment::open_or_create(&place, &options(), |m| stamp(m, 2)).unwrap();
    assert_eq!((stamp_of(&first), stamp_of(&second)), (1, 2));
}

#[test]
fn memfd_cannot_be_cut_short_or_grown() {
    let segment = memfd();
    assert!(segment.sealed());
    let file = File::from(descriptor(&segment));
    for len in [0, segment.mapping().len() as u64 * 2] {
        let cause = file.set_len(len).unwrap_err();
        assert_eq!(cause.raw_os_error(), Some(Errno::EPERM as i32));
    }
}

#[test]
fn memfd_attached_is_the_same_memory() {
    let segment = memfd();
    let attached = Segment::attach(descriptor(&segment), &options()).unwrap();
    assert!(!attached.formatted_here() && attached.sealed());
    assert_eq!(stamp_of(&attached), 6);
    common::payload(attached.mapping())[3].store(99);
    assert_eq!(common::payload(segment.mapping())[3].load(), 99);
    assert!(matches!(attached.destroy(), Err(Error::NotNamed { .. })));
}

#[test]
fn memfd_with_failing_closure_reports_it() {
    let made = Segment::create(&Place::Memfd("x".into()), &options(), |_| Err("out of ink"));
    assert!(matches!(made.unwrap_err(), InitError::Format("out of ink")));
}

#[test]
fn attached_file_without_seal_is_accepted_and_told() {
    let scratch = Scratch::new();
    let segment = Segment::create(&scratch.place(), &options(), |m| stamp(m, 6)).unwrap();
    let attached = Segment::attach(descriptor(&segment), &options()).unwrap();
    assert!(!segment.sealed() && !attached.sealed());
    assert_eq!((stamp_of(&attached), attached.place()), (6, None));
}

#[test]
fn attached_descriptor_that_is_no_segment_is_refused() {
    let fd = |bytes: &[u8]| -> (Scratch, OwnedFd) {
        let scratch = Scratch::holding(bytes);
        let file = File::options().read(true).write(true).open(scratch.path()).unwrap();
        (scratch, file.into())
    };
    let attach = |bytes: &[u8]| {
        let (_scratch, fd) = fd(bytes);
        Segment::attach(fd, &options()).unwrap_err()
    };
    assert!(matches!(attach(&[0; 64]), Error::NotASegment { seen: 0, .. }));
    assert!(matches!(attach(b"short"), Error::Truncated { len_bytes: 5, .. }));
    assert!(matches!(attach(b""), Error::Empty { .. }));
    let half = guard(FORMATTING, MAGIC, VERSION, 2);
    assert!(matches!(attach(&half), Error::HalfFormatted { takeovers: 2, .. }));

    let (pipe, _write) = nix::unistd::pipe().unwrap();
    let error = Segment::attach(pipe, &options()).unwrap_err();
    assert!(matches!(error, Error::NotARegularFile { kind: "pipe", .. }), "{error:?}");
}

#[test]
fn attached_read_only_descriptor_names_the_mapping() {
    let scratch = Scratch::new();
    let _segment = Segment::create(&scratch.place(), &options(), |m| stamp(m, 6)).unwrap();
    let read_only = File::open(scratch.path()).unwrap();
    let error = Segment::attach(read_only.into(), &options()).unwrap_err();
    assert!(matches!(error, Error::Syscall { operation: "map", .. }), "{error:?}");
}
