//! Many blocks at once: one carve that is split, one ripple for blocks that lie side by side.

use crate::ack::{WrongState, claim, claim_next, resize};
use crate::ripple::{Range, give_back};
use am_layout::{INTERIOR, Seen, State, head};
use am_tlsf::{Headers, Lane, Sector};

/// Splits a held block into held blocks of `piece` granules each; returns how many there are.
///
/// The last one keeps what does not divide. The blocks begin at `at`, `at + piece`, … Wait-free.
///
/// # Errors
/// [`WrongState`] when the block is not held or shorter than `piece`; nothing is changed then.
pub fn split<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    at: u32,
    piece: u32,
) -> Result<u32, WrongState> {
    let seen = sector.seen_at(at);
    let wrong = WrongState { granule: at, expected: State::Held, seen };
    let Seen::Head(State::Held, len) = seen else { return Err(wrong) };
    let pieces = len.checked_div(piece).unwrap_or(0);
    if pieces == 0 {
        return Err(wrong);
    }
    if pieces == 1 {
        return Ok(1);
    }
    // The first piece first: the granules behind it are limbo then, and become blocks one by one. So
    // at no instant there is a head inside a block (I1), wherever this thread may die.
    lane.begin(at + piece, at + len);
    sector.store_tail(at, piece);
    resize(sector, lane, at, len, piece)?;
    for number in 1..pieces {
        let start = at + number * piece;
        let end = if number + 1 == pieces { at + len } else { start + piece };
        sector.headers.set_left(start, start - piece);
        sector.headers.mark_owner(start);
        sector.store_tail(start, end - start);
        // Release (E2): publishes header and tail to whoever acks or takes this piece.
        sector.word(start).store(head(State::Held, end - start));
    }
    sector.done(lane);
    Ok(pieces)
}

/// Gives many blocks back; those that lie side by side go as one range, by one ripple.
///
/// `blocks` are granules of heads, in any order; they are sorted in place. Each must be in state
/// `from`. All that are go back; the first that is not is reported. Lock-free, bounded.
///
/// # Errors
/// The first [`WrongState`], after every other block went back.
pub fn ack_many<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    blocks: &mut [u32],
    from: State,
) -> Result<(), WrongState> {
    blocks.sort_unstable();
    let mut first_wrong = Ok(());
    let mut run: Option<Range> = None;
    for &at in &*blocks {
        if let Some(ended) = run.take_if(|run| run.end() != at) {
            give_back(sector, lane, ended);
        }
        let claimed = match &run {
            None => claim(sector, lane, at, from, State::Acked),
            Some(_) => claim_next(sector, lane, at, from),
        };
        let len = match claimed {
            Ok(len) => len,
            Err(wrong) => {
                first_wrong = first_wrong.and(Err(wrong));
                continue;
            }
        };
        match &mut run {
            None => run = Some(Range { head: at, len }),
            Some(run) => {
                // Ours (I3); the run's last read-modify-write publishes it (E1). Release (E8):
                // whoever finds no head here sees the intent.
                sector.word(at).store(INTERIOR);
                run.len += len;
            }
        }
    }
    if let Some(run) = run {
        give_back(sector, lane, run);
    }
    first_wrong
}
