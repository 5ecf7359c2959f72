//! The process that is damaged, and the one that damages it from outside.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use super::bed::{Bed, Region};
use super::player::{Broken, Player};
use super::step::{Step, mix, script};
use super::sweep;

/// Every so many rounds the damage comes from another process, at any moment.
const RACE_EVERY: u64 = 8;
/// Every so many rounds the segment is one of the product's own making.
const FACADE_EVERY: u64 = 16;
/// Turns of the victim's script in one race, at most.
const RACE_TURNS: u32 = 64;
/// What the victim waits for the other process to lay its hands down.
const RACE_PATIENCE: Duration = Duration::from_secs(10);
/// What the scribbler spins between two damages, in turns of the loop, at most.
const PAUSE_MAX: u32 = 2000;

/// Rounds that a sabotaged run fails in.
pub const SABOTAGES: u64 = 4;

/// What the processes of a run know of each other: words of a shared page.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Board {
    /// The round that is played.
    pub round: AtomicU64,
    /// The step of the round's script; its length stands for the end of the round.
    pub step: AtomicU64,
    /// Changes with every step: the victim is alive.
    pub beat: AtomicU64,
    /// Damages done.
    pub damages: AtomicU64,
    /// Calls made.
    pub calls: AtomicU64,
    /// Calls that returned an error.
    pub refused: AtomicU64,
    /// The longest step, in nanoseconds that the victim computed.
    pub longest_ns: AtomicU64,
    /// Which one that was: round and step.
    pub longest_at: [AtomicU64; 2],
    /// The last round in which the other process shall scribble, plus one; 0 for none.
    race: AtomicU64,
    /// The last round, plus one, in which it is done scribbling.
    race_done: AtomicU64,
}

impl Board {
    /// Looks at shared zeroes as a board.
    #[must_use]
    pub fn of(region: &Region) -> &Self {
        // SAFETY: a page at least, aligned to one; all zeroes are a board, and all fields atomic.
        unsafe { region.base().cast::<Self>().as_ref() }
    }
}

/// What all processes of a run agree on.
pub struct Plan {
    /// Everything else follows from it.
    pub seed: u64,
    /// The segments, in turn.
    pub beds: Vec<Bed>,
    /// Do on purpose what no damage may lead to, to see it noticed.
    pub sabotage: bool,
}

impl Plan {
    /// The segment of a round.
    fn bed(&self, round: u64) -> &Bed {
        let (facade, guarded) = self.beds.split_last().expect("there are beds");
        if round % FACADE_EVERY >= FACADE_EVERY - 2 {
            return facade;
        }
        &guarded[(mix(self.seed, round) >> 32) as usize % guarded.len()]
    }

    /// Whether another process damages the segment in that round.
    #[must_use]
    pub fn races(round: u64) -> bool {
        round < sweep::FIRST && round % RACE_EVERY == RACE_EVERY - 1
    }
}

/// What the last panic said; the hook writes it where the catcher finds it.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Plays rounds, and reports what is wrong, a line each, as `round step text`.
///
/// # Errors
/// The pipe is gone.
pub fn play(
    plan: &Plan,
    board: &Board,
    rounds: impl Iterator<Item = u64>,
    report: OwnedFd,
) -> Result<()> {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        if let Ok(mut last) = PANIC.lock() {
            *last = text;
        }
    }));
    let mut report = std::fs::File::from(report);
    for round in rounds {
        board.step.store(0, Relaxed);
        board.round.store(round, Relaxed);
        let script = script(plan.seed, round);
        let mut game = Game { plan, board, round, script: &script };
        if let Err(Broken(text)) = game.play() {
            let step = board.step.load(Relaxed);
            writeln!(report, "{round} {step} {text}").context("nobody listens")?;
        }
    }
    Ok(())
}

/// One round of a victim.
struct Game<'a> {
    plan: &'a Plan,
    board: &'a Board,
    round: u64,
    script: &'a [Step],
}

