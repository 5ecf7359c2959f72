//! A segment whose heap has a known shape, and the survivor who keeps blocks in it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use am_layout::ROSTER_AT_BYTES;
use am_layout::roster::{LANES, ROSTER_WORDS, Roster};
use anyhow::{Context, Result, bail, ensure};
use atomic_matrix::{Block, Geometry, Matrix, Offset, SectorId};
use std::os::fd::AsFd;

use crate::pattern;
use crate::scene::Cue;

/// Bytes of a block's header.
const HEADER_BYTES: usize = 32;
/// Lanes that no thread claims.
const LANES_FOR_RECOVERY: usize = 8;

/// What segment an operation works in. But for `Three`, requests of any size go to its one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One sector of this kind.
    Only(SectorId),
    /// All three; what is laid out lies in the small one.
    Three,
    /// As the small sector alone, with room for a topic.
    Topic,
    /// The same, with room for a service.
    Service,
}

impl Shape {
    /// Every shape but those of topics and services, in the order of the table of operations.
    pub const ALL: [Shape; 4] = [
        Shape::Only(SectorId::Small),
        Shape::Only(SectorId::Medium),
        Shape::Only(SectorId::Large),
        Shape::Three,
    ];

    /// Returns the word for it in an operation's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Shape::Only(SectorId::Small) => "small",
            Shape::Only(SectorId::Medium) => "medium",
            Shape::Only(SectorId::Large) => "large",
            Shape::Three => "three",
            Shape::Topic => "topic",
            Shape::Service => "service",
        }
    }

    /// Returns the builder of such a segment: as short as the layouts allow, for it is compared
    /// after every instruction. In the small sector an eighth, shared by the threads there are, must be enough
    /// for what a cache is to keep.
    pub fn builder(self) -> atomic_matrix::Builder {
        let (size_bytes, small, medium) = match self {
            Shape::Only(SectorId::Small) => (96 << 10, 100, 0),
            Shape::Only(SectorId::Medium) => (164 << 10, 0, 100),
            Shape::Only(SectorId::Large) => (1 << 20, 0, 0),
            Shape::Three => (512 << 10, 20, 30),
            Shape::Topic => (144 << 10, 100, 0),
            Shape::Service => (320 << 10, 100, 0),
        };
        Matrix::builder().size(size_bytes).split(small, medium)
    }

    fn sector(self) -> usize {
        match self {
            Shape::Only(sector) => sector as usize,
            Shape::Three | Shape::Topic | Shape::Service => 0,
        }
    }
}

/// A place in `/dev/shm` that is removed with this value.
#[derive(Debug)]
pub struct Name(String);

impl Name {
    /// Makes a name that no other value of this process has; no file yet.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only uniqueness matters.
        let number = NEXT.fetch_add(1, Relaxed);
        Self(format!("am-kit-{}-{number}", std::process::id()))
    }

    /// Returns the name as the builder takes it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Error: there is no such file, which is what is wanted.
        let _ = std::fs::remove_file(self.path());
        // Of readers that died with an operation that did not end as it must.
        am_shm::Bell::sweep(&self.path());
    }
}

/// A block that the survivor gave away and still knows of.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Where its payload lies.
    pub offset: Offset,
    /// Bytes of its payload, all of them filled with the pattern of `key`.
    pub bytes: usize,
    /// Key of the pattern.
    pub key: u64,
}

/// A laid-out heap, with what the survivor keeps of it. Its handle has no thread caches, so whatever lies in
/// one is an actor's.
pub struct Stage<'m> {
    /// The survivor's handle.
    pub matrix: &'m Matrix,
    /// Which segment it is.
    pub shape: Shape,
    /// Blocks that the survivor holds, each with the key of its pattern.
    pub held: Vec<(Block<'m>, u64)>,
    /// Blocks that nobody holds and nobody is to touch.
    pub raw: Vec<Given>,
    /// Blocks given to the actors A, B and C.
    pub given: [Vec<Given>; 3],
    /// What actors must know of the topic or service, if there is one.
    pub cue: Cue,
}

impl<'m> Stage<'m> {
    /// Lays the heap out.
    ///
    /// `layout` names blocks from left to right, each by a letter and its length in granules:
    /// `S` the survivor holds, `R` is given away and to be let alone, `A`, `B` and `C` are given to
    /// the actor of that name, `F` is free. What lies to the left of the first is one free block; with
    /// a leading `|` the survivor holds it, and nothing is free but each `F`. A block is at least
    /// two granules long.
    ///
    /// # Errors
    /// The layout cannot be read, or the blocks do not come to lie where it says.
    pub fn lay(matrix: &'m Matrix, shape: Shape, layout: &str) -> Result<Self> {
        let mut stage = Self {
            matrix,
            shape,
            held: Vec::new(),
            raw: Vec::new(),
            given: Default::default(),
            cue: Cue::default(),
        };
        let full = layout.starts_with('|');
        let parts = read_layout(layout.trim_start_matches('|'))?;
        let mut free = Vec::new();
        let mut end = None;
        let mut places = Vec::new();
        for &(_, granules) in parts.iter().rev() {
            let block = matrix.allocate(stage.bytes(granules)).context("laying out")?;
            let at = block.offset().bytes();
            let behind = at + (u64::from(granules) << stage.sector().granule_shift);
            ensure!(end.is_none_or(|end| end == behind), "a block lies apart from the next");
            end = Some(at);
            places.push(block);
        }
        if full {
            stage.fill_up()?;
        }
        for (block, &(letter, _)) in places.into_iter().zip(parts.iter().rev()) {
            match letter {
                'S' => stage.hold(block),
                'R' => stage.raw.push(give(block)),
                'A' => stage.given[0].push(give(block)),
                'B' => stage.given[1].push(give(block)),
                'C' => stage.given[2].push(give(block)),
                _ => free.push(block),
            }
        }
        stage.given.iter_mut().for_each(|given| given.reverse());
        stage.held.sort_by_key(|(block, _)| block.offset());
        drop(free);
        Ok(stage)
    }

