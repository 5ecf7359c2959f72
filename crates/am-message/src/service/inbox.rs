//! A client's reply topic: which responses are there, and which are let go.
//!
//! Responses come in any order, and are let go in any order, but a reader has one cursor. So the client knows
//! of every number from the cursor on what it is, its *window*, and moves the cursor over those at the front that
//! are let go. All from the cursor on stay as they are (M1).

use crate::error::TopicError;
use crate::reader::Found;
use crate::{MessageSet, Reader, Start, Topic, WaitStrategy};
use am_topic::{Held, Seq};
use std::collections::VecDeque;
use std::time::Instant;

/// The responses of one client.
pub(super) struct Inbox<A: MessageSet + ?Sized> {
    reader: Reader<A>,
    board: Board,
}

/// A request that was sent, and not yet taken its response of.
#[derive(Clone, Copy)]
struct Asked {
    request: Seq,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Waiting,
    /// The response is there, in the window.
    Answered(Held),
    /// Nobody waits for it; its response counts as one to come.
    Forgotten,
}

/// A number of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not there yet, or aborted.
    Unseen,
    /// A response to be taken, or taken and looked at.
    Held,
    LetGo,
}

/// What the client knows of its requests, and of the reply topic from the cursor on.
#[derive(Default)]
struct Board {
    /// In the order of their numbers, in which they were sent.
    asked: VecDeque<Asked>,
    /// How many of them are not answered.
    unanswered: u64,
    /// The first is that under the cursor.
    window: VecDeque<Place>,
    /// Responses to no request that waits.
    dropped: u64,
}

impl<A: MessageSet + ?Sized> Inbox<A> {
    /// Joins a reply topic.
    pub fn open(replies: &Topic<A>, strategy: WaitStrategy) -> Result<Self, TopicError> {
        // What is there was for one who had the number before.
        let reader = replies.reader().start(Start::Latest).wait(strategy).open()?;
        Ok(Self { reader, board: Board::default() })
    }

    /// How requests name this client.
    pub fn id(&self) -> u64 {
        self.reader.id().expect("in no group").to_raw()
    }

    /// Returns how many requests and responses there may be in hand.
    pub fn room(&self) -> u64 {
        self.reader.shared.topic.shape().history()
    }

    /// Tells whether there is room for the response to one more request.
    ///
    /// Each request that is not answered may take a number, and each number from the cursor on has one. What
    /// is left of a turn of the ring, a batch, is for responses that nobody asked for: a server's that responded and
    /// died before the request was done, or for one who had the number before.
    pub fn has_room(&mut self) -> bool {
        self.board.gather(&mut self.reader);
        self.board.unanswered + (self.board.window.len() as u64) < self.room()
    }

    /// Waits for the response to that request from now on.
    pub fn ask(&mut self, request: Seq) {
        self.board.asked.push_back(Asked { request, state: State::Waiting });
        self.board.unanswered += 1;
    }

    /// Takes the response, if it is there.
    pub fn try_take(&mut self, request: Seq) -> Option<Held> {
        let held = self.board.look(&mut self.reader, request);
        if held.is_none() {
            self.reader.vigil.look(&self.reader.shared.matrix);
        }
        held
    }

    /// Takes the response; waits for it until then, or for ever.
    pub fn take(&mut self, request: Seq, deadline: Option<Instant>) -> Option<Held> {
        if let Some(held) = self.try_take(request) {
            return Some(held);
        }
        let Self { reader, board } = self;
        loop {
            // A server may have died in the middle of the response, or with the request.
            let turn = reader.vigil.due();
            let end = deadline.map_or(turn, |deadline| deadline.min(turn));
            let held = reader.wait_until(Some(end), |reader| board.look(reader, request));
            if held.is_some() {
                return held;
            }
            reader.vigil.wait(&reader.shared.matrix);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
        }
    }

    /// Nobody waits for that response any more.
    pub fn forget(&mut self, request: Seq) {
        self.board.forget(&mut self.reader, request);
    }

    /// Lets a response go that was taken.
    pub fn let_go(&mut self, response: Seq) {
        self.board.let_go(&mut self.reader, response);
    }

    /// Checks the block of a response that was taken; `None` when somebody scribbled on it.
    pub fn check(&mut self, held: Held) -> Option<Found> {
        self.board.place_of(&self.reader, held.seq)?;
        self.reader.check(held)
    }

