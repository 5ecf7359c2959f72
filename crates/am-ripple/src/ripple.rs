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
use am_layout::{Event, INTERIOR, LEN_MAX, State, free_len, head, tail, tail_distance};
use am_tlsf::{Cell, Headers, Lane, Sector};

/// Turns of one ripple; each further one needs another thread's operation in between.
const ROUNDS_MAX: u32 = 32;
/// Compare-exchanges on the left head that may be lost before the range is published instead.
const LEFT_TRIES: u32 = 8;
/// Compare-exchanges on a free head that may be lost before its merge is left to a later operation.
const CLAIM_TRIES: u32 = 1024;

/// A range in limbo: its words are this thread's alone to store to (I3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub head: u32,
    pub len: u32,
}

impl Range {
    pub(crate) fn end(self) -> u32 {
        self.head + self.len
    }
}

/// Gives a range back: lets it flow, tells whoever walks the sector meanwhile, and ends the intent
/// under which the range came into limbo.
#[inline]
pub(crate) fn give_back<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, range: Range) {
    ripple(sector, lane, range);
    // E7: the ripple's last free head was made by an operation with a full barrier.
    sector.tell_walkers(lane);
    sector.done(lane);
}

/// Lets a range flow to the left as far as it goes. Lock-free and bounded.
pub(crate) fn ripple<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, mut range: Range) {
    for _ in 0..ROUNDS_MAX {
        range = absorb_right(sector, lane, range);
        let next = match absorb_left(sector, lane, range) {
            Ok(()) if mutation::is(Mutation::AbsorbForgetsRight) => None,
            Ok(()) => claim_free(sector, lane, range.end()),
            Err(left) => {
                // Known from the header while the range is ours; needed only where no tail tells.
                let hint = if let Left::Unknown(hint) = left { hint } else { None };
                publish(sector, lane, range);
                look_again(sector, lane, range, hint)
            }
        };
        match next {
            Some(claimed) => range = claimed,
            None => return,
        }
    }
    // The bound is reached with a range in hand. A later operation completes the merge.
    sector.count(Event::RippleCut);
    sector.loosen();
    publish(sector, lane, range);
}

/// Takes the free blocks that follow the range into it.
fn absorb_right<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, mut range: Range) -> Range {
    // Bounded: a free block is rarely followed by another, but nothing forbids it in flight.
    for _ in 0..ROUNDS_MAX {
        let Some(right) = claim_free(sector, lane, range.end()) else { break };
        if !mutation::is(Mutation::HeadLeftBehind) {
            // Ours (I3); the range's last read-modify-write publishes it (E1). Release (E8): whoever
            // finds no head here sees the intent.
            sector.word(right.head).store(INTERIOR);
        }
        range.len += right.len;
    }
    range
}

/// `FREE(r)` → `COALESCING(r)` at `at`, whatever r is by then; `None` when no free block is there.
/// The lane's intent, begun before, is extended by it.
#[inline]
pub(crate) fn claim_free<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
) -> Option<Range> {
    sector.free_at(at)?;
    claim_while_free(sector, lane, at)
}

fn claim_while_free<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, at: u32) -> Option<Range> {
    // A lost exchange is no reason to give up: the block may be free still, only shorter or longer.
    for _ in 0..CLAIM_TRIES {
        let len = sector.free_at(at)?;
        if !mutation::is(Mutation::ClaimForgetsIntent) {
            lane.extend(at, at + len);
        }
        // Acquire (E1): sees the stores of whoever made the block free. Release (E8): whoever sees
        // it claimed sees the intent.
        if sector.word(at).cas(head(State::Free, len), head(State::Coalescing, len)).is_ok() {
            sector.retract(lane, at, len);
            return Some(Range { head: at, len });
        }
        sector.count(Event::LostCas);
        if mutation::is(Mutation::ClaimGivesUp) {
            return None;
        }
    }
    sector.count(Event::RippleCut);
    sector.loosen();
    None
}

