//! The slow path: a walk over the sector by its head words, which needs no hint to be true.

use crate::ack::shrink;
use crate::prove::{Others, Proof, prove};
use crate::ripple::{claim_free, ripple};
use am_layout::mutation::{self, Mutation};
use am_layout::{Event, Seen, State};
use am_tlsf::{CHUNK_SHIFT, Carved, Cell, Headers, Lane, Sector, Want};

/// Proofs that one allocation tries before it walks: a proof is disturbed by any operation beside it, but costs
/// a hundredth of a walk.
const PROOFS_MAX: u32 = 4;
/// Walks of one allocation before it ends as `Contended`.
const WALKS_MAX: u32 = 3;
/// Tries of a walk to carve from one block that is long enough; each that fails was lost many times over.
const CARVES_MAX: u32 = 32;
/// Merges that one walk does at one block before it moves on.
const MERGES_MAX: u32 = 64;

/// Why an allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBlock {
    /// No free block is long enough.
    #[error("no free block is long enough; the longest has {largest} granules")]
    Exhausted {
        /// Length of the longest free block seen, in granules.
        largest: u32,
    },
    /// Nothing long enough was seen free, but blocks were on their way back; trying again helps.
    #[error("blocks are in flight; the longest free one has {largest} granules")]
    Contended {
        /// Length of the longest free block seen, in granules.
        largest: u32,
    },
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    carved: Option<Carved>,
    largest: u32,
    in_flight: bool,
}

/// Takes a block: by the hints, or by walking the sector when they lead to nothing.
///
/// Lock-free and bounded: at most three walks, each of at most as many steps as the sector has
/// granules, and far fewer when blocks are long.
///
/// # Errors
/// [`NoBlock::Exhausted`] when a walk met no free block that is long enough and nothing in flight,
/// and nothing was given back meanwhile; [`NoBlock::Contended`] when every walk was disturbed.
#[inline]
pub fn allocate<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
) -> Result<Carved, NoBlock> {
    match allocate_by_hints(sector, lane, want) {
        Some(carved) => Ok(carved),
        None => allocate_by_walking(sector, lane, want),
    }
}

/// As [`allocate`], in a sector where everybody tells intents: before it walks, it tries to prove by the hints
/// alone that nothing is free that would do.
///
/// Lock-free and bounded: at most four proofs, then as [`allocate`].
///
/// # Errors
/// [`NoBlock::Exhausted`] when a proof came to its end undisturbed, too (E16); else as [`allocate`].
#[inline]
pub fn allocate_beside<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
    others: &Others<'_>,
) -> Result<Carved, NoBlock> {
    match allocate_by_hints(sector, lane, want) {
        Some(carved) => Ok(carved),
        None => allocate_by_proving(sector, lane, want, others),
    }
}

#[cold]
#[inline(never)]
fn allocate_by_proving<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
    others: &Others<'_>,
) -> Result<Carved, NoBlock> {
    for _ in 0..PROOFS_MAX {
        match prove(sector, lane, want, others) {
            Proof::Carved(carved) => return Ok(trim(sector, lane, carved, want)),
            Proof::Exhausted { largest } => {
                sector.count(Event::Exhausted);
                return Err(NoBlock::Exhausted { largest });
            }
            Proof::Disturbed => {}
            Proof::Impossible => break,
        }
    }
    allocate_by_walking(sector, lane, want)
}

/// Takes a block by the hints alone: the first half of [`allocate`].
///
/// `None` is no proof that nothing is free. Lock-free and bounded.
#[inline]
pub fn allocate_by_hints<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
) -> Option<Carved> {
    let carved = sector.carve(lane, want)?;
    if carved.len == want.len() { Some(carved) } else { Some(trim(sector, lane, carved, want)) }
}

#[cold]
#[inline(never)]
fn allocate_by_walking<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
) -> Result<Carved, NoBlock> {
    let mut largest = 0;
    for _ in 0..WALKS_MAX {
        let returns = sector.begin_walk();
        let walk = if mutation::is(Mutation::EmptyIsExhausted) {
            Walk::default()
        } else {
            heal(sector, lane, Some(want))
        };
        largest = walk.largest;
        // Blocks given back behind the walker have been announced by now.
        if let Some(carved) = walk.carved.or_else(|| sector.carve(lane, want)) {
            return Ok(trim(sector, lane, carved, want));
        }
        // Nothing moved under the walk and nothing was given back behind it: what it saw was so.
        if !walk.in_flight && sector.returns() == returns {
            sector.count(Event::Exhausted);
            return Err(NoBlock::Exhausted { largest });
        }
    }
    sector.count(Event::Contended);
    Err(NoBlock::Contended { largest })
}

