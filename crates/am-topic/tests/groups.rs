//! Groups: each message goes to one member, and to another if that one does not finish it.
#![cfg(not(loom))]

mod world;

use am_topic::{
    Flow, MEMBERS, Member, Morgue, Next, NoGroup, NoRoom, Place, RETURNS, Recoverer, Seq, Start,
    Topic,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use world::World;

const LOG: u32 = 7;
const SLOTS: u64 = 1 << LOG;
const NAME: u64 = 77;

/// Members that are dead have left nothing but their seats.
struct Dead(u32);

impl Morgue for Dead {
    fn is_dead(&self, owner: u32) -> bool {
        owner == self.0
    }

    fn is_nobodys(&self, _: Place) -> bool {
        true
    }

    fn bequeath(&mut self, place: Place, _: u32) {
        panic!("a member has no blocks, not {place:?}");
    }
}

fn recover(topic: Topic<'_>, dead: u32) -> usize {
    let mut found = 0;
    Recoverer::new(topic, Dead(dead)).recover(|_| found += 1);
    found
}

fn join<'a>(topic: &Topic<'a>, owner: u32) -> Member<'a> {
    topic.member(NAME, owner, Start::Earliest).unwrap()
}

/// What the member gets next: the value and how often it was delivered before.
fn take(world: &World, member: &mut Member<'_>) -> Option<(u64, u8)> {
    let Next::Message(held) = member.next() else { return None };
    let value = world.payload(held.entry.place);
    assert_eq!(held.entry.tag, value);
    Some((value, member.attempts()))
}

fn finish(world: &World, member: &mut Member<'_>) -> Option<(u64, u8)> {
    let taken = take(world, member);
    member.done();
    taken
}

#[test]
fn each_message_goes_to_one_member() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let (mut one, mut two) = (join(&topic, 2), join(&topic, 3));
    let mut other = topic.member(NAME + 1, 4, Start::Earliest).unwrap();
    for n in 0..3 * SLOTS {
        world.post(&mut poster, n).unwrap();
        let (member, idle) = if n % 3 == 0 { (&mut two, &mut one) } else { (&mut one, &mut two) };
        assert_eq!(take(&world, member), Some((n, 0)));
        assert_eq!(take(&world, member), Some((n, 0)), "it is held still");
        assert_eq!(take(&world, idle), None);
        member.done();
        assert_eq!(finish(&world, &mut other), Some((n, 0)), "another group");
    }
    assert_eq!((one.missed(), two.missed()), (0, 0));
}

#[test]
fn message_that_is_given_back_goes_to_another_member_first() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let (mut one, mut two) = (join(&topic, 2), join(&topic, 3));
    (0..3).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(take(&world, &mut one), Some((0, 0)));
    one.give_back();
    assert_eq!(take(&world, &mut one), Some((1, 0)), "others first");
    assert_eq!(take(&world, &mut two), Some((0, 1)));
    two.give_back();
    one.done();
    drop(two);
    assert_eq!(finish(&world, &mut one), Some((0, 2)), "nobody else is there");
    assert_eq!(finish(&world, &mut one), Some((2, 0)));
    assert_eq!(finish(&world, &mut one), None);
}

#[test]
fn what_a_member_holds_when_it_leaves_goes_to_another() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut one = join(&topic, 2);
    world.post(&mut poster, 0).unwrap();
    assert_eq!(take(&world, &mut one), Some((0, 0)));
    drop(one);
    let mut two = join(&topic, 3);
    assert_eq!(take(&world, &mut two), Some((0, 1)));
    drop(two);
    assert_eq!(finish(&world, &mut join(&topic, 4)), Some((0, 2)));
    assert_eq!(take(&world, &mut join(&topic, 5)), None);
}

#[test]
fn message_of_a_dead_member_goes_to_another() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let (mut fresh, mut again, mut alive) = (join(&topic, 2), join(&topic, 2), join(&topic, 3));
    (0..4).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(take(&world, &mut alive), Some((0, 0)));
    alive.give_back();
    assert_eq!(take(&world, &mut again), Some((0, 1)));
    assert_eq!(take(&world, &mut fresh), Some((1, 0)));
    std::mem::forget((fresh, again));
    assert_eq!(finish(&world, &mut alive), Some((2, 0)), "nobody is known to be dead");
    assert_eq!(recover(topic, 2), 2);
    assert_eq!(recover(topic, 2), 0);
    let mut rest = [0; 3].map(|_| finish(&world, &mut alive).unwrap());
    rest.sort_unstable();
    assert_eq!(rest, [(0, 2), (1, 1), (3, 0)]);
    assert_eq!(finish(&world, &mut alive), None);
}

