//! What must be true of readers that wait, whoever died beside them: no sleep is without end, no wake is for
//! nobody for ever, no bell stays behind.

use std::thread;
use std::time::{Duration, Instant};

use am_matrix::TOPIC_KIND;
use am_shm::Berth;
use am_topic::{SEATS, SeatSet};
use anyhow::{Context, Result, anyhow, ensure};
use atomic_matrix::{Matrix, Reader, Topic};

use crate::sleep_acts::AT_ONCE;
use crate::topic_plot::NAME;

/// More than any sleep lasts, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks that who falls asleep is woken by the next post, and that posts call nobody when nobody sleeps. `post` posts
/// a message, which the dead may keep older readers from.
///
/// # Errors
/// A sleeper slept on, or nobody was called again and again.
pub(crate) fn judge_sleep(
    matrix: &Matrix,
    topic: &Topic<[u8]>,
    is_armed: bool,
    mut post: impl FnMut() -> Result<()>,
) -> Result<()> {
    let words = words(matrix, NAME, TOPIC_KIND)?;
    let words = words.first().context("no topic lies there")?;
    let berth = Berth::new(words.asleep(), words.wakes());
    // What the dead left costs one post a call, no more.
    post()?;
    let called = words.wakes().load();
    post()?;
    ensure!(!berth.has_sleeper(), "after two posts somebody is asleep still");
    ensure!(is_armed || !berth.has_armed(), "after two posts somebody waits for a bell still");
    ensure!(words.wakes().load() == called, "nobody was woken again");
    let mut sleeper = topic.reader().wait(AT_ONCE).open()?;
    let woken = thread::scope(|scope| {
        let sleeps = scope.spawn(move || sleeper.read_timeout(PATIENCE).is_some());
        let begin = Instant::now();
        while !berth.has_sleeper() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_micros(20));
        }
        let posted = post();
        let came = sleeps.join().map_err(|_| anyhow!("the sleeper panicked"))?;
        posted.map(|()| came)
    })?;
    ensure!(woken, "a sleeper slept on beside a message");
    ensure!(words.wakes().load() != called, "a post called nobody while somebody slept");
    Ok(())
}

/// Readers, as the sets of a topic's seats should have them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Living {
    /// Those that may sleep.
    pub nappers: usize,
    /// Those that follow others.
    pub followers: usize,
    /// Those that may wait for a bell.
    pub listeners: usize,
}

/// The topics of a name, one after the other.
fn words<'m>(matrix: &'m Matrix, name: &str, kind: u32) -> Result<Vec<am_topic::Topic<'m>>> {
    let common = matrix.open_named(name, kind)?;
    // SAFETY: it is used as topics only, and nobody takes it away as long as the survivor judges.
    let topics = unsafe { matrix.open_topics(common.offset()) }?;
    Ok(topics.collect::<Result<_, _>>()?)
}

/// Checks that nobody but the living is said to sleep, or to follow others, or to wait for a bell, in each topic of a
/// name.
///
/// # Errors
/// Somebody is, or a living one is not.
pub(crate) fn judge_sets(matrix: &Matrix, name: &str, kind: u32, living: &[Living]) -> Result<()> {
    let topics = words(matrix, name, kind)?;
    ensure!(topics.len() == living.len(), "{} topics lie there", topics.len());
    topics.iter().zip(living).try_for_each(|(words, living)| judge_sets_of(words, *living))
}

fn judge_sets_of(words: &am_topic::Topic<'_>, living: Living) -> Result<()> {
    let count = |set: SeatSet<'_>| (0..SEATS as u32).filter(|&seat| set.contains(seat)).count();
    let (nappers, followers) = (count(words.nappers()), count(words.followers()));
    ensure!(nappers == living.nappers, "{nappers} readers may sleep, not {}", living.nappers);
    ensure!(followers == living.followers, "{followers} follow, not {}", living.followers);
    let armed = count(words.armed());
    ensure!(armed <= living.listeners, "{armed} wait for bells, {} may", living.listeners);
    Ok(())
}

/// Checks that a reader that waits for its bell is rung by the next post.
///
/// # Errors
/// It is not.
pub(crate) fn judge_ring(
    listener: &mut Reader<[u8]>,
    post: impl FnOnce() -> Result<()>,
) -> Result<()> {
    while let Some(message) = listener.try_read() {
        drop(message);
    }
    ensure!(listener.arm()?, "a message came twice");
    post()?;
    let rung = listener.bell().context("it has a bell")?.drain()?;
    ensure!(rung, "the bell was not rung");
    Ok(())
}

/// Checks that no bell of the segment is there, when somebody has come to listen and has gone.
///
/// # Errors
/// One is.
pub(crate) fn judge_bells(matrix: &Matrix, topic: &Topic<[u8]>) -> Result<()> {
    let Some(path) = matrix.path() else { return Ok(()) };
    drop(topic.reader().with_bell().open()?);
    let name = path.file_name().context("the segment has a name")?.to_string_lossy().into_owned();
    let folder = path.parent().context("the segment lies in a folder")?;
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let is_bell = file.starts_with(&format!("{name}.")) && file.ends_with(".bell");
        ensure!(!is_bell, "{file} is left, and nobody listens");
    }
    Ok(())
}
