//! Deliberate defects, so that the proofs can be proven.
//!
//! Each names one step or ordering that a model guards. Only a model build (`--cfg loom`) can turn
//! one on; elsewhere [`is`] is the constant `false` and the defect is not compiled.

/// A step left out, or an ordering weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // each is explained where it strikes
pub enum Mutation {
    None = 0,
    AckWithoutCas,
    AbsorbWithoutAdjacency,
    CarveWithoutCas,
    CarveForgetsLeftHint,
    CarveForgetsIndex,
    ClaimGivesUp,
    ClearForgetsToLook,
    ClearWithoutBarrier,
    HealForgetsToMerge,
    HeadLeftBehind,
    PublishForgetsLeft,
    PublishForgetsRight,
    PublishForgetsIndex,
    PublishWithoutBarrier,
    AbsorbForgetsRight,
    SetForgetsParent,
    EmptyIsExhausted,
    CarveWithoutRelease,
    GiveWithoutRelease,
    ReturnForgetsWalkers,
    WalkForgetsLoss,
    CarveForgetsIntent,
    AckForgetsIntent,
    ClaimForgetsIntent,
    DoneForgetsSuspect,
    RecoverForgetsFirstLook,
    RecoverForgetsSecondLook,
    RecoverForgetsTouched,
    CutForgetsFirst,
    FlushForgetsIntent,
    FlushForgetsHeads,
    FlushWithoutRelease,
    UnparkWithoutRelease,
    RecoverForgetsCached,
    UnsharedMarksLate,
    ClaimForgetsRecord,
    ClaimForgetsJoins,
    JoinForgetsToTell,
    PostWithoutRelease,
    HoldWithoutBarrier,
    DepotForgetsTag,
    DepotWithoutRelease,
    DepotWithoutAcquire,
    UnsharedWithoutRelease,
    RecoverAsksLate,
    NameForgetsSecondLook,
    MarkWithoutBarrier,
    RecordFromTheRight,
    CursorWithoutRelease,
    LetGoWithoutRelease,
    ClaimForgetsToWait,
    ListBeforeForgetting,
    OrphanForgetsSecondLook,
    RecoverWithoutBarrier,
    RecoverForgetsHolds,
    RecoverForgetsOrphans,
    OvertakenFindsNoRoom,
    ListWithoutRelease,
    ProofForgetsLook,
    ProofForgetsReturns,
    ProofForgetsMoves,
    ProofForgetsLoose,
    CarveForgetsMove,
    ClearForgetsIntent,
    ClearForgetsMove,
    HealForgetsMove,
    RecoverForgetsLoose,
    LeaveWithoutRelease,
    SeatWithoutRelease,
    TurnAfterOwner,
    TakeForgetsRecord,
    RecordWithoutExchange,
    FrontWithoutRelease,
    GateForgetsUnwritten,
    GateFromBehind,
    DoneWithoutRelease,
    TakenWithoutRelease,
    ReturnWithoutRelease,
    ListAfterTaken,
    ListAsNobodys,
    ReturnedWithoutExchange,
    FullForgetsTaken,
    IdleForgetsSeats,
    RecoverForgetsFront,
    OpenForgetsToTell,
    HeldForgetsGroups,
    JoinKeepsClosing,
    OpenForgetsFloor,
    CloseForgetsSecondLook,
    SitWithoutBarrier,
    CloseWithoutBarrier,
    OwnForgetsOthers,
    FinishFromTheRight,
}

impl Mutation {
    /// Defects of the direct path: carve, ripple, index, slow path.
    pub const DIRECT: [Mutation; 21] = [
        Mutation::AckWithoutCas,
        Mutation::AbsorbWithoutAdjacency,
        Mutation::CarveWithoutCas,
        Mutation::CarveForgetsLeftHint,
        Mutation::CarveForgetsIndex,
        Mutation::ClaimGivesUp,
        Mutation::ClearForgetsToLook,
        Mutation::ClearWithoutBarrier,
        Mutation::HealForgetsToMerge,
        Mutation::HeadLeftBehind,
        Mutation::PublishForgetsLeft,
        Mutation::PublishForgetsRight,
        Mutation::PublishForgetsIndex,
        Mutation::PublishWithoutBarrier,
        Mutation::AbsorbForgetsRight,
        Mutation::SetForgetsParent,
        Mutation::EmptyIsExhausted,
        Mutation::CarveWithoutRelease,
        Mutation::GiveWithoutRelease,
        Mutation::ReturnForgetsWalkers,
        Mutation::WalkForgetsLoss,
    ];

    /// Defects of the recovery, and of what operations tell it.
    pub const RECOVERY: [Mutation; 7] = [
        Mutation::CarveForgetsIntent,
        Mutation::AckForgetsIntent,
        Mutation::ClaimForgetsIntent,
        Mutation::DoneForgetsSuspect,
        Mutation::RecoverForgetsFirstLook,
        Mutation::RecoverForgetsSecondLook,
        Mutation::RecoverForgetsTouched,
    ];

    /// Defects of the proof that a sector is exhausted, and of what operations tell it.
    pub const PROOF: [Mutation; 9] = [
        Mutation::ProofForgetsLook,
        Mutation::ProofForgetsReturns,
        Mutation::ProofForgetsMoves,
        Mutation::ProofForgetsLoose,
        Mutation::CarveForgetsMove,
        Mutation::ClearForgetsIntent,
        Mutation::ClearForgetsMove,
        Mutation::HealForgetsMove,
        Mutation::RecoverForgetsLoose,
    ];