#[test]
fn posters_wait_for_what_a_group_has_not_done() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut one = join(&topic, 2);
    let mut two = join(&topic, 3);
    (0..SLOTS).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "nothing is taken");
    assert_eq!(take(&world, &mut one), Some((0, 0)));
    (1..SLOTS).for_each(|n| assert_eq!(finish(&world, &mut two), Some((n, 0))));
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "one member holds the first");
    one.give_back();
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "it is given back");
    drop((one, two));
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom), "a group lasts");
    assert_eq!(finish(&world, &mut join(&topic, 4)), Some((0, 1)));
    (0..SLOTS).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(world.post(&mut poster, 0), Err(NoRoom));
    assert_eq!(topic.close_group(NAME, 9), Ok(()));
    (0..SLOTS).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
}

#[test]
fn group_that_was_closed_begins_anew_but_not_further_back() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    (0..5).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    let mut one = topic.member(NAME, 2, Start::At(Seq(1))).unwrap();
    assert_eq!(take(&world, &mut one), Some((1, 0)));
    assert_eq!(topic.close_group(NAME, 9), Err(NoGroup::HasMembers));
    drop(one);
    assert_eq!(topic.close_group(NAME, 9), Ok(()));
    assert_eq!(topic.close_group(NAME + 1, 9), Ok(()), "there is none");
    let mut two = join(&topic, 3);
    assert_eq!(finish(&world, &mut two), Some((2, 0)), "what it had not done was given up");
}

#[test]
fn groups_and_members_are_limited() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let members: Vec<_> = (0..MEMBERS).map(|_| join(&topic, 2)).collect();
    assert_eq!(topic.member(NAME, 3, Start::Latest).err(), Some(NoGroup::TooManyMembers));
    drop(members);
    join(&topic, 3);
    let groups = (1..).take_while(|&name| topic.member(name, 3, Start::Latest).is_ok()).count();
    assert_eq!(groups, am_topic::GROUPS - 1);
    assert_eq!(topic.member(999, 3, Start::Latest).err(), Some(NoGroup::TooManyGroups));
}

#[test]
fn returned_messages_that_find_no_room_stay_until_there_is() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let mut one = join(&topic, 2);
    let count = RETURNS as u64 + 10;
    (0..count).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    for n in 0..RETURNS as u64 {
        assert_eq!(take(&world, &mut one), Some((n, 0)));
        one.give_back();
    }
    let full = RETURNS as u64;
    assert_eq!(take(&world, &mut one), Some((full, 0)));
    one.give_back();
    assert_eq!(take(&world, &mut one), Some((full, 1)), "no room: it keeps it");
    // Another one dies with one more: that stays in its seat.
    let mut dead = join(&topic, 9);
    let first = take(&world, &mut dead).unwrap();
    assert_eq!(first, (0, 1), "a returned one");
    dead.done();
    one.give_back();
    let mut seen: Vec<u64> = std::iter::from_fn(|| Some(finish(&world, &mut dead)?.0)).collect();
    seen.push(first.0);
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<u64>>());
    assert_eq!(take(&world, &mut one), None);
}

#[test]
fn message_that_a_member_left_in_its_seat_is_found_there() {
    let world = World::new(LOG, Flow::Lossless);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let (mut one, mut two) = (join(&topic, 2), join(&topic, 3));
    let count = RETURNS as u64 + 2;
    (0..count).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(take(&world, &mut two), Some((0, 0)));
    for n in 1..=RETURNS as u64 {
        assert_eq!(take(&world, &mut one), Some((n, 0)));
        one.give_back();
    }
    std::mem::forget(two);
    assert_eq!(recover(topic, 3), 1, "there is no room for what it had");
    let mut seen: Vec<u64> = std::iter::from_fn(|| Some(finish(&world, &mut one)?.0)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<u64>>());
}

