//! `ipc`: blocks that one process fills and another checks and frees.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::campaign::{Cell, Common};
use crate::child::{Reading, Task};
use crate::ipc::carrier::{BLOCK_BYTES_MAX, Carrier, Taken};
use crate::ipc::ring::{Consumer, Producer, Ring};
use crate::peers::Peer;
use crate::random::Random;
use crate::run::{self, Verdict};
use crate::sheet::{Chart, NONE, Seen, Sheet};
use crate::stats::figure;

pub use carrier::{fill, is_intact, map_shared};

mod carrier;
mod ring;

/// The smallest block, in bytes.
const BLOCK_BYTES_MIN: usize = 64;
/// Bits of an entry that hold the size; the name has the rest.
const SIZE_BITS: u32 = 16;
/// Looks at the other side before the processor is yielded to it.
const SPINS: u32 = 200;
/// Yields between two looks whether the consumer lives.
const YIELDS_PER_LOOK: u32 = 1024;
/// Blocks between two looks at the time.
const BLOCKS_PER_LOOK: u32 = 64;

/// One producer and one consumer, each a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ipc {
    warmup_s: f64,
    seconds: f64,
}

impl Ipc {
    /// Returns how long it may take, in seconds.
    pub fn limit_s(&self) -> f64 {
        self.warmup_s + self.seconds + 10.0
    }

    /// Figures: `mblocks` (millions of blocks per second, checked and freed), `give_refused`,
    /// `take_refused`, `corrupted`.
    ///
    /// # Errors
    /// When the memory or the consumer cannot be made, or the consumer dies.
    pub fn on(&self, peer: Peer, id: Uuid) -> Result<Reading> {
        match peer {
            Peer::Ours => self.run::<carrier::Guards>(id),
            Peer::OursOffset => self.run::<carrier::Offsets>(id),
            #[cfg(have_boost)]
            Peer::Boost => self.run::<carrier::Boost>(id),
            Peer::Rlsf => self.run::<carrier::Rlsf>(id),
            Peer::Slots => self.run::<carrier::Slots>(id),
            other => bail!("{} does not work between processes", other.title()),
        }
    }

    fn run<C: Carrier>(&self, id: Uuid) -> Result<Reading> {
        let ring = carrier::map_ring()?;
        let carrier = C::create(id)?;
        // SAFETY: this process has no threads yet.
        let consumer = match unsafe { fork() }? {
            ForkResult::Child => {
                let ok = consume(carrier, id, ring);
                // No destructors: what is the producer's stays the producer's.
                process::exit(i32::from(ok.inspect_err(|e| eprintln!("consumer: {e:#}")).is_err()))
            }
            ForkResult::Parent { child } => child,
        };
        let sent = self.produce(&carrier, ring, consumer)?;
        ring.close();
        let status = waitpid(consumer, None)?;
        ensure!(status == WaitStatus::Exited(consumer, 0), "the consumer ended with {status:?}");

        let mut reading = Reading::default();
        reading.set("mblocks", sent.blocks as f64 / sent.elapsed_s / 1e6);
        let [corrupted, not_taken] = ring.counts();
        let counts = [
            ("give_refused", sent.refused, "allocations refused"),
            ("take_refused", not_taken, "blocks could not be taken or freed"),
            ("corrupted", corrupted, "blocks corrupted"),
        ];
        for (name, count, what) in counts {
            reading.set(name, count as f64);
            if count > 0 {
                reading.faults.push(format!("{count} {what}"));
            }
        }
        reading.faults.extend(sent.first_refusal.map(|why| format!("refused: {why}")));
        reading.faults.extend(carrier.audit());
        Ok(reading)
    }

    /// The producer.
    fn produce<C: Carrier>(&self, carrier: &C, ring: &Ring, pid: Pid) -> Result<Sent> {
        let mut waiting = Waiting::for_consumer(pid);
        while !ring.is_ready() {
            waiting.once_more()?;
        }
        let (mut producer, mut random) = (Producer::new(ring), Random::new(1));
        let mut sent = Sent::default();
        for limit_s in [self.warmup_s, self.seconds] {
            let (start, before) = (Instant::now(), ring.done());
            while start.elapsed() < Duration::from_secs_f64(limit_s) {
                for _ in 0..BLOCKS_PER_LOOK {
                    let span = BLOCK_BYTES_MAX - BLOCK_BYTES_MIN + 1;
                    let bytes = BLOCK_BYTES_MIN + random.below(span);
                    let name = match carrier.give(producer.pushed(), bytes) {
                        Ok(name) => name,
                        Err(error) => {
                            sent.refused += 1;
                            sent.first_refusal.get_or_insert(format!("{error:#}"));
                            waiting.once_more()?;
                            continue;
                        }
                    };
                    while !producer.push(name << SIZE_BITS | bytes as u64) {
                        waiting.once_more()?;
                    }
                    waiting.is_over();
                }
            }
            (sent.blocks, sent.elapsed_s) = (ring.done() - before, start.elapsed().as_secs_f64());
        }
        Ok(sent)
    }
}

/// Measuring rounds, and seconds of counting in each: many short ones.
const ROUNDS: u32 = 40;
const SECONDS: f64 = 0.05;
/// Seconds of warm-up.
const WARM_UP_SECONDS: f64 = 0.03;

/// How far ahead of the block at hand the consumer tells the peer of another.
const AHEAD: u64 = 2;

