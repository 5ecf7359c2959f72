//! Random operations by four threads on one matrix. Blocks change hands through channels, by offset;
//! payloads are written by one thread and checked by whichever frees them. Each set of lists is played
//! twice: by a handle without thread caches, and by one with them.

mod common;
#[path = "../../am-ripple/tests/world/ops.rs"]
mod ops;

use am_matrix::{Block, Error, Matrix, Offset, Seen, State};
use common::{assert_whole, minimum, pattern, payload, with_and_without_caches};
use ops::Op;
use proptest::prelude::*;
use std::alloc::Layout;
use std::sync::mpsc::{Receiver, Sender, channel};

const THREADS: usize = 4;

/// A block on its way to another thread.
struct Parcel {
    offset: Offset,
    bytes: usize,
    stamp: u64,
}

struct Worker<'m> {
    matrix: &'m Matrix,
    number: u64,
    most: usize,
    stamps: u64,
    held: Vec<(Block<'m>, u64)>,
    inbox: Receiver<Parcel>,
    others: Vec<Sender<Parcel>>,
}

impl<'m> Worker<'m> {
    fn play(&mut self, op: &Op) {
        match *op {
            Op::Allocate { size, align_log, held } => {
                let bytes = size as usize % self.most;
                if held {
                    let layout = Layout::from_size_align(bytes, 1 << align_log).expect("a layout");
                    let got = self.matrix.allocate_aligned(layout);
                    self.keep(got.map(|block| vec![block]), bytes, 1 << align_log);
                } else {
                    self.post_raw(bytes, size as usize);
                }
            }
            Op::AllocateMany { count, size } => {
                let bytes = size as usize % self.most / (count + 1);
                self.keep(self.matrix.allocate_many(count, bytes), bytes, 1);
            }
            Op::Free { which } => {
                self.pick(which).into_iter().for_each(drop);
            }
            Op::FreeMany { count, .. } => {
                let from = self.held.len().saturating_sub(count);
                let blocks: Vec<_> = self.held.drain(from..).collect();
                blocks.iter().for_each(|(block, stamp)| pattern::verify(block, *stamp));
                self.matrix.free_many(blocks.into_iter().map(|(block, _)| block));
            }
            Op::Give { which } => {
                let Some((block, stamp)) = self.pick(which) else { return };
                let (bytes, offset) = (block.len(), block.into_offset());
                self.post(which, Parcel { offset, bytes, stamp });
            }
            Op::Take { .. } => self.take(),
            Op::AckRaw { .. } => {
                let Ok(parcel) = self.inbox.try_recv() else { return };
                let bytes = payload(self.matrix, parcel.offset, parcel.bytes);
                pattern::verify(bytes, parcel.stamp);
                assert_eq!(self.matrix.ack(parcel.offset), Ok(()));
            }
            Op::DoubleAck => self.try_to_free_what_is_held(),
            Op::ForgedAck { place } => self.forge(place),
            Op::Grow { which, size } => self.resize(which, size, true),
            Op::Shrink { which, size } => self.resize(which, size, false),
            Op::Repair => {
                // Others operate: what it says may be stale, but it must come to an end.
                let map = self.matrix.heap_map(60);
                assert_eq!(map.lines().count(), self.matrix.stats().sectors.len());
                let _ = self.matrix.check();
            }
        }
    }

    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.number << 32 | self.stamps
    }

    fn keep(&mut self, got: Result<Vec<Block<'m>>, Error>, bytes: usize, align: usize) {
        let blocks = got.unwrap_or_else(|error| {
            self.expect_refusal(error);
            Vec::new()
        });
        for mut block in blocks {
            assert_eq!(block.len(), bytes);
            assert!(block.as_ptr().addr().is_multiple_of(align.max(32)));
            assert!(block.usable_size() >= bytes);
            let stamp = self.stamp();
            pattern::fill(&mut block, stamp);
            self.held.push((block, stamp));
        }
    }

    fn expect_refusal(&self, error: Error) {
        match error {
            Error::Exhausted { .. } | Error::Contended { .. } | Error::TooLarge { .. } => {}
            error => panic!("thread {}: {error}", self.number),
        }
    }

    fn post_raw(&mut self, bytes: usize, to: usize) {
        match self.matrix.allocate_offset(bytes) {
            Ok(offset) => {
                let stamp = self.stamp();
                pattern::fill(payload(self.matrix, offset, bytes), stamp);
                self.post(to, Parcel { offset, bytes, stamp });
            }
            Err(error) => self.expect_refusal(error),
        }
    }

    fn post(&self, to: usize, parcel: Parcel) {
        self.others[to % THREADS].send(parcel).expect("the inboxes outlive the threads");
    }

    fn pick(&mut self, which: usize) -> Option<(Block<'m>, u64)> {
        let nth = which.checked_rem(self.held.len())?;
        let (block, stamp) = self.held.swap_remove(nth);
        pattern::verify(&block, stamp);
        Some((block, stamp))
    }

    fn take(&mut self) {
        let Ok(parcel) = self.inbox.try_recv() else { return };
        let block = self.matrix.from_offset(parcel.offset).expect("nobody else knows of it");
        assert_eq!(block.len(), parcel.bytes);
        pattern::verify(&block, parcel.stamp);
        let again = self.matrix.from_offset(parcel.offset).map(|block| block.len());
        assert!(matches!(again, Err(Error::NotAllocated { .. })), "{again:?}");
        self.held.push((block, parcel.stamp));
    }

    fn try_to_free_what_is_held(&self) {
        if let Some((block, _)) = self.held.last() {
            let offset = block.offset();
            let got = self.matrix.ack(offset);
            let held =
                matches!(got, Err(Error::NotAllocated { seen: Seen::Head(State::Held, _), .. }));
            assert!(held, "{got:?}");
        }
    }

    /// Acks places inside a payload of this thread's own.
    fn forge(&self, place: u32) {
        let Some((block, _)) = self.held.last() else { return };
        let units = (block.usable_size() / 32) as u32;
        if units > 1 {
            let offset = Offset::from_raw(block.offset().to_raw() + 1 + place % (units - 1));
            let got = self.matrix.ack(offset);
            let refused = matches!(
                got,
                Err(Error::NotAPayload { .. }
                    | Error::NotAllocated { seen: Seen::Interior | Seen::Tail(_), .. })
            );
            assert!(refused, "{got:?}");
        }
    }

    fn resize(&mut self, which: usize, size: u32, grow: bool) {
        let stamp = self.stamp();
        let Some((mut block, old)) = self.pick(which) else { return };
        let (before, bytes) = (block.len(), 1 + size as usize % self.most);
        let got = if grow { block.try_grow(bytes) } else { block.shrink(bytes) };
        match got {
            Ok(()) => {
                assert_eq!(block.len(), if grow { before.max(bytes) } else { before.min(bytes) })
            }
            Err(Error::NoRoom { .. }) if grow => assert_eq!(block.len(), before),
            Err(error) => panic!("{error}"),
        }
        pattern::verify(&block[..before.min(block.len())], old);
        pattern::fill(&mut block, stamp);
        self.held.push((block, stamp));
    }
}

