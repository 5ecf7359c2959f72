//! What the victim does with two topics, a lossless and a lossy one, whose words and messages are damaged.

use std::hint::black_box;
use std::time::Duration;

use am_matrix::{Matrix, Offset, TOPIC_KIND};
use anyhow::Result;
use atomic_matrix::{
    Message, MessageSet, PostError, Poster, Reader, Receipt, Received, Seq, Start, Topic,
    WaitStrategy,
};

use super::player::{Broken, Player};
use super::step::{Begin, End, Telling};

/// Names of the lossless topic and the lossy one.
const NAMES: [&str; 2] = ["lossless", "lossy"];
/// Names of groups.
const GROUPS: [&str; 2] = ["one", "another"];
/// Posters, and readers, that the victim has at most.
const KEPT_MAX: usize = 6;
/// Longest wait of a call.
const SHORT: Duration = Duration::from_micros(100);
/// More turns than there are messages; who looks at them all comes to an end.
const INQUIRIES_MAX: usize = 1 << 12;

/// A message not every bit pattern of which is one.
#[derive(Message, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Order {
    number: u32,
    letter: char,
}

/// What the topics carry.
#[derive(MessageSet)]
pub(super) enum Feed<'a> {
    Order(&'a Order),
    Blob(&'a [u8]),
    Text(&'a str),
}

pub(super) type Set = Feed<'static>;

fn topic(matrix: &Matrix, lossy: bool) -> atomic_matrix::TopicBuilder<Set> {
    Topic::builder(matrix, NAMES[usize::from(lossy)])
}

/// Makes both topics in a new segment; returns where they lie.
///
/// # Errors
/// There is no room.
pub(super) fn found_topics(matrix: &Matrix) -> Result<[Offset; 2]> {
    topic(matrix, false).capacity(64).create()?;
    topic(matrix, true).capacity(64).lossy().create()?;
    let [lossless, lossy] = NAMES.map(|name| matrix.open_named(name, TOPIC_KIND));
    Ok([lossless?.offset(), lossy?.offset()])
}

/// The victim's posters and readers.
#[derive(Default)]
pub(super) struct Correspondent {
    /// Last opened, by whether it is lossy.
    topics: [Option<Topic<Set>>; 2],
    posters: Vec<Poster<Set>>,
    readers: Vec<Reader<Set>>,
}

impl Correspondent {
    /// Somebody who posts, and holds messages, as far as the segment allows.
    pub fn of_the_dead(matrix: &Matrix) -> Self {
        let mut dead = Self::default();
        for lossy in [false, true] {
            let Ok(topic) = topic(matrix, lossy).open() else { continue };
            if let Ok(poster) = topic.poster() {
                // Refused, perhaps.
                let _ = post(&poster, 1, 50, false);
                dead.posters.push(poster);
            }
            let reader = topic.reader().start(Start::Earliest);
            let member = topic.reader().group(GROUPS[0]);
            for mut reader in [reader.open(), member.open()].into_iter().flatten() {
                if let Some(held) = reader.try_read() {
                    std::mem::forget(held);
                }
                dead.readers.push(reader);
            }
        }
        dead
    }

    /// Performs one call, on a topic that is opened by `matrix` if none is yet.
    ///
    /// # Errors
    /// [`Broken`], when the answer is none that the call may give.
    pub fn tell(
        &mut self,
        player: &mut Player<'_>,
        matrix: &Matrix,
        telling: Telling,
    ) -> Result<(), Broken> {
        match telling {
            Telling::OpenTopic { lossy } => {
                self.topics[usize::from(lossy)] = player.seen(topic(matrix, lossy).open());
            }
            Telling::Poster { lossy } => {
                let Some(topic) = self.topic(player, matrix, lossy) else { return Ok(()) };
                let made = player.seen(topic.poster());
                self.posters.extend(made);
                self.posters.truncate(KEPT_MAX);
            }
            Telling::Reader { lossy, start } => {
                let Some(topic) = self.topic(player, matrix, lossy) else { return Ok(()) };
                let reader = topic.reader().start(begin(start)).wait(short_spins()).open();
                self.keep(player.seen(reader));
            }
            Telling::Member { lossy, group } => {
                let Some(topic) = self.topic(player, matrix, lossy) else { return Ok(()) };
                let reader = topic.reader().group(GROUPS[usize::from(group)]);
                let member = reader.start(Start::Earliest).wait(short_spins()).open();
                self.keep(player.seen(member));
            }
            Telling::CloseGroup { lossy, group } => {
                let Some(topic) = self.topic(player, matrix, lossy) else { return Ok(()) };
                player.seen(topic.close_group(GROUPS[usize::from(group)]));
            }
            Telling::DropPoster { which } => drop(take(&mut self.posters, which)),
            Telling::DropReader { which } => drop(take(&mut self.readers, which)),
            Telling::Follower { leader } => self.follow(player, matrix, leader),
            other => {
                self.post(player, other);
                self.read(player, other)?;
            }
        }
        Ok(())
    }

    fn topic(
        &mut self,
        player: &mut Player<'_>,
        matrix: &Matrix,
        lossy: bool,
    ) -> Option<Topic<Set>> {
        let kept = &mut self.topics[usize::from(lossy)];
        if kept.is_none() {
            *kept = player.seen(topic(matrix, lossy).open_or_create());
        }
        kept.clone()
    }

    fn keep(&mut self, reader: Option<Reader<Set>>) {
        self.readers.extend(reader);
        self.readers.truncate(KEPT_MAX);
    }

    /// Another reader, in the lossless topic, after one of the victim's.
    fn follow(&mut self, player: &mut Player<'_>, matrix: &Matrix, leader: u8) {
        let Some(topic) = self.topic(player, matrix, false) else { return };
        let Some(leader) = pick(&mut self.readers, leader) else { return };
        let follower = topic.reader().after(leader).wait(short_spins()).open();
        self.keep(player.seen(follower));
    }

    fn post(&mut self, player: &mut Player<'_>, telling: Telling) {
        match telling {
            Telling::Post { which, kind, len } => {
                let Some(poster) = pick(&mut self.posters, which) else { return };
                player.seen(post(poster, kind, len, false));
            }
            Telling::PostTimeout { which, kind, len } => {
                let Some(poster) = pick(&mut self.posters, which) else { return };
                player.seen(post(poster, kind, len, true));
            }
            Telling::PostMany { which, count } => {
                let Some(poster) = pick(&mut self.posters, which) else { return };
                let text = ["what", "is", "new", "at", "the", "exchange"];
                let values = text.iter().copied().cycle().take(count.into());
                player.seen(poster.try_post_many::<str>(values));
            }
            Telling::Loan { which, size, commits } => {
                let Some(poster) = pick(&mut self.posters, which) else { return };
                // What it was lent borrows the poster.
                let Some(mut loan) = player.seen(poster.loan_bytes(size.bytes())) else { return };
                if let Some(last) = loan.last_mut() {
                    *last = 7;
                }
                if commits {
                    player.seen(loan.try_commit().map_err(drop));
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, player: &mut Player<'_>, telling: Telling) -> Result<(), Broken> {
        match telling {
            Telling::Read { which, end } => {
                let Some(reader) = pick(&mut self.readers, which) else { return Ok(()) };
                look(player, reader.try_read(), end)
            }
            Telling::ReadTimeout { which, end } => {
                let Some(reader) = pick(&mut self.readers, which) else { return Ok(()) };
                look(player, reader.read_timeout(SHORT), end)
            }
            Telling::ReadMany { which, count, end } => {
                let Some(reader) = pick(&mut self.readers, which) else { return Ok(()) };
                let batch = reader.try_read_many(count.into());
                let Some(batch) = player.seen(batch.ok_or(())) else { return Ok(()) };
                for item in batch.iter() {
                    player.must_be_inside(item.bytes().as_ptr(), item.bytes().len())?;
                    black_box(item.view().map(|view| judge(&view)).is_ok());
                }
                match end {
                    End::Done | End::Nack => drop(batch),
                    End::PutBack => batch.put_back(),
                    End::Forget => std::mem::forget(batch),
                }
                Ok(())
            }
            Telling::Inquire { which } => {
                let Some(reader) = pick(&mut self.readers, which) else { return Ok(()) };
                let seen = reader.inquire().take(INQUIRIES_MAX).count();
                let numbers = (reader.missed(), reader.position(), reader.follows_all());
                black_box((numbers, reader.inquire_kind::<str>().count()));
                match seen {
                    INQUIRIES_MAX => Err(Broken("inquiring comes to no end".into())),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Looks at a message, wherever it is said to lie, and ends the look.
fn look(
    player: &mut Player<'_>,
    received: Option<Received<'_, Set>>,
    end: End,
) -> Result<(), Broken> {
    let Some(received) = player.seen(received.ok_or(())) else { return Ok(()) };
    let bytes = received.bytes();
    player.must_be_inside(bytes.as_ptr(), bytes.len())?;
    black_box((bytes.first(), bytes.last(), received.info(), received.attempts()));
    if let Some(view) = player.seen(received.view()) {
        black_box(judge(&view));
    }
    match end {
        End::Done => drop(received),
        End::PutBack => received.put_back(),
        End::Nack => received.nack(),
        End::Forget => std::mem::forget(received),
    }
    Ok(())
}

/// Uses a view as what it says to be.
pub(super) fn judge(view: &Feed<'_>) -> usize {
    match view {
        Feed::Order(order) => order.letter.len_utf8() + order.number as usize % 7,
        Feed::Blob(bytes) => bytes.len(),
        Feed::Text(text) => text.chars().count(),
    }
}

fn post(poster: &Poster<Set>, kind: u8, len: u8, waits: bool) -> Result<Receipt, PostError> {
    let letters = [b'm'; u8::MAX as usize];
    let bytes = &letters[..len.into()];
    match (kind % 3, waits) {
        (0, false) => poster.try_post(&Order { number: len.into(), letter: 'ä' }),
        (0, true) => poster.post_timeout(&Order { number: len.into(), letter: 'ä' }, SHORT),
        (1, false) => poster.try_post(bytes),
        (1, true) => poster.post_timeout(bytes, SHORT),
        (_, false) => poster.try_post(str::from_utf8(bytes).unwrap_or_default()),
        (_, true) => poster.post_timeout(str::from_utf8(bytes).unwrap_or_default(), SHORT),
    }
}

fn begin(start: Begin) -> Start {
    match start {
        Begin::Earliest => Start::Earliest,
        Begin::Latest => Start::Latest,
        Begin::At(number) => Start::At(Seq(number.into())),
        Begin::Far(number) => Start::At(Seq(number)),
    }
}

/// Few looks before a sleep: who waits shall sleep, too.
fn short_spins() -> WaitStrategy {
    WaitStrategy::SpinThenPark { spins: 2, yields: 1 }
}

fn pick<T>(from: &mut [T], which: u8) -> Option<&mut T> {
    let at = usize::from(which).checked_rem(from.len())?;
    Some(&mut from[at])
}

fn take<T>(from: &mut Vec<T>, which: u8) -> Option<T> {
    let at = usize::from(which).checked_rem(from.len())?;
    Some(from.swap_remove(at))
}
