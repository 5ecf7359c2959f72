//! A kill at every instruction of an operation.
//!
//! One pass steps through the operation and notes after which instructions the shared state has
//! changed: the matrix's own words, every block header, the file's name and length, and, since
//! locks are shared state that no memory shows, every system call. A killed process's private
//! state dies with it. So between two changes every instruction leaves the survivors the same
//! situation, and one real `SIGKILL` there covers the stretch; more are made at both ends of each
//! stretch and at random, or at every instruction. Each is made in a fresh segment.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use atomic_matrix::Matrix;

use crate::accounts::{Care, When, judge};
use crate::acts::Actor;
use crate::ops::{A, B, C, Kind, Meanwhile, Op};
use crate::scene::Scene;
use crate::stage::{Name, Stage};
use crate::stepper::{Step, Stepper};

/// Instructions that an operation may take.
const STEPS_MAX: u64 = 2_000_000;
/// What passing a breakpoint once costs, in steps.
const PASS_COST: u64 = 6;

/// Which instructions get a kill of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The begin of every stretch without a change, and so many more at random.
    Changes {
        /// Both sides of every change.
        around: bool,
        /// Instructions drawn from all of them.
        random: usize,
        /// Of all these only every so-manyth, from one on that the seed names, beside the first and the last.
        stride: usize,
    },
    /// Every instruction of an operation of no more than so many; else as `Changes`.
    Every {
        /// The longest operation.
        most: u64,
    },
    /// This one alone.
    At(u64),
}

/// A deviation, and where to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The instruction.
    pub at: u64,
    /// What was seen.
    pub seen: String,
}

/// What came of an operation's sweep.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Instructions of the operation.
    pub steps: u64,
    /// Instructions that changed the shared state, system calls included.
    pub changes: u64,
    /// Processes killed.
    pub kills: u64,
    /// Instructions covered by those kills.
    pub covered: u64,
    /// Blocks that recovery gave back.
    pub blocks: u64,
    /// Deviations.
    pub failures: Vec<Failure>,
}

impl Swept {
    fn note(&mut self, at: u64, killed: Result<u64>) {
        match killed {
            Ok(blocks) => self.blocks += blocks,
            Err(error) => self.failures.push(Failure { at, seen: format!("{error:#}") }),
        }
        self.kills += 1;
    }
}

/// Where an actor dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    /// Behind so many instructions.
    at: u64,
    /// In the next one, a system call, if it sleeps there.
    in_call: bool,
}

/// What a pass over an operation saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) steps: u64,
    /// Every k such that the shared state after instruction k is not that before it.
    pub(crate) changes: Vec<u64>,
    /// Every k such that the instruction behind it is a system call.
    calls: Vec<u64>,
    /// The k after which the first given block is free.
    freed: Option<u64>,
    /// Per k, the address of the instruction behind it, and how often that was run before.
    addresses: Vec<(u64, u32)>,
}

impl Trace {
    /// The same, without a way to bring a child by breakpoints.
    pub(crate) fn by_steps(&self) -> Self {
        Self { addresses: Vec::new(), ..self.clone() }
    }

    /// Brings a child from its beginning to instruction `at`: at full speed to the place from which
    /// the rest costs least, and from there by steps. False when it has not come by there.
    pub(crate) fn bring(&self, child: &mut Stepper, at: u64) -> Result<bool> {
        let known = self.addresses.iter().take(at as usize + 1).enumerate().skip(1);
        let cost = |&(k, &(_, passes)): &(usize, &(u64, u32))| {
            at - k as u64 + u64::from(passes) * PASS_COST
        };
        if let Some((k, &(address, passes))) = known.min_by_key(cost)
            && !child.run_to(address, passes, k as u64)?
        {
            return Ok(false);
        }
        child.steps(at - child.count())?;
        Ok(true)
    }
}

/// What happens beside the operation, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    /// The instruction at which the victim is killed.
    victim_at: u64,
    /// The instruction at which the survivor acts.
    meanwhile_at: Option<u64>,
}

