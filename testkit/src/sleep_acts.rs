//! What actors do with readers that wait: asleep in the kernel, or for their bells. They open the segment by its name,
//! beside which the bells are.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Matrix, Poster, Reader, Topic, TopicError, WaitStrategy};
use nix::poll::{PollFd, PollFlags, poll};

use crate::acts::Actor;
use crate::letter::payload;
use crate::topic_plot::NAME;
use crate::topic_scene::LEN_BYTES;

/// What a wait for a bell lasts: whoever steps waits as long.
const SHORT_MS: u16 = 3;
/// What a sleep lasts, of several slices. The looks before it, which are stepped, must not take as long.
const SLEEP: Duration = Duration::from_millis(250);
/// No looks before a sleep but those that must be.
pub(crate) const AT_ONCE: WaitStrategy = WaitStrategy::SpinThenPark { spins: 0, yields: 0 };

fn topic(actor: &Actor<'_>) -> Result<Topic<[u8]>> {
    let matrix = Matrix::builder().open(actor.name()?)?;
    drop(matrix.allocate(LEN_BYTES)?);
    Ok(matrix.topic(NAME).open()?)
}

fn poster(actor: &Actor<'_>) -> Result<Poster<[u8]>> {
    let poster = topic(actor)?.poster()?;
    poster.try_post(&payload(actor.number, 0, LEN_BYTES)[..])?;
    Ok(poster)
}

fn listener(actor: &Actor<'_>) -> Result<Reader<[u8]>> {
    Ok(topic(actor)?.reader().with_bell().open()?)
}

/// Nobody wakes it.
pub(crate) fn sleep(actor: &Actor<'_>) -> Result<()> {
    let mut reader = topic(actor)?.reader().wait(AT_ONCE).open()?;
    let came = actor.mark(|| reader.read_timeout(SLEEP).is_some());
    ensure!(!came, "a message came that nobody has posted");
    Ok(())
}

/// Whoever was asleep is gone.
pub(crate) fn wake(actor: &Actor<'_>) -> Result<()> {
    let poster = topic(actor)?.poster()?;
    let payload = payload(actor.number, 0, LEN_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    Ok(())
}

pub(crate) fn open_with_bell(actor: &Actor<'_>) -> Result<()> {
    let topic = topic(actor)?;
    actor.mark(|| topic.reader().with_bell().open())?;
    Ok(())
}

pub(crate) fn arm(actor: &Actor<'_>) -> Result<()> {
    let mut reader = listener(actor)?;
    let waits = actor.mark(|| reader.arm())?;
    ensure!(waits, "there is something to read");
    Ok(())
}

/// Nobody rings.
pub(crate) fn wait_for_bell(actor: &Actor<'_>) -> Result<()> {
    let mut reader = listener(actor)?;
    let rung = actor.mark(|| -> Result<i32> {
        ensure!(reader.arm()?, "there is something to read");
        let bell = reader.bell().context("it has a bell")?.as_fd();
        Ok(poll(&mut [PollFd::new(bell, PollFlags::POLLIN)], SHORT_MS)?)
    })?;
    ensure!(rung == 0, "the bell was rung");
    Ok(())
}

pub(crate) fn drop_with_bell(actor: &Actor<'_>) -> Result<()> {
    let mut reader = listener(actor)?;
    ensure!(reader.arm()?, "there is something to read");
    actor.mark(|| drop(reader));
    Ok(())
}

/// Rings who waits for its bell, for the first time. The post before this made no call.
pub(crate) fn ring(actor: &Actor<'_>) -> Result<()> {
    let poster = topic(actor)?.poster()?;
    let payload = payload(actor.number, 0, LEN_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    Ok(())
}

/// Rings a bell that it has rung before.
pub(crate) fn ring_again(actor: &Actor<'_>) -> Result<()> {
    let mut reader = listener(actor)?;
    let poster = poster(actor)?;
    while let Some(message) = reader.try_read() {
        drop(message);
    }
    ensure!(reader.arm()?, "there is something to read");
    let payload = payload(actor.number, 1, LEN_BYTES);
    actor.mark(|| poster.try_post(&payload[..]))?;
    let bell = reader.bell().ok_or_else(|| TopicError::NoBell { name: NAME.into() })?;
    ensure!(bell.drain()?, "the bell was not rung");
    Ok(())
}
