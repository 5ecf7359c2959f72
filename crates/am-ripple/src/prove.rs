//! The proof that nothing is free, without a walk: by the hints, and by what others say meanwhile.
//!
//! A walk reads a word per block. The index names the chunks that may hold a block long enough, and in a
//! full sector those are few. But a hint that is missing proves nothing while somebody is about to set it:
//!
//! 1. *begin*: count the walks up – full barrier; from here on, whoever gives back, sets a hint that was
//!    clear, or merges neighbours, says so before it takes its intent back;
//! 2. look at every hint from the wanted length's cell up, and at the words of each chunk named;
//! 3. *look*: no lane tells an intent in this sector;
//! 4. nobody said anything since 1, and nothing is left that only a walk mends.
//!
//! Then there was no block long enough when 4 was read (E16). A proof that fails costs little, and is
//! tried again a few times.

use am_layout::mutation::{self, Mutation};
use am_layout::roster::{Roster, Told};
use am_tlsf::{Carved, Cell, Headers, Lane, Sector, Want};

/// Words of the index and chunks that a proof looks at before it leaves the answer to a walk.
const WORDS_MAX: u32 = 4096;
/// Words of the index and chunks that are looked at for the longest free block, which an error names.
const LARGEST_WORDS_MAX: u32 = 1024;

/// The lanes of a roster, as far as they concern one sector.
#[derive(Clone, Copy, Debug)]
pub struct Others<'a> {
    roster: Roster<'a>,
    number: usize,
}

impl<'a> Others<'a> {
    /// The lanes that tell of the sector which the roster calls `number` (below `SECTORS`). Whoever operates
    /// on it has one of them.
    #[must_use]
    pub fn new(roster: Roster<'a>, number: usize) -> Self {
        Self { roster, number }
    }

    /// Tells whether no lane tells an intent: nobody has anything of the sector in hand, living or dead.
    fn are_quiet(&self) -> bool {
        let mut lanes = self.roster.lanes();
        mutation::is(Mutation::ProofForgetsLook)
            || lanes.all(|lane| lane.told(self.number).1 == Told::Nothing)
    }
}

/// How a proof ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// There was a block that is long enough; now it is the caller's.
    Carved(Carved),
    /// No free block was long enough.
    Exhausted {
        /// Length of the longest free block seen, in granules.
        largest: u32,
    },
    /// Somebody was at work beside it; trying again may help.
    Disturbed,
    /// There are too many hints, or something is loose in the sector: only a walk can tell.
    Impossible,
}

/// Tries to prove that no free block would do for `want`, or else takes the one that does.
///
/// The lane is in no operation. Lock-free and bounded: a look at 4096 words of the index or chunks and at
/// the lanes that were ever in use.
pub fn prove<H: Headers>(
    sector: &Sector<'_, H>,
    lane: &Lane<'_>,
    want: &Want,
    others: &Others<'_>,
) -> Proof {
    let Some(stamp) = sector.begin_proof() else { return Proof::Impossible };
    let (mut fit, mut largest, mut budget) = (None, 0, WORDS_MAX);
    let complete = sector.index().visit(Cell::of(want.len()), &mut budget, |chunk| {
        fit = sector.scan_heads(chunk, |at, len| {
            largest = largest.max(len);
            want.fits(at, len)
        });
        fit.is_none()
    });
    if let Some((at, _)) = fit {
        return sector.carve_from(lane, at, want).map_or(Proof::Disturbed, Proof::Carved);
    }
    if !complete {
        return Proof::Impossible;
    }
    // In this order (E16).
    if !others.are_quiet() || !sector.is_undisturbed(stamp) {
        return Proof::Disturbed;
    }
    let largest = largest_below(sector, Cell::of(want.len()), largest);
    Proof::Exhausted { largest }
}

/// The longest free block, if the longest that hints from `cell` on led to was `seen`; a figure for an error.
fn largest_below<H: Headers>(sector: &Sector<'_, H>, cell: Cell, seen: u32) -> u32 {
    let (mut largest, mut budget) = (seen, LARGEST_WORDS_MAX);
    for below in (0..cell.number()).rev().map(Cell::numbered) {
        // A stale hint may have led to a short one: what is longer has its cell, or one further up.
        if Cell::of(largest) > below || budget == 0 {
            break;
        }
        if !sector.index().has(below) {
            continue;
        }
        sector.index().visit_cell(below, &mut budget, |chunk| {
            let mut longest = |len| {
                if Cell::of(len) <= below {
                    largest = largest.max(len);
                }
                false
            };
            sector.scan_heads(chunk, |_, len| longest(len)).is_none()
        });
    }
    largest
}
