//! `messages`: from posters to readers, and there and back.

use anyhow::{Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process;
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Reading, Task};
use crate::peers::Peer;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, NONE, Row, Seen, Sheet};
use crate::stats::figure;
use media::disruptor::Disruptor;
use media::queues::{Array, Channel, Queues, Rtrb};
use medium::{ENDS_MAX, Medium, Plan, Wrong};

mod control;
mod media;
mod medium;
mod round_trip;
mod throughput;

/// What ours is called here.
const OURS_LABEL: &str = "AtomicMatrix, one by one";
/// Lengths of messages, in bytes.
const SMALL: usize = 64;
const MIDDLE: usize = 1 << 10;
const LARGE: usize = 64 << 10;
/// Messages on their way at most, about: fewer where they are large.
const DEPTH: usize = 960;
const DEPTH_LARGE: usize = 64;
/// What a pipe takes from several writers without mixing them, in bytes.
const PIPE_ATOMIC_BYTES: usize = 4096;
/// Measuring rounds, and seconds of counting in each: many short ones.
const ROUNDS: u32 = 40;
const SECONDS: f64 = 0.05;
/// Seconds of warm-up, in which all places are used once, and of counting in verifying runs.
const WARM_UP_SECONDS: f64 = 0.03;
const VERIFY_SECONDS: f64 = 0.1;

/// Messages over one medium.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Messages {
    posters: usize,
    readers: usize,
    bytes: usize,
    /// Whether payloads are written and checked.
    touched: bool,
    /// Whether every message is answered before the next; there are two, then.
    round_trip: bool,
    warmup_s: f64,
    seconds: f64,
}

impl Messages {
    /// Returns how long it may take, in seconds.
    pub fn limit_s(&self) -> f64 {
        self.warmup_s + self.seconds + 20.0
    }

    /// Figures: `mmessages`, or `p50` … `max` and `clock`; `corrupted`, whatever was wrong.
    ///
    /// # Errors
    /// When the medium cannot be made, or somebody who takes part dies.
    pub fn on(&self, peer: Peer, id: Uuid) -> Result<Reading> {
        match peer {
            Peer::Ours => self.between_processes::<media::ours::Ours>(id),
            Peer::Iceoryx => self.between_processes::<media::iceoryx::Iceoryx>(id),
            #[cfg(have_boost)]
            Peer::BoostQueue => self.between_processes::<media::boost::BoostQueues>(id),
            Peer::Socket => self.between_processes::<media::kernel::Sockets>(id),
            Peer::Pipe => self.between_processes::<media::kernel::Pipes>(id),
            other => match self.bytes {
                SMALL => self.of_bytes::<SMALL>(other, id),
                MIDDLE => self.of_bytes::<MIDDLE>(other, id),
                LARGE => self.of_bytes::<LARGE>(other, id),
                bytes => bail!("no queue for messages of {bytes} bytes"),
            },
        }
    }

    /// The peers whose messages' length is part of a type.
    fn of_bytes<const BYTES: usize>(&self, peer: Peer, id: Uuid) -> Result<Reading> {
        match peer {
            Peer::OursBatched => self.between_processes::<media::ours::OursBatched<BYTES>>(id),
            Peer::Disruptor => self.between_threads::<Disruptor<BYTES, false>>(id),
            Peer::DisruptorBatched => self.between_threads::<Disruptor<BYTES, true>>(id),
            Peer::ArrayQueue => self.between_threads::<Queues<Array, BYTES>>(id),
            Peer::Channel => self.between_threads::<Queues<Channel, BYTES>>(id),
            Peer::Rtrb => self.between_threads::<Queues<Rtrb, BYTES>>(id),
            other => bail!("{} carries no messages", other.title()),
        }
    }

    fn between_processes<M: Medium>(&self, id: Uuid) -> Result<Reading> {
        if self.round_trip {
            return round_trip::between_processes::<M>(self, id);
        }
        throughput::between_processes::<M>(self, id)
    }

    fn between_threads<M: Medium>(&self, id: Uuid) -> Result<Reading>
    where
        M::Poster: Send,
        M::Reader: Send,
    {
        if self.round_trip {
            return round_trip::between_threads::<M>(self, id);
        }
        throughput::between_threads::<M>(self, id)
    }

    fn plan(&self, id: Uuid) -> Plan {
        let depth = if self.bytes < LARGE { DEPTH } else { DEPTH_LARGE };
        Plan { id, posters: self.posters, readers: self.readers, bytes: self.bytes, depth }
    }

