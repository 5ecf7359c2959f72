//! What can go wrong, and what was seen.

use crate::topics::{SERVICE_KIND, TOPIC_KIND};
use am_layout::{BadGeometry, BadOffset, Offset, Seen};

/// Which sector: a fault domain with a granule size of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectorId {
    /// Granules of 32 bytes.
    Small,
    /// Granules of 256 bytes.
    Medium,
    /// Granules of 4 KiB.
    Large,
}

impl SectorId {
    /// Every sector, in the order in which they lie in the segment.
    pub const ALL: [SectorId; am_layout::SECTORS] =
        [SectorId::Small, SectorId::Medium, SectorId::Large];
}

impl std::fmt::Display for SectorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            SectorId::Small => "small",
            SectorId::Medium => "medium",
            SectorId::Large => "large",
        })
    }
}

/// An error of a matrix. Nothing was changed, unless the variant says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sector has no free block that is long enough.
    #[error(
        "the {sector} sector is exhausted: {requested_bytes} bytes wanted, \
         the largest free payload has {largest_free_bytes}"
    )]
    Exhausted {
        /// The sector that the request was routed to; with a spill policy the others failed too.
        sector: SectorId,
        /// Payload bytes asked for.
        requested_bytes: u64,
        /// Payload bytes of the longest free block seen.
        largest_free_bytes: u64,
    },
    /// Nothing long enough was free, but blocks were on their way back: trying again may help.
    #[error(
        "the {sector} sector is contended: {requested_bytes} bytes wanted, \
         the largest free payload has {largest_free_bytes}, and blocks are in flight"
    )]
    Contended {
        /// The sector that the request was routed to.
        sector: SectorId,
        /// Payload bytes asked for.
        requested_bytes: u64,
        /// Payload bytes of the longest free block seen.
        largest_free_bytes: u64,
    },
    /// The sector that the request is routed to can never hold a block that large; with a spill
    /// policy, no other could just now.
    #[error("{requested_bytes} bytes can never fit the {sector} sector: it holds {largest_bytes}")]
    TooLarge {
        /// The sector that the request was routed to.
        sector: SectorId,
        /// Payload bytes asked for.
        requested_bytes: u64,
        /// Payload bytes of the sector when it is empty.
        largest_bytes: u64,
    },
    /// Payloads cannot be aligned to more than 4096 bytes.
    #[error("alignment {align_bytes} is above 4096 bytes")]
    AlignmentTooLarge {
        /// The alignment asked for.
        align_bytes: usize,
    },
    /// The offset is no payload of any sector.
    #[error("offset {offset} is not where a payload can begin")]
    NotAPayload {
        /// The offset given.
        offset: Offset,
    },
    /// The block is not in use, or belongs to a guard: a double ack, a stale or forged offset.
    #[error("offset {offset} is no block that can be acked or taken now: there is {seen}")]
    NotAllocated {
        /// The offset given.
        offset: Offset,
        /// What the granule's word says.
        seen: Seen,
    },
    /// The block is not common: nobody has it, or somebody.
    #[error("offset {offset} is no common block: there is {seen}, of owner {owner}")]
    NotCommon {
        /// The offset given.
        offset: Offset,
        /// What the granule's word says.
        seen: Seen,
        /// Whose the block is if it is held: a participant's slot + 1.
        owner: u32,
    },
    /// A name has no bytes.
    #[error("a name has at least one byte")]
    NameEmpty,
    /// A name is too long.
    #[error("a name of {bytes} bytes is too long: {maximum_bytes} is the most")]
    NameTooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes of the longest name.
        maximum_bytes: usize,
    },
    /// The name is another block's.
    #[error("the name is taken, by the block at {offset}")]
    NameTaken {
        /// Where that block's payload lies.
        offset: Offset,
    },
    /// No block has the name.
    #[error("no block has that name")]
    NoSuchName,
    /// Every entry of the directory is in use.
    #[error("all {maximum} names are in use")]
    TooManyNames {
        /// Names there can be.
        maximum: u32,
    },
    /// The name is that of a block of another kind.
    #[error("what has that name is {}, not {}", InWords(*seen), InWords(*expected))]
    WrongKind {
        /// The kind it has.
        seen: u32,
        /// The kind asked for.
        expected: u32,
    },
    /// Others are changing names, or one of them was stopped while it did.
    #[error("others have been changing names for {waited_ms} ms")]
    NamesBusy {
        /// How long this call waited for them.
        waited_ms: u64,
    },
    /// The block belongs to another attachment than the one that shall name it.
    #[error("the block at {offset} belongs to another attachment")]
    OtherMatrix {
        /// The block's offset.
        offset: Offset,
    },
    /// The entry of a name changed while only this call may change it: somebody scribbled.
    #[error("the entry of a name was damaged; the block at {offset} has no name")]
    NameDamaged {
        /// The block's offset.
        offset: Offset,
    },
    /// The guard's block is no longer held: somebody scribbled on the segment.
    #[error("the block held at {offset} was damaged: there is {seen}")]
    Corrupt {
        /// The block's offset.
        offset: Offset,
        /// What the granule's word says.
        seen: Seen,
    },
    /// The block to the right is not free, or not long enough.
    #[error("no room to grow in place to {requested_bytes} bytes")]
    NoRoom {
        /// Payload bytes asked for.
        requested_bytes: u64,
    },
    /// Every block of the pool is in use, or at hand with other threads that used it.
    #[error("the pool of {capacity} blocks is empty")]
    PoolEmpty {
        /// Blocks that the pool was made with.
        capacity: u64,
    },
    /// A block has another size than the type needs.
    #[error("the block at {offset} has {bytes} bytes, the type {expected_bytes}")]
    WrongSize {
        /// The offset given.
        offset: Offset,
        /// Bytes of the block's payload.
        bytes: u64,
        /// Bytes that the type needs.
        expected_bytes: u64,
    },
    /// The base pointer is not where this process mapped the segment.
    #[error("base pointer {given:#x} is not this mapping's base {expected:#x}")]
    WrongBase {
        /// The address given.
        given: usize,
        /// The address of the mapping.
        expected: usize,
    },
    /// The relative pointer was made from bytes that no offset can express.
    #[error("a wild relative pointer: no multiple of 32 bytes below 128 GiB")]
    WildPointer,
    /// As [`WildPointer`](Self::WildPointer), with the offset.
    #[error(transparent)]
    BadOffset(#[from] BadOffset),
    /// The percentages of the small and medium sector add up to more than 100.
    #[error("small {small} % and medium {medium} % are more than 100 %")]
    SplitAbove100 {
        /// Percent for the small sector.
        small: u8,
        /// Percent for the medium sector.
        medium: u8,
    },
    /// The segment cannot hold its own metadata and a block per sector.
    #[error("{size_bytes} bytes are too few: {minimum_bytes} is the smallest size that works")]
    TooSmall {
        /// The size asked for.
        size_bytes: u64,
        /// The smallest size that works with this split.
        minimum_bytes: u64,
    },
    /// The segment is longer than offsets reach, or than this process can map.
    #[error("{size_bytes} bytes are more than the {maximum_bytes} that offsets reach")]
    SegmentTooLarge {
        /// The size asked for.
        size_bytes: u64,
        /// The largest size.
        maximum_bytes: u64,
    },
    /// The memory is shorter than a segment's head.
    #[error("{bytes} bytes are shorter than the head of a segment")]
    TooShort {
        /// Bytes there are.
        bytes: u64,
    },
    /// The memory to be formatted holds something.
    #[error("the memory is not empty: it was formatted before")]
    NotEmpty,
    /// Topics and services are made by the message layer: other blocks cannot have their kinds.
    #[error("kind {kind:#x} means {}, which the message layer alone makes: choose another", InWords(*kind))]
    KindReserved {
        /// The kind asked for.
        kind: u32,
    },
    /// This handle was inherited by fork, and is its parent's. Open the segment anew.
    #[error("this handle was inherited by fork: open the segment anew in the child")]
    Forked,
    /// Every slot for a participant is taken, by the living or by dead who cannot be recovered yet.
    #[error("all {maximum} slots for participants are taken")]
    TooManyParticipants {
        /// Slots there are.
        maximum: u32,
    },
    /// Every lane for a thread is taken, so that another participant cannot even share one.
    #[error("all {maximum} lanes for threads are taken")]
    TooManyThreads {
        /// Lanes there are.
        maximum: u32,
    },
    /// The kernel refused a lock on the segment's file.
    #[error("the kernel refused a lock on the segment: {}", std::io::Error::from_raw_os_error(*errno))]
    Locks {
        /// The kernel's answer.
        errno: i32,
    },
    /// The geometry in the segment's head breaks a rule.
    #[error(transparent)]
    BadGeometry(#[from] BadGeometry),
}

impl Error {
    /// The kernel refused a lock.
    #[cold]
    pub(crate) fn locks(error: std::io::Error) -> Self {
        Self::Locks { errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// What a block of that kind is, in words; kinds of users have numbers only.
struct InWords(u32);

impl std::fmt::Display for InWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            TOPIC_KIND => f.write_str("a topic"),
            SERVICE_KIND => f.write_str("a service"),
            kind => write!(f, "a block of kind {kind:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_in_words() {
        let told = |seen, expected| Error::WrongKind { seen, expected }.to_string();
        assert_eq!(told(TOPIC_KIND, SERVICE_KIND), "what has that name is a topic, not a service");
        assert_eq!(
            told(SERVICE_KIND, 0x10),
            "what has that name is a service, not a block of kind 0x10"
        );
        assert_eq!(
            Error::KindReserved { kind: TOPIC_KIND }.to_string(),
            "kind 0x746f7069 means a topic, which the message layer alone makes: choose another"
        );
    }
}
