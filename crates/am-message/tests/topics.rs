//! Topics over a matrix: post, inquire, read, by threads of one process.

use am_matrix::{Arena, Matrix, plan};
use am_message::{
    BadMessage, Message, MessageSet, PostError, Seq, Start, Topic, TopicError, WaitStrategy,
};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    sym: u32,
    px: u32,
}

#[derive(MessageSet, Debug, PartialEq)]
enum Feed<'a> {
    Tick(Tick),
    Blob(&'a [u8]),
    Text(&'a str),
}

fn matrix() -> Matrix {
    let size = 16 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn live(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.common_blocks).sum()
}

#[test]
fn every_reader_sees_every_message_as_it_was_posted() {
    let matrix = matrix();
    let topic = Topic::<Feed>::builder(&matrix, "eu").open_or_create().unwrap();
    let mut early = topic.reader().start(Start::Earliest).open().unwrap();
    let poster = topic.poster().unwrap();
    assert!(early.try_read().is_none());
    assert_eq!(poster.post(&Tick { sym: 7, px: 100 }).unwrap().seq, Seq(0));
    poster.post("hello").unwrap();
    let mut loan = poster.loan_bytes(1000).unwrap();
    loan.fill(9);
    loan.commit().unwrap();
    let seen: Vec<(u32, usize)> = early.inquire().map(|info| (info.kind, info.len_bytes)).collect();
    assert_eq!(seen, [(0, 8), (2, 5), (1, 1000)]);
    assert_eq!(early.inquire_kind::<str>().count(), 1);

    let mut late = topic.reader().start(Start::At(Seq(1))).open().unwrap();
    assert_eq!(early.read().view(), Ok(Feed::Tick(Tick { sym: 7, px: 100 })));
    for reader in [&mut early, &mut late] {
        assert_eq!(reader.read().view(), Ok(Feed::Text("hello")));
        assert_eq!(reader.read().view(), Ok(Feed::Blob(&[9; 1000])));
        assert!(reader.read_timeout(Duration::from_millis(5)).is_none());
        assert_eq!(reader.missed(), 0);
    }
    drop((early, late, poster, topic));
    // The topic's own block and that of the long message.
    assert_eq!(live(&matrix), 2);
    assert!(matrix.check().is_empty());
}

#[test]
fn message_is_got_as_its_kind_and_as_no_other() {
    let matrix = matrix();
    let topic = Topic::<Feed>::builder(&matrix, "eu").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let (poster, tick) = (topic.poster().unwrap(), Tick { sym: 7, px: 100 });
    poster.post(&tick).unwrap();
    poster.post("hello").unwrap();

    let message = reader.read();
    assert!(message.is::<Tick>() && !message.is::<str>() && !message.is::<[u8]>());
    assert_eq!((message.get::<Tick>(), message.get::<str>()), (Ok(Some(&tick)), Ok(None)));
    let lent = message.get::<Tick>().unwrap().unwrap();
    assert!(std::ptr::addr_eq(lent, message.bytes().as_ptr()), "nothing is copied");
    let kept = message.copied();
    message.put_back();
    assert_eq!((kept.is::<Tick>(), kept.get::<Tick>()), (true, Ok(Some(&tick))));

    let batch = reader.read_many(10);
    let ticks: Vec<&Tick> = batch
        .iter()
        .filter_map(|item| item.get::<Tick>().transpose())
        .map(Result::unwrap)
        .collect();
    assert_eq!(ticks, [&tick]);
    assert_eq!(batch.iter().filter(|item| item.is::<str>()).count(), 1);
}

#[test]
fn message_whose_bytes_are_none_of_its_kind_is_got_as_an_error() {
    let matrix = matrix();
    let topic = Topic::<bool>::builder(&matrix, "flags").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let mut loan = poster.loan(true).unwrap();
    loan.fill(2);
    loan.commit().unwrap();
    let message = reader.read();
    assert_eq!((message.is::<bool>(), message.get::<bool>()), (true, Err(BadMessage::BitPattern)));
}

#[test]
fn message_that_is_put_back_comes_again() {
    let matrix = matrix();
    let topic = Topic::<Tick>::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post(&Tick { sym: 1, px: 2 }).unwrap();
    reader.read().put_back();
    assert_eq!(reader.read().view(), Ok(&Tick { sym: 1, px: 2 }));
    assert!(reader.try_read().is_none());
}

#[test]
fn loan_that_is_dropped_posts_nothing_and_leaves_nothing() {
    let matrix = matrix();
    let topic = Topic::<[u8]>::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    drop(poster.loan_bytes(100).unwrap());
    assert!(reader.try_read().is_none());
    assert_eq!(topic.posted(), 0);
    assert_eq!(live(&matrix), 1);
}

#[test]
fn loan_of_a_slice_is_filled_in_where_it_lies() {
    let matrix = matrix();
    let topic = Topic::<[u64]>::builder(&matrix, "t").capacity(64).open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    for len in 0..128 {
        let mut loan = poster.loan_slice::<u64>(len).unwrap();
        assert_eq!(loan.len(), len);
        loan.iter_mut().zip(0..).for_each(|(place, number)| *place = number);
        loan.commit().unwrap();
    }
    let (loan, error) = poster.loan_slice::<u64>(3).unwrap().try_commit().unwrap_err();
    assert_eq!((loan.expect("comes back").len(), error), (3, PostError::Full));
    for len in 0..128 {
        assert!(reader.read().view().unwrap().iter().copied().eq(0..len));
    }
    let too_long = poster.loan_slice::<u64>(usize::MAX / 4).unwrap_err();
    assert!(matches!(too_long, PostError::TooLong { .. }), "{too_long}");
}

#[test]
fn lossless_topic_is_full_until_its_reader_goes_on() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").capacity(64).open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let posted = (0..1000u64).take_while(|n| poster.try_post(n).is_ok()).count();
    assert_eq!(posted, 128);
    assert_eq!(poster.post_timeout(&5, Duration::from_millis(5)), Err(PostError::Full));
    assert_eq!(reader.read().view(), Ok(&0));
    poster.try_post(&128).unwrap();
    let rest: Vec<u64> = std::iter::from_fn(|| Some(*reader.try_read()?.view().unwrap())).collect();
    assert_eq!(rest, (1..=128).collect::<Vec<u64>>());
    assert_eq!(reader.missed(), 0);
}

