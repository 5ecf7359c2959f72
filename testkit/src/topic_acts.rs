//! What actors do with a topic. They have thread caches, as users do.

use am_topic::RETURNS;
use anyhow::{Context, Result, ensure};
use atomic_matrix::{Matrix, PostError, Poster, Reader, ReaderId, Start, Topic};

use crate::acts::Actor;
use crate::letter::{fill, payload};
use crate::topic_plot::{GROUP, NAME};
use crate::topic_scene::LEN_BYTES;

/// Length of a message that no other's block fits.
const OTHER_BYTES: usize = LEN_BYTES + 32;
/// Messages of a batch.
pub(crate) const BATCH: usize = 5;

/// Opens the segment, and has memory for a message at hand.
fn matrix(actor: &Actor<'_>) -> Result<Matrix> {
    let matrix = actor.open_cached()?;
    drop(matrix.allocate(LEN_BYTES)?);
    Ok(matrix)
}

fn topic(actor: &Actor<'_>) -> Result<Topic<[u8]>> {
    Ok(matrix(actor)?.topic(NAME).open()?)
}

/// A poster that knows the readers, and keeps the block of what it has overwritten: it has posted one message.
fn warm_poster(actor: &Actor<'_>) -> Result<Poster<[u8]>> {
    let poster = topic(actor)?.poster()?;
    poster.try_post(&payload(actor.number, 0, LEN_BYTES)[..])?;
    Ok(poster)
}

fn earliest(actor: &Actor<'_>) -> Result<Reader<[u8]>> {
    Ok(topic(actor)?.reader().start(Start::Earliest).open()?)
}

fn member(actor: &Actor<'_>) -> Result<Reader<[u8]>> {
    Ok(topic(actor)?.reader().group(GROUP).open()?)
}

/// The survivor's reader, as others follow it.
fn witness(actor: &Actor<'_>) -> Result<ReaderId> {
    actor.stage.and_then(|stage| stage.cue.witness).context("no witness")
}

pub(crate) fn create(actor: &Actor<'_>) -> Result<()> {
    let matrix = matrix(actor)?;
    actor.mark(|| matrix.topic::<[u8]>(NAME).capacity(64).open_or_create())?;
    Ok(())
}

pub(crate) fn open(actor: &Actor<'_>) -> Result<()> {
    let matrix = matrix(actor)?;
    actor.mark(|| matrix.topic::<[u8]>(NAME).open())?;
    Ok(())
}

pub(crate) fn open_poster(actor: &Actor<'_>) -> Result<()> {
    let topic = topic(actor)?;
    actor.mark(|| topic.poster())?;
    Ok(())
}

pub(crate) fn drop_poster(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    actor.mark(|| drop(poster));
    Ok(())
}

