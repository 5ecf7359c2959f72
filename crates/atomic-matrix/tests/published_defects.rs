//! One test per defect that was found in the published implementation. Each leads the allocator by
//! a deterministic way into the situation in which that one failed.

mod common;
#[path = "../../am-ripple/tests/world/mod.rs"]
mod world;

use am_layout::State;
use am_layout::guard::{FORMATTING, MAGIC, VERSION};
use am_ripple::{Lane, NoBlock, ack, allocate};
use atomic_matrix::matrix::core::{Mapping, MatrixHandler, RelativePtr};
use atomic_matrix::{Error, Matrix, SectorId};
use common::{
    MIB, Random, Scratch, assert_sound, assert_whole, header_of, pattern, payload, words,
};
use std::time::{Duration, Instant};
use world::{World, want};

/// A matrix, its base, and blocks by number. Without thread caches, unless told otherwise: it is the sectors
/// that the defects were in.
struct Bench {
    handler: MatrixHandler,
    _scratch: Scratch,
}

impl Bench {
    fn new(split: (u8, u8)) -> Self {
        let scratch = Scratch::new();
        Self { handler: scratch.bootstrap_direct(4 * MIB, split), _scratch: scratch }
    }

    fn cached(split: (u8, u8)) -> Self {
        let scratch = Scratch::new();
        Self { handler: scratch.bootstrap(4 * MIB, split), _scratch: scratch }
    }

    fn allocate(&self, bytes: usize) -> RelativePtr<u8> {
        self.try_allocate(bytes).expect("room")
    }

    fn try_allocate(&self, bytes: usize) -> Result<RelativePtr<u8>, Error> {
        self.handler.matrix.allocate(self.handler.mmap.as_ptr(), bytes)
    }

    /// Allocates and writes every byte.
    fn write(&self, bytes: usize, stamp: u64) -> RelativePtr<u8> {
        let ptr = self.allocate(bytes);
        pattern::fill(payload(&self.handler.mmap, ptr, bytes), stamp);
        ptr
    }

    #[track_caller]
    fn verify(&self, ptr: RelativePtr<u8>, bytes: usize, stamp: u64) {
        pattern::verify(payload(&self.handler.mmap, ptr, bytes), stamp);
    }

    #[track_caller]
    fn ack(&self, ptr: RelativePtr<u8>) {
        self.handler.matrix.ack(&header_of(ptr), self.handler.mmap.as_ptr()).expect("allocated");
    }

    fn matrix(&self) -> &Matrix {
        self.handler.matrix.as_matrix()
    }

    /// Allocates until nothing of this size is left.
    fn exhaust(&self, bytes: usize) -> Vec<RelativePtr<u8>> {
        std::iter::from_fn(|| self.try_allocate(bytes).ok()).collect()
    }
}

fn header_words(mapping: &Mapping, ptr: RelativePtr<u8>) -> Vec<u32> {
    words(mapping, ptr.offset() - 32..ptr.offset())
}

/// Defect: the header was not added to the size, so a payload ran over the next block's header.
#[test]
fn payload_written_to_its_last_byte_leaves_the_next_header_alone() {
    let bench = Bench::new((40, 30));
    for bytes in [32, 64, 96, 128, 4096, 256 - 32, 8192 - 32, 131_072, 135_168] {
        let (right, left) = (bench.write(bytes, 1), bench.allocate(bytes));
        assert!(left.offset() + bytes as u64 <= right.offset() - 32, "{bytes}");
        let header = header_words(&bench.handler.mmap, right);
        payload(&bench.handler.mmap, left, bytes).fill(0xff);
        assert_eq!(header_words(&bench.handler.mmap, right), header, "{bytes}");
        bench.verify(right, bytes, 1);
        bench.ack(right);
        bench.ack(left);
        assert_whole(bench.matrix());
    }
}

