//! A client: sends requests, waits for their responses.

use crate::error::{PostError, RequestError, ResponseError};
use crate::reader::Found;
use crate::service::NO_RESPONSE;
use crate::service::inbox::Inbox;
use crate::vigil::until;
use crate::{BadMessage, Info, KindOf, Loan, Message, MessageSet, Poster, Receipt};
use am_topic::{Held, Seq};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Sends requests of a service, and gets their responses. For one thread at a time.
///
/// Several requests may be outstanding at once. When it is dropped, or its process dies, servers
/// [learn](crate::Request::is_connected) of it, and nobody gets the responses.
pub struct Client<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    /// Stands before the poster, and so leaves before it: who has the number next finds its seat free.
    inbox: RefCell<Inbox<A>>,
    poster: Poster<Q>,
}

/// A request that was sent: its response will come, or is there. Dropping it forgets the request, which is served
/// all the same; its response is dropped when it comes.
#[must_use = "dropping it forgets the request"]
pub struct Pending<'c, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    client: &'c Client<Q, A>,
    request: Seq,
    taken: bool,
}

/// A response, looked at where it lies. Dropping it lets it go. Several may be looked at at once.
pub struct Response<'c, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    client: &'c Client<Q, A>,
    request: Seq,
    found: Found,
}

/// Memory for a request, to be filled in and sent; it derefs to the payload's bytes. Dropping it gives it back.
pub struct RequestLoan<'c, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> {
    client: &'c Client<Q, A>,
    loan: Loan<'c, Q>,
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Client<Q, A> {
    pub(super) fn new(inbox: Inbox<A>, poster: Poster<Q>) -> Self {
        poster.tag.set(inbox.id());
        Self { inbox: RefCell::new(inbox), poster }
    }

    /// Sends a message, a slice of messages, or text: one copy. Waits for room among the requests, if servers are
    /// slow, or there are none.
    ///
    /// # Errors
    /// [`RequestError::TooManyOutstanding`], [`PostError::Memory`] when there is none for it.
    pub fn request<K: KindOf<Q> + ?Sized>(
        &self,
        value: &K,
    ) -> Result<Pending<'_, Q, A>, RequestError> {
        self.lend(self.poster.loan_copy(value))?.send()
    }

    /// As [`request`](Self::request), but does not wait.
    ///
    /// # Errors
    /// As there, and [`PostError::Full`] when there is no room.
    pub fn try_request<K: KindOf<Q> + ?Sized>(
        &self,
        value: &K,
    ) -> Result<Pending<'_, Q, A>, RequestError> {
        let loan = self.lend(self.poster.loan_copy(value))?;
        loan.try_send().map_err(|(_, error)| error)
    }

    /// As [`request`](Self::request), but waits no longer than that to send it.
    ///
    /// # Errors
    /// As [`try_request`](Self::try_request).
    pub fn request_timeout<K: KindOf<Q> + ?Sized>(
        &self,
        value: &K,
        timeout: Duration,
    ) -> Result<Pending<'_, Q, A>, RequestError> {
        let loan = self.lend(self.poster.loan_copy(value))?;
        loan.send_by(until(timeout))
    }

    /// Lends memory for a request of that type, to be filled in and sent: nothing is copied. It holds a copy of
    /// `value` at first.
    ///
    /// # Errors
    /// [`PostError::Memory`].
    pub fn loan<T: Message + KindOf<Q>>(
        &self,
        value: T,
    ) -> Result<RequestLoan<'_, Q, A>, RequestError> {
        self.lend(self.poster.loan(value))
    }

    /// Lends memory for that many bytes; they hold whatever lay there before.
    ///
    /// # Errors
    /// [`PostError::Memory`], [`PostError::TooLong`].
    pub fn loan_bytes(&self, len_bytes: usize) -> Result<RequestLoan<'_, Q, A>, RequestError>
    where
        [u8]: KindOf<Q>,
    {
        self.lend(self.poster.loan_bytes(len_bytes))
    }

    /// Returns how many responses were dropped because nobody waited for them: those of forgotten requests, second
    /// ones of servers that died after they had responded, and those for one who had the client's number before.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inbox.borrow().dropped()
    }

    fn lend<'c>(
        &'c self,
        loan: Result<Loan<'c, Q>, PostError>,
    ) -> Result<RequestLoan<'c, Q, A>, RequestError> {
        Ok(RequestLoan { client: self, loan: loan? })
    }

    /// Makes sure that the response to one more request finds room.
    fn reserve(&self) -> Result<(), RequestError> {
        let mut inbox = self.inbox.borrow_mut();
        let maximum = inbox.room();
        if inbox.has_room() { Ok(()) } else { Err(RequestError::TooManyOutstanding { maximum }) }
    }

    fn pending(&self, receipt: Receipt) -> Pending<'_, Q, A> {
        self.inbox.borrow_mut().ask(receipt.seq);
        Pending { client: self, request: receipt.seq, taken: false }
    }
}

