//! Counts the read-modify-writes on shared words that an operation takes, on one thread.
//!
//! `cargo xtask bench rmw` builds this with `--cfg am_count`. Exact and repeatable, unlike times.

#[cfg(not(am_count))]
fn main() {
    eprintln!("build with RUSTFLAGS=\"--cfg am_count\", or run `cargo xtask bench rmw`");
    println!("verdict: FAILED not a counting build");
    std::process::exit(1);
}

#[cfg(am_count)]
fn main() -> Result<(), am_matrix::Error> {
    use am_matrix::{Arena, Matrix, plan};

    let size = 64 << 20;
    let matrix = Matrix::format(Arena::heap(size), &plan(size as u64, 40, 30)?)?;
    println!("| workload | operation | read-modify-writes |\n|---|---|---|");
    let mut worst: f64 = 0.0;
    let workloads: [(&str, fn(&Matrix) -> Result<Counted, am_matrix::Error>); 3] =
        [("endurance", endurance), ("64 B pairs", pairs), ("1000 mixed, random order", batch)];
    for (name, run) in workloads {
        run(&matrix)?; // warm: hints set, heap in its steady state
        let counted = run(&matrix)?;
        for (operation, (count, rmw)) in [("allocate", counted.allocate), ("ack", counted.ack)] {
            let each = rmw as f64 / count as f64;
            println!("| {name} | {operation} | {each:.2} |");
            worst = worst.max(each);
        }
    }
    let sound = matrix.check().is_empty();
    println!("verdict: {} worst={worst:.2}", if sound { "ok" } else { "FAILED" });
    std::process::exit(i32::from(!sound));
}

/// Operations, and read-modify-writes in all of them.
#[cfg(am_count)]
#[derive(Default)]
struct Counted {
    allocate: (u64, u64),
    ack: (u64, u64),
}

#[cfg(am_count)]
impl Counted {
    fn allocate(
        &mut self,
        matrix: &am_matrix::Matrix,
        bytes: u32,
    ) -> Result<am_matrix::Offset, am_matrix::Error> {
        let before = rmw();
        let offset = matrix.allocate_offset(bytes as usize)?;
        self.allocate.0 += 1;
        self.allocate.1 += rmw() - before;
        Ok(offset)
    }

    fn ack(
        &mut self,
        matrix: &am_matrix::Matrix,
        offset: am_matrix::Offset,
    ) -> Result<(), am_matrix::Error> {
        let before = rmw();
        matrix.ack(offset)?;
        self.ack.0 += 1;
        self.ack.1 += rmw() - before;
        Ok(())
    }
}

#[cfg(am_count)]
fn rmw() -> u64 {
    am_layout::RMW_COUNT.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(am_count)]
fn next(rng: &mut u32) -> u32 {
    *rng = rng.wrapping_mul(1_103_515_245).wrapping_add(12345);
    *rng
}

#[cfg(am_count)]
fn endurance(matrix: &am_matrix::Matrix) -> Result<Counted, am_matrix::Error> {
    let (mut counted, mut live, mut rng) = (Counted::default(), Vec::new(), 1);
    for _ in 0..1_000_000 {
        let rng = next(&mut rng);
        if rng % 10 < 7 && live.len() < 200 {
            live.push(counted.allocate(matrix, rng % 512 + 32)?);
        } else if !live.is_empty() {
            let offset = live.swap_remove(rng as usize % live.len());
            counted.ack(matrix, offset)?;
        }
    }
    live.into_iter().try_for_each(|offset| matrix.ack(offset))?;
    Ok(counted)
}

#[cfg(am_count)]
fn pairs(matrix: &am_matrix::Matrix) -> Result<Counted, am_matrix::Error> {
    let mut counted = Counted::default();
    for _ in 0..100_000 {
        let offset = counted.allocate(matrix, 64)?;
        counted.ack(matrix, offset)?;
    }
    Ok(counted)
}

#[cfg(am_count)]
fn batch(matrix: &am_matrix::Matrix) -> Result<Counted, am_matrix::Error> {
    let (mut counted, mut rng) = (Counted::default(), 7);
    for _ in 0..100 {
        let mut live = Vec::new();
        for _ in 0..1000 {
            live.push(counted.allocate(matrix, (next(&mut rng) >> 8) % 4065 + 32)?);
        }
        while !live.is_empty() {
            let offset = live.swap_remove((next(&mut rng) >> 8) as usize % live.len());
            counted.ack(matrix, offset)?;
        }
    }
    Ok(counted)
}
