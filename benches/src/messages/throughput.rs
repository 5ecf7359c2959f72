//! Messages per second, from posters to readers.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use uuid::Uuid;

use super::control::Control;
use super::medium::{Checker, Draft, Medium, Plan, Post, Read};
use super::{Messages, fork_to, judge};
use crate::child::Reading;
use crate::ipc::pause;

/// Messages between two looks whether it is over.
const MESSAGES_PER_LOOK: u32 = 64;
/// How long a reader waits for a message that was sent, before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long everybody has to be ready.
const START: Duration = Duration::from_secs(10);
/// Between two looks at those who are waited for.
const POLL: Duration = Duration::from_micros(500);

/// One who takes part, and its number.
#[derive(Clone, Copy, Debug)]
enum Role {
    Poster(usize),
    Reader(usize),
}

fn roles(plan: &Plan) -> impl Iterator<Item = Role> {
    // Readers first: what is sent before a reader is there would pass it by.
    (0..plan.readers).map(Role::Reader).chain((0..plan.posters).map(Role::Poster))
}

/// Measures with a process for everybody.
///
/// # Errors
/// When the medium cannot be made, or a process fails.
pub fn between_processes<M: Medium>(job: &Messages, id: Uuid) -> Result<Reading> {
    let (plan, control) = (job.plan(id), Control::map()?);
    let mut medium = M::create(&plan)?;
    let mut children = Vec::new();
    for role in roles(&plan) {
        let play = |medium: M| match role {
            Role::Poster(number) => post(job, medium, number, control),
            Role::Reader(number) => read(job, medium, number, control),
        };
        let (child, mine) = fork_to(medium, play)?;
        children.push(child);
        medium = mine;
    }
    medium.forked();
    let mut reading = conduct(job, control, || children.iter().try_for_each(is_alive))?;
    for child in children {
        let status = waitpid(child, None)?;
        ensure!(status == WaitStatus::Exited(child, 0), "a process ended with {status:?}");
    }
    judge(&mut reading, control.wrong());
    reading.faults.extend(medium.audit());
    Ok(reading)
}

fn is_alive(child: &Pid) -> Result<()> {
    let status = waitpid(*child, Some(WaitPidFlag::WNOHANG))?;
    ensure!(status == WaitStatus::StillAlive, "a process died: {status:?}");
    Ok(())
}

/// Measures with a thread for everybody.
///
/// # Errors
/// When the medium cannot be made, or a thread fails.
pub fn between_threads<M: Medium>(job: &Messages, id: Uuid) -> Result<Reading>
where
    M::Poster: Send,
    M::Reader: Send,
{
    let (plan, control) = (job.plan(id), Control::map()?);
    let mut medium = M::create(&plan)?;
    let readers: Vec<_> = (0..plan.readers).map(|n| medium.reader(n)).collect::<Result<_>>()?;
    let posters: Vec<_> = (0..plan.posters).map(|n| medium.poster(n)).collect::<Result<_>>()?;
    let mut reading = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, end) in readers.into_iter().enumerate() {
            threads.push(scope.spawn(move || read_from(job, end, number, control)));
        }
        for (number, end) in posters.into_iter().enumerate() {
            threads.push(scope.spawn(move || post_to::<M>(job, end, number, control)));
        }
        let reading = conduct(job, control, || Ok(()))?;
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(reading)
    })?;
    judge(&mut reading, control.wrong());
    reading.faults.extend(medium.audit());
    Ok(reading)
}

/// Lets the others begin and end, and counts in between. Figure: `mmessages`, millions of messages
/// per second that a reader got.
fn conduct(job: &Messages, control: &Control, alive: impl Fn() -> Result<()>) -> Result<Reading> {
    let start = Instant::now();
    while control.are_ready() < (job.posters + job.readers) as u64 {
        alive()?;
        ensure!(start.elapsed() < START, "not everybody is ready");
        thread::sleep(POLL);
    }
    control.go();
    thread::sleep(Duration::from_secs_f64(job.warmup_s));
    let (start, before) = (Instant::now(), control.all_received());
    thread::sleep(Duration::from_secs_f64(job.seconds));
    let (seconds, received) = (start.elapsed().as_secs_f64(), control.all_received() - before);
    alive()?;
    control.stop();
    let mut reading = Reading::default();
    reading.set("mmessages", received as f64 / job.readers as f64 / seconds / 1e6);
    Ok(reading)
}

/// A poster's process.
fn post<M: Medium>(job: &Messages, mut medium: M, number: usize, control: &Control) -> Result<()> {
    let end = medium.poster(number)?;
    drop(medium);
    post_to::<M>(job, end, number, control)
}

/// A reader's process.
fn read<M: Medium>(job: &Messages, mut medium: M, number: usize, control: &Control) -> Result<()> {
    let end = medium.reader(number)?;
    drop(medium);
    read_from(job, end, number, control)
}

fn post_to<M: Medium>(
    job: &Messages,
    mut end: M::Poster,
    poster: usize,
    control: &Control,
) -> Result<()> {
    control.ready();
    let mut spins = 0;
    while control.waits() {
        pause(&mut spins);
    }
    let mut draft = Draft { poster, number: 0, bytes: job.bytes, touched: job.touched };
    // iceoryx2 drops what does not fit before a reader has looked for the first time; the first messages
    // fit.
    end.post_many(&mut draft, MESSAGES_PER_LOOK)?;
    while !control.all_have_begun(job.readers) && !control.is_over() {
        pause(&mut spins);
    }
    while !control.is_over() {
        end.post_many(&mut draft, MESSAGES_PER_LOOK)?;
    }
    control.poster_is_done(poster, draft.number);
    if !M::ENDS_BY_CLOSING {
        while !control.all_read(job.readers) {
            pause(&mut spins);
        }
    }
    Ok(())
}

fn read_from(job: &Messages, mut end: impl Read, reader: usize, control: &Control) -> Result<()> {
    control.ready();
    let mut checker = Checker::new(job.bytes, job.touched);
    let (mut received, mut spins) = (0, 0);
    let mut idle_since = None;
    let sent = loop {
        let count = end.read(|payload| checker.look(payload))?;
        if count > 0 {
            received += count;
            control.received(reader, received);
            (spins, idle_since) = (0, None);
            continue;
        }
        pause(&mut spins);
        // Not before every message: the look would be part of the figures.
        let Some(sent) = control.sent(job.posters) else { continue };
        let since = *idle_since.get_or_insert_with(Instant::now);
        if received >= sent || since.elapsed() > PATIENCE {
            break sent;
        }
    };
    control.reader_is_done(checker.finish(received, sent));
    Ok(())
}
