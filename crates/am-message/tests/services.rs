//! Services over a matrix: requests, responses, and who comes and goes.

use am_matrix::{Arena, Matrix, SERVICE_KIND, plan};
use am_message::{
    Client, Delivery, MessageSet, Pending, PostError, RequestError, ResponseError, Seq, Server,
    Service, Topic, TopicError, WaitStrategy,
};
use am_topic::{Entry, Place};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn matrix() -> Matrix {
    let size = 16 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn service(matrix: &Matrix) -> Service<u64, u64> {
    Service::builder(matrix, "s").open_or_create().unwrap()
}

/// Takes a request and responds with 10 times as much; what it asked.
fn serve(server: &mut Server<u64, u64>) -> Option<u64> {
    let request = server.try_receive()?;
    let asked = *request.view().unwrap();
    assert_eq!(request.respond(&(10 * asked)), Ok(Delivery::Sent));
    Some(asked)
}

fn value(pending: Pending<'_, u64, u64>) -> Result<u64, ResponseError> {
    pending.wait().map(|response| *response.view().unwrap())
}

fn ask(client: &Client<u64, u64>, value: u64) -> Pending<'_, u64, u64> {
    client.request(&value).unwrap()
}

#[test]
fn request_without_servers_waits_for_one() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut pending = ask(&client, 7);
    assert!(pending.try_wait().unwrap().is_none());
    assert!(pending.wait_timeout(Duration::from_millis(5)).unwrap().is_none());
    let mut server = service.server().unwrap();
    assert_eq!(server.inquire().count(), 1);
    assert_eq!(serve(&mut server), Some(7));
    let response = pending.try_wait().unwrap().expect("it is there");
    assert_eq!((response.view(), response.seq()), (Ok(&70), pending.seq()));
    assert!(matches!(pending.try_wait(), Err(ResponseError::Taken)));
    assert!(matches!(pending.wait_timeout(SOON), Err(ResponseError::Taken)));
}

#[test]
fn requests_sent_before_the_first_server_are_all_served() {
    let matrix = matrix();
    let service = Service::<u64, u64>::builder(&matrix, "s").capacity(64).create().unwrap();
    let clients: Vec<_> = (0..3).map(|_| service.client().unwrap()).collect();
    let mut pending: Vec<_> = (0..128).map(|n| (n, ask(&clients[n as usize % 3], n))).collect();
    let refused = clients[0].try_request(&0).expect_err("no server goes on");
    assert_eq!(refused, RequestError::Post(PostError::Full));
    let refused = clients[0].request_timeout(&0, Duration::from_millis(5)).map(|_| ());
    assert_eq!(refused, Err(RequestError::Post(PostError::Full)));
    let mut server = service.server().unwrap();
    (0..128).for_each(|n| assert_eq!(serve(&mut server), Some(n)));
    pending.drain(..).for_each(|(n, pending)| assert_eq!(value(pending), Ok(10 * n)));
}

#[test]
fn responses_are_taken_and_let_go_in_any_order() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    // Three are answered in another order than they were asked in.
    let [a, b, c] = [1, 2, 3].map(|n| ask(&client, n));
    let mut other = service.server().unwrap();
    let first = server.receive();
    assert_eq!(serve(&mut other), Some(2));
    first.respond(&10).unwrap();
    assert_eq!(serve(&mut server), Some(3));
    let (c, a) = (c.wait().unwrap(), a.wait().unwrap());
    assert_eq!((c.view(), a.view()), (Ok(&30), Ok(&10)));
    // What is held stays while hundreds go by, and the rest goes on.
    drop(a);
    for n in 0..60 {
        let pending = ask(&client, n);
        assert_eq!(serve(&mut server), Some(n));
        assert_eq!(value(pending), Ok(10 * n));
    }
    assert_eq!((c.view(), value(b)), (Ok(&30), Ok(20)));
    drop(c);
    for n in 0..1000 {
        let pending = ask(&client, n);
        assert_eq!(serve(&mut server), Some(n));
        assert_eq!(value(pending), Ok(10 * n));
    }
    assert_eq!(client.dropped(), 0);
    assert!(matrix.check().is_empty());
}