    /// Returns how many responses were dropped because nobody waited for them.
    pub fn dropped(&self) -> u64 {
        self.board.dropped
    }
}

impl Board {
    /// Takes the response to that request, if it is there.
    fn look<A: MessageSet + ?Sized>(
        &mut self,
        reader: &mut Reader<A>,
        request: Seq,
    ) -> Option<Held> {
        self.gather(reader);
        let index = self.find(request)?;
        let State::Answered(held) = self.asked[index].state else { return None };
        self.asked.remove(index);
        Some(held)
    }

    fn find(&self, request: Seq) -> Option<usize> {
        self.asked.binary_search_by_key(&request, |asked| asked.request).ok()
    }

    /// Takes note of the responses that came.
    ///
    /// Bounded by the number of slots.
    fn gather<A: MessageSet + ?Sized>(&mut self, reader: &mut Reader<A>) {
        if !reader.shared.matrix.is_ours() {
            // In a child of fork, cursor and responses are the parent's.
            return;
        }
        let topic = reader.shared.topic;
        // The tail, not the next slot: a server that was stopped in the middle of a response keeps no other
        // response from coming.
        let there = topic.next().0.saturating_sub(reader.position().0);
        let there = there.min(topic.shape().slots()) as usize;
        if there > self.window.len() {
            self.window.resize(there, Place::Unseen);
        }
        self.skip_aborted(reader);
        for ahead in 0..self.window.len() {
            if self.window[ahead] == Place::Unseen
                && let Some(held) = reader.source.peek(ahead as u64)
            {
                self.window[ahead] = self.note(held);
            }
        }
        self.let_go_front(reader);
    }

    /// Moves the cursor over numbers that no message came of.
    fn skip_aborted<A: MessageSet + ?Sized>(&mut self, reader: &mut Reader<A>) {
        if self.window.front() == Some(&Place::Unseen) {
            let from = reader.position().0;
            reader.source.next();
            reader.source.put_off();
            let skipped = (reader.position().0 - from) as usize;
            self.window.drain(..skipped.min(self.window.len()));
        }
    }

    /// What becomes of a response that came. Its tag is an allegation: at worst, one gets another's response.
    fn note(&mut self, held: Held) -> Place {
        let index = self.find(Seq(held.entry.tag));
        match index.map(|index| (index, self.asked[index].state)) {
            Some((index, State::Waiting)) => {
                self.asked[index].state = State::Answered(held);
                self.unanswered -= 1;
                return Place::Held;
            }
            Some((index, State::Forgotten)) => {
                self.asked.remove(index);
                self.unanswered -= 1;
            }
            Some((_, State::Answered(_))) | None => {}
        }
        self.dropped += 1;
        Place::LetGo
    }

    fn forget<A: MessageSet + ?Sized>(&mut self, reader: &mut Reader<A>, request: Seq) {
        let Some(index) = self.find(request) else { return };
        match self.asked[index].state {
            State::Waiting => self.asked[index].state = State::Forgotten,
            State::Answered(held) => {
                self.asked.remove(index);
                self.dropped += 1;
                self.let_go(reader, held.seq);
            }
            State::Forgotten => {}
        }
    }

    /// Lets a response go, and moves the cursor if it can.
    fn let_go<A: MessageSet + ?Sized>(&mut self, reader: &mut Reader<A>, response: Seq) {
        if let Some(place) = self.place_of(reader, response) {
            *place = Place::LetGo;
        }
        self.let_go_front(reader);
    }

    /// A number's place in the window; `None` when somebody scribbled, and the cursor is behind it.
    fn place_of<A: MessageSet + ?Sized>(
        &mut self,
        reader: &Reader<A>,
        response: Seq,
    ) -> Option<&mut Place> {
        let ahead = response.0.checked_sub(reader.position().0)?;
        self.window.get_mut(usize::try_from(ahead).ok()?)
    }

    fn let_go_front<A: MessageSet + ?Sized>(&mut self, reader: &mut Reader<A>) {
        if !reader.shared.matrix.is_ours() {
            return;
        }
        let held = self.window.iter().position(|&place| place != Place::LetGo);
        let count = held.unwrap_or(self.window.len());
        if count > 0 {
            self.window.drain(..count);
            reader.source.done(count as u64);
        }
    }
}