    /// Returns why `peer` does not take part, if it does not.
    fn excludes(&self, peer: Peer) -> Option<&'static str> {
        let in_place =
            matches!(peer, Peer::Ours | Peer::Iceoryx | Peer::Disruptor | Peer::DisruptorBatched);
        match peer {
            _ if !self.touched && !in_place => Some("copies every payload"),
            Peer::OursBatched | Peer::DisruptorBatched if self.round_trip => {
                Some("one message at a time")
            }
            Peer::ArrayQueue | Peer::Channel | Peer::Rtrb if self.bytes >= LARGE => {
                Some("moves messages by value")
            }
            Peer::Rtrb if self.posters > 1 => Some("one poster only"),
            Peer::Pipe if self.posters > 1 && self.bytes > PIPE_ATOMIC_BYTES => {
                Some("mixes long messages of several writers")
            }
            _ => None,
        }
    }

    /// Returns the name of its place in the tables.
    fn place(&self) -> String {
        let bytes = match self.bytes {
            bytes if bytes < 1 << 10 => format!("{bytes} B"),
            bytes => format!("{} KiB", bytes >> 10),
        };
        let untouched = if self.touched { "" } else { ", untouched" };
        let arrow = if self.round_trip { "↔" } else { "→" };
        format!("{}{arrow}{}, {bytes}{untouched}", self.posters, self.readers)
    }
}

/// Returns the id of what answers come through, where messages go through that of `id`.
fn back_of(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ 1)
}

/// Returns the name of Boost's queue of a reader.
fn queue_name(id: Uuid, reader: usize) -> String {
    format!("queue-{id}-{reader}")
}

/// Lists the shared-memory files that a peer may leave behind when it dies, beside those that lie under
/// `id` itself. (iceoryx2 removes what its dead have left when it is used next.)
pub fn files_of(id: Uuid) -> Vec<PathBuf> {
    let queues = [id, back_of(id)]
        .into_iter()
        .flat_map(|id| (0..ENDS_MAX).map(move |reader| queue_name(id, reader)));
    let names = queues.chain([back_of(id).to_string()]);
    names.map(|name| PathBuf::from(format!("/dev/shm/{name}"))).collect()
}

/// Forks a process that does `play` with `ends` and ends; returns it, and `ends` for this one.
///
/// # Errors
/// The system's refusal.
fn fork_to<T>(ends: T, play: impl FnOnce(T) -> Result<()>) -> Result<(Pid, T)> {
    // SAFETY: this process has no threads yet.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, ends)),
        ForkResult::Child => {
            // A killed parent must not leave it behind, waiting.
            let result = set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
            let result = result.and_then(|()| play(ends));
            // No destructors but those of what was used here.
            process::exit(i32::from(result.inspect_err(|e| eprintln!("{e:#}")).is_err()))
        }
    }
}

/// Adds what was wrong: the figure `corrupted`, and the faults.
fn judge(reading: &mut Reading, wrong: Wrong) {
    let counts = [
        (wrong.lost, "messages lost"),
        (wrong.repeated, "messages repeated or late"),
        (wrong.corrupted, "messages corrupted"),
    ];
    reading.set("corrupted", counts.iter().map(|&(count, _)| count as f64).sum());
    let faults = counts.iter().filter(|&&(count, _)| count > 0);
    reading.faults.extend(faults.map(|(count, what)| format!("{count} {what}")));
}

/// Measures the peers.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common) -> Result<Verdict> {
    let common = &common.or(ROUNDS, SECONDS);
    let jobs = jobs(common);
    let mut cells = Vec::new();
    for job in &jobs {
        // Where payloads stay untouched most peers have no place: no rows for them.
        let has_row = |peer: &Peer| job.touched || job.excludes(*peer).is_none();
        let peers = common.chosen(&Peer::MESSAGES).into_iter();
        cells.extend(peers.filter(has_row).map(|peer| cell(common, job, peer)));
    }
    run::run("messages", common, cells, notes(common), |seen| {
        vec![throughput_sheet(seen), round_trip_sheet(seen)]
    })
}