#[test]
fn client_has_in_hand_what_its_replies_have_room_for() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    assert_eq!(service.outstanding(), 64);
    let mut pending: Vec<_> = (0..64).map(|n| ask(&client, n)).collect();
    let full = RequestError::TooManyOutstanding { maximum: 64 };
    assert_eq!(client.request(&0).expect_err("64 are to come"), full);
    for _ in 0..30 {
        serve(&mut server).unwrap();
    }
    assert_eq!(client.request(&0).expect_err("30 are there, 34 to come"), full);
    let (loan, error) = client.loan(5).unwrap().try_send().expect_err("the same");
    assert_eq!(error, full);
    // The one that came first keeps room for those behind.
    let oldest = pending.remove(0).wait().unwrap();
    drop(pending.remove(0));
    assert_eq!(client.request(&0).expect_err("the first is looked at"), full);
    drop(oldest);
    drop(loan.unwrap().try_send().expect("two are gone"));
    drop(client.request(&6).expect("two are gone"));
    assert_eq!(client.request(&0).expect_err("forgotten ones count until they are served"), full);
    while serve(&mut server).is_some() {}
    drop(pending);
    (0..64).for_each(|n| drop(ask(&client, n)));
}

#[test]
fn request_dropped_without_a_response_is_told() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let pending = ask(&client, 1);
    drop(server.receive());
    assert_eq!(value(pending), Err(ResponseError::Unanswered));
    let pending = ask(&client, 2);
    drop(server.receive().loan(5).unwrap());
    assert_eq!(value(pending), Err(ResponseError::Unanswered));
    assert!(server.try_receive().is_none(), "it is done");
}

#[test]
fn request_given_back_goes_to_another_server() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let (mut one, mut two) = (service.server().unwrap(), service.server().unwrap());
    let pending = ask(&client, 1);
    one.receive().nack();
    let request = two.receive();
    assert!((request.attempts(), request.is_redelivered()) == (1, true));
    let held = std::mem::ManuallyDrop::new(request);
    assert!(one.try_receive().is_none());
    let _ = held;
    drop(two);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let request = one.receive_timeout(SOON).expect("its server left");
        assert_eq!(request.attempts(), 2);
        panic!("this fails");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"this fails"));
    let request = one.receive_timeout(SOON).expect("its thread panicked");
    assert_eq!(request.attempts(), 3);
    assert_eq!(request.respond(&5), Ok(Delivery::Sent));
    assert_eq!(value(pending), Ok(5));
}

#[test]
fn response_without_memory_leaves_the_request_to_be_served() {
    let matrix = matrix();
    let service = Service::<u64, [u8]>::builder(&matrix, "s").open_or_create().unwrap();
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let pending = client.request(&1).unwrap();
    let refused = server.receive().loan_bytes(1 << 30).map(|_| ());
    assert!(matches!(refused, Err(PostError::Memory(_))), "{refused:?}");
    let request = server.receive_timeout(SOON).expect("given back");
    assert_eq!(request.attempts(), 1);
    let mut response = request.loan_bytes(3).unwrap();
    let (request, bytes) = response.parts();
    bytes.fill(*request.view().unwrap() as u8);
    assert_eq!(response.send(), Ok(Delivery::Sent));
    assert_eq!(pending.wait().unwrap().bytes(), [1, 1, 1]);
}

#[test]
fn forgotten_request_is_served_and_its_response_dropped() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    drop(ask(&client, 1));
    let there = ask(&client, 2);
    assert_eq!((serve(&mut server), serve(&mut server)), (Some(1), Some(2)));
    drop(there);
    let pending = ask(&client, 3);
    assert_eq!(serve(&mut server), Some(3));
    assert_eq!((value(pending), client.dropped()), (Ok(30), 2));
}

