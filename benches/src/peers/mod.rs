//! The peers, one module each.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cell::{self, CellSpec, Sample};

mod arena;
pub mod boost;
pub mod mimalloc;
pub mod ours;
pub mod published;
pub mod rlsf;
pub mod slots;
pub mod system;
pub mod talc;

/// Which allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// AtomicMatrix through the calls of the 0.1 interface
    Ours,
    /// AtomicMatrix through `Matrix::allocate_offset` and `Matrix::ack`
    OursOffset,
    /// Boost.Interprocess managed_shared_memory
    Boost,
    /// rlsf's TLSF behind std's Mutex
    Rlsf,
    /// talc behind parking_lot's mutex
    Talc,
    /// mimalloc
    Mimalloc,
    /// The C library's malloc
    System,
    /// atomic-matrix 0.4.1 as published on the registry
    Published,
}

impl Peer {
    /// Every peer, in the order of the report.
    pub const ALL: [Peer; 8] = [
        Peer::Ours,
        Peer::OursOffset,
        Peer::Boost,
        Peer::Rlsf,
        Peer::Talc,
        Peer::Mimalloc,
        Peer::System,
        Peer::Published,
    ];

    /// Returns the name for the report's row.
    pub fn title(self) -> String {
        match self {
            Peer::Ours => "AtomicMatrix".into(),
            Peer::OursOffset => "AtomicMatrix, allocate_offset".into(),
            Peer::Boost => format!("Boost.Interprocess {}", boost::version()),
            Peer::Rlsf => "rlsf, std Mutex".into(),
            Peer::Talc => "talc, parking_lot".into(),
            Peer::Mimalloc => "mimalloc".into(),
            Peer::System => "system malloc".into(),
            Peer::Published => "atomic-matrix 0.4.1".into(),
        }
    }

    /// Tells whether the figures of this peer decide the verdict.
    pub fn is_ours(self) -> bool {
        matches!(self, Peer::Ours | Peer::OursOffset)
    }

    /// Tells whether the peer runs unless others are asked for.
    pub fn runs_by_default(self) -> bool {
        // The same allocator without the 0.1 interface's checks of base and header.
        self != Peer::OursOffset
    }

    /// Returns why this build cannot run the peer, if it cannot.
    pub fn skipped_because(self) -> Option<&'static str> {
        (self == Peer::Boost && !cfg!(have_boost)).then_some("Boost headers absent")
    }

    /// Runs one cell of the benchmark on this peer, in this process.
    ///
    /// # Errors
    /// When the peer cannot create its segment.
    pub fn run_cell(self, spec: &CellSpec) -> Result<Sample> {
        match self {
            Peer::Ours => cell::run::<ours::Ours>(spec),
            Peer::OursOffset => cell::run::<ours::OursOffset>(spec),
            #[cfg(have_boost)]
            Peer::Boost => cell::run::<boost::Boost>(spec),
            #[cfg(not(have_boost))]
            Peer::Boost => anyhow::bail!("Boost headers absent"),
            Peer::Rlsf => cell::run::<rlsf::Rlsf>(spec),
            Peer::Talc => cell::run::<talc::Talc>(spec),
            Peer::Mimalloc => cell::run::<mimalloc::Mimalloc>(spec),
            Peer::System => cell::run::<system::System>(spec),
            Peer::Published => cell::run::<published::Published>(spec),
        }
    }
}

/// Lists the shared-memory files that any peer may leave behind for `id` when it dies.
pub fn files_of(id: Uuid) -> [PathBuf; 2] {
    [format!("/dev/shm/{id}").into(), format!("/dev/shm/matrix-{id}").into()]
}