/// Defect: coalescing took the head of the neighbour's list instead of the neighbour, and lost it.
#[test]
fn ack_beside_a_free_block_keeps_the_other_free_blocks_of_its_class() {
    let bench = Bench::new((100, 0));
    let blocks: Vec<_> = (0..20).map(|i| bench.write(100, i)).collect();
    let rest = bench.exhaust(1000).into_iter().chain(bench.exhaust(1)).collect::<Vec<_>>();
    // A granule may be left that is too short for a header and a byte.
    let too_short = bench.matrix().stats().sectors[0].free_blocks;
    let freed = [2, 6, 10, 14, 18]; // alike, apart; the last one is the newest of its class
    freed.into_iter().for_each(|i| bench.ack(blocks[i]));
    bench.ack(blocks[7]); // merges with 6, which is neither the newest nor the oldest
    assert_eq!(bench.matrix().stats().sectors[0].free_blocks, too_short + 5);
    // Four of the old size are there yet, and the merged one, twice as long.
    let double = bench.allocate(100 + 160);
    let again: Vec<_> = (0..4).map(|_| bench.allocate(100)).collect();
    assert!(bench.try_allocate(100).is_err(), "more than was freed");
    for i in (0..20).filter(|i| *i != 7 && !freed.contains(i)) {
        bench.verify(blocks[i], 100, i as u64);
        bench.ack(blocks[i]);
    }
    again.into_iter().chain(rest).chain([double]).for_each(|ptr| bench.ack(ptr));
    assert_whole(bench.matrix());
}

/// Defect: ABA. A thread read the list's head A and its successor B, and slept; others took A and B
/// and gave A back; its exchange succeeded and made B, in use, the head.
#[test]
fn carve_by_a_hint_that_went_stale_and_true_again_gives_no_block_twice() {
    let world = World::new(64);
    let sector = world.sector();
    let (sleeper, other) = (Lane::new(), Lane::new());
    let taken: Vec<_> = (0..16).map(|_| world.must(4)).collect();
    let (a, b) = (taken[3], taken[7]);
    // The sleeper remembers both free places, A last.
    ack(&sector, &sleeper, b.head, State::Allocated).unwrap();
    ack(&sector, &sleeper, a.head, State::Allocated).unwrap();
    // Meanwhile another takes both, and gives A back: for the sleeper A looks as it did.
    let both = [(); 2].map(|()| allocate(&sector, &other, &want(4)).unwrap());
    assert!(both.contains(&a) && both.contains(&b));
    ack(&sector, &other, a.head, State::Allocated).unwrap();
    assert_eq!(allocate(&sector, &sleeper, &want(4)), Ok(a));
    // Its second memory, B, is in use: it is not handed out again.
    let none = allocate(&sector, &sleeper, &want(4));
    assert_eq!(none, Err(NoBlock::Exhausted { largest: 0 }));
    world.assert_sound(&taken);
}

/// Defect: the search did not round up, and handed out blocks shorter than asked.
#[test]
fn allocate_with_only_shorter_blocks_of_its_class_free_gets_none_of_them() {
    let bench = Bench::new((100, 0));
    // 16 and 17 granules are one class.
    let (short, long) = (16 * 32 - 32, 17 * 32 - 32);
    let blocks: Vec<_> = (0..40).map(|_| bench.allocate(short)).collect();
    let _rest = (bench.exhaust(1000), bench.exhaust(1));
    blocks.iter().step_by(2).for_each(|&ptr| bench.ack(ptr));
    let error = bench.try_allocate(long).unwrap_err();
    let exhausted = Error::Exhausted {
        sector: SectorId::Small,
        requested_bytes: long as u64,
        largest_free_bytes: short as u64,
    };
    assert_eq!(error, exhausted);
    // One that is long enough, among them: that one, and whole.
    bench.ack(blocks[1]); // between 0 and 2, which are free
    let ptr = bench.allocate(long);
    assert!(bench.matrix().usable_bytes(ptr.place().unwrap()).unwrap() >= long);
    assert_sound(bench.matrix());
}

