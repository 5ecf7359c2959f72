//! What the victim does with a service, whose topics and messages are damaged.

use std::hint::black_box;
use std::time::Duration;

use am_matrix::{Matrix, Offset, SERVICE_KIND};
use anyhow::Result;
use atomic_matrix::{
    Client, Pending, Request, RequestError, Response, Server, Service, ServiceBuilder, WaitStrategy,
};
use self_cell::{MutBorrow, self_cell};

use super::messages::{Set, judge};
use super::player::{Broken, Player};
use super::step::{AnswerBy, Asking, Keeping};

/// The service's name.
const NAME: &str = "service";
/// Reply topics.
pub(super) const CLIENTS: usize = 2;
/// Clients, servers, and requests of a client, that the victim has at most.
const KEPT_MAX: usize = 6;
/// Longest wait of a call.
const SHORT: Duration = Duration::from_micros(100);
/// More turns than there are requests; who looks at them all comes to an end.
const INQUIRIES_MAX: usize = 1 << 12;

fn service(matrix: &Matrix) -> ServiceBuilder<Set, Set> {
    // Few looks before a sleep: who waits shall sleep, too.
    let strategy = WaitStrategy::SpinThenPark { spins: 2, yields: 1 };
    let builder = Service::builder(matrix, NAME).clients(CLIENTS).capacity(64).outstanding(64);
    builder.wait(strategy)
}

/// Makes the service in a new segment; returns where its block lies.
///
/// # Errors
/// There is no room.
pub(super) fn found_service(matrix: &Matrix) -> Result<Offset> {
    service(matrix).create()?;
    Ok(matrix.open_named(NAME, SERVICE_KIND)?.offset())
}

/// What a client has asked, and what it looks at.
#[derive(Default)]
struct Hand<'c> {
    pending: Vec<Pending<'c, Set, Set>>,
    responses: Vec<Response<'c, Set, Set>>,
}

self_cell! {
    struct Asker {
        owner: Client<Set, Set>,
        #[covariant]
        dependent: Hand,
    }
}

type InHand<'s> = Option<Request<'s, Set, Set>>;

self_cell! {
    struct Busy {
        owner: MutBorrow<Server<Set, Set>>,
        #[covariant]
        dependent: InHand,
    }
}

/// A server, perhaps with a request in hand.
enum Attendant {
    Idle(Box<Server<Set, Set>>),
    Busy(Busy),
}

/// The victim's clients and servers.
#[derive(Default)]
pub(super) struct Bureau {
    service: Option<Service<Set, Set>>,
    clients: Vec<Asker>,
    servers: Vec<Attendant>,
}

impl Bureau {
    /// A client that has asked, and a server that has a request in hand and one half answered, as far as the segment
    /// allows.
    pub fn of_the_dead(matrix: &Matrix) -> Self {
        let mut dead = Self::default();
        let Ok(service) = service(matrix).open() else { return dead };
        if let Ok(client) = service.client() {
            // Refused, perhaps.
            let asked = client.try_request("who is there?").map(std::mem::forget);
            black_box(asked.is_ok());
            dead.clients.push(Asker::new(client, |_| Hand::default()));
        }
        if let Ok(mut server) = service.server() {
            if let Some(held) = server.try_receive() {
                std::mem::forget(held);
            }
            dead.servers.push(Attendant::Idle(Box::new(server)));
        }
        dead
    }

    /// Performs one call, on a service that is opened by `matrix` if none is yet.
    ///
    /// # Errors
    /// [`Broken`], when the answer is none that the call may give.
    pub fn ask(
        &mut self,
        player: &mut Player<'_>,
        matrix: &Matrix,
        asking: Asking,
    ) -> Result<(), Broken> {
        match asking {
            Asking::OpenService => self.service = player.seen(service(matrix).open()),
            Asking::Client => {
                let Some(service) = self.service(player, matrix) else { return Ok(()) };
                let client = player.seen(service.client());
                self.clients.extend(client.map(|client| Asker::new(client, |_| Hand::default())));
                self.clients.truncate(KEPT_MAX);
            }
            Asking::Server => {
                let Some(service) = self.service(player, matrix) else { return Ok(()) };
                self.servers
                    .extend(player.seen(service.server()).map(Box::new).map(Attendant::Idle));
                self.servers.truncate(KEPT_MAX);
            }
            Asking::DropClient { which } => drop(take(&mut self.clients, which)),
            Asking::DropServer { which } => drop(take(&mut self.servers, which)),
            Asking::Receive { which, .. }
            | Asking::Answer { which, .. }
            | Asking::Inquire { which } => {
                let Some(attendant) = take(&mut self.servers, which) else { return Ok(()) };
                self.servers.push(attend(player, attendant, asking)?);
            }
            Asking::Ask { which, .. }
            | Asking::AskByLoan { which, .. }
            | Asking::Take { which, .. }
            | Asking::DropPending { which, .. }
            | Asking::DropResponse { which, .. } => {
                let at = usize::from(which).checked_rem(self.clients.len());
                let Some(asker) = at.map(|at| &mut self.clients[at]) else { return Ok(()) };
                asker.with_dependent_mut(|client, hand| consult(player, client, hand, asking))?;
            }
        }
        Ok(())
    }

