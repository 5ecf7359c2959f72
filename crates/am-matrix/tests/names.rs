//! Names: created, opened, removed, by one and by many, and with words that somebody scribbled on.

mod common;

use am_layout::NAMES_AT_BYTES;
use am_layout::names::{ENTRY_WORDS, NAMES, NAMES_WORDS};
use am_matrix::{Error, Matrix};
use common::{assert_sound, assert_whole, attach_again, matrix, on_threads};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

const KIND: u32 = 0x7465_7374;

fn create(matrix: &Matrix, name: &str, kind: u32) -> Result<am_matrix::Offset, Error> {
    let block = matrix.allocate(200)?;
    Ok(matrix.create_named(name, kind, block)?.offset())
}

fn remove(matrix: &Matrix, name: &str, kind: u32) -> Result<(), Error> {
    // SAFETY: no test here keeps a view of a common block.
    drop(unsafe { matrix.remove_named(name, kind) }?);
    Ok(())
}

fn listed(matrix: &Matrix) -> Vec<(String, u32)> {
    let mut names: Vec<_> =
        matrix.names().map(|named| (named.name.to_string(), named.kind)).collect();
    names.sort();
    names
}

/// The words of the directory, to be scribbled on.
fn words(matrix: &Matrix) -> &[AtomicU32] {
    let first = matrix.arena().base().wrapping_add(NAMES_AT_BYTES as usize).cast::<AtomicU32>();
    // SAFETY: the directory lies inside the arena, aligned, and consists of atomic words.
    unsafe { std::slice::from_raw_parts(first, NAMES_WORDS) }
}

#[test]
fn name_leads_to_its_block_until_it_is_removed() {
    let matrix = matrix(1 << 20, 40, 30);
    let other = attach_again(&matrix);
    let mut block = matrix.allocate(200).unwrap();
    block[..5].copy_from_slice(b"hello");
    let common = matrix.create_named("orders/ü", KIND, block).unwrap();
    assert_eq!(common.len_bytes(), 200);
    assert_eq!(other.open_named("orders/ü", KIND).unwrap(), common);
    // SAFETY: nobody writes to it or adopts it meanwhile.
    assert_eq!(&unsafe { other.common_bytes(common.offset()) }.unwrap()[..5], b"hello");
    let named = other.names().next().unwrap();
    assert_eq!((&*named.name, named.kind, named.block), ("orders/ü", KIND, common));
    assert_sound(&matrix);

    // SAFETY: no view of it is used any more.
    let block = unsafe { other.remove_named("orders/ü", KIND) }.unwrap();
    assert_eq!((block.len(), &block[..5]), (200, &b"hello"[..]));
    drop(block);
    other.trim().unwrap();
    assert_eq!(matrix.open_named("orders/ü", KIND), Err(Error::NoSuchName));
    assert_eq!(remove(&matrix, "orders/ü", KIND), Err(Error::NoSuchName));
    assert_eq!(listed(&matrix), []);
    assert_whole(&matrix);
}

#[test]
fn name_refused_gives_the_block_back() {
    let matrix = matrix(1 << 20, 40, 30);
    let long = "x".repeat(49);
    let too_long = Error::NameTooLong { bytes: 49, maximum_bytes: 48 };
    assert_eq!(create(&matrix, &long, 1), Err(too_long));
    assert_eq!(matrix.open_named(&long, 1), Err(too_long));
    assert_eq!(remove(&matrix, &long, 1), Err(too_long));
    assert_eq!(create(&matrix, "", 1), Err(Error::NameEmpty));
    assert_eq!(matrix.open_named("", 1), Err(Error::NameEmpty));
    assert_whole(&matrix);

    let offset = create(&matrix, "a", 1).unwrap();
    assert_eq!(create(&matrix, "a", 1), Err(Error::NameTaken { offset }));
    assert_eq!(create(&matrix, "a", 2), Err(Error::NameTaken { offset }));
    assert_eq!(matrix.open_named("a", 2), Err(Error::WrongKind { seen: 1, expected: 2 }));
    assert_eq!(remove(&matrix, "a", 2), Err(Error::WrongKind { seen: 1, expected: 2 }));
    assert_eq!(matrix.open_named("b", 1), Err(Error::NoSuchName));

    let other = attach_again(&matrix);
    let block = other.allocate(100).unwrap();
    let foreign = block.offset();
    let refused = matrix.create_named("b", 1, block);
    assert_eq!(refused, Err(Error::OtherMatrix { offset: foreign }));
    other.trim().unwrap();
    // A clone is the same attachment.
    let block = matrix.clone().with_thread_caches(false);
    let block = block.allocate(100).unwrap();
    matrix.create_named("b", 1, block).unwrap();
    for name in ["a", "b"] {
        remove(&matrix, name, 1).unwrap();
    }
    assert_whole(&matrix);
}

