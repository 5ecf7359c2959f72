//! Two processes, one block: the first allocates and writes, the second reads and frees. Only an
//! offset goes over the pipe; the message itself is never copied.
//!
//! `cargo run --example handover`

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Matrix, Offset};

const MESSAGE: &str = "Written by one process, read and freed by another.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [] => send(),
        [role, segment] if role == "receive" => return finish_receiver(receive(segment)),
        _ => Err(anyhow::anyhow!("unknown arguments {args:?}; there are none to give")),
    };
    match outcome {
        Ok(summary) => println!("verdict: ok {summary}"),
        Err(error) => {
            eprintln!("error: {error:#}");
            println!("verdict: FAILED error=1");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The first process: makes the segment, writes the message, gives the block away.
fn send() -> Result<String> {
    let segment = format!("handover-{}", uuid::Uuid::new_v4());
    let matrix = Matrix::builder().size(1 << 20).create(&segment)?;
    let outcome = write_and_hand_over(&matrix, &segment);
    // The file goes away whatever happened; the mappings live on until they are dropped.
    matrix.destroy()?;
    outcome
}

fn write_and_hand_over(matrix: &Matrix, segment: &str) -> Result<String> {
    let mut block = matrix.allocate(MESSAGE.len())?;
    block[..MESSAGE.len()].copy_from_slice(MESSAGE.as_bytes());
    // From here on nobody owns the block, until the receiver takes it by its offset.
    let offset = block.into_offset();

    let mut receiver = Command::new(std::env::current_exe()?)
        .args(["receive", segment])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the receiver")?;
    let mut pipe = receiver.stdin.take().context("the receiver has no stdin")?;
    writeln!(pipe, "{}", offset.to_raw())?;
    drop(pipe);

    let output = receiver.wait_with_output()?;
    ensure!(output.status.success(), "the receiver ended with {}", output.status);
    let heard = String::from_utf8(output.stdout)?;
    println!("offset {offset}: {heard}");
    ensure!(heard == MESSAGE, "the receiver read something else");

    let allocated: u64 = matrix.stats().sectors.iter().map(|s| s.allocated_blocks).sum();
    ensure!(allocated == 0, "{allocated} blocks were not freed");
    Ok(format!("offset={offset} bytes={} leaked={allocated}", heard.len()))
}

/// The second process: maps the same segment, takes the block, reads it; the drop frees it.
fn receive(segment: &str) -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let offset = Offset::from_raw(line.trim().parse().context("expected an offset")?);

    let matrix = Matrix::builder().open(segment)?;
    let block = matrix.from_offset(offset)?;
    std::io::stdout().write_all(&block)?; // as long as the sender's
    Ok(())
}

fn finish_receiver(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("receiver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
