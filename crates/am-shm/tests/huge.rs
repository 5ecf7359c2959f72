//! Segments on huge pages of the kernel's pool: memfds, and files on a hugetlbfs.
//!
//! Most of this needs root, who may add pages to the pool and mount; others get a notice.

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use am_layout::guard::{FORMATTING, GUARD_BYTES, MAGIC, VERSION};
use am_shm::{Error, HugePool, Hugepages, InitError, Mapping, Options, Pages, Place, Segment};
use common::fork::forked;
use common::mounted::{HugePages, hugetlbfs, pool_turn};
use common::{Scratch, guard, options, payload, skip, stamp, stamp_of, state_at};
use memmap2::MmapOptions;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

const MIB: u64 = 1 << 20;
const PAGE_BYTES: u64 = 2 * MIB;
/// Not set at birth, so whoever finds it knows that a segment was made whole.
const STICKY: u32 = 0o1000;

fn huge(pages: Pages, size_bytes: u64) -> Options {
    Options { size_bytes, pages, ..options() }
}

/// Formats without touching every page.
fn mark(mapping: &Mapping) -> Result<(), String> {
    let words = payload(mapping);
    words[0].store(7);
    words[words.len() - 1].store(9);
    Ok(())
}

fn memfd(options: &Options) -> Result<Segment, InitError<String>> {
    Segment::create(&Place::Memfd("huge".into()), options, mark)
}

#[track_caller]
fn segment_error<T: std::fmt::Debug>(made: Result<T, InitError<String>>) -> Error {
    match made.expect_err("was made") {
        InitError::Segment(error) => error,
        InitError::Format(error) => panic!("{error}"),
    }
}

#[test]
fn memfd_of_huge_pages_is_sealed_and_reports_them() {
    let name = "memfd_of_huge_pages";
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let segment = memfd(&huge(Pages::HUGE_2_MIB, 4 * PAGE_BYTES)).unwrap();
    assert!(segment.sealed());
    assert_eq!(segment.hugepages(), Hugepages::Huge { page_bytes: PAGE_BYTES });
    let told = segment.residence().unwrap();
    assert_eq!(told.page_bytes, PAGE_BYTES);
    // The first and the last page were touched.
    assert_eq!((told.mapped_bytes, told.huge_bytes), (2 * PAGE_BYTES, 2 * PAGE_BYTES));
    assert_eq!(told.allocated_bytes, 2 * PAGE_BYTES);

    let file = File::from(segment.as_fd().try_clone_to_owned().unwrap());
    assert!(file.set_len(0).is_err(), "cut a sealed file short");
    let asked = Options { pages: Pages::HUGE, ..options() };
    let attached = Segment::attach(file.into(), &asked).unwrap();
    assert_eq!(payload(attached.mapping())[0].load(), 7);
    assert_eq!(attached.hugepages(), Hugepages::Huge { page_bytes: PAGE_BYTES });
    assert!(attached.locks().unwrap().try_lock(100).unwrap(), "no lock on a huge memfd");
}

#[test]
fn memfd_of_a_1_gib_page_reports_it() {
    let Some(_pages) = HugePages::add("memfd_of_a_1_gib_page", 1 << 30, 1) else { return };
    let segment = memfd(&huge(Pages::HUGE_1_GIB, 1 << 30)).unwrap();
    assert_eq!(segment.hugepages(), Hugepages::Huge { page_bytes: 1 << 30 });
    assert_eq!(segment.residence().unwrap().mapped_bytes, 1 << 30);
}

#[test]
fn memfd_beyond_the_pool_says_how_many_pages_are_free_and_where_to_change_it() {
    let _turn = match pool_turn() {
        Ok(turn) => turn,
        Err(why) => return skip("memfd_beyond_the_pool", &why),
    };
    let size_bytes = 1 << 44;
    let made = memfd(&huge(Pages::HUGE_2_MIB, size_bytes));
    let error = match segment_error(made) {
        Error::NoSuchPages { .. } => {
            return skip("memfd_beyond_the_pool", "no pool of 2 MiB pages");
        }
        error => error,
    };
    let told = error.to_string();
    let Error::NoHugePages { requested_bytes, pool, .. } = error else { panic!("{told}") };
    assert_eq!(requested_bytes, size_bytes, "{told}");
    let HugePool { page_bytes, total_pages, free_pages, knob, .. } = *pool;
    assert_eq!(page_bytes, PAGE_BYTES);
    assert!(total_pages.unwrap() < size_bytes / PAGE_BYTES);
    assert!(fs::metadata(&knob).unwrap().is_file());
    assert!(told.contains(&format!("{} of the", free_pages.unwrap())), "{told}");
    assert!(told.contains("nr_hugepages are free"), "{told}");
}

