//! A topic with the survivor's handles on it, and what must be true of it after a death.
//!
//! Every message says who posted it and as which of his, and is filled with a pattern. The survivor's reader,
//! the *witness*, has not read the last of what was posted before the operation, so it sees whether that has
//! stayed; in the end it accounts for every number of the topic.

use std::collections::BTreeMap;

use am_matrix::TOPIC_KIND;
use anyhow::{Context, Result, ensure};
use atomic_matrix::{Matrix, Offset, PostError, Poster, Reader, ReaderId, Seq, Start, Topic};

use crate::accounts::When;
use crate::bells::{self, Living};
use crate::letter::{self, SURVIVOR, payload, read};
use crate::ops::{A, B, C, Op};
use crate::product;
use crate::stage::Stage;
use crate::topic_plot::{Count, GROUP, Holds, NAME, Plot};

/// Slots of a topic of the least capacity.
pub(crate) const SLOTS: u64 = 128;
/// Bytes of the survivor's messages: of three granules, as the actors' mostly are.
pub(crate) const LEN_BYTES: usize = 64;
/// Posters, and readers, of one topic.
const SEATS: usize = 64;

/// A message as somebody got it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    seq: Seq,
    owner: usize,
    index: u64,
    attempts: u8,
}

/// A reader that looks at a message, whatever becomes of the slot.
struct Holder {
    offset: Offset,
    reader: Reader<[u8]>,
}

/// The topic of a stage.
pub struct Scene {
    plot: Plot,
    topic: Option<Topic<[u8]>>,
    poster: Option<Poster<[u8]>>,
    witness: Option<Reader<[u8]>>,
    member: Option<Reader<[u8]>>,
    holder: Option<Holder>,
    follower: Option<Reader<[u8]>>,
    /// Waits for its bell.
    listener: Option<Reader<[u8]>>,
    /// The listener was rung since.
    is_rung: bool,
    /// Messages that the survivor posted.
    own: u64,
    /// What the witness saw, and the member got.
    seen: Vec<Seen>,
    taken: Vec<Seen>,
}

impl Scene {
    /// Makes the topic, if the plot has one, and posts, reads and holds what the plot says.
    ///
    /// # Errors
    /// One of it is refused.
    pub fn set(matrix: &Matrix, plot: Plot) -> Result<Self> {
        let mut scene = Self {
            plot,
            topic: None,
            poster: None,
            witness: None,
            member: None,
            holder: None,
            follower: None,
            listener: None,
            is_rung: false,
            own: 0,
            seen: Vec::new(),
            taken: Vec::new(),
        };
        if plot.made {
            scene.enter(plot.builder(matrix).create()?)?;
            scene.hold(matrix)?;
            scene.join_as_member()?;
            scene.post_until(plot.posted)?;
            scene.let_go_if_told(matrix)?;
            scene.return_if_told()?;
            scene.listen_if_told()?;
        }
        Ok(scene)
    }

    fn enter(&mut self, topic: Topic<[u8]>) -> Result<()> {
        self.poster = Some(topic.poster()?);
        self.witness = Some(topic.reader().start(Start::Earliest).open()?);
        self.topic = Some(topic);
        Ok(())
    }

    fn topic(&self) -> Result<&Topic<[u8]>> {
        self.topic.as_ref().context("there is no topic")
    }

    /// Posts up to that many messages in all; the witness reads those that the plot lets it read.
    fn post_until(&mut self, count: u64) -> Result<()> {
        while self.own < count {
            self.post()?;
            if self.own <= self.plot.read {
                let witness = self.witness.as_mut().context("there is no witness")?;
                ensure!(witness.try_read().is_some(), "a message that was posted is not there");
            }
        }
        Ok(())
    }

    fn post(&mut self) -> Result<()> {
        let poster = self.poster.as_ref().context("there is no poster")?;
        poster.try_post(&payload(SURVIVOR, self.own, LEN_BYTES)[..])?;
        self.own += 1;
        Ok(())
    }

    fn hold(&mut self, matrix: &Matrix) -> Result<()> {
        if self.plot.holds == Holds::Nothing {
            return Ok(());
        }
        self.post_until(self.plot.held_number() + 1)?;
        let start = Start::At(Seq(self.plot.held_number()));
        let mut reader = self.topic()?.reader().start(start).open()?;
        let received = reader.try_read().context("nothing to hold")?;
        let base = matrix.mapping().as_ptr().addr();
        let offset = Offset::from_bytes((received.bytes().as_ptr().addr() - base) as u64)?;
        // It is held until the reader goes.
        std::mem::forget(received);
        self.holder = Some(Holder { offset, reader });
        Ok(())
    }

