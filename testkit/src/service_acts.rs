//! What actors do with a service. They have thread caches, as users do.

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Client, Delivery, Matrix, Pending, PostError, Request, Server, Service};

use crate::acts::Actor;
use crate::asker::answer_to;
use crate::letter::{fill, payload, read};
use crate::service_plot::{NAME, Plot};

/// The length of each request and response, as the scene has it.
fn len_bytes(actor: &Actor<'_>) -> Result<usize> {
    Ok(actor.stage.context("no stage")?.cue.request_bytes)
}

/// Opens the segment, and has memory for a message at hand.
fn matrix(actor: &Actor<'_>) -> Result<Matrix> {
    let matrix = actor.open_cached()?;
    drop(matrix.allocate(len_bytes(actor)?)?);
    Ok(matrix)
}

fn service(actor: &Actor<'_>) -> Result<Service<[u8], [u8]>> {
    Ok(matrix(actor)?.service(NAME).open()?)
}

fn request_of(actor: &Actor<'_>, index: u64) -> Result<Vec<u8>> {
    Ok(payload(actor.number, index, len_bytes(actor)?))
}

/// A client that has asked so many, and forgotten none.
fn client(actor: &Actor<'_>, asked: u64) -> Result<Client<[u8], [u8]>> {
    let client = service(actor)?.client()?;
    for index in 0..asked {
        std::mem::forget(client.try_request(&request_of(actor, index)?[..])?);
    }
    Ok(client)
}

/// The response to a request, from this actor.
fn response(actor: &Actor<'_>, request: &[u8]) -> Result<Vec<u8>> {
    let (owner, index) = read(request)?;
    Ok(payload(actor.number, answer_to(owner, index), request.len()))
}

/// Asks `count` requests and answers them by a server that leaves.
fn ask_and_answer<'c>(
    actor: &Actor<'_>,
    client: &'c Client<[u8], [u8]>,
    count: u64,
) -> Result<Vec<Pending<'c, [u8], [u8]>>> {
    let ask = |index| Ok(client.try_request(&request_of(actor, index)?[..])?);
    let pending = (0..count).map(ask).collect::<Result<Vec<_>>>()?;
    let mut server = service(actor)?.server()?;
    for _ in 0..count {
        let request = server.try_receive().context("nothing to answer")?;
        let response = response(actor, request.bytes())?;
        request.respond(&response[..])?;
    }
    Ok(pending)
}

/// Checks what the first request's response says.
fn is_answer(actor: &Actor<'_>, bytes: &[u8], index: u64) -> Result<()> {
    let right = (actor.number, answer_to(actor.number, index));
    let seen = read(bytes)?;
    ensure!(seen == right, "the answer is {seen:?}");
    Ok(())
}

pub(crate) fn create(actor: &Actor<'_>) -> Result<()> {
    let matrix = actor.open_cached()?;
    let builder = Plot::NONE_YET.builder(&matrix);
    actor.mark(|| builder.open_or_create())?;
    Ok(())
}

pub(crate) fn open(actor: &Actor<'_>) -> Result<()> {
    let matrix = matrix(actor)?;
    actor.mark(|| matrix.service::<[u8], [u8]>(NAME).open())?;
    Ok(())
}

pub(crate) fn open_client(actor: &Actor<'_>) -> Result<()> {
    let service = service(actor)?;
    actor.mark(|| service.client())?;
    Ok(())
}

/// It has asked, and nobody has answered.
pub(crate) fn drop_client(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 1)?;
    actor.mark(|| drop(client));
    Ok(())
}

pub(crate) fn ask(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 1)?;
    let request = request_of(actor, 1)?;
    let asked = actor.mark(|| client.try_request(&request[..]).map(std::mem::forget));
    Ok(asked?)
}

/// The client's first: it looks for the lowest cursor.
pub(crate) fn ask_first(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 0)?;
    let request = request_of(actor, 0)?;
    let asked = actor.mark(|| client.try_request(&request[..]).map(std::mem::forget));
    Ok(asked?)
}