/// Defect: after a split the right neighbour still named the old left block, and its ack merged
/// across the live block in between.
#[test]
fn ack_of_a_block_whose_left_neighbour_was_split_spares_the_live_block_between() {
    let bench = Bench::new((100, 0));
    let right = bench.write(500, 1); // its hint: the free block at the origin
    let between = bench.write(500, 2); // cut out of that free block
    bench.ack(right);
    assert_eq!(bench.matrix().stats().sectors[0].free_blocks, 2, "merged across a live block");
    bench.verify(between, 500, 2);
    // Whatever is allocated now leaves it alone.
    for ptr in bench.exhaust(100) {
        payload(&bench.handler.mmap, ptr, 100).fill(0xff);
    }
    bench.verify(between, 500, 2);
    bench.ack(between);
    assert_sound(bench.matrix());
}

/// Defect: an ack followed by a merge put a block into a list in which it was already, so that it
/// followed itself: an endless loop, or the same block for ever.
#[test]
fn ack_between_two_free_neighbours_leaves_every_granule_free_once() {
    let bench = Bench::new((100, 0));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let all = bench.exhaust(100);
        let (count, trio) = (all.len(), &all[100..103]);
        order.into_iter().for_each(|i| bench.ack(trio[i]));
        assert!(bench.matrix().stats().sectors[0].free_blocks <= 2, "{order:?} of {count}");
        let mut again = bench.exhaust(100);
        again.sort_unstable_by_key(RelativePtr::offset);
        let mut expected = trio.to_vec();
        expected.sort_unstable_by_key(RelativePtr::offset);
        assert_eq!(again, expected, "{order:?}");
        all.into_iter().for_each(|ptr| bench.ack(ptr));
        assert_whole(bench.matrix());
    }
}

/// Defect: clearing a bitmap bit after the last pop raced with a push; the pushed block was never
/// found again. Here every bit is lost, as if by such a race.
#[test]
fn free_block_whose_every_hint_was_lost_is_found_and_hinted_again() {
    let bench = Bench::new((40, 30));
    for sector in bench.matrix().geometry().sectors {
        let (from, count) = (sector.index_bytes as usize, sector.index_words as usize);
        // SAFETY: the index is only ever accessed as words.
        let index = unsafe { bench.handler.mmap.words(from, count) }.expect("inside the segment");
        index.iter().for_each(|word| word.store(0));
    }
    assert_eq!(bench.matrix().check().len(), 3, "the loss shows");
    // Another attachment, whose threads remember nothing either.
    let matrix = Matrix::builder().open(&bench._scratch.name()).unwrap();
    let matrix = matrix.with_thread_caches(false);
    for bytes in [100, 5000, 200_000] {
        let block = std::thread::scope(|scope| {
            scope.spawn(|| matrix.allocate(bytes).expect("a free block").into_offset()).join()
        });
        assert_sound_but_for_shorter(&matrix);
        matrix.ack(block.unwrap()).unwrap();
    }
    assert!(matrix.stats().sectors.iter().all(|sector| sector.slow_walks == 1));
    assert_whole(&matrix);
}

/// Nothing is wrong with the sectors that were searched.
#[track_caller]
fn assert_sound_but_for_shorter(matrix: &Matrix) {
    for violation in matrix.check() {
        let lost = matches!(violation, atomic_matrix::Violation::Unreachable { .. });
        assert!(lost, "{violation}");
    }
}

/// Defect: the last block of a sector and the first of the next one merged.
#[test]
fn ack_at_the_border_of_two_sectors_merges_in_its_own_only() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let bench = Bench::new((40, 30));
        let sizes = bench.matrix().geometry().sectors.map(|sector| sector.size_bytes());
        // Each sector full to its borders.
        let blocks = [(0, 4096), (1, 100_000), (2, 200_000)].map(|(sector, bytes)| {
            let mut all = bench.exhaust(bytes);
            let low = [1, 5000, 140_000][sector];
            all.extend(bench.exhaust(low));
            all
        });
        for sector in order {
            blocks[sector].iter().for_each(|&ptr| bench.ack(ptr));
            let stats = &bench.matrix().stats().sectors[sector];
            assert_eq!((stats.free_blocks, stats.free_bytes), (1, sizes[sector]), "{order:?}");
            assert_sound(bench.matrix());
        }
        assert_whole(bench.matrix());
    }
}

