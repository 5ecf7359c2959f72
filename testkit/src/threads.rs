//! Threads that allocate, fill, exchange, check and free, for the compiler's sanitizers.
//!
//! Offsets change hands through relaxed words, so that nothing but the allocator orders what one
//! thread writes before what another reads. Only `spawn` and `join` are used beside: a sanitizer
//! does not see into the rest of the standard library.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use am_matrix::{Arena, Block, Error, Matrix, Offset, plan};
use anyhow::{Context, Result, anyhow, bail, ensure};
use fastrand::Rng;

use crate::hostile::step::mix;
use crate::pattern;
use crate::verdict::Verdict;

/// Size of the arena: small, so that blocks are reused soon.
const SIZE_BYTES: usize = 1 << 20;
/// Places through which offsets change hands.
const PLACES: usize = 16;
/// A thread frees a block rather than hold more than this many.
const LIVE_MAX: usize = 50;
/// Bytes before the pattern, which say what its key is.
const KEY_BYTES: usize = 8;

/// How long, and what to break.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Threads
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Operations of each thread
    #[arg(long, default_value_t = 100_000)]
    pub operations: u64,
    /// Who does what follows from it, though not when
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Let two threads write one payload, which a thread sanitizer must notice
    #[arg(long)]
    pub race: bool,
    /// Write behind the arena, which an address sanitizer must notice
    #[arg(long)]
    pub overrun: bool,
}

/// Runs it.
///
/// # Errors
/// A call failed that may not, or a payload was not what its owner wrote.
pub fn run(args: &Args) -> Result<Verdict> {
    let matrix = Matrix::format(Arena::heap(SIZE_BYTES), &plan(SIZE_BYTES as u64, 40, 30)?)?;
    if args.overrun {
        overrun(&matrix);
    }
    if args.race {
        race(&matrix)?;
    }
    let places: [AtomicU32; PLACES] = Default::default();
    let done = std::thread::scope(|scope| -> Result<u64> {
        let spawn = |number| {
            let (matrix, places) = (&matrix, &places);
            scope.spawn(move || Worker::new(args, number, matrix, places).run())
        };
        let threads: Vec<_> = (0..args.threads).map(spawn).collect();
        let mut done = 0;
        for thread in threads {
            done += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(done)
    })?;
    for place in &places {
        if let Some(offset) = offset_in(place.load(Relaxed)) {
            matrix.ack(offset)?;
        }
    }
    matrix.trim()?;
    let violations = matrix.check();
    ensure!(violations.is_empty(), "{violations:?}");
    for sector in matrix.stats().sectors {
        ensure!(sector.free_blocks == 1, "{} blocks free in {}", sector.free_blocks, sector.sector);
    }
    Ok(Verdict { points: args.threads.into(), blocks: done, failures: 0 })
}

fn offset_in(raw: u32) -> Option<Offset> {
    (raw != 0).then(|| Offset::from_raw(raw))
}

/// One thread.
struct Worker<'m> {
    args: &'m Args,
    number: u32,
    rng: Rng,
    matrix: &'m Matrix,
    places: &'m [AtomicU32; PLACES],
    live: Vec<Block<'m>>,
}

impl<'m> Worker<'m> {
    fn new(
        args: &'m Args,
        number: u32,
        matrix: &'m Matrix,
        places: &'m [AtomicU32; PLACES],
    ) -> Self {
        let rng = Rng::with_seed(mix(args.seed, number.into()));
        Self { args, number, rng, matrix, places, live: Vec::new() }
    }

    fn run(mut self) -> Result<u64> {
        for turn in 0..self.args.operations {
            self.step(turn).with_context(|| {
                let (number, seed) = (self.number, self.args.seed);
                format!("turn {turn} of thread {number}, seed {seed}")
            })?;
        }
        for block in std::mem::take(&mut self.live) {
            look(&block)?;
            block.free()?;
        }
        Ok(self.args.operations)
    }

    fn step(&mut self, turn: u64) -> Result<()> {
        match self.rng.u32(..10) {
            0..6 if self.live.len() < LIVE_MAX => {
                let size = match self.rng.u32(..50) {
                    0 => self.rng.usize(4096..20_000),
                    _ => self.rng.usize(KEY_BYTES..600),
                };
                match self.matrix.allocate(size) {
                    Ok(mut block) => {
                        write(&mut block, pattern::key(self.number, turn));
                        self.live.push(block);
                    }
                    Err(Error::Exhausted { .. } | Error::Contended { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            6 => {
                let Some(mut block) = self.pick() else { return Ok(()) };
                block.shrink(self.rng.usize(KEY_BYTES..=block.len()))?;
                self.live.push(block);
            }
            7 | 8 => self.exchange()?,
            _ => {
                let Some(block) = self.pick() else { return Ok(()) };
                look(&block)?;
                block.free()?;
            }
        }
        Ok(())
    }

    /// Gives a block away, and takes what another thread gave.
    fn exchange(&mut self) -> Result<()> {
        let Some(block) = self.pick() else { return Ok(()) };
        let offset = block.into_offset();
        let place = &self.places[self.rng.usize(..PLACES)];
        // Relaxed: the number alone; giving and taking the block order its payload (E3).
        if let Some(offset) = offset_in(place.swap(offset.to_raw(), Relaxed)) {
            let block = self.matrix.from_offset(offset)?;
            look(&block)?;
            self.live.push(block);
        }
        Ok(())
    }

    fn pick(&mut self) -> Option<Block<'m>> {
        if self.live.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.live.len());
        Some(self.live.swap_remove(at))
    }
}

fn write(payload: &mut [u8], key: u64) {
    let (first, rest) = payload.split_at_mut(KEY_BYTES);
    first.copy_from_slice(&key.to_le_bytes());
    pattern::fill(rest, key);
}

fn look(payload: &[u8]) -> Result<()> {
    let Some((first, rest)) = payload.split_first_chunk::<KEY_BYTES>() else {
        bail!("a block of {} bytes is shorter than its key", payload.len())
    };
    let key = u64::from_le_bytes(*first);
    ensure!(pattern::holds(rest, key), "a payload of {} bytes was overwritten", payload.len());
    Ok(())
}

/// Two threads write one payload.
fn race(matrix: &Matrix) -> Result<()> {
    let offset = matrix.allocate_offset(64)?;
    std::thread::scope(|scope| -> Result<()> {
        let write = || -> Result<()> {
            let payload = matrix.payload_ptr(offset)?;
            for value in 0..100_000_u32 {
                // SAFETY: none; inside a block that is in use, but another thread writes it too.
                unsafe { payload.cast().write_volatile(value) };
            }
            Ok(())
        };
        let threads = [scope.spawn(write), scope.spawn(write)];
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    Ok(matrix.ack(offset)?)
}

/// Writes behind the arena.
fn overrun(matrix: &Matrix) {
    let arena = matrix.arena();
    let behind = arena.base().wrapping_add(arena.len_bytes()).cast_mut();
    // SAFETY: none; one byte behind the arena, which belongs to nobody.
    unsafe { behind.write_volatile(1) };
}
