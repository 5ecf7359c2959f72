//! Which pages a matrix lies on, which of them are mapped, and on which NUMA nodes.
//!
//! Pages of the kernel's pool and mounts need root; elsewhere these tests skip, with a notice.

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Hugepages, Matrix, OpenError, Pages, SegmentError};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{SysconfVar, sysconf};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

const MIB: u64 = 1 << 20;
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Tells on the terminal why a test could not be run; the test runner hides what passing ones print.
fn skip(test: &str, why: &anyhow::Error) {
    // In one piece, since other tests write at the same time.
    let notice = format!("SKIPPED {test}: {why:#}\n");
    let _ = std::io::stderr().write_all(notice.as_bytes());
}

/// The turn of one test at the kernel's pool, so that none takes the pages of another. Also for tests
/// that want more than there is, since they take one on the way.
fn pool_turn() -> Result<Flock<File>> {
    let turn = File::open("/proc/sys/vm/nr_hugepages").context("no pool")?;
    Ok(Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?)
}

/// Huge pages of 2 MiB added to the kernel's pool, taken away at the end, by one test at a time.
struct HugePages {
    before: u64,
    _turn: Flock<File>,
}

impl HugePages {
    fn add(count: u64) -> Result<Self> {
        let turn = pool_turn()?;
        let before = Self::total()?;
        fs::write(POOL, (before + count).to_string()).context("the pool is not ours")?;
        let pages = Self { before, _turn: turn };
        ensure!(Self::total()? >= before + count, "the kernel has too few contiguous pages");
        Ok(pages)
    }

    fn total() -> Result<u64> {
        Ok(fs::read_to_string(POOL).context("no pool of 2 MiB pages")?.trim().parse()?)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(POOL, self.before.to_string());
    }
}

/// Mounts a hugetlbfs that this thread alone sees.
fn mount_hugetlbfs(directory: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("no private mounts")?;
    let kind = Some("hugetlbfs");
    mount(Some("none"), directory, kind, MsFlags::empty(), Some("pagesize=2M"))
        .context("cannot mount a hugetlbfs")
}

/// Allocates in every sector, and gives it back.
fn use_it(matrix: &Matrix) {
    let blocks = [100, 50_000, 500_000].map(|bytes| matrix.allocate(bytes).unwrap());
    for mut block in blocks {
        block.fill(0xa5);
    }
    assert!(matrix.check().is_empty());
}

#[test]
fn memfd_of_huge_pages_is_attached_and_used() {
    let _pages = match HugePages::add(4) {
        Ok(pages) => pages,
        Err(why) => return skip("memfd_of_huge_pages", &why),
    };
    let builder = Matrix::builder().size(8 * MIB).pages(Pages::HUGE_2_MIB).reserve(true);
    let matrix = builder.memfd("huge").unwrap();
    use_it(&matrix);
    let fd = matrix.as_fd().try_clone_to_owned().unwrap();
    let attached = Matrix::builder().pages(Pages::HUGE).prefault(true).attach(fd).unwrap();
    use_it(&attached);
    assert_eq!(attached.hugepages(), Hugepages::Huge { page_bytes: 2 * MIB });
    let told = attached.residence().unwrap();
    assert_eq!((told.page_bytes, told.mapped_bytes), (2 * MIB, 8 * MIB));
    let offset = matrix.allocate(1000).unwrap().into_offset();
    assert_eq!(attached.from_offset(offset).unwrap().len(), 1000);
}

#[test]
fn file_on_hugetlbfs_is_made_opened_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders");
    let _pages = match HugePages::add(4)
        .and_then(|pages| mount_hugetlbfs(directory.path()).map(|()| pages))
    {
        Ok(pages) => pages,
        Err(why) => return skip("file_on_hugetlbfs", &why),
    };
    let builder = Matrix::builder().size(8 * MIB);
    let matrix = builder.clone().open_or_create_at(&path).unwrap();
    let again = builder.open_or_create_at(&path).unwrap();
    assert!(matrix.formatted_here() && !again.formatted_here());
    assert_eq!(again.hugepages(), Hugepages::Huge { page_bytes: 2 * MIB });
    use_it(&matrix);
    use_it(&again);
    assert_eq!(matrix.participants().len(), 2);
    assert!(matrix.participants().iter().all(|who| who.alive), "locks do not work there");
    let odd = Matrix::builder().size(8 * MIB + 4096).create_at(directory.path().join("odd"));
    let OpenError::Segment(error) = odd.unwrap_err() else { panic!("another error") };
    assert!(matches!(error, SegmentError::NotWholePages { .. }), "{error}");
    matrix.destroy().unwrap();
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    drop((matrix, again));
    umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn huge_pages_that_are_not_there_are_an_error_with_the_file_to_change() {
    let _turn = match pool_turn() {
        Ok(turn) => turn,
        Err(why) => return skip("huge_pages_that_are_not_there", &why),
    };
    let builder = Matrix::builder().size(64 << 30).pages(Pages::HUGE_2_MIB);
    let OpenError::Segment(error) = builder.clone().memfd("huge").unwrap_err() else {
        panic!("another error")
    };
    if matches!(error, SegmentError::NoSuchPages { .. }) {
        return skip("huge_pages_that_are_not_there", &error.into());
    }
    assert!(matches!(error, SegmentError::NoHugePages { .. }), "{error:?}");
    assert!(error.to_string().contains("take 32768 huge pages"), "{error}");
    assert!(error.to_string().contains("nr_hugepages"), "{error}");
    let name = format!("huge-{}", std::process::id());
    let OpenError::Segment(error) = builder.create(&name).unwrap_err() else {
        panic!("another error")
    };
    assert!(matches!(error, SegmentError::OtherPages { .. }), "{error:?}");
    assert!(!Path::new("/dev/shm").join(&name).exists());
}

