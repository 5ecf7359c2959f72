//! Random operations on one sector, compared with a plain map of what is live.
#![cfg(not(loom))]

#[path = "world/ops.rs"]
mod ops;
mod world;

use am_layout::{Event, Seen, State};
use am_ripple::{
    Carved, Lane, NoBlock, Sector, Want, WrongState, ack, ack_many, allocate, give,
    give_back_parked, grow, park, park_allocated, park_unshared, repair, shrink, split, take,
    unpark,
};
use ops::{Op, Oracle};
use proptest::prelude::*;
use world::{Lefts, World};

/// Lanes that the steps take turns on: hints of one must not mislead another.
const LANES: usize = 3;

/// What the owner of everything is called: there is one participant.
const ME: u32 = 1;

/// A step on the sector, or one of a cache.
#[derive(Clone, Debug)]
enum Step {
    Sector(Op),
    /// Carves `pieces` parked blocks at once.
    Refill {
        pieces: u32,
        size: u32,
    },
    /// Parks a block that is held or allocated; `unshared` says how the latter.
    Park {
        which: usize,
        unshared: bool,
    },
    /// Hands a parked block out.
    Unpark {
        which: usize,
        held: bool,
    },
    /// Gives back `count` blocks as parked ones, from the one picked on; some may not be.
    Flush {
        which: usize,
        count: usize,
    },
}

/// One random step; sizes have up to `bits` bits.
fn step(bits: u32) -> impl Strategy<Value = Step> {
    let which = any::<usize>;
    prop_oneof![
        4 => ops::op(bits).prop_map(Step::Sector),
        1 => (1..=20u32, ops::size(bits))
            .prop_map(|(pieces, size)| Step::Refill { pieces, size }),
        2 => (which(), any::<bool>()).prop_map(|(which, unshared)| Step::Park { which, unshared }),
        2 => (which(), any::<bool>()).prop_map(|(which, held)| Step::Unpark { which, held }),
        1 => (which(), 0..20usize).prop_map(|(which, count)| Step::Flush { which, count }),
    ]
}

fn steps(len: usize, bits: u32) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(bits), 1..=len)
}

struct Player {
    world: World,
    lanes: [Lane<'static>; LANES],
    turn: usize,
    oracle: Oracle<State>,
    freed_last: Option<u32>,
    exhausted: u32,
}

impl Player {
    fn new(granules: u32) -> Self {
        Self {
            world: World::new(granules),
            lanes: [const { Lane::new() }; LANES],
            turn: 0,
            oracle: Oracle::new(granules),
            freed_last: None,
            exhausted: 0,
        }
    }

    fn lane(&self) -> &Lane<'static> {
        &self.lanes[self.turn % LANES]
    }

    fn granules(&self) -> u32 {
        self.world.words.len() as u32
    }

    /// Scales a raw size to 1 ..= a little more than the sector.
    fn len(&self, size: u32) -> u32 {
        1 + size % (self.granules() + self.granules() / 8 + 1)
    }

    fn sector(&self) -> Sector<'_, Lefts<'_>> {
        self.world.sector_of(ME)
    }

    /// Plays one step and looks at the whole sector.
    fn play(&mut self, step: &Step) {
        self.turn += 1;
        match *step {
            Step::Sector(ref op) => self.play_on_sector(op),
            Step::Refill { pieces, size } => self.refill(pieces, size),
            Step::Park { which, unshared } => self.park(which, unshared),
            Step::Unpark { which, held } => self.unpark(which, held),
            Step::Flush { which, count } => self.flush(which, count),
        }
        // The audit reads every granule.
        if self.granules() <= 1000 || self.turn.is_multiple_of(8) {
            self.audit();
        }
    }

    fn play_on_sector(&mut self, op: &Op) {
        match *op {
            Op::Allocate { size, align_log, held } => self.allocate(size, align_log, held),
            Op::Free { which } => self.free(which),
            Op::AckRaw { which } => self.ack_raw(which),
            Op::DoubleAck => self.freed_last.into_iter().for_each(|at| self.forged_ack(at)),
            Op::ForgedAck { place } => self.forged_ack(place),
            Op::Give { which } => self.change(which, State::Held, State::Allocated),
            Op::Take { which } => self.change(which, State::Allocated, State::Held),
            Op::Grow { which, size } => self.grow(which, size),
            Op::Shrink { which, size } => self.shrink(which, size),
            Op::AllocateMany { count, size } => self.allocate_many(count as u32, size),
            Op::FreeMany { which, count } => self.free_many(which, count),
            Op::Repair => {
                let largest = repair(&self.sector(), self.lane());
                assert_eq!(largest, self.oracle.largest_gap());
            }
        }
    }

