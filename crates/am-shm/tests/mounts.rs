//! Full file systems and huge pages, on small tmpfs mounts in a mount namespace of the test's own.
//!
//! Only root may mount; others get a notice and the tests that need no mount.

mod common;

use std::fs;
use std::path::Path;

use am_shm::{Error, Hugepages, InitError, Options, Pages, Place, Segment};
use common::mounted::tmpfs;
use common::{Scratch, options, skip, stamp, stamp_of};

const MIB: u64 = 1 << 20;

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("lists the mount").next().is_none()
}

#[test]
fn reserve_on_a_full_tmpfs_is_no_space_and_leaves_nothing() {
    let scratch = Scratch::new();
    let Some(directory) = tmpfs("reserve_on_a_full_tmpfs", &scratch, "size=1m") else { return };
    let place = Place::Path(directory.join("segment"));
    let size_bytes = 40 * MIB;
    let large = Options { size_bytes, reserve: true, ..options() };
    let prefault = Options { reserve: false, prefault: true, ..large.clone() };
    let transparent = |large: &Options| Options { pages: Pages::Transparent, ..large.clone() };
    for large in [transparent(&large), transparent(&prefault), large, prefault] {
        let created = Segment::create(&place, &large, |m| stamp(m, 1));
        assert!(is_empty(&directory));
        let made = Segment::open_or_create(&place, &large, |m| stamp(m, 1));
        assert!(is_empty(&directory));
        for result in [created, made] {
            let error = result.expect_err("reserved 40 MiB of 1 MiB");
            let InitError::Segment(Error::NoSpace { requested_bytes, .. }) = error else {
                panic!("{error:?}")
            };
            assert_eq!(requested_bytes, size_bytes);
        }
    }

    // All is free again, and what fits is reserved.
    let fitting = Options { size_bytes: MIB / 2, reserve: true, ..options() };
    let segment = Segment::create(&place, &fitting, |m| stamp(m, 2)).expect("fits");
    assert_eq!(stamp_of(&segment), 2);
}

#[test]
fn guard_on_a_full_tmpfs_is_no_space_and_leaves_nothing() {
    let scratch = Scratch::new();
    let Some(directory) = tmpfs("guard_on_a_full_tmpfs", &scratch, "size=64k") else { return };
    fs::write(directory.join("filler"), vec![1; 64 << 10]).expect("fills the tmpfs");
    let place = Place::Path(directory.join("segment"));
    let made = Segment::open_or_create(&place, &options(), |m| stamp(m, 1));
    let error = made.expect_err("wrote a guard to a full file system");
    assert!(matches!(error, InitError::Segment(Error::NoSpace { .. })), "{error:?}");
    assert!(!directory.join("segment").exists());
}

#[test]
fn hugepages_on_a_tmpfs_that_advises_are_eligible() {
    let scratch = Scratch::new();
    let Some(directory) = tmpfs("hugepages_on_advise", &scratch, "size=32m,huge=advise") else {
        return;
    };
    let place = Place::Path(directory.join("segment"));
    let asked = Options { size_bytes: 8 * MIB, pages: Pages::Transparent, ..options() };
    let segment = Segment::create(&place, &asked, |m| stamp(m, 1)).unwrap();
    assert_eq!(segment.hugepages(), Hugepages::Eligible);
    let opened = Segment::open(&place, &asked).unwrap();
    assert_eq!(opened.hugepages(), Hugepages::Eligible);
    let unasked = Segment::open(&place, &options()).unwrap();
    assert_eq!(unasked.hugepages(), Hugepages::NotAsked);
}

#[test]
fn hugepages_of_a_prefaulted_tmpfs_are_counted_as_they_came() {
    let name = "hugepages_of_a_prefaulted_tmpfs";
    let scratch = Scratch::new();
    let Some(directory) = tmpfs(name, &scratch, "size=32m,huge=advise") else { return };
    let place = Place::Path(directory.join("segment"));
    let size_bytes = 8 * MIB;
    let asked = Options { size_bytes, pages: Pages::Transparent, prefault: true, ..options() };
    let segment = Segment::create(&place, &asked, |_| Ok::<(), ()>(())).unwrap();
    let told = segment.residence().unwrap();
    assert_eq!((told.allocated_bytes, told.mapped_bytes), (size_bytes, size_bytes));
    // How many there are is the kernel's affair: it may have none contiguous.
    assert!(told.huge_bytes <= size_bytes && told.huge_bytes.is_multiple_of(2 * MIB), "{told:?}");
    if told.huge_bytes == 0 {
        skip(name, "the kernel gave no transparent huge page to count");
    }

    let small = Options { size_bytes, prefault: true, ..options() };
    let small_place = Place::Path(directory.join("small"));
    let segment = Segment::create(&small_place, &small, |_| Ok::<(), ()>(())).unwrap();
    assert_eq!(segment.residence().unwrap().huge_bytes, 0);
}

#[test]
fn hugepages_on_a_tmpfs_without_them_are_ignored_with_the_setting() {
    let scratch = Scratch::new();
    let Some(directory) = tmpfs("hugepages_on_never", &scratch, "size=32m,huge=never") else {
        return;
    };
    let place = Place::Path(directory.join("segment"));
    let asked = Options { size_bytes: 8 * MIB, pages: Pages::Transparent, ..options() };
    let segment = Segment::create(&place, &asked, |m| stamp(m, 1)).unwrap();
    let Hugepages::Ignored { reason } = segment.hugepages() else {
        panic!("{:?}", segment.hugepages())
    };
    assert!(reason.contains("huge=never"), "{reason}");
    assert!(reason.contains(directory.to_str().unwrap()), "{reason}");
    assert!(reason.contains("shmem_enabled is "), "{reason}");
}

#[test]
fn hugepages_for_less_than_one_are_ignored_with_the_sizes() {
    let scratch = Scratch::new();
    let asked = Options { size_bytes: 64 << 10, pages: Pages::Transparent, ..options() };
    let segment = Segment::create(&scratch.place(), &asked, |m| stamp(m, 1)).unwrap();
    let told = segment.hugepages();
    if matches!(told, Hugepages::Refused { .. }) {
        return skip("hugepages_for_less_than_one", "the kernel has no huge pages");
    }
    let Hugepages::Ignored { reason } = told else { panic!("{told:?}") };
    assert!(reason.contains("65536 bytes are less than a huge page"), "{reason}");
}