#[test]
fn reserve_and_prefault_of_huge_pages_make_them_all() {
    let name = "reserve_and_prefault_of_huge_pages";
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let size_bytes = 4 * PAGE_BYTES;
    let asked = huge(Pages::HUGE_2_MIB, size_bytes);
    let reserved = memfd(&Options { reserve: true, ..asked.clone() }).unwrap();
    let told = reserved.residence().unwrap();
    assert_eq!((told.allocated_bytes, told.mapped_bytes), (size_bytes, 2 * PAGE_BYTES));
    drop(reserved);
    let prefaulted = memfd(&Options { prefault: true, ..asked }).unwrap();
    let told = prefaulted.residence().unwrap();
    assert_eq!((told.allocated_bytes, told.mapped_bytes), (size_bytes, size_bytes));
}

#[test]
fn size_that_is_no_multiple_of_the_page_is_refused_with_the_next_one() {
    let made = memfd(&huge(Pages::HUGE_2_MIB, 3 * MIB));
    let error = match segment_error(made) {
        Error::NoSuchPages { .. } => return skip("size_that_is_no_multiple", "no 2 MiB pages"),
        error => error,
    };
    assert!(matches!(error, Error::NotWholePages { page_bytes: PAGE_BYTES, .. }), "{error:?}");
    assert!(error.to_string().contains("the next one is 4194304"), "{error}");
}

#[test]
fn page_size_that_the_kernel_does_not_have_is_refused_with_those_it_has() {
    for page_bytes in [0, 3, 4096, 12_345_678, 1 << 45] {
        let error = segment_error(memfd(&huge(Pages::Huge(Some(page_bytes)), PAGE_BYTES)));
        let Error::NoSuchPages { page_bytes: told, known } = error else { panic!("{error:?}") };
        assert_eq!(told, page_bytes);
        assert_eq!(known.is_empty(), !Path::new("/sys/kernel/mm/hugepages").exists());
    }
}

#[test]
fn huge_pages_where_the_file_system_has_small_ones_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    for pages in [Pages::HUGE, Pages::HUGE_2_MIB] {
        let asked = huge(pages, PAGE_BYTES);
        let error = segment_error(Segment::open_or_create(&scratch.place(), &asked, mark));
        assert!(matches!(error, Error::OtherPages { .. }), "{error:?}");
        assert!(!scratch.exists());
    }
    let small = Segment::create(&scratch.place(), &options(), |m| stamp(m, 1)).unwrap();
    let error = Segment::open(&scratch.place(), &huge(Pages::HUGE, PAGE_BYTES)).unwrap_err();
    assert!(matches!(error, Error::OtherPages { asked_bytes: None, .. }), "{error:?}");
    assert_eq!(stamp_of(&small), 1);
}

#[test]
fn file_on_hugetlbfs_is_made_opened_reserved_and_removed_as_any_other() {
    let name = "file_on_hugetlbfs";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let path = directory.join("segment");
    let place = Place::Path(path.clone());
    let asked = Options { reserve: true, mode: 0o640, ..huge(Pages::Default, 4 * PAGE_BYTES) };
    let segment = Segment::create(&place, &asked, mark).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o640, 4 * PAGE_BYTES));
    assert_eq!(segment.hugepages(), Hugepages::Huge { page_bytes: PAGE_BYTES });
    let told = segment.residence().unwrap();
    assert_eq!((told.page_bytes, told.allocated_bytes), (PAGE_BYTES, 4 * PAGE_BYTES));

    let opened = Segment::open(&place, &huge(Pages::HUGE, 0)).unwrap();
    let made = Segment::open_or_create(&place, &asked, mark).unwrap();
    for other in [&opened, &made] {
        assert!(!other.formatted_here() && !other.sealed());
        assert_eq!(payload(other.mapping())[0].load(), 7);
    }
    assert!(matches!(segment_error(Segment::create(&place, &asked, mark)), Error::Exists { .. }));
    let error = Segment::open(&place, &huge(Pages::HUGE_1_GIB, 0)).unwrap_err();
    assert!(matches!(error, Error::OtherPages { page_bytes: PAGE_BYTES, .. }), "{error:?}");
    segment.destroy().unwrap();
    assert!(!path.exists());
}