    fn audit(&self) {
        let carved = |(head, len, _): (u32, u32, &State)| Carved { head, len };
        let live: Vec<Carved> = self.oracle.live().map(carved).collect();
        self.world.assert_sound(&live);
        for (at, len, &state) in self.oracle.live() {
            assert_eq!(self.sector().seen_at(at), Seen::Head(state, len), "at {at}");
        }
        // Alone, no thread is in anybody's way.
        for event in [Event::LostCas, Event::Contended, Event::RippleCut, Event::Corrupt] {
            assert_eq!(self.world.counter(event), 0, "{event:?}");
        }
        assert_eq!(self.world.counter(Event::HealedMerge), 0, "a ripple left a merge undone");
        assert_eq!(self.world.counter(Event::Exhausted), self.exhausted);
    }

    fn request(&mut self, want: Want) -> Option<Carved> {
        let fits = self.oracle.fits(want.len(), want.align());
        match allocate(&self.sector(), self.lane(), &want) {
            Ok(block) => {
                assert!(fits, "{block:?} for {want:?}, but no gap is long enough");
                Some(block)
            }
            Err(no) => {
                assert!(!fits, "{no:?} for {want:?}, but the gaps are {:?}", self.oracle.gaps());
                assert_eq!(no, NoBlock::Exhausted { largest: self.oracle.largest_gap() });
                self.exhausted += 1;
                None
            }
        }
    }

    fn allocate(&mut self, size: u32, align_log: u32, held: bool) {
        let state = if held { State::Held } else { State::Allocated };
        let len = self.len(size);
        let want = if state == State::Held { Want::held(len) } else { Want::allocated(len) };
        let want = want.aligned(1 << align_log);
        let Some(block) = self.request(want) else { return };
        assert_eq!(block.len, want.len());
        assert_eq!(block.head % want.align(), 0);
        self.oracle.insert(block.head, block.len, state);
    }

    fn free(&mut self, which: usize) {
        let Some(at) = self.oracle.pick(which) else { return };
        let (len, state) = self.oracle.remove(at);
        if state == State::Cached {
            assert_eq!(give_back_parked(&self.sector(), self.lane(), &[at]), 0);
        } else {
            assert_eq!(ack(&self.sector(), self.lane(), at, state), Ok(len));
        }
        self.freed_last = Some(at);
    }

    fn ack_raw(&mut self, which: usize) {
        if let Some(at) = self.oracle.pick(which) {
            self.forged_ack(at);
        }
    }

    /// Acks any place at all: it works for an allocated block only, and else changes nothing.
    fn forged_ack(&mut self, at: u32) {
        let got = ack(&self.sector(), self.lane(), at, State::Allocated);
        match self.oracle.get(at) {
            Some(&(len, State::Allocated)) => {
                assert_eq!(got, Ok(len));
                self.oracle.remove(at);
                self.freed_last = Some(at);
            }
            _ => {
                let wrong = got.expect_err("there is no allocated block");
                assert_eq!((wrong.granule, wrong.expected), (at, State::Allocated));
            }
        }
    }

    /// Gives or takes a block, twice: the second time it is in the wrong state.
    fn change(&mut self, which: usize, from: State, to: State) {
        let Some(at) = self.oracle.pick(which) else { return };
        let sector = self.world.sector_of(ME);
        let lane = &self.lanes[self.turn % LANES];
        let call = |at| if to == State::Held { take(&sector, lane, at) } else { give(&sector, at) };
        let (len, state) = self.oracle.get_mut(at);
        let wrong =
            |state| Err(WrongState { granule: at, expected: from, seen: Seen::Head(state, *len) });
        if *state == from {
            assert_eq!(call(at), Ok(*len));
            *state = to;
        }
        assert_eq!(call(at), wrong(*state));
    }

