//! Participants that die, without a process that does: their locks fall, and nothing is undone.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use am_layout::roster::{LANES, LINE_WORDS, SLOTS, SLOTS_AT};
use am_layout::{INTERIOR, LEN_MAX, Offset, ROSTER_AT_BYTES, SECTORS, State, head};
use am_matrix::{Block, Liveness};

use super::bed::{Bed, Handle};
use super::messages::Correspondent;
use super::service::Bureau;
use super::step::Size;

/// Sizes of the blocks that a participant dies with: some of every sector that has room.
const HELD_BYTES: [Size; 5] =
    [Size::Small(10), Size::Small(40), Size::Any(1000), Size::Any(6000), Size::Large(40)];
/// Sizes of the blocks that its cache keeps then.
const PARKED_BYTES: [Size; 3] = [Size::Small(70), Size::Any(2000), Size::Any(9000)];
/// Words of a lane before its intents.
const INTENTS: usize = 2;

/// The locks of a segment whose participants all live in one process.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    holders: Arc<Mutex<HashMap<u64, u64>>>,
}

impl LockTable {
    /// The view of one more participant; its locks fall when it is dropped.
    #[must_use]
    pub fn participant(&self) -> LocksOfOne {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        LocksOfOne { table: self.clone(), id, alive: AtomicU32::new(1) }
    }

    fn holders(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u64>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one participant knows of the locks.
#[derive(Debug)]
pub struct LocksOfOne {
    table: LockTable,
    id: u64,
    alive: AtomicU32,
}

// SAFETY: one table stands for the kernel; a byte has one holder in it, and falls when the test says that
// the holder is dead, after its last call. Nobody forks.
unsafe impl Liveness for LocksOfOne {
    fn try_lock(&self, byte: u64) -> io::Result<bool> {
        Ok(*self.table.holders().entry(byte).or_insert(self.id) == self.id)
    }

    fn unlock(&self, byte: u64) -> io::Result<()> {
        self.table.holders().retain(|&locked, &mut id| locked != byte || id != self.id);
        Ok(())
    }

    fn is_locked_elsewhere(&self, byte: u64) -> io::Result<bool> {
        Ok(self.table.holders().get(&byte).is_some_and(|&id| id != self.id))
    }

    fn alive(&self) -> &AtomicU32 {
        &self.alive
    }
}

impl Drop for LocksOfOne {
    fn drop(&mut self) {
        self.table.holders().retain(|_, &mut id| id != self.id);
    }
}

/// Lets a participant die that holds blocks, keeps some in its cache, and has one in hand, as `how` says; in the
/// topics it is a poster, a reader and a member who look at a message, in the service a client that has asked and a
/// server that has a request.
///
/// Whatever it did to the segment when it left is undone. Other processes' damages of that moment
/// are undone with it.
pub fn die(bed: &Bed, handle: Handle, how: u8) {
    let held: Vec<Offset> = HELD_BYTES
        .iter()
        .filter_map(|size| handle.allocate(size.bytes()).ok())
        .map(|block| {
            let offset = Block::offset(&block);
            std::mem::forget(block);
            offset
        })
        .collect();
    PARKED_BYTES.iter().for_each(|size| drop(handle.allocate(size.bytes())));
    let mail = (Correspondent::of_the_dead(&handle), Bureau::of_the_dead(&handle));
    let mut words = bed.snapshot();
    let slot = handle.participants().into_iter().find(|participant| participant.own);
    if let Some(slot) = slot.filter(|slot| (slot.slot as usize) < SLOTS) {
        // A thread has one operation in hand, so one of the blocks.
        if let Some(number) = usize::from(how >> 2).checked_rem(held.len()) {
            interrupt(bed, &mut words, held[number], slot.slot, how & 3);
        }
    }
    drop((mail, handle));
    bed.restore(&words);
}

/// Makes a held block what it is in the middle of an operation, and tells so.
fn interrupt(bed: &Bed, words: &mut [u32], offset: Offset, slot: u32, how: u8) {
    let Some((sector, at)) = bed.granule_of(offset) else { return };
    let geometry = &bed.geometry().sectors[sector];
    let Some(word) = words.get_mut(geometry.words_bytes as usize / 4 + at as usize) else { return };
    let len = (*word & LEN_MAX).max(1);
    *word = match how {
        0 => return, // held
        1 => INTERIOR,
        2 => head(State::Acked, len),
        _ => head(State::Coalescing, len),
    };
    for lane in (0..LANES).map(lane_at) {
        if words[lane] == slot + 1 && sector < SECTORS {
            let intent = lane + INTENTS + 2 * sector;
            words[intent] = at;
            words[intent + 1] = at + len;
        }
    }
}

/// The number of the first word of a lane in the segment.
pub fn lane_at(lane: usize) -> usize {
    ROSTER_AT_BYTES as usize / 4 + SLOTS_AT + (SLOTS + lane) * LINE_WORDS
}
