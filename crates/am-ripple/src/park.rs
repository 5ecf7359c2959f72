//! Parking: passing blocks between their users and a thread cache, and from there back.
//!
//! A parked block is `CACHED`: handed to nobody, and the cache's own. Whose cache it is, its header
//! says as it does of a held block (I10), so a death gives both back. Nobody else changes the word of
//! a parked block, nor of a held one, so passing it between the two takes no exchange: a load and a
//! store. It is in somebody's hands throughout, so there is no limbo and no intent to tell.

use crate::ack::{WrongState, claim_seen, expect};
use crate::ripple::{Range, give_back};
use am_layout::mutation::{self, Mutation};
use am_layout::{INTERIOR, State, head};
use am_tlsf::{Headers, Lane, Sector};

/// `HELD` → `CACHED`: the guard of a block of `len` granules leaves it to its thread's cache, which
/// calls `keep` to remember it.
///
/// Only for the guard that owns the block. False, and nothing is changed, when the word does not say so:
/// somebody scribbled. Wait-free, no locked instruction.
#[inline(always)]
#[must_use]
pub fn park<H: Headers>(sector: &Sector<'_, H>, at: u32, len: u32, keep: impl FnOnce()) -> bool {
    let Some(word) = sector.get_word(at) else { return false };
    if word.load_relaxed() != head(State::Held, len) {
        return false;
    }
    // Before the store, behind which the compiler knows nothing of the cache's memory any more.
    keep();
    // Release: a recoverer that finds the block sees its owner. Nobody else changes the word.
    word.store(head(State::Cached, len));
    true
}

/// `ALLOCATED` → `CACHED`: gives a block of `len` granules that no guard owns to the caller's cache. Of
/// several callers with the same offset exactly one succeeds.
///
/// On the way it is `COALESCING`: its header names its owner before its word says that it has one.
/// Wait-free.
///
/// # Errors
/// [`WrongState`] when the granule is not the head of such a block: a double ack, a forged or foreign
/// offset, or one kept so long that another block is there by now. Nothing is changed then.
#[inline]
pub fn park_allocated<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    len: u32,
) -> Result<(), WrongState> {
    let seen = expect_len(sector, at, len)?;
    claim_seen(sector, lane, at, seen, (State::Allocated, State::Coalescing))?;
    sector.headers.mark_owner(at);
    // Release (E2): publishes the owner to whoever looks whose block it is.
    sector.word(at).store(head(State::Cached, len));
    sector.done(lane);
    Ok(())
}

/// Looks whether an allocated block of `len` granules is at `at`; returns its word and length.
#[inline]
fn expect_len<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    len: u32,
) -> Result<(u32, u32), WrongState> {
    let (word, seen) = expect(sector, at, State::Allocated)?;
    if seen == len {
        return Ok((word, len));
    }
    Err(WrongState { granule: at, expected: State::Allocated, seen: sector.seen_at(at) })
}

/// As [`park_allocated`], without a locked instruction.
///
/// The caller promises that nobody else acks or takes this block at the same moment: whatever others did
/// to it *happens before* this call, and whatever they do happens after it. So the offset comes with an
/// order, from a release store to an acquire load at least; otherwise the word that is read here may be
/// that of an earlier turn (E3). A call that comes before or after another is told from it as ever; two at
/// once may both succeed, and then one block has two owners.
///
/// # Errors
/// As [`park_allocated`].
#[inline]
pub fn park_unshared<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    len: u32,
) -> Result<(), WrongState> {
    expect_len(sector, at, len)?;
    own_unshared(sector, at, head(State::Cached, len));
    Ok(())
}

/// As [`take`](crate::take), without a locked instruction; the caller promises as for
/// [`park_unshared`].
///
/// # Errors
/// As [`take`](crate::take).
#[inline]
pub fn take_unshared<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Result<u32, WrongState> {
    let (_, len) = expect(sector, at, State::Allocated)?;
    own_unshared(sector, at, head(State::Held, len));
    Ok(len)
}

