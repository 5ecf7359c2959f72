//! What a reader reads by: a cursor of its own, or its share of a group's.

use am_topic::{Held, Member, Next, NoLeader, Reader, ReaderId, Seq};

/// A seat of its own, or one in a group.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a reader, which nobody moves often")]
pub(crate) enum Source {
    Alone(Reader<'static>),
    Member(Member<'static>),
}

impl Source {
    /// The next message, held.
    #[inline(always)]
    pub fn next(&mut self) -> Next {
        match self {
            Self::Alone(reader) => reader.next(),
            Self::Member(member) => member.next(),
        }
    }

    /// Lets `count` messages go, from the held one on; a member holds one.
    #[inline(always)]
    pub fn done(&mut self, count: u64) {
        match self {
            Self::Alone(reader) => reader.advance(count),
            Self::Member(member) => member.done(),
        }
    }

    /// The held message comes again.
    pub fn put_off(&mut self) {
        match self {
            Self::Alone(reader) => reader.put_off(),
            // It stays this member's, which gets it next.
            Self::Member(_) => {}
        }
    }

    /// The held message goes to another, if there is another.
    pub fn give_back(&mut self) {
        match self {
            Self::Alone(reader) => reader.put_off(),
            Self::Member(member) => member.give_back(),
        }
    }

    /// How often the held message was delivered before.
    pub fn attempts(&self) -> u8 {
        match self {
            Self::Alone(_) => 0,
            Self::Member(member) => member.attempts(),
        }
    }

    #[inline(always)]
    pub fn peek(&self, ahead: u64) -> Option<Held> {
        match self {
            Self::Alone(reader) => reader.peek(ahead),
            Self::Member(member) => member.peek(ahead),
        }
    }

    /// The reader with a cursor of its own, if it is one.
    #[inline(always)]
    pub fn alone(&self) -> Option<&Reader<'static>> {
        match self {
            Self::Alone(reader) => Some(reader),
            Self::Member(_) => None,
        }
    }

    pub fn missed(&self) -> u64 {
        match self {
            Self::Alone(reader) => reader.missed(),
            Self::Member(member) => member.missed(),
        }
    }

    pub fn cursor(&self) -> Seq {
        match self {
            Self::Alone(reader) => reader.cursor(),
            Self::Member(member) => member.cursor(),
        }
    }

    /// How others follow it; nobody follows a member.
    pub fn id(&self) -> Option<ReaderId> {
        match self {
            Self::Alone(reader) => Some(reader.id()),
            Self::Member(_) => None,
        }
    }

    /// The number of its seat among all of the topic.
    pub fn seat_number(&self) -> u32 {
        match self {
            Self::Alone(reader) => reader.seat_number(),
            Self::Member(member) => member.seat_number(),
        }
    }

    pub fn follow(&mut self, id: ReaderId) -> Result<(), NoLeader> {
        match self {
            Self::Alone(reader) => reader.follow(id),
            Self::Member(member) => member.follow(id),
        }
    }

    pub fn follows_all(&self) -> bool {
        match self {
            Self::Alone(reader) => reader.follows_all(),
            Self::Member(member) => member.follows_all(),
        }
    }

    #[inline(always)]
    pub fn is_member(&self) -> bool {
        matches!(self, Self::Member(_))
    }
}
