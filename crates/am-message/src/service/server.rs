//! A server: takes requests, responds.

use crate::error::PostError;
use crate::reader::Found;
use crate::service::NO_RESPONSE;
use crate::vigil::until;
use crate::{BadMessage, Info, KindOf, Loan, Message, MessageSet, Poster, Reader, Received};
use am_topic::{ReaderId, Seq};
use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::{Duration, Instant};

/// Takes requests of a service, one at a time, and responds. For one thread at a time.
///
/// Servers share the requests: each goes to one of them. What one had when it left or died goes to another.
pub struct Server<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    reader: Reader<Q>,
    /// By the client's number.
    posters: Vec<Poster<A>>,
}

/// A request, looked at where it lies, which is this server's until it responds.
///
/// Dropping it without a response tells the client that there will be none; if the thread panics, it is given
/// [back](Self::nack) instead.
pub struct Request<'s, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    /// `None` once it is responded to.
    received: Option<Received<'s, Q>>,
    poster: &'s Poster<A>,
}

/// Memory for a response, to be filled in; it derefs to the payload's bytes. Dropping it drops the request.
pub struct ResponseLoan<'s, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    loan: Loan<'s, A>,
    request: Request<'s, Q, A>,
}

/// What became of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// It is there for the client.
    Sent,
    /// The client left, or died and was recovered from: nothing was sent.
    ClientGone,
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Server<Q, A> {
    pub(super) fn new(reader: Reader<Q>, posters: Vec<Poster<A>>) -> Self {
        Self { reader, posters }
    }

    /// Takes the next request; waits for it.
    pub fn receive(&mut self) -> Request<'_, Q, A> {
        loop {
            if let Some(found) = self.look_until(None) {
                return self.request(found);
            }
        }
    }

    /// Takes the next request, if it is there.
    pub fn try_receive(&mut self) -> Option<Request<'_, Q, A>> {
        let found = look(&mut self.reader, self.posters.len())?;
        Some(self.request(found))
    }

    /// Takes the next request; waits no longer than that.
    pub fn receive_timeout(&mut self, timeout: Duration) -> Option<Request<'_, Q, A>> {
        let found = self.look_until(until(timeout))?;
        Some(self.request(found))
    }

    /// Looks at the requests that no server took yet, without taking any.
    pub fn inquire(&self) -> impl Iterator<Item = Info> + '_ {
        self.reader.inquire()
    }

    /// Returns how many requests this server found damaged: nobody responds to them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.reader.missed()
    }

    fn look_until(&mut self, deadline: Option<Instant>) -> Option<Found> {
        let clients = self.posters.len();
        self.reader.wait_until(deadline, |reader| look(reader, clients))
    }

    fn request(&mut self, found: Found) -> Request<'_, Q, A> {
        // `look` made sure that the number is a client's.
        let poster = &self.posters[found.held.entry.poster as usize];
        Request { received: Some(self.reader.receive(found)), poster }
    }
}

/// The next request of a client that there can be, held and checked.
fn look<Q: MessageSet + ?Sized>(reader: &mut Reader<Q>, clients: usize) -> Option<Found> {
    loop {
        let found = reader.look()?;
        if (found.held.entry.poster as usize) < clients {
            return Some(found);
        }
        // Somebody scribbled on it.
        reader.damaged += 1;
        reader.pass_over();
    }
}

