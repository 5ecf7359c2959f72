//! A bounded queue from one process to another, in memory that both map.

use std::sync::atomic::{AtomicU64, Ordering};

/// Entries that the ring holds.
pub const CAPACITY: u64 = 1024;

/// Keeps what one side writes from the lines that the other side writes.
#[repr(C, align(128))]
struct Line(AtomicU64);

/// The ring as it lies in shared memory: all zero, it is empty and open.
#[repr(C)]
pub struct Ring {
    /// Entries ever pushed; the producer's.
    tail: Line,
    /// Entries ever done with; the consumer's.
    head: Line,
    /// [`OPEN`], then [`READY`], then [`CLOSED`].
    phase: Line,
    /// What the consumer found wrong: corrupted payloads, and blocks that it could not take.
    corrupted: Line,
    refused: Line,
    entries: [AtomicU64; CAPACITY as usize],
}

const OPEN: u64 = 0;
const READY: u64 = 1;
const CLOSED: u64 = 2;

impl Ring {
    /// The consumer says that it has opened what it needs.
    pub fn ready(&self) {
        // Relaxed: a signal, publishes nothing. A producer that gave up may have closed already.
        let _ = self.phase.0.compare_exchange(OPEN, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Tells whether the consumer is ready.
    pub fn is_ready(&self) -> bool {
        // Relaxed: as above.
        self.phase.0.load(Ordering::Relaxed) == READY
    }

    /// The producer says that nothing more will come.
    pub fn close(&self) {
        // Release: after the last push; pairs with the Acquire in `is_closed`.
        self.phase.0.store(CLOSED, Ordering::Release);
    }

    /// Tells whether nothing more will come; what was pushed before is visible then.
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release in `close`.
        self.phase.0.load(Ordering::Acquire) == CLOSED
    }

    /// Counts a payload that was not what had been written.
    pub fn count_corrupted(&self) {
        // Relaxed: read after the consumer has ended.
        self.corrupted.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a block that could not be taken or freed.
    pub fn count_refused(&self) {
        // Relaxed: as above.
        self.refused.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what the consumer counted: corrupted, refused.
    pub fn counts(&self) -> [u64; 2] {
        // Relaxed: as above.
        [&self.corrupted, &self.refused].map(|line| line.0.load(Ordering::Relaxed))
    }

    /// Returns how many entries the consumer is done with.
    pub fn done(&self) -> u64 {
        // Relaxed: a figure.
        self.head.0.load(Ordering::Relaxed)
    }
}

/// The pushing side; one per ring.
pub struct Producer<'r> {
    ring: &'r Ring,
    tail: u64,
    /// The head when it was looked at last; the true one is not behind it.
    head_seen: u64,
}

impl<'r> Producer<'r> {
    /// Makes the only producer of a fresh ring.
    pub fn new(ring: &'r Ring) -> Self {
        Self { ring, tail: 0, head_seen: 0 }
    }

    /// Pushes an entry; `false` when the ring is full.
    #[inline]
    pub fn push(&mut self, entry: u64) -> bool {
        if self.tail - self.head_seen == CAPACITY {
            // Acquire: the consumer has read the entry that is overwritten below; pairs with the
            // Release in `advance`.
            self.head_seen = self.ring.head.0.load(Ordering::Acquire);
            if self.tail - self.head_seen == CAPACITY {
                return false;
            }
        }
        // Relaxed: published by the tail.
        self.ring.entries[(self.tail % CAPACITY) as usize].store(entry, Ordering::Relaxed);
        self.tail += 1;
        // Release: publishes the entry and the payload; pairs with the Acquire in `front`.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        true
    }

    /// Returns how many entries were pushed.
    pub fn pushed(&self) -> u64 {
        self.tail
    }
}

/// The other side; one per ring.
pub struct Consumer<'r> {
    ring: &'r Ring,
    head: u64,
    /// The tail when it was looked at last; the true one is not behind it.
    tail_seen: u64,
}

impl<'r> Consumer<'r> {
    /// Makes the only consumer of a fresh ring.
    pub fn new(ring: &'r Ring) -> Self {
        Self { ring, head: 0, tail_seen: 0 }
    }

    /// Returns the oldest entry and its number, and leaves it; `None` when the ring is empty.
    #[inline]
    pub fn front(&mut self) -> Option<(u64, u64)> {
        if self.head == self.tail_seen {
            // Acquire: pairs with the Release in `push`.
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // Relaxed: ordered by the tail.
        let entry = self.ring.entries[(self.head % CAPACITY) as usize].load(Ordering::Relaxed);
        Some((self.head, entry))
    }

    /// Returns the entry `ahead` behind the oldest, if it is known to be there.
    #[inline]
    pub fn peek(&self, ahead: u64) -> Option<u64> {
        if self.tail_seen - self.head <= ahead {
            return None;
        }
        // Relaxed: ordered by the tail.
        let index = (self.head + ahead) % CAPACITY;
        Some(self.ring.entries[index as usize].load(Ordering::Relaxed))
    }

    /// Removes the oldest entry, which [`Self::front`] has returned.
    #[inline]
    pub fn advance(&mut self) {
        self.head += 1;
        // Release: the entry, and what it named, are read; pairs with the Acquire in `push`.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Box<Ring> {
        // SAFETY: a ring consists of atomics, for which zero is a value.
        unsafe { Box::<Ring>::new_zeroed().assume_init() }
    }

    #[test]
    fn ring_full_refuses_until_the_oldest_is_done_with() {
        let ring = ring();
        let (mut producer, mut consumer) = (Producer::new(&ring), Consumer::new(&ring));
        assert!((0..CAPACITY).all(|n| producer.push(n)));
        assert!(!producer.push(7));
        assert_eq!(consumer.front(), Some((0, 0)));
        assert!(!producer.push(7));
        consumer.advance();
        assert!(producer.push(7));
    }

    #[test]
    fn ring_between_threads_delivers_every_entry_in_order() {
        const ENTRIES: u64 = 100_000;
        let ring = ring();
        std::thread::scope(|scope| {
            let ring = &*ring;
            scope.spawn(move || {
                let mut producer = Producer::new(ring);
                while producer.pushed() < ENTRIES {
                    if !producer.push(producer.pushed() * 3) {
                        std::thread::yield_now();
                    }
                }
                ring.close();
            });
            let mut consumer = Consumer::new(ring);
            let mut seen = 0;
            loop {
                let closed = ring.is_closed();
                match consumer.front() {
                    Some(entry) => {
                        assert_eq!(entry, (seen, seen * 3));
                        seen += 1;
                        consumer.advance();
                    }
                    None if closed => break,
                    None => std::thread::yield_now(),
                }
            }
            assert_eq!(seen, ENTRIES);
        });
    }
}
