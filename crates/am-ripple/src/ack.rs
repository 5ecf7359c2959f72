//! Giving a block back, and passing it from guard to offset and back.

use crate::park::make_limbo;
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

/// Looks whether the block at `at` is in state `from`; returns its head word and length.
#[inline]
pub(crate) fn expect<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    from: State,
) -> Result<(u32, u32), WrongState> {
    let word = if at < sector.len() { sector.word(at).load() } else { INTERIOR };
    match len_in(word, from).filter(|&len| sector.fits(at, len)) {
        Some(len) => Ok((word, len)),
        None => Err(WrongState { granule: at, expected: from, seen: sector.seen_at(at) }),
    }
}

/// Takes the block at `at` out of state `from` by one compare-exchange, or a store if it is held and so the
/// caller's alone; returns its length.
///
/// It is in limbo then, and the lane's intent says so; the caller ends it by [`Sector::done`].
///
/// # Errors
/// [`WrongState`] when the granule is not the head of a block in state `from`.
#[inline]
pub(crate) fn claim<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    from: State,
    to: State,
) -> Result<u32, WrongState> {
    let (word, len) = expect(sector, at, from)?;
    claim_seen(sector, lane, at, (word, len), (from, to))?;
    Ok(len)
}

/// As [`claim`], of a block whose word and length were just [expected](expect).
#[inline]
pub(crate) fn claim_seen<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    (word, len): (u32, u32),
    (from, to): (State, State),
) -> Result<(), WrongState> {
    if !mutation::is(Mutation::AckForgetsIntent) {
        lane.begin(at, at + len);
    }
    exchange(sector, at, word, from, head(to, len)).inspect_err(|_| lane.abandon())
}

/// As [`claim`] for [`State::Acked`], but with a range in hand already, whose intent it extends.
pub(crate) fn claim_next<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    from: State,
) -> Result<u32, WrongState> {
    let (word, len) = expect(sector, at, from)?;
    lane.extend(at, at + len);
    exchange(sector, at, word, from, head(State::Acked, len))?;
    Ok(len)
}

#[inline]
fn exchange<H: Headers>(
    sector: &Sector<'_, H>,
    at: u32,
    old: u32,
    from: State,
    new: u32,
) -> Result<(), WrongState> {
    if from == State::Held {
        // Nobody else changes the word of a held block (I8), so there is no exchange to lose; the barrier
        // between the intent and the look at what is suspected is the ripple's (E11).
        make_limbo(sector, at, new);
        return Ok(());
    }
    if mutation::is(Mutation::AckWithoutCas) {
        sector.word(at).store(new);
        return Ok(());
    }
    // Acquire (E2, E3): sees the header, the tail and the payload that the block came with.
    // Release (E3, E8): hands them on, and the intent. Full barrier: `done` reads what is suspected
    // (E8). Not the expected value: a double ack, or a forged offset.
    sector.word(at).cas_full(old, new).map_err(|word| WrongState {
        granule: at,
        expected: from,
        seen: Seen::decode(word),
    })
}

/// Gives the block at granule `at` back and lets it merge with its free neighbours.
///
/// `from` is the state it must be in: [`State::Allocated`] for a caller who knows its offset,
/// [`State::Held`] for the guard that owns it, and for nobody else: then there is no exchange that one of two
/// callers would lose. Returns its length in granules. Lock-free, bounded.
///
/// # Errors
/// [`WrongState`] when the granule is not the head of such a block: a double ack, a forged or
/// foreign offset. Nothing is changed then.
#[inline]
pub fn ack<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    from: State,
) -> Result<u32, WrongState> {
    let len = claim(sector, lane, at, from, State::Acked)?;
    give_back(sector, lane, Range { head: at, len });
    Ok(len)
}

/// `HELD` → `ALLOCATED`: a guard gives its block away; whoever learns the offset may take it.
///
/// Returns the length in granules. Wait-free. What the guard wrote is visible to whoever takes the
/// block (E3). Only for the guard that owns the block.
///
/// # Errors
/// [`WrongState`] when the block is not held: somebody scribbled.
#[inline]
pub fn give<H: Headers>(sector: &Sector<'_, H>, at: u32) -> Result<u32, WrongState> {
    let (_, len) = expect(sector, at, State::Held)?;
    let word = sector.word(at);
    if mutation::is(Mutation::GiveWithoutRelease) {
        word.store_relaxed(head(State::Allocated, len));
    } else {
        // Release (E3): hands the payload on. A plain store, since nobody else changes the word of a held
        // block. No limbo, so no intent: the block is in use throughout.
        word.store(head(State::Allocated, len));
    }
    Ok(len)
}

/// `ALLOCATED` → `HELD`: takes a block that was given away. Of several callers exactly one succeeds.
///
/// On the way it is `COALESCING`: its header names its owner before its word says that it has one.
/// Returns the length in granules. Wait-free.
///
/// # Errors
/// [`WrongState`] when nobody gave such a block, or it was taken or acked already.
pub fn take<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
) -> Result<u32, WrongState> {
    let len = claim(sector, lane, at, State::Allocated, State::Coalescing)?;
    sector.headers.mark_owner(at);
    // Release (E2): publishes the owner to whoever looks whose block it is.
    sector.word(at).store(head(State::Held, len));
    sector.done(lane);
    Ok(len)
}

/// Makes a fresh sector, all zero words, one free block. Only before anybody else sees the sector.
pub fn format<H: Headers>(sector: &Sector<'_, H>, lane: &Lane<'_>) {
    give_back(sector, lane, Range { head: 0, len: sector.len() });
}

/// Shortens a held block to `len` granules in place; the rest goes back.
///
/// # Errors
/// [`WrongState`] when the block is not held, or is shorter than `len`; nothing is changed then.
pub fn shrink<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
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
    lane.begin(at + len, at + old);
    resize(sector, lane, at, old, len)?;
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
    lane: &Lane<'_>,
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
    lane.begin(end, end + needed);
    let Some(right) = crate::ripple::claim_free(sector, lane, end) else {
        lane.abandon();
        return Ok(false);
    };
    if right.len < needed {
        give_back(sector, lane, right);
        return Ok(false);
    }
    // Release (E8): whoever finds no head here sees the intent.
    sector.word(right.head).store(INTERIOR);
    sector.store_tail(at, len);
    if let Err(wrong) = resize(sector, lane, at, old, len) {
        // `resize` abandoned the intent, and the range is still ours.
        lane.begin(right.head, right.end());
        give_back(sector, lane, right);
        return Err(wrong);
    }
    if right.len > needed {
        let rest = Range { head: at + len, len: right.len - needed };
        sector.headers.set_left(rest.head, at);
        give_back(sector, lane, rest);
    } else {
        sector.done(lane);
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

/// `HELD(old)` → `HELD(new)`, within an intent, which is abandoned when it fails.
pub(crate) fn resize<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    old: u32,
    new: u32,
) -> Result<(), WrongState> {
    // Release (E2): publishes the new tail to whoever acks the block. Full barrier: `done` reads
    // what is suspected (E8).
    let (old, new) = (head(State::Held, old), head(State::Held, new));
    sector.word(at).cas_full(old, new).map_err(|word| {
        lane.abandon();
        WrongState { granule: at, expected: State::Held, seen: Seen::decode(word) }
    })
}
