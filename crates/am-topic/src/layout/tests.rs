//! Where everything of a topic lies, as docs/layout.md tells it: in wide words from the first on.

use super::{Flow, LEFT, Shape, Topic};
use crate::{Entry, Next, Place, SEATS, Start};
use am_layout::{Wide, Word};

/// The first word of the first slot.
const SLOTS_AT: usize = 4608;

/// The words of a topic of 128 slots: those of 32 bits, and the wide ones.
struct Words(Vec<Word>, Vec<Wide>);

impl Words {
    fn of(shape: Shape) -> Self {
        let words = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
        let words = Self(words, (0..shape.wides()).map(|_| Wide::new(0)).collect());
        words.topic(shape);
        words
    }

    fn topic(&self, shape: Shape) -> Topic<'_> {
        Topic::open(&self.0, &self.1)
            .unwrap_or_else(|_| Topic::format(&self.0, &self.1, shape).unwrap())
    }

    fn wide(&self, at: usize) -> u64 {
        self.1[at].load()
    }

    /// The number of a word.
    fn at(&self, wide: &Wide) -> usize {
        self.1.iter().position(|own| std::ptr::eq(own, wide)).expect("a word of the topic")
    }
}

fn shape(flow: Flow, cell_bytes: u32) -> Shape {
    Shape { slots_log: 7, flow, cell_bytes, set: 0xabcd, stamped: true }
}

#[test]
fn head_of_a_fresh_topic_says_what_it_is_made_with() {
    let words = Words::of(shape(Flow::Lossless, 64));
    assert_eq!(words.wide(0).to_be_bytes(), *b"topic\0\0\x02");
    assert_eq!(words.wide(1), 7 | 64 << 8 | 1 << 33);
    assert_eq!((words.wide(2), words.wide(16)), (0xabcd, 128 << 8));
    assert_eq!(words.wide(SLOTS_AT + 4 * 5), 5 << 8, "slot 5, as if aborted in the turn before");
    assert_eq!(words.1.len(), SLOTS_AT + 128 * (4 + 8));
    let lossy = Words::of(shape(Flow::Lossy, 0));
    assert_eq!(lossy.wide(1), 7 | 1 << 32 | 1 << 33);
    assert_eq!(lossy.1.len(), SLOTS_AT + 128 * 4);
}

#[test]
fn words_of_a_topic_lie_where_they_are_said_to() {
    let (words, made) = (Words::of(shape(Flow::Lossless, 64)), shape(Flow::Lossless, 64));
    let topic = words.topic(made);
    let at = |wide| words.at(wide);
    assert_eq!((at(topic.tail()), at(topic.joins())), (16, 32));
    let seat = topic.seat(63);
    let seat = [seat.cursor(), seat.hold(), seat.owner(), seat.turn()];
    assert_eq!(seat.map(at), [0, 1, 2, 3].map(|word| 64 + 16 * 63 + word));
    assert_eq!((topic.seats().count(), at(topic.poster_slot(63))), (64, 1088 + 63));
    let last = topic.orphans().last().unwrap();
    assert_eq!((at(last.state), at(last.place)), (1152 + 2 * 383, 1153 + 2 * 383));
    let group = topic.groups().last().unwrap();
    assert_eq!(topic.groups().count(), 8);
    let head = 1920 + 336 * 7;
    assert_eq!(
        [group.front(), group.count(), group.floor()].map(at),
        [head + 1, head + 2, head + 3]
    );
    let member = group.seat(4 + 31);
    assert_eq!(
        [member.owner(), member.taken(), member.hold()].map(at),
        [0, 1, 2].map(|word| head + 16 + 8 * 31 + word)
    );
    let returns: Vec<usize> = group.entries().map(at).collect();
    assert_eq!(returns, (head + 272..head + 336).collect::<Vec<_>>());
    assert_eq!((head + 336, at(topic.slot(0).state())), (SLOTS_AT, SLOTS_AT));
    assert_eq!(at(topic.slot(127).place()), SLOTS_AT + 4 * 127 + 1);
    assert_eq!(at(&topic.cell_of(127)[0]), SLOTS_AT + 4 * 128 + 8 * 127);
    assert!(std::ptr::eq(topic.wakes(), &words.0[0]) && std::ptr::eq(topic.asleep(), &words.0[32]));
}

