//! Which readers may sleep, follow others or wait for bells: nobody who is dead, once recovered.
#![cfg(not(loom))]

use am_layout::{Wide, Word};
use am_topic::{Flow, Morgue, Place, Recoverer, SEATS, SeatSet, Shape, Start, Topic};

/// Who has left nothing but seats.
struct Dead(u32);

impl Morgue for Dead {
    fn is_dead(&self, owner: u32) -> bool {
        owner == self.0
    }

    fn is_nobodys(&self, _: Place) -> bool {
        true
    }

    fn bequeath(&mut self, place: Place, _: u32) {
        panic!("a reader has no blocks, not {place:?}");
    }
}

#[test]
fn recovery_takes_the_dead_ones_seats_out_of_every_set_and_no_others() {
    let shape = Shape {
        slots_log: Shape::SLOTS_LOG_MIN,
        flow: Flow::Lossless,
        cell_bytes: 0,
        set: 1,
        stamped: true,
    };
    let words: Vec<Word> = (0..Topic::WORDS).map(|_| Word::new(0)).collect();
    let wides: Vec<Wide> = (0..shape.wides()).map(|_| Wide::new(0)).collect();
    let topic = Topic::format(&words, &wides, shape).unwrap();
    assert_eq!(Topic::open(&words, &wides).unwrap().shape(), topic.shape());
    let readers = [1, 2, 1].map(|owner| topic.reader(owner, Start::Earliest).unwrap());
    let members = [(8, 2), (9, 1)].map(|(g, owner)| topic.member(g, owner, Start::Latest).unwrap());
    let sets: [SeatSet; 3] = [topic.nappers(), topic.followers(), topic.armed()];
    let mut seats = Vec::from(readers.each_ref().map(am_topic::Reader::seat_number));
    seats.extend(members.each_ref().map(am_topic::Member::seat_number));
    seats.iter().for_each(|&seat| sets.iter().for_each(|set| set.insert(seat)));
    seats.dedup();
    assert!(seats.len() == 5 && seats.iter().all(|&seat| (seat as usize) < SEATS), "{seats:?}");

    Recoverer::new(topic, Dead(1)).recover(|_| ());
    let living = [seats[1], seats[3]];
    for set in sets {
        assert!(seats.iter().all(|&seat| set.contains(seat) == living.contains(&seat)), "{set:?}");
        assert_eq!(set.take().collect::<Vec<_>>(), living);
        assert!(set.is_empty());
    }
}
