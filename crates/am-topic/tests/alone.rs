//! Claims that are forgotten, and arguments out of the way.
#![cfg(not(loom))]

use am_layout::{Wide, Word};
use am_topic::{
    Entry, Flow, Morgue, Next, Place, Poster, Reader, Recoverer, Seq, Shape, Start, Topic,
};
use std::collections::BTreeMap;

const SLOTS: u64 = 128;

struct Words {
    words: Vec<Word>,
    wides: Vec<Wide>,
}

impl Words {
    fn new() -> Self {
        let shape =
            Shape { slots_log: 7, flow: Flow::Lossless, cell_bytes: 64, set: 1, stamped: false };
        let words = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
        let wides = (0..shape.wides()).map(|_| Wide::new(0)).collect();
        let all = Self { words, wides };
        Topic::format(&all.words, &all.wides, shape).unwrap();
        all
    }

    fn topic(&self) -> Topic<'_> {
        Topic::open(&self.words, &self.wides).unwrap()
    }
}

fn entry(len: u32, kind: u32) -> Entry {
    Entry { place: Place::in_cell(len), kind, poster: 0, tag: 0 }
}

#[test]
fn peeking_on_from_anywhere_shows_what_peeking_there_does() {
    let words = Words::new();
    let reader = words.topic().reader(1, Start::Earliest).unwrap();
    for ahead in [u64::MAX - SLOTS - 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(reader.peek(ahead), None);
        reader.peek_on(ahead, |held, _| panic!("{held:?}"));
    }
}

#[test]
fn slot_says_the_length_that_it_was_told_or_that_it_is_too_long() {
    let words = Words::new();
    let topic = words.topic();
    let (mut poster, mut reader) =
        (topic.poster(1).unwrap(), topic.reader(2, Start::Earliest).unwrap());
    for len in [0, 64, 1024, 2047, 2048, u32::MAX] {
        let mut claim = poster.claim_one().unwrap();
        claim.tell(&entry(len, 5));
        claim.publish();
        let Next::Message(held) = reader.next() else { panic!("it was published") };
        reader.done();
        // Too long for any cell, it stays so; and nothing else changes.
        assert_eq!(held.entry, entry(len.min(2 * Shape::CELL_BYTES_MAX - 1), 5));
    }
}

struct Dead(u32);

impl Morgue for Dead {
    fn is_dead(&self, owner: u32) -> bool {
        owner == self.0
    }
    fn is_nobodys(&self, _: Place) -> bool {
        false
    }
    fn bequeath(&mut self, _: Place, _: u32) {}
}

/// A source of numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What became of the numbers, as their posters know.
#[derive(Default)]
struct Book {
    value: u64,
    written: BTreeMap<u64, u64>,
    sure: BTreeMap<u64, u64>,
    ready: u64,
}