fn play(size_bytes: u64, (small, medium): (u8, u8), lists: &[Vec<Op>; THREADS]) {
    for matrix in with_and_without_caches(size_bytes, small, medium) {
        play_on(&matrix, size_bytes, lists);
    }
}

/// Plays the lists at once, drains what is still on its way, and requires a whole matrix.
fn play_on(matrix: &Matrix, size_bytes: u64, lists: &[Vec<Op>; THREADS]) {
    let most = (size_bytes / 4).max(1000) as usize;
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
    let leftover: Vec<Receiver<Parcel>> = std::thread::scope(|scope| {
        let threads: Vec<_> = lists
            .iter()
            .zip(inboxes)
            .enumerate()
            .map(|(number, (list, inbox))| {
                let others = senders.clone();
                scope.spawn(move || {
                    let (number, held) = (number as u64, Vec::new());
                    let mut worker =
                        Worker { matrix, number, most, stamps: 0, held, inbox, others };
                    list.iter().for_each(|op| worker.play(op));
                    while worker.pick(0).is_some() {}
                    worker.inbox
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    for parcel in leftover.iter().flat_map(Receiver::try_iter) {
        let block = matrix.from_offset(parcel.offset).expect("on its way");
        pattern::verify(&block, parcel.stamp);
    }
    assert_whole(matrix);
    assert_eq!(matrix.stats().sectors.iter().map(|sector| sector.ripples_cut).sum::<u64>(), 0);
}

fn lists(len: usize, bits: u32) -> impl Strategy<Value = [Vec<Op>; THREADS]> {
    let list = || prop::collection::vec(ops::op(bits), len / 2..=len);
    [list(), list(), list(), list()]
}

proptest! {
    #![proptest_config(ops::config(40))]

    #[test]
    fn threads_on_the_smallest_matrix_leave_it_whole(
        split in prop::sample::select(&[(100, 0), (0, 0), (40, 30)][..]),
        more in 0u64..20_000,
        lists in lists(400, 12),
    ) {
        play(minimum(split.0, split.1) + more, split, &lists);
    }

    #[test]
    fn threads_on_a_matrix_of_a_megabyte_leave_it_whole(
        split in prop::sample::select(&[(100, 0), (0, 100), (0, 0), (40, 30)][..]),
        lists in lists(400, 16),
    ) {
        play(1 << 20, split, &lists);
    }
}
