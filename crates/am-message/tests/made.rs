//! Messages made where they are read: in a batch by a function, and loans that lie beside each other.

use am_matrix::{Arena, Matrix, plan};
use am_message::{Message, MessageSet, Topic};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Slots of the smallest topic.
const SLOTS: u64 = 128;

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    number: u64,
    square: u64,
}

impl Tick {
    fn new(number: u64) -> Self {
        Self { number, square: number.wrapping_mul(number) }
    }
}

#[derive(MessageSet, Debug)]
#[expect(dead_code, reason = "only views of it are made")]
enum Feed<'a> {
    Tick(Tick),
    Blob(&'a [u8]),
}

fn matrix() -> Matrix {
    let size = 16 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

/// Common blocks: the topic's own, and one for each message that has one.
fn commons(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.common_blocks).sum()
}

#[test]
fn messages_that_are_made_come_in_order_around_the_ring_and_wait_for_room() {
    const COUNT: u64 = 10_000;
    let matrix = matrix();
    let topic: Topic<Tick> = Topic::builder(&matrix, "t").capacity(64).open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let reads = thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            let batch = reader.read_many(17);
            for message in batch.iter() {
                assert_eq!(message.view().unwrap(), &Tick::new(next));
                assert_eq!(message.seq().0, next);
                next += 1;
            }
        }
        reader.missed()
    });
    let posted = poster.post_from_fn(COUNT, Tick::new).unwrap();
    assert_eq!((posted.count, posted.last.map(|seq| seq.0)), (COUNT, Some(COUNT - 1)));
    assert_eq!(reads.join().unwrap(), 0);
    assert_eq!(poster.post_from_fn(0, Tick::new).unwrap(), Default::default());
}

#[test]
fn messages_that_are_made_take_the_slots_of_long_ones_and_free_their_blocks() {
    let matrix = matrix();
    let topic: Topic<Feed> = Topic::builder(&matrix, "t").capacity(64).open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    for n in 0..SLOTS {
        // Every third is long.
        let bytes = vec![n as u8; if n % 3 == 0 { 500 } else { 40 }];
        poster.post(&bytes[..]).unwrap();
    }
    assert_eq!(commons(&matrix), 1 + SLOTS.div_ceil(3));
    let mut reader = topic.reader().open().unwrap();
    poster.post_from_fn(50, Tick::new).unwrap();
    let batch = reader.read_many(100);
    let seen: Vec<Tick> =
        batch.iter().map(|message| *message.get::<Tick>().unwrap().unwrap()).collect();
    assert_eq!(seen, (0..50).map(Tick::new).collect::<Vec<_>>());
    drop(batch);
    drop(reader);
    poster.post_from_fn(SLOTS, Tick::new).unwrap();
    drop(poster);
    assert_eq!(commons(&matrix), 1, "each slot's block is freed");
}

#[test]
fn messages_longer_than_cells_are_made_too_and_those_of_lossy_topics() {
    let matrix = matrix();
    let long: Topic<[u64; 40]> =
        Topic::builder(&matrix, "long").capacity(64).open_or_create().unwrap();
    let lossy: Topic<Tick> =
        Topic::builder(&matrix, "lossy").capacity(64).lossy().open_or_create().unwrap();
    let (mut long_reader, mut lossy_reader) =
        (long.reader().open().unwrap(), lossy.reader().open().unwrap());
    long.poster().unwrap().post_from_fn(30, |n| [n; 40]).unwrap();
    lossy.poster().unwrap().post_from_fn(1000, Tick::new).unwrap();
    for n in 0..30 {
        assert_eq!(long_reader.try_read().unwrap().view().unwrap(), &[n; 40]);
    }
    let mut seen = 0;
    while let Some(message) = lossy_reader.try_read() {
        assert_eq!(message.view().unwrap(), &Tick::new(message.seq().0));
        seen += 1;
    }
    assert_eq!(seen + lossy_reader.missed(), 1000);
}

#[test]
fn who_panics_while_it_makes_messages_costs_the_numbers_that_it_claimed() {
    let matrix = matrix();
    let topic: Topic<Tick> = Topic::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let panics = |n| if n == 5 { panic!("on purpose") } else { Tick::new(n) };
    assert!(catch_unwind(AssertUnwindSafe(|| poster.post_from_fn(10, panics))).is_err());
    // And who posts by the poster that waits for its message.
    let posts = |n| {
        poster.post(&Tick::new(n)).unwrap();
        Tick::new(n)
    };
    assert!(catch_unwind(AssertUnwindSafe(|| poster.post_from_fn(3, posts))).is_err());
    assert!(reader.try_read().is_none());
    poster.post_from_fn(2, Tick::new).unwrap();
    assert_eq!(reader.read_many(9).len(), 2);
    assert_eq!(reader.missed(), 10 + 3);
}

#[test]
fn loans_of_one_poster_beside_each_other_are_messages_of_their_own() {
    let matrix = matrix();
    let topic: Topic<[u8]> = Topic::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let mut loans: Vec<_> = (1..=3).map(|n| poster.loan_bytes(10 * n).unwrap()).collect();
    for (n, loan) in (1..).zip(&mut loans) {
        assert_eq!(loan.len(), 10 * usize::from(n));
        loan.fill(n);
    }
    for loan in loans {
        loan.commit().unwrap();
    }
    for n in 1..=3 {
        assert_eq!(reader.read().bytes(), vec![n; 10 * usize::from(n)]);
    }
    // One that is forgotten keeps its draft, and the poster does without.
    std::mem::forget(poster.loan_bytes(8).unwrap());
    let mut loan = poster.loan_bytes(8).unwrap();
    loan.fill(9);
    loan.commit().unwrap();
    assert_eq!(reader.read().bytes(), [9; 8]);
}