    fn service(&mut self, player: &mut Player<'_>, matrix: &Matrix) -> Option<Service<Set, Set>> {
        if self.service.is_none() {
            self.service = player.seen(service(matrix).open_or_create());
        }
        self.service.clone()
    }
}

/// What a client does.
fn consult<'c>(
    player: &mut Player<'_>,
    client: &'c Client<Set, Set>,
    hand: &mut Hand<'c>,
    asking: Asking,
) -> Result<(), Broken> {
    black_box(client.dropped());
    match asking {
        Asking::Ask { len, waits, .. } => {
            let bytes = &[b'q'; u8::MAX as usize][..len.into()];
            let asked = match waits {
                true => client.request_timeout(bytes, SHORT),
                false => client.try_request(bytes),
            };
            keep(&mut hand.pending, player.seen(asked));
        }
        Asking::AskByLoan { size, sends, .. } => {
            let Some(mut loan) = player.seen(client.loan_bytes(size.bytes())) else {
                return Ok(());
            };
            if let Some(last) = loan.last_mut() {
                *last = 7;
            }
            if sends {
                let sent = loan.try_send().map_err(|(_, error): (_, RequestError)| error);
                keep(&mut hand.pending, player.seen(sent));
            }
        }
        Asking::Take { request, waits, end, .. } => {
            let Some(mut pending) = take(&mut hand.pending, request) else { return Ok(()) };
            let taken = if waits { pending.wait_timeout(SHORT) } else { pending.try_wait() };
            let response = match player.seen(taken) {
                Some(Some(response)) => response,
                // It is asked again, another time.
                Some(None) => {
                    hand.pending.push(pending);
                    return Ok(());
                }
                None => return Ok(()),
            };
            player.must_be_inside(response.bytes().as_ptr(), response.bytes().len())?;
            black_box((response.info(), response.seq(), response.bytes().last()));
            black_box(player.seen(response.view()).map(|view| judge(&view)));
            match end {
                Keeping::Drop => drop(response),
                Keeping::Keep => keep(&mut hand.responses, Some(response)),
                Keeping::Forget => std::mem::forget(response),
            }
        }
        Asking::DropPending { request, .. } => drop(take(&mut hand.pending, request)),
        Asking::DropResponse { response, .. } => {
            let Some(response) = take(&mut hand.responses, response) else { return Ok(()) };
            // What it says may have changed since.
            black_box(player.seen(response.view()).map(|view| judge(&view)));
        }
        _ => {}
    }
    Ok(())
}

/// What a server does.
fn attend(
    player: &mut Player<'_>,
    attendant: Attendant,
    asking: Asking,
) -> Result<Attendant, Broken> {
    Ok(match (attendant, asking) {
        (Attendant::Idle(server), Asking::Receive { waits, .. }) => {
            let busy = Busy::new(MutBorrow::new(*server), |server| {
                let server = server.borrow_mut();
                if waits { server.receive_timeout(SHORT) } else { server.try_receive() }
            });
            look(player, busy.borrow_dependent().as_ref())?;
            Attendant::Busy(busy)
        }
        (Attendant::Idle(server), _) => {
            black_box(server.missed());
            match server.inquire().take(INQUIRIES_MAX).count() {
                INQUIRIES_MAX => return Err(Broken("inquiring comes to no end".into())),
                _ => Attendant::Idle(server),
            }
        }
        (Attendant::Busy(mut busy), Asking::Answer { by, .. }) => {
            busy.with_dependent_mut(|_, request| {
                look(player, request.as_ref())?;
                request.take().map_or(Ok(()), |request| answer(player, request, by))
            })?;
            Attendant::Idle(Box::new(busy.into_owner().into_inner()))
        }
        (busy, _) => busy,
    })
}

fn look(player: &mut Player<'_>, request: Option<&Request<'_, Set, Set>>) -> Result<(), Broken> {
    let Some(request) = player.seen(request.ok_or(())) else { return Ok(()) };
    player.must_be_inside(request.bytes().as_ptr(), request.bytes().len())?;
    black_box((request.info(), request.seq(), request.attempts(), request.is_connected()));
    black_box(player.seen(request.view()).map(|view| judge(&view)));
    Ok(())
}

fn answer(
    player: &mut Player<'_>,
    request: Request<'_, Set, Set>,
    by: AnswerBy,
) -> Result<(), Broken> {
    match by {
        AnswerBy::Value { len } => {
            let letters = [b'a'; u8::MAX as usize];
            player.seen(request.respond(&letters[..len.into()]));
        }
        AnswerBy::Loan { size, sends } => {
            let loan = request.loan_bytes(size.bytes());
            let Some(mut loan) = player.seen(loan) else { return Ok(()) };
            let (request, bytes) = loan.parts();
            black_box(request.bytes().first());
            if let Some(last) = bytes.last_mut() {
                *last = 7;
            }
            if sends {
                player.seen(loan.send());
            }
        }
        AnswerBy::GivingBack => request.nack(),
        AnswerBy::Dropping => drop(request),
        AnswerBy::Forgetting => std::mem::forget(request),
    }
    Ok(())
}

fn keep<T>(into: &mut Vec<T>, value: Option<T>) {
    into.extend(value);
    into.truncate(KEPT_MAX);
}

fn take<T>(from: &mut Vec<T>, which: u8) -> Option<T> {
    let at = usize::from(which).checked_rem(from.len())?;
    Some(from.swap_remove(at))
}
