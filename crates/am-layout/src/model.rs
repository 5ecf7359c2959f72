//! What the models of all crates share: the bounded check, the deaths, and the defects to be noticed.
//!
//! Only in a model build (`--cfg loom`).

use crate::mutation::{Mutation, activate};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Writes that no operation of a model reaches.
const WRITES_MAX: u32 = 200;

/// Runs `body`, which has one thread, in a model of its own.
pub fn alone(body: impl Fn() + Sync + Send + 'static) {
    activate_named();
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 50_000;
    builder.check(body);
}

/// Turns on the defect that the environment names, if it names one.
fn activate_named() {
    if let Ok(number) = std::env::var("AM_MUTATION") {
        let number: u32 = number.parse().expect("AM_MUTATION is a number");
        let named = |mutation: &&Mutation| **mutation as u32 == number;
        activate(*Mutation::all().find(named).expect("a mutation of this number"));
    }
}

/// Checks `body` under every interleaving up to the bound of preemptions (`LOOM_MAX_PREEMPTIONS`, else `bound`).
pub fn check(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    activate_named();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(bound));
    builder.max_branches = 20_000;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let runs = runs.load(Ordering::Relaxed);
    assert!(runs > 1, "a model of one interleaving proves nothing");
    println!("interleavings={runs}");
}

/// Runs the model once per write at which `operation` can die, until it dies no more. A bound of 0
/// says that the model has one thread.
pub fn for_every_death<A: ?Sized>(
    bound: usize,
    operation: impl Fn(&A, u32) -> bool + Copy + Send + Sync + 'static,
    model: impl Fn(&dyn Fn(&A) -> bool) + Copy + Send + Sync + 'static,
) {
    let died = Arc::new(AtomicBool::new(false));
    for writes in 0..WRITES_MAX {
        died.store(false, Ordering::SeqCst);
        let flag = died.clone();
        let body = move || {
            model(&|arena: &A| {
                let died = operation(arena, writes);
                // In any interleaving.
                flag.fetch_or(died, Ordering::SeqCst);
                died
            });
        };
        if bound == 0 {
            alone(body)
        } else {
            check(bound, body)
        }
        if !died.load(Ordering::SeqCst) {
            assert!(writes > 2, "an operation of {writes} writes proves nothing");
            println!("deaths={writes}");
            return;
        }
    }
    panic!("an operation of more than {WRITES_MAX} writes");
}

/// Runs every model of this binary once per defect, each in a process of its own: a model that fails
/// leaves loom in pieces. Each defect must make at least one model fail.
pub fn all_noticed(mutations: &[Mutation]) {
    let me = std::env::current_exe().unwrap();
    let list = std::process::Command::new(&me).arg("--list").output().unwrap();
    let models: Vec<String> = String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| !name.contains("mutants"))
        .map(String::from)
        .collect();
    let noticed_by = |number: usize| {
        // The last ones first: by their names, those are the small ones.
        models.iter().rev().find(|model| {
            let run = std::process::Command::new(&me)
                .args(["--exact", model.as_str()])
                .env("AM_MUTATION", number.to_string())
                .output()
                .unwrap();
            !run.status.success()
        })
    };
    let next = AtomicUsize::new(0);
    let survived = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(mutation) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    mutations.get(number)
                } {
                    match noticed_by(*mutation as usize) {
                        Some(model) => println!("mutant {mutation:?}: noticed by {model}"),
                        None => {
                            println!("mutant {mutation:?}: SURVIVED");
                            survived.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(survived.into_inner(), 0, "mutants that no model noticed");
}
