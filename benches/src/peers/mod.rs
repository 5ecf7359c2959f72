//! The peers, one module each.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::child::{Job, Reading};
use crate::messages;

pub mod arena;
pub mod boost;
#[cfg(have_dpdk)]
mod dpdk;
#[cfg(feature = "jemalloc")]
mod jemalloc;
mod mimalloc;
mod ours;
mod pool;
mod published;
mod rlsf;
mod slots;
#[cfg(feature = "snmalloc")]
mod snmalloc;
mod system;
mod talc;

/// Which allocator, or carrier of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// AtomicMatrix through guards: `Matrix::allocate`, freed by the guard
    Ours,
    /// AtomicMatrix through raw offsets: `Matrix::allocate_offset` and `Matrix::ack`
    OursOffset,
    /// AtomicMatrix through raw offsets that one thread at a time knows: `Matrix::ack_unshared`
    OursUnshared,
    /// AtomicMatrix through a `ThreadCache` that each thread holds
    OursCache,
    /// A `Pool` of AtomicMatrix: blocks of one size
    OursPool,
    /// The same through a `PoolCache` that each thread holds
    OursPoolCache,
    /// Boost.Interprocess managed_shared_memory
    Boost,
    /// rlsf's TLSF behind std's Mutex
    Rlsf,
    /// The same with as many lists as rlsf can have: least waste, where space is measured
    RlsfFine,
    /// talc behind parking_lot's mutex
    Talc,
    /// mimalloc
    Mimalloc,
    /// jemalloc
    Jemalloc,
    /// snmalloc
    Snmalloc,
    /// The C library's malloc
    System,
    /// DPDK's mempool: blocks of one size
    Dpdk,
    /// atomic-matrix 0.4.1 as published on the registry
    Published,
    /// No allocator: the loop alone, over slots of one size
    Slots,
    /// AtomicMatrix, messages posted and read in batches of 64
    OursBatched,
    /// iceoryx2, publish and subscribe
    Iceoryx,
    /// Boost.Interprocess message_queue
    BoostQueue,
    /// A pair of Unix domain sockets of the type SOCK_SEQPACKET
    Socket,
    /// A pipe
    Pipe,
    /// The crate `disruptor`, between threads
    Disruptor,
    /// The same, published in batches of 64
    DisruptorBatched,
    /// crossbeam's ArrayQueue, between threads
    ArrayQueue,
    /// crossbeam's bounded channel, between threads
    Channel,
    /// rtrb, between threads
    Rtrb,
}

impl Peer {
    /// Every peer that is compared in general, in the order of the report.
    pub const ALL: [Peer; 16] = [
        Peer::Ours,
        Peer::OursOffset,
        Peer::OursUnshared,
        Peer::OursCache,
        Peer::OursPool,
        Peer::OursPoolCache,
        Peer::Boost,
        Peer::Rlsf,
        Peer::Talc,
        Peer::Mimalloc,
        Peer::Jemalloc,
        Peer::Snmalloc,
        Peer::System,
        Peer::Dpdk,
        Peer::Published,
        Peer::Slots,
    ];

    /// Every peer that carries messages, in the order of the report.
    pub const MESSAGES: [Peer; 11] = [
        Peer::Ours,
        Peer::OursBatched,
        Peer::Iceoryx,
        Peer::BoostQueue,
        Peer::Socket,
        Peer::Pipe,
        Peer::Disruptor,
        Peer::DisruptorBatched,
        Peer::ArrayQueue,
        Peer::Channel,
        Peer::Rtrb,
    ];