#[test]
fn names_beyond_64_are_refused_and_one_removed_makes_room() {
    let matrix = matrix(1 << 20, 40, 30);
    let name = |n: usize| format!("{n:048}");
    for n in 0..NAMES {
        create(&matrix, &name(n), n as u32).unwrap();
    }
    let full = Error::TooManyNames { maximum: 64 };
    assert_eq!(create(&matrix, "one more", 1), Err(full));
    assert_eq!(listed(&matrix).len(), NAMES);
    for n in 0..NAMES {
        assert!(matrix.open_named(&name(n), n as u32).is_ok());
    }
    remove(&matrix, &name(40), 40).unwrap();
    create(&matrix, "one more", 1).unwrap();
    assert_eq!(matrix.open_named(&name(40), 40), Err(Error::NoSuchName));
    remove(&matrix, "one more", 1).unwrap();
    for n in (0..NAMES).filter(|&n| n != 40) {
        remove(&matrix, &name(n), n as u32).unwrap();
    }
    assert_whole(&matrix);
}

#[test]
fn name_created_by_eight_threads_at_once_has_one_maker() {
    let matrix = matrix(1 << 20, 40, 30);
    let made = AtomicUsize::new(0);
    // Threads of one attachment, and attachments of their own.
    on_threads(8, |number| {
        let own = (number % 2 == 1).then(|| attach_again(&matrix));
        let matrix = own.as_ref().unwrap_or(&matrix);
        match create(matrix, "one", KIND) {
            Ok(_) => _ = made.fetch_add(1, Relaxed),
            Err(error) => assert!(matches!(error, Error::NameTaken { .. }), "{error}"),
        }
        assert!(matrix.open_named("one", KIND).is_ok());
    });
    assert_eq!(made.into_inner(), 1);
    remove(&matrix, "one", KIND).unwrap();
    assert_whole(&matrix);
}

#[test]
fn reader_beside_names_that_come_and_go_sees_whole_entries() {
    let matrix = matrix(1 << 20, 40, 30);
    let done = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    // Two lengths, so that a mixture of two names is none of them.
    let name = |n: u32| if n.is_multiple_of(2) { format!("{n:08}") } else { format!("{n:040}") };
    std::thread::scope(|scope| {
        let read = || {
            while !done.load(Relaxed) {
                for named in matrix.names() {
                    assert_eq!(*named.name, name(named.kind));
                    seen.fetch_add(1, Relaxed);
                }
            }
        };
        let reader = scope.spawn(read);
        let changes = if cfg!(miri) { 5 } else { 3000 * common::soak() as u32 };
        for n in 0..changes {
            create(&matrix, &name(n), n).unwrap();
            remove(&matrix, &name(n), n).unwrap();
        }
        // One that stays, until the reader has seen some.
        create(&matrix, &name(1), 1).unwrap();
        while seen.load(Relaxed) == 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        done.store(true, Relaxed);
    });
    remove(&matrix, &name(1), 1).unwrap();
    assert_whole(&matrix);
}

#[test]
fn entry_left_in_change_is_settled_by_whose_its_block_is() {
    let matrix = matrix(1 << 20, 40, 30);
    let offset = create(&matrix, "kept", KIND).unwrap();
    let state = &words(&matrix)[0];
    // As one who died in `remove_named` before it adopted the block, or in `create_named` after it was common.
    state.store((state.load(Relaxed) & !3) | 77 << 2 | 2, Relaxed);
    assert_eq!(matrix.open_named("kept", KIND), Err(Error::NoSuchName), "until it is settled");
    assert_eq!(matrix.check().len(), 1);
    create(&matrix, "another", KIND).unwrap();
    assert_eq!(matrix.open_named("kept", KIND).unwrap().offset(), offset);
    assert_sound(&matrix);

    // As one who died with the block in its hands.
    // SAFETY: nobody looks at it or adopts it.
    let block = unsafe { matrix.adopt_common(offset) }.unwrap();
    state.store((state.load(Relaxed) & !3) | 77 << 2 | 2, Relaxed);
    let second = create(&matrix, "kept", KIND).unwrap();
    assert_ne!(second, offset);
    assert_eq!(listed(&matrix), [("another".to_owned(), KIND), ("kept".to_owned(), KIND)]);
    drop(block);
    for name in ["another", "kept"] {
        remove(&matrix, name, KIND).unwrap();
    }
    assert_whole(&matrix);
}