impl Game<'_> {
    fn play(&mut self) -> Result<(), Broken> {
        let bed = self.plan.bed(self.round);
        bed.reset();
        let fresh = |error: anyhow::Error| Broken(format!("a fresh segment is refused: {error:#}"));
        let handles = [bed.attach().map_err(fresh)?, bed.attach().map_err(fresh)?];
        let mut player = Player::new(bed, &handles);
        if self.plan.sabotage {
            self.sabotage(bed, &mut player)?;
        }
        let played = if Plan::races(self.round) {
            self.race(bed, &mut player)
        } else {
            self.steps(bed, &mut player, true)
        };
        let board = self.board;
        let finished = played.and_then(|()| {
            board.step.store(self.script.len() as u64, Relaxed);
            self.guarded(|| player.finish())
        });
        board.calls.fetch_add(player.calls.made, Relaxed);
        board.refused.fetch_add(player.calls.refused, Relaxed);
        if let Err(broken) = finished {
            // Its guards' drops might panic too, and the failure is told already.
            std::mem::forget(player);
            return Err(broken);
        }
        drop(player);
        self.guarded(|| {
            drop(bed.attach());
            drop(handles);
            Ok(())
        })
    }

    /// The whole script, with its damages or without.
    fn steps(&self, bed: &Bed, player: &mut Player<'_>, damaging: bool) -> Result<(), Broken> {
        for (at, step) in self.script.iter().enumerate() {
            self.board.step.store(at as u64, Relaxed);
            match step {
                Step::Do(operation) => self.guarded(|| player.perform(*operation))?,
                Step::Tell(telling) => self.guarded(|| player.tell(*telling))?,
                Step::Ask(asking) => self.guarded(|| player.ask(*asking))?,
                Step::Damage(damage) if damaging => {
                    damage.apply(bed);
                    self.board.damages.fetch_add(1, Relaxed);
                }
                Step::Damage(_) => {}
            }
        }
        Ok(())
    }

    /// The script again and again, until the other process is done with its damages.
    fn race(&self, bed: &Bed, player: &mut Player<'_>) -> Result<(), Broken> {
        let this = self.round + 1;
        self.board.race.store(this, Release);
        let mut result = Ok(());
        for _ in 0..RACE_TURNS {
            result = self.steps(bed, player, false);
            if result.is_err() || self.board.race_done.load(Acquire) == this {
                break;
            }
        }
        // The segment is made anew after this round: nobody may write to it any more.
        let begin = Instant::now();
        while self.board.race_done.load(Acquire) != this {
            self.board.beat.fetch_add(1, Relaxed);
            if begin.elapsed() > RACE_PATIENCE {
                return Err(Broken("the other process does not answer".into()));
            }
            std::thread::yield_now();
        }
        result
    }

    /// What a broken allocator might do: one thing per round, [`SABOTAGES`] in all.
    fn sabotage(&self, bed: &Bed, player: &mut Player<'_>) -> Result<(), Broken> {
        self.guarded(|| match self.round {
            0 => panic!("on purpose"),
            1 => {
                let words = bed.words();
                let behind = words.as_ptr().wrapping_add(words.len()).cast_mut().cast::<u32>();
                // SAFETY: none; the page behind the segment is inaccessible, and this shows it.
                unsafe { behind.write_volatile(0) };
                Ok(())
            }
            2 => loop {
                std::thread::sleep(RACE_PATIENCE);
            },
            3 => player.must_be_inside(bed.words().as_ptr().cast(), 1),
            _ => Ok(()),
        })
    }

    /// One call: a panic is a failure, and the time that it took is measured.
    fn guarded(&self, call: impl FnOnce() -> Result<(), Broken>) -> Result<(), Broken> {
        self.board.beat.fetch_add(1, Relaxed);
        let begin = computed();
        let result = catch_unwind(AssertUnwindSafe(call));
        let took = computed().saturating_sub(begin).as_nanos() as u64;
        // Only this process writes it.
        if took > self.board.longest_ns.load(Relaxed) {
            self.board.longest_ns.store(took, Relaxed);
            self.board.longest_at[0].store(self.round, Relaxed);
            self.board.longest_at[1].store(self.board.step.load(Relaxed), Relaxed);
        }
        result.unwrap_or_else(|_| {
            let text = PANIC.lock().map(|mut text| std::mem::take(&mut *text));
            Err(Broken(text.unwrap_or_default()))
        })
    }
}

/// Time that this thread computed: others share the machine. Waiting is the supervisor's to notice.
fn computed() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Damages segments from outside, whenever a race is on; never returns.
pub fn scribble(plan: &Plan, board: &Board) -> ! {
    let mut done = 0;
    loop {
        let race = board.race.load(Acquire);
        if race == done {
            // Short: a race is over soon.
            std::thread::sleep(Duration::from_micros(20));
            continue;
        }
        let round = race - 1;
        let bed = plan.bed(round);
        let mut rng = fastrand::Rng::with_seed(mix(!plan.seed, round));
        for step in script(plan.seed, round) {
            let Step::Damage(damage) = step else { continue };
            for _ in 0..rng.u32(..PAUSE_MAX) {
                std::hint::spin_loop();
            }
            damage.apply(bed);
            board.damages.fetch_add(1, Relaxed);
        }
        done = race;
        board.race_done.store(race, Release);
    }
}