/// What lies to the left of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// A free block that ends there.
    Free(Range),
    /// A block that ends there and is not free, or the sector's origin.
    Used,
    /// The words do not tell; what the hint was.
    Unknown(Option<u32>),
}

/// Looks to the left of `at`: by the word before it, or else by `hint`.
///
/// The word before is a head of one granule, or a tail that leads to a head which confirms it. The
/// end of a free block that was carved has no tail, for that granule is not the carver's to store
/// to; so the block behind it keeps a hint, in its header. It is asked last: its line may be cold.
#[inline]
fn left_of<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    hint: impl FnOnce() -> Option<u32>,
) -> Left {
    let Some(before) = at.checked_sub(1) else { return Left::Used };
    // A word that is no tail has distance 0: it may be a head of one granule.
    let back = tail_distance(sector.word(before).load()).unwrap_or(0);
    match before.checked_sub(back).map(|head| left_at(sector, head, at)) {
        Some(known @ (Left::Free(_) | Left::Used)) => known,
        _ => match hint() {
            Some(head) if head < at => match left_at(sector, head, at) {
                Left::Unknown(_) => Left::Unknown(Some(head)),
                known => known,
            },
            _ => Left::Unknown(None),
        },
    }
}

/// Looks whether the block at `head`, which lies before `at`, ends at `at`.
#[inline]
fn left_at<H: Headers>(sector: &Sector<'_, H>, head: u32, at: u32) -> Left {
    let word = sector.word(head).load();
    if head + (word & LEN_MAX) != at && !mutation::is(Mutation::AbsorbWithoutAdjacency) {
        return Left::Unknown(None);
    }
    match free_len(word) {
        Some(len) => Left::Free(Range { head, len }),
        None if tail_distance(word).is_some() => Left::Unknown(None),
        None => Left::Used,
    }
}

/// Lets the free block on the left grow over the range. `Err`: the range is ours yet, and what lies
/// to its left.
#[inline]
fn absorb_left<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    range: Range,
) -> Result<(), Left> {
    let look = || left_of(sector, range.head, || sector.headers.left(range.head));
    let mut seen = look();
    for _ in 0..LEFT_TRIES {
        let Left::Free(left) = seen else { break };
        if !mutation::is(Mutation::HeadLeftBehind) {
            // Ours (I3), as the tail below; the exchange publishes both (E1). Release (E8), both:
            // whoever finds no head here sees the intent.
            sector.word(range.head).store(INTERIOR);
        }
        let last = range.end() - 1;
        sector.word(last).store(tail(last - left.head));
        let grown = left.len + range.len;
        // Release (E1): publishes the range to the next carver. Full barrier: look again (E4), and
        // read the index's bit (E5).
        let (old, new) = (head(State::Free, left.len), head(State::Free, grown));
        if sector.word(left.head).cas_full(old, new).is_ok() {
            sector.announce(lane, left.head, grown);
            if Cell::of(left.len) != Cell::of(grown) {
                sector.retract(lane, left.head, left.len);
            }
            return Ok(());
        }
        sector.count(Event::LostCas);
        seen = look();
    }
    Err(seen)
}

/// Makes the range a free block.
#[inline]
fn publish<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, range: Range) {
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
///
/// `hint` is the range's own, read while it was ours; its header may be somebody else's by now.
#[inline]
fn look_again<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    range: Range,
    hint: Option<u32>,
) -> Option<Range> {
    if !mutation::is(Mutation::PublishForgetsLeft)
        && let Left::Free(_) = left_of(sector, range.head, || hint)
        // No longer ours: it may have been carved, claimed or used up. If it is free, it can flow.
        && let Some(own) = claim_free(sector, lane, range.head)
    {
        return Some(own);
    }
    if mutation::is(Mutation::PublishForgetsRight) {
        return None;
    }
    claim_free(sector, lane, range.end())
}
