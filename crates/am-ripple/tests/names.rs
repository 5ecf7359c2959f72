//! The model check of the directory of names: readers take no lock, and copy whole entries.
//!
//! Part of `cargo xtask model`; its deliberate defect is part of `cargo xtask model --mutants`.
#![cfg(loom)]

mod harness;
mod world;

use am_layout::mutation::Mutation;
use am_layout::names::{ENTRY_WORDS, Names, Phase};
use am_layout::{Name, Offset, Word};
use harness::{all_noticed, check};
use loom::sync::Arc;
use loom::thread;

/// Makes a free entry ready; only whoever holds the lock does so.
fn create(names: &Names<'_>, name: &str, number: u32) {
    let entry = names.entries().next().expect("an entry");
    let state = entry.state();
    assert_eq!(state.phase(), Phase::Free);
    entry.write(&Name::new(name).expect("a name"), number, Offset::from_raw(number));
    assert!(entry.change(state, state.changing(1)));
    assert!(entry.change(state.changing(1), state.changing(1).ready()));
}

fn remove(names: &Names<'_>) {
    let entry = names.entries().next().expect("an entry");
    let state = entry.state();
    assert!(entry.change(state, state.changing(1)));
    assert!(entry.change(state.changing(1), state.changing(1).free()));
}

#[test]
fn name_read_while_it_is_replaced_is_one_of_both() {
    check(2, || {
        let words: Arc<Vec<Word>> = Arc::new((0..ENTRY_WORDS).map(|_| Word::new(0)).collect());
        create(&Names::new(&words).expect("a directory"), "aaaa", 1);
        let theirs = words.clone();
        let writer = thread::spawn(move || {
            let names = Names::new(&theirs).expect("a directory");
            remove(&names);
            create(&names, "bbbbbbbb", 2);
        });
        let names = Names::new(&words).expect("a directory");
        if let Some(named) = names.entries().next().expect("an entry").read() {
            let seen = (named.name.as_str(), named.kind, named.offset.to_raw());
            assert!(seen == ("aaaa", 1, 1) || seen == ("bbbbbbbb", 2, 2), "{seen:?}");
        }
        writer.join().expect("a writer that works");
        let named = names.entries().next().expect("an entry").read().expect("a name");
        assert_eq!((named.name.as_str(), named.kind), ("bbbbbbbb", 2));
    });
}

/// The defect of the directory must make the model fail.
#[test]
#[ignore = "minutes; run by `cargo xtask model --mutants`"]
fn mutants_are_all_noticed() {
    all_noticed(&Mutation::NAMES);
}
