//! Runs of several processes: the parent starts this program again, once for each.
//!
//! They talk in lines. The child says `ready`, is told `go`, says `timed` when its timed part is
//! over, is told `free` once the parent has looked at the segment, and ends with its counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use uuid::Uuid;

use crate::timing::{interrupted, wait, wait_with_bar};
use crate::worker::{Counts, run_threads};
use crate::{Cli, bootstrap};

/// A child that says nothing for this long, when it is due to, hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// One process of a run of several.
struct Child {
    process: std::process::Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    fn spawn(cli: &Cli, index: u32, segment: Uuid) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(format!("--threads={}", cli.threads))
            .arg(format!("--seconds={}", cli.seconds))
            .arg(format!("--size-mib={}", cli.size_mib))
            .arg(format!("--seed={}", cli.seed))
            .arg(format!("--child={index}"))
            .arg(format!("--segment={segment}"))
            .args(cli.verify.then_some("--verify"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().context("no stdin")?;
        let stdout = process.stdout.take().context("no stdout")?;
        let (sender, lines) = channel();
        // A thread reads, so that the parent can lose its patience; it ends with the child.
        thread::spawn(move || {
            let mut heard = BufReader::new(stdout).lines().map_while(Result::ok);
            heard.try_for_each(|line| sender.send(line))
        });
        Ok(Self { process, stdin, lines })
    }

    fn hear(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("the child is gone or hangs")
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.hear()?;
        ensure!(line == word, "the child said {line:?} instead of {word:?}");
        Ok(())
    }

    fn finish(&mut self) -> Result<Counts> {
        let counts = Counts::from_line(&self.hear()?)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the child ended with {status}");
        Ok(counts)
    }
}

/// Keeps the children that the action succeeds for; the others are ended and counted as dead.
fn with_each(
    children: &mut Vec<Child>,
    dead: &mut usize,
    mut act: impl FnMut(&mut Child) -> Result<()>,
) {
    children.retain_mut(|child| {
        let Err(error) = act(child) else { return true };
        eprintln!("child {}: {error:#}", child.process.id());
        // Errors: it has ended already.
        let _ = child.process.kill();
        let _ = child.process.wait();
        *dead += 1;
        false
    });
}

/// The parent: starts the children and leads them through the run. `look` is called between the timed
/// part and the frees, while every thread of every child rests. Returns the counts of the children
/// that lived to report them, and how many did not.
pub fn run_children(
    cli: &Cli,
    segment: Uuid,
    look: impl FnOnce() -> Result<()>,
) -> Result<(Counts, usize)> {
    let spawn = |index| Child::spawn(cli, index, segment).context("cannot start a child");
    let mut children = (0..cli.processes).map(spawn).collect::<Result<Vec<_>>>()?;
    let mut dead = 0;
    with_each(&mut children, &mut dead, |child| child.expect("ready"));
    with_each(&mut children, &mut dead, |child| Ok(writeln!(child.stdin, "go")?));
    wait_with_bar(cli.seconds);
    if interrupted() {
        // A terminal interrupts the children too; whoever interrupts this process alone does not.
        with_each(&mut children, &mut dead, |child| {
            Ok(signal::kill(Pid::from_raw(child.process.id().try_into()?), Signal::SIGINT)?)
        });
    }
    with_each(&mut children, &mut dead, |child| child.expect("timed"));
    look()?;
    with_each(&mut children, &mut dead, |child| Ok(writeln!(child.stdin, "free")?));
    let mut counts = Counts::default();
    with_each(&mut children, &mut dead, |child| {
        counts.add(child.finish()?);
        Ok(())
    });
    Ok((counts, dead))
}

/// A child: waits for the orders and runs the threads.
pub fn run_child(cli: &Cli, index: u32, segment: Uuid) -> Result<()> {
    let handler = bootstrap(cli, segment)?;
    let mut orders = std::io::stdin().lines();
    let mut obey = move |say: &str, order: &str| -> Result<()> {
        println!("{say}");
        let line = orders.next().context("the parent is gone")??;
        ensure!(line == order, "the parent said {line:?} instead of {order:?}");
        Ok(())
    };
    obey("ready", "go")?;
    let wait = || wait(cli.seconds, |_| ());
    let first_number = index * cli.threads;
    let counts = run_threads(cli, &handler, first_number, wait, || obey("timed", "free"))?;
    // What this process still holds in caches goes back before the parent counts.
    drop(handler);
    println!("{}", counts.to_line());
    Ok(())
}
