//! Reading in async code: a future that lends a message, a stream of copies.
//!
//! The reader's bell is a descriptor that some reactor must watch. This is `async-io`'s, which has a thread of its
//! own and so works under every executor, tokio included; a feature for each runtime would do the same thing
//! several times. Who has a reactor already watches [`Reader::bell`] by that.

use crate::error::TopicError;
use crate::reader::Found;
use crate::vigil::RECOVERY_EVERY;
use crate::{MessageSet, Owned, Reader, ReaderBuilder, Received};
use async_io::{Async, Timer};
use futures_core::Stream;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest wait between two looks: what a ring costs that never comes, because its poster died before it.
const SLICE: Duration = Duration::from_secs(1);
/// Rings in a row without a message, before others get the executor.
const RINGS_MAX: u32 = 16;

/// A [`Reader`] whose waits are futures. It derefs to the reader, for all that does not wait.
///
/// An idle one looks once a second, or ten times if it waits for other readers.
pub struct AsyncReader<S: MessageSet + ?Sized> {
    /// Stands before the reader, whose bell it watches.
    bell: ManuallyDrop<Async<OwnedFd>>,
    slice: ManuallyDrop<Timer>,
    period: Duration,
    reader: Reader<S>,
}

impl<S: MessageSet + ?Sized> ReaderBuilder<S> {
    /// As [`open`](Self::open), with a [bell](Self::with_bell), for async code under any executor.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`TopicError::Watch`] when the bell cannot be watched.
    pub fn open_async(self) -> Result<AsyncReader<S>, TopicError> {
        AsyncReader::over(self.with_bell().open()?)
    }
}

impl<S: MessageSet + ?Sized> AsyncReader<S> {
    fn over(reader: Reader<S>) -> Result<Self, TopicError> {
        let name = reader.shared.name.clone();
        let bell = reader.bell().ok_or_else(|| TopicError::NoBell { name: name.clone() })?;
        // A descriptor of its own, which is closed before the bell.
        let watched = bell.as_fd().try_clone_to_owned().and_then(Async::new_nonblocking);
        let watched = watched.map_err(|cause| TopicError::Watch { name, cause })?;
        let period = if reader.depends() { RECOVERY_EVERY } else { SLICE };
        let (bell, slice) =
            (ManuallyDrop::new(watched), ManuallyDrop::new(Timer::interval(period)));
        Ok(Self { bell, slice, period, reader })
    }

    /// Takes the next message; waits for it.
    ///
    /// The message is looked at where it lies, and stays as it is until what is returned is dropped: in a
    /// lossless topic, posters may wait for that. A future that is dropped has taken nothing.
    pub async fn next(&mut self) -> Received<'_, S> {
        let found = poll_fn(|context| self.poll_found(context)).await;
        self.reader.receive(found)
    }

    /// Turns it into a stream of copies, which never ends. A member of a group is done with a message when it is
    /// copied.
    ///
    /// A stream cannot lend its items; where a copy costs too much, call [`next`](Self::next) in a loop.
    pub fn into_stream(self) -> MessageStream<S> {
        MessageStream { reader: self }
    }

    /// Takes the next message, held, or says who is to be woken when there may be one.
    fn poll_found(&mut self, context: &mut Context<'_>) -> Poll<Found> {
        if !self.reader.shared.matrix.is_ours() {
            // In a child of fork, the reactor's descriptors are the parent's.
            return Poll::Pending;
        }
        for _ in 0..RINGS_MAX {
            if let Some(found) = self.reader.look() {
                return Poll::Ready(found);
            }
            // A bell that fails leaves the slices.
            if let Ok(Some(found)) = self.reader.arm_or(Reader::look) {
                return Poll::Ready(found);
            }
            let rung = matches!(self.bell.poll_readable(context), Poll::Ready(Ok(())));
            let over = Pin::new(&mut *self.slice).poll_next(context).is_ready();
            if over {
                // From now on: intervals that went by while there was enough to read are none to catch up.
                self.slice.set_interval(self.period);
            }
            if over && self.reader.depends() {
                // Others that this one waits for may be dead.
                self.reader.vigil.wait(&self.reader.shared.matrix);
            }
            if !rung && !over {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: MessageSet + ?Sized> Drop for AsyncReader<S> {
    fn drop(&mut self) {
        // A child of fork shares the reactor's descriptors: it would take the parent's bell out.
        if self.reader.shared.matrix.is_ours() {
            // SAFETY: neither is used any more.
            unsafe { ManuallyDrop::drop(&mut self.bell) };
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.slice) };
        }
    }
}

impl<S: MessageSet + ?Sized> Deref for AsyncReader<S> {
    type Target = Reader<S>;

    fn deref(&self) -> &Reader<S> {
        &self.reader
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for AsyncReader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Async{:?}", self.reader)
    }
}

/// The messages of a reader, as a stream of copies.
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct MessageStream<S: MessageSet + ?Sized> {
    reader: AsyncReader<S>,
}

impl<S: MessageSet + ?Sized> MessageStream<S> {
    /// Returns the reader, for all that does not wait: [`missed`](Reader::missed), say.
    pub fn reader(&self) -> &Reader<S> {
        &self.reader
    }

    /// Turns it back into the reader.
    pub fn into_inner(self) -> AsyncReader<S> {
        self.reader
    }
}

impl<S: MessageSet + ?Sized> Stream for MessageStream<S> {
    type Item = Owned<S>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Owned<S>>> {
        let this = &mut self.reader;
        this.poll_found(context).map(|found| Some(this.reader.receive(found).copied()))
    }
}
