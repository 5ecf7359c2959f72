//! The accounts: what was measured, what is left, and the verdict.

use atomic_matrix::Matrix;

use crate::Cli;
use crate::worker::Counts;

/// How the free memory lies.
#[derive(Debug, Default)]
pub struct Fragments {
    /// Free blocks, over all sectors.
    fragments: u64,
    /// Per sector: the percentage of the free bytes that lie outside the largest free block.
    fragmentation: Vec<f64>,
    /// Bytes that are not free.
    taken_bytes: u64,
}

impl Fragments {
    /// Looks at every sector.
    pub fn of(matrix: &Matrix) -> Self {
        let sectors = matrix.stats().sectors;
        let share = |largest: u64, free: u64| 100.0 * (1.0 - largest as f64 / free.max(1) as f64);
        Self {
            fragments: sectors.iter().map(|s| s.free_blocks).sum(),
            fragmentation: sectors
                .iter()
                .map(|s| share(s.largest_free_bytes, s.free_bytes))
                .collect(),
            taken_bytes: sectors.iter().map(|s| s.size_bytes.abs_diff(s.free_bytes)).sum(),
        }
    }
}

/// Prints what was measured and the verdict; returns whether it is ok.
pub fn judge(cli: &Cli, matrix: &Matrix, counts: Counts, live: &Fragments, dead: usize) -> bool {
    let freed = Fragments::of(matrix);
    let violations = matrix.check();
    let Counts { operations, failed, corrupted, seconds } = counts;
    let per_sector = |f: &Fragments| {
        let percents = f.fragmentation.iter().map(|percent| format!("{percent:.2}"));
        percents.collect::<Vec<_>>().join(" / ")
    };
    println!(
        "segment      {} MiB; processes {}, threads in each {}",
        cli.size_mib, cli.processes, cli.threads
    );
    println!("operations   {operations} in {seconds:.2} s; {failed} calls failed");
    println!("throughput   {:.2} Mop/s", operations as f64 / 1e6 / seconds.max(1e-9));
    println!(
        "while live   {} free fragments, fragmentation {} %",
        live.fragments,
        per_sector(live)
    );
    println!(
        "all freed    {} free fragments, fragmentation {} %",
        freed.fragments,
        per_sector(&freed)
    );
    println!("check        {} violations", violations.len());
    for violation in violations.iter().take(20) {
        println!("  {violation:?}");
    }

    let lost = freed.taken_bytes;
    let whole = freed.fragments == freed.fragmentation.len() as u64;
    let sound = corrupted == 0 && lost == 0 && failed == 0 && whole;
    let ok = sound && violations.is_empty() && dead == 0 && operations > 0;
    let word = if ok { "ok" } else { "FAILED" };
    print!(
        "verdict: {word} corrupted={corrupted} lost={lost} failed={failed} fragments={}",
        freed.fragments
    );
    if !ok {
        print!(" violations={} dead={dead} operations={operations}", violations.len());
    }
    println!();
    ok
}