#[test]
fn next_client_of_a_number_gets_nothing_of_the_one_before() {
    let matrix = matrix();
    let service = Service::<u64, u64>::builder(&matrix, "s").clients(1).open_or_create().unwrap();
    let mut server = service.server().unwrap();
    for turn in 0..10 {
        let client = service.client().unwrap();
        let refused = service.client().map(|_| ());
        assert!(matches!(refused, Err(TopicError::TooManyClients { maximum: 1, .. })));
        let pending: Vec<_> = (0..64).map(|n| ask(&client, 100 * turn + n)).collect();
        let taken = server.receive();
        assert!(taken.is_connected());
        drop(pending);
        drop(client);
        assert!(!taken.is_connected());
        let next = service.client().unwrap();
        assert!(!taken.is_connected(), "the next has its number, but is another");
        assert_eq!(taken.respond(&1), Ok(Delivery::ClientGone));
        let pending = ask(&next, 7);
        let mut gone = 0;
        while let Some(request) = server.try_receive() {
            gone += u64::from(request.respond(&5).unwrap() == Delivery::ClientGone);
        }
        assert_eq!((gone, value(pending), next.dropped()), (63, Ok(5), 0));
    }
    assert!(matrix.check().is_empty());
}

#[test]
fn service_is_known_by_what_it_carries() {
    let matrix = matrix();
    let built = service(&matrix);
    let other = Service::<u64, [u8]>::builder(&matrix, "s").open();
    assert!(matches!(other, Err(TopicError::OtherMessages { .. })), "{other:?}");
    let other = Service::<str, u64>::builder(&matrix, "s").open_or_create();
    assert!(matches!(other, Err(TopicError::OtherMessages { .. })), "{other:?}");
    let topic = Topic::<u64>::builder(&matrix, "s").open_or_create();
    let told = topic.unwrap_err().to_string();
    assert_eq!(told, "\"s\": what has that name is a service, not a topic");
    Topic::<u64>::builder(&matrix, "topic").create().unwrap();
    let told =
        Service::<u64, u64>::builder(&matrix, "topic").open_or_create().unwrap_err().to_string();
    assert_eq!(told, "\"topic\": what has that name is a topic, not a service");
    for clients in [0, 65] {
        let none = Service::<u64, u64>::builder(&matrix, "t").clients(clients).create();
        assert!(matches!(none, Err(TopicError::Clients { .. })), "{none:?}");
    }
    let none = Service::<u64, u64>::builder(&matrix, "t").outstanding(1 << 30).create();
    assert!(matches!(none, Err(TopicError::Capacity { .. })), "{none:?}");
    let again = Service::<u64, u64>::builder(&matrix, "s").clients(2).create().map(|_| ());
    assert!(matches!(again, Err(TopicError::Matrix { .. })), "{again:?}");
    assert_eq!((built.clients(), built.name(), built.requested()), (16, "s", 0));
    assert_eq!(matrix.names().count(), 2, "however many clients");
    let many = Service::<u64, u64>::builder(&matrix, "many").clients(64).outstanding(200);
    let many = many.open_or_create().unwrap();
    assert_eq!((many.clients(), many.outstanding()), (64, 448));
    let clients: Vec<_> = (0..64).map(|_| many.client().unwrap()).collect();
    let mut servers: Vec<_> = (0..32).map(|_| many.server().unwrap()).collect();
    assert!(many.server().is_err());
    let pending: Vec<_> = clients.iter().zip(0..).map(|(client, n)| ask(client, n)).collect();
    for n in 0..64 {
        assert_eq!(serve(&mut servers[n % 32]), Some(n as u64));
    }
    pending.into_iter().zip(0..).for_each(|(pending, n)| assert_eq!(value(pending), Ok(10 * n)));
}