    /// Holds all that is free, which is one block.
    fn fill_up(&mut self) -> Result<()> {
        // Longer requests may go to another sector.
        let most = if self.shape == Shape::Three { 129 } else { u64::from(u32::MAX) };
        loop {
            let stats = self.matrix.stats();
            let sector = stats.sectors.iter().find(|s| s.sector as usize == self.shape.sector());
            let sector = sector.context("no such sector")?;
            let rest = sector.largest_free_bytes / sector.granule_bytes;
            if rest == 0 {
                return Ok(());
            }
            // Not one granule less than all: it would be too short for a block.
            let next = if rest <= most { rest } else { most.min(rest - 2) };
            self.hold(self.matrix.allocate(self.bytes(next as u32))?);
        }
    }

    /// Keeps a block and fills it.
    pub fn hold(&mut self, mut block: Block<'m>) {
        let key = pattern::key(1, block.offset().to_raw().into());
        pattern::fill(&mut block, key);
        self.held.push((block, key));
    }

    /// Returns the payload bytes of a block of `granules`, header not counted.
    #[must_use]
    pub fn bytes(&self, granules: u32) -> usize {
        ((granules as usize) << self.sector().granule_shift) - HEADER_BYTES
    }

    /// Returns the geometry of the sector that is laid out.
    #[must_use]
    pub fn sector(&self) -> am_layout::SectorGeometry {
        self.geometry().sectors[self.shape.sector()]
    }

    /// Returns the segment's geometry.
    #[must_use]
    pub fn geometry(&self) -> &'m Geometry {
        self.matrix.geometry()
    }

    /// Returns the word of the granule where a block's header lies.
    #[must_use]
    pub fn head_word(&self, offset: Offset) -> u32 {
        let sector = self.sector();
        let granule = (offset.bytes() - 32 - sector.data_bytes) >> sector.granule_shift;
        let at = sector.words_bytes + 4 * granule;
        // SAFETY: these bytes are used as words only.
        let words = unsafe { self.matrix.mapping().words(at as usize, 1) };
        words.map_or(0, |words| words[0].load())
    }

    /// Clears every hint of the sector's index, as a peer's damage would.
    ///
    /// # Errors
    /// The index lies outside of the mapping.
    pub fn spoil_hints(&self) -> Result<()> {
        let sector = self.sector();
        let (at, count) = (sector.index_bytes as usize, sector.index_words as usize);
        // SAFETY: these bytes are used as words only.
        let words = unsafe { self.matrix.mapping().words(at, count) };
        words.context("no index there")?.iter().for_each(|word| word.store(0));
        Ok(())
    }

    /// Takes, in the survivor's name, every lane that a thread could claim, but one. Whoever attaches
    /// next takes that one for all its threads together, and they find none of their own.
    ///
    /// # Errors
    /// The roster lies outside of the mapping.
    pub fn crowd(&self) -> Result<()> {
        // SAFETY: these bytes are used as words only.
        let words = unsafe { self.matrix.mapping().words(ROSTER_AT_BYTES as usize, ROSTER_WORDS) };
        let roster = words.and_then(Roster::new).context("no roster there")?;
        let own = self.matrix.participants().into_iter().find(|participant| participant.own);
        let owner = own.context("the survivor takes no part")?.slot + 1;
        while roster.claim(LANES_FOR_RECOVERY..LANES, owner).is_some() {}
        let last = roster.lanes().filter(|lane| lane.owner() == owner).last();
        last.context("the survivor has no lane")?.release();
        Ok(())
    }

    /// Opens the segment anew, as another participant.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_anew(&self) -> Result<Matrix> {
        let fd = self.matrix.as_fd().try_clone_to_owned()?;
        Matrix::builder().attach(fd).context("opening the segment")
    }
}

fn give(mut block: Block<'_>) -> Given {
    let key = pattern::key(2, block.offset().to_raw().into());
    pattern::fill(&mut block, key);
    Given { bytes: block.len(), key, offset: block.into_offset() }
}

fn read_layout(layout: &str) -> Result<Vec<(char, u32)>> {
    let read = |word: &str| {
        let letter = word.chars().next().context("an empty word")?;
        if !"SRABCF".contains(letter) {
            bail!("{letter:?} stands for no kind of block");
        }
        Ok((letter, word[1..].parse().with_context(|| format!("the length of {word:?}"))?))
    };
    layout.split_whitespace().map(read).collect()
}
