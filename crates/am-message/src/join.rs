//! Joining a topic: as a reader alone, after others, or in a group.

use crate::error::TopicError;
use crate::source::Source;
use crate::{MessageSet, Reader, Start, Topic};
use am_shm::{Bell, WaitStrategy};
use am_topic::{NoGroup, NoLeader, READERS, ReaderId};
use xxhash_rust::const_xxh3::xxh3_64;

/// Settings for a reader.
#[derive(Debug)]
#[must_use = "settings do nothing until the reader joins"]
pub struct ReaderBuilder<S: MessageSet + ?Sized> {
    topic: Topic<S>,
    start: Start,
    strategy: WaitStrategy,
    has_bell: bool,
    group: Option<String>,
    /// `None` for one that cannot be followed here.
    leaders: Vec<Option<ReaderId>>,
}

impl<S: MessageSet + ?Sized> ReaderBuilder<S> {
    pub(crate) fn new(topic: Topic<S>) -> Self {
        let (start, strategy) = (Start::Latest, WaitStrategy::default());
        Self { topic, start, strategy, has_bell: false, group: None, leaders: Vec::new() }
    }

    /// Sets where the reader begins; the default is with what is posted after it joined.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets how the reader waits; the default spins for some microseconds, then sleeps.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Gives the reader a [bell](Reader::bell): a descriptor for those who wait in `poll` or `epoll` for several
    /// things at once. It can wait in its own calls all the same.
    ///
    /// The bell is a named pipe beside the segment's file, which goes when the reader is dropped. Only
    /// processes of the same user can ring it.
    ///
    /// ```
    /// # use am_matrix::{Arena, Matrix, plan};
    /// # use am_message::Topic;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let matrix = Matrix::format(Arena::heap(1 << 20), &plan(1 << 20, 60, 30)?)?;
    /// # let folder = std::env::temp_dir().join(format!("am-message-bell-{}", std::process::id()));
    /// # std::fs::create_dir(&folder)?;
    /// # let path = folder.join("segment");
    /// use nix::poll::{PollFd, PollFlags, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let topic = Topic::<u64>::builder(&matrix, "t").bells_beside(&path).open_or_create()?;
    /// let mut reader = topic.reader().with_bell().open()?;
    /// topic.poster()?.post(&7)?;
    /// let seven = loop {
    ///     if let Some(message) = reader.try_read() {
    ///         break *message.view()?;
    ///     }
    ///     if reader.arm()? {
    ///         let bell = reader.bell().expect("it has one").as_fd();
    ///         poll(&mut [PollFd::new(bell, PollFlags::POLLIN)], 1000u16)?; // and others beside it
    ///     }
    /// };
    /// assert_eq!(seven, 7);
    /// # drop(reader);
    /// # std::fs::remove_dir(&folder)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_bell(mut self) -> Self {
        self.has_bell = true;
        self
    }

    /// Makes the reader a member of the group of that name: each message goes to one member of it.
    ///
    /// Dropping a message says that it is done. What a member [gives back](crate::Received::nack), or holds when
    /// it leaves or dies, goes to another one, [marked](crate::Received::is_redelivered). Who joins first makes
    /// the group, and says where it begins. It lasts without members: in a lossless topic what it has not done
    /// is kept, until it is [closed](Topic::close_group). A topic has 8 groups at most, of 32 members.
    pub fn group(mut self, name: &str) -> Self {
        self.group = Some(name.to_owned());
        self
    }

    /// Lets the reader follow another one (at most 8): it sees a message only when the other one has let it go,
    /// and sees what that one did before. A member of a group can follow, but not be followed.
    ///
    /// When the other one leaves or dies, this reader goes on by itself: nobody waits for the dead. That is
    /// noticed within a tenth of a second. Who must not go on then asks
    /// [`Received::follows_all`](crate::Received::follows_all).
    pub fn after(mut self, other: &Reader<S>) -> Self {
        let is_here = std::ptr::eq(other.shared.topic.wakes(), self.topic.shared.topic.wakes());
        self.leaders.push(other.id().filter(|_| is_here));
        self
    }

    /// As [`after`](Self::after), of a reader that told its [id](Reader::id), in whichever process.
    pub fn after_id(mut self, other: ReaderId) -> Self {
        self.leaders.push(Some(other));
        self
    }

    /// Joins: from here on the reader's messages are kept for it, in a lossless topic.
    ///
    /// # Errors
    /// [`TopicError::TooManyReaders`] when there are 64; [`TopicError::NoGroup`] when there are too many groups or
    /// members; [`TopicError::NoLeader`] when one to be followed is not there; [`TopicError::NoBell`] or
    /// [`TopicError::Bell`] when it is to have a bell, and cannot; [`TopicError::Matrix`] in a child that
    /// inherited the matrix by fork.
    pub fn open(self) -> Result<Reader<S>, TopicError> {
        let shared = self.topic.shared.clone();
        let owner = self.topic.owner()?;
        // What the dead have left may be enough.
        let mut source = self.join(owner).or_else(|_| {
            shared.matrix.recover();
            self.join(owner)
        })?;
        for &leader in &self.leaders {
            let followed = leader.ok_or(NoLeader::Gone).and_then(|leader| source.follow(leader));
            followed.map_err(|cause| TopicError::NoLeader { name: shared.name.clone(), cause })?;
        }
        let bell = self.listen(source.seat_number())?;
        Ok(Reader::new(shared, source, self.strategy, !self.leaders.is_empty(), bell))
    }

    /// The bell of the reader with that seat, if it is to have one.
    fn listen(&self, seat: u32) -> Result<Option<Bell>, TopicError> {
        if !self.has_bell {
            return Ok(None);
        }
        let shared = &self.topic.shared;
        let name = || shared.name.clone();
        let bells = shared.bells.as_ref().ok_or_else(|| TopicError::NoBell { name: name() })?;
        bells.listen(seat).map(Some).map_err(|cause| TopicError::Bell { name: name(), cause })
    }

    fn join(&self, owner: u32) -> Result<Source, TopicError> {
        let shared = &self.topic.shared;
        let name = || shared.name.clone();
        let Some(group) = &self.group else {
            let full = || TopicError::TooManyReaders { name: name(), maximum: READERS };
            return shared.topic.reader(owner, self.start).map(Source::Alone).ok_or_else(full);
        };
        let member = shared.topic.member(number(group), owner, self.start);
        let refused = |cause| TopicError::NoGroup { name: name(), group: group.clone(), cause };
        member.map(Source::Member).map_err(refused)
    }
}

impl<S: MessageSet + ?Sized> Topic<S> {
    /// Closes a group without members: what it has not done is given up, and nothing is kept for it any more. One
    /// that joins it later opens it again.
    ///
    /// # Errors
    /// [`TopicError::NoGroup`] when it has members, or another one closes it at this moment: it keeps all then;
    /// [`TopicError::Matrix`] in a child that inherited the matrix by fork.
    pub fn close_group(&self, name: &str) -> Result<(), TopicError> {
        let topic = &self.shared.topic;
        let owner = self.owner()?;
        let closed = topic.close_group(number(name), owner).or_else(|_| {
            // They may be dead.
            self.shared.matrix.recover();
            topic.close_group(number(name), owner)
        });
        closed.map_err(|cause: NoGroup| TopicError::NoGroup {
            name: self.name().to_owned(),
            group: name.to_owned(),
            cause,
        })
    }
}

/// How the protocol names a group: not 0.
fn number(name: &str) -> u64 {
    xxh3_64(name.as_bytes()).max(1)
}
