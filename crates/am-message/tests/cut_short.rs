//! What messages that are made in place, and batches, promise when something goes wrong in the middle.

use am_matrix::{Arena, Matrix, plan};
use am_message::{Message, MessageSet, Poster, Reader, Start, Topic};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Messages that one exchange claims.
const RUN: u64 = 64;
/// Readers that each hold a message: so that the list of orphans is full in the middle of a batch.
const HOLDERS: usize = 63;
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    round: u64,
    number: u64,
}

#[derive(MessageSet, Debug)]
#[expect(dead_code, reason = "only views of it are made")]
enum Feed {
    Tick(Tick),
    Beat(()),
}

fn matrix() -> Matrix {
    let size = 6 << 20;
    Matrix::format(Arena::heap(size), &plan(size as u64, 60, 30).unwrap()).unwrap()
}

fn ticks(round: u64) -> Vec<Tick> {
    (0..RUN).map(|number| Tick { round, number }).collect()
}

/// Fills the list of orphans but for six, and calls `then` while 63 messages are held that the next batch overwrites.
fn beside_holders(topic: &Topic<Feed>, poster: &Poster<Feed>, then: impl FnOnce()) {
    let mut readers: Vec<Reader<Feed>> =
        (0..HOLDERS).map(|_| topic.reader().open().unwrap()).collect();
    poster.try_post_many(&ticks(0)).unwrap();
    for round in 1..=6 {
        let held = hold(&mut readers);
        poster.try_post_many(&ticks(round)).unwrap();
        poster.try_post_many(&ticks(round)).unwrap();
        drop(held);
    }
    let held = hold(&mut readers);
    poster.try_post_many(&ticks(7)).unwrap();
    then();
    drop(held);
}

/// Each reader holds a message of the last batch, another one each.
fn hold(readers: &mut [Reader<Feed>]) -> Vec<am_message::Received<'_, Feed>> {
    let each = readers.iter_mut().enumerate();
    each.map(|(skipped, reader)| {
        (0..skipped).for_each(|_| drop(reader.try_read().unwrap()));
        reader.try_read().unwrap()
    })
    .collect()
}

#[test]
fn batch_that_orphans_cut_short_tells_how_many_were_posted() {
    let matrix = matrix();
    let topic: Topic<Feed> =
        Topic::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    beside_holders(&topic, &poster, || {
        let mut witness = topic.reader().start(Start::Latest).open().unwrap();
        let told = match poster.try_post_many(&ticks(8)) {
            Ok(posted) => posted.count,
            Err(error) => error.posted,
        };
        let mut seen = 0;
        while let Some(message) = witness.try_read() {
            assert_eq!(message.get::<Tick>().unwrap().unwrap().round, 8);
            seen += 1;
        }
        assert!(seen > 0 && seen < RUN, "the batch was cut short: {seen}");
        assert_eq!(told, seen, "told {told} were posted, and readers saw {seen}");
    });
}

#[test]
fn waiting_batch_that_orphans_cut_short_counts_all_that_it_posted() {
    let matrix = matrix();
    let topic: Topic<Feed> =
        Topic::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    beside_holders(&topic, &poster, || {
        let posted = poster.post_many(&ticks(8)).unwrap();
        assert_eq!(posted.count, RUN, "all were posted, or it had not returned without an error");
    });
}

#[test]
fn each_message_is_made_and_posted_once() {
    let matrix = matrix();
    let topic: Topic<Feed> =
        Topic::builder(&matrix, "t").capacity(64).lossy().open_or_create().unwrap();
    let poster = topic.poster().unwrap();
    beside_holders(&topic, &poster, || {
        let before = topic.posted();
        let mut witness = topic.reader().start(Start::Latest).open().unwrap();
        let mut made = Vec::new();
        let posted = poster.post_from_fn(10, |n| made.push(n)).unwrap();
        let mut seen = 0;
        while witness.try_read().is_some() {
            seen += 1;
        }
        let claimed = topic.posted() - before;
        assert_eq!(posted.count, 10);
        assert_eq!((seen, made), (10, (0..10).collect()), "claimed {claimed}");
    });
}

