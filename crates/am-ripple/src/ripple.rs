//! Absorb, publish, look again: how a range that one thread owns becomes free.
//!
//! A range in limbo is known to its owner alone. It ends in one of two ways, and in both its last
//! store is one read-modify-write with a full barrier on one head word:
//!
//! * **absorb**: the free block on its left grows over it;
//! * **publish**: it becomes a free block of its own.
//!
//! Then it *looks again*. Two neighbours that are given back at the same moment each see the other
//! in flight and publish; after the barriers at least one of them sees the other free (E4), claims
//! the right one of the two, and lets it flow to the left. So when nothing is in flight, no two
//! free blocks are neighbours (I4).

use am_layout::mutation::{self, Mutation};
use am_layout::{Event, INTERIOR, State, free_len, head, tail, tail_distance};
use am_tlsf::{Headers, Lane, Sector};

/// Turns of one ripple; each further one needs another thread's operation in between.
const ROUNDS_MAX: u32 = 32;
/// Compare-exchanges on the left head that may be lost before the range is published instead.
const LEFT_TRIES: u32 = 8;
/// Compare-exchanges on a free head that may be lost before its merge is left to a later operation.
const CLAIM_TRIES: u32 = 1024;

/// A range in limbo: its words are this thread's alone to store to (I3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub head: u32,
    pub len: u32,
}

impl Range {
    pub(crate) fn end(self) -> u32 {
        self.head + self.len
    }
}

/// Lets a range flow to the left as far as it goes. Lock-free and bounded.
pub(crate) fn ripple<H: Headers>(sector: &Sector<'_, H>, lane: &Lane, mut range: Range) {
    for _ in 0..ROUNDS_MAX {
        range = absorb_right(sector, range);
        let next = if absorb_left(sector, lane, range) {
            if mutation::is(Mutation::AbsorbForgetsRight) {
                return;
            }
            claim_free(sector, range.end())
        } else {
            // Read while the range is ours; afterwards its header may be somebody else's.
            let hint = sector.headers.left(range.head);
            publish(sector, lane, range);
            look_again(sector, range, hint)
        };
        match next {
            Some(claimed) => range = claimed,
            None => return,
        }
    }
    // The bound is reached with a range in hand. A later operation completes the merge.
    sector.count(Event::RippleCut);
    publish(sector, lane, range);
}

/// Takes the free blocks that follow the range into it.
fn absorb_right<H: Headers>(sector: &Sector<'_, H>, mut range: Range) -> Range {
    // Bounded: a free block is rarely followed by another, but nothing forbids it in flight.
    for _ in 0..ROUNDS_MAX {
        let Some(right) = claim_free(sector, range.end()) else { break };
        if !mutation::is(Mutation::HeadLeftBehind) {
            // Relaxed: ours (I3); the range's last read-modify-write publishes it (E1).
            sector.word(right.head).store_relaxed(INTERIOR);
        }
        range.len += right.len;
    }
    range
}

/// `FREE(r)` → `COALESCING(r)` at `at`, whatever r is by then; `None` when no free block is there.
pub(crate) fn claim_free<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Option<Range> {
    // A lost exchange is no reason to give up: the block may be free still, only shorter or longer.
    for _ in 0..CLAIM_TRIES {
        let len = sector.free_at(at)?;
        // Acquire (E1): sees the stores of whoever made the block free.
        if sector.word(at).cas(head(State::Free, len), head(State::Coalescing, len)).is_ok() {
            return Some(Range { head: at, len });
        }
        sector.count(Event::LostCas);
        if mutation::is(Mutation::ClaimGivesUp) {
            return None;
        }
    }
    sector.count(Event::RippleCut);
    None
}

/// Finds the free block that ends where `at` begins, by the tail before it or else by `hint`.
fn left_of<H: Headers>(sector: &Sector<'_, H>, at: u32, hint: Option<u32>) -> Option<Range> {
    let before = at.checked_sub(1)?;
    let adjoins = |left: u32| {
        let len = sector.free_at(left)?;
        let adjacent = left + len == at || mutation::is(Mutation::AbsorbWithoutAdjacency);
        adjacent.then_some(Range { head: left, len })
    };
    let word = sector.word(before).load();
    if free_len(word) == Some(1) {
        return Some(Range { head: before, len: 1 });
    }
    let by_tail = tail_distance(word).and_then(|back| before.checked_sub(back)).and_then(adjoins);
    by_tail.or_else(|| hint.filter(|&left| left < at).and_then(adjoins))
}

/// Lets the free block on the left grow over the range. False: there is none, the range is ours yet.
fn absorb_left<H: Headers>(sector: &Sector<'_, H>, lane: &Lane, range: Range) -> bool {
    for _ in 0..LEFT_TRIES {
        let hint = sector.headers.left(range.head);
        let Some(left) = left_of(sector, range.head, hint) else { return false };
        if !mutation::is(Mutation::HeadLeftBehind) {
            // Relaxed, both: ours (I3); the exchange below publishes them (E1).
            sector.word(range.head).store_relaxed(INTERIOR);
        }
        let last = range.end() - 1;
        sector.word(last).store_relaxed(tail(last - left.head));
        let grown = left.len + range.len;
        // Release (E1): publishes the range to the next carver. Full barrier: look again (E4), and
        // read the index's bit (E5).
        let (old, new) = (head(State::Free, left.len), head(State::Free, grown));
        if sector.word(left.head).cas_full(old, new).is_ok() {
            sector.announce(lane, left.head, grown);
            return true;
        }
        sector.count(Event::LostCas);
    }
    false
}

/// Makes the range a free block.
fn publish<H: Headers>(sector: &Sector<'_, H>, lane: &Lane, range: Range) {
    sector.store_tail(range.head, range.len);
    let word = sector.word(range.head);
    if mutation::is(Mutation::PublishWithoutBarrier) {
        word.store(head(State::Free, range.len));
    } else {
        // Release (E1): publishes the range to the next carver. Full barrier: look again (E4), and
        // read the index's bit (E5).
        word.swap_full(head(State::Free, range.len));
    }
    if !mutation::is(Mutation::PublishForgetsIndex) {
        sector.announce(lane, range.head, range.len);
    }
}

/// After publishing: claims what can flow to the left now, the block itself or its right neighbour.
fn look_again<H: Headers>(
    sector: &Sector<'_, H>,
    range: Range,
    hint: Option<u32>,
) -> Option<Range> {
    let look_left = !mutation::is(Mutation::PublishForgetsLeft);
    if look_left && left_of(sector, range.head, hint).is_some() {
        // No longer ours: it may have been carved, claimed or used up. If it is free, it can flow.
        if let Some(own) = claim_free(sector, range.head) {
            return Some(own);
        }
    }
    if mutation::is(Mutation::PublishForgetsRight) {
        return None;
    }
    claim_free(sector, range.end())
}
