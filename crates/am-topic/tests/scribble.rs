//! A peer writes anything anywhere into a topic: calls fail or say nonsense, but return, and do not panic.
#![cfg(not(loom))]

use am_layout::{Wide, Word};
use am_topic::{Entry, Flow, Morgue, Next, Place, Poster, Reader, Recoverer, Seq, Shape};
use am_topic::{Start, Topic};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// A word that a peer writes: where, in 1/65536 of the topic, and what.
type Scribble = (u16, u64);

#[derive(Clone, Debug)]
enum Step {
    Scribble(Scribble),
    Post(u64),
    Collect,
    Join(u64),
    Read,
    Skip(u64),
    Leave,
    Recover(u32),
}

/// What a word may hold that misleads: anything, small numbers, and the ends of what a number can be.
fn value() -> impl Strategy<Value = u64> {
    let number = prop_oneof![0..600u64, (1u64 << 56) - 300..1 << 56];
    let state = (number, 0..70u64).prop_map(|(number, code)| number << 8 | code);
    prop_oneof![any::<u64>(), 0..300u64, state, (u64::MAX - 300)..=u64::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    // The words before the slots, a third of the topic, are where most is decided.
    let at = prop_oneof![any::<u16>(), 0..u16::MAX / 2];
    prop_oneof![
        6 => (at, value()).prop_map(Step::Scribble),
        3 => (0..70u64).prop_map(Step::Post),
        1 => Just(Step::Collect),
        1 => value().prop_map(Step::Join),
        3 => Just(Step::Read),
        1 => value().prop_map(Step::Skip),
        1 => Just(Step::Leave),
        1 => (0..4u32).prop_map(Step::Recover),
    ]
}

/// Holds everything to be dead, or nobody's, as its number's bits say.
struct Liar(u32);

impl Morgue for Liar {
    fn is_dead(&self, _: u32) -> bool {
        self.0 & 1 == 1
    }

    fn is_nobodys(&self, _: Place) -> bool {
        self.0 & 2 == 2
    }

    fn bequeath(&mut self, _: Place, _: u32) {}
}

fn post(poster: &mut Poster<'_>, count: u64) {
    let Ok(mut claims) = poster.claim(count) else { return };
    // The last ones are dropped.
    for number in 0..count / 2 + 1 {
        let Some(mut claim) = claims.next() else { break };
        if claim.old().is_ok() {
            claim.forget();
            let place = Place { offset: 1 + claim.seq().0 as u32 % 9, len: 8 };
            claim.tell(&Entry { place, kind: 7, poster: 1, tag: 0 });
            if number % 3 == 0 {
                claim.publish();
            } else {
                claim.ready();
            }
        }
    }
    claims.publish();
}

fn read(reader: &mut Reader<'_>) {
    if let Next::Message(held) = reader.next() {
        assert!(held.entry.place.offset != 0);
    }
    reader.done();
}

fn play(flow: Flow, steps: &[Step]) {
    let shape =
        Shape { slots_log: Shape::SLOTS_LOG_MIN, flow, cell_bytes: 0, set: 42, stamped: false };
    let words: Vec<Word> = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
    let wides: Vec<Wide> = (0..shape.wides()).map(|_| Wide::new(0)).collect();
    let topic = Topic::format(&words, &wides, shape).unwrap();
    let (mut poster, mut reader) = (topic.poster(1), topic.reader(2, Start::Earliest));
    for step in steps {
        match *step {
            Step::Scribble((at, value)) => {
                wides[(usize::from(at) * wides.len()) >> 16].store(value);
                // Whether it is still one or not.
                let _ = Topic::open(&words, &wides);
            }
            Step::Post(count) => poster.iter_mut().for_each(|poster| post(poster, count)),
            Step::Collect => {
                let orphan = poster.as_ref().and_then(|poster| poster.orphan());
                orphan.into_iter().for_each(|orphan| orphan.forget());
            }
            Step::Join(at) => {
                drop((poster.take(), reader.take()));
                poster = topic.poster(1);
                reader = topic.reader(2, Start::At(Seq(at)));
            }
            Step::Read => reader.iter_mut().for_each(read),
            Step::Skip(ahead) => reader.iter_mut().for_each(|reader| {
                if reader.peek(ahead).is_some() {
                    reader.advance(ahead + 1);
                }
            }),
            Step::Leave => reader = None,
            Step::Recover(lies) => Recoverer::new(topic, Liar(lies)).recover(|_| ()),
        }
    }
}

/// The seed of a failure is printed and kept beside the test, where the next run begins with it.
fn config() -> ProptestConfig {
    let seeds = Some(Box::new(FileFailurePersistence::WithSource("seeds")) as _);
    ProptestConfig { failure_persistence: seeds, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn scribbled_topic_makes_no_call_panic(
        lossy in any::<bool>(), steps in prop::collection::vec(step(), 1..150),
    ) {
        play(if lossy { Flow::Lossy } else { Flow::Lossless }, &steps);
    }
}