/// What a producer has to say.
#[derive(Debug, Default)]
struct Sent {
    /// Blocks that were consumed while it counted, and the seconds.
    blocks: u64,
    elapsed_s: f64,
    /// Allocations that were refused, and why the first.
    refused: u64,
    first_refusal: Option<String>,
}

/// The consumer's process: checks and frees until the ring is closed and empty.
fn consume<C: Carrier>(carrier: C, id: Uuid, ring: &Ring) -> Result<()> {
    // A killed producer must not leave it behind, waiting.
    set_pdeathsig(Signal::SIGKILL)?;
    let carrier = carrier.open(id)?;
    let mut consumer = Consumer::new(ring);
    ring.ready();
    let mut spins = 0;
    loop {
        // Before the look: what was pushed before the close is seen by the look after it.
        let closed = ring.is_closed();
        let Some((number, entry)) = consumer.front() else {
            if closed {
                // Gives back what the peer keeps for this process.
                drop(carrier);
                return Ok(());
            }
            pause(&mut spins);
            continue;
        };
        spins = 0;
        let bytes = (entry & ((1 << SIZE_BITS) - 1)) as usize;
        if let Some(entry) = consumer.peek(AHEAD) {
            carrier.expect(entry >> SIZE_BITS);
        }
        match carrier.take(entry >> SIZE_BITS, number, bytes) {
            Taken::Intact => {}
            Taken::Corrupted => ring.count_corrupted(),
            Taken::Refused => ring.count_refused(),
        }
        consumer.advance();
    }
}

/// Waits a little, the more the longer it has lasted.
pub fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
}

/// A producer that waits for its consumer, and wants to know when that is dead.
struct Waiting {
    consumer: Pid,
    spins: u32,
}

impl Waiting {
    fn for_consumer(consumer: Pid) -> Self {
        Self { consumer, spins: 0 }
    }

    fn is_over(&mut self) {
        self.spins = 0;
    }

    fn once_more(&mut self) -> Result<()> {
        pause(&mut self.spins);
        if self.spins.is_multiple_of(YIELDS_PER_LOOK) {
            let status = waitpid(self.consumer, Some(WaitPidFlag::WNOHANG))?;
            ensure!(status == WaitStatus::StillAlive, "the consumer died: {status:?}");
        }
        Ok(())
    }
}

/// Returns why `peer` does not take part, if it does not.
fn excludes(peer: Peer) -> Option<&'static str> {
    match peer {
        Peer::Ours | Peer::OursOffset | Peer::Boost | Peer::Rlsf | Peer::Slots => None,
        Peer::OursUnshared => Some("the raw offsets are taken unshared already"),
        Peer::OursCache => Some("the guards stand for it"),
        Peer::RlsfFine => Some("the usual one stands for it"),
        Peer::Talc => Some("its lock is not process-shared"),
        Peer::Dpdk | Peer::OursPool | Peer::OursPoolCache => Some("blocks of one size only"),
        Peer::Published => Some("crashes between threads already"),
        Peer::Mimalloc | Peer::Jemalloc | Peer::Snmalloc | Peer::System => Some("a private heap"),
        _ => Some("carries messages, and is no allocator"),
    }
}

/// Measures the peers.
///
/// # Errors
/// As [`run::run`].
pub fn run(common: &Common) -> Result<Verdict> {
    let common = &common.or(ROUNDS, SECONDS);
    let warmup_s = if common.quick { 0.01 } else { WARM_UP_SECONDS };
    let task = Task::Ipc(Ipc { warmup_s, seconds: common.seconds() });
    let taking_part =
        common.chosen(&Peer::ALL).into_iter().filter(|peer| excludes(*peer).is_none());
    let cells = taking_part.map(|peer| Cell::new("2 processes", peer, task.clone())).collect();
    let title =
        "Between processes: one allocates blocks of 64–1024 B and writes all of them; the other \
                 checks all of them and frees; offsets go through a ring of 1024 entries"
            .to_owned();
    let mut notes = vec![
        "The two processes map the memory anew, but for rlsf, whose lists are made of addresses: it \
         lies in memory that was mapped before the fork, under a process-shared mutex. `slots`: the \
         same with slots of one size, reused in turn. Every consumer knows the block two ahead of \
         the one at hand, and has the lines fetched that it will read first: header and payload."
            .to_owned(),
        format!(
            "Rounds are many and short ({} of {} s): on virtual machines the two processors share a \
             core at times and at times not, which moves every figure several times over. Within a \
             round the peers follow each other closely, so such a change mostly hits all of a round \
             or none; `ours ÷ peer` is taken per round, and its median is what to read. The figures \
             themselves are a mixture.",
            common.rounds(),
            common.seconds()
        ),
    ];
    notes.extend(common.left_out(excludes));
    run::run("ipc", common, cells, notes, |seen| vec![sheet(title, seen)])
}

fn sheet(title: String, seen: &[Seen<'_>]) -> Sheet {
    let text = |seen: &Seen<'_>, name: &str| {
        seen.spread(name).map_or_else(|| NONE.to_owned(), |spread| figure(spread.max))
    };
    let names = ["give_refused", "take_refused", "corrupted"];
    let row =
        |seen: &Seen<'_>| seen.row("mblocks", names.iter().map(|name| text(seen, name)).collect());
    Sheet {
        title,
        axis: "between".to_owned(),
        unit: "M blocks/s".to_owned(),
        more_is_better: true,
        chart: Chart::Ratios,
        columns: ["allocs refused", "takes refused", "corrupted"].map(String::from).into(),
        rows: seen.iter().map(row).collect(),
    }
}
