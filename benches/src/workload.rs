//! The workloads of the throughput comparison: what every thread does, turn by turn.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::heap::Access;
use crate::peers::Peer;
use crate::random::{Lcg, Random};

/// Blocks that one thread keeps at most in the endurance workload.
pub const ENDURANCE_LIVE_MAX: usize = 200;
/// Sizes in the endurance workload, in bytes.
pub const ENDURANCE_SIZES: Range<usize> = 32..544;
/// Blocks in one batch.
const BATCH_BLOCKS: usize = 10_000;
/// Sizes in a batch: 32 ..= 4096 bytes.
const BATCH_SIZE_MIN: usize = 32;
const BATCH_SIZE_MAX: usize = 4096;
/// Blocks in one of larson's arrays.
const LARSON_BLOCKS: usize = 1_000;
/// Sizes in larson, in bytes.
const LARSON_SIZES: Range<usize> = 32..1025;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Up to 200 live blocks a thread, 32..544 bytes, 7 of 10 turns allocate
    Endurance,
    /// Allocate 64 bytes and free them at once
    Pair64,
    /// Allocate 10 000 blocks of 32..4096 bytes, free them in random order
    Batch,
    /// Replace random blocks of 32..1024 bytes in arrays that go from thread to thread
    Larson,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Workload; 4] =
        [Workload::Endurance, Workload::Pair64, Workload::Batch, Workload::Larson];

    /// Returns the name for files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Endurance => "endurance",
            Workload::Pair64 => "pair64",
            Workload::Batch => "batch",
            Workload::Larson => "larson",
        }
    }

    /// Says in a line what every thread does.
    pub fn title(self) -> &'static str {
        match self {
            Workload::Endurance => "endurance: up to 200 live blocks of 32–543 B a thread",
            Workload::Pair64 => "pair64: allocate 64 B, free them; one pair is two operations",
            Workload::Batch => {
                "batch: allocate 10 000 blocks of 32–4096 B, free them in random order"
            }
            Workload::Larson => {
                "larson: replace random blocks of 32–1024 B in arrays of 1000 that go from thread \
                 to thread"
            }
        }
    }

    /// Returns the segment or arena for every peer, in bytes.
    pub fn segment_bytes(self) -> usize {
        match self {
            Workload::Endurance | Workload::Pair64 | Workload::Larson => 50 << 20,
            // 16 threads hold 330 MB of payload between them; nothing shall fail.
            Workload::Batch => 1 << 30,
        }
    }

    /// Returns the largest request, in bytes.
    pub fn request_bytes_max(self) -> usize {
        match self {
            Workload::Endurance => ENDURANCE_SIZES.end - 1,
            Workload::Pair64 => 64,
            Workload::Batch => BATCH_SIZE_MAX,
            Workload::Larson => LARSON_SIZES.end - 1,
        }
    }

    /// Returns why `peer` cannot take part, if it cannot.
    pub fn excludes(self, peer: Peer) -> Option<&'static str> {
        (self != Workload::Pair64).then(|| peer.excluded_from_sizes())?
    }
}

/// A workload of one thread.
pub trait Load {
    /// Turns until the thread holds as many blocks as it ever will and has touched their memory.
    const WARM_UP_TURNS: usize;
    /// Whether threads pass on what they hold, every few turns.
    const ROTATES: bool = false;

    /// Starts the workload of thread number `thread`.
    fn new(thread: u32) -> Self;

    /// Does one turn: at most two operations.
    fn step<A: Access, const VERIFY: bool>(&mut self, client: &mut Client<A, VERIFY>);
}

/// The endurance workload.
pub struct Endurance(Lcg);

impl Load for Endurance {
    const WARM_UP_TURNS: usize = 10 * ENDURANCE_LIVE_MAX;

    fn new(thread: u32) -> Self {
        Self(Lcg::new(thread + 1))
    }

    #[inline(always)]
    fn step<A: Access, const VERIFY: bool>(&mut self, client: &mut Client<A, VERIFY>) {
        let rng = self.0.next();
        if rng % 10 < 7 && client.live.len() < ENDURANCE_LIVE_MAX {
            client.keep((rng % 512 + 32) as usize);
        } else if !client.live.is_empty() {
            client.drop_one(rng as usize % client.live.len());
        }
    }
}

/// Allocate 64 bytes, free them.
pub struct Pair64;

impl Load for Pair64 {
    const WARM_UP_TURNS: usize = 1_000;

    fn new(_thread: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn step<A: Access, const VERIFY: bool>(&mut self, client: &mut Client<A, VERIFY>) {
        if let Some(live) = client.allocate(64) {
            client.release(live);
        }
    }
}

/// Allocate 10 000 blocks, free them in random order.
pub struct Batch {
    random: Random,
    turn: usize,
}

impl Load for Batch {
    const WARM_UP_TURNS: usize = 2 * BATCH_BLOCKS;

    fn new(thread: u32) -> Self {
        Self { random: Random::new(u64::from(thread) + 1), turn: 0 }
    }

    #[inline(always)]
    fn step<A: Access, const VERIFY: bool>(&mut self, client: &mut Client<A, VERIFY>) {
        // Turns are counted, not blocks: a full heap must not keep the batch from its end.
        if self.turn < BATCH_BLOCKS {
            let span = BATCH_SIZE_MAX - BATCH_SIZE_MIN + 1;
            client.keep(BATCH_SIZE_MIN + self.random.below(span));
        } else if !client.live.is_empty() {
            client.drop_one(self.random.below(client.live.len()));
        }
        self.turn = if self.turn + 1 == 2 * BATCH_BLOCKS { 0 } else { self.turn + 1 };
    }
}

/// Replace random blocks of an array; arrays go from thread to thread.
pub struct Larson(Random);

impl Load for Larson {
    // The empty arrays that the first rotations bring are filled before counting begins.
    const WARM_UP_TURNS: usize = 2 * LARSON_BLOCKS;
    const ROTATES: bool = true;

    fn new(thread: u32) -> Self {
        Self(Random::new(u64::from(thread) + 1))
    }

    #[inline(always)]
    fn step<A: Access, const VERIFY: bool>(&mut self, client: &mut Client<A, VERIFY>) {
        if client.live.len() >= LARSON_BLOCKS {
            client.drop_one(self.0.below(client.live.len()));
        }
        client.keep(LARSON_SIZES.start + self.0.below(LARSON_SIZES.len()));
    }
}