    /// Returns the name for the report's row.
    pub fn title(self) -> String {
        match self {
            Peer::Ours => "AtomicMatrix, guards".into(),
            Peer::OursOffset => "AtomicMatrix, raw offsets".into(),
            Peer::OursUnshared => "AtomicMatrix, raw offsets, unshared".into(),
            Peer::OursCache => "AtomicMatrix, ThreadCache".into(),
            Peer::OursPool => "AtomicMatrix, Pool".into(),
            Peer::OursPoolCache => "AtomicMatrix, PoolCache".into(),
            Peer::Boost => format!("Boost.Interprocess {}", boost::version()),
            Peer::Rlsf => "rlsf in a mutex".into(),
            Peer::RlsfFine => "rlsf in a mutex, finest".into(),
            Peer::Talc => "talc in a lock".into(),
            Peer::Mimalloc => "mimalloc".into(),
            Peer::Jemalloc => "jemalloc".into(),
            Peer::Snmalloc => "snmalloc".into(),
            Peer::System => "system malloc".into(),
            Peer::Dpdk => "DPDK mempool".into(),
            Peer::Published => "atomic-matrix 0.4.1".into(),
            Peer::Slots => "slots, no allocator".into(),
            Peer::OursBatched => "AtomicMatrix, batched".into(),
            Peer::Iceoryx => "iceoryx2".into(),
            Peer::BoostQueue => "Boost message_queue".into(),
            Peer::Socket => "Unix socket".into(),
            Peer::Pipe => "pipe".into(),
            Peer::Disruptor => "disruptor (threads)".into(),
            Peer::DisruptorBatched => "disruptor, batched (threads)".into(),
            Peer::ArrayQueue => "ArrayQueue (threads)".into(),
            Peer::Channel => "crossbeam channel (threads)".into(),
            Peer::Rtrb => "rtrb (threads)".into(),
        }
    }

    /// Tells whether the figures of this peer decide the verdict.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Peer::Ours
                | Peer::OursOffset
                | Peer::OursUnshared
                | Peer::OursCache
                | Peer::OursPool
                | Peer::OursPoolCache
                | Peer::OursBatched
        )
    }

    /// Returns why this build cannot run the peer, if it cannot.
    pub fn skipped_because(self) -> Option<&'static str> {
        match self {
            Peer::Boost | Peer::BoostQueue if !cfg!(have_boost) => Some("Boost headers absent"),
            Peer::Dpdk if !cfg!(have_dpdk) => Some("DPDK absent"),
            Peer::Jemalloc if !cfg!(feature = "jemalloc") => Some("built without jemalloc"),
            Peer::Snmalloc if !cfg!(feature = "snmalloc") => Some("built without snmalloc"),
            _ => None,
        }
    }

    /// Returns why the peer cannot take part where sizes differ, if it cannot.
    pub fn excluded_from_sizes(self) -> Option<&'static str> {
        matches!(self, Peer::Dpdk | Peer::OursPool | Peer::OursPoolCache)
            .then_some("blocks of one size only")
    }

    /// Runs `job` on a heap of this peer, in this process.
    ///
    /// # Errors
    /// When the peer is not in this build, or the job's own.
    pub fn serve(self, job: &impl Job, id: Uuid) -> Result<Reading> {
        match self {
            Peer::Ours => job.on::<ours::Guards>(id),
            Peer::OursOffset => job.on::<ours::Offsets<false>>(id),
            Peer::OursUnshared => job.on::<ours::Offsets<true>>(id),
            Peer::OursCache => job.on::<ours::Caches>(id),
            Peer::OursPool => job.on::<pool::Pooled>(id),
            Peer::OursPoolCache => job.on::<pool::Magazines>(id),
            #[cfg(have_boost)]
            Peer::Boost => job.on::<boost::Boost>(id),
            Peer::Rlsf => job.on::<rlsf::Usual>(id),
            Peer::RlsfFine => job.on::<rlsf::Finest>(id),
            Peer::Talc => job.on::<talc::Talc>(id),
            Peer::Mimalloc => job.on::<mimalloc::Mimalloc>(id),
            #[cfg(feature = "jemalloc")]
            Peer::Jemalloc => job.on::<jemalloc::Jemalloc>(id),
            #[cfg(feature = "snmalloc")]
            Peer::Snmalloc => job.on::<snmalloc::Snmalloc>(id),
            Peer::System => job.on::<system::System>(id),
            #[cfg(have_dpdk)]
            Peer::Dpdk => job.on::<dpdk::Dpdk>(id),
            Peer::Published => job.on::<published::Published>(id),
            Peer::Slots => job.on::<slots::Slots>(id),
            #[allow(unreachable_patterns)] // in a build that has them all
            absent => bail!("{}: {}", absent.title(), absent.skipped_because().unwrap_or("absent")),
        }
    }
}

/// Lists the shared-memory files that any peer may leave behind for `id` when it dies.
pub fn files_of(id: Uuid) -> Vec<PathBuf> {
    let mut files = messages::files_of(id);
    files.extend([format!("/dev/shm/{id}").into(), format!("/dev/shm/matrix-{id}").into()]);
    files
}