#[test]
fn file_on_hugetlbfs_without_pages_leaves_nothing() {
    let name = "file_on_hugetlbfs_without_pages";
    let scratch = Scratch::new();
    let Some(pages) = HugePages::add(name, PAGE_BYTES, 2) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let place = Place::Path(directory.join("segment"));
    let asked = huge(Pages::HUGE, (pages.total() + 1) * PAGE_BYTES);
    for asked in [asked.clone(), Options { reserve: true, prefault: true, ..asked }] {
        let error = segment_error(Segment::open_or_create(&place, &asked, mark));
        assert!(matches!(error, Error::NoHugePages { .. }), "{error:?}");
        assert!(fs::read_dir(&*directory).unwrap().next().is_none());
    }
    let odd = huge(Pages::Default, PAGE_BYTES + 4096);
    let error = segment_error(Segment::open_or_create(&place, &odd, mark));
    assert!(matches!(error, Error::NotWholePages { .. }), "{error:?}");
    assert!(fs::read_dir(&*directory).unwrap().next().is_none());
}

#[test]
fn mount_that_allows_fewer_pages_says_so() {
    let name = "mount_that_allows_fewer_pages";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M,size=4M") else { return };
    let place = Place::Path(directory.join("segment"));
    let asked = huge(Pages::HUGE, 3 * PAGE_BYTES);
    let error = segment_error(Segment::create(&place, &asked, mark));
    let Error::NoHugePages { ref pool, .. } = error else { panic!("{error:?}") };
    assert!(pool.mount_free_pages.unwrap() <= 2, "{pool:?}");
    assert!(error.to_string().contains("the mount allows"), "{error}");
    Segment::create(&place, &huge(Pages::HUGE, 2 * PAGE_BYTES), mark).expect("fits the mount");
}