/// Into the block of the message that the poster has overwritten last.
pub(crate) fn post(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    let payload = payload(actor.number, 1, LEN_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    Ok(())
}

/// Into a block of the cache; the spare one does not fit, and goes when there is another.
pub(crate) fn post_longer(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    let payload = payload(actor.number, 1, OTHER_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    Ok(())
}

/// The poster's first: it looks for the lowest cursor.
pub(crate) fn post_first(actor: &Actor<'_>) -> Result<()> {
    let poster = topic(actor)?.poster()?;
    let payload = payload(actor.number, 0, LEN_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    Ok(())
}

pub(crate) fn post_into_full(actor: &Actor<'_>) -> Result<()> {
    let poster = topic(actor)?.poster()?;
    let payload = payload(actor.number, 0, LEN_BYTES);
    let result = actor.mark(|| poster.try_post(&payload[..]));
    ensure!(result == Err(PostError::Full), "{result:?}");
    Ok(())
}

pub(crate) fn loan_and_commit(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    actor.mark(|| -> Result<(), PostError> {
        let mut loan = poster.loan_bytes(OTHER_BYTES)?;
        fill(&mut loan, actor.number, 1);
        loan.commit().map(drop)
    })?;
    Ok(())
}

pub(crate) fn loan_and_drop(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    actor.mark(|| poster.loan_bytes(OTHER_BYTES).map(drop))?;
    Ok(())
}

pub(crate) fn post_many(actor: &Actor<'_>) -> Result<()> {
    let poster = warm_poster(actor)?;
    let payloads: Vec<_> =
        (1..=BATCH).map(|index| payload(actor.number, index as u64, LEN_BYTES)).collect();
    let posted = actor.mark(|| poster.try_post_many(payloads.iter().map(|bytes| &bytes[..])))?;
    ensure!(posted.count == BATCH as u64, "{posted:?}");
    Ok(())
}

pub(crate) fn open_reader(actor: &Actor<'_>) -> Result<()> {
    let topic = topic(actor)?;
    actor.mark(|| topic.reader().start(Start::Earliest).open())?;
    Ok(())
}

pub(crate) fn drop_reader(actor: &Actor<'_>) -> Result<()> {
    let mut reader = earliest(actor)?;
    std::mem::forget(reader.try_read().context("nothing to read")?);
    actor.mark(|| drop(reader));
    Ok(())
}

pub(crate) fn read(actor: &Actor<'_>) -> Result<()> {
    let mut reader = earliest(actor)?;
    let view = |reader: &mut Reader<[u8]>| Some(reader.try_read()?.view().map(<[u8]>::len));
    let len = actor.mark(|| view(&mut reader)).context("nothing to read")??;
    ensure!(len == LEN_BYTES, "a message of {len} bytes");
    Ok(())
}

pub(crate) fn read_many(actor: &Actor<'_>) -> Result<()> {
    let mut reader = earliest(actor)?;
    let len = actor.mark(|| reader.try_read_many(BATCH).map(|batch| batch.len()));
    ensure!(len == Some(BATCH), "{len:?} messages");
    Ok(())
}

pub(crate) fn put_back(actor: &Actor<'_>) -> Result<()> {
    let mut reader = earliest(actor)?;
    let read = reader.try_read().context("nothing to read")?;
    actor.mark(|| read.put_back());
    Ok(())
}

pub(crate) fn open_follower(actor: &Actor<'_>) -> Result<()> {
    let (topic, leader) = (topic(actor)?, witness(actor)?);
    actor.mark(|| topic.reader().start(Start::Earliest).after_id(leader).open())?;
    Ok(())
}

/// The oldest message that there is for sure is behind what the witness has read.
pub(crate) fn follow(actor: &Actor<'_>) -> Result<()> {
    let leader = witness(actor)?;
    let builder = topic(actor)?.reader().start(Start::Earliest);
    let mut follower = builder.after_id(leader).open()?;
    let came = actor.mark(|| follower.try_read().is_some());
    ensure!(!came, "a message came before the leader had let it go");
    Ok(())
}

pub(crate) fn join_group(actor: &Actor<'_>) -> Result<()> {
    let topic = topic(actor)?;
    actor.mark(|| topic.reader().group(GROUP).open())?;
    Ok(())
}

/// It has no members.
pub(crate) fn close_group(actor: &Actor<'_>) -> Result<()> {
    let topic = topic(actor)?;
    drop(topic.reader().group(GROUP).open()?);
    actor.mark(|| topic.close_group(GROUP))?;
    Ok(())
}

/// What it takes it keeps, until it is dead or leaves.
pub(crate) fn take(actor: &Actor<'_>) -> Result<()> {
    let mut member = member(actor)?;
    let taken = actor.mark(|| member.try_read().map(std::mem::forget));
    taken.context("nothing to take")
}

pub(crate) fn done(actor: &Actor<'_>) -> Result<()> {
    let mut member = member(actor)?;
    let taken = member.try_read().context("nothing to take")?;
    actor.mark(|| drop(taken));
    Ok(())
}

pub(crate) fn nack(actor: &Actor<'_>) -> Result<()> {
    let mut member = member(actor)?;
    let taken = member.try_read().context("nothing to take")?;
    actor.mark(|| taken.nack());
    Ok(())
}

/// A member that has a message, and there is no room to return it: it has given back as many as there is room for.
fn member_in_full(actor: &Actor<'_>) -> Result<Reader<[u8]>> {
    let mut member = member(actor)?;
    for _ in 0..RETURNS {
        member.try_read().context("nothing to return")?.nack();
    }
    Ok(member)
}

/// It stays the member's.
pub(crate) fn nack_into_full(actor: &Actor<'_>) -> Result<()> {
    let mut member = member_in_full(actor)?;
    let taken = member.try_read().context("nothing to take")?;
    ensure!(taken.attempts() == 0, "it has one that was returned");
    actor.mark(|| taken.nack());
    Ok(())
}

/// It stays in the seat that the member leaves.
pub(crate) fn leave_into_full(actor: &Actor<'_>) -> Result<()> {
    let mut member = member_in_full(actor)?;
    let taken = member.try_read().context("nothing to take")?;
    ensure!(taken.attempts() == 0, "it has one that was returned");
    std::mem::forget(taken);
    actor.mark(|| drop(member));
    Ok(())
}

/// It has one message.
pub(crate) fn leave(actor: &Actor<'_>) -> Result<()> {
    let mut member = member(actor)?;
    std::mem::forget(member.try_read().context("nothing to take")?);
    actor.mark(|| drop(member));
    Ok(())
}