    /// Defects of the thread caches.
    pub const CACHE: [Mutation; 9] = [
        Mutation::CutForgetsFirst,
        Mutation::FlushForgetsIntent,
        Mutation::FlushForgetsHeads,
        Mutation::FlushWithoutRelease,
        Mutation::UnparkWithoutRelease,
        Mutation::RecoverForgetsCached,
        Mutation::UnsharedMarksLate,
        Mutation::UnsharedWithoutRelease,
        Mutation::RecoverAsksLate,
    ];

    /// Defects of topics.
    pub const TOPIC: [Mutation; 19] = [
        Mutation::ClaimForgetsRecord,
        Mutation::ClaimForgetsJoins,
        Mutation::JoinForgetsToTell,
        Mutation::PostWithoutRelease,
        Mutation::HoldWithoutBarrier,
        Mutation::MarkWithoutBarrier,
        Mutation::RecordFromTheRight,
        Mutation::CursorWithoutRelease,
        Mutation::LetGoWithoutRelease,
        Mutation::ClaimForgetsToWait,
        Mutation::ListBeforeForgetting,
        Mutation::OrphanForgetsSecondLook,
        Mutation::RecoverWithoutBarrier,
        Mutation::RecoverForgetsHolds,
        Mutation::RecoverForgetsOrphans,
        Mutation::OvertakenFindsNoRoom,
        Mutation::ListWithoutRelease,
        Mutation::OwnForgetsOthers,
        Mutation::FinishFromTheRight,
    ];

    /// Defects of followers of a topic, and of readers that leave.
    pub const FOLLOW: [Mutation; 3] =
        [Mutation::LeaveWithoutRelease, Mutation::SeatWithoutRelease, Mutation::TurnAfterOwner];

    /// Defects of groups.
    pub const GROUP: [Mutation; 21] = [
        Mutation::TakeForgetsRecord,
        Mutation::RecordWithoutExchange,
        Mutation::FrontWithoutRelease,
        Mutation::GateForgetsUnwritten,
        Mutation::GateFromBehind,
        Mutation::DoneWithoutRelease,
        Mutation::TakenWithoutRelease,
        Mutation::ReturnWithoutRelease,
        Mutation::ListAfterTaken,
        Mutation::ListAsNobodys,
        Mutation::ReturnedWithoutExchange,
        Mutation::FullForgetsTaken,
        Mutation::IdleForgetsSeats,
        Mutation::RecoverForgetsFront,
        Mutation::OpenForgetsToTell,
        Mutation::HeldForgetsGroups,
        Mutation::CloseForgetsSecondLook,
        Mutation::SitWithoutBarrier,
        Mutation::CloseWithoutBarrier,
        Mutation::OpenForgetsFloor,
        Mutation::JoinKeepsClosing,
    ];

    /// Defects of a pool's depot.
    pub const DEPOT: [Mutation; 3] =
        [Mutation::DepotForgetsTag, Mutation::DepotWithoutRelease, Mutation::DepotWithoutAcquire];

    /// Defects of the directory of names.
    pub const NAMES: [Mutation; 1] = [Mutation::NameForgetsSecondLook];

    /// Every defect.
    pub fn all() -> impl Iterator<Item = &'static Mutation> {
        let algorithm = Self::DIRECT.iter().chain(&Self::RECOVERY);
        let beside = Self::CACHE.iter().chain(&Self::DEPOT).chain(&Self::NAMES);
        let topics = Self::TOPIC.iter().chain(&Self::FOLLOW).chain(&Self::GROUP);
        algorithm.chain(&Self::PROOF).chain(beside).chain(topics)
    }
}

#[cfg(loom)]
static ACTIVE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Turns one defect on for the whole process.
#[cfg(loom)]
pub fn activate(mutation: Mutation) {
    ACTIVE.store(mutation as u32, std::sync::atomic::Ordering::SeqCst);
}

/// Tells whether the defect is on.
#[cfg(loom)]
pub fn is(mutation: Mutation) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::SeqCst) == mutation as u32
}

#[cfg(loom)]
std::thread_local! {
    /// The thread that is to die, and how many writes to words it has left, none when it is dead. All threads
    /// of one model run on one thread of the system; models on others do not concern each other.
    static DOOMED: std::cell::Cell<Option<(loom::thread::ThreadId, Option<u32>)>> =
        const { std::cell::Cell::new(None) };
}

/// What a doomed thread unwinds with.
#[cfg(loom)]
#[derive(Debug)]
pub struct Crash;

/// Runs `body` on this thread, which dies before its write number `writes` (from 0) to a word.
///
/// Returns whether it died. It leaves the words as a killed process does: what its destructors store is not
/// stored.
#[cfg(loom)]
pub fn crash_at(writes: u32, body: impl FnOnce()) -> bool {
    DOOMED.set(Some((loom::thread::current().id(), Some(writes))));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    DOOMED.set(None);
    match outcome {
        Ok(()) => false,
        Err(cause) if cause.is::<Crash>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

/// Dies here if this thread is doomed and has no write left; tells whether it lives, and may write.
#[cfg(loom)]
pub(crate) fn before_write() -> bool {
    let Some((thread, left)) = DOOMED.get() else { return true };
    if thread != loom::thread::current().id() {
        return true;
    }
    let Some(left) = left else { return false };
    DOOMED.set(Some((thread, left.checked_sub(1))));
    if left == 0 {
        // Without the hook: a death that was planned is no news.
        std::panic::resume_unwind(Box::new(Crash));
    }
    true
}

/// Tells whether the defect is on: never.
#[cfg(not(loom))]
#[inline(always)]
#[must_use]
pub const fn is(_: Mutation) -> bool {
    false
}