    fn join_as_member(&mut self) -> Result<()> {
        if self.plot.group.is_some_and(|group| group.survivor_joins) {
            self.post_until(self.plot.joined)?;
            self.member = Some(self.topic()?.reader().group(GROUP).open()?);
        }
        Ok(())
    }

    fn let_go_if_told(&mut self, matrix: &Matrix) -> Result<()> {
        if self.plot.holds == Holds::Orphan {
            self.let_go(matrix)?;
        }
        Ok(())
    }

    /// Checks that what the holder looks at is what it was, and lets it go.
    fn let_go(&mut self, matrix: &Matrix) -> Result<()> {
        let Some(Holder { offset, reader }) = self.holder.take() else { return Ok(()) };
        // SAFETY: the reader holds the message still.
        let payload = unsafe { matrix.common_bytes(offset) };
        let seen = read(payload?).context("a message that is held")?;
        ensure!(seen == (SURVIVOR, self.plot.held_number()), "what is held is {seen:?} by now");
        drop(reader);
        Ok(())
    }

    fn return_if_told(&mut self) -> Result<()> {
        for _ in 0..self.plot.group.map_or(0, |group| group.returned) {
            let member = self.member.as_mut().context("there is no member")?;
            member.try_read().context("nothing to return")?.nack();
        }
        Ok(())
    }

    fn listen_if_told(&mut self) -> Result<()> {
        if self.plot.listens {
            let mut listener = self.topic()?.reader().with_bell().open()?;
            ensure!(listener.arm()?, "there is something to read already");
            self.listener = Some(listener);
        }
        Ok(())
    }

    fn living(&self) -> Living {
        let holder = self.holder.as_ref().map(|holder| &holder.reader);
        let (follower, listener) = (self.follower.as_ref(), self.listener.as_ref());
        let alone = [self.witness.as_ref(), self.member.as_ref(), holder];
        Living {
            nappers: alone.into_iter().chain([follower, listener]).flatten().count(),
            followers: follower.into_iter().count(),
            listeners: listener.into_iter().count(),
        }
    }

    /// Whoever waits is woken, whatever the dead left: by the post that was ended, and by the next ones.
    fn judge_waiting(&mut self, matrix: &Matrix, when: When) -> Result<()> {
        if let Some(listener) = &self.listener
            && when == When::After
            && self.plot.posts.during > 0
        {
            let is_told = listener.bell().context("it has a bell")?.drain()?;
            ensure!(is_told || self.is_rung, "who posted rang nobody");
        }
        if let Some(mut listener) = self.listener.take() {
            bells::judge_ring(&mut listener, || self.post())?;
            self.is_rung = true;
            self.listener = Some(listener);
        }
        if self.plot.naps {
            let (topic, is_armed) = (self.topic()?.clone(), self.listener.is_some());
            bells::judge_sleep(matrix, &topic, is_armed, || self.post())?;
        }
        Ok(())
    }

    /// How others follow the witness.
    pub(crate) fn witness_id(&self) -> Option<ReaderId> {
        self.witness.as_ref()?.id()
    }

    /// What the living do before anybody recovers: nobody waits for the dead, but for what they claimed.
    ///
    /// # Errors
    /// There is no room where there must be some, or a message has changed.
    pub(crate) fn go_on(&mut self, matrix: &Matrix, when: When) -> Result<()> {
        if self.topic.is_none() {
            return Ok(());
        }
        self.follow(when)?;
        match self.post() {
            Err(error) if self.plot.full && is_full(&error) => {}
            posted => posted.context("beside the dead")?,
        }
        self.judge_waiting(matrix, when).context("beside the dead")?;
        self.read_all()
    }

