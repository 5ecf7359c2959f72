//! `cargo xtask ci`: the gate.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::{self, cargo};
use crate::verdict::{Outcome, Verdict};
use crate::{endurance, hostile, kill, messages, model, program};

/// Which part of the gate.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Run only this step; may be given more than once. Without it: all of them
    #[arg(long, value_name = "STEP", value_parser = names())]
    only: Vec<String>,
}

/// One step of the gate.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

/// All steps, the cheapest first.
const STEPS: &[Step] = &[
    Step { name: "fmt", run: fmt },
    Step { name: "clippy", run: clippy },
    Step { name: "test", run: test },
    Step { name: "doctest", run: doctest },
    Step { name: "doc", run: doc },
    Step { name: "model", run: model },
    Step { name: "programs", run: program::build },
    Step { name: "endurance", run: || endurance(1) },
    Step { name: "endurance-2", run: || endurance(2) },
    Step { name: "messages", run: || messages(2) },
    Step { name: "messages-4", run: || messages(4) },
    Step { name: "kill", run: || kill(false) },
    Step { name: "kill-self", run: || kill(true) },
    Step { name: "storm", run: storm },
    Step { name: "hostile", run: || hostile(false) },
    Step { name: "hostile-self", run: || hostile(true) },
    Step { name: "handover", run: handover },
];

/// Runs the steps in order, up to the first that fails, and prints what each took.
pub fn run(args: &Args) -> Result<Outcome> {
    let chosen = |step: &&Step| args.only.is_empty() || args.only.iter().any(|n| n == step.name);
    let mut times = Vec::new();
    let mut broken = None;
    let begin = Instant::now();
    for step in STEPS.iter().filter(chosen) {
        eprintln!("\n== {}", step.name);
        let begin = Instant::now();
        let result = (step.run)();
        times.push((step.name, begin.elapsed(), result.is_ok()));
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            broken = Some(step.name);
            break;
        }
    }
    print_summary(&times);
    let values = format!("steps={} seconds={:.0}", times.len(), begin.elapsed().as_secs_f64());
    Ok(Outcome::Judge(match broken {
        None => Verdict::ok(values),
        Some(name) => Verdict::failed(format!("step={name} {values}")),
    }))
}

fn print_summary(times: &[(&str, Duration, bool)]) {
    println!("\n{:<12} {:>8}", "step", "seconds");
    for (name, time, ok) in times {
        let mark = if *ok { "" } else { "  FAILED" };
        println!("{name:<12} {:>8.1}{mark}", time.as_secs_f64());
    }
}

fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

fn fmt() -> Result<()> {
    process::run(&mut cargo(["fmt", "--all", "--check"]))
}

/// Warnings are errors here: everything with all features, and but for the tests with the default ones.
fn clippy() -> Result<()> {
    for what in [&["--all-targets", "--all-features"][..], &["--lib", "--bins", "--examples"]] {
        let mut command = cargo(["clippy", "--workspace"]);
        process::run(command.args(what).args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// The tests have what needs no special machine, beside the default features; the doctests too, for
/// which nothing is then built anew.
const TESTED: &str = "--features=am-message/async,atomic-matrix/async";

fn test() -> Result<()> {
    if process::has_subcommand("nextest") {
        return process::run(&mut cargo(["nextest", "run", "--workspace", TESTED]));
    }
    // The doctests are a step of their own.
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    process::run(cargo(["test", "--workspace", TESTED]).args(targets))
}

fn doctest() -> Result<()> {
    process::run(&mut cargo(["test", "--workspace", "--doc", TESTED]))
}

fn doc() -> Result<()> {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--all-features"]);
    process::run(command.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// The models; that they notice every mutant takes too long for the gate: `cargo xtask model --mutants`.
fn model() -> Result<()> {
    must_hold(model::run(&model::Args::gate())?)
}

fn messages(processes: u64) -> Result<()> {
    must_hold(messages::run(&messages::Args::gate(processes))?)
}

fn endurance(processes: u32) -> Result<()> {
    must_hold(endurance::run(&endurance::Args::gate(processes))?)
}

fn storm() -> Result<()> {
    must_hold(kill::run(&kill::Args::storm())?)
}

fn kill(self_test: bool) -> Result<()> {
    must_hold(kill::run(&kill::Args::gate(self_test))?)
}

fn hostile(self_test: bool) -> Result<()> {
    must_hold(hostile::run(&hostile::Args::gate(self_test))?)
}

fn handover() -> Result<()> {
    must_hold(Outcome::Judged(process::run_judging(&mut program::example("handover")?)?))
}

/// A verb run as a step: what it finds wrong is an error of the step.
fn must_hold(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Judge(verdict) if !verdict.ok => bail!("{verdict}"),
        Outcome::Judged(false) => bail!("the verdict above"),
        Outcome::Judge(verdict) => println!("{verdict}"),
        Outcome::Judged(true) | Outcome::Done => {}
    }
    Ok(())
}
