//! How long a message takes to another process and an answer back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use quanta::Clock;
use uuid::Uuid;

use super::control::Control;
use super::medium::{Checker, Draft, Medium, Plan, Post, Read};
use super::{Messages, back_of, fork_to, judge};
use crate::child::Reading;
use crate::ipc::pause;
use crate::latency::{TICKS_MAX, stamp, stamp_cost};

/// What is reported: name and quantile.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];
/// Round trips between two looks at the time.
const TRIPS_PER_LOOK: u32 = 64;
/// Looks for an answer between two looks whether the other lives.
const LOOKS_PER_LIFE: u32 = 1 << 16;

/// Makes the two ways.
fn create<M: Medium>(job: &Messages, id: Uuid) -> Result<[M; 2]> {
    let there = job.plan(id);
    let back = Plan { id: back_of(id), ..there.clone() };
    Ok([M::create(&there)?, M::create(&back)?])
}

/// Measures between two processes.
///
/// # Errors
/// When a medium cannot be made, or a process fails.
pub fn between_processes<M: Medium>(job: &Messages, id: Uuid) -> Result<Reading> {
    let control = Control::map()?;
    let ways = create::<M>(job, id)?;
    let echo = |[mut there, mut back]: [M; 2]| {
        let (reader, poster) = (there.reader(0)?, back.poster(0)?);
        drop((there, back));
        answer(job, reader, poster, control)
    };
    let (child, [mut there, mut back]) = fork_to(ways, echo)?;
    let alive = || {
        let status = waitpid(child, Some(WaitPidFlag::WNOHANG))?;
        ensure!(status == WaitStatus::StillAlive, "the other process died: {status:?}");
        Ok(())
    };
    let (poster, reader) = (there.poster(0)?, back.reader(0)?);
    there.forked();
    back.forked();
    let reading = ask(job, poster, reader, control, alive)?;
    let status = waitpid(child, None)?;
    ensure!(status == WaitStatus::Exited(child, 0), "the other process ended with {status:?}");
    finish(reading, [there, back])
}

/// Measures between two threads.
///
/// # Errors
/// When a medium cannot be made, or a thread fails.
pub fn between_threads<M: Medium>(job: &Messages, id: Uuid) -> Result<Reading>
where
    M::Poster: Send,
    M::Reader: Send,
{
    let control = Control::map()?;
    let [mut there, mut back] = create::<M>(job, id)?;
    let (far_reader, far_poster) = (there.reader(0)?, back.poster(0)?);
    let (poster, reader) = (there.poster(0)?, back.reader(0)?);
    let reading = thread::scope(|scope| {
        let echo = scope.spawn(move || answer(job, far_reader, far_poster, control));
        let reading = ask(job, poster, reader, control, || {
            ensure!(!echo.is_finished(), "the other thread ended");
            Ok(())
        })?;
        echo.join().map_err(|_| anyhow!("the other thread panicked"))??;
        Ok::<_, anyhow::Error>(reading)
    })?;
    finish(reading, [there, back])
}

fn finish<M: Medium>(mut reading: Reading, ways: [M; 2]) -> Result<Reading> {
    reading.faults.extend(ways.into_iter().flat_map(Medium::audit));
    Ok(reading)
}

/// The one that sends back whatever comes.
fn answer(
    job: &Messages,
    mut reader: impl Read,
    mut poster: impl Post,
    control: &Control,
) -> Result<()> {
    control.ready();
    let mut checker = Checker::new(job.bytes, true);
    let mut draft = Draft { poster: 0, number: 0, bytes: job.bytes, touched: true };
    let mut spins = 0;
    // What is sent before the end was asked for is read after it.
    while !control.is_over() {
        if reader.read(|payload| checker.look(payload))? == 0 {
            pause(&mut spins);
            continue;
        }
        spins = 0;
        poster.post(&draft)?;
        draft.number += 1;
    }
    control.reader_is_done(checker.finish(draft.number, draft.number));
    Ok(())
}

/// The one that asks and takes the time. Figures: `p50` … `max` in nanoseconds, `clock`, what two
/// stamps cost, and `corrupted`.
fn ask(
    job: &Messages,
    mut poster: impl Post,
    mut reader: impl Read,
    control: &Control,
    alive: impl Fn() -> Result<()>,
) -> Result<Reading> {
    let mut spins = 0;
    while control.are_ready() == 0 {
        alive()?;
        pause(&mut spins);
    }
    let clock = Clock::new();
    let clock_ticks = stamp_cost(&clock)?;
    let mut checker = Checker::new(job.bytes, true);
    let mut draft = Draft { poster: 0, number: 0, bytes: job.bytes, touched: true };
    let mut ticks = Histogram::<u64>::new_with_bounds(1, TICKS_MAX, 3)?;
    for limit_s in [job.warmup_s, job.seconds] {
        ticks.reset();
        let (start, limit) = (Instant::now(), Duration::from_secs_f64(limit_s));
        while start.elapsed() < limit {
            for _ in 0..TRIPS_PER_LOOK {
                let sent = stamp(&clock);
                poster.post(&draft)?;
                draft.number += 1;
                wait_for(&mut reader, &mut checker, &alive)?;
                ticks.saturating_record(stamp(&clock).saturating_sub(sent));
            }
        }
    }
    control.stop();
    // Whoever waits in the kernel for another message is told that none comes.
    drop(poster);
    let mut spins = 0;
    while !control.all_read(1) {
        pause(&mut spins);
    }
    let mut reading = Reading::default();
    for (name, quantile) in QUANTILES {
        let ticks = ticks.value_at_quantile(quantile);
        reading.set(name, clock.delta_as_nanos(0, ticks) as f64);
    }
    reading.set("clock", clock.delta_as_nanos(0, clock_ticks) as f64);
    judge(&mut reading, control.wrong().and(checker.finish(draft.number, draft.number)));
    Ok(reading)
}

/// Waits for the answer.
#[inline(always)]
fn wait_for(
    reader: &mut impl Read,
    checker: &mut Checker,
    alive: impl Fn() -> Result<()>,
) -> Result<()> {
    let (mut looks, mut spins) = (0u32, 0);
    while reader.read(|payload| checker.look(payload))? == 0 {
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_LIFE) {
            alive()?;
        }
        pause(&mut spins);
    }
    Ok(())
}