#[test]
fn threads_get_their_own_answers() {
    let matrix = matrix();
    let service = Service::<u64, u64>::builder(&matrix, "s").capacity(64);
    let (clients, count) = (3u64, 3_000u64);
    let left = AtomicU64::new(clients * count);
    let waits = [WaitStrategy::PARK, WaitStrategy::SpinThenYield { spins: 10 }, WaitStrategy::PARK];
    thread::scope(|scope| {
        for wait in waits {
            let server = service_with(&matrix, wait).server().unwrap();
            let left = &left;
            scope.spawn(move || serve_badly(server, left));
        }
        for number in 0..clients {
            let service = service.open_or_create().unwrap();
            let left = &left;
            scope.spawn(move || ask_many(&service, number, count, left));
        }
    });
    assert_eq!(left.load(Ordering::Relaxed), 0);
    assert!(matrix.check().is_empty());
}

fn service_with(matrix: &Matrix, wait: WaitStrategy) -> Service<u64, u64> {
    Service::builder(matrix, "s").capacity(64).wait(wait).open_or_create().unwrap()
}

/// Gives some requests back, holds some for a while, and drops some.
fn serve_badly(mut server: Server<u64, u64>, left: &AtomicU64) {
    let mut turn = 0u64;
    let end = Instant::now() + 3 * SOON;
    while left.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        let request = server.receive_timeout(Duration::from_millis(20));
        let Some(request) = request else { continue };
        turn += 1;
        match turn % 50 {
            7 => request.nack(),
            9 => drop(request),
            n => {
                if n == 11 {
                    thread::yield_now();
                }
                let asked = *request.view().unwrap();
                request.respond(&(10 * asked)).unwrap();
            }
        }
    }
    assert_eq!(server.missed(), 0);
}

