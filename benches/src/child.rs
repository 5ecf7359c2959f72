//! Runs a cell in a child process, so that a peer's crash is an outcome and not the end.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cell::{CellSpec, Sample};
use crate::pattern::CORRUPTED_PREFIX;
use crate::peers;

/// The hidden subcommand that runs one cell.
pub const SUBCOMMAND: &str = "cell";
/// How much longer than asked a cell may take before it counts as hung.
const GRACE: Duration = Duration::from_secs(10);
/// How often the parent looks whether the child has ended.
const POLL: Duration = Duration::from_millis(5);

/// How a cell ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It finished.
    Ran(Sample),
    /// It did not: a signal, a panic, an error, a hang.
    Died {
        /// What happened.
        how: String,
        /// Seconds after its start.
        after_s: f64,
        /// Corrupted blocks it had announced by then; a lower bound.
        corrupted: u64,
    },
}

/// Runs `spec` in a child process.
///
/// # Errors
/// When the child cannot be started; its own troubles are an [`Outcome`].
pub fn run(spec: &CellSpec) -> Result<Outcome> {
    let start = Instant::now();
    let child = Command::new(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .arg(serde_json::to_string(spec)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the process for a cell")?;
    let limit = Duration::from_secs_f64(spec.warmup_s + spec.seconds) + GRACE;
    let ended = watch(child, limit);
    // A crash leaves the segment's file behind.
    for file in peers::files_of(spec.id) {
        let _ = std::fs::remove_file(file);
    }
    let ended = ended?;
    Ok(match ended.sample() {
        Ok(sample) => Outcome::Ran(sample),
        Err(error) => Outcome::Died {
            how: error.to_string(),
            after_s: start.elapsed().as_secs_f64(),
            corrupted: ended.corrupted(),
        },
    })
}

/// What is left of a child; no status when it was hung.
struct Ended {
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

/// Waits for the child to end, at most `limit`; then kills it.
fn watch(mut child: Child, limit: Duration) -> Result<Ended> {
    let stdout = child.stdout.take().context("the child has no standard output")?;
    let stderr = child.stderr.take().context("the child has no standard error")?;
    let (stdout, stderr) = (thread::spawn(|| read(stdout)), thread::spawn(|| read(stderr)));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let text = |reader: thread::JoinHandle<String>| {
        reader.join().map_err(|_| anyhow!("reading the child's output panicked"))
    };
    Ok(Ended { status, stdout: text(stdout)?, stderr: text(stderr)? })
}

fn read(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error still counts.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Ended {
    /// Returns the sample, or an error that says in a few words what happened instead.
    fn sample(&self) -> Result<Sample> {
        let status = self.status.ok_or_else(|| anyhow!("hung, killed"))?;
        if let Some(number) = status.signal() {
            let name = Signal::try_from(number).map(Signal::as_str);
            return Err(anyhow!("{}", name.unwrap_or("an unknown signal")));
        }
        if !status.success() {
            return Err(anyhow!("{}", self.complaint(status)));
        }
        let last = self.stdout.lines().next_back().context("no result")?;
        serde_json::from_str(last).context("unreadable result")
    }

    /// Returns the first line of what the child complained of; of a panic, the line after the place.
    fn complaint(&self, status: ExitStatus) -> String {
        let mut lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("no message");
        if first.contains(" panicked at ") {
            return format!("panicked: {}", lines.next().unwrap_or("no message"));
        }
        format!("{status}: {first}")
    }

    fn corrupted(&self) -> u64 {
        let counts = self.stdout.lines().filter_map(|line| line.strip_prefix(CORRUPTED_PREFIX));
        counts.filter_map(|count| count.parse().ok()).max().unwrap_or(0)
    }
}

/// The child's side: runs the cell and prints its sample as the last line.
///
/// # Errors
/// When the specification cannot be read or the peer cannot be created.
pub fn serve(spec: &str) -> Result<()> {
    // A peer that crashes by design must not fill the disk with core files.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let spec: CellSpec = serde_json::from_str(spec).context("unreadable cell specification")?;
    let sample = spec.peer.run_cell(&spec)?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