impl<'c, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Pending<'c, Q, A> {
    /// Waits for the response.
    ///
    /// # Errors
    /// [`ResponseError`] when there is none.
    pub fn wait(mut self) -> Result<Response<'c, Q, A>, ResponseError> {
        loop {
            if let Some(response) = self.wait_until(None)? {
                return Ok(response);
            }
        }
    }

    /// Waits for the response, no longer than that; `None` when it is not there by then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Response<'c, Q, A>>, ResponseError> {
        self.wait_until(until(timeout))
    }

    /// Takes the response, if it is there.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<Response<'c, Q, A>>, ResponseError> {
        self.take(|inbox, request| inbox.try_take(request))
    }

    /// Returns the request's number in the service, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.request
    }

    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Response<'c, Q, A>>, ResponseError> {
        self.take(|inbox, request| inbox.take(request, deadline))
    }

    fn take(
        &mut self,
        take: impl FnOnce(&mut Inbox<A>, Seq) -> Option<Held>,
    ) -> Result<Option<Response<'c, Q, A>>, ResponseError> {
        if self.taken {
            return Err(ResponseError::Taken);
        }
        let mut inbox = self.client.inbox.borrow_mut();
        let Some(held) = take(&mut inbox, self.request) else { return Ok(None) };
        self.taken = true;
        let found = match held.entry.kind {
            NO_RESPONSE => Err(ResponseError::Unanswered),
            _ => inbox.check(held).ok_or(ResponseError::Damaged),
        };
        if found.is_err() {
            inbox.let_go(held.seq);
        }
        found.map(|found| Some(Response { client: self.client, request: self.request, found }))
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Drop for Pending<'_, Q, A> {
    fn drop(&mut self) {
        if !self.taken {
            self.client.inbox.borrow_mut().forget(self.request);
        }
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Response<'_, Q, A> {
    /// Returns what the response is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever sent it made it by other means.
    pub fn view(&self) -> Result<A::View<'_>, BadMessage> {
        A::view(self.found.held.entry.kind, self.bytes())
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the client's matrix keeps the arena, and the cursor does not pass the response as long as this
        // guard lives.
        unsafe { self.found.bytes() }
    }

    /// Returns what is known of it; `poster` is the server's number, `seq` that among the client's responses.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.found.held, false)
    }

    /// Returns its request's number in the service, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.request
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Drop for Response<'_, Q, A> {
    fn drop(&mut self) {
        self.client.inbox.borrow_mut().let_go(self.found.held.seq);
    }
}

impl<'c, Q: MessageSet + ?Sized, A: MessageSet + ?Sized> RequestLoan<'c, Q, A> {
    /// Sends the request; waits for room among the requests.
    ///
    /// # Errors
    /// [`RequestError::TooManyOutstanding`]; [`PostError::Memory`] when somebody scribbled on the block.
    pub fn send(self) -> Result<Pending<'c, Q, A>, RequestError> {
        self.send_by(None)
    }

    /// Sends the request, but does not wait for room: then the loan comes back.
    ///
    /// # Errors
    /// [`RequestError::TooManyOutstanding`] and [`PostError::Full`] with the loan; [`PostError::Memory`] without.
    pub fn try_send(self) -> Result<Pending<'c, Q, A>, (Option<Self>, RequestError)> {
        if let Err(error) = self.client.reserve() {
            return Err((Some(self), error));
        }
        let Self { client, loan } = self;
        match loan.try_commit() {
            Ok(receipt) => Ok(client.pending(receipt)),
            Err((loan, error)) => Err((loan.map(|loan| Self { client, loan }), error.into())),
        }
    }

    fn send_by(self, deadline: Option<Instant>) -> Result<Pending<'c, Q, A>, RequestError> {
        self.client.reserve()?;
        let receipt = self.loan.commit_by(deadline)?;
        Ok(self.client.pending(receipt))
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> Deref for RequestLoan<'_, Q, A> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.loan
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> DerefMut for RequestLoan<'_, Q, A> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.loan
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Client<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.poster.shared.name)
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Pending<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", self.request)
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for Response<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {:?})", self.request, self.info())
    }
}

impl<Q: MessageSet + ?Sized, A: MessageSet + ?Sized> std::fmt::Debug for RequestLoan<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestLoan({} bytes)", self.loan.len())
    }
}