impl<'s, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Request<'s, Q, A> {
    /// Returns what the request is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever sent it made it by other means.
    pub fn view(&self) -> Result<Q::View<'_>, BadMessage> {
        self.received().view()
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.received().bytes()
    }

    /// Returns what is known of it; `poster` is the client's number.
    #[must_use]
    pub fn info(&self) -> Info {
        self.received().info()
    }

    /// Returns its number among the service's requests, from 0: the client's
    /// [`Pending::seq`](crate::Pending::seq).
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.received().seq()
    }

    /// Tells whether another server had the request before and did not respond, or died before it was seen to.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.attempts() > 0
    }

    /// Returns how often servers had the request before; 15 for more.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.received().attempts()
    }

    /// Tells whether the client is there still, so that responding is of use. One that died is until it is
    /// recovered from.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.poster.shared.topic.has_reader(ReaderId::from_raw(self.received().tag()))
    }

    /// Responds with a message, a slice of messages, or text: one copy. Never waits for the client.
    ///
    /// # Errors
    /// [`PostError::Memory`] when there is none for it. [`PostError::Full`] when more servers died after they had
    /// responded to this client than the 64 surplus responses that there is room for, or somebody scribbled. The request is given
    /// [back](Self::nack) then.
    pub fn respond<K: KindOf<A> + ?Sized>(self, value: &K) -> Result<Delivery, PostError> {
        self.lend(|poster| poster.loan_copy(value))?.send()
    }

    /// Lends memory for a response of that type, to be filled in and sent: nothing is copied. It holds a copy
    /// of `value` at first.
    ///
    /// # Errors
    /// [`PostError::Memory`]; the request is given [back](Self::nack) then.
    pub fn loan<T: Message + KindOf<A>>(
        self,
        value: T,
    ) -> Result<ResponseLoan<'s, Q, A>, PostError> {
        self.lend(|poster| poster.loan(value))
    }

    /// Lends memory for that many bytes; they hold whatever lay there before.
    ///
    /// # Errors
    /// [`PostError::Memory`], [`PostError::TooLong`]; the request is given [back](Self::nack) then.
    pub fn loan_bytes(self, len_bytes: usize) -> Result<ResponseLoan<'s, Q, A>, PostError>
    where
        [u8]: KindOf<A>,
    {
        self.lend(|poster| poster.loan_bytes(len_bytes))
    }

    /// Gives the request back: another server gets it, or this one when it has nothing else to do.
    pub fn nack(mut self) {
        self.give_back();
    }

    fn lend(
        mut self,
        lend: impl FnOnce(&'s Poster<A>) -> Result<Loan<'s, A>, PostError>,
    ) -> Result<ResponseLoan<'s, Q, A>, PostError> {
        match lend(self.poster) {
            Ok(loan) => Ok(ResponseLoan { loan, request: self }),
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    /// Sends the response; then the request is done, whatever a death in between leaves to another server.
    fn finish(&mut self, loan: Loan<'s, A>) -> Result<Delivery, PostError> {
        let sent = self.send(loan);
        match sent {
            Ok(_) => drop(self.received.take()),
            Err(_) => self.give_back(),
        }
        sent
    }

    fn send(&self, loan: Loan<'s, A>) -> Result<Delivery, PostError> {
        if !self.is_connected() {
            return Ok(Delivery::ClientGone);
        }
        self.poster.tag.set(self.seq().0);
        match loan.try_commit() {
            Ok(_) => Ok(Delivery::Sent),
            Err((_, PostError::Full)) if !self.is_connected() => Ok(Delivery::ClientGone),
            Err((_, error)) => Err(error),
        }
    }

    fn give_back(&mut self) {
        if let Some(received) = self.received.take() {
            received.nack();
        }
    }

    fn received(&self) -> &Received<'s, Q> {
        self.received.as_ref().expect("taken only by what ends the request")
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Drop for Request<'_, Q, A> {
    fn drop(&mut self) {
        // Of one that panics, the received message gives itself back.
        if self.received.is_some() && !thread::panicking() {
            match self.poster.lend(0, 1, NO_RESPONSE) {
                // An error: it was given back.
                Ok(loan) => drop(self.finish(loan)),
                Err(_) => self.give_back(),
            }
        }
    }
}

impl<'s, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> ResponseLoan<'s, Q, A> {
    /// Sends the response. Never waits for the client.
    ///
    /// # Errors
    /// As [`Request::respond`].
    pub fn send(self) -> Result<Delivery, PostError> {
        let Self { loan, mut request } = self;
        request.finish(loan)
    }

    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &Request<'s, Q, A> {
        &self.request
    }

    /// Returns the request beside the bytes of its response, to make the one of the other.
    #[must_use]
    pub fn parts(&mut self) -> (&Request<'s, Q, A>, &mut [u8]) {
        (&self.request, &mut self.loan)
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Deref for ResponseLoan<'_, Q, A> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.loan
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> DerefMut for ResponseLoan<'_, Q, A> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.loan
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Server<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?})", self.reader.shared.name)
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Request<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({:?})", self.received.as_ref().map(Received::info))
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for ResponseLoan<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResponseLoan({} bytes for {:?})", self.loan.len(), self.request)
    }
}
