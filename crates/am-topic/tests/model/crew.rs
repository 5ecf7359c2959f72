//! Members of a group: who does which message, and how often it came to somebody before.

use crate::world::World;
use am_topic::{Member, Next, Seq, Start};

/// The group's name.
pub const GROUP: u64 = 5;

/// A thread that is a member of the group, and what it did.
pub struct Worker {
    world: &'static World,
    member: Member<'static>,
    /// What it holds.
    held: Option<Seq>,
    /// What it was done with.
    pub done: Vec<Seq>,
}

impl Worker {
    pub fn new(world: &'static World, owner: u32, start: Start) -> Self {
        let member = world.topic().member(GROUP, owner, start).expect("few join");
        Self { world, member, held: None, done: Vec::new() }
    }

    /// Takes the next message, if there is one, and works on it; returns how often it was delivered before.
    pub fn hold(&mut self) -> Option<u8> {
        let Next::Message(held) = self.member.next() else { return None };
        self.world.look_at(&held);
        let attempts = self.member.attempts();
        let before = self.world.work_on(held.seq);
        // The dead may have had it, and not looked at it.
        assert!(attempts > 0 || before == 0, "{:?} came to {before} before, unmarked", held.seq);
        self.held = Some(held.seq);
        Some(attempts)
    }

    /// Is done with the message that it holds, if it holds one.
    pub fn done(&mut self) {
        if let Some(seq) = self.held {
            self.world.worked_on(seq);
            self.member.done();
            self.held = None;
            self.done.push(seq);
        }
    }

    /// Returns the number that the group takes next.
    pub fn cursor(&self) -> Seq {
        self.member.cursor()
    }

    pub fn give_back(&mut self) {
        self.held = None;
        self.member.give_back();
    }

    /// Takes one message and is done with it; tells whether there was one.
    pub fn finish(&mut self) -> bool {
        let some = self.hold().is_some();
        self.done();
        some
    }

    /// Takes one message and gives it back; tells whether there was one.
    pub fn refuse(&mut self) -> bool {
        let some = self.hold().is_some();
        self.give_back();
        some
    }

    /// At rest: finishes what is left. The members were done with every message from `first` on once, and none of
    /// them missed any.
    pub fn account(self, first: Seq, others: impl IntoIterator<Item = Vec<Seq>>) {
        assert_eq!(self.count(first, others), 0, "lost");
    }

    /// At rest: finishes what is left. The members were done with every message from `first` on once, or this one
    /// missed it; returns how many it missed.
    pub fn count(mut self, first: Seq, others: impl IntoIterator<Item = Vec<Seq>>) -> u64 {
        while self.finish() {}
        let mut done = self.done;
        others.into_iter().for_each(|other| done.extend(other));
        done.sort_unstable();
        assert!(done.is_sorted_by(|one, two| one < two), "done twice: {done:?}");
        let numbers = self.world.topic().next().0 - first.0;
        assert_eq!(
            done.len() as u64 + self.member.missed(),
            numbers,
            "lost, of {numbers}: {done:?}"
        );
        self.member.missed()
    }

    /// What is left of a member that died: what it was done with.
    pub fn bury(self) -> Vec<Seq> {
        std::mem::forget(self.member);
        self.done
    }
}
