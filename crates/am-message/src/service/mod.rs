//! Services: requests from clients, each answered by one server.
//!
//! A service is one block of topics, one after the other: a *reply topic* for each client that there can be, then
//! the topic of *requests*, which one group of servers shares. A client posts requests by a poster's number
//! and reads the reply topic of that number. A request's tag says which reader of that is its client, a
//! response's tag which request it answers. So nothing is looked up, and a response for one who had the number
//! before is known. Replies come first, so that of a dead client its seat is free before its number is.

mod client;
mod inbox;
mod server;

pub use client::{Client, Pending, RequestLoan, Response};
pub use server::{Delivery, Request, ResponseLoan, Server};

use crate::error::TopicError;
use crate::topic::{CELL_BYTES, shape_for, write_topic};
use crate::{MessageSet, NoGroup, Start, Topic, WaitStrategy};
use am_matrix::{Block, Error, Matrix, SERVICE_KIND, Spill, TOPIC_ALIGN_BYTES, topic_bytes};
use am_topic::{BadTopic, Flow, POSTERS, Shape};
use inbox::Inbox;
use std::alloc::Layout;
use std::sync::Arc;

/// What the servers' group is called.
const SERVERS: &str = "servers";
/// What a response's slot says its kind is when there is none.
const NO_RESPONSE: u32 = u32::MAX;
/// Requests that a service keeps room for unless told otherwise.
const CAPACITY: u64 = 1024 - 64;
/// Clients that a service is made for unless told otherwise.
const CLIENTS: usize = 16;
/// Requests and responses that a client can have in hand unless told otherwise.
const OUTSTANDING: u64 = 64;

/// Requests of the set `Q` and their responses of the set `A`, found by name in a matrix.
///
/// Each request goes to one [`Server`] of those that there are, and its response to the [`Client`] that asked. If a
/// server dies before it responded, another gets the request. Cloning is cheap. A service lives as long as its
/// segment, whoever comes and goes.
///
/// ```
/// use am_matrix::{Arena, Matrix, plan};
/// use am_message::Service;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let matrix = Matrix::format(Arena::heap(4 << 20), &plan(4 << 20, 30, 30)?)?;
/// let service = Service::<str, u64>::builder(&matrix, "lengths").open_or_create()?;
///
/// let client = service.client()?;
/// let (short, long) = (client.request("ab")?, client.request("abcde")?);
///
/// let mut server = service.server()?; // elsewhere
/// while let Some(request) = server.try_receive() {
///     let length = request.view()?.len() as u64;
///     request.respond(&length)?;
/// }
///
/// assert_eq!(long.wait()?.view()?, &5); // in any order
/// assert_eq!(short.wait()?.view()?, &2);
/// # Ok(())
/// # }
/// ```
pub struct Service<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    topics: Arc<Topics<Q, A>>,
    strategy: WaitStrategy,
}

/// A service's topics.
struct Topics<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    /// By the client's number.
    replies: Vec<Topic<A>>,
    requests: Topic<Q>,
}