#[test]
fn lossy_topic_goes_on_and_the_reader_knows_what_it_missed() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post(&0).unwrap();
    let held = reader.read();
    for n in 1..1000 {
        poster.try_post(&n).unwrap();
    }
    assert_eq!(held.view(), Ok(&0), "what is held stays");
    drop(held);
    let next = *reader.read().view().unwrap();
    assert_eq!(reader.missed(), next - 1);
    // Posters look now and then for what was let go.
    for n in 1000..1020 {
        poster.post(&n).unwrap();
    }
    assert_eq!(live(&matrix), 1 + 128);
}

#[test]
fn topic_of_other_messages_is_refused() {
    let matrix = matrix();
    let _one = Topic::<Tick>::builder(&matrix, "t").create().unwrap();
    let other = Topic::<u64>::builder(&matrix, "t").open();
    assert!(matches!(other, Err(TopicError::OtherMessages { .. })), "{other:?}");
    let none = Topic::<u64>::builder(&matrix, "nobody").open();
    assert!(matches!(none, Err(TopicError::Matrix { .. })), "{none:?}");
}

#[test]
fn sleeping_reader_is_woken() {
    let matrix = matrix();
    let topic = Topic::<u64>::builder(&matrix, "t").open_or_create().unwrap();
    let strategy = WaitStrategy::SpinThenPark { spins: 0, yields: 0 };
    let mut reader = topic.reader().wait(strategy).open().unwrap();
    let poster = topic.poster().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for expected in 0..100 {
                let begun = Instant::now();
                assert_eq!(reader.read().view(), Ok(&expected));
                assert!(begun.elapsed() < Duration::from_secs(5));
            }
        });
        for n in 0..100 {
            thread::sleep(Duration::from_millis(1));
            poster.post(&n).unwrap();
        }
    });
}

#[test]
fn threads_post_and_read_all_of_it() {
    let matrix = matrix();
    let topic = Topic::<[u64]>::builder(&matrix, "t").open_or_create().unwrap();
    let each = 20_000;
    thread::scope(|scope| {
        for number in 0..2u64 {
            let mut reader = topic.reader().open().unwrap();
            scope.spawn(move || {
                let mut next = [0; 2];
                for _ in 0..2 * each {
                    let message = reader.read();
                    let words = message.view().unwrap();
                    let poster = words[0] as usize;
                    assert_eq!(words[1], next[poster], "reader {number}");
                    assert!(words[2..].iter().all(|&word| word == words[1]));
                    next[poster] += 1;
                }
                assert_eq!(reader.missed(), 0);
            });
        }
        for number in 0..2u64 {
            let poster = topic.poster().unwrap();
            scope.spawn(move || {
                for n in 0..each {
                    let mut words = vec![n; 2 + (n % 50) as usize];
                    words[0] = number;
                    poster.post(&words[..]).unwrap();
                }
            });
        }
    });
    assert!(matrix.check().is_empty());
}