/// Kills at every instruction that `reach` names, and judges each time.
///
/// # Errors
/// The operation itself does not work, or cannot be stepped.
pub fn sweep(op: &Op, reach: Reach, care: Option<Care>, seed: u64) -> Result<Swept> {
    let (trace, script) = rehearse(op)?;
    let mut points = points(&trace, reach, seed);
    if op.dozes && !matches!(reach, Reach::At(_)) {
        ensure!(!trace.calls.is_empty(), "it never called the kernel");
        points.extend(&trace.calls);
        points.sort_unstable();
        points.dedup();
    }
    let mut swept =
        Swept { steps: trace.steps, changes: trace.changes.len() as u64, ..Swept::default() };
    for &at in &points {
        // Whoever comes next may work first or recover first; each stretch sees both.
        let both = if at % 2 == 0 { Care::Recover } else { Care::WorkAndRecover };
        let care = care.unwrap_or(both);
        swept.note(at, kill_at(op, script, Death { at, in_call: false }, &trace, care));
        if op.dozes && trace.calls.contains(&at) {
            swept.note(at, kill_at(op, script, Death { at, in_call: true }, &trace, care));
        }
    }
    swept.covered = covered(&trace, &points);
    Ok(swept)
}

/// Passes over the operation, and over what happens beside it.
pub(crate) fn rehearse(op: &Op) -> Result<(Trace, Script)> {
    let mut script = Script::default();
    if let Some((_, hundredths)) = op.victim {
        let changes = pass(op, script, C)?.changes;
        let last = changes.len().checked_sub(1).map(|last| last as u64 * hundredths / 100);
        // A victim that changes nothing dies at its end.
        script.victim_at = last.map_or(u64::MAX, |index| changes[index as usize]);
    }
    if op.meanwhile.is_some() {
        let freed = pass(op, script, A)?.freed.context("the block does not become free")?;
        script.meanwhile_at = Some(freed - 1);
    }
    Ok((pass(op, script, A)?, script))
}

/// Steps through the whole operation of an actor, and looks at the shared state after each step.
fn pass(op: &Op, script: Script, number: usize) -> Result<Trace> {
    let ground = Ground::new(op)?;
    let (mut stage, _scene) = ground.stage(op)?;
    let mut child = ground.start(op, stage.as_ref(), A)?;
    if number == C {
        child = ground.start(op, stage.as_ref(), C)?;
    } else {
        ground.kill_victim(op, stage.as_ref(), script)?;
    }
    let first = stage.as_ref().and_then(|s| Some(s.given[number].first()?.offset));
    let mut trace = Trace::default();
    let mut watch = Watch::new(ground.name.as_ref().map(Name::path));
    watch.changed(stage.as_ref(), true)?;
    let mut passes = HashMap::new();
    loop {
        if script.meanwhile_at == Some(trace.steps) && number == A {
            act_meanwhile(op, &mut stage)?;
            watch.changed(stage.as_ref(), true)?;
        }
        let next = child.next_instruction();
        if let Some((address, _)) = next {
            let passes = passes.entry(address).or_insert(0);
            trace.addresses.push((address, *passes));
            *passes += 1;
        }
        let call = next.is_none_or(|(_, call)| call);
        if call && next.is_some() {
            trace.calls.push(trace.steps);
        }
        if child.step()? == Step::Ended {
            // It looks at what it did.
            child.finish()?;
            return Ok(trace);
        }
        trace.steps += 1;
        ensure!(trace.steps < STEPS_MAX, "more than {STEPS_MAX} instructions");
        if watch.changed(stage.as_ref(), call)? || call {
            trace.changes.push(trace.steps);
        }
        if let (None, Some(stage), Some(first)) = (trace.freed, &stage, first) {
            let word = stage.head_word(first);
            trace.freed = am_layout::free_len(word).map(|_| trace.steps);
        }
    }
}

/// Kills the actor, and judges.
fn kill_at(op: &Op, script: Script, death: Death, trace: &Trace, care: Care) -> Result<u64> {
    let at = death.at;
    let ground = Ground::new(op)?;
    let (mut stage, scene) = ground.stage(op)?;
    let mut child = ground.start(op, stage.as_ref(), A)?;
    ground.kill_victim(op, stage.as_ref(), script)?;
    if let Some(pause) = script.meanwhile_at.filter(|&pause| pause <= at) {
        child.steps(pause)?;
        act_meanwhile(op, &mut stage)?;
        child.steps(at - pause)?;
    } else if !trace.bring(&mut child, at)? {
        // The kernel's answers, or a heap's state, made this run another one.
        return kill_at(op, script, death, &trace.by_steps(), care);
    }
    if at >= trace.steps {
        // The last point is the end itself, wherever it lies this time.
        child.steps(STEPS_MAX)?;
    }
    if death.in_call {
        child.enter()?;
    }
    let when = match (at, child.ended()) {
        (_, true) => When::After,
        (0, _) if !death.in_call => When::Before,
        _ => When::Amid,
    };
    child.kill()?;
    ground.look_at_name(op, when)?;
    match &mut stage {
        Some(stage) => judge(stage, scene, op, when, care),
        None => {
            let matrix = ground.open_or_create(op).context("the survivor's open")?;
            judge(&mut Stage::lay(&matrix, op.shape, "")?, None, op, when, care)
        }
    }
}