    /// Follows the dead reader: nothing comes but what that has let go, as long as nobody recovers.
    fn follow(&mut self, when: When) -> Result<()> {
        if !self.plot.leads {
            return Ok(());
        }
        // The actor's is the second reader that there ever was.
        let leader = ReaderId::from_raw(1 << 8 | 1);
        let builder = self.topic()?.reader().start(Start::Earliest);
        let mut follower = builder.after_id(leader).open()?;
        let came = std::iter::from_fn(|| follower.try_read().map(drop)).count() as u64;
        let allowed = Count { before: 0, during: 1 }.allowed(when);
        ensure!(allowed.contains(&came), "{came} messages came to the follower, not {allowed:?}");
        self.follower = Some(follower);
        Ok(())
    }

    /// The follower goes on to the end when its leader is recovered from.
    fn stop_following(&mut self) -> Result<()> {
        let Some(mut follower) = self.follower.take() else { return Ok(()) };
        drain(&mut follower, &mut Vec::new()).context("the follower")?;
        let (at, posted) = (follower.position(), Seq(self.topic()?.posted()));
        let right = at == posted && !follower.follows_all();
        ensure!(right, "the follower of the dead stands at {at} of {posted}");
        Ok(())
    }

    /// Reads all that is there, and does the group's work.
    fn read_all(&mut self) -> Result<()> {
        if let Some(witness) = &mut self.witness {
            drain(witness, &mut self.seen).context("the witness")?;
        }
        if let Some(member) = &mut self.member {
            drain(member, &mut self.taken).context("the member")?;
        }
        Ok(())
    }

