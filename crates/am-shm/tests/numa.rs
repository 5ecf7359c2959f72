//! Binding to NUMA nodes, on machines of any number of them.
#![cfg(feature = "numa")]

mod common;

use std::fs;

use am_shm::{Binding, Bound, Error, InitError, Options, Place, Segment};
use common::{Scratch, options, skip};

const MIB: u64 = 1 << 20;

fn memfd(asked: &Options) -> Result<Segment, InitError<()>> {
    Segment::create(&Place::Memfd("numa".into()), asked, |_| Ok(()))
}

fn sized() -> Options {
    Options { size_bytes: 4 * MIB, ..options() }
}

/// Whether the kernel takes bindings; a notice when not.
fn is_taken(test: &str, bound: &Bound) -> bool {
    if let Bound::Refused { errno } = bound {
        skip(test, &format!("the kernel does not bind: errno {errno}"));
    }
    matches!(bound, Bound::Taken { .. })
}

/// The policy that the kernel has for the part of the mapping around byte `at`; with one node it is
/// all that tells a page bound to it from one that is there for lack of another.
fn policy_at(segment: &Segment, at: usize) -> Option<String> {
    let address = segment.mapping().as_ptr().addr() + at;
    let maps = fs::read_to_string("/proc/self/numa_maps").expect("lists policies");
    // Each part has its first address only, in ascending order.
    let start = |line: &str| usize::from_str_radix(line.split(' ').next()?, 16).ok();
    let part = maps.lines().take_while(|line| start(line).is_some_and(|s| s <= address)).last()?;
    part.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn bind_of_one_range_leaves_the_rest_as_it_was() {
    let segment = memfd(&sized()).unwrap();
    if is_taken("bind_of_one_range", &segment.bind(MIB..2 * MIB, 0).unwrap()) {
        let policies = [0, MIB, 2 * MIB - 1, 2 * MIB].map(|at| policy_at(&segment, at as usize));
        let policies = policies.each_ref().map(|policy| policy.as_deref().unwrap());
        assert_eq!(policies, ["default", "bind:0", "bind:0", "default"]);
    }
}

#[test]
fn bind_to_a_node_before_pages_are_touched_has_them_all_on_it() {
    let bind = vec![Binding { range: 0..MIB, node: 0 }, Binding { range: MIB..4 * MIB, node: 0 }];
    for (reserve, prefault) in [(false, true), (true, true), (true, false)] {
        let asked = Options { bind: bind.clone(), reserve, prefault, ..sized() };
        let segment = memfd(&asked).unwrap();
        if !is_taken("bind_to_a_node", &segment.bound()[0]) {
            return;
        }
        assert_eq!(policy_at(&segment, 0).as_deref(), Some("bind:0"));
        assert_eq!(policy_at(&segment, 3 * MIB as usize).as_deref(), Some("bind:0"));
        let taken = |range| Bound::Taken { range, node: 0 };
        assert_eq!(segment.bound(), [taken(0..MIB), taken(MIB..4 * MIB)]);
        segment.prefault().unwrap();
        let nodes = segment.nodes(MIB..4 * MIB).unwrap();
        assert_eq!(nodes.bytes_on.into_iter().collect::<Vec<_>>(), [(0, 3 * MIB)]);
        assert_eq!(nodes.unmapped_bytes, 0);
        // Bound in two, the mapping is two parts to the kernel, and one in the report.
        assert_eq!(segment.residence().unwrap().mapped_bytes, 4 * MIB);
    }
}

#[test]
fn bind_to_the_last_node_of_several_has_pages_there() {
    let list = fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
    let last = list.trim().rsplit([',', '-']).next().and_then(|node| node.parse().ok());
    let Some(node @ 1..) = last else {
        return skip("bind_to_the_last_node", "there is one node");
    };
    let bind = vec![Binding { range: 0..4 * MIB, node }];
    let segment = memfd(&Options { bind, prefault: true, ..sized() }).unwrap();
    if is_taken("bind_to_the_last_node", &segment.bound()[0]) {
        let nodes = segment.nodes(MIB..4 * MIB).unwrap();
        assert_eq!(nodes.bytes_on.into_iter().collect::<Vec<_>>(), [(node, 3 * MIB)]);
    }
}

#[test]
fn bind_to_a_node_that_is_not_there_is_refused_with_those_that_are() {
    let segment = memfd(&sized()).unwrap();
    if !is_taken("bind_to_a_node_that_is_not_there", &segment.bind(0..4096, 0).unwrap()) {
        return;
    }
    let scratch = Scratch::new();
    for node in [777, 1024, u32::MAX] {
        let error = segment.bind(0..MIB, node).unwrap_err();
        let Error::NoSuchNode { node: told, ref with_memory, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(told, node);
        assert!(with_memory.starts_with('0'), "{error}");

        let bind = vec![Binding { range: 0..MIB, node }];
        let asked = Options { bind, ..sized() };
        let made = Segment::create(&scratch.place(), &asked, |_| Ok::<(), ()>(()));
        assert!(matches!(made, Err(InitError::Segment(Error::NoSuchNode { .. }))));
        assert!(!scratch.exists());
    }
}

#[test]
fn bind_of_ranges_that_share_a_page_gives_it_to_the_first() {
    let segment = memfd(&sized()).unwrap();
    let first = segment.bind(0..8192 - 32, 0).unwrap();
    if !is_taken("bind_of_ranges_that_share_a_page", &first) {
        return;
    }
    assert_eq!(first, Bound::Taken { range: 0..8192, node: 0 });
    let second = segment.bind(8192 - 32..12_288, 0).unwrap();
    assert_eq!(second, Bound::Taken { range: 8192..12_288, node: 0 });
    let none = segment.bind(100..200, 0).unwrap();
    assert_eq!(none, Bound::Taken { range: 4096..4096, node: 0 });
}

#[test]
fn bind_of_a_range_that_is_none_is_refused() {
    let segment = memfd(&sized()).unwrap();
    let end = 4 * MIB;
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    for range in [0..end + 1, end + 1..end + 2, 8192..4096, 0..u64::MAX] {
        let error = segment.bind(range.clone(), 0).unwrap_err();
        assert!(matches!(error, Error::BadRange { .. }), "{range:?}: {error:?}");
        let error = segment.nodes(range.clone()).unwrap_err();
        assert!(matches!(error, Error::BadRange { .. }), "{range:?}: {error:?}");
    }
}

#[test]
fn nodes_of_pages_not_touched_are_unmapped() {
    let segment = memfd(&sized()).unwrap();
    let nodes = match segment.nodes(MIB..4 * MIB) {
        Err(Error::Syscall { cause, .. }) => {
            return skip("nodes_of_pages_not_touched", &cause.to_string());
        }
        told => told.unwrap(),
    };
    assert_eq!((nodes.bytes_on.len(), nodes.unmapped_bytes), (0, 3 * MIB));
}
