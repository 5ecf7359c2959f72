//! Runs a task in a child process, so that a peer's crash is an outcome and not the end.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::client::Tally;
use crate::flat::Steady;
use crate::heap::Heap;
use crate::ipc::Ipc;
use crate::latency::Latency;
use crate::messages::Messages;
use crate::overhead::Fill;
use crate::pattern::CORRUPTED_PREFIX;
use crate::peers::{self, Peer};
use crate::throughput::Throughput;
use crate::trace::Trace;

/// The hidden subcommand that runs one task.
pub const SUBCOMMAND: &str = "child";
/// How often the parent looks whether the child has ended.
const POLL: Duration = Duration::from_millis(5);

/// Something to do with one heap of any peer.
pub trait Job {
    /// Does it on a heap of type `H`, whose shared-memory file is named by `id`.
    ///
    /// # Errors
    /// When the heap cannot be created.
    fn on<H: Heap>(&self, id: Uuid) -> Result<Reading>;
}

/// What was found: figures by their names, and what must not happen to us.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    /// Figures; each job says which.
    pub figures: BTreeMap<String, f64>,
    /// Broken invariants, refusals that must not be, corrupted blocks.
    pub faults: Vec<String>,
}

impl Reading {
    /// Starts a reading with what a tally says of refusals and corruption: figures
    /// `allocs_refused`, `frees_refused` and `corrupted`, and faults for those that are not 0.
    pub fn of_tally(tally: &Tally) -> Self {
        let mut reading = Self::default();
        let counts = [
            ("allocs_refused", tally.failed_allocs, "allocations refused"),
            ("frees_refused", tally.failed_frees, "frees refused"),
            ("corrupted", tally.corrupted, "blocks corrupted"),
        ];
        for (name, count, what) in counts {
            reading.set(name, count as f64);
            if count > 0 {
                reading.faults.push(format!("{count} {what}"));
            }
        }
        reading
    }

    /// Sets a figure.
    pub fn set(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }
}

/// What a child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Operations per second.
    Throughput(Throughput),
    /// Nanoseconds per call.
    Latency(Latency),
    /// A long trace on a nearly full segment.
    Trace(Trace),
    /// Blocks until no more go in.
    Fill(Fill),
    /// Nanoseconds per operation at a size.
    Steady(Steady),
    /// Blocks from process to process.
    Ipc(Ipc),
    /// Messages from posters to readers.
    Messages(Messages),
}

impl Task {
    /// Does it on `peer`, in this process.
    fn perform(&self, peer: Peer, id: Uuid) -> Result<Reading> {
        match self {
            Task::Throughput(job) => peer.serve(job, id),
            Task::Latency(job) => peer.serve(job, id),
            Task::Trace(job) => peer.serve(job, id),
            Task::Fill(job) => peer.serve(job, id),
            Task::Steady(job) => peer.serve(job, id),
            Task::Ipc(job) => job.on(peer, id),
            Task::Messages(job) => job.on(peer, id),
        }
    }

    /// Returns how long it may take before it counts as hung.
    fn limit(&self) -> Duration {
        Duration::from_secs_f64(match self {
            Task::Throughput(job) => job.warmup_s + job.seconds + 10.0,
            Task::Latency(job) => job.seconds + 20.0,
            Task::Trace(job) => job.limit_s(),
            Task::Fill(_) => 60.0,
            Task::Steady(job) => job.limit_s(),
            Task::Ipc(job) => job.limit_s(),
            Task::Messages(job) => job.limit_s(),
        })
    }
}

/// A task as the child gets it.
#[derive(Serialize, Deserialize)]
struct Order {
    peer: Peer,
    task: Task,
    id: Uuid,
}

/// How a task ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It finished.
    Ran(Reading),
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

/// Runs `task` on `peer` in a child process.
///
/// # Errors
/// When the child cannot be started; its own troubles are an [`Outcome`].
pub fn run(peer: Peer, task: &Task) -> Result<Outcome> {
    let start = Instant::now();
    let order = Order { peer, task: task.clone(), id: Uuid::new_v4() };
    let child = Command::new(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .arg(serde_json::to_string(&order)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the process for a task")?;
    let ended = watch(child, task.limit());
    // A crash leaves the segment's file behind.
    for file in peers::files_of(order.id) {
        let _ = std::fs::remove_file(file);
    }
    let ended = ended?;
    Ok(match ended.reading() {
        Ok(reading) => Outcome::Ran(reading),
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
    /// Returns the reading, or an error that says in a few words what happened instead.
    fn reading(&self) -> Result<Reading> {
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

/// The child's side: does the task and prints its reading as the last line.
///
/// # Errors
/// When the order cannot be read or the peer cannot be created.
pub fn serve(order: &str) -> Result<()> {
    // A peer that crashes by design must not fill the disk with core files.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let order: Order = serde_json::from_str(order).context("unreadable order")?;
    let reading = order.task.perform(order.peer, order.id)?;
    println!("{}", serde_json::to_string(&reading)?);
    Ok(())
}
