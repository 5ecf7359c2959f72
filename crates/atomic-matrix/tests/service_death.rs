//! Services between processes: what becomes of requests and responses when a server or a client is killed.

mod common;

use atomic_matrix::{Client, Delivery, Matrix, Pending, Server, Service};
use common::child::{Actor, role, say};
use common::{MIB, Random, Scratch, assert_sound};
use std::collections::VecDeque;
use std::io::BufRead;
use std::thread;
use std::time::{Duration, Instant};

/// A request of numbers that is to be answered by numbers.
type Asked<'c> = Pending<'c, [u64], [u64]>;

const SOON: Duration = Duration::from_secs(20);

type Work = Service<[u64], [u64]>;

fn service(matrix: &Matrix) -> Work {
    matrix.service("work").clients(4).open_or_create().expect("opens")
}

/// What a server answers: as many words, each made of that of the request.
fn answer(query: &[u64]) -> Vec<u64> {
    query.iter().map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

/// A child of these tests: a server, or a client that does what it is told by lines.
#[test]
fn child_entry() {
    let Some((role, segment)) = role() else { return };
    let matrix = Matrix::builder().open(&segment).expect("opens");
    let service = service(&matrix);
    match role.as_str() {
        "server" => obey_as_server(service.server().expect("joins")),
        "client" => obey_as_client(&service.client().expect("joins")),
        "worker" => serve_all(service.server().expect("joins")),
        "asker" => ask_all(&service.client().expect("joins"), matrix.participants().len() as u64),
        other => panic!("no role: {other}"),
    }
}

fn obey_as_server(mut server: Server<[u64], [u64]>) {
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let request = server.receive_timeout(SOON).expect("sent");
        let asked = request.view().expect("words").to_vec();
        let attempts = request.attempts();
        match line.expect("text").as_str() {
            "take" => std::mem::forget(request),
            "respond" => drop(request.respond(&answer(&asked)[..]).expect("responds")),
            other => panic!("no order: {other}"),
        }
        say(format!("{} {attempts}", asked[0]));
    }
}

fn obey_as_client(client: &Client<[u64], [u64]>) {
    say("ready");
    let mut pending = VecDeque::new();
    for line in std::io::stdin().lock().lines() {
        match line.expect("text").as_str() {
            "wait" => say(first_word(pending.pop_front().expect("asked"))),
            asked => {
                let asked: u64 = asked.parse().expect("a number");
                pending.push_back(client.request(&[asked][..]).expect("sends"));
                say("asked");
            }
        }
    }
}

fn first_word(pending: Pending<'_, [u64], [u64]>) -> u64 {
    pending.wait().expect("answered").view().expect("words")[0]
}

/// Serves until it is killed.
fn serve_all(mut server: Server<[u64], [u64]>) {
    say("ready");
    loop {
        let request = server.receive();
        let words = answer(request.view().expect("words"));
        request.respond(&words[..]).expect("responds");
    }
}

/// Asks much, several at once, and checks every word of every response.
fn ask_all(client: &Client<[u64], [u64]>, seed: u64) {
    let mut random = Random(seed * 7919 + 1);
    let mut pending: Vec<(Vec<u64>, Asked<'_>)> = Vec::new();
    for n in 0..3000u64 {
        let query: Vec<u64> =
            (0..1 + random.below(100) as u64).map(|i| seed << 40 | n << 8 | i).collect();
        let sent = client.request(&query[..]).expect("sends");
        pending.push((query, sent));
        if pending.len() == 8 {
            // From whichever on: all but the last are taken before others are sent.
            while pending.len() > 1 {
                let (query, sent) = pending.swap_remove(random.below(pending.len()));
                let response = sent.wait().expect("answered");
                assert_eq!(response.view().expect("words"), answer(&query));
            }
        }
    }
    for (query, sent) in pending {
        assert_eq!(sent.wait().expect("answered").view().expect("words"), answer(&query));
    }
    say(format!("dropped {}", client.dropped()));
}

fn start(role: &str) -> (Scratch, Matrix, Work, Actor) {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(16 * MIB as u64).create(&scratch.name()).expect("creates");
    let service = service(&matrix);
    let mut actor = Actor::start(role, &scratch.name());
    assert_eq!(actor.answer(), "ready");
    (scratch, matrix, service, actor)
}

#[test]
fn request_of_a_killed_server_goes_to_one_that_waits() {
    let (_scratch, matrix, service, mut actor) = start("server");
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let first = client.request(&[5][..]).unwrap();
    assert_eq!(actor.ask("respond"), "5 0");
    assert_eq!(first_word(first), answer(&[5])[0]);
    let second = client.request(&[6][..]).unwrap();
    assert_eq!(actor.ask("take"), "6 0");
    assert!(server.try_receive().is_none());
    drop(actor);
    // Nobody recovers but the server itself, while it waits.
    let request = server.receive_timeout(SOON).expect("goes to another");
    assert_eq!((request.view(), request.attempts()), (Ok(&[6][..]), 1));
    assert_eq!(request.respond(&[60][..]), Ok(Delivery::Sent));
    assert_eq!(first_word(second), 60);
    assert_sound(&matrix);
}

#[test]
fn client_that_waits_sees_to_a_dead_server_for_one_that_comes_later() {
    let (scratch, _matrix, service, mut actor) = start("server");
    let client = service.client().unwrap();
    let pending = client.request(&[6][..]).unwrap();
    assert_eq!(actor.ask("take"), "6 0");
    drop(actor);
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(150));
        let mut actor = Actor::start("server", &scratch.name());
        assert_eq!((actor.answer(), actor.ask("respond")), ("ready".into(), "6 1".into()));
        (scratch, actor)
    });
    assert_eq!(first_word(pending), answer(&[6])[0]);
    later.join().unwrap();
}