#[test]
fn lossy_group_keeps_what_a_member_holds_and_counts_what_it_missed() {
    let world = World::new(LOG, Flow::Lossy);
    let topic = world.topic();
    let mut poster = topic.poster(1).unwrap();
    let (mut one, mut two) = (join(&topic, 2), join(&topic, 3));
    (0..2).for_each(|n| assert!(world.post(&mut poster, n).is_ok()));
    assert_eq!(take(&world, &mut one), Some((0, 0)));
    assert_eq!(take(&world, &mut two), Some((1, 0)));
    two.give_back();
    let count = 3 * SLOTS;
    for n in 2..count {
        world.post(&mut poster, n).unwrap();
        assert_eq!(take(&world, &mut one), Some((0, 0)), "held");
    }
    one.done();
    let rest = std::iter::from_fn(|| finish(&world, &mut two)).count() as u64;
    assert_eq!(1 + rest + two.missed(), count, "the returned one is missed as well");
    world.collect(&mut poster);
    assert_eq!(world.in_use(), SLOTS as usize);
}

/// Members that finish, give back, leave and die; each message is finished once.
fn storm(flow: Flow, posters: u64, members: u32, each: u64) {
    let world = World::new(LOG, flow);
    let done = AtomicBool::new(false);
    let finished = Mutex::new(vec![0u32; (posters * each) as usize]);
    let missed = Mutex::new(0);
    // Of recoverers one may be at work.
    let recovering = Mutex::new(());
    let first = join(&world.topic(), 99);
    thread::scope(|scope| {
        let (world, done, finished, missed) = (&world, &done, &finished, &missed);
        let recovering = &recovering;
        for number in 0..members {
            scope.spawn(move || {
                let topic = world.topic();
                let (mut mine, mut owner) = (Vec::new(), 100 + number);
                let mut lost = 0;
                let mut member = join(&topic, owner);
                for turn in 0u64.. {
                    let over = done.load(Ordering::Acquire);
                    let Some((value, _)) = take(world, &mut member) else {
                        if over {
                            break;
                        }
                        thread::yield_now();
                        continue;
                    };
                    match turn % 97 {
                        3 | 50 => member.give_back(),
                        7 => {
                            lost += member.missed();
                            drop(std::mem::replace(&mut member, join(&topic, owner)));
                        }
                        11 => {
                            lost += member.missed();
                            let dead = owner;
                            owner += 1000;
                            std::mem::forget(std::mem::replace(&mut member, join(&topic, owner)));
                            let _one = recovering.lock().unwrap();
                            assert_eq!(recover(topic, dead), 1);
                        }
                        _ => {
                            member.done();
                            mine.push(value);
                        }
                    }
                }
                lost += member.missed();
                *missed.lock().unwrap() += lost;
                let mut finished = finished.lock().unwrap();
                mine.into_iter().for_each(|value| finished[value as usize] += 1);
            });
        }
        let posting: Vec<_> = (0..posters)
            .map(|number| {
                scope.spawn(move || {
                    let mut poster = world.topic().poster(1 + number as u32).unwrap();
                    for n in 0..each {
                        while world.post(&mut poster, number * each + n).is_err() {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        posting.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Release);
    });
    // What was given back when the others had gone.
    let mut last = first;
    let mut finished = finished.into_inner().unwrap();
    while let Some((value, _)) = finish(&world, &mut last) {
        finished[value as usize] += 1;
    }
    let seen: u64 = finished.iter().map(|&times| u64::from(times)).sum();
    assert!(finished.iter().all(|&times| times <= 1), "finished twice");
    let missed = missed.into_inner().unwrap() + last.missed();
    assert_eq!(seen + missed, posters * each);
    assert!(flow == Flow::Lossy || missed == 0, "{missed} missed");
    world.collect(&mut world.topic().poster(1).unwrap());
    assert_eq!(world.in_use(), SLOTS as usize);
}

#[test]
fn storm_lossless() {
    storm(Flow::Lossless, 2, 3, 30_000);
    storm(Flow::Lossless, 1, 6, 30_000);
}

#[test]
fn storm_lossy() {
    storm(Flow::Lossy, 2, 3, 30_000);
}
