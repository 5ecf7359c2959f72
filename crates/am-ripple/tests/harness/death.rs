//! Threads that die, and recoverers: what the models of death share.

use super::{Arena, bodies, race};
use crate::world::{Lefts, World};
use am_layout::State;
use am_layout::mutation::crash_at;
use am_layout::roster::RECOVERER;
use am_ripple::{Carved, Found, Recoverer, Want, ack, allocate};
use loom::sync::Arc;

/// Owners, as the roster names them. Each thread of a model has a lane of its own.
pub const DEAD: u32 = 1;
pub const LIVING: u32 = 2;
pub const OTHER: u32 = 3;
/// Lane of each, and of the recoverer.
pub const DEAD_LANE: usize = 0;
pub const LIVING_LANE: usize = 1;
pub const OTHER_LANE: usize = 2;
pub const RECOVERY_LANE: usize = 3;

type Recovery<'a> = Recoverer<'a, 'a, 'a, Lefts<'a>, fn(u32) -> bool>;

pub fn is_dead(owner: u32) -> bool {
    owner == DEAD
}

pub fn arena(granules: u32) -> Arena {
    let mut arena = Arena::new(granules);
    arena.world = World::shared(granules);
    // Before the race: that lanes come while a recoverer looks is not what is modelled here.
    let lanes = [(DEAD_LANE, DEAD), (LIVING_LANE, LIVING), (RECOVERY_LANE, RECOVERER)];
    for (number, owner) in lanes {
        arena.world.lane(number, owner);
    }
    arena
}

impl Arena {
    /// Allocates for the living, through `lane`.
    pub fn get(&self, lane: usize, owner: u32, want: &Want) -> Option<Carved> {
        let lane = self.world.lane(lane, owner);
        let block = allocate(&self.world.sector_of(owner), &lane, want).ok()?;
        self.own(block);
        Some(block)
    }

    /// Frees for the living, through `lane`.
    pub fn put(&self, lane: usize, owner: u32, block: Carved, state: State) {
        self.own(block);
        let lane = self.world.lane(lane, owner);
        assert_eq!(ack(&self.world.sector_of(owner), &lane, block.head, state), Ok(block.len));
    }

    /// One recovery, beside the living.
    pub fn recover(&self) {
        self.recover_by(|recoverer, found| {
            recoverer.collect_limbo(found);
            recoverer.sweep(found);
        });
    }

    /// The first half of one, which the proof is about; the walk of the second is modelled by itself.
    pub fn collect(&self) {
        self.recover_by(|recoverer, found| recoverer.collect_limbo(found));
    }

    /// Returns how many ranges were left alone.
    pub fn recover_by(&self, act: impl Fn(&Recovery<'_>, &mut dyn FnMut(Found))) -> u32 {
        let lane = self.world.lane(RECOVERY_LANE, RECOVERER);
        let sector = self.world.sector();
        let is_dead: fn(u32) -> bool = is_dead;
        let recoverer = Recoverer::new(&sector, &lane, self.world.roster(), 0, is_dead);
        let mut deferred = 0;
        act(&recoverer, &mut |found| {
            deferred += u32::from(matches!(found, Found::Deferred { .. }))
        });
        deferred
    }

    /// What the dead thread does, up to its death. Its payloads it does not touch: the model would
    /// see the next owner's access as unordered, where in fact the kernel's lock orders them.
    pub fn die(&self, writes: u32, operation: impl FnOnce(&Arena)) -> bool {
        crash_at(writes, || operation(self))
    }

    /// At rest: recovers what is left, and demands that exactly `live` is in use.
    pub fn assert_recovered(&self, live: &[Carved]) {
        let deferred = self.recover_by(|recoverer, found| recoverer.recover(found));
        assert_eq!(deferred, 0, "something is deferred at rest");
        self.world.assert_sound(live);
    }
}

/// Runs the model once per write at which `operation` can die, until it dies no more. A bound of 0
/// says that the model has one thread.
pub fn for_every_death(
    bound: usize,
    operation: impl Fn(&Arena, u32) -> bool + Copy + Send + Sync + 'static,
    model: impl Fn(&dyn Fn(&Arena) -> bool) + Copy + Send + Sync + 'static,
) {
    am_layout::model::for_every_death(bound, operation, model);
}

/// Recovers while a living thread takes a block, which goes back afterwards.
pub fn beside_a_carve(arena: &Arc<Arena>, recover: fn(&Arena)) {
    let got = race(
        arena,
        bodies![
            move |a: &Arena| {
                recover(a);
                None
            },
            |a: &Arena| a.get(LIVING_LANE, LIVING, &Want::held(1))
        ],
    );
    let got: Vec<_> = got.into_iter().flatten().collect();
    arena.assert_recovered(&got);
    for block in got {
        arena.put(LIVING_LANE, LIVING, block, State::Held);
    }
}
