//! Pages that exist, and pages that are mapped.

mod common;

use am_shm::{Error, Options, Place, Segment};
use common::mounted::tmpfs;
use common::{Scratch, options, payload, stamp, stamp_of};

const MIB: u64 = 1 << 20;

fn untouched(size_bytes: u64, scratch: &Scratch) -> Segment {
    let asked = Options { size_bytes, ..options() };
    Segment::create(&scratch.place(), &asked, |_| Ok::<(), ()>(())).unwrap()
}

#[test]
fn reserve_makes_pages_and_prefault_maps_them() {
    let sizes = |reserve, prefault| {
        let scratch = Scratch::new();
        let asked = Options { size_bytes: 4 * MIB, reserve, prefault, ..options() };
        let segment = Segment::create(&scratch.place(), &asked, |_| Ok::<(), ()>(())).unwrap();
        let told = segment.residence().unwrap();
        (told.allocated_bytes / MIB, told.mapped_bytes / MIB)
    };
    assert_eq!(sizes(false, false), (0, 0));
    assert_eq!(sizes(true, false), (4, 0));
    assert_eq!(sizes(false, true), (4, 4));
    assert_eq!(sizes(true, true), (4, 4));
}

#[test]
fn prefault_on_opening_and_attaching_maps_every_page_and_changes_no_byte() {
    let scratch = Scratch::new();
    let asked = Options { size_bytes: 20 * MIB, ..options() };
    let segment = Segment::create(&scratch.place(), &asked, |m| stamp(m, 6)).unwrap();
    let unasked = Segment::open(&scratch.place(), &options()).unwrap();
    assert!(unasked.residence().unwrap().mapped_bytes < MIB);

    let prefault = Options { prefault: true, ..options() };
    let opened = Segment::open(&scratch.place(), &prefault).unwrap();
    let fd = segment.as_fd().try_clone_to_owned().unwrap();
    let attached = Segment::attach(fd, &prefault).unwrap();
    unasked.prefault().unwrap();
    for other in [opened, attached, unasked] {
        assert_eq!(other.residence().unwrap().mapped_bytes, 20 * MIB);
        assert_eq!(stamp_of(&other), 6);
    }
}

#[test]
fn prefault_of_a_size_between_pages_maps_the_last_one_too() {
    let scratch = Scratch::new();
    let segment = untouched(10_000, &scratch);
    segment.prefault().unwrap();
    assert_eq!(segment.residence().unwrap().mapped_bytes, 12_288);
}

#[test]
fn prefault_beside_threads_at_work_loses_none_of_their_writes() {
    let scratch = Scratch::new();
    let segment = untouched(4 * MIB, &scratch);
    let words = payload(segment.mapping());
    std::thread::scope(|scope| {
        scope.spawn(|| words.iter().for_each(|word| word.store(3)));
        let again = Segment::open(&scratch.place(), &options()).unwrap();
        again.prefault().unwrap();
    });
    assert_eq!(stamp_of(&segment), 3);
}

#[test]
fn prefault_of_a_sparse_segment_on_a_full_tmpfs_is_no_space() {
    let scratch = Scratch::new();
    let Some(directory) = tmpfs("prefault_of_a_sparse_segment", &scratch, "size=1m") else {
        return;
    };
    let place = Place::Path(directory.join("segment"));
    let asked = Options { size_bytes: 40 * MIB, ..options() };
    let segment = Segment::create(&place, &asked, |_| Ok::<(), ()>(())).unwrap();
    for refused in [
        segment.prefault().unwrap_err(),
        Segment::open(&place, &Options { prefault: true, ..options() }).unwrap_err(),
    ] {
        let Error::NoSpace { requested_bytes, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(requested_bytes, 40 * MIB);
    }
    assert!(segment.residence().unwrap().allocated_bytes <= MIB);
}

#[test]
fn prefault_of_a_file_cut_short_is_truncated() {
    let scratch = Scratch::new();
    let segment = untouched(MIB, &scratch);
    let file = std::fs::File::options().write(true).open(scratch.path()).unwrap();
    file.set_len(MIB / 2).unwrap();
    let error = segment.prefault().unwrap_err();
    assert!(matches!(error, Error::Truncated { len_bytes: 524_288, .. }), "{error:?}");
}