/// Settings for a service.
#[derive(Debug)]
#[must_use = "settings do nothing until the service is made or opened"]
pub struct ServiceBuilder<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    matrix: Matrix,
    name: String,
    capacity: u64,
    clients: usize,
    outstanding: u64,
    strategy: WaitStrategy,
    _sets: std::marker::PhantomData<(Box<Q>, Box<A>)>,
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Service<Q, A> {
    /// Starts the settings for a service of that name (1 to 48 bytes) in a matrix.
    pub fn builder(matrix: &Matrix, name: &str) -> ServiceBuilder<Q, A> {
        ServiceBuilder {
            matrix: matrix.clone(),
            name: name.to_owned(),
            capacity: CAPACITY,
            clients: CLIENTS,
            outstanding: OUTSTANDING,
            strategy: WaitStrategy::default(),
            _sets: std::marker::PhantomData,
        }
    }

    /// Makes a server. There can be 32, in any processes, which share the requests.
    ///
    /// # Errors
    /// [`TopicError::NoGroup`] when there are 32; [`TopicError::Matrix`] in a child that inherited the matrix by fork.
    pub fn server(&self) -> Result<Server<Q, A>, TopicError> {
        let reader = self.topics.requests.reader().group(SERVERS).start(Start::Earliest);
        let reader = reader.wait(self.strategy).open()?;
        let posters = self.topics.replies.iter().map(Topic::poster).collect::<Result<_, _>>()?;
        Ok(Server::new(reader, posters))
    }

    /// Makes a client. Requests wait for a server if there is none.
    ///
    /// # Errors
    /// [`TopicError::TooManyClients`] when there are as many as the service was made for; [`TopicError::Matrix`]
    /// in a child that inherited the matrix by fork.
    pub fn client(&self) -> Result<Client<Q, A>, TopicError> {
        self.keep_requests()?;
        let Topics { replies, requests } = &*self.topics;
        let number = |poster: &crate::Poster<Q>| poster.poster.borrow().number();
        let too_many =
            || TopicError::TooManyClients { name: self.name().to_owned(), maximum: replies.len() };
        let make = || {
            requests.poster().map_err(|error| match error {
                TopicError::TooManyPosters { .. } => too_many(),
                error => error,
            })
        };
        let mut poster = make()?;
        if number(&poster) >= replies.len() {
            // What the dead have left may be enough.
            drop(poster);
            requests.shared.matrix.recover();
            poster = make()?;
        }
        let replies = replies.get(number(&poster)).ok_or_else(too_many)?;
        Ok(Client::new(Inbox::open(replies, self.strategy)?, poster))
    }

    /// Makes sure that the servers' group is there, so that requests are kept for it before its first member comes.
    fn keep_requests(&self) -> Result<(), TopicError> {
        match self.topics.requests.reader().group(SERVERS).start(Start::Earliest).open() {
            // All seats are taken: then it is.
            Ok(_) | Err(TopicError::NoGroup { cause: NoGroup::TooManyMembers, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.topics.requests.name()
    }

    /// Returns how many clients there can be at once.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.topics.replies.len()
    }

    /// Returns how many requests and responses a client can have in hand.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.topics.replies.first().map_or(0, Topic::capacity)
    }

    /// Returns how many requests were ever sent.
    #[must_use]
    pub fn requested(&self) -> u64 {
        self.topics.requests.posted()
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> ServiceBuilder<Q, A> {
    /// Sets how many requests there is room for that no server is done with; clients wait for room. Rounded up; the
    /// default is 960.
    pub fn capacity(mut self, requests: u64) -> Self {
        self.capacity = requests;
        self
    }

    /// Sets how many clients there can be at once, 1 to 64; the default is 16. Each takes 49 KB of the
    /// segment, or more with more [outstanding](Self::outstanding), whether it is there or not.
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Sets how many requests and responses a client can have in hand, forgotten requests included: so many
    /// responses find room, and no server ever waits for a client. Rounded up; the default is 64.
    pub fn outstanding(mut self, outstanding: u64) -> Self {
        self.outstanding = outstanding;
        self
    }

    /// Sets how servers and clients that are made by this handle wait; the default spins for some
    /// microseconds, then sleeps.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Opens the service, or makes it.
    ///
    /// If it is there, it stays as it was made, whatever the settings say.
    ///
    /// # Errors
    /// [`TopicError`]: other messages, no memory, no place for the name.
    pub fn open_or_create(&self) -> Result<Service<Q, A>, TopicError> {
        match self.open() {
            Err(TopicError::Matrix { cause: Error::NoSuchName, .. }) => {}
            result => return result,
        }
        match self.create() {
            // Somebody was faster.
            Err(TopicError::Matrix { cause: Error::NameTaken { .. }, .. }) => self.open(),
            result => result,
        }
    }

    /// Makes the service.
    ///
    /// # Errors
    /// [`TopicError::Matrix`] when something of that name is there, or there is no memory;
    /// [`TopicError::Clients`], [`TopicError::Capacity`].
    pub fn create(&self) -> Result<Service<Q, A>, TopicError> {
        if !(1..=POSTERS).contains(&self.clients) {
            let (name, clients) = (self.name.clone(), self.clients);
            return Err(TopicError::Clients { name, clients });
        }
        let reply = self.shape(self.outstanding, A::LAYOUT)?;
        let shapes = std::iter::repeat_n(reply, self.clients);
        let shapes: Vec<Shape> = shapes.chain([self.shape(self.capacity, Q::LAYOUT)?]).collect();
        let bytes = shapes.iter().map(topic_bytes).sum();
        let layout = Layout::from_size_align(bytes, TOPIC_ALIGN_BYTES).expect("a length that fits");
        let matrix = self.matrix.clone().with_spill(Spill::Any);
        let mut block = matrix.allocate_aligned(layout).map_err(|cause| self.refused(cause))?;
        self.write(&shapes, &mut block)?;
        // SAFETY: it holds topics, and only this crate and the recovery look into it, as into such.
        let created = unsafe { matrix.create_named_as(&self.name, SERVICE_KIND, block) };
        created.map_err(|cause| self.refused(cause))?;
        self.open()
    }

    /// Opens the service.
    ///
    /// # Errors
    /// [`TopicError::Matrix`] with [`Error::NoSuchName`] when it is not there, or [`Error::WrongKind`] when that is
    /// a topic; [`TopicError::OtherMessages`], [`TopicError::Bad`].
    pub fn open(&self) -> Result<Service<Q, A>, TopicError> {
        let common = self.matrix.open_named(&self.name, SERVICE_KIND);
        let common = common.map_err(|cause| self.refused(cause))?;
        // SAFETY: only this crate and the recovery use blocks of that kind, by these views, and nobody
        // ever takes them away.
        let opened = unsafe { self.matrix.open_topics(common.offset()) };
        let mut opened: Vec<_> = opened.map_err(|cause| self.refused(cause))?.collect();
        let requests = opened.pop().unwrap_or(Err(BadTopic::TooShort));
        // SAFETY: it was opened in this matrix.
        let requests = unsafe { Topic::over(&self.matrix, &self.name, None, requests) }?;
        let replies = opened.into_iter().map(|reply| {
            // SAFETY: as above.
            unsafe { Topic::over(&self.matrix, &self.name, None, reply) }
        });
        let replies: Vec<Topic<A>> = replies.collect::<Result<_, _>>()?;
        // In lossy topics a response would not stay while it is looked at.
        let is_lossy = requests.is_lossy() || replies.iter().any(Topic::is_lossy);
        if is_lossy {
            return Err(TopicError::Bad { name: self.name.clone(), cause: BadTopic::BadShape });
        }
        if replies.is_empty() {
            return Err(TopicError::Bad { name: self.name.clone(), cause: BadTopic::TooShort });
        }
        Ok(Service { topics: Arc::new(Topics { replies, requests }), strategy: self.strategy })
    }

    fn shape(&self, capacity: u64, set: u64) -> Result<Shape, TopicError> {
        let too_many = || TopicError::Capacity { name: self.name.clone(), capacity };
        let (flow, cell_bytes, stamped) = (Flow::Lossless, CELL_BYTES, false);
        let like = Shape { slots_log: 0, flow, cell_bytes, set, stamped };
        shape_for(capacity, like).ok_or_else(too_many)
    }

    /// Writes fresh topics into a block that nobody else sees yet.
    fn write(&self, shapes: &[Shape], block: &mut Block<'_>) -> Result<(), TopicError> {
        block.fill(0);
        let mut rest = &mut block[..];
        for &shape in shapes {
            let (bytes, behind) = rest.split_at_mut(topic_bytes(&shape));
            write_topic(shape, bytes)
                .map_err(|cause| TopicError::Bad { name: self.name.clone(), cause })?;
            rest = behind;
        }
        Ok(())
    }

    fn refused(&self, cause: Error) -> TopicError {
        TopicError::Matrix { name: self.name.clone(), cause }
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Clone for Service<Q, A> {
    fn clone(&self) -> Self {
        Self { topics: self.topics.clone(), strategy: self.strategy }
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Service<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({:?}, {} requested)", self.name(), self.requested())
    }
}