#[test]
fn requests_of_a_killed_client_are_served_to_nobody_and_its_number_is_free() {
    let (_scratch, matrix, service, mut actor) = start("client");
    let mut server = service.server().unwrap();
    let blocks =
        |matrix: &Matrix| -> u64 { matrix.stats().sectors.iter().map(|s| s.common_blocks).sum() };
    for asked in 0..10 {
        assert_eq!(actor.ask(asked), "asked");
    }
    let before = blocks(&matrix);
    let request = server.receive();
    assert!(request.is_connected());
    drop(actor);
    matrix.recover();
    assert!(!request.is_connected());
    assert_eq!(request.respond(&[1][..]), Ok(Delivery::ClientGone));
    for client in (0..4).map(|_| service.client().expect("its number is free")) {
        let pending = client.request(&[77][..]).unwrap();
        while let Some(request) = server.try_receive() {
            let (asked, at) = (request.view().unwrap()[0], request.info().poster);
            let delivery = request.respond(&[8][..]).unwrap();
            let expected = if asked == 77 { Delivery::Sent } else { Delivery::ClientGone };
            assert_eq!((delivery, at), (expected, 0));
        }
        assert_eq!((first_word(pending), client.dropped()), (8, 0));
    }
    assert!(blocks(&matrix) <= before + 8, "what was dropped is not kept");
    assert_sound(&matrix);
}

#[test]
fn client_of_another_process_is_answered() {
    let (_scratch, _matrix, service, mut actor) = start("client");
    let mut server = service.server().unwrap();
    assert_eq!(actor.ask(7), "asked");
    let request = server.receive_timeout(SOON).expect("sent");
    assert_eq!(request.respond(&[70][..]), Ok(Delivery::Sent));
    assert_eq!(actor.ask("wait"), "70");
    actor.finish();
}

#[test]
fn clients_and_servers_of_many_processes_get_every_answer_right_while_servers_are_killed() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(32 * MIB as u64).create(&scratch.name()).expect("creates");
    let service = service(&matrix);
    let worker = || {
        let mut worker = Actor::start("worker", &scratch.name());
        assert_eq!(worker.answer(), "ready");
        worker
    };
    let mut workers: Vec<Actor> = (0..2).map(|_| worker()).collect();
    let askers: Vec<Actor> = (0..2).map(|_| Actor::start("asker", &scratch.name())).collect();
    let waiting = thread::scope(|scope| {
        let waiting: Vec<_> = askers
            .into_iter()
            .map(|mut asker| scope.spawn(move || (asker.answer(), asker.finish()).0))
            .collect();
        let end = Instant::now() + 6 * SOON;
        let mut killed = 0;
        while waiting.iter().any(|asker| !asker.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
            let at = killed % workers.len();
            workers[at] = worker();
            killed += 1;
        }
        assert!(killed > 0, "none was killed");
        waiting
            .into_iter()
            .map(|asker| asker.join().expect("every answer is right"))
            .collect::<Vec<_>>()
    });
    assert!(waiting.iter().all(|said| said.starts_with("dropped ")), "{waiting:?}");
    drop(workers);
    matrix.recover();
    assert_eq!(service.requested(), 6000);
    let mut server = service.server().unwrap();
    assert!(server.try_receive().is_none(), "all are done");
    assert_sound(&matrix);
}