fn act_meanwhile(op: &Op, stage: &mut Option<Stage<'_>>) -> Result<()> {
    if let (Some(stage), Some(Meanwhile::FreeHeld(number))) = (stage, op.meanwhile) {
        stage.held.remove(number).0.free()?;
    }
    Ok(())
}

/// The segment of one run.
pub(crate) struct Ground {
    name: Option<Name>,
    /// The survivor's handle; none yet where the operation makes the segment.
    matrix: Option<Matrix>,
}

impl Ground {
    pub(crate) fn new(op: &Op) -> Result<Self> {
        let name = op.named.then(Name::new);
        let matrix = match (op.kind, &name) {
            (Kind::Making, _) => None,
            (Kind::Inside, Some(name)) => Some(op.shape.builder().create(name.text())?),
            (Kind::Inside, None) => Some(op.shape.builder().memfd("am-kit")?),
        };
        let matrix = matrix.map(|matrix| matrix.with_thread_caches(false));
        Ok(Self { name, matrix })
    }

    /// Lays the heap out, and sets the scene on it, if there is one.
    pub(crate) fn stage(&self, op: &Op) -> Result<(Option<Stage<'_>>, Option<Scene>)> {
        let Some(matrix) = &self.matrix else { return Ok((None, None)) };
        let mut stage = Stage::lay(matrix, op.shape, op.layout)?;
        if op.spoiled {
            stage.spoil_hints()?;
        }
        let scene = op.plot.map(|plot| Scene::set(matrix, plot)).transpose()?;
        stage.cue = scene.as_ref().map(Scene::cue).unwrap_or_default();
        Ok((Some(stage), scene))
    }

    /// Starts an actor, up to its mark.
    pub(crate) fn start(
        &self,
        op: &Op,
        stage: Option<&Stage<'_>>,
        number: usize,
    ) -> Result<Stepper> {
        let act = match number {
            B => op.beside.map_or(op.act, |beside| beside.act),
            C => op.victim.map_or(op.act, |(act, _)| act),
            _ => op.act,
        };
        let name = self.name.as_ref().map(Name::text);
        if let Some(stage) = stage.filter(|_| op.crowded) {
            stage.crowd()?;
        }
        Stepper::start(|mark| act(&Actor { shape: op.shape, stage, name, number, mark }))
    }

    /// Lets actor C die in the middle of its operation.
    pub(crate) fn kill_victim(
        &self,
        op: &Op,
        stage: Option<&Stage<'_>>,
        script: Script,
    ) -> Result<()> {
        if op.victim.is_some() {
            let mut victim = self.start(op, stage, C)?;
            victim.steps(script.victim_at)?;
            victim.kill()?;
        }
        Ok(())
    }

    fn open_or_create(&self, op: &Op) -> Result<Matrix> {
        let name = self.name.as_ref().context("the segment has no name")?;
        let matrix = op.shape.builder().open_or_create(name.text())?;
        Ok(matrix.with_thread_caches(false))
    }

    /// Checks that the name, as long as there is one, leads to a segment that can be opened.
    fn look_at_name(&self, op: &Op, when: When) -> Result<()> {
        let (Kind::Inside, Some(name)) = (op.kind, &self.name) else { return Ok(()) };
        let there = name.path().exists();
        let removes = op.name.ends_with("destroy");
        let expected = match when {
            When::After => Some(!removes),
            When::Amid if removes => None,
            _ => Some(true),
        };
        ensure!(expected.is_none_or(|e| e == there), "the name is there: {there}");
        // Whoever opens it recovers, which a scene is to see its survivor do.
        if there && op.plot.is_none() {
            Matrix::builder().open(name.text()).context("the name leads nowhere")?;
        }
        Ok(())
    }
}

/// Notices changes of the shared state.
struct Watch {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Whether the file was there, and what all that is watched held.
    seen: (bool, Vec<u8>),
}

