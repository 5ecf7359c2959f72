//! Batches: many messages posted together, read together.

use am_matrix::{Arena, Matrix, plan};
use am_message::{BatchError, MessageSet, PostError, Reader, Seq, Start, Topic};
use std::thread;

fn matrix_of(size: usize) -> Matrix {
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn live(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.common_blocks).sum()
}

fn drain<S: MessageSet + ?Sized>(reader: &mut Reader<S>, max: usize) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    while let Some(batch) = reader.try_read_many(max) {
        assert!((1..=max.max(1)).contains(&batch.len()));
        seen.extend(batch.iter().map(|item| (item.seq().0, item.bytes().to_vec())));
    }
    seen
}

#[test]
fn batch_arrives_as_it_was_posted() {
    let matrix = matrix_of(16 << 20);
    let topic = Topic::<str>::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let texts: Vec<String> = (0..200).map(|n| "x".repeat(n % 7) + &n.to_string()).collect();
    let posted = poster.post_many(texts.iter().map(String::as_str)).unwrap();
    assert_eq!((posted.count, posted.last), (200, Some(Seq(199))));
    assert_eq!(poster.post_many(std::iter::empty::<&str>()).unwrap().last, None);
    let seen = drain(&mut reader, 30);
    let expected: Vec<(u64, Vec<u8>)> =
        texts.iter().enumerate().map(|(n, text)| (n as u64, text.clone().into_bytes())).collect();
    assert_eq!(seen, expected);
    assert_eq!(reader.missed(), 0);
}

#[test]
fn batch_that_finds_no_room_tells_how_many_were_posted() {
    // Each message in a block of its own, or in the ring: nothing is left but those.
    fill_and_drain(0, 128);
    fill_and_drain(64, 0);
}

fn fill_and_drain(in_ring_bytes: usize, blocks: u64) {
    let matrix = matrix_of(16 << 20);
    let topic = Topic::<u64>::builder(&matrix, "t")
        .in_ring_up_to(in_ring_bytes)
        .capacity(64)
        .open_or_create()
        .unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let values: Vec<u64> = (0..300).collect();
    let full = |posted| Err(BatchError { posted, cause: PostError::Full });
    assert_eq!(poster.try_post_many(&values), full(128));
    assert_eq!(poster.try_post_many(&values), full(0));
    let batch = reader.read_many(10);
    assert_eq!(batch.len(), 10);
    assert_eq!(poster.try_post_many(&values), full(0), "the batch is held");
    let views: Vec<u64> = batch.iter().map(|item| *item.view().unwrap()).collect();
    assert_eq!(views, values[..10]);
    batch.put_back();
    assert_eq!(poster.try_post_many(&values), full(0), "it was put back");
    drop(reader.read_many(10));
    assert_eq!(poster.try_post_many(&values[128..]), full(10));
    let rest = drain(&mut reader, 1000);
    assert_eq!(rest.len(), 128);
    assert!(rest.iter().all(|(seq, bytes)| bytes[..] == seq.to_ne_bytes()));
    // The topic's own block, and the messages'.
    assert_eq!(live(&matrix), 1 + blocks);
}

#[test]
fn batch_for_which_memory_runs_out_posts_what_it_can() {
    let matrix = matrix_of(1 << 20);
    let topic = Topic::<[u8]>::builder(&matrix, "t").open_or_create().unwrap();
    let mut reader = topic.reader().start(Start::Earliest).open().unwrap();
    let poster = topic.poster().unwrap();
    let message = [7u8; 20_000];
    let refused = poster.post_many(std::iter::repeat_n(&message[..], 100)).unwrap_err();
    assert!(matches!(refused.cause, PostError::Memory(_)), "{refused}");
    assert!((1..100).contains(&refused.posted), "{refused}");
    let seen = drain(&mut reader, 64);
    assert_eq!(seen.len() as u64, refused.posted);
    assert!(seen.iter().all(|(_, bytes)| bytes[..] == message));
    assert_eq!(reader.missed(), 0);
    assert!(matrix.check().is_empty());
}

#[test]
fn lossy_reader_gets_batches_of_one_and_keeps_what_it_holds() {
    let matrix = matrix_of(16 << 20);
    let topic = Topic::<u64>::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let poster = topic.poster().unwrap();
    let values: Vec<u64> = (0..1000).collect();
    poster.post_many(&values[..5]).unwrap();
    let batch = reader.read_many(10);
    assert_eq!(batch.len(), 1);
    assert_eq!(poster.try_post_many(&values[5..]).unwrap().count, 995);
    assert_eq!(batch.iter().next().unwrap().view(), Ok(&0), "what is held stays");
    drop(batch);
    let rest = drain(&mut reader, 10);
    assert_eq!(1 + reader.missed() + rest.len() as u64, 1000);
    assert!(rest.iter().all(|(seq, bytes)| bytes[..] == seq.to_ne_bytes()));
}

#[test]
fn threads_that_post_and_read_in_batches_lose_nothing() {
    let matrix = matrix_of(16 << 20);
    let topic = Topic::<[u64]>::builder(&matrix, "t").capacity(200).open_or_create().unwrap();
    let rounds = 300;
    thread::scope(|scope| {
        for max in [1, 100] {
            let mut reader = topic.reader().open().unwrap();
            scope.spawn(move || {
                let mut next = [0; 2];
                while next != [100 * rounds; 2] {
                    for item in reader.read_many(max).iter() {
                        let words = item.view().unwrap();
                        let poster = words[0] as usize;
                        assert_eq!(words[1], next[poster]);
                        assert!(words[2..].iter().all(|&word| word == words[1]));
                        next[poster] += 1;
                    }
                }
                assert_eq!(reader.missed(), 0);
            });
        }
        for number in 0..2u64 {
            let poster = topic.poster().unwrap();
            scope.spawn(move || {
                for round in 0..rounds {
                    let message = |n: u64| {
                        let mut words = vec![100 * round + n; 2 + (n / 20) as usize];
                        words[0] = number;
                        words
                    };
                    let messages: Vec<Vec<u64>> = (0..100).map(message).collect();
                    let posted = poster.post_many(messages.iter().map(Vec::as_slice));
                    assert_eq!(posted.unwrap().count, 100);
                }
            });
        }
    });
    assert!(matrix.check().is_empty());
}

#[test]
fn batch_that_is_given_back_comes_again() {
    let matrix = matrix_of(1 << 20);
    let topic = Topic::<u64>::builder(&matrix, "t").open_or_create().unwrap();
    let mut alone = topic.reader().open().unwrap();
    let mut members = [(); 2].map(|()| topic.reader().group("g").open().unwrap());
    topic.poster().unwrap().post_many(&[1, 2]).unwrap();
    alone.read_many(5).nack();
    assert_eq!(alone.read_many(5).len(), 2);
    members[0].read_many(5).nack();
    let again = members[1].read();
    assert_eq!((again.view(), again.attempts()), (Ok(&1), 1));
}
