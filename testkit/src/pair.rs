//! An operation that sleeps after every one of its instructions, and another beside it.
//!
//! Actor A is stopped, not killed. Actor B then does its own operation, stepped and so counted: it
//! must succeed, and end within a bound, however long A sleeps. The survivor recovers, which must
//! take nothing of A's, for A is alive. Then A wakes up and ends; or, in another run, dies where it
//! sleeps, in the middle of what B has changed since; or wakes up and dies a little later. All of it
//! is judged each time.
//!
//! Here every instruction is a situation of its own, whether or not it changes the shared state:
//! what A read before B's operation it may believe after it.

use anyhow::{Context, Result, ensure};

use crate::accounts::{Care, When, judge};
use crate::ops::{A, B, Op};
use crate::product;
use crate::sweep::{self, Failure, Ground, Reach, Script, Swept, Trace};

/// Instructions that the operation beside may take.
const BESIDE_MAX: u64 = 400_000;

/// Instructions after which one who woke up dies at the latest.
const LATER_MAX: u64 = 300;

/// What came of a pair.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    /// As of a sweep; what is counted as kills are sleeps.
    pub swept: Swept,
    /// Instructions that actor B took at the most.
    pub beside_max: u64,
}

/// How A's sleep ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Wakes,
    Dies,
    /// It wakes, and dies so many instructions later.
    DiesAfter(u64),
}

impl Ending {
    fn words(self) -> String {
        match self {
            Ending::Wakes => "wakes".into(),
            Ending::Dies => "dies".into(),
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
        for ending in [Ending::Wakes, Ending::Dies, Ending::DiesAfter(later)] {
            match sleep_at(op, script, at, &trace, ending) {
                Ok(steps) => paired.beside_max = paired.beside_max.max(steps),
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

/// Lets A sleep at instruction `at`; returns how many instructions B took.
fn sleep_at(op: &Op, script: Script, at: u64, trace: &Trace, ending: Ending) -> Result<u64> {
    let ground = Ground::new(op)?;
    let mut stage = ground.stage(op)?;
    let mut sleeper = ground.start(op, stage.as_ref(), A)?;
    ground.kill_victim(op, stage.as_ref(), script)?;
    if !trace.bring(&mut sleeper, at)? {
        return sleep_at(op, script, at, &trace.by_steps(), ending);
    }
    let mut beside = ground.start(op, stage.as_ref(), B).context("beside")?;
    let steps = beside.steps(BESIDE_MAX).context("beside")?;
    ensure!(beside.ended(), "beside: more than {BESIDE_MAX} instructions");
    beside.finish().context("beside")?;
    let stage = stage.as_mut().context("pairs work in a segment that is there")?;
    let recovered = product::recover(stage.matrix);
    if op.victim.is_none() {
        let taken = recovered.bytes;
        ensure!(taken == 0, "{taken} bytes were recovered, and nobody had died");
    }
    let when = match ending {
        Ending::Wakes => {
            sleeper.finish()?;
            When::After
        }
        Ending::Dies | Ending::DiesAfter(_) => {
            if let Ending::DiesAfter(steps) = ending {
                sleeper.steps(steps)?;
            }
            let when = if sleeper.ended() { When::After } else { When::Amid };
            sleeper.kill()?;
            when
        }
    };
    judge(stage, op, when, Care::Recover)?;
    Ok(steps)
}
