//! The allocator alone, one thread, over segments of several sizes: what an operation costs must not
//! depend on how large the segment is.
//!
//! `cargo xtask bench criterion`, with a filter behind `--` if need be

use std::hint::black_box;

use atomic_matrix::{Block, Matrix, Offset};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

const SIZES_MIB: [u64; 3] = [16, 64, 512];
const PAIR_BYTES: usize = 64;
const BATCH_BLOCKS: usize = 1000;
/// The endurance workload frees a block rather than hold more than this many.
const LIVE_MAX: usize = 200;

/// The generator of the endurance workload.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        self.0
    }
}

/// A fresh segment without a file, so that nothing stays behind.
fn matrix(size_mib: u64) -> Matrix {
    Matrix::builder()
        .size(size_mib << 20)
        .split(40, 30)
        .memfd("bench-direct")
        .expect("cannot make a segment")
}

/// Runs `bench` once for each segment size, in a group of its own.
fn by_size(
    criterion: &mut Criterion,
    name: &str,
    elements: u64,
    mut bench: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, &Matrix),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(elements));
    for size_mib in SIZES_MIB {
        let matrix = matrix(size_mib);
        bench(&mut group, BenchmarkId::from_parameter(format!("{size_mib}MiB")), &matrix);
    }
    group.finish();
}

/// One block of 64 bytes, allocated and dropped.
fn pair_block(criterion: &mut Criterion) {
    by_size(criterion, "pair_64B_block", 1, |group, id, matrix| {
        group.bench_function(id, |bencher| {
            bencher.iter(|| drop(black_box(matrix.allocate(PAIR_BYTES).expect("room"))));
        });
    });
}

/// The same without a guard.
fn pair_offset(criterion: &mut Criterion) {
    by_size(criterion, "pair_64B_offset", 1, |group, id, matrix| {
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let offset = black_box(matrix.allocate_offset(PAIR_BYTES).expect("room"));
                matrix.ack(offset).expect("the block is ours");
            });
        });
    });
}

/// One step of the endurance workload: an allocation or a free, from a steady state.
fn endurance_step(criterion: &mut Criterion) {
    by_size(criterion, "endurance_step", 1, |group, id, matrix| {
        let mut rng = Lcg(1);
        let mut live: Vec<Offset> = Vec::with_capacity(LIVE_MAX);
        let mut step = || {
            let drawn = rng.next();
            if drawn % 10 < 7 && live.len() < LIVE_MAX {
                let bytes = (drawn % 512 + 32) as usize;
                live.push(matrix.allocate_offset(bytes).expect("room"));
            } else if !live.is_empty() {
                let offset = live.swap_remove(drawn as usize % live.len());
                matrix.ack(offset).expect("the block is ours");
            }
        };
        (0..100 * LIVE_MAX).for_each(|_| step());
        group.bench_function(id, |bencher| bencher.iter(&mut step));
    });
}

/// A thousand blocks of 16 B to 4 KiB, as many of each power of two, freed in a shuffled order.
fn batch_mixed(criterion: &mut Criterion) {
    let mut rng = Lcg(1);
    let mut sizes = Vec::with_capacity(BATCH_BLOCKS);
    for index in 0..BATCH_BLOCKS {
        let power = 16usize << (index % 8);
        // The generator's low bits have short periods: the high ones decide.
        sizes.push(power + (rng.next() >> 8) as usize % power);
    }
    shuffle(&mut sizes, &mut rng);
    let mut order: Vec<usize> = (0..BATCH_BLOCKS).collect();
    shuffle(&mut order, &mut rng);

    by_size(criterion, "batch_1000_mixed", BATCH_BLOCKS as u64, |group, id, matrix| {
        let mut blocks: Vec<Option<Block<'_>>> = Vec::with_capacity(BATCH_BLOCKS);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                blocks.extend(sizes.iter().map(|&size| matrix.allocate(size).ok()));
                assert!(blocks.iter().all(Option::is_some), "no room for the batch");
                order.iter().for_each(|&index| drop(blocks[index].take()));
                blocks.clear();
            });
        });
    });
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], rng: &mut Lcg) {
    for last in (1..items.len()).rev() {
        items.swap(last, (rng.next() >> 8) as usize % (last + 1));
    }
}

/// What handing a block over costs both sides: taken by its offset, and given away again.
fn hand_over(criterion: &mut Criterion) {
    by_size(criterion, "offset_round_trip", 1, |group, id, matrix| {
        let mut offset = matrix.allocate_offset(PAIR_BYTES).expect("room");
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let block = matrix.from_offset(black_box(offset)).expect("nobody else takes it");
                offset = block.into_offset();
            });
        });
        matrix.ack(offset).expect("the block is ours");
    });
}

criterion_group!(benches, pair_block, pair_offset, endurance_step, batch_mixed, hand_over);
criterion_main!(benches);