    /// Judges the topic after recovery, which found so many `claims`, and takes it apart: none of its blocks
    /// is there any more.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub(crate) fn judge(
        mut self,
        stage: &Stage<'_>,
        op: &Op,
        when: When,
        claims: u64,
    ) -> Result<()> {
        self.find(stage.matrix, when)?;
        bells::judge_sets(stage.matrix, NAME, TOPIC_KIND, &[self.living()])?;
        self.judge_waiting(stage.matrix, when)?;
        self.listener = None;
        self.read_all()?;
        self.stop_following()?;
        self.let_go(stage.matrix)?;
        let alone = op.victim.is_none() && op.beside.is_none();
        self.judge_missed(when, alone.then_some(claims))?;
        self.judge_posts(op, when)?;
        self.turn().context("a turn of posts")?;
        self.judge_group(op, when)?;
        self.judge_seats(stage.matrix)?;
        self.take_apart(stage)
    }

    /// Finds the topic that the actor made, or did not come to make.
    fn find(&mut self, matrix: &Matrix, when: When) -> Result<()> {
        if self.topic.is_none() {
            let there = self.plot.builder(matrix).open().is_ok();
            let right = when == When::Amid || there == (when == When::After);
            ensure!(right, "the topic is there: {there}");
            self.enter(self.plot.builder(matrix).open_or_create()?)?;
        }
        if self.member.is_none() && self.plot.group.is_some() {
            self.member = Some(self.topic()?.reader().group(GROUP).open()?);
        }
        Ok(())
    }

    /// Every number is read or missed, and no more are missed than the dead had claimed.
    fn judge_missed(&self, when: When, claims: Option<u64>) -> Result<()> {
        let witness = self.witness.as_ref().context("there is no witness")?;
        let (missed, position) = (witness.missed(), witness.position());
        let posted = self.topic()?.posted();
        ensure!(position == Seq(posted), "the witness stands at {position} of {posted}");
        let read = self.plot.read + self.seen.len() as u64;
        ensure!(read + missed == posted, "of {posted} it read {read} and missed {missed}");
        let most = if when == When::Amid || claims.is_none() { self.plot.lost_max } else { 0 };
        ensure!(missed <= most, "{missed} messages were missed, {most} at most may be");
        let claims = claims.unwrap_or(missed);
        ensure!(missed == claims, "{missed} messages were missed, {claims} were recovered");
        Ok(())
    }

    /// Each owner's messages are there from the first on, in order, as many as must be.
    fn judge_posts(&self, op: &Op, when: When) -> Result<()> {
        let mut next = [0, 0, 0, self.plot.read];
        for seen in &self.seen {
            let Seen { seq, owner, index, .. } = *seen;
            let expected = next[owner];
            ensure!(index == expected, "{seq} is number {index} of {owner}, not {expected}");
            next[owner] += 1;
        }
        let plot = &self.plot;
        let beside = if op.beside.is_some() { plot.beside_posts } else { 0 };
        let allowed = [
            (A, plot.posts.allowed(when)),
            (B, beside..=beside),
            (C, 0..=plot.victim_posts),
            (SURVIVOR, self.own..=self.own),
        ];
        for (owner, allowed) in allowed {
            let count = next[owner];
            ensure!(allowed.contains(&count), "{count} messages of {owner}, not {allowed:?}");
        }
        Ok(())
    }

    /// Posts into every slot, so that the block of each message is taken back, and into some again.
    fn turn(&mut self) -> Result<()> {
        for _ in 0..SLOTS + SLOTS / 4 {
            self.post()?;
            self.read_all()?;
        }
        Ok(())
    }

    /// Each message of the group was done once: by the survivor's member, or the first so many by the actor.
    fn judge_group(&self, op: &Op, when: When) -> Result<()> {
        let Some(group) = self.plot.group else { return Ok(()) };
        let mut taken = BTreeMap::new();
        for seen in &self.taken {
            let again = taken.insert(seen.seq, seen.attempts);
            ensure!(again.is_none(), "the group got {} twice", seen.seq);
        }
        if !group.survivor_joins {
            let own = SLOTS + SLOTS / 4;
            ensure!(taken.len() as u64 >= own, "{} of {own} came to the group", taken.len());
            return Ok(());
        }
        let all = self.seen.iter().map(|seen| seen.seq).filter(|seq| seq.0 >= self.plot.joined);
        let done: Vec<Seq> = all.filter(|seq| !taken.contains_key(seq)).collect();
        let in_order = done.iter().zip(self.plot.joined..).all(|(seq, number)| seq.0 == number);
        let allowed = group.done.allowed(when);
        let right = in_order && allowed.contains(&(done.len() as u64));
        ensure!(right, "nobody of the group got {done:?}; {allowed:?} were done");
        let first = self.plot.joined + group.done.before;
        let subject = Seq(first + group.given_back);
        let loose = op.victim.is_some() || op.beside.is_some();
        for (seq, attempts) in taken {
            let allowed = match (first..subject.0).contains(&seq.0) {
                true => 1..=1,
                false => group.attempts_allowed(seq == subject, loose, when),
            };
            ensure!(allowed.contains(&attempts), "{seq} came after {attempts} attempts");
        }
        Ok(())
    }

    /// No seat and no poster's number is the dead's any more.
    fn judge_seats(&mut self, matrix: &Matrix) -> Result<()> {
        // Whoever finds no seat recovers: that may not be what brings the dead's back.
        product::alone(matrix)?;
        drop((self.poster.take(), self.witness.take(), self.member.take()));
        let topic = self.topic()?;
        bells::judge_sets(matrix, NAME, TOPIC_KIND, &[Living::default()])?;
        bells::judge_bells(matrix, topic)?;
        let posters = (0..SEATS).map(|_| topic.poster()).collect::<Result<Vec<_>, _>>();
        let readers = (0..SEATS).map(|_| topic.reader().open()).collect::<Result<Vec<_>, _>>();
        let (posters, readers) = (posters.context("posters")?, readers.context("readers")?);
        ensure!(posters.len() + readers.len() == 2 * SEATS, "seats are gone");
        Ok(())
    }

    /// Checks that every block is the topic's own or one slot's message, and frees all.
    fn take_apart(self, stage: &Stage<'_>) -> Result<()> {
        let matrix = stage.matrix;
        drop(self.topic);
        let sectors = matrix.stats().sectors;
        let commons: u64 = sectors.iter().map(|sector| sector.common_blocks).sum();
        let messages = if self.plot.in_ring { 0 } else { SLOTS };
        ensure!(
            commons == 1 + messages,
            "{commons} blocks for {messages} messages and their topic"
        );
        let found = letter::free_all(stage, NAME, TOPIC_KIND)?;
        ensure!(found == messages, "{found} blocks hold messages, not {messages}");
        Ok(())
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PostError::Full))
}

/// Reads to the end, and checks every byte.
fn drain(reader: &mut Reader<[u8]>, into: &mut Vec<Seen>) -> Result<()> {
    while let Some(received) = reader.try_read() {
        let (seq, attempts) = (received.seq(), received.attempts());
        let (owner, index) = read(received.bytes()).with_context(|| format!("message {seq}"))?;
        ensure!(received.view().is_ok(), "message {seq} is no bytes");
        into.push(Seen { seq, owner, index, attempts });
    }
    Ok(())
}