#[test]
fn name_of_a_block_that_is_common_no_more_is_refused_and_told() {
    let matrix = matrix(1 << 20, 40, 30);
    let offset = create(&matrix, "a", KIND).unwrap();
    // SAFETY: nobody looks at it, and nobody else adopts it.
    drop(unsafe { matrix.adopt_common(offset) }.unwrap());
    assert!(matches!(matrix.open_named("a", KIND), Err(Error::NotCommon { .. })));
    assert!(matches!(remove(&matrix, "a", KIND), Err(Error::NotCommon { .. })));
    assert_eq!(listed(&matrix), []);
    assert!(matches!(matrix.check()[..], [am_matrix::Violation::BadName { entry: 0, .. }]));
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Create(u8, u32),
    Open(u8, u32),
    Remove(u8, u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (any::<u8>(), 0..2u32).prop_map(|(n, kind)| Op::Create(n, kind)),
        1 => (any::<u8>(), 0..2u32).prop_map(|(n, kind)| Op::Open(n, kind)),
        1 => (any::<u8>(), 0..2u32).prop_map(|(n, kind)| Op::Remove(n, kind)),
    ];
    prop::collection::vec(op, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn directory_does_as_a_map_of_64(ops in ops()) {
        let matrix = matrix(1 << 20, 40, 30);
        let mut map = BTreeMap::new();
        for op in ops {
            let (Op::Create(n, kind) | Op::Open(n, kind) | Op::Remove(n, kind)) = op;
            let name = "n".repeat(usize::from(n % 48) + 1) + if n >= 240 { "!" } else { "" };
            let found = map.get(&name).copied();
            let expected = match found {
                None => Err(Error::NoSuchName),
                Some((seen, _)) if seen != kind => Err(Error::WrongKind { seen, expected: kind }),
                Some((_, offset)) => Ok(offset),
            };
            match op {
                _ if name.len() > 48 => {
                    prop_assert!(create(&matrix, &name, kind).is_err());
                }
                Op::Create(..) => {
                    let made = create(&matrix, &name, kind);
                    match found {
                        Some((_, offset)) => prop_assert_eq!(made, Err(Error::NameTaken { offset })),
                        None => _ = map.insert(name, (kind, made.unwrap())),
                    }
                }
                Op::Open(..) => {
                    let opened = matrix.open_named(&name, kind).map(|common| common.offset());
                    prop_assert_eq!(opened, expected);
                }
                Op::Remove(..) => {
                    prop_assert_eq!(remove(&matrix, &name, kind), expected.map(|_| ()));
                    if expected.is_ok() {
                        map.remove(&name);
                    }
                }
            }
        }
        assert_sound(&matrix);
        let expected: Vec<_> = map.iter().map(|(name, (kind, _))| (name.clone(), *kind)).collect();
        prop_assert_eq!(listed(&matrix), expected);
        for (name, (kind, _)) in map {
            remove(&matrix, &name, kind).unwrap();
        }
        assert_whole(&matrix);
    }

    #[test]
    fn directory_of_any_words_makes_calls_fail_and_no_more(
        damage in prop::collection::vec((0..3 * ENTRY_WORDS, any::<u32>(), any::<bool>()), 1..40),
    ) {
        let matrix = matrix(1 << 20, 40, 30);
        for name in ["a", "b"] {
            create(&matrix, name, KIND).unwrap();
        }
        for (at, value, bit) in damage {
            let word = &words(&matrix)[at];
            let old = word.load(Relaxed);
            word.store(if bit { old ^ (1 << (value % 32)) } else { value }, Relaxed);
            for name in ["a", "b", "c"] {
                let _ = matrix.open_named(name, KIND);
                // The block that is created under a name is the one removed, or nothing is.
                let _ = create(&matrix, name, KIND);
                let _ = remove(&matrix, name, KIND);
            }
            for named in matrix.names() {
                prop_assert!((1..=48).contains(&named.name.len()));
            }
            matrix.recover();
        }
        // Whatever was done to the names, the sectors are whole.
        let broken = |v: &am_matrix::Violation| !matches!(v, am_matrix::Violation::BadName { .. });
        prop_assert_eq!(matrix.check().into_iter().filter(broken).count(), 0);
    }
}