#[test]
fn sets_of_seats_begin_where_they_are_said_to() {
    let (words, made) = (Words::of(shape(Flow::Lossless, 0)), shape(Flow::Lossless, 0));
    let topic = words.topic(made);
    for (set, first) in [(topic.nappers(), 33), (topic.followers(), 38), (topic.armed(), 48)] {
        set.insert(0);
        // The last seat: of 64 readers and 8 groups of 32 members.
        set.insert(SEATS as u32 - 1);
        assert_eq!((words.wide(first), words.wide(first + 4)), (1, 1 << 63));
    }
}

#[test]
fn message_from_post_to_read_is_in_the_words_as_told() {
    let (words, made) = (Words::of(shape(Flow::Lossless, 64)), shape(Flow::Lossless, 64));
    let topic = words.topic(made);
    let mut reader = topic.reader(3, Start::Latest).unwrap();
    // Cursor, hold, owner and that it counts, turn; a reader joined.
    assert_eq!([64, 65, 66, 67, 32].map(|at| words.wide(at)), [128, 0, 3 << 1 | 1, 1, 1]);
    let mut poster = topic.poster(9).unwrap();
    assert_eq!(words.wide(1088), 9);

    let mut claim = poster.claim_one().unwrap();
    // The tail: the next number, and the code of poster 0.
    assert_eq!(words.wide(16), 129 << 8 | 2);
    claim.cell()[0].store(77);
    claim.tell(&Entry { place: Place::in_cell(8), kind: 5, poster: 6, tag: 7 });
    claim.publish();
    // The first message has number 128, and so the first slot.
    let slot = [0, 1, 2, 3].map(|word| words.wide(SLOTS_AT + word));
    assert_eq!(slot, [128 << 8 | 1, 0xffff_ffff | 8 << 32, 5 | 6 << 32, 7]);
    assert_eq!(words.wide(SLOTS_AT + 4 * 128), 77);

    assert!(matches!(reader.next(), Next::Message(_)));
    reader.done();
    assert_eq!(words.wide(64), 129);
}

#[test]
fn message_of_a_group_is_in_the_words_as_told() {
    let (words, made) = (Words::of(shape(Flow::Lossless, 64)), shape(Flow::Lossless, 64));
    let topic = words.topic(made);
    let mut member = topic.member(0xbeef, 3, Start::Latest).unwrap();
    // Name, front with nobody's code, count, floor; the member's owner.
    let head = || [0, 1, 2, 3, 16].map(|word| words.wide(1920 + word));
    assert_eq!(head(), [0xbeef, 128 << 8 | 1, 0, 128, 3]);
    let mut poster = topic.poster(9).unwrap();
    let mut claim = poster.claim_one().unwrap();
    claim.tell(&Entry { place: Place { offset: 1, len: 1 }, kind: 0, poster: 0, tag: 0 });
    claim.publish();
    assert!(matches!(member.next(), Next::Message(_)));
    // The front with the first member's code; its taken word, which has the number.
    assert_eq!((words.wide(1921), words.wide(1937)), (129 << 8 | 4, 128 << 8 | 1));
    drop(member);
    // Not done: an entry of the returns, one attempt more, nobody's.
    assert_eq!((words.wide(1937), words.wide(1920 + 272)), (128 << 8, 128 << 10 | 1 << 6));
    assert_eq!(head()[4], 0);
}

#[test]
fn message_that_is_held_while_it_is_overrun_is_listed_as_told() {
    let (words, made) = (Words::of(shape(Flow::Lossy, 0)), shape(Flow::Lossy, 0));
    let topic = words.topic(made);
    let mut reader = topic.reader(3, Start::Latest).unwrap();
    let mut poster = topic.poster(9).unwrap();
    let mut post = |offset| {
        let mut claim = poster.claim_one().unwrap();
        assert!(claim.old().is_ok());
        claim.tell(&Entry { place: Place { offset, len: 2 }, kind: 0, poster: 0, tag: 0 });
        claim.publish();
    };
    post(1000);
    assert!(matches!(reader.next(), Next::Message(_)));
    assert_eq!(words.wide(65), 1000 | 2 << 32, "the hold");
    (1..=128).for_each(&mut post);
    assert_eq!((LEFT, words.wide(1152), words.wide(1153)), (1, 1, 1000 | 2 << 32));
}
