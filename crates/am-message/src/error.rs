//! What can go wrong with topics and services.

use am_topic::{BadTopic, NoGroup, NoLeader};

/// Why a topic, or a service, cannot be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The matrix refused: no memory, no such name, a name too long.
    #[error("{name:?}: {cause}")]
    Matrix {
        /// The topic's name, or the service's.
        name: String,
        /// What the matrix said.
        #[source]
        cause: am_matrix::Error,
    },
    /// Whoever made the topic put other messages into it.
    #[error(
        "{name:?} carries messages of another layout ({seen:#018x}, not {expected:#018x}): their \
         kinds, fields, types, offsets or sizes differ; open it as what it carries, or choose another name"
    )]
    OtherMessages {
        /// The topic's name, or the service's.
        name: String,
        /// The hash of the set that was asked for.
        expected: u64,
        /// The hash that the topic has.
        seen: u64,
    },
    /// The block of that name is no topic, or another version's, or damaged.
    #[error("{name:?}: {cause}")]
    Bad {
        /// The topic's name, or the service's.
        name: String,
        /// What is wrong with it.
        #[source]
        cause: BadTopic,
    },
    /// A topic has as many slots as a power of two from 128 to 2²⁴.
    #[error("{name:?} cannot have room for {capacity} messages: at most 16 777 152")]
    Capacity {
        /// The topic's name, or the service's.
        name: String,
        /// The messages asked for.
        capacity: u64,
    },
    /// Messages in the ring can have up to 1024 bytes.
    #[error("topic {name:?} cannot keep messages of {bytes} bytes in its ring: at most 1024")]
    InRing {
        /// The topic's name.
        name: String,
        /// The bytes asked for.
        bytes: usize,
    },
    /// All seats are taken.
    #[error("topic {name:?} has {maximum} readers already")]
    TooManyReaders {
        /// The topic's name.
        name: String,
        /// Seats.
        maximum: usize,
    },
    /// A reader that was to be followed is not there, or of another topic, or one too many.
    #[error("topic {name:?}: {cause}")]
    NoLeader {
        /// The topic's name.
        name: String,
        /// What is wrong.
        #[source]
        cause: NoLeader,
    },
    /// A group cannot be joined, or not be closed.
    #[error("group {group:?} of topic {name:?}: {cause}")]
    NoGroup {
        /// The topic's name.
        name: String,
        /// The group's name.
        group: String,
        /// What is wrong.
        #[source]
        cause: NoGroup,
    },
    /// A service has as many clients as it was made for.
    #[error("service {name:?} has {maximum} clients already")]
    TooManyClients {
        /// The service's name.
        name: String,
        /// Clients that it was made for.
        maximum: usize,
    },
    /// A service is made for 1 to 64 clients.
    #[error("service {name:?} cannot be made for {clients} clients: at least 1, at most 64")]
    Clients {
        /// The service's name.
        name: String,
        /// The clients asked for.
        clients: usize,
    },
    /// The reader's bell cannot be made, or not be listened at.
    #[error("topic {name:?}: {cause}")]
    Bell {
        /// The topic's name.
        name: String,
        /// What is wrong.
        #[source]
        cause: am_shm::Error,
    },
    /// No reactor watches the reader's bell.
    #[cfg(feature = "async")]
    #[error("topic {name:?}: cannot watch the reader's bell: {cause}")]
    Watch {
        /// The topic's name.
        name: String,
        /// What is wrong.
        #[source]
        cause: std::io::Error,
    },
    /// The reader was opened without a bell, or cannot have one.
    #[error(
        "the reader of topic {name:?} has no bell: open it with one, in a segment that has a name (a memfd has none)"
    )]
    NoBell {
        /// The topic's name.
        name: String,
    },
    /// All posters' numbers are taken.
    #[error("topic {name:?} has {maximum} posters already")]
    TooManyPosters {
        /// The topic's name.
        name: String,
        /// Numbers.
        maximum: usize,
    },
}

/// Why a request was not sent; nothing was, then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The client has as many requests and responses in hand as there is room for.
    #[error(
        "the client has {maximum} requests and responses in hand: some have to be answered, or let go, first"
    )]
    TooManyOutstanding {
        /// How many there may be: [`ServiceBuilder::outstanding`](crate::ServiceBuilder::outstanding).
        maximum: u64,
    },
    /// There is no room among the requests, or no memory.
    #[error("the request was not sent: {0}")]
    Post(#[from] PostError),
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The server let the request go without one.
    #[error("the server let the request go without a response")]
    Unanswered,
    /// Somebody scribbled on it.
    #[error("the response is damaged: somebody scribbled on it")]
    Damaged,
    /// It was taken before.
    #[error("the response was taken before")]
    Taken,
}

/// Why a message was not posted; nothing was, then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// A reader of a lossless topic, or a group, even one without members, has to be done with the oldest message
    /// first; or readers of a lossy one hold too many that were overrun.
    #[error(
        "no room: a reader, or a group (even one without members), has not done the oldest message"
    )]
    Full,
    /// There is no memory for it, or it is too long.
    #[error("no memory for the message: {0}")]
    Memory(#[from] am_matrix::Error),
    /// A message has at most 4 GiB − 1.
    #[error("a message of {len_bytes} bytes is too long: at most 4294967295")]
    TooLong {
        /// Its length in bytes.
        len_bytes: usize,
    },
}

/// Why not all of a batch was posted: the first so many messages were, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{posted} messages of the batch were posted, then: {cause}")]
pub struct BatchError {
    /// How many messages were posted, counted from the first.
    pub posted: u64,
    /// Why the next one was not.
    #[source]
    pub cause: PostError,
}
