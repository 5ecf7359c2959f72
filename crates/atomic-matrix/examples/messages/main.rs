//! Messages from process to process, every one of them checked.
//!
//! Half of the processes post, the others read; every reader sees every message. With `--verify` each
//! message's payload carries its poster, its number and words that depend on both, and readers check all of
//! it: none lost, none twice, none out of its poster's order, none changed.
//!
//! ```sh
//! cargo run --release --example messages -- --count 10000000 --processes 2 --verify
//! ```

use anyhow::{Context, Result, bail, ensure};
use atomic_matrix::{Matrix, Message, Start, WaitStrategy};
use clap::Parser;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

#[derive(Parser, Clone)]
struct Args {
    /// Messages in all
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Processes beside this one: half of them post, the others read
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=32))]
    processes: u64,
    /// Bytes of a message's payload, at least 16
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    bytes: u64,
    /// Check every byte of every message
    #[arg(long)]
    verify: bool,
    /// Size of the segment in MiB
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
    /// What a child process is to do: `post N` or `read`; for the program itself
    #[arg(long, hide = true)]
    role: Option<String>,
    /// The matrix's name; for the program itself
    #[arg(long, hide = true, default_value = "")]
    name: String,
}

/// The head of every payload.
#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Head {
    poster: u64,
    number: u64,
}

const HEAD_WORDS: usize = size_of::<Head>() / 8;

/// Word `index` of a payload.
fn word(poster: u64, number: u64, index: usize) -> u64 {
    (number ^ poster << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64)
}

impl Args {
    fn posters(&self) -> u64 {
        self.processes / 2
    }

    fn words(&self) -> usize {
        self.bytes as usize / 8
    }

    /// Messages of one poster.
    fn share(&self, poster: u64) -> u64 {
        let posters = self.posters();
        self.count / posters + u64::from(poster < self.count % posters)
    }

    fn start(&self, role: &str, name: &str) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([format!("--count={}", self.count), format!("--processes={}", self.processes)])
            .args([format!("--bytes={}", self.bytes), format!("--size-mib={}", self.size_mib)])
            .args([format!("--role={role}"), format!("--name={name}")])
            .args(self.verify.then_some("--verify"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().context("cannot start a process")
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    match args.role.as_deref() {
        None => lead(&args),
        Some("read") => read(&args).map(|()| ExitCode::SUCCESS),
        Some(role) => {
            let poster = role.strip_prefix("post ").context("no such role")?.parse()?;
            post(&args, poster).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Starts the others, sums up what they saw, judges.
fn lead(args: &Args) -> Result<ExitCode> {
    let name = format!("messages-{}", std::process::id());
    let matrix = Matrix::builder().size(args.size_mib << 20).create(&name)?;
    matrix.topic::<[u64]>("all").create()?;
    let result = run(args, &name);
    matrix.destroy()?;
    let report = result?;
    let violations = matrix.check().len();
    let ok = report.lost == 0 && report.duplicated == 0 && report.changed == 0 && violations == 0;
    let seconds = report.seconds;
    println!("{:.2} million messages a second", args.count as f64 / seconds / 1e6);
    println!(
        "verdict: {} count={} processes={} bytes={} seconds={seconds:.1} lost={} duplicated={} changed={} \
         violations={violations}",
        if ok { "ok" } else { "FAILED" },
        args.count,
        args.processes,
        args.bytes,
        report.lost,
        report.duplicated,
        report.changed,
    );
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Report {
    lost: u64,
    duplicated: u64,
    changed: u64,
    seconds: f64,
}

fn run(args: &Args, name: &str) -> Result<Report> {
    let readers = args.processes - args.posters();
    let roles = (0..readers).map(|_| "read".to_owned());
    let roles = roles.chain((0..args.posters()).map(|poster| format!("post {poster}")));
    let mut children: Vec<Child> =
        roles.map(|role| args.start(&role, name)).collect::<Result<_>>()?;
    let mut outputs = Vec::new();
    // Everybody is there before anybody posts: readers begin with what is posted after they joined.
    for child in &mut children {
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line.trim() == "ready", "a process did not start: {line:?}");
        outputs.push(output);
    }
    let begun = Instant::now();
    for child in &mut children {
        // Told to go on by what ends its input.
        drop(child.stdin.take());
    }
    let mut report = Report::default();
    for (child, mut output) in children.iter_mut().zip(outputs) {
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(child.wait()?.success(), "a process failed");
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        for sum in [&mut report.lost, &mut report.duplicated, &mut report.changed] {
            *sum += numbers.next().context("a process said too little")??;
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Says that this process is ready, and waits for the others.
fn meet() -> Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn post(args: &Args, poster: u64) -> Result<()> {
    let matrix = Matrix::builder().open(&args.name)?;
    let topic = matrix.topic::<[u64]>("all").open()?;
    let tx = topic.poster()?;
    meet()?;
    let mut words = vec![0; args.words()];
    for number in 0..args.share(poster) {
        if args.verify {
            let fill = words.iter_mut().enumerate().skip(HEAD_WORDS);
            fill.for_each(|(index, place)| *place = word(poster, number, index));
        }
        (words[0], words[1]) = (poster, number);
        tx.post(&words[..])?;
    }
    println!("0 0 0");
    Ok(())
}

fn read(args: &Args) -> Result<()> {
    let matrix = Matrix::builder().open(&args.name)?;
    let topic = matrix.topic::<[u64]>("all").open()?;
    let mut rx = topic.reader().start(Start::Latest).wait(WaitStrategy::YIELD).open()?;
    meet()?;
    let mut next = vec![0; args.posters() as usize];
    let (mut duplicated, mut skipped, mut changed, mut seen) = (0, 0, 0, 0);
    while seen + rx.missed() + skipped < args.count + duplicated {
        let message = rx.read();
        seen += 1;
        let words = message.view()?;
        let [poster, number, rest @ ..] = words else {
            bail!("a message of {} words", words.len())
        };
        let Some(expected) = next.get_mut(*poster as usize) else {
            changed += 1;
            continue;
        };
        if number < expected {
            duplicated += 1;
            continue;
        }
        skipped += number - *expected;
        *expected = number + 1;
        if args.verify {
            let right = rest.iter().zip(HEAD_WORDS..);
            let wrong = right.filter(|&(&seen, index)| seen != word(*poster, *number, index));
            changed += u64::from(wrong.count() > 0 || words.len() != args.words());
        }
    }
    println!("{} {duplicated} {changed}", rx.missed() + skipped);
    Ok(())
}
