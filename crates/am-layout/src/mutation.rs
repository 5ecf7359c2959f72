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
}

impl Mutation {
    /// Every defect.
    pub const ALL: [Mutation; 28] = [
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
        Mutation::CarveForgetsIntent,
        Mutation::AckForgetsIntent,
        Mutation::ClaimForgetsIntent,
        Mutation::DoneForgetsSuspect,
        Mutation::RecoverForgetsFirstLook,
        Mutation::RecoverForgetsSecondLook,
        Mutation::RecoverForgetsTouched,
    ];
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

/// Tells whether the defect is on: never.
#[cfg(not(loom))]
#[inline(always)]
#[must_use]
pub const fn is(_: Mutation) -> bool {
    false
}