/// Gives back what an aligned carve took too much.
fn trim<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    carved: Carved,
    want: &Want,
) -> Carved {
    if carved.len > want.len() && want.is_held() {
        // A held block is ours alone, so this cannot fail unless somebody scribbled.
        if shrink(sector, lane, carved.head, want.len()).is_ok() {
            return Carved { head: carved.head, len: want.len() };
        }
    }
    carved
}

/// Walks the whole sector, merges free neighbours, and announces every free block.
///
/// Returns the length of the longest free block seen, in granules. Never needed for correctness of
/// what is allocated; run it to repair hints after a peer's damage or death.
pub fn repair<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>) -> u32 {
    sector.index().restore_parents();
    heal(sector, lane, None).largest
}

fn heal<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>, want: Option<&Want>) -> Walk {
    sector.count(Event::SlowWalk);
    let loose = sector.loose();
    let mut walk = Walk::default();
    let mut at = 0;
    while at < sector.len() {
        match sector.seen_at(at) {
            Seen::Head(State::Free, _) => {
                let Some(len) = merge_rightward_neighbours(sector, lane, at) else {
                    walk.in_flight = true;
                    continue_after(&mut at, 1);
                    continue;
                };
                // Whoever made this block free may have died before it was announced.
                sector.index().restore(Cell::of(len), at >> CHUNK_SHIFT);
                walk.largest = walk.largest.max(len);
                if let Some(want) = want.filter(|want| len >= want.len()) {
                    walk.carved = carve_while_long_enough(sector, lane, at, want);
                    if walk.carved.is_some() {
                        return walk;
                    }
                    // Lost to another thread, unless only the alignment was in the way.
                    let lost = want.align() == 1 || sector.free_at(at) != Some(len);
                    walk.in_flight |= lost && !mutation::is(Mutation::WalkForgetsLoss);
                }
                continue_after(&mut at, len);
            }
            Seen::Head(State::Acked | State::Coalescing, len) => {
                walk.in_flight = true;
                continue_after(&mut at, len);
            }
            Seen::Head(_, len) => continue_after(&mut at, len),
            Seen::Interior | Seen::Tail(_) => {
                // Limbo, or the block that the last word told of has changed since.
                walk.in_flight = true;
                continue_after(&mut at, 1);
            }
            Seen::Illegal(_) => {
                sector.count(Event::Corrupt);
                continue_after(&mut at, 1);
            }
        }
    }
    // Every head that was free and in nobody's hands is announced and merged by now.
    sector.mend(loose);
    walk
}

/// Carves from the free block at `at`, however often that is lost to others.
fn carve_while_long_enough<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    want: &Want,
) -> Option<Carved> {
    let tries = if want.align() == 1 { CARVES_MAX } else { 1 };
    for _ in 0..tries {
        let carved = sector.carve_from(lane, at, want);
        if carved.is_some() || sector.free_at(at).is_none_or(|len| len < want.len()) {
            return carved;
        }
    }
    None
}

fn continue_after(at: &mut u32, len: u32) {
    *at = at.saturating_add(len);
}

/// Lets the free blocks that follow the one at `at` flow into it; returns its length then, or
/// `None` when it is no longer free.
fn merge_rightward_neighbours<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
) -> Option<u32> {
    for _ in 0..MERGES_MAX {
        let len = sector.free_at(at)?;
        if mutation::is(Mutation::HealForgetsToMerge) {
            return Some(len);
        }
        let right = at + len;
        if sector.free_at(right).is_none() {
            return Some(len);
        }
        lane.begin(right, right);
        let Some(right) = claim_free(sector, lane, right) else {
            lane.abandon();
            return Some(len);
        };
        // Ours now, and so is its hint: whatever was lost, this way the ripple finds the left.
        sector.headers.set_left(right.head, at);
        sector.count(Event::HealedMerge);
        ripple(sector, lane, right);
        if !mutation::is(Mutation::HealForgetsMove) {
            sector.tell_move(lane);
        }
        sector.done(lane);
    }
    sector.loosen();
    sector.free_at(at)
}
