//! Readers that wait for their bells, that sleep, and how old what they read is.

use am_matrix::{Arena, Matrix, plan};
use am_message::{Reader, Start, Topic, TopicBuilder, TopicError, WaitStrategy};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything here may take: who waits so long was not rung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A matrix, and a folder where the file of its segment would be.
struct Place {
    matrix: Matrix,
    folder: PathBuf,
}

impl Place {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("am-bells-{test}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let size = 4 << 20;
        let plan = plan(size as u64, 60, 30).unwrap();
        Self { matrix: Matrix::format(Arena::heap(size), &plan).unwrap(), folder }
    }

    fn builder(&self) -> TopicBuilder<u64> {
        Topic::builder(&self.matrix, "t").bells_beside(&self.folder.join("segment"))
    }

    fn topic(&self) -> Topic<u64> {
        self.builder().open_or_create().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = std::fs::read_dir(&self.folder).unwrap().count();
        let _ = std::fs::remove_dir_all(&self.folder);
        assert!(left == 0 || thread::panicking(), "{left} files are left");
    }
}

/// Waits for the bell; tells whether it was rung.
fn is_rung(reader: &Reader<u64>, wait: Duration) -> bool {
    let mut fds = [PollFd::new(reader.bell().expect("it has one").as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(wait).unwrap()).unwrap() == 1
}

/// The next message, waited for by the bell alone.
fn next(reader: &mut Reader<u64>) -> u64 {
    loop {
        if let Some(message) = reader.try_read() {
            return *message.view().unwrap();
        }
        assert!(!reader.arm().unwrap() || is_rung(reader, PATIENCE), "a ring was lost");
    }
}

#[test]
fn bell_is_rung_only_for_who_armed_it() {
    let place = Place::new("armed");
    let topic = place.topic();
    let mut reader = topic.reader().with_bell().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post(&1).unwrap();
    assert!(!is_rung(&reader, Duration::from_millis(20)), "nobody waits");
    assert!(!reader.arm().unwrap(), "there is a message");
    assert_eq!(next(&mut reader), 1);
    assert!(reader.arm().unwrap());
    assert!(!is_rung(&reader, Duration::from_millis(20)));
    poster.post(&2).unwrap();
    assert!(is_rung(&reader, PATIENCE));
    assert_eq!(next(&mut reader), 2);
}

#[test]
fn reader_that_waits_for_its_bell_gets_every_message() {
    const COUNT: u64 = 2_000;
    for lossy in [false, true] {
        let place = Place::new(if lossy { "all-lossy" } else { "all" });
        let builder = place.builder().capacity(COUNT);
        let topic = if lossy { builder.lossy() } else { builder };
        let topic = topic.open_or_create().unwrap();
        // One that sleeps in the kernel as well, and that keeps in step: so that each waits each time.
        let mut bell = topic.reader().wait(WaitStrategy::Spin).with_bell().open().unwrap();
        let mut sleeper = topic.reader().open().unwrap();
        let (poster, round) = (topic.poster().unwrap(), Barrier::new(3));
        thread::scope(|scope| {
            let round = &round;
            scope.spawn(move || {
                for expected in 0..COUNT {
                    assert_eq!(next(&mut bell), expected);
                    round.wait();
                }
            });
            scope.spawn(move || {
                for expected in 0..COUNT {
                    let message = sleeper.read_timeout(PATIENCE).expect("is woken");
                    assert_eq!(message.view(), Ok(&expected));
                    drop(message);
                    round.wait();
                }
            });
            for number in 0..COUNT {
                poster.post(&number).unwrap();
                round.wait();
            }
        });
    }
}

#[test]
fn followers_and_members_are_rung_as_well() {
    let place = Place::new("stages");
    let topic = place.topic();
    let mut leader = topic.reader().open().unwrap();
    let mut follower = topic.reader().after(&leader).with_bell().open().unwrap();
    let mut members: Vec<_> =
        (0..2).map(|_| topic.reader().group("g").with_bell().open().unwrap()).collect();
    assert!(follower.arm().unwrap() && members[0].arm().unwrap());
    topic.poster().unwrap().post(&5).unwrap();
    assert!(is_rung(&members[0], PATIENCE));
    assert_eq!(next(&mut members[0]), 5);

    assert!(is_rung(&follower, PATIENCE), "posts ring all");
    assert!(follower.arm().unwrap(), "its leader has not let go");
    drop(leader.read());
    assert!(is_rung(&follower, PATIENCE));
    assert_eq!(next(&mut follower), 5);

    topic.poster().unwrap().post(&6).unwrap();
    assert!(!members[0].arm().unwrap());
    assert!(members[1].arm().unwrap(), "another one has it");
    members[0].read().nack();
    assert!(is_rung(&members[1], PATIENCE));
    assert_eq!(next(&mut members[1]), 6);
}

#[test]
fn seat_that_is_taken_again_has_a_bell_of_its_own() {
    let place = Place::new("again");
    let topic = place.topic();
    let poster = topic.poster().unwrap();
    for number in 0..5 {
        let mut reader = topic.reader().with_bell().open().unwrap();
        assert!(reader.arm().unwrap());
        poster.post(&number).unwrap();
        assert_eq!(next(&mut reader), number);
    }
}

#[test]
fn message_that_an_armed_reader_saw_is_not_held() {
    let place = Place::new("held");
    let topic = place.builder().lossy().capacity(64).create().unwrap();
    let mut reader = topic.reader().start(Start::Earliest).with_bell().open().unwrap();
    let poster = topic.poster().unwrap();
    poster.post(&0).unwrap();
    assert!(!reader.arm().unwrap());
    for number in 1..1000 {
        poster.post(&number).unwrap();
    }
    // The topic and its slots: no message waits for the reader.
    let stats = place.matrix.stats();
    assert_eq!(stats.sectors.iter().map(|sector| sector.common_blocks).sum::<u64>(), 1 + 128);
    assert_eq!(next(&mut reader), reader.missed());
}

#[test]
fn bells_need_a_segment_with_a_name_and_to_be_asked_for() {
    let place = Place::new("none");
    let nameless = Topic::<u64>::builder(&place.matrix, "t").open_or_create().unwrap();
    let refused = nameless.reader().with_bell().open();
    assert!(matches!(refused, Err(TopicError::NoBell { .. })), "{refused:?}");
    let mut reader = place.topic().reader().open().unwrap();
    assert!(reader.bell().is_none());
    assert!(matches!(reader.arm(), Err(TopicError::NoBell { .. })));
    // Nor does the failure keep a seat.
    drop(reader);
    let readers: Vec<_> = (0..64).map(|_| nameless.reader().open().unwrap()).collect();
    assert_eq!(readers.len(), 64);
}

#[test]
fn idle_reader_uses_no_processor_time() {
    fn processor_time() -> i64 {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("tells");
        (usage.user_time() + usage.system_time()).num_microseconds()
    }
    let place = Place::new("idle");
    let mut reader = place.topic().reader().open().unwrap();
    let before = processor_time();
    assert!(reader.read_timeout(Duration::from_secs(1)).is_none());
    let used_us = processor_time() - before;
    println!("a second of waiting took {used_us} µs of processor time");
    // Where the machine is busy, each of its wakes costs more.
    assert!(used_us < 50_000, "a second of waiting took {used_us} µs of processor time");
}

#[test]
fn stamped_messages_tell_their_age_and_others_do_not() {
    let place = Place::new("age");
    let topic = place.builder().stamped(true).create().unwrap();
    assert!(topic.is_stamped() && place.topic().is_stamped(), "whoever opens it learns that");
    let mut reader = topic.reader().open().unwrap();
    let (poster, begun) = (topic.poster().unwrap(), Instant::now());
    poster.post_many(&[1, 2, 3]).unwrap();
    let pause = Duration::from_millis(20);
    thread::sleep(pause);
    let ages: Vec<_> = reader.inquire().map(|info| info.age().expect("stamped")).collect();
    assert_eq!(ages.len(), 3);
    assert!(ages.iter().all(|&age| age >= pause && age <= begun.elapsed()), "{ages:?}");
    let first = reader.read();
    let (info, copy) = (first.info(), first.copied());
    drop(first);
    assert_eq!((copy.view(), copy.info(), copy.seq()), (Ok(&1), info, info.seq));
    assert_eq!(copy.clone().info().posted_ns(), info.posted_ns());
    let batch = reader.read_many(2);
    assert!(batch.iter().all(|item| item.info().posted_ns() >= info.posted_ns()));

    let plain = Topic::<u64>::builder(&place.matrix, "plain").create().unwrap();
    let mut reader = plain.reader().open().unwrap();
    plain.poster().unwrap().post(&1).unwrap();
    assert_eq!(reader.read().info().age(), None);
    assert!(!plain.is_stamped());
}