    fn grow(&mut self, which: usize, size: u32) {
        let Some(at) = self.oracle.pick(which) else { return };
        let wanted = self.len(size);
        let room = self.oracle.room_behind(at);
        let got = grow(&self.sector(), self.lane(), at, wanted);
        let (len, state) = self.oracle.get_mut(at);
        if *state != State::Held {
            assert!(got.is_err(), "grew a block that no guard owns");
            return;
        }
        assert_eq!(got, Ok(wanted <= *len + room), "{wanted} from {len} with room for {room}");
        if wanted <= *len + room {
            *len = wanted.max(*len);
        }
    }

    fn shrink(&mut self, which: usize, size: u32) {
        let Some(at) = self.oracle.pick(which) else { return };
        let wanted = self.len(size) - 1;
        let got = shrink(&self.sector(), self.lane(), at, wanted);
        let (len, state) = self.oracle.get_mut(at);
        let allowed = *state == State::Held && (1..=*len).contains(&wanted);
        assert_eq!(got.is_ok(), allowed, "{wanted} from {len} {state:?}: {got:?}");
        if allowed {
            *len = wanted;
        }
    }

    fn allocate_many(&mut self, count: u32, size: u32) {
        let piece = 1 + self.len(size) / (count + 1);
        // Some granules more than the pieces need: the last one keeps them.
        let len = piece * count + size % piece;
        if len == 0 {
            return;
        }
        let Some(block) = self.request(Want::held(len)) else { return };
        let got = split(&self.sector(), self.lane(), block.head, piece);
        let pieces = len / piece;
        if pieces == 0 {
            assert!(got.is_err(), "split into pieces longer than the block");
            self.oracle.insert(block.head, len, State::Held);
            return;
        }
        assert_eq!(got, Ok(pieces));
        for number in 0..pieces {
            let at = block.head + number * piece;
            let last = number + 1 == pieces;
            let rest = if last { block.head + len - at } else { piece };
            self.oracle.insert(at, rest, State::Held);
        }
    }

    /// Frees blocks as held ones, in no order; those that are not held stay and are reported.
    fn free_many(&mut self, which: usize, count: usize) {
        let Some(first) = self.oracle.pick(which) else { return };
        let picked = self.oracle.live().filter(|&(at, ..)| at >= first).take(count);
        let mut blocks: Vec<(u32, State)> = picked.map(|(at, _, &state)| (at, state)).collect();
        let turns = (which >> 8) % blocks.len().max(1);
        blocks.rotate_left(turns);
        let mut heads: Vec<u32> = blocks.iter().map(|&(at, _)| at).collect();
        let got = ack_many(&self.sector(), self.lane(), &mut heads, State::Held);
        blocks.sort_unstable_by_key(|&(at, _)| at);
        let wrong = blocks.iter().find(|&&(_, state)| state != State::Held).map(|&(at, _)| at);
        assert_eq!(got.err().map(|wrong| wrong.granule), wrong);
        for (at, _) in blocks.into_iter().filter(|&(_, state)| state == State::Held) {
            self.oracle.remove(at);
            self.freed_last = Some(at);
        }
    }

    fn refill(&mut self, pieces: u32, size: u32) {
        let piece = 1 + self.len(size) / (pieces + 1);
        let want = Want::cached(piece, pieces);
        assert_eq!(want.len(), piece * pieces);
        let Some(run) = self.request(want) else { return };
        assert_eq!(run.len, want.len());
        for number in 0..pieces {
            self.oracle.insert(run.head + number * piece, piece, State::Cached);
        }
    }

    /// Parks a block, twice: the second time it is in the wrong state.
    fn park(&mut self, which: usize, unshared: bool) {
        let Some(at) = self.oracle.pick(which) else { return };
        let &(len, state) = self.oracle.get(at).expect("a live block");
        let (sector, lane) = (self.sector(), self.lane());
        let raw_of = |len| match unshared {
            true => park_unshared(&sector, at, len),
            false => park_allocated(&sector, lane, at, len),
        };
        let raw = || raw_of(len);
        let wrong =
            |expected, state| WrongState { granule: at, expected, seen: Seen::Head(state, len) };
        match state {
            State::Held => {
                assert_eq!(raw(), Err(wrong(State::Allocated, State::Held)));
                assert!(park(&sector, at, len, || ()));
            }
            State::Allocated => {
                assert!(!park(&sector, at, len, || ()));
                // Of another length, it is another block than the caller means.
                assert_eq!(raw_of(len + 1), Err(wrong(State::Allocated, State::Allocated)));
                assert_eq!(raw(), Ok(()));
            }
            _ => {}
        }
        assert!(!park(&sector, at, len, || ()));
        assert_eq!(raw(), Err(wrong(State::Allocated, State::Cached)));
        self.oracle.get_mut(at).1 = State::Cached;
    }

