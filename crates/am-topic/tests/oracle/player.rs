//! Plays steps on a topic, and keeps the history that it must agree with.

use crate::heap::{Graveyard, Heap, NOBODY};
use crate::{Act, Stage, Step};
use am_topic::{Claim, Entry, Flow, Found, HELD_MAX, Next, NoRoom, Place, Poster};
use am_topic::{Reader, Recoverer, Seq, Start, Topic};
use std::collections::BTreeSet;

/// At most as many at once, so that steps meet the same ones.
const POSTERS: usize = 3;
const READERS: usize = 3;
/// The owner that nobody is.
const FIRST_OWNER: u32 = 1;

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Published(u64),
    Aborted,
    /// Its poster died with it.
    Pending,
}

struct Watch<'a> {
    /// None when it died.
    reader: Option<Reader<'a>>,
    owner: u32,
    cursor: u64,
    missed: u64,
    held: Option<Place>,
}

/// What the dead left, for the oracle.
struct Remains {
    owner: u32,
    /// Numbers that it claimed and did not finish; what their slots name is in `named`.
    pending: Vec<u64>,
    /// Orphan that it was about to free.
    taking: Option<Place>,
}

pub struct Player<'a> {
    topic: Topic<'a>,
    heap: &'a Heap,
    posters: Vec<(u32, Poster<'a>)>,
    watches: Vec<Watch<'a>>,
    dead: Vec<Remains>,
    owners: u32,
    values: u64,
    fates: Vec<Fate>,
    /// What each slot names.
    named: Vec<Option<Place>>,
    orphans: Vec<Place>,
}

