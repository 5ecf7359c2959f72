//! How much payload a heap can hold, and how much memory it needs to hold as much as another.

use std::thread;

use anyhow::{Result, ensure};

use crate::heap::{Access, Heap, Setup};

/// Refusals one after the other that end a filling.
const REFUSALS_MAX: u32 = 256;
/// Heaps that are filled to find the memory; each is closer than the one before.
const TRIES_MAX: u32 = 8;
/// How far from the capacity asked for a heap may stay, as a part of it.
const WITHIN: f64 = 0.002;

/// A heap's memory and what that holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Size of the segment or arena.
    pub memory_bytes: usize,
    /// The most payload that it held.
    pub capacity_bytes: usize,
}

/// Returns the memory with which a heap of type `H` holds `capacity_bytes` of payload, to within
/// 0.2 %: heaps as `setup` says, but for their memory, are filled with blocks of `sizes`.
///
/// # Errors
/// When the heap cannot be created, gives out more than it has, or comes no closer.
pub fn memory_for<H: Heap>(
    setup: &Setup,
    capacity_bytes: usize,
    sizes: impl Fn() -> Result<Box<dyn Iterator<Item = usize>>> + Sync,
) -> Result<Measured> {
    let fill = |memory_bytes| {
        let setup = Setup { segment_bytes: memory_bytes, ..*setup };
        // In a thread of its own: what a heap keeps for a thread goes with it.
        thread::scope(|scope| scope.spawn(|| filled::<H>(&setup, sizes()?)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    search(capacity_bytes, fill)
}

/// Searches the memory for which `capacity_of` returns `wanted_bytes`; the two are nearly
/// proportional.
fn search(wanted_bytes: usize, capacity_of: impl Fn(usize) -> Result<usize>) -> Result<Measured> {
    let mut memory_bytes = wanted_bytes;
    for _ in 0..TRIES_MAX {
        let capacity_bytes = capacity_of(memory_bytes)?;
        ensure!(capacity_bytes <= memory_bytes, "gives out more than it has");
        ensure!(capacity_bytes > 0, "holds nothing in {memory_bytes} bytes");
        let off = capacity_bytes as f64 / wanted_bytes as f64 - 1.0;
        if off.abs() <= WITHIN {
            return Ok(Measured { memory_bytes, capacity_bytes });
        }
        memory_bytes = (memory_bytes as f64 / (1.0 + off)) as usize;
    }
    anyhow::bail!("no memory was found with which it holds {wanted_bytes} bytes")
}

/// What a heap that only fills has refused: it would refuse as much, or more, again.
///
/// By powers of two, since a matrix may have places for large requests and none for small ones; what
/// bounds its sectors are powers of two. Asking is dear: a full heap is searched from end to end.
struct Refused {
    /// The smallest that was refused, above each power of two.
    from_bytes: [usize; usize::BITS as usize],
}

impl Refused {
    fn nothing() -> Self {
        Self { from_bytes: [usize::MAX; usize::BITS as usize] }
    }

    /// Returns the smallest refused size of the sizes to which `bytes` belongs: above 2ⁿ, up to 2ⁿ⁺¹.
    fn from(&mut self, bytes: usize) -> &mut usize {
        &mut self.from_bytes[(bytes - 1).ilog2() as usize]
    }
}

/// Fills an empty heap until it refuses [`REFUSALS_MAX`] times in a row; returns the payload.
fn filled<H: Heap>(setup: &Setup, sizes: impl Iterator<Item = usize>) -> Result<usize> {
    let heap = H::create(setup)?;
    let access = heap.enter()?;
    let mut blocks = Vec::new();
    let (mut payload_bytes, mut refusals) = (0, 0);
    let mut refused = Refused::nothing();
    for bytes in sizes {
        let from_bytes = refused.from(bytes);
        let block = if bytes < *from_bytes { access.alloc(bytes) } else { None };
        match block {
            Some(block) => {
                blocks.push((block, bytes));
                (payload_bytes, refusals) = (payload_bytes + bytes, 0);
            }
            None => {
                *from_bytes = bytes.min(*from_bytes);
                refusals += 1;
            }
        }
        if refusals == REFUSALS_MAX || payload_bytes > setup.segment_bytes {
            break;
        }
    }
    for (block, bytes) in blocks {
        // SAFETY: the block came from this heap with this size, and nobody else has it.
        let freed = unsafe { access.free(block, bytes) };
        ensure!(freed, "a free was refused");
    }
    Ok(payload_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_of_a_heap_with_overhead_finds_what_holds_as_much() -> Result<()> {
        let capacity_of = |memory: usize| Ok((memory - 70_000) / 10 * 9);
        let found = search(10_000_000, capacity_of)?;
        assert_eq!(capacity_of(found.memory_bytes)?, found.capacity_bytes);
        assert!(found.capacity_bytes.abs_diff(10_000_000) <= 20_000, "{found:?}");
        Ok(())
    }

    #[test]
    fn refused_tells_the_sizes_of_neighbouring_sectors_apart() {
        let mut refused = Refused::nothing();
        *refused.from(4096) = 4096;
        assert_eq!(*refused.from(4097), usize::MAX);
        assert_eq!(*refused.from(2049), 4096);
    }

    #[test]
    fn search_of_a_heap_that_gives_out_too_much_fails() {
        assert!(search(1000, |memory| Ok(memory + 1)).is_err());
    }
}