/// Makes an allocated block, on which nobody else acts now, this participant's own.
///
/// It is in nobody's hands before and in the caller's after, so there is no limbo and no intent to tell. Its
/// owner stands in the header before the word says that it has one, and a recoverer sees of the dead's
/// words the last ones or newer: it never finds the new word with the old owner (E9).
#[inline]
fn own_unshared<H: Headers>(sector: &Sector<'_, H>, at: u32, new: u32) {
    let word = sector.word(at);
    if mutation::is(Mutation::UnsharedMarksLate) {
        word.store(new);
    }
    // What the caller before left in the header came with the word that was expected.
    if !sector.headers.is_own(at) {
        sector.headers.mark_owner(at);
    }
    if mutation::is(Mutation::UnsharedWithoutRelease) {
        word.store_relaxed(new);
    } else {
        // Release (E9): publishes the owner to whoever looks whose block it is.
        word.store(new);
    }
}

/// `CACHED` → `to` (`HELD` or `ALLOCATED`): the cache hands out a block of `len` granules.
///
/// An allocated one gets the [`note`](am_tlsf::Want::noted); what a guard asks for, it knows itself.
/// Only for the cache in which the block is parked. False when the word does not say so, because
/// somebody scribbled; then the block must be forgotten. Wait-free, no locked instruction.
#[inline(always)]
#[must_use]
pub fn unpark<H: Headers>(sector: &Sector<'_, H>, at: u32, len: u32, to: State, note: u64) -> bool {
    let Some(word) = sector.get_word(at) else { return false };
    if word.load_relaxed() != head(State::Cached, len) {
        return false;
    }
    if to == State::Allocated {
        // Before the word: from then on whoever guesses the offset may ack the block, and its header may
        // be somebody's payload (I6).
        sector.headers.set_note(at, note);
    }
    if mutation::is(Mutation::UnparkWithoutRelease) {
        word.store_relaxed(head(to, len));
    } else {
        // Release (E2): publishes header and payload to whoever acks or takes this block.
        word.store(head(to, len));
    }
    true
}

/// Gives parked blocks back; neighbours that follow each other go as one range, by one ripple.
///
/// `blocks` are granules of heads, without repetition; sort them first, or nothing merges. Only for
/// the cache in which they are parked. Returns how many were not, because somebody scribbled; these
/// stay as they are. Lock-free, bounded.
///
/// One locked instruction or a few per *run* of neighbours: the blocks are the caller's alone, so they
/// come into limbo by plain stores. The ripple's last exchange is the barrier between the intent and
/// the look at what is suspected (E11).
pub fn give_back_parked<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    blocks: &[u32],
) -> u32 {
    let mut wrong = 0;
    let mut run: Option<Range> = None;
    for &at in blocks {
        if let Some(ended) = run.take_if(|run| run.end() != at) {
            give_back(sector, lane, ended);
        }
        let Ok((_, len)) = expect(sector, at, State::Cached) else {
            wrong += 1;
            continue;
        };
        match &mut run {
            None => {
                if !mutation::is(Mutation::FlushForgetsIntent) {
                    lane.begin(at, at + len);
                }
                make_limbo(sector, at, head(State::Acked, len));
                run = Some(Range { head: at, len });
            }
            Some(run) => {
                lane.extend(at, at + len);
                // Ours (I3); the run's last read-modify-write publishes it (E1).
                if !mutation::is(Mutation::FlushForgetsHeads) {
                    make_limbo(sector, at, INTERIOR);
                }
                run.len += len;
            }
        }
    }
    if let Some(run) = run {
        give_back(sector, lane, run);
    }
    wrong
}

/// Takes the granules of a block that is the caller's alone, parked or held, into limbo, of which the lane's
/// intent tells already.
#[inline]
pub(crate) fn make_limbo<H: Headers>(sector: &Sector<'_, H>, at: u32, word: u32) {
    if mutation::is(Mutation::FlushWithoutRelease) {
        sector.word(at).store_relaxed(word);
    } else {
        // Release (E8, E11): whoever sees it in flight, or finds no head here, sees the intent.
        sector.word(at).store(word);
    }
}
