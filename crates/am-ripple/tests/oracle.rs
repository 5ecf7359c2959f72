//! Random operations on one sector, compared with a plain map of what is live.
#![cfg(not(loom))]

#[path = "world/ops.rs"]
mod ops;
mod world;

use am_layout::{Event, Seen, State};
use am_ripple::{
    Carved, Lane, NoBlock, Want, WrongState, ack, ack_many, allocate, give, grow, repair, shrink,
    split, take,
};
use ops::{Op, Oracle};
use proptest::prelude::*;
use world::World;

/// Lanes that the steps take turns on: hints of one must not mislead another.
const LANES: usize = 3;

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

    /// Plays one step and looks at the whole sector.
    fn play(&mut self, op: &Op) {
        self.turn += 1;
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
                let largest = repair(&self.world.sector(), self.lane());
                assert_eq!(largest, self.oracle.largest_gap());
            }
        }
        // The audit reads every granule.
        if self.granules() <= 1000 || self.turn.is_multiple_of(8) {
            self.audit();
        }
    }

    fn audit(&self) {
        let carved = |(head, len, _): (u32, u32, &State)| Carved { head, len };
        let live: Vec<Carved> = self.oracle.live().map(carved).collect();
        self.world.assert_sound(&live);
        for (at, len, &state) in self.oracle.live() {
            assert_eq!(self.world.sector().seen_at(at), Seen::Head(state, len), "at {at}");
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
        match allocate(&self.world.sector(), self.lane(), &want) {
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
        assert_eq!(ack(&self.world.sector(), self.lane(), at, state), Ok(len));
        self.freed_last = Some(at);
    }

    fn ack_raw(&mut self, which: usize) {
        if let Some(at) = self.oracle.pick(which) {
            self.forged_ack(at);
        }
    }

    /// Acks any place at all: it works for an allocated block only, and else changes nothing.
    fn forged_ack(&mut self, at: u32) {
        let got = ack(&self.world.sector(), self.lane(), at, State::Allocated);
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
        let sector = self.world.sector();
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
        let got = grow(&self.world.sector(), self.lane(), at, wanted);
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
        let got = shrink(&self.world.sector(), self.lane(), at, wanted);
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
        let got = split(&self.world.sector(), self.lane(), block.head, piece);
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
        let got = ack_many(&self.world.sector(), self.lane(), &mut heads, State::Held);
        blocks.sort_unstable_by_key(|&(at, _)| at);
        let wrong = blocks.iter().find(|&&(_, state)| state != State::Held).map(|&(at, _)| at);
        assert_eq!(got.err().map(|wrong| wrong.granule), wrong);
        for (at, _) in blocks.into_iter().filter(|&(_, state)| state == State::Held) {
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

fn play(granules: u32, ops: &[Op]) {
    let mut player = Player::new(granules);
    ops.iter().for_each(|op| player.play(op));
    player.finish();
}

proptest! {
    #![proptest_config(ops::config(100))]

    #[test]
    fn sector_of_one_to_three_granules_agrees_with_the_oracle(
        granules in 1u32..=3, ops in ops::ops(60, 3),
    ) {
        play(granules, &ops);
    }

    #[test]
    fn sector_around_one_chunk_agrees_with_the_oracle(
        granules in 31u32..=33, ops in ops::ops(150, 5),
    ) {
        play(granules, &ops);
    }

    #[test]
    fn sector_of_a_thousand_granules_agrees_with_the_oracle(ops in ops::ops(300, 9)) {
        play(1000, &ops);
    }

    #[test]
    fn sector_of_a_thousand_granules_in_crumbs_agrees_with_the_oracle(ops in ops::ops(600, 3)) {
        play(1000, &ops);
    }
}

proptest! {
    #![proptest_config(ops::config(20))]

    #[test]
    fn sector_with_a_tree_of_three_levels_agrees_with_the_oracle(ops in ops::ops(300, 15)) {
        play(40_000, &ops);
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
