//! What the models share: a world with payloads, races between threads, and the mutants.
#![allow(dead_code, unused_macros, unused_imports)] // each test binary uses its part

pub mod death;

use crate::world::{World, want};
use am_layout::State;
use am_layout::mutation::{Mutation, activate};
use am_ripple::{Carved, Lane, NoBlock, Want, WrongState, ack, allocate};
use am_tlsf::{CHUNK_SHIFT, Cell};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A world with a payload cell per granule; loom reports every access that no happens-before edge
/// orders after the last owner's.
pub struct Arena {
    pub world: World,
    pub payload: Vec<UnsafeCell<u32>>,
}

// SAFETY: payload cells are accessed only through loom's cells, which check the exclusion that
// this test is about; everything else is `Sync` by itself.
unsafe impl Sync for Arena {}
// SAFETY: as above.
unsafe impl Send for Arena {}

impl Arena {
    pub fn new(granules: u32) -> Self {
        let payload = (0..granules).map(|_| UnsafeCell::new(0)).collect();
        Self { world: World::new(granules), payload }
    }

    pub fn own(&self, block: Carved) {
        for cell in &self.payload[block.head as usize..(block.head + block.len) as usize] {
            // SAFETY: loom panics when the access is not exclusive.
            cell.with_mut(|value| unsafe { *value += 1 });
        }
    }

    pub fn allocate(&self, len: u32) -> Result<Carved, NoBlock> {
        let block = allocate(&self.world.sector(), &Lane::new(), &want(len))?;
        self.own(block);
        Ok(block)
    }

    pub fn must(&self, len: u32) -> Carved {
        let block = self.world.must(len);
        self.own(block);
        block
    }

    pub fn ack(&self, block: Carved) -> Result<u32, WrongState> {
        ack(&self.world.sector(), &Lane::new(), block.head, State::Allocated)
    }

    pub fn free(&self, block: Carved) {
        self.own(block);
        assert_eq!(self.ack(block), Ok(block.len));
    }

    /// Clears every bit of the index, true or stale.
    pub fn forget_hints(&self) {
        for chunk in 0..self.payload.len() as u32 >> CHUNK_SHIFT {
            for len in 1..=self.payload.len() as u32 {
                self.world.sector().index().clear(Cell::of(len), chunk, || false);
            }
        }
    }

    pub fn hold(&self, len: u32) -> Carved {
        let want = Want::held(len);
        let block = allocate(&self.world.sector(), &Lane::new(), &want).expect("setup fits");
        self.own(block);
        block
    }
}

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

/// Checks `body` under every interleaving up to the bound (`LOOM_MAX_PREEMPTIONS`, else `bound`).
pub fn check(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    activate_named();
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
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

pub type Body<T> = Box<dyn FnOnce(&Arena) -> T + Send>;

pub fn body<T>(body: impl FnOnce(&Arena) -> T + Send + 'static) -> Body<T> {
    Box::new(body)
}

/// Runs one closure per thread (the first on this one) and returns what they return.
pub fn race<T: 'static>(arena: &Arc<Arena>, bodies: Vec<Body<T>>) -> Vec<T> {
    let mut bodies = bodies.into_iter();
    let first = bodies.next().expect("a body");
    let others: Vec<_> = bodies
        .map(|body| {
            let arena = arena.clone();
            thread::spawn(move || body(&arena))
        })
        .collect();
    let mut results = vec![first(arena)];
    results.extend(others.into_iter().map(|handle| handle.join().unwrap()));
    results
}

macro_rules! bodies {
    ($($body:expr),+ $(,)?) => { vec![$(crate::harness::body($body)),+] };
}
pub(crate) use bodies;

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
