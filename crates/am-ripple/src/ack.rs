//! Giving a block back, and passing it from guard to offset and back.

use crate::ripple::{Range, give_back};
use am_layout::mutation::{self, Mutation};
use am_layout::{INTERIOR, Seen, State, head, len_in};
use am_tlsf::{Headers, Lane, Sector};

/// A block was not in the state that the call needs; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("granule {granule} is {seen}, not a block {expected:?}")]
pub struct WrongState {
    /// The granule given.
    pub granule: u32,
    /// The state it should have had.
    pub expected: State,
    /// What its word says.
    pub seen: Seen,
}

/// Changes the state of the block at `at` by one compare-exchange; returns its length.
///
/// # Errors
/// [`WrongState`] when the granule is not the head of a block in state `from`.
#[inline]
pub(crate) fn transition<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    from: State,
    to: State,
) -> Result<u32, WrongState> {
    let wrong = |seen| WrongState { granule: at, expected: from, seen };
    let word = if at < sector.len() { sector.word(at).load() } else { INTERIOR };
    let Some(len) = len_in(word, from).filter(|&len| sector.fits(at, len)) else {
        return Err(wrong(sector.seen_at(at)));
    };
    if mutation::is(Mutation::AckWithoutCas) {
        sector.word(at).store(head(to, len));
        return Ok(len);
    }
    if mutation::is(Mutation::GiveWithoutRelease) && to == State::Allocated {
        sector.word(at).store_relaxed(head(to, len));
        return Ok(len);
    }
    // Acquire (E2, E3): sees the header, the tail and the payload that the block came with.
    // Release (E3): hands them on. Not the expected value: a double ack, or a forged offset.
    sector.word(at).cas(word, head(to, len)).map_err(|word| wrong(Seen::decode(word)))?;
    Ok(len)
}

/// Gives the block at granule `at` back and lets it merge with its free neighbours.
///
/// `from` is the state it must be in: [`State::Allocated`] for a caller who knows its offset,
/// [`State::Held`] for the guard that owns it. Returns its length in granules. Lock-free, bounded.
///
/// # Errors
/// [`WrongState`] when the granule is not the head of such a block: a double ack, a forged or
/// foreign offset. Nothing is changed then.
#[inline]
pub fn ack<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane,
    at: u32,
    from: State,
) -> Result<u32, WrongState> {
    let len = transition(sector, at, from, State::Acked)?;
    give_back(sector, lane, Range { head: at, len });
    Ok(len)
}

/// `HELD` → `ALLOCATED`: a guard gives its block away; whoever learns the offset may take it.
///
/// Returns the length in granules. Wait-free. What the guard wrote is visible to whoever takes the
/// block (E3).
///
/// # Errors
/// [`WrongState`] when the block is not held.
pub fn give<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Result<u32, WrongState> {
    transition(sector, at, State::Held, State::Allocated)
}

/// `ALLOCATED` → `HELD`: takes a block that was given away. Of several callers exactly one succeeds.
///
/// Returns the length in granules. Wait-free.
///
/// # Errors
/// [`WrongState`] when nobody gave such a block, or it was taken or acked already.
pub fn take<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Result<u32, WrongState> {
    transition(sector, at, State::Allocated, State::Held)
}

/// Makes a fresh sector, all zero words, one free block. Only before anybody else sees the sector.
pub fn format<H: Headers>(sector: &Sector<'_, H>, lane: &Lane) {
    give_back(sector, lane, Range { head: 0, len: sector.len() });
}

/// Shortens a held block to `len` granules in place; the rest goes back.
///
/// # Errors
/// [`WrongState`] when the block is not held, or is shorter than `len`; nothing is changed then.
pub fn shrink<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane,
    at: u32,
    len: u32,
) -> Result<(), WrongState> {
    let old = held_len(sector, at)?;
    if len == 0 || len > old {
        return Err(WrongState { granule: at, expected: State::Held, seen: sector.seen_at(at) });
    }
    if len == old {
        return Ok(());
    }
    // The block is the caller's, and so are its words, up to the exchange and after it.
    sector.store_tail(at, len);
    resize(sector, at, old, len)?;
    let rest = Range { head: at + len, len: old - len };
    sector.headers.set_left(rest.head, at);
    give_back(sector, lane, rest);
    Ok(())
}

/// Lengthens a held block to `len` granules in place, if the block to its right is free and long
/// enough. Returns false, and changes nothing, when it is not.
///
/// # Errors
/// [`WrongState`] when the block is not held.
pub fn grow<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane,
    at: u32,
    len: u32,
) -> Result<bool, WrongState> {
    let old = held_len(sector, at)?;
    if len <= old {
        return Ok(true);
    }
    let end = at + old;
    let needed = len - old;
    if sector.free_at(end).is_none_or(|free| free < needed) {
        return Ok(false);
    }
    let Some(right) = crate::ripple::claim_free(sector, end) else { return Ok(false) };
    if right.len < needed {
        give_back(sector, lane, right);
        return Ok(false);
    }
    sector.word(right.head).store_relaxed(INTERIOR);
    sector.store_tail(at, len);
    if let Err(wrong) = resize(sector, at, old, len) {
        give_back(sector, lane, right);
        return Err(wrong);
    }
    if right.len > needed {
        let rest = Range { head: at + len, len: right.len - needed };
        sector.headers.set_left(rest.head, at);
        give_back(sector, lane, rest);
    }
    Ok(true)
}

/// Returns the length of the held block at `at`.
fn held_len<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Result<u32, WrongState> {
    match sector.seen_at(at) {
        Seen::Head(State::Held, len) => Ok(len),
        seen => Err(WrongState { granule: at, expected: State::Held, seen }),
    }
}

/// `HELD(old)` → `HELD(new)`.
pub(crate) fn resize<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    old: u32,
    new: u32,
) -> Result<(), WrongState> {
    // Release (E2): publishes the new tail to whoever acks the block.
    sector.word(at).cas(head(State::Held, old), head(State::Held, new)).map_err(|word| WrongState {
        granule: at,
        expected: State::Held,
        seen: Seen::decode(word),
    })
}
