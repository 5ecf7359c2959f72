//! Odd inputs and odd moments: longest timeouts, more holders than slots, lengths around bounds, damage while a
//! thread unwinds.

use am_matrix::{Arena, Error, Matrix, plan};
use am_message::{Message, Reader, Service, Topic, TopicBuilder, TopicError};
use am_topic::{Entry, Place};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn matrix() -> Matrix {
    let size = 64 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

#[test]
fn longest_timeout_is_for_ever() {
    let matrix = matrix();
    let topic: Topic<u64> = Topic::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post_timeout(&1, Duration::MAX).unwrap();
    assert!(reader.read_timeout(Duration::MAX).is_some());
    poster.post(&2).unwrap();
    assert!(reader.read_many_timeout(1, Duration::MAX).is_some());
}

#[test]
fn posters_of_a_lossy_topic_never_wait_however_many_hold_a_message() {
    let matrix = matrix();
    let topic: Topic<[u8]> =
        Topic::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    let mut members = Vec::new();
    for group in 0..8 {
        for _ in 0..32 {
            let mut member = topic.reader().group(&format!("g{group}")).open().unwrap();
            poster.try_post(&[group; 100][..]).unwrap();
            // It holds the message for as long as it is there.
            std::mem::forget(member.try_read().unwrap());
            members.push(member);
        }
    }
    let mut reader = topic.reader().open().unwrap();
    for _ in 0..1000 {
        poster.try_post(&[0; 100][..]).unwrap();
    }
    let seen = std::iter::from_fn(|| reader.try_read().map(drop)).count() as u64;
    assert_eq!(seen + reader.missed(), 1000);
    drop((members, reader));
    for _ in 0..1000 {
        poster.try_post(&[0; 100][..]).unwrap();
    }
    let commons: u64 = matrix.stats().sectors.iter().map(|sector| sector.common_blocks).sum();
    assert_eq!(commons, 1 + 128, "what was held is freed");
}

#[test]
fn client_too_many_is_said_to_be_one() {
    let matrix = matrix();
    let service: Service<u64, u64> =
        Service::builder(&matrix, "s").clients(64).open_or_create().unwrap();
    let clients: Vec<_> = (0..64).map(|_| service.client().unwrap()).collect();
    assert!(matches!(service.client(), Err(TopicError::TooManyClients { maximum: 64, .. })));
    drop(clients);
}

#[test]
fn kinds_of_topics_and_services_are_for_the_message_layer() {
    let matrix = matrix();
    for kind in [*b"topi", *b"serv"].map(u32::from_be_bytes) {
        let refused = matrix.create_named("forged", kind, matrix.allocate(100_000).unwrap());
        assert_eq!(refused.err(), Some(Error::KindReserved { kind }));
    }
}

/// A reader that is asked when its thread unwinds.
struct AskedLate(Reader<[u8]>);

impl Drop for AskedLate {
    fn drop(&mut self) {
        assert!(self.0.try_read().is_none());
    }
}

#[test]
fn damaged_message_is_passed_over_while_a_thread_unwinds() {
    let matrix = matrix();
    let topic: Topic<[u8]> = Topic::builder(&matrix, "t").open_or_create().unwrap();
    let member = topic.reader().group("g").open().unwrap();
    let common = matrix.open_named("t", u32::from_be_bytes(*b"topi")).unwrap();
    // SAFETY: it is used as a topic only.
    let mut views = unsafe { matrix.open_topics(common.offset()) }.unwrap();
    let view = views.next().unwrap().unwrap();
    let mut poster = view.poster(matrix.participant_number().unwrap()).unwrap();
    let mut claim = poster.claim_one().unwrap();
    claim.tell(&Entry { place: Place { offset: 32, len: 5 }, kind: 0, poster: 0, tag: 0 });
    claim.publish();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _late = AskedLate(member);
            panic!("a user's");
        }));
        done.send(caught.is_err())
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(true));
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C, align(128))]
struct Wide128([u64; 16]);

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
struct Wide64([u64; 8]);

/// Posts each value in every way, several turns, and reads it in every way.
macro_rules! go_around {
    ($matrix:expr, $lossy:expr, $in_ring:expr, $kind:ty, $values:expr) => {{
        let name = format!("{}-{}-{}", stringify!($kind), $lossy, $in_ring);
        let builder: TopicBuilder<$kind> =
            Topic::builder($matrix, &name).capacity(1).in_ring_up_to($in_ring);
        let builder = if $lossy { builder.lossy() } else { builder };
        let topic = builder.open_or_create().unwrap();
        let (poster, mut reader) = (topic.poster().unwrap(), topic.reader().open().unwrap());
        let mut member = topic.reader().group("g").open().unwrap();
        for _ in 0..100 {
            for value in $values {
                let value: &$kind = value;
                poster.try_post(value).unwrap();
                poster.post_many([value, value]).unwrap();
                assert_eq!(reader.try_read().unwrap().view(), Ok(value));
                let mut rest = 0;
                while let Some(batch) = reader.try_read_many(9) {
                    batch.iter().for_each(|item| assert_eq!(item.view(), Ok(value)));
                    rest += batch.len();
                }
                assert_eq!(rest, 2);
                for _ in 0..3 {
                    assert_eq!(member.try_read().unwrap().view(), Ok(value));
                }
            }
        }
        assert_eq!((reader.missed(), member.missed()), (0, 0));
    }};
}

#[test]
fn messages_of_every_length_are_read_as_they_were_posted() {
    for lossy in [false, true] {
        for in_ring in [0, 1, 64, 65, 1000, 1024] {
            let matrix = &matrix();
            let long = vec![6; 70_000];
            let bytes: [&[u8]; 7] =
                [&[], &[1; 63], &[2; 64], &[3; 65], &[4; 1024], &[5; 1025], &long];
            go_around!(matrix, lossy, in_ring, [u8], bytes);
            go_around!(matrix, lossy, in_ring, str, ["", "x"]);
            let (one, two) = ([Wide64([3; 8])], [Wide64([4; 8]); 2]);
            go_around!(matrix, lossy, in_ring, [Wide64], [&[][..], &one[..], &two[..]]);
            let wide = [Wide128([3; 16])];
            go_around!(matrix, lossy, in_ring, [Wide128], [&[][..], &wide[..]]);
            go_around!(matrix, lossy, in_ring, (), [&()]);
            assert!(matrix.check().is_empty());
        }
    }
}
