//! What topic an operation finds, and what becomes of its messages.

use std::ops::RangeInclusive;

use atomic_matrix::{Matrix, TopicBuilder};

use crate::accounts::When;
use crate::topic_scene::LEN_BYTES;

/// Name of every topic.
pub(crate) const NAME: &str = "t";
/// Name of its group.
pub(crate) const GROUP: &str = "g";

/// How many of something there are for certain, and how many more when the operation has ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub before: u64,
    pub during: u64,
}

impl Count {
    pub fn allowed(self, when: When) -> RangeInclusive<u64> {
        let all = self.before + self.during;
        match when {
            When::Before => self.before..=self.before,
            When::Amid => self.before..=all,
            When::After => all..=all,
        }
    }
}

/// What a reader of the survivor's looks at in a lossy topic: the oldest message that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// There is no such reader.
    Nothing,
    /// Whoever posts next overruns it.
    Next,
    /// It was overrun, and the reader is gone since: whoever posts next finds an orphan.
    Orphan,
}

/// The group of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupPlot {
    /// The survivor is a member from the message on that the plot names; else it joins after the death.
    pub survivor_joins: bool,
    /// It has given back so many messages, from the first on.
    pub returned: u64,
    /// Messages that the actor is done with, from the first on.
    pub done: Count,
    /// Messages behind those done before that it has given back, each once.
    pub given_back: u64,
    /// How often the next one behind all those was delivered, before the operation and after it.
    pub attempts: (u8, u8),
}

impl GroupPlot {
    /// A group of which the actor touches at most the first message, which is delivered so often before and after.
    pub const fn delivers(attempts: (u8, u8)) -> Self {
        let done = Count { before: 0, during: 0 };
        Self { survivor_joins: true, returned: 0, done, given_back: 0, attempts }
    }

    /// One where the actor has given back as many as there is room for, and then has one more.
    pub const fn gives_back_all(attempts: (u8, u8)) -> Self {
        Self { given_back: am_topic::RETURNS as u64, ..Self::delivers(attempts) }
    }

    /// How often a message may have been delivered in vain.
    pub fn attempts_allowed(&self, subject: bool, loose: bool, when: When) -> RangeInclusive<u8> {
        let (before, after) = self.attempts;
        match when {
            // With two at work either may have it, or one of the two before.
            _ if loose => 0..=after,
            _ if !subject => 0..=0,
            When::Before => before..=before,
            When::Amid => before..=after,
            When::After => after..=after,
        }
    }
}

/// What topic there is before an operation, and what must be there after it.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The survivor has made the topic; else the actor does.
    pub(crate) made: bool,
    pub(crate) lossy: bool,
    /// Short messages lie in the ring; else each has a block.
    pub(crate) in_ring: bool,
    /// The topic may have no room before recovery.
    pub(crate) full: bool,
    /// Messages that the survivor posted.
    pub(crate) posted: u64,
    /// How many of them the witness has read.
    pub(crate) read: u64,
    pub(crate) holds: Holds,
    pub(crate) group: Option<GroupPlot>,
    /// Messages that were posted when the survivor joined the group.
    pub(crate) joined: u64,
    /// Messages of actor A.
    pub(crate) posts: Count,
    /// Messages of actor B, all of them.
    pub(crate) beside_posts: u64,
    /// Messages of actor C, at most.
    pub(crate) victim_posts: u64,
    /// A reader of the survivor's follows that of actor A, which reads one message.
    pub(crate) leads: bool,
    /// Messages that may be lost.
    pub(crate) lost_max: u64,
    /// The operation is about readers that wait.
    pub(crate) naps: bool,
    /// A reader of the survivor's waits for its bell.
    pub(crate) listens: bool,
}

impl Plot {
    /// A lossless topic in its second turn.
    pub(crate) const LOSSLESS: Self = Self {
        made: true,
        lossy: false,
        in_ring: false,
        full: false,
        posted: 160,
        read: 64,
        holds: Holds::Nothing,
        group: None,
        joined: 150,
        posts: Count { before: 0, during: 0 },
        beside_posts: 0,
        victim_posts: 0,
        leads: false,
        lost_max: 0,
        naps: false,
        listens: false,
    };
    /// A lossy one.
    pub(crate) const LOSSY: Self = Self { lossy: true, ..Self::LOSSLESS };
    /// A lossless one with short messages in the ring.
    pub(crate) const IN_RING: Self = Self { in_ring: true, ..Self::LOSSLESS };
    /// None yet.
    pub(crate) const NONE_YET: Self = Self { made: false, posted: 0, read: 0, ..Self::IN_RING };
    /// Few messages in the first turn.
    pub(crate) const FRESH: Self = Self { posted: 9, read: 3, ..Self::LOSSLESS };
    /// No room for one more.
    pub(crate) const FULL: Self = Self { full: true, posted: 128, read: 0, ..Self::LOSSLESS };

    /// Of one claim of `during` messages, after so many.
    pub(crate) const fn posts(self, before: u64, during: u64) -> Self {
        Self { posts: Count { before, during }, lost_max: during, ..self }
    }

    pub(crate) const fn holds(self, holds: Holds) -> Self {
        // The orphan's slot has gone on by one message.
        let posted = if matches!(holds, Holds::Orphan) { self.posted + 1 } else { self.posted };
        Self { holds, posted, ..self }
    }

    pub(crate) const fn group(self, group: GroupPlot) -> Self {
        Self { group: Some(group), ..self }
    }

    /// Actor C may have posted so many, the last `during` by one claim.
    pub(crate) const fn victim(self, before: u64, during: u64) -> Self {
        Self { victim_posts: before + during, lost_max: during, ..self }
    }

    /// The survivor follows the actor's reader.
    pub(crate) const fn leads(self) -> Self {
        Self { leads: true, ..self }
    }

    /// The operation is about readers that wait.
    pub(crate) const fn naps(self) -> Self {
        Self { naps: true, ..self }
    }

    /// A reader of the survivor's waits for its bell.
    pub(crate) const fn listens(self) -> Self {
        Self { listens: true, ..self }
    }

    /// The survivor joins the group when so many messages were posted.
    pub(crate) const fn joined(self, joined: u64) -> Self {
        Self { joined, ..self }
    }

    pub(crate) const fn beside(self, posts: u64) -> Self {
        Self { beside_posts: posts, ..self }
    }

    /// The number of the message that the survivor's reader holds, if it holds one: the oldest, when all that
    /// the plot says is posted but for what has overrun it.
    pub(crate) const fn held_number(&self) -> u64 {
        32
    }

    pub(crate) fn builder(&self, matrix: &Matrix) -> TopicBuilder<[u8]> {
        let in_ring_bytes = if self.in_ring { LEN_BYTES } else { 0 };
        let builder = matrix.topic(NAME).capacity(64).in_ring_up_to(in_ring_bytes);
        if self.lossy { builder.lossy() } else { builder }
    }
}