/// Defect: requests of all sizes went to the first sector.
#[test]
fn request_of_each_size_goes_to_the_sector_for_it() {
    let bench = Bench::new((40, 30));
    for (bytes, sector) in [(1, 0), (4096, 0), (4097, 1), (131_072, 1), (131_073, 2)] {
        let ptr = bench.allocate(bytes);
        assert_eq!(bench.matrix().geometry().sector_of(ptr.offset()), Some(sector), "{bytes}");
    }
    let small = bench.exhaust(1000);
    assert!(matches!(
        bench.try_allocate(1000),
        Err(Error::Exhausted { sector: SectorId::Small, .. })
    ));
    bench.allocate(5000);
    bench.allocate(140_000);
    assert!(!small.is_empty());
}

/// Defect: when the formatter died half-way, everybody else waited for it for ever.
#[test]
fn bootstrap_after_a_formatter_died_half_way_begins_anew() {
    let scratch = Scratch::new();
    // What such a death leaves: a guard that says FORMATTING, nobody's lock, and half a segment.
    let guard = [FORMATTING, MAGIC, VERSION, 0].map(u32::to_ne_bytes).concat();
    let garbage = vec![0xee; MIB];
    std::fs::write(scratch.path(), [guard, garbage].concat()).unwrap();
    let start = Instant::now();
    let handler = scratch.bootstrap(4 * MIB, (40, 30));
    assert!(start.elapsed() < Duration::from_secs(5), "it waited for the dead");
    assert!(handler.matrix.as_matrix().formatted_here());
    assert_eq!(words(&handler.mmap, 12..16), [1], "takeovers");
    assert_whole(handler.matrix.as_matrix());
}

/// Defect (0.4.1): an exact fit zeroed the header of the live block beside it.
#[test]
fn exact_fit_leaves_the_headers_of_its_live_neighbours_alone() {
    let bench = Bench::new((40, 30));
    // Lengths that are the shortest of their class: such blocks are taken anew before others.
    for bytes in [32, 96, 224, 4064, 8160, 147_424] {
        let [right, middle, left] = [1, 2, 3].map(|stamp| bench.write(bytes, stamp));
        let headers = [left, right].map(|ptr| header_words(&bench.handler.mmap, ptr));
        bench.ack(middle);
        assert_eq!(bench.write(bytes, 4), middle, "no exact fit: {bytes}");
        assert_eq!([left, right].map(|ptr| header_words(&bench.handler.mmap, ptr)), headers);
        for (ptr, stamp) in [(right, 1), (middle, 4), (left, 3)] {
            bench.verify(ptr, bytes, stamp);
            bench.ack(ptr);
        }
        assert_whole(bench.matrix());
    }
}

/// Defect: 92 to 97 % of the allocations overlapped a live block. The published test never wrote to
/// a payload, so it passed.
#[test]
fn payloads_of_all_live_blocks_stay_whole_through_random_work() {
    work_at_random(&Bench::new((40, 30)));
    work_at_random(&Bench::cached((40, 30)));
}

fn work_at_random(bench: &Bench) {
    let mut random = Random(7);
    let mut live: Vec<(RelativePtr<u8>, usize, u64)> = Vec::new();
    for stamp in 0..20_000 {
        if random.below(16) < 9 || live.is_empty() {
            let bits = 3 + random.below(15);
            let bytes = random.below(1 << bits);
            if bench.try_allocate(bytes).map(|ptr| live.push((ptr, bytes, stamp))).is_ok() {
                pattern::fill(payload(&bench.handler.mmap, live[live.len() - 1].0, bytes), stamp);
            }
        } else {
            let (ptr, bytes, stamp) = live.swap_remove(random.below(live.len()));
            bench.verify(ptr, bytes, stamp);
            bench.ack(ptr);
        }
    }
    assert!(live.len() > 50, "too few to overlap");
    live.sort_unstable_by_key(|(ptr, ..)| ptr.offset());
    for two in live.windows(2) {
        assert!(two[0].0.offset() + two[0].1 as u64 <= two[1].0.offset() - 32, "{two:?}");
    }
    for (ptr, bytes, stamp) in live {
        bench.verify(ptr, bytes, stamp);
        bench.ack(ptr);
    }
    assert_whole(bench.matrix());
}