impl Watch {
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None, seen: Default::default() }
    }

    /// Tells whether anything is not as at the last call. The name is looked up only after a system
    /// call; nothing else can change it.
    fn changed(&mut self, stage: Option<&Stage<'_>>, after_call: bool) -> Result<bool> {
        if after_call && let Some(path) = &self.path {
            self.file = File::open(path).ok();
        }
        let (was_there, seen) = &mut self.seen;
        let there = self.file.is_some();
        let changed = match (stage, &self.file) {
            (Some(stage), _) => compare(stage, seen),
            (None, Some(file)) => {
                let mut now = vec![0; file.metadata()?.len() as usize];
                file.read_exact_at(&mut now, 0)?;
                let changed = now != *seen;
                *seen = now;
                changed
            }
            (None, None) => false,
        };
        Ok(std::mem::replace(was_there, there) != there || changed)
    }
}

/// Tells whether anything that belongs to the allocator is not as `seen`, and makes that what is there: everything
/// before the first sector, and every place where a block header may lie.
fn compare(stage: &Stage<'_>, seen: &mut Vec<u8>) -> bool {
    let sectors = stage.geometry().sectors.iter().filter(|sector| sector.granules > 0);
    let first = sectors.clone().map(|sector| sector.data_bytes).min().unwrap_or(0);
    let mut at = 0;
    let mut changed = update(stage.matrix, (0, first), seen, &mut at);
    for sector in sectors {
        if sector.granule_bytes() == 32 {
            changed |=
                update(stage.matrix, (sector.data_bytes, sector.size_bytes()), seen, &mut at);
            continue;
        }
        for granule in 0..u64::from(sector.granules) {
            let header = (sector.data_bytes + (granule << sector.granule_shift), 32);
            changed |= update(stage.matrix, header, seen, &mut at);
        }
    }
    changed
}

/// Makes what was seen from `at` on, which then goes on, what lies at those bytes of the segment, from there so many;
/// tells whether it was not. Compared where it lies: it is seldom another, and looked at after every instruction.
fn update(matrix: &Matrix, bytes: (u64, u64), seen: &mut Vec<u8>, at: &mut usize) -> bool {
    let (from, len) = (bytes.0 as usize, bytes.1 as usize);
    assert!(from + len <= matrix.mapping().len(), "the geometry lies inside the mapping");
    let from = matrix.mapping().as_ptr().wrapping_add(from);
    // SAFETY: inside the mapping, as was just checked. Every other user of the segment is stopped or dead, so nobody
    // writes as long as the slice is used.
    let now = unsafe { std::slice::from_raw_parts(from, len) };
    if seen.len() < *at + len {
        seen.resize(*at + len, 0);
    }
    let old = &mut seen[*at..*at + len];
    *at += len;
    let changed = old != now;
    if changed {
        old.copy_from_slice(now);
    }
    changed
}

/// The instructions at which to kill, in order.
pub(crate) fn points(trace: &Trace, reach: Reach, seed: u64) -> Vec<u64> {
    let (around, random, stride) = match reach {
        Reach::At(at) => return vec![at],
        Reach::Every { most } if trace.steps <= most => return (0..=trace.steps).collect(),
        Reach::Every { .. } => (1, 200, 1),
        Reach::Changes { around, random, stride } => (u64::from(around), random, stride),
    };
    let mut draw = fastrand::Rng::with_seed(seed);
    let ends = trace.changes.iter().flat_map(|&k| k - around..=k + around);
    let mut points: Vec<u64> = ends.chain([0, trace.steps]).collect();
    points.extend((0..random).map(|_| draw.u64(0..=trace.steps)));
    points.retain(|&k| k <= trace.steps);
    points.sort_unstable();
    points.dedup();
    let (last, offset) = (points.len() - 1, seed as usize % stride);
    let is_kept = |&(at, _): &(usize, u64)| at == 0 || at == last || at % stride == offset;
    points.into_iter().enumerate().filter(is_kept).map(|(_, k)| k).collect()
}

/// How many instructions lie in a stretch in which there was a kill.
pub(crate) fn covered(trace: &Trace, points: &[u64]) -> u64 {
    let begins = std::iter::once(0).chain(trace.changes.iter().copied());
    let ends = trace.changes.iter().copied().chain([trace.steps + 1]);
    let killed = |begin, end| points.iter().any(|&k| (begin..end).contains(&k));
    begins
        .zip(ends)
        .filter(|&(begin, end)| killed(begin, end))
        .map(|(begin, end)| end - begin)
        .sum()
}
