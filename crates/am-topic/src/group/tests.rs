//! A member that dies between two steps: the rows of the table of deaths in docs/messages.md.

use super::{CLOSED, Front, Group, NOBODY, OPENING, Return, Taken};
use crate::{Entry, Flow, Member, NoRoom, Place, Shape, Start, Topic};
use am_layout::{Wide, Word};

const SLOTS: u64 = 128;
const NAME: u64 = 5;

fn with_topic(test: impl Fn(Topic<'_>)) {
    let shape = Shape { slots_log: 7, flow: Flow::Lossless, cell_bytes: 0, set: 0, stamped: false };
    let words: Vec<Word> = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
    let wides: Vec<Wide> = (0..shape.wides()).map(|_| Wide::new(0)).collect();
    test(Topic::format(&words, &wides, shape).unwrap());
}

/// Posts that many messages; their places are no blocks.
fn post(topic: Topic<'_>, count: u64) -> Result<(), NoRoom> {
    let mut poster = topic.poster(1).unwrap();
    for _ in 0..count {
        let mut claim = poster.claim_one()?;
        claim.tell(&Entry { place: Place { offset: 1, len: 8 }, kind: 0, poster: 0, tag: 0 });
        claim.publish();
    }
    Ok(())
}

fn join<'a>(topic: &Topic<'a>) -> (Group<'a>, Member<'a>) {
    let member = topic.member(NAME, 2, Start::Earliest).unwrap();
    (topic.group(NAME).unwrap(), member)
}

/// What a member finishes: numbers from 0, and how often they were delivered before; in order.
fn finish_all(member: &mut Member<'_>) -> Vec<(u64, u8)> {
    let mut seen = Vec::new();
    while let crate::Next::Message(held) = member.next() {
        seen.push((held.seq.0, member.attempts()));
        member.done();
    }
    seen.sort_unstable();
    seen
}

/// Takes a seat and the next number of the front, and dies before it writes the taken word.
fn take_and_die(group: &Group<'_>) -> u64 {
    let code = group.sit(3).unwrap();
    let front = group.load_front();
    group.record(front);
    let moved = Front { number: front.number + 1, last: code };
    group.front().cas_full(front.raw(), moved.raw()).unwrap();
    code
}

#[test]
fn number_that_was_taken_and_not_written_keeps_posters_waiting() {
    with_topic(|topic| {
        let (group, mut member) = join(&topic);
        post(topic, SLOTS).unwrap();
        assert_eq!(group.gate(), Some(SLOTS));
        let code = take_and_die(&group);
        assert!(!group.seat(code).load_taken().has);
        assert_eq!(group.gate(), Some(SLOTS), "taken");
        assert_eq!(post(topic, 1), Err(NoRoom));
        assert_eq!(finish_all(&mut member).len() as u64, SLOTS - 1);
        assert_eq!(group.gate(), Some(SLOTS), "the others went on");
        group.leave(code);
        assert_eq!(finish_all(&mut member), [(0, 1)]);
        assert_eq!(group.gate(), Some(2 * SLOTS));
    });
}

#[test]
fn next_taker_writes_what_the_one_before_took() {
    with_topic(|topic| {
        let (group, mut member) = join(&topic);
        post(topic, 2).unwrap();
        let code = take_and_die(&group);
        assert!(matches!(member.next(), crate::Next::Message(held) if held.seq.0 == 1));
        let taken = group.seat(code).load_taken();
        assert_eq!(taken, Taken { number: SLOTS, has: true });
        member.done();
        group.leave(code);
        assert_eq!(finish_all(&mut member), [(0, 1)]);
    });
}

#[test]
fn recoverer_writes_what_the_dead_took_last() {
    with_topic(|topic| {
        let (group, mut member) = join(&topic);
        post(topic, 1).unwrap();
        let code = take_and_die(&group);
        group.leave(code);
        assert_eq!(group.seat(code).owner().load(), 0);
        assert_eq!(finish_all(&mut member), [(0, 1)]);
    });
}

#[test]
fn death_while_giving_back_delivers_once_more_and_not_twice() {
    with_topic(|topic| {
        let (group, mut member) = join(&topic);
        post(topic, 3).unwrap();
        // One dies when the entry is there, one when its taken word is done, one when both is over.
        for steps in 1..=3 {
            let code = take_and_die(&group);
            group.record(group.load_front());
            let number = group.seat(code).load_taken().number;
            assert!(group.list(code, number));
            if steps >= 2 {
                group.seat(code).taken().store(Taken { number, has: false }.raw());
            }
            if steps >= 3 {
                let entry = Return { number, attempts: 0, code };
                let mine = group.entries().find(|seen| seen.load() == entry.raw()).unwrap();
                mine.store(entry.once_more().raw());
            }
            assert_eq!(group.gate(), Some(SLOTS));
            group.leave(code);
            // A recoverer that died before it gave the seat up is followed by another.
            group.leave(code);
        }
        assert_eq!(finish_all(&mut member), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(group.gate(), Some(SLOTS + 3));
    });
}

#[test]
fn group_that_was_half_opened_is_opened_by_the_next() {
    with_topic(|topic| {
        let group = topic.group(NAME).unwrap();
        assert_eq!((group.load_front().last, group.gate()), (CLOSED, None));
        post(topic, 3).unwrap();
        let opening = Front { number: topic.oldest(topic.load_tail().next), last: OPENING };
        group.front().cas_full(0, opening.raw()).unwrap();
        assert_eq!(group.gate(), Some(SLOTS), "it keeps what was the oldest");
        let mut member = topic.member(NAME, 2, Start::Latest).unwrap();
        assert_eq!(group.load_front(), Front { number: SLOTS + 3, last: NOBODY });
        post(topic, 1).unwrap();
        assert_eq!(finish_all(&mut member), [(3, 0)]);
    });
}

#[test]
fn scribbled_words_make_no_call_panic_or_endless() {
    for scribble in [u64::MAX, u64::MAX - 1, 1 << 63 | 5, 0xff, 3, 4, 77 << 8 | 3] {
        with_topic(|topic| {
            let (group, mut member) = join(&topic);
            post(topic, 3).unwrap();
            assert!(matches!(member.next(), crate::Next::Message(_)));
            let seats = group.codes().map(|code| group.seat(code).taken());
            let words: Vec<&Wide> = seats.chain(group.entries()).chain([group.front()]).collect();
            for word in words {
                let old = word.load();
                word.store(scribble);
                let _ = (group.gate(), member.next(), member.peek(1));
                member.give_back();
                let _ = member.next();
                member.done();
                word.store(old);
            }
            drop(member);
            let _ = topic.close_group(NAME, 9);
        });
    }
}