/// What is measured, in the order of the report.
fn jobs(common: &Common) -> Vec<Messages> {
    let job = |posters, readers, bytes, touched| Messages {
        posters,
        readers,
        bytes,
        touched,
        round_trip: false,
        warmup_s: WARM_UP_SECONDS,
        seconds: common.seconds(),
    };
    let sizes = [SMALL, MIDDLE, LARGE];
    let ends = [(1, 1), (2, 1), (1, 2)];
    let mut jobs: Vec<Messages> = ends
        .iter()
        .flat_map(|&(posters, readers)| sizes.map(|bytes| job(posters, readers, bytes, true)))
        .collect();
    jobs.extend(sizes.map(|bytes| job(1, 1, bytes, false)));
    jobs.push(Messages { round_trip: true, ..job(1, 1, SMALL, true) });
    jobs
}

fn cell(common: &Common, job: &Messages, peer: Peer) -> Cell {
    let mut cell = Cell::new(job.place(), peer, Task::Messages(job.clone()));
    let seconds = if common.quick { common.seconds() } else { VERIFY_SECONDS };
    let verify = Messages { touched: true, warmup_s: 0.0, seconds, ..job.clone() };
    cell.verify = Some(Task::Messages(verify));
    if peer == Peer::Ours {
        cell.label = OURS_LABEL.to_owned();
    }
    if let Some(reason) = job.excludes(peer) {
        cell.task = Err(reason.to_owned());
    }
    cell
}

fn notes(common: &Common) -> Vec<String> {
    vec![
        "Every poster and every reader is a process, forked before there are threads, which opens the \
         medium anew; `disruptor`, ArrayQueue, the channel and rtrb work between threads of one process, \
         and mark the ceiling. Payloads are written whole, with poster, number and words that depend \
         on them, and checked whole; `untouched`: they are neither written nor looked at, only their \
         length is. Every reader sees every message: where a peer has no such thing, each reader has a \
         queue of its own, to all of which posters send."
            .to_owned(),
        format!(
            "About {DEPTH} messages may be on their way ({DEPTH_LARGE} of 64 KiB); none is lost, posters \
             wait. Who waits spins, then yields, but at pipe and socket in the kernel. AtomicMatrix and \
             iceoryx2 lend a payload for every message, and copy nothing. Posters send one by one, and \
             readers take one by one, but for `disruptor`'s, which take all that is there; `batched`: 64 \
             by 64, which in AtomicMatrix are copied once."
        ),
        format!(
            "Rounds are many and short ({} of {} s): see *ipc*. With more processes than cores (2→1, \
             1→2) the figures are the scheduler's as much as the peers'.",
            common.rounds(),
            common.seconds()
        ),
    ]
}

fn throughput_sheet(seen: &[Seen<'_>]) -> Sheet {
    let measured = seen.iter().filter(|seen| !is_round_trip(seen));
    Sheet {
        title: "Messages from posters to readers; a figure is what a reader gets".to_owned(),
        axis: "posters→readers".to_owned(),
        unit: "M messages/s".to_owned(),
        more_is_better: true,
        chart: Chart::Ratios,
        columns: vec!["verified".to_owned()],
        rows: measured.map(|seen| row(seen, "mmessages")).collect(),
    }
}

fn round_trip_sheet(seen: &[Seen<'_>]) -> Sheet {
    let measured: Vec<&Seen<'_>> = seen.iter().filter(|seen| is_round_trip(seen)).collect();
    let clock = measured.iter().find_map(|seen| seen.spread("clock")).map(|clock| clock.median);
    let clock = clock.map_or_else(|| NONE.to_owned(), figure);
    let row = |name: &str, seen: &Seen<'_>| Row { group: name.to_owned(), ..row(seen, name) };
    Sheet {
        title: format!(
            "Round trip of 64 B: to another process and back, each message checked; the two time \
             stamps alone: {clock} ns"
        ),
        axis: "quantile".to_owned(),
        unit: "ns".to_owned(),
        more_is_better: false,
        chart: Chart::Ratios,
        columns: vec!["verified".to_owned()],
        rows: round_trip::QUANTILES
            .iter()
            .flat_map(|(name, _)| measured.iter().map(|seen| row(name, seen)))
            .collect(),
    }
}

/// Tells whether it is a row of the second table.
fn is_round_trip(seen: &Seen<'_>) -> bool {
    let task = seen.cell.verify.as_ref();
    matches!(task, Some(Task::Messages(messages)) if messages.round_trip)
}

/// Returns the row of a figure; without figures where what came was not what had been sent.
fn row(seen: &Seen<'_>, name: &str) -> Row {
    let verified = seen.verified();
    let mut row = seen.row(name, vec![verified.clone()]);
    if row.remark.is_none() && !matches!(verified.as_str(), "ok" | NONE) {
        row.remark = Some("fails verification".to_owned());
    }
    row
}
