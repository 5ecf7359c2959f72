//! A matrix in a segment.

use crate::builder::Builder;
#[cfg(feature = "numa")]
use crate::numa::Outcome;
use am_message::{MessageSet, Service, ServiceBuilder, Topic, TopicBuilder};
use am_shm::{Hugepages, Mapping, Residence, Segment};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

/// An allocator in a shared-memory segment.
///
/// Everything about blocks is [`am_matrix::Matrix`]'s, which this derefs to; this adds the segment.
/// Cloning is cheap, and clones may be used by any threads at once.
#[derive(Clone, Debug)]
pub struct Matrix {
    core: am_matrix::Matrix,
    segment: Arc<Segment>,
    #[cfg(feature = "numa")]
    outcome: Arc<Outcome>,
}

impl Matrix {
    pub(crate) fn new(
        core: am_matrix::Matrix,
        segment: Segment,
        #[cfg(feature = "numa")] outcome: Outcome,
    ) -> Self {
        Self {
            core,
            segment: Arc::new(segment),
            #[cfg(feature = "numa")]
            outcome: Arc::new(outcome),
        }
    }

    /// Starts the settings for a matrix.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns a handle to the same segment with or without thread caches, as
    /// [`am_matrix::Matrix::with_thread_caches`]; by default it has them.
    #[must_use]
    pub fn with_thread_caches(self, cached: bool) -> Self {
        Self { core: self.core.with_thread_caches(cached), ..self }
    }

    /// Starts the settings for a topic of that name (1 to 48 bytes): a stream of messages of the set `S`,
    /// which every reader sees in the same order.
    ///
    /// ```
    /// use atomic_matrix::{Matrix, Message, MessageSet, Start};
    ///
    /// #[derive(Message, Clone, Copy, Debug, PartialEq)]
    /// #[repr(C)]
    /// struct Tick { sym: u32, px: u32 }
    ///
    /// #[derive(MessageSet, Debug, PartialEq)]
    /// enum Feed<'a> { Tick(Tick), Blob(&'a [u8]) }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let matrix = Matrix::builder().size(16 << 20).memfd("feed")?;
    /// let topic = matrix.topic::<Feed>("eu").open_or_create()?;
    /// let mut reader = topic.reader().start(Start::Earliest).open()?;
    ///
    /// let poster = topic.poster()?;
    /// poster.post(&Tick { sym: 7, px: 100 })?;      // one copy
    /// let mut loan = poster.loan_bytes(1000)?;      // none
    /// loan.fill(1);
    /// loan.commit()?;
    ///
    /// assert_eq!(reader.inquire().count(), 2);      // claims nothing
    /// assert_eq!(reader.read().view()?, Feed::Tick(Tick { sym: 7, px: 100 }));
    /// let blob = reader.read();                     // looked at where it lies
    /// assert_eq!(blob.bytes().len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic<S: MessageSet + ?Sized>(&self, name: &str) -> TopicBuilder<S> {
        let builder = Topic::builder(&self.core, name);
        match self.path() {
            Some(path) => builder.bells_beside(path),
            None => builder,
        }
    }

    /// Starts the settings for a service of that name (1 to 48 bytes): clients send requests of the set `Q`, and each
    /// gets a response of the set `A` from one of the servers.
    ///
    /// ```
    /// use atomic_matrix::{Matrix, Message};
    ///
    /// #[derive(Message, Clone, Copy)]
    /// #[repr(C)]
    /// struct Query { sym: u32, amount: u32 }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let matrix = Matrix::builder().size(16 << 20).memfd("market")?;
    /// let service = matrix.service::<Query, [u8]>("prices").open_or_create()?;
    /// let client = service.client()?;
    /// let pending = client.request(&Query { sym: 7, amount: 3 })?;
    ///
    /// let mut server = service.server()?;              // in another process
    /// let request = server.receive();                  // looked at where it lies
    /// let len_bytes = request.view()?.amount as usize;
    /// let mut response = request.loan_bytes(len_bytes)?; // nothing copied
    /// response.fill(1);
    /// response.send()?;
    ///
    /// assert_eq!(pending.wait()?.view()?, [1, 1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn service<Q, A>(&self, name: &str) -> ServiceBuilder<Q, A>
    where
        Q: MessageSet + ?Sized,
        A: MessageSet + ?Sized,
    {
        Service::builder(&self.core, name)
    }

    /// Removes the segment's name; mappings that exist live on, and the memory goes with the last.
    ///
    /// # Errors
    /// A segment that has no name, or whose name by now means another file, is left alone.
    pub fn destroy(&self) -> Result<(), am_shm::Error> {
        self.segment.destroy()
    }

    /// Returns the path of the segment's file; `None` for a memfd or an attached descriptor.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.segment.place()
    }

    /// Tells which huge pages the segment has, and what came of [`Builder::pages`].
    #[must_use]
    pub fn hugepages(&self) -> Hugepages {
        self.segment.hugepages()
    }

    /// Tells how large the pages are, how many bytes of the file exist ([`Builder::reserve`]) and how
    /// many are in this process's page tables ([`Builder::prefault`]), and in huge pages. Reads
    /// `/proc`, which takes the longer the more this process has mapped.
    ///
    /// # Errors
    /// [`SegmentError::Syscall`](crate::SegmentError::Syscall) when `/proc` is not mounted, or the
    /// file cannot be asked.
    pub fn residence(&self) -> Result<Residence, am_shm::Error> {
        self.segment.residence()
    }

    /// Tells whether this handle formatted the segment, rather than finding it ready.
    #[must_use]
    pub fn formatted_here(&self) -> bool {
        self.segment.formatted_here()
    }

    /// Returns the mapping.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        self.segment.mapping()
    }

    #[cfg(feature = "numa")]
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// What came of the wishes for NUMA nodes.
    #[cfg(feature = "numa")]
    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl Deref for Matrix {
    type Target = am_matrix::Matrix;

    #[inline]
    fn deref(&self) -> &am_matrix::Matrix {
        &self.core
    }
}

impl AsFd for Matrix {
    /// The descriptor of the segment's file, to pass to another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}