fn play(dice: &mut Dice, poster: &mut Poster<'_>, book: &mut Book) {
    if dice.roll(3) == 0 {
        let Ok(mut claim) = poster.claim_one() else { return };
        book.value += 1;
        claim.cell()[0].store(book.value);
        book.written.insert(claim.seq().0, book.value);
        claim.tell(&entry(8, (book.value % 20_000) as u32));
        match dice.roll(60) {
            0 => std::mem::forget(claim),
            1..9 => drop(claim),
            _ => drop(book.sure.insert(claim.publish().0, book.value)),
        }
        return;
    }
    let count = [1, 2, 5, 64, u64::MAX][dice.roll(5) as usize];
    let claims = if dice.roll(2) == 0 { poster.claim(count) } else { poster.claim_up_to(count) };
    let Ok(mut claims) = claims else { return };
    let mut ready = BTreeMap::new();
    let mut lost = false;
    loop {
        let (mut left, stop) = (dice.roll(9), &mut *book);
        let before = stop.value;
        let filled = claims.fill_cells(|_, cell| {
            left = left.checked_sub(1)?;
            stop.value += 1;
            cell[0].store(stop.value);
            Some(entry(8, (stop.value % 20_000) as u32))
        });
        let Some(mut claim) = claims.next() else { break };
        for n in 0..filled {
            let seq = claim.seq().0 - filled + n;
            book.written.insert(seq, before + 1 + n);
            ready.insert(seq, before + 1 + n);
        }
        book.value = before + filled + 1;
        claim.cell()[0].store(book.value);
        let seq = claim.seq().0;
        book.written.insert(seq, book.value);
        claim.tell(&entry(8, (book.value % 20_000) as u32));
        match dice.roll(200) {
            0 => {
                std::mem::forget(claim);
                lost = true;
            }
            1..4 => {
                drop(claim);
                book.sure.append(&mut ready);
                lost = false;
            }
            4..8 => {
                claim.publish();
                book.sure.append(&mut ready);
                book.sure.insert(seq, book.value);
                lost = false;
            }
            _ => {
                claim.ready();
                if !lost {
                    ready.insert(seq, book.value);
                }
            }
        }
        if dice.roll(30) == 0 {
            break;
        }
    }
    match dice.roll(60) {
        0 => std::mem::forget(claims),
        1..6 => drop(claims),
        _ => {
            let (count, last) = claims.publish();
            if let Some(last) = last {
                // What the last fill made is not in the book.
                for seq in last.0 + 1 - count..=last.0 {
                    if let Some(&value) = ready.get(&seq) {
                        book.sure.insert(seq, value);
                    }
                }
            }
            book.ready += count;
        }
    }
}

fn read_all(topic: &Topic<'_>, reader: &mut Reader<'_>, seen: &mut BTreeMap<u64, u64>) {
    while let Next::Message(held) = reader.next() {
        let value = topic.cell(held.seq)[0].load();
        assert_eq!(u64::from(held.entry.kind), value % 20_000, "{:?}", held.seq);
        assert!(seen.insert(held.seq.0, value).is_none());
        reader.done();
    }
}

#[test]
fn claims_that_are_forgotten_lose_nothing_uncounted() {
    let mut total = 0;
    for seed in 0..400 {
        let words = Words::new();
        let topic = words.topic();
        let mut dice = Dice(seed);
        let mut book = Book::default();
        let mut reader = topic.reader(9, Start::Earliest).unwrap();
        let mut seen = BTreeMap::new();
        let mut posters: Vec<(u32, Poster<'_>)> =
            (1..=3).map(|owner| (owner, topic.poster(owner).unwrap())).collect();
        let mut next_owner = 10;
        for _ in 0..400 {
            // Mostly the same one.
            let who = dice.roll(30).saturating_sub(27) as usize;
            play(&mut dice, &mut posters[who].1, &mut book);
            if dice.roll(3) == 0 {
                read_all(&topic, &mut reader, &mut seen);
            }
            if dice.roll(20) == 0 {
                let (owner, poster) = posters.remove(dice.roll(3) as usize);
                std::mem::forget(poster);
                Recoverer::new(topic, Dead(owner)).recover(|_| ());
                next_owner += 1;
                posters.push((next_owner, topic.poster(next_owner).unwrap()));
            }
        }
        for (owner, poster) in posters {
            std::mem::forget(poster);
            Recoverer::new(topic, Dead(owner)).recover(|_| ());
        }
        read_all(&topic, &mut reader, &mut seen);
        assert_eq!(seen.len() as u64 + reader.missed(), topic.next().0, "seed {seed}");
        for (seq, value) in &book.sure {
            assert_eq!(seen.get(seq), Some(value), "seed {seed}: {:?} was published", Seq(*seq));
        }
        for (seq, value) in &seen {
            if let Some(written) = book.written.get(seq) {
                assert_eq!(value, written, "seed {seed}: {:?}", Seq(*seq));
            }
        }
        let mut poster = topic.poster(99).unwrap();
        for _ in 0..2 * SLOTS {
            let mut claim = poster.claim_one().expect("nothing is stuck");
            claim.tell(&entry(8, 0));
            claim.publish();
            assert!(matches!(reader.next(), Next::Message(_)));
            reader.done();
        }
        total += seen.len();
    }
    println!("{total} messages seen");
    assert!(total > 400 * 500);
}