/// Has up to 32 requests outstanding, and takes their responses in an order of its own.
fn ask_many(service: &Service<u64, u64>, number: u64, count: u64, left: &AtomicU64) {
    let client = service.client().unwrap();
    let mut pending: HashMap<u64, Pending<'_, u64, u64>> = HashMap::new();
    let mut next = 0;
    while next < count || !pending.is_empty() {
        while next < count && pending.len() < 32 {
            match client.request(&(number * count + next)) {
                Ok(sent) => drop(pending.insert(next, sent)),
                // One that was not taken for long keeps the room of those behind.
                Err(RequestError::TooManyOutstanding { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            next += 1;
        }
        let some: Vec<u64> = pending.keys().copied().take(20).collect();
        for n in some {
            let answer = value(pending.remove(&n).unwrap());
            assert!(
                matches!(answer, Err(ResponseError::Unanswered))
                    || answer == Ok(10 * (number * count + n))
            );
            left.fetch_sub(1, Ordering::Relaxed);
        }
    }
    assert_eq!(client.dropped(), 0);
}

/// The topics of the service "s", as somebody sees them who goes past this library.
fn raw(matrix: &Matrix) -> Vec<am_topic::Topic<'_>> {
    let common = matrix.open_named("s", SERVICE_KIND).unwrap();
    // SAFETY: it is used by these views only.
    let topics = unsafe { matrix.open_topics(common.offset()) }.unwrap();
    topics.collect::<Result<_, _>>().unwrap()
}

/// Puts a message into a topic that names whatever block.
fn forge(topic: &am_topic::Topic<'_>, entry: Entry) {
    let mut poster = topic.poster(1).unwrap();
    let mut claims = poster.claim(1).unwrap();
    let mut claim = claims.next().unwrap();
    claim.tell(&entry);
    claim.publish();
}

#[test]
fn forged_responses_are_dropped_or_told_damaged() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let replies = raw(&matrix)[0];
    let nowhere = Place { offset: 12_345, len: 8 };
    let [a, b] = [1, 2].map(|n| ask(&client, n));
    let forged = |tag: u64, kind| Entry { place: nowhere, kind, poster: 99, tag };
    for tag in [u64::MAX, 1 << 56, 2, 77, a.seq().0, a.seq().0] {
        forge(&replies, forged(tag, 0));
    }
    forge(&replies, forged(b.seq().0, u32::MAX));
    assert!(matches!(a.wait(), Err(ResponseError::Damaged)));
    assert_eq!(value(b), Err(ResponseError::Unanswered));
    assert_eq!((serve(&mut server), serve(&mut server)), (Some(1), Some(2)));
    let pending = ask(&client, 3);
    assert_eq!(serve(&mut server), Some(3));
    assert_eq!(value(pending), Ok(30));
    // Four that nobody asked for, one twice, and the servers' own two.
    assert_eq!(client.dropped(), 7);
}

#[test]
fn forged_requests_are_dropped_and_their_clients_gone() {
    let matrix = matrix();
    let service = service(&matrix);
    let mut server = service.server().unwrap();
    let requests = *raw(&matrix).last().unwrap();
    let block = matrix.allocate(8).unwrap().into_common().unwrap();
    let place = Place { offset: block.offset().to_raw(), len: 8 };
    for poster in [16, 64, u32::MAX] {
        forge(&requests, Entry { place, kind: 0, poster, tag: 0 });
    }
    assert!(server.try_receive().is_none());
    assert_eq!(server.missed(), 3);
    for tag in [0, 63, 255, u64::MAX] {
        forge(&requests, Entry { place, kind: 9, poster: 3, tag });
        let request = server.try_receive().unwrap();
        assert!(request.view().is_err(), "no such kind");
        assert_eq!(request.respond(&1), Ok(Delivery::ClientGone));
    }
}

#[test]
fn replies_that_are_full_are_an_error_to_the_server() {
    let matrix = matrix();
    let service = service(&matrix);
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let replies = raw(&matrix)[0];
    let pending = ask(&client, 1);
    for _ in 0..128 {
        forge(&replies, Entry { place: Place { offset: 1, len: 8 }, kind: 0, poster: 0, tag: 99 });
    }
    assert_eq!(server.receive().respond(&1), Err(PostError::Full));
    assert!(client.try_request(&2).is_ok(), "the client dropped what nobody asked for");
    assert_eq!(serve(&mut server), Some(2), "others first");
    let request = server.receive_timeout(SOON).expect("given back");
    assert_eq!((request.attempts(), request.seq()), (1, Seq(0)));
    assert_eq!(request.respond(&1), Ok(Delivery::Sent));
    assert_eq!(value(pending), Ok(1));
}

#[test]
fn handles_go_from_thread_to_thread() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Service<[u64], str>>();
    sent::<Client<[u64], str>>();
    sent::<Server<[u64], str>>();
}

#[test]
fn sets_of_kinds_are_asked_and_answered() {
    #[derive(MessageSet, Debug, PartialEq)]
    enum Query<'a> {
        Sum(&'a [u32]),
        Name(&'a str),
    }
    #[derive(MessageSet, Debug, PartialEq)]
    enum Answer<'a> {
        Sum(u32),
        Text(&'a str),
    }
    let matrix = matrix();
    let service = Service::<Query, Answer>::builder(&matrix, "s").open_or_create().unwrap();
    let client = service.client().unwrap();
    let mut server = service.server().unwrap();
    let sum = client.request(&[1u32, 2, 3][..]).unwrap();
    let name = client.request("you").unwrap();
    while let Some(request) = server.try_receive() {
        match request.view().unwrap() {
            Query::Sum(terms) => request_sum(terms.iter().sum(), request),
            Query::Name(name) => {
                let text = format!("hello {name}");
                request.respond(text.as_str()).unwrap();
            }
        }
    }
    assert_eq!(sum.wait().unwrap().view(), Ok(Answer::Sum(6)));
    assert_eq!(name.wait().unwrap().view(), Ok(Answer::Text("hello you")));

    fn request_sum(sum: u32, request: am_message::Request<'_, Query<'static>, Answer<'static>>) {
        request.respond(&sum).unwrap();
    }
}