#[test]
fn transparent_pages_are_a_wish() {
    let matrix = Matrix::builder().size(8 * MIB).pages(Pages::Transparent).memfd("thp").unwrap();
    use_it(&matrix);
    assert_ne!(matrix.hugepages(), Hugepages::NotAsked);
    let small = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64;
    assert_eq!(matrix.residence().unwrap().page_bytes, small, "of the file, not of the wish");
}

#[test]
fn prefault_maps_all_and_reserve_only_makes_it() {
    let sizes = |reserve, prefault| {
        let builder = Matrix::builder().size(8 * MIB).reserve(reserve).prefault(prefault);
        let told = builder.memfd("sizes").unwrap().residence().unwrap();
        (told.allocated_bytes == 8 * MIB, told.mapped_bytes == 8 * MIB)
    };
    assert_eq!(sizes(false, false), (false, false));
    assert_eq!(sizes(true, false), (true, false));
    assert_eq!(sizes(false, true), (true, true));
}

#[cfg(feature = "numa")]
mod numa {
    use super::*;
    use atomic_matrix::{Bound, SectorId};

    /// Node 0 for two of three sectors.
    fn near() -> atomic_matrix::Builder {
        Matrix::builder().size(8 * MIB).numa(SectorId::Small, 0).numa(SectorId::Large, 0)
    }

    #[track_caller]
    fn assert_near(matrix: &Matrix) {
        let told = matrix.nodes().unwrap();
        let sectors: Vec<SectorId> = told.iter().map(|told| told.sector).collect();
        assert_eq!(sectors, SectorId::ALL);
        for told in told {
            let is_asked = told.sector != SectorId::Medium;
            assert_eq!(told.asked, is_asked.then_some(0));
            assert_eq!(told.bound.len(), if is_asked { 2 } else { 0 }, "{told:?}");
            let sector = matrix.geometry().sectors[told.sector as usize];
            for bound in &told.bound {
                let Bound::Taken { range, node } = bound else { panic!("{told:?}") };
                assert!(*node == 0 && !range.is_empty(), "{told:?}");
            }
            if is_asked {
                assert_eq!(told.nodes.bytes_on.keys().collect::<Vec<_>>(), [&0], "{told:?}");
                let difference = told.nodes.bytes_on[&0].abs_diff(sector.size_bytes());
                assert!(difference <= 4096, "{told:?} of {sector:?}");
            }
            assert_eq!(told.nodes.unmapped_bytes, 0);
        }
    }

    fn binds(test: &str) -> bool {
        let matrix = near().memfd("try").unwrap();
        match matrix.nodes() {
            Ok(told) => match told[0].bound[0] {
                Bound::Taken { .. } => return true,
                ref refused => skip(test, &anyhow::anyhow!("{refused:?}")),
            },
            Err(error) => skip(test, &error.into()),
        }
        false
    }

    #[test]
    fn sectors_bound_to_node_0_lie_there_when_made_opened_and_attached() {
        if !binds("sectors_bound_to_node_0") {
            return;
        }
        let name = format!("numa-{}", std::process::id());
        let made = near().prefault(true).create(&name).unwrap();
        let opened = near().prefault(true).open(&name).unwrap();
        let accepted = near().prefault(true).open_or_create(&name).unwrap();
        let fd = made.as_fd().try_clone_to_owned().unwrap();
        let attached = near().prefault(true).attach(fd).unwrap();
        made.destroy().unwrap();
        for matrix in [made, opened, accepted, attached] {
            assert_eq!(matrix.residence().unwrap().mapped_bytes, 8 * MIB);
            assert_near(&matrix);
            use_it(&matrix);
        }
    }

    #[test]
    fn sector_on_a_node_that_is_not_there_is_refused_and_leaves_nothing() {
        if !binds("sector_on_a_node_that_is_not_there") {
            return;
        }
        let name = format!("numa-none-{}", std::process::id());
        let far = || Matrix::builder().size(8 * MIB).numa(SectorId::Medium, 777);
        let error = far().open_or_create(&name).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("NUMA node 777: nodes with memory are 0"), "{told}");
        assert!(!Path::new("/dev/shm").join(&name).exists());
        let matrix = Matrix::builder().size(8 * MIB).create(&name).unwrap();
        let opened = far().open(&name);
        matrix.destroy().unwrap();
        assert!(matches!(
            opened.unwrap_err(),
            OpenError::Segment(SegmentError::NoSuchNode { node: 777, .. })
        ));
        assert_eq!(matrix.participants().len(), 1, "who was refused takes part");
    }

    #[test]
    fn sector_that_is_absent_cannot_be_bound() {
        let builder = Matrix::builder().split(0, 50).numa(SectorId::Small, 0);
        let error = builder.memfd("absent").unwrap_err();
        assert!(matches!(error, OpenError::NoSuchSector { sector: SectorId::Small }), "{error}");
    }
}