/// Makes a file of one page by hand, with these permissions and first bytes.
fn plant(path: &Path, mode: u32, bytes: &[u8]) {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_permissions(Permissions::from_mode(mode)).unwrap();
    file.set_len(PAGE_BYTES).unwrap();
    let map = MmapOptions::new().len(PAGE_BYTES as usize).map_raw(&file).unwrap();
    assert!(bytes.len() <= map.len());
    // SAFETY: the map is longer than the bytes, and nobody else has the file.
    unsafe { map.as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// Every state that a formatter on a hugetlbfs can die in is taken over, and found empty or half
/// formatted by those who only open.
#[test]
fn formatter_on_hugetlbfs_dead_at_any_step_is_taken_over() {
    let name = "formatter_on_hugetlbfs_dead";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let path = directory.join("segment");
    let place = Place::Path(path.clone());
    let half = guard(FORMATTING, MAGIC, VERSION, 2);
    let scribbled = [&half[..], &[0xee; 100]].concat();
    let version_only = guard(0, 0, VERSION, 2);
    let states: [(u32, &[u8], u32); 5] = [
        (0o600 | STICKY, &[], 0),
        (0o600 | STICKY, &version_only, 0),
        (0o600 | STICKY, &half, 3),
        (0o600, &half, 3),
        (0o644, &scribbled, 3),
    ];
    for (mode, bytes, takeovers) in states {
        plant(&path, mode, bytes);
        let error = Segment::open(&place, &options()).unwrap_err();
        let is_expected = match takeovers {
            0 => matches!(error, Error::Empty { .. }),
            _ => matches!(error, Error::HalfFormatted { takeovers: 2, .. }),
        };
        assert!(is_expected, "{mode:o} {bytes:?}: {error:?}");
        let asked = huge(Pages::HUGE, 2 * PAGE_BYTES);
        let segment = Segment::open_or_create(&place, &asked, |m| stamp(m, 5)).unwrap();
        assert!(segment.formatted_here());
        assert_eq!((stamp_of(&segment), segment.takeovers()), (5, takeovers));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        segment.destroy().unwrap();
    }
}

/// The same by real deaths, at random moments of the making.
#[test]
fn formatter_on_hugetlbfs_killed_at_any_time_leaves_what_can_be_made() {
    let name = "formatter_on_hugetlbfs_killed";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 2) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let path = directory.join("segment");
    let place = Place::Path(path.clone());
    let asked = huge(Pages::HUGE, 2 * PAGE_BYTES);
    let mut found = [0; 2];
    for round in 0..200_u64 {
        let child = forked(|| drop(Segment::open_or_create(&place, &asked, mark).unwrap()));
        // From before the child runs to after it is done; 37 has no factor in common with 200.
        thread::sleep(Duration::from_micros(round * 37 % 200 * 10));
        kill(child, Signal::SIGKILL).expect("is a child");
        waitpid(child, None).expect("is a child");
        let segment = Segment::open_or_create(&place, &asked, mark)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(payload(segment.mapping())[0].load(), 7);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        found[usize::from(segment.formatted_here())] += 1;
        segment.destroy().unwrap();
    }
    println!("{} found ready, {} made by the survivor", found[0], found[1]);
}

#[test]
fn file_of_zeroes_on_hugetlbfs_that_is_not_ours_is_refused() {
    let name = "file_of_zeroes_on_hugetlbfs";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 4) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let path = directory.join("segment");
    let place = Place::Path(path.clone());
    for (mode, bytes) in [(0o600, &[][..]), (0o600 | STICKY, b"somebody's bytes")] {
        plant(&path, mode, bytes);
        let asked = huge(Pages::HUGE, PAGE_BYTES);
        let error = segment_error(Segment::open_or_create(&place, &asked, mark));
        assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
        let mut found = [0; 16];
        File::open(&path).unwrap().read_exact_at(&mut found[..bytes.len()], 0).unwrap();
        assert_eq!(&found[..bytes.len()], bytes, "the file was changed");
        fs::remove_file(&path).unwrap();
    }
    // Elsewhere the sticky bit means nothing.
    let elsewhere = Scratch::holding(&[0; 64]);
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o600 | STICKY)).unwrap();
    let made = Segment::open_or_create(&elsewhere.place(), &options(), mark);
    assert!(matches!(segment_error(made), Error::NotASegment { seen: 0, .. }));
}

#[test]
fn threads_racing_on_hugetlbfs_find_one_formatter() {
    let name = "threads_racing_on_hugetlbfs";
    let scratch = Scratch::new();
    // As many as the segment takes: nobody but the formatter may hold any.
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 2) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let asked = huge(Pages::HUGE, 2 * PAGE_BYTES);
    for round in 0..50 {
        let path = directory.join(format!("segment-{round}"));
        let place = Place::Path(path.clone());
        let (formatted, barrier) = (AtomicU32::new(0), Barrier::new(4));
        thread::scope(|scope| {
            let run = || {
                barrier.wait();
                let segment = Segment::open_or_create(&place, &asked, mark).unwrap();
                formatted.fetch_add(segment.formatted_here().into(), Ordering::Relaxed);
                assert_eq!(payload(segment.mapping())[0].load(), 7);
            };
            (0..4).for_each(|_| drop(scope.spawn(run)));
        });
        assert_eq!(formatted.into_inner(), 1, "round {round}");
        assert_eq!(state_at(&path), am_layout::guard::READY);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn failing_closure_on_hugetlbfs_leaves_nothing() {
    let name = "failing_closure_on_hugetlbfs";
    let scratch = Scratch::new();
    let Some(_pages) = HugePages::add(name, PAGE_BYTES, 1) else { return };
    let Some(directory) = hugetlbfs(name, &scratch, "pagesize=2M") else { return };
    let place = Place::Path(directory.join("segment"));
    let asked = huge(Pages::HUGE, PAGE_BYTES);
    let made = Segment::create(&place, &asked, |_| Err("out of ink".to_owned()));
    assert!(matches!(made, Err(InitError::Format(_))));
    assert!(fs::read_dir(&*directory).unwrap().next().is_none());
    let segment = Segment::create(&place, &asked, mark).expect("the page is free again");
    assert!(segment.mapping().len() > GUARD_BYTES);
}