    /// Hands a block out that is parked, once.
    fn unpark(&mut self, which: usize, held: bool) {
        let Some(at) = self.oracle.pick(which) else { return };
        let &(len, state) = self.oracle.get(at).expect("a live block");
        let to = if held { State::Held } else { State::Allocated };
        assert_eq!(unpark(&self.sector(), at, len, to, 0), state == State::Cached);
        if state == State::Cached {
            assert!(!unpark(&self.sector(), at, len, to, 0), "handed out twice");
            self.oracle.get_mut(at).1 = to;
        }
    }

    /// Gives back blocks, mostly in order, parked ones and others, which stay.
    fn flush(&mut self, which: usize, count: usize) {
        let Some(first) = self.oracle.pick(which) else { return };
        let picked = self.oracle.live().filter(|&(at, ..)| at >= first).take(count);
        let mut heads: Vec<u32> = picked.map(|(at, ..)| at).collect();
        let turns = (which >> 8) % heads.len().max(1);
        heads.rotate_left(turns);
        let wrong = give_back_parked(&self.sector(), self.lane(), &heads);
        let is_parked = |at: &u32| self.oracle.get(*at).is_some_and(|b| b.1 == State::Cached);
        let (parked, others): (Vec<u32>, Vec<u32>) = heads.iter().partition(|at| is_parked(at));
        assert_eq!(wrong as usize, others.len());
        for at in parked {
            self.oracle.remove(at);
            self.freed_last = Some(at);
        }
    }

    /// Frees what is left, from both ends in turn, and requires one free block.
    fn finish(mut self) {
        for turn in 0..self.oracle.count() {
            self.turn = turn;
            self.free(if turn % 2 == 0 { 0 } else { self.oracle.count() - 1 });
        }
        self.audit();
        self.world.assert_whole();
    }
}

fn play(granules: u32, steps: &[Step]) {
    let mut player = Player::new(granules);
    steps.iter().for_each(|step| player.play(step));
    player.finish();
}

proptest! {
    #![proptest_config(ops::config(100))]

    #[test]
    fn sector_of_one_to_three_granules_agrees_with_the_oracle(
        granules in 1u32..=3, steps in steps(60, 3),
    ) {
        play(granules, &steps);
    }

    #[test]
    fn sector_around_one_chunk_agrees_with_the_oracle(
        granules in 31u32..=33, steps in steps(150, 5),
    ) {
        play(granules, &steps);
    }

    #[test]
    fn sector_of_a_thousand_granules_agrees_with_the_oracle(steps in steps(300, 9)) {
        play(1000, &steps);
    }

    #[test]
    fn sector_of_a_thousand_granules_in_crumbs_agrees_with_the_oracle(steps in steps(600, 3)) {
        play(1000, &steps);
    }
}

proptest! {
    #![proptest_config(ops::config(20))]

    #[test]
    fn sector_with_a_tree_of_three_levels_agrees_with_the_oracle(steps in steps(300, 15)) {
        play(40_000, &steps);
    }
}

/// Every second block of a full sector freed, then the others: no gap is ever lost, at any length.
#[test]
fn sector_freed_in_a_comb_merges_at_every_geometry() {
    for granules in [1, 2, 3, 31, 32, 33, 1000, 40_000] {
        for len in [1, 2, 3, 7, 31, 32, 33, 500] {
            if granules / len > 1000 {
                continue; // the oracle takes its time
            }
            let mut player = Player::new(granules);
            while player.oracle.fits(len, 1) {
                player.allocate(len - 1, 0, false);
            }
            assert_eq!(player.oracle.count() as u32, granules / len);
            let combed: Vec<u32> = player.oracle.live().map(|(at, ..)| at).step_by(2).collect();
            for at in combed {
                player.forged_ack(at);
            }
            player.audit();
            player.finish();
        }
    }
}