#[test]
fn reader_that_waits_for_its_bell_is_rung_when_the_making_panics() {
    let matrix = matrix();
    let folder = std::env::temp_dir().join(format!("am-cut-short-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let topic: Topic<u64> = Topic::builder(&matrix, "t")
        .bells_beside(&folder.join("segment"))
        .open_or_create()
        .unwrap();
    let mut reader = topic.reader().with_bell().open().unwrap();
    let (poster, other) = (topic.poster().unwrap(), topic.poster().unwrap());
    let result = catch_unwind(AssertUnwindSafe(|| {
        poster.post_from_fn(1, |_| -> u64 {
            other.post(&7).unwrap();
            assert!(reader.arm().unwrap(), "what is before it is not finished");
            panic!("on purpose")
        })
    }));
    assert!(result.is_err());
    let mut fds = [PollFd::new(reader.bell().unwrap().as_fd(), PollFlags::POLLIN)];
    let rung = poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() == 1;
    let there = reader.try_read().map(|message| *message.view().unwrap());
    drop(reader);
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(there, Some(7), "the other's message is there");
    assert!(rung, "a message is there, and nobody rang the bell of who waits for it");
}

#[test]
fn message_that_is_made_slowly_is_stamped_when_its_slot_is_written() {
    let matrix = matrix();
    let topic: Topic<u64> = Topic::builder(&matrix, "t").stamped(true).open_or_create().unwrap();
    let mut reader = topic.reader().open().unwrap();
    let (poster, pause) = (topic.poster().unwrap(), Duration::from_millis(30));
    let mut made = Vec::new();
    poster
        .post_from_fn(4, |n| {
            std::thread::sleep(pause);
            made.push(std::time::Instant::now());
            n
        })
        .unwrap();
    for made in made {
        let message = reader.try_read().unwrap();
        let (age, since_made) = (message.info().age().unwrap(), made.elapsed());
        assert!(
            age <= since_made + pause / 2,
            "{:?}: {age:?}, made {since_made:?} ago",
            message.seq()
        );
    }
}

mod mixed {
    use super::{Matrix, Message, MessageSet, Poster, Reader, Start, Topic, commons, matrix};
    use proptest::prelude::*;

    #[derive(Message, Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Pair(u64, u64);

    #[derive(MessageSet, Debug)]
    enum Mix<'a> {
        Pair(&'a Pair),
        Blob(&'a [u8]),
        Beat(()),
    }

    const LENGTHS: [usize; 8] = [0, 1, 8, 24, 64, 65, 500, 1025];

    #[derive(Clone, Debug)]
    enum Step {
        Post(usize, usize),
        Many(usize, Vec<usize>),
        Pairs(usize, u64),
        Beats(usize, u64),
        Loan(usize, usize, bool),
        Read(usize, usize),
        Hold(usize, usize),
        Join(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (who, len) = (0..2usize, 0..LENGTHS.len());
        prop_oneof![
            (who.clone(), len.clone()).prop_map(|(a, b)| Step::Post(a, b)),
            (who.clone(), prop::collection::vec(len.clone(), 1..100))
                .prop_map(|(a, b)| Step::Many(a, b)),
            (who.clone(), 0..90u64).prop_map(|(a, b)| Step::Pairs(a, b)),
            (who.clone(), 0..90u64).prop_map(|(a, b)| Step::Beats(a, b)),
            (who.clone(), len, any::<bool>()).prop_map(|(a, b, c)| Step::Loan(a, b, c)),
            (who.clone(), 0..100usize).prop_map(|(a, b)| Step::Read(a, b)),
            (who.clone(), 0..100usize).prop_map(|(a, b)| Step::Hold(a, b)),
            who.prop_map(Step::Join),
        ]
    }

    fn blob(len: usize, salt: u8) -> Vec<u8> {
        let mut bytes = vec![salt; len];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = salt.wrapping_add(n as u8);
        }
        bytes
    }

    fn judge(view: Mix<'_>) {
        match view {
            Mix::Pair(&Pair(one, two)) => assert_eq!(one, !two),
            Mix::Blob(bytes) => {
                let salt = bytes.first().copied().unwrap_or(0);
                assert!(LENGTHS.contains(&bytes.len()) && bytes == blob(bytes.len(), salt));
            }
            Mix::Beat(()) => {}
        }
    }

    fn read(reader: &mut Reader<Mix<'static>>, max: usize) -> u64 {
        let Some(batch) = reader.try_read_many(max) else { return 0 };
        batch.iter().for_each(|item| judge(item.view().unwrap()));
        batch.len() as u64
    }

    struct Seen {
        reader: Reader<Mix<'static>>,
        from: u64,
        seen: u64,
    }

    impl Seen {
        fn new(topic: &Topic<Mix<'static>>) -> Self {
            let reader = topic.reader().start(Start::Latest).open().unwrap();
            Self { from: reader.position().0, reader, seen: 0 }
        }

        fn end(mut self, topic: &Topic<Mix<'static>>) {
            loop {
                match read(&mut self.reader, 50) {
                    0 => break,
                    count => self.seen += count,
                }
            }
            assert_eq!(self.seen + self.reader.missed(), topic.posted() - self.from);
            assert!(topic.is_lossy() || self.reader.missed() == 0);
        }
    }

    fn play_one(step: &Step, poster: &Poster<Mix<'static>>, room: bool, salt: u8) -> u64 {
        match step {
            Step::Post(_, len) => {
                u64::from(poster.try_post(&blob(LENGTHS[*len], salt)[..]).is_ok())
            }
            Step::Many(_, lens) => {
                let blobs: Vec<_> = lens.iter().map(|&len| blob(LENGTHS[len], salt)).collect();
                match poster.try_post_many(blobs.iter().map(|blob| &blob[..])) {
                    Ok(posted) => posted.count,
                    Err(error) => error.posted,
                }
            }
            Step::Pairs(_, count) if room => {
                poster.post_from_fn(*count, |n| Pair(n, !n)).unwrap().count
            }
            Step::Beats(_, count) if room => poster.post_from_fn(*count, |_| ()).unwrap().count,
            Step::Loan(_, len, commit) => {
                let mut one = poster.loan_bytes(LENGTHS[*len]).unwrap();
                let mut two = poster.loan_bytes(LENGTHS[*len]).unwrap();
                one.copy_from_slice(&blob(LENGTHS[*len], salt));
                two.copy_from_slice(&blob(LENGTHS[*len], salt.wrapping_add(1)));
                let first = u64::from(two.try_commit().is_ok());
                if *commit { first + u64::from(one.try_commit().is_ok()) } else { first }
            }
            _ => 0,
        }
    }

    fn play(matrix: &Matrix, lossy: bool, in_ring: usize, steps: &[Step]) {
        let builder = Topic::<Mix<'static>>::builder(matrix, "t").capacity(64);
        let builder = builder.in_ring_up_to(in_ring);
        let builder = if lossy { builder.lossy() } else { builder };
        let topic = builder.open_or_create().unwrap();
        let posters = [topic.poster().unwrap(), topic.poster().unwrap()];
        let mut readers = [Seen::new(&topic), Seen::new(&topic)];
        let mut told = 0;
        for (salt, step) in steps.iter().enumerate() {
            match step {
                Step::Post(who, _)
                | Step::Many(who, _)
                | Step::Pairs(who, _)
                | Step::Beats(who, _)
                | Step::Loan(who, ..) => {
                    // What waits for room would wait for ever.
                    let behind = readers.iter().map(|seen| seen.reader.position().0).min().unwrap();
                    let room = lossy || topic.posted() - behind + 90 <= 128;
                    told += play_one(step, &posters[*who], room, salt as u8);
                }
                Step::Read(who, max) => {
                    let seen = &mut readers[*who];
                    seen.seen += read(&mut seen.reader, *max);
                }
                Step::Hold(who, max) => {
                    let seen = &mut readers[*who];
                    if let Some(batch) = seen.reader.try_read_many(*max) {
                        // While it looks, the others go on.
                        for n in 0..40 {
                            told += u64::from(posters[n % 2].try_post(&Pair(7, !7)).is_ok());
                        }
                        batch.iter().for_each(|item| judge(item.view().unwrap()));
                        seen.seen += batch.len() as u64;
                    }
                }
                Step::Join(who) => {
                    std::mem::replace(&mut readers[*who], Seen::new(&topic)).end(&topic);
                }
            }
        }
        readers.into_iter().for_each(|seen| seen.end(&topic));
        assert_eq!(told, topic.posted(), "nobody died, and every message is told");
        for n in 0..600 {
            posters[1].post(&Pair(n, !n)).unwrap();
        }
        drop(posters);
        let blocks = if lossy || in_ring == 0 { 128 } else { 0 };
        assert_eq!(commons(matrix), 1 + blocks);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn messages_of_all_lengths_posted_all_ways_come_whole(
            lossy in any::<bool>(),
            in_ring in prop::sample::select(vec![0usize, 64, 128, 1024]),
            steps in prop::collection::vec(step(), 1..120),
        ) {
            play(&matrix(), lossy, in_ring, &steps);
        }
    }
}

/// Common blocks: the topic's own, and one for each message that has one.
fn commons(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.common_blocks).sum()
}
