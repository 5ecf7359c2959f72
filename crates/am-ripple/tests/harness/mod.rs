//! What the models share: a world with payloads, races between threads, and the mutants.
#![allow(dead_code, unused_macros, unused_imports)] // each test binary uses its part

pub mod death;

use crate::world::{World, want};
use am_layout::State;
pub use am_layout::model::{all_noticed, alone, check};
use am_ripple::{Carved, Lane, NoBlock, Want, WrongState, ack, allocate};
use am_tlsf::{CHUNK_SHIFT, Cell};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

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