pub(crate) fn ask_by_loan(actor: &Actor<'_>) -> Result<()> {
    let (client, len) = (client(actor, 1)?, len_bytes(actor)?);
    let asked = actor.mark(|| {
        let mut loan = client.loan_bytes(len)?;
        fill(&mut loan, actor.number, 1);
        loan.send().map(std::mem::forget)
    });
    Ok(asked?)
}

pub(crate) fn take(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 0)?;
    let mut pending = ask_and_answer(actor, &client, 3)?.into_iter();
    let mut first = pending.next().context("nothing was asked")?;
    let response = actor.mark(|| first.try_wait())?.context("no response")?;
    is_answer(actor, response.bytes(), 0)
}

/// The second response first: the cursor stays, and then goes over both.
pub(crate) fn drop_out_of_order(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 0)?;
    let mut pending = ask_and_answer(actor, &client, 3)?;
    let mut response = |at: usize| pending[at].try_wait()?.context("no response");
    let (first, second) = (response(0)?, response(1)?);
    is_answer(actor, first.bytes(), 0)?;
    is_answer(actor, second.bytes(), 1)?;
    actor.mark(|| {
        drop(second);
        drop(first);
    });
    Ok(())
}

/// Its response is there, and the client has taken note of it.
pub(crate) fn drop_pending(actor: &Actor<'_>) -> Result<()> {
    let client = client(actor, 0)?;
    let mut pending = ask_and_answer(actor, &client, 3)?;
    let mut last = pending.pop().context("nothing was asked")?;
    let response = last.try_wait()?.context("no response")?;
    is_answer(actor, response.bytes(), 2)?;
    actor.mark(|| pending.clear());
    ensure!(client.dropped() == 2, "{} responses were dropped", client.dropped());
    Ok(())
}

pub(crate) fn open_server(actor: &Actor<'_>) -> Result<()> {
    let service = service(actor)?;
    actor.mark(|| service.server())?;
    Ok(())
}

/// It has a request.
pub(crate) fn drop_server(actor: &Actor<'_>) -> Result<()> {
    let mut server = service(actor)?.server()?;
    std::mem::forget(server.try_receive().context("nothing to receive")?);
    actor.mark(|| drop(server));
    Ok(())
}

/// What it takes it keeps, until it is dead.
pub(crate) fn receive(actor: &Actor<'_>) -> Result<()> {
    let mut server = service(actor)?.server()?;
    let taken = actor.mark(|| server.try_receive().map(std::mem::forget));
    taken.context("nothing to receive")
}

/// Ends a request of a server that has taken note of room for its response.
fn end_request(
    actor: &Actor<'_>,
    end: impl for<'s> FnOnce(Request<'s, [u8], [u8]>, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut server: Server<[u8], [u8]> = service(actor)?.server()?;
    let request = server.try_receive().context("nothing to answer")?;
    let response = response(actor, request.bytes())?;
    end(request, &response)
}

fn is_sent(delivery: Result<Delivery, PostError>) -> Result<()> {
    ensure!(delivery == Ok(Delivery::Sent), "{delivery:?}");
    Ok(())
}

pub(crate) fn respond(actor: &Actor<'_>) -> Result<()> {
    end_request(actor, |request, response| is_sent(actor.mark(|| request.respond(response))))
}

pub(crate) fn respond_by_loan(actor: &Actor<'_>) -> Result<()> {
    end_request(actor, |request, response| {
        is_sent(actor.mark(|| {
            let mut loan = request.loan_bytes(response.len())?;
            loan.copy_from_slice(response);
            loan.send()
        }))
    })
}

/// The client is told that there is no response.
pub(crate) fn drop_request(actor: &Actor<'_>) -> Result<()> {
    end_request(actor, |request, _| {
        actor.mark(|| drop(request));
        Ok(())
    })
}

pub(crate) fn give_back(actor: &Actor<'_>) -> Result<()> {
    end_request(actor, |request, _| {
        actor.mark(|| request.nack());
        Ok(())
    })
}
