//! A sector in private memory, shared by the model check and the property tests.
#![allow(dead_code)] // each test binary uses its part

use am_layout::roster::{ROSTER_WORDS, Roster};
use am_layout::{CONTROL_WORDS, Seen, State, Word, free_len};
use am_ripple::{Carved, Headers, Lane, Sector, Want, allocate, format};
use am_tlsf::{CHUNK_SHIFT, Cell, Index, IndexShape};
use std::fmt::Write;

/// Words, index and left hints of one sector.
pub struct World {
    shape: IndexShape,
    pub words: Vec<Word>,
    pub bits: Vec<Word>,
    lefts: Vec<Word>,
    owners: Vec<Word>,
    control: Vec<Word>,
    roster: Vec<Word>,
}

/// Headers in vectors, for the participant `me`; in a segment they lie before the payloads.
#[derive(Clone, Copy)]
pub struct Lefts<'a> {
    lefts: &'a [Word],
    owners: &'a [Word],
    me: u32,
}

impl Headers for Lefts<'_> {
    fn left(&self, head: u32) -> Option<u32> {
        self.lefts[head as usize].load_relaxed().checked_sub(1)
    }
    fn set_left(&self, head: u32, left: u32) {
        self.lefts[head as usize].store_relaxed(left + 1);
    }
    fn mark_owner(&self, head: u32) {
        // In the models without participants it would only be one more write.
        if self.me != 0 {
            self.owners[head as usize].store_relaxed(self.me);
        }
    }
    fn owner(&self, head: u32) -> u32 {
        // Acquire (E9), as in a segment.
        self.owners[head as usize].load()
    }
    fn is_own(&self, head: u32) -> bool {
        self.me != 0 && self.owners[head as usize].load_relaxed() == self.me
    }
}

fn zeroes(n: u64) -> Vec<Word> {
    (0..n).map(|_| Word::new(0)).collect()
}

impl World {
    /// One free block of `granules`.
    pub fn new(granules: u32) -> Self {
        let shape = IndexShape::new(granules);
        let world = Self {
            shape,
            words: zeroes(granules.into()),
            bits: zeroes(shape.words()),
            lefts: zeroes(granules.into()),
            owners: zeroes(granules.into()),
            roster: Vec::new(),
            control: zeroes(CONTROL_WORDS as u64),
        };
        format(&world.sector(), &Lane::new());
        world
    }

    /// As [`new`](Self::new), with a roster.
    pub fn shared(granules: u32) -> Self {
        Self { roster: zeroes(ROSTER_WORDS as u64), ..Self::new(granules) }
    }

    pub fn sector(&self) -> Sector<'_, Lefts<'_>> {
        self.sector_with(self.headers())
    }

    /// The same sector, with other headers in front of [`headers`](Self::headers).
    pub fn sector_with<H: Headers>(&self, headers: H) -> Sector<'_, H> {
        let index = Index::new(self.shape, &self.bits).expect("enough bits");
        Sector::new(&self.words, index, &self.control, headers).expect("granules")
    }

    /// The sector as the participant `me` sees it.
    pub fn sector_of(&self, me: u32) -> Sector<'_, Lefts<'_>> {
        self.sector_with(Lefts { me, ..self.headers() })
    }

    pub fn headers(&self) -> Lefts<'_> {
        Lefts { lefts: &self.lefts, owners: &self.owners, me: 0 }
    }

    pub fn roster(&self) -> Roster<'_> {
        Roster::new(&self.roster).expect("enough words")
    }

    /// A lane of `owner`'s, number `number` of the roster, in the roster's sector 0.
    pub fn lane(&self, number: usize, owner: u32) -> Lane<'_> {
        let roster = self.roster();
        let lane = roster.lanes().nth(number).filter(|lane| lane.owner() == owner);
        let lane = lane.or_else(|| roster.claim(number..number + 1, owner)).expect("a lane");
        Lane::telling(lane.intent(0))
    }

    /// Allocates at setup, when it cannot fail.
    pub fn must(&self, len: u32) -> Carved {
        allocate(&self.sector(), &Lane::new(), &want(len)).expect("setup fits")
    }

    pub fn counter(&self, event: am_layout::Event) -> u32 {
        self.control[event as usize].load()
    }

    /// Every violation of the invariants at rest, given the blocks that are live.
    pub fn audit(&self, live: &[Carved]) -> Result<(), String> {
        let mut wrong = String::new();
        let mut found = Vec::new();
        let (mut at, mut left_free) = (0, false);
        while at < self.words.len() as u32 {
            let word = self.words[at as usize].load();
            let Seen::Head(state, len) = Seen::decode(word) else {
                writeln!(wrong, "I1: granule {at} is {}, no head", Seen::decode(word)).unwrap();
                break;
            };
            match state {
                State::Free => {
                    if left_free {
                        writeln!(wrong, "I4: free block at {at} has a free left neighbour")
                            .unwrap();
                    }
                    let chunk = at >> CHUNK_SHIFT;
                    if !self.sector().index().reaches(Cell::of(len), chunk) {
                        writeln!(wrong, "I5: no hint to the {len} free granules at {at}").unwrap();
                    }
                }
                State::Allocated | State::Held | State::Cached => {
                    found.push(Carved { head: at, len })
                }
                _ => writeln!(wrong, "in flight at rest: {at} {state:?}").unwrap(),
            }
            for inside in at + 1..(at + len).min(self.words.len() as u32) {
                let seen = Seen::decode(self.words[inside as usize].load());
                if !matches!(seen, Seen::Interior | Seen::Tail(_)) {
                    writeln!(wrong, "I1: inside the block at {at} granule {inside} is {seen}")
                        .unwrap();
                }
            }
            left_free = free_len(word).is_some();
            at += len;
        }
        if at != self.words.len() as u32 {
            writeln!(wrong, "I1: blocks cover {at} granules of {}", self.words.len()).unwrap();
        }
        let mut live = live.to_vec();
        live.sort_by_key(|block| block.head);
        if found != live {
            writeln!(wrong, "blocks in use are {found:?}, should be {live:?}").unwrap();
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Panics unless everything is one free block that the index reaches.
    pub fn assert_whole(&self) {
        self.assert_sound(&[]);
        assert_eq!(self.sector().free_at(0), Some(self.words.len() as u32), "not one free block");
    }

    pub fn assert_sound(&self, live: &[Carved]) {
        if let Err(wrong) = self.audit(live) {
            panic!("{wrong}");
        }
    }
}

/// A plain request.
pub fn want(len: u32) -> Want {
    Want::allocated(len)
}
