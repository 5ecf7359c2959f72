//! An operation that sleeps after every one of its instructions, and another beside it.
//!
//! Actor A is stopped, not killed. Actor B then does its own operation, stepped and so counted: it
//! must succeed, and end within a bound, however long A sleeps. The survivor recovers, which must
//! take nothing of A's, for A is alive. Then A wakes up and ends; or, in another run, dies where it
//! sleeps, in the middle of what B has changed since; or wakes up and dies a little later. All of it
//! is judged each time. In a fourth run A sleeps no longer than B takes a few instructions, and so on by
//! turns.
//!
//! Here every instruction is a situation of its own, whether or not it changes the shared state:
//! what A read before B's operation it may believe after it.

use anyhow::{Context, Result, ensure};

use crate::accounts::{Care, When, judge};
use crate::ops::{A, B, Op};
use crate::product::{self, Recovered};
use crate::stepper::Stepper;
use crate::sweep::{self, Failure, Ground, Reach, Script, Swept, Trace};

/// Instructions that the operation beside may take.
const BESIDE_MAX: u64 = 400_000;

/// Instructions after which one who woke up dies at the latest.
const LATER_MAX: u64 = 300;

/// Turns that A and B take by steps before the rest of both runs at full speed.
const TURNS_MAX: u32 = 40;
/// Instructions of one turn at the most.
const TURN_MAX: u64 = 60;
/// Instructions of B above which they are not counted anew each time.
const COUNTED_MAX: u64 = 20_000;

/// What came of a pair.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    /// As of a sweep; what is counted as kills are sleeps.
    pub swept: Swept,
    /// Instructions that actor B took at the most.
    pub beside_max: u64,
    /// How often recovery left something for later, since A might be concerned.
    pub deferred: u64,
    /// How often recovery did nothing, since A was at it.
    pub busy: u64,
}

/// How A's sleep ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Wakes,
    Dies,
    /// It wakes, and dies so many instructions later.
    DiesAfter(u64),
    /// It wakes while B is still at work, and both go on by turns of random length.
    TakesTurns,
}

impl Ending {
    fn words(self) -> String {
        match self {
            Ending::Wakes => "wakes".into(),
            Ending::Dies => "dies".into(),
            Ending::TakesTurns => "and B take turns".into(),
            Ending::DiesAfter(steps) => format!("wakes and dies after {steps} steps"),
        }
    }
}

/// Lets actor A sleep at every instruction that `reach` names, and judges each time.
///
/// # Errors
/// An operation itself does not work, or cannot be stepped.
pub fn sleep(op: &Op, reach: Reach, seed: u64) -> Result<Paired> {
    let (trace, script) = sweep::rehearse(op)?;
    let points = sweep::points(&trace, reach, seed);
    let mut paired = Paired::default();
    paired.swept.steps = trace.steps;
    paired.swept.changes = trace.changes.len() as u64;
    for &at in &points {
        let later = fastrand::Rng::with_seed(seed ^ at).u64(1..LATER_MAX);
        let endings = [Ending::Wakes, Ending::Dies, Ending::DiesAfter(later), Ending::TakesTurns];
        for ending in endings {
            // What takes long is counted once.
            let counts = ending == Ending::Wakes && paired.beside_max < COUNTED_MAX;
            let sleep = Sleep { at, ending, counts, seed };
            match sleep_at(op, script, &trace, sleep) {
                Ok(slept) => {
                    paired.beside_max = paired.beside_max.max(slept.beside);
                    paired.deferred += u64::from(slept.recovered.deferred > 0);
                    paired.busy += u64::from(slept.recovered.busy);
                }
                Err(error) => {
                    let seen = format!("A {}: {error:#}", ending.words());
                    paired.swept.failures.push(Failure { at, seen });
                }
            }
            paired.swept.kills += 1;
        }
        paired.swept.covered += 1;
    }
    Ok(paired)
}

/// One sleep of A's.
#[derive(Clone, Copy, Debug)]
struct Sleep {
    /// The instruction.
    at: u64,
    ending: Ending,
    /// B is stepped and counted; else it runs at full speed.
    counts: bool,
    seed: u64,
}

/// What was seen while A slept.
struct Slept {
    /// Instructions that B took, where they were counted.
    beside: u64,
    recovered: Recovered,
}

/// Lets A sleep once.
fn sleep_at(op: &Op, script: Script, trace: &Trace, sleep: Sleep) -> Result<Slept> {
    let ground = Ground::new(op)?;
    let (mut stage, scene) = ground.stage(op)?;
    let mut sleeper = ground.start(op, stage.as_ref(), A)?;
    // B attaches before C dies, or else it would find nothing of it; without a C, while A sleeps.
    let attach = || ground.start(op, stage.as_ref(), B).context("beside");
    let early = op.victim.map(|_| attach()).transpose()?;
    ground.kill_victim(op, stage.as_ref(), script)?;
    if !trace.bring(&mut sleeper, sleep.at)? {
        return sleep_at(op, script, &trace.by_steps(), sleep);
    }
    let mut beside = early.map_or_else(attach, Ok)?;
    if sleep.ending == Ending::TakesTurns {
        take_turns(&mut sleeper, &mut beside, sleep)?;
    }
    if sleep.counts {
        beside.steps(BESIDE_MAX).context("beside")?;
        ensure!(beside.ended(), "beside: more than {BESIDE_MAX} instructions");
    }
    let steps = beside.count();
    beside.finish().context("beside")?;
    let stage = stage.as_mut().context("pairs work in a segment that is there")?;
    let recovered = product::recover(stage.matrix);
    if op.victim.is_none() {
        let taken = recovered.bytes;
        ensure!(taken == 0, "{taken} bytes were recovered, and nobody had died");
    }
    let when = end(sleeper, sleep.ending)?;
    judge(stage, scene, op, when, Care::Recover)?;
    Ok(Slept { beside: steps, recovered })
}

/// Lets A and B run by turns of a few instructions, for as long as `TURNS_MAX` turns last.
fn take_turns(sleeper: &mut Stepper, beside: &mut Stepper, sleep: Sleep) -> Result<()> {
    let mut draw = fastrand::Rng::with_seed(sleep.seed ^ sleep.at);
    for _ in 0..TURNS_MAX {
        if sleeper.ended() || beside.ended() {
            break;
        }
        beside.steps(draw.u64(1..TURN_MAX)).context("beside")?;
        sleeper.steps(draw.u64(1..TURN_MAX))?;
    }
    Ok(())
}

/// Ends A's sleep; tells how far A came.
fn end(mut sleeper: Stepper, ending: Ending) -> Result<When> {
    if let Ending::DiesAfter(steps) = ending {
        sleeper.steps(steps)?;
    }
    match ending {
        Ending::Wakes | Ending::TakesTurns => {
            sleeper.finish()?;
            Ok(When::After)
        }
        Ending::Dies | Ending::DiesAfter(_) => {
            let when = if sleeper.ended() { When::After } else { When::Amid };
            sleeper.kill()?;
            Ok(when)
        }
    }
}