impl<'a> Player<'a> {
    pub fn new(topic: Topic<'a>, heap: &'a Heap) -> Self {
        Self {
            topic,
            heap,
            posters: Vec::new(),
            watches: Vec::new(),
            dead: Vec::new(),
            owners: FIRST_OWNER,
            values: 0,
            fates: Vec::new(),
            named: vec![None; topic.shape().slots() as usize],
            orphans: Vec::new(),
        }
    }

    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::JoinPoster => self.join_poster(),
            Step::LeavePoster { who } => drop(pick(&mut self.posters, who)),
            Step::Post { who, ref acts } => self.post_by(who, acts),
            Step::Collect { who } => self.collect_by(who),
            Step::DiePosting { who, ref acts, more, stage } => {
                self.die_posting(who, acts, more, stage)
            }
            Step::DieCollecting { who, taken } => self.die_collecting(who, taken),
            Step::JoinReader { start } => self.join_reader(start),
            Step::LeaveReader { who } => drop(self.pick_reader(who)),
            Step::Read { who, count } => self.with_reader(who, |player, watch| {
                (0..count).for_each(|_| {
                    player.let_go(watch, false);
                    player.hold(watch);
                });
                player.let_go(watch, false);
            }),
            Step::Hold { who } => self.with_reader(who, |player, watch| player.hold(watch)),
            Step::LetGo { who, again } => {
                self.with_reader(who, |player, watch| player.let_go(watch, again));
            }
            Step::Skip { who, count } => {
                self.with_reader(who, |player, watch| player.skip(watch, count));
            }
            Step::DieReading { who } => {
                if let Some(mut watch) = self.pick_reader(who) {
                    std::mem::forget(watch.reader.take());
                    self.watches.push(watch);
                }
            }
            Step::Recover => self.recover(),
        }
    }

    /// All blocks that are nobody's, by what the oracle knows.
    pub fn nobodys(&self) -> BTreeSet<u32> {
        let named = self.named.iter().flatten().filter(|&&place| self.heap.owner(place) == NOBODY);
        let places = named.chain(&self.orphans).chain(self.dead.iter().flat_map(|d| &d.taking));
        places
            .filter(|&&place| self.heap.owner(place) == NOBODY)
            .map(|place| place.offset)
            .collect()
    }

    /// Everybody leaves or is recovered; a turn of posting leaves one message in each slot, and nothing else.
    pub fn end(mut self) {
        self.recover();
        let readers = 0..self.watches.len();
        readers.for_each(|_| self.play(&Step::Read { who: 0, count: 200 }));
        self.watches.clear();
        self.posters.clear();
        self.join_poster();
        for _ in 0..self.slots() {
            self.post_by(0, &[Act::Publish]);
        }
        self.collect_by(0);
        assert_eq!(self.nobodys().len() as u64, self.slots());
        self.heap.assert_free_but(self.slots() as usize);
    }

    fn slots(&self) -> u64 {
        self.topic.shape().slots()
    }

    fn next(&self) -> u64 {
        self.fates.len() as u64
    }

    fn oldest(&self) -> u64 {
        let history = self.slots() - self.topic.shape().batch_max();
        self.next().saturating_sub(history)
    }

    fn is_held(&self, place: Place) -> bool {
        self.topic.shape().flow == Flow::Lossy
            && self.watches.iter().any(|watch| watch.held == Some(place))
    }

    fn new_owner(&mut self) -> u32 {
        self.owners += 1;
        self.owners
    }

    fn named(&mut self, number: u64) -> &mut Option<Place> {
        let index = number % self.slots();
        &mut self.named[index as usize]
    }

    // Posters.

    fn join_poster(&mut self) {
        if self.posters.len() < POSTERS {
            let owner = self.new_owner();
            // The dead's numbers are not free before they are recovered.
            self.posters.extend(self.topic.poster(owner).map(|poster| (owner, poster)));
        }
    }

    /// Tells whether `count` numbers can be claimed.
    fn has_room(&self, count: u64) -> bool {
        let numbers = self.next()..self.next() + count;
        let turn = self.slots();
        let read = |number: u64| self.watches.iter().all(|watch| number < watch.cursor);
        let finished = |number: u64| self.fates[number as usize] != Fate::Pending;
        let lossy = self.topic.shape().flow == Flow::Lossy;
        let mut old = numbers.filter_map(|number| number.checked_sub(turn));
        old.all(|number| finished(number) && (lossy || read(number)))
    }

    fn post_by(&mut self, who: usize, acts: &[Act]) {
        let Some((owner, mut poster)) = pick(&mut self.posters, who) else { return };
        self.post(owner, &mut poster, acts, 0, None);
        self.posters.push((owner, poster));
    }

    /// Claims numbers for the acts and `more`; the last ones stay pending if the poster stops at some stage.
    /// Returns those.
    fn post(
        &mut self,
        owner: u32,
        poster: &mut Poster<'a>,
        acts: &[Act],
        more: u64,
        stop: Option<Stage>,
    ) -> Vec<u64> {
        let count = (acts.len() as u64 + more).min(self.topic.shape().batch_max());
        let room = self.has_room(count);
        let mut claims = match poster.claim(count) {
            Ok(claims) => claims,
            Err(NoRoom) => {
                assert!(!room, "there is room for {count}");
                return Vec::new();
            }
        };
        assert!(room, "there is no room for {count}");
        let acts = &acts[..acts.len().min(count as usize)];
        // Some batches are published together, which nobody here can tell.
        let together = stop.is_none() && self.values % 2 == 1;
        for &act in acts {
            self.finish(owner, claims.next().expect("claimed"), act, together);
        }
        let Some(stage) = stop else {
            claims.publish();
            return Vec::new();
        };
        let mut pending = Vec::new();
        while let Some(claim) = claims.next() {
            pending.push(claim.seq().0);
            self.fates.push(Fate::Pending);
            self.stop(owner, claim, stage);
        }
        std::mem::forget(claims);
        pending
    }

    fn finish(&mut self, owner: u32, mut claim: Claim<'_, 'a>, act: Act, together: bool) {
        let number = claim.seq().0;
        assert_eq!(number, self.next());
        if matches!(act, Act::Drop) || !self.take_old(owner, &mut claim) {
            self.fates.push(Fate::Aborted);
            return;
        }
        claim.forget();
        *self.named(number) = None;
        if matches!(act, Act::DropLater) {
            self.heap.free_all(owner);
            self.fates.push(Fate::Aborted);
            return;
        }
        self.heap.free_all(owner);
        let place = self.tell(owner, &mut claim);
        self.heap.pass(place, owner, NOBODY);
        if together {
            claim.ready();
        } else {
            claim.publish();
        }
        let value = self.heap.value(place);
        self.fates.push(Fate::Published(value));
    }

    fn tell(&mut self, owner: u32, claim: &mut Claim<'_, 'a>) -> Place {
        self.values += 1;
        let place = self.heap.loan(owner, self.values);
        claim.tell(&Entry { place, kind: 7, poster: owner, tag: self.values });
        *self.named(claim.seq().0) = Some(place);
        place
    }

    /// Makes the old message the poster's own, if nobody holds it; false when the list of orphans is full.
    fn take_old(&mut self, owner: u32, claim: &mut Claim<'_, 'a>) -> bool {
        let named = *self.named(claim.seq().0);
        match claim.old() {
            Ok(Some(place)) => {
                assert_eq!(named, Some(place));
                assert!(!self.is_held(place), "{place:?} is held");
                self.heap.pass(place, NOBODY, owner);
            }
            Ok(None) => {
                if let Some(place) = named {
                    assert!(self.is_held(place), "{place:?} is left to nobody");
                    self.orphans.push(place);
                    *self.named(claim.seq().0) = None;
                }
            }
            Err(full) => {
                assert_eq!(self.orphans.len(), HELD_MAX, "{full}");
                return false;
            }
        }
        true
    }

    /// Goes on with a claim up to a stage, and no further.
    fn stop(&mut self, owner: u32, mut claim: Claim<'_, 'a>, stage: Stage) {
        let number = claim.seq().0;
        if stage >= Stage::Taken && self.take_old(owner, &mut claim) && stage >= Stage::Forgotten {
            claim.forget();
            *self.named(number) = None;
            if stage >= Stage::Told {
                let place = self.tell(owner, &mut claim);
                if stage == Stage::LetGo {
                    self.heap.pass(place, owner, NOBODY);
                }
            }
        }
        std::mem::forget(claim);
    }

    fn die_posting(&mut self, who: usize, acts: &[Act], more: u64, stage: Stage) {
        let Some((owner, mut poster)) = pick(&mut self.posters, who) else { return };
        let pending = self.post(owner, &mut poster, acts, more, Some(stage));
        std::mem::forget(poster);
        self.dead.push(Remains { owner, pending, taking: None });
    }

    fn collect_by(&mut self, who: usize) {
        let Some((owner, poster)) = pick(&mut self.posters, who) else { return };
        while let Some(orphaned) = poster.orphan() {
            let place = orphaned.place();
            self.unlist(place);
            self.heap.pass(place, NOBODY, owner);
            orphaned.forget();
            self.heap.free(place, owner);
        }
        assert!(self.orphans.iter().all(|&place| self.is_held(place)), "one is left");
        self.posters.push((owner, poster));
    }

    fn unlist(&mut self, place: Place) {
        assert!(!self.is_held(place), "{place:?} is held");
        let at = self.orphans.iter().position(|&orphan| orphan == place);
        self.orphans.swap_remove(at.expect("an orphan"));
    }

    fn die_collecting(&mut self, who: usize, taken: bool) {
        let Some((owner, poster)) = pick(&mut self.posters, who) else { return };
        let taking = poster.orphan().map(|orphaned| orphaned.place());
        if let Some(place) = taking {
            self.unlist(place);
            if taken {
                self.heap.pass(place, NOBODY, owner);
            }
        }
        // It has no destructor; the poster has.
        std::mem::forget(poster);
        self.dead.push(Remains { owner, pending: Vec::new(), taking });
    }

    // Readers.

    fn join_reader(&mut self, start: u64) {
        if self.watches.len() >= READERS {
            return;
        }
        let owner = self.new_owner();
        let (oldest, next) = (self.oldest(), self.next());
        let (start, cursor, missed) = match start {
            0..100 => (Start::Earliest, oldest, 0),
            100..200 => (Start::Latest, next, 0),
            _ => {
                // Up to a little beyond both ends.
                let at = (next + 20).saturating_sub(2 * (start - 200));
                // What it asked for and is gone, it has missed.
                (Start::At(Seq(at)), at.clamp(oldest, next), oldest.saturating_sub(at))
            }
        };
        let reader = self.topic.reader(owner, start).expect("few read");
        assert_eq!(reader.cursor(), Seq(cursor));
        self.watches.push(Watch { reader: Some(reader), owner, cursor, missed, held: None });
    }

    /// Takes out a living reader.
    fn pick_reader(&mut self, who: usize) -> Option<Watch<'a>> {
        let (dead, mut living): (Vec<_>, Vec<_>) =
            self.watches.drain(..).partition(|watch| watch.reader.is_none());
        let picked = pick(&mut living, who);
        self.watches = dead;
        self.watches.append(&mut living);
        picked
    }

    fn with_reader(&mut self, who: usize, act: impl FnOnce(&Self, &mut Watch<'a>)) {
        let Some(mut watch) = self.pick_reader(who) else { return };
        act(self, &mut watch);
        let reader = watch.reader.as_ref().expect("it lives");
        assert_eq!((reader.cursor(), reader.missed()), (Seq(watch.cursor), watch.missed));
        self.watches.push(watch);
    }

    /// The value of the next message for a reader, which goes on to it.
    fn expect(&self, watch: &mut Watch<'a>) -> Option<u64> {
        loop {
            if watch.cursor + self.slots() < self.next() {
                assert_eq!(self.topic.shape().flow, Flow::Lossy, "overtaken");
                let to = self.oldest().max(watch.cursor + 1);
                watch.missed += to - watch.cursor;
                watch.cursor = to;
                continue;
            }
            match self.fates.get(watch.cursor as usize)? {
                Fate::Published(value) => return Some(*value),
                Fate::Pending => return None,
                Fate::Aborted => {
                    watch.missed += 1;
                    watch.cursor += 1;
                }
            }
        }
    }

    fn hold(&self, watch: &mut Watch<'a>) {
        if let Some(place) = watch.held {
            self.heap.value(place);
            return;
        }
        let expected = self.expect(watch);
        let found = watch.reader.as_mut().expect("it lives").next();
        let Next::Message(held) = found else { return assert_eq!(expected, None) };
        assert_eq!(Some(held.entry.tag), expected);
        assert_eq!((held.seq, held.entry.kind), (Seq(watch.cursor), 7));
        assert_eq!(Some(self.heap.value(held.entry.place)), expected);
        watch.held = Some(held.entry.place);
    }

    /// Lets go what is held; it comes again if `again` says so.
    fn let_go(&self, watch: &mut Watch<'a>, again: bool) {
        let Some(place) = watch.held.take() else { return };
        self.heap.value(place);
        let reader = watch.reader.as_mut().expect("it lives");
        if again {
            reader.put_off();
        } else {
            reader.done();
            watch.cursor += 1;
        }
    }

    fn skip(&self, watch: &mut Watch<'a>, most: u64) {
        let reader = watch.reader.as_mut().expect("it lives");
        let mut count = 0;
        while count < most {
            let Some(held) = reader.peek(count) else { break };
            let fate = self.fates[(watch.cursor + count) as usize];
            assert_eq!(Fate::Published(held.entry.tag), fate);
            assert_eq!(held.seq, Seq(watch.cursor + count));
            count += 1;
        }
        if count > 0 {
            reader.advance(count);
            watch.cursor += count;
            watch.held = None;
        }
    }

    // Recovery.

    fn recover(&mut self) {
        let dead: Vec<Remains> = self.dead.drain(..).collect();
        for remains in &dead {
            self.expect_recovered(remains);
        }
        let readers = self.watches.iter().filter(|watch| watch.reader.is_none());
        let owners = readers.map(|watch| watch.owner).chain(dead.iter().map(|dead| dead.owner));
        let owners: Vec<u32> = owners.collect();
        let mut found = [0, 0, 0];
        let morgue = Graveyard { heap: self.heap, dead: &owners };
        Recoverer::new(self.topic, morgue).recover(|what| found[what as usize] += 1);
        let pending = dead.iter().map(|dead| dead.pending.len()).sum();
        assert_eq!(found[Found::Claim as usize], pending);
        assert_eq!(found[Found::Poster as usize], dead.len());
        assert_eq!(found[Found::Reader as usize], owners.len() - dead.len());
        self.watches.retain(|watch| watch.reader.is_some());
        owners.iter().for_each(|&owner| self.heap.free_all(owner));
    }

    /// What a recovery makes of this.
    fn expect_recovered(&mut self, remains: &Remains) {
        for &number in &remains.pending {
            self.fates[number as usize] = Fate::Aborted;
            if let Some(place) = *self.named(number) {
                let nobodys = self.heap.owner(place) == NOBODY;
                if !(nobodys && self.is_held(place)) {
                    *self.named(number) = None;
                }
            }
        }
        if let Some(place) = remains.taking
            && self.heap.owner(place) == NOBODY
            && self.is_held(place)
        {
            self.orphans.push(place);
        }
    }
}

/// Takes one out, if there is any.
fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(which % from.len()))
}
