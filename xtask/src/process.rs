//! Running cargo and reading what it says.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the workspace's root")
}

/// The folder that builds go to, whether or not `CARGO_TARGET_DIR` moves it.
pub fn target_dir() -> PathBuf {
    let moved = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    root().join(moved.unwrap_or_else(|| "target".into()))
}

/// A cargo command in the workspace's root: the cargo that runs this program.
pub fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Whether a cargo subcommand is installed.
pub fn has_subcommand(name: &str) -> bool {
    let mut command = cargo([name, "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether there is a program of that name that answers to `--version`.
pub fn is_program(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command with this process's own terminal.
///
/// # Errors
/// The command could not be started, or ended with anything but success.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("cannot start {}", line_of(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line_of(command));
    }
    Ok(())
}

/// Runs a command and passes its stdout on, line by line, after `seen` has read each line.
/// Returns whether it ended with success.
///
/// # Errors
/// The command could not be started, or its output not be read or passed on.
pub fn run_reading(command: &mut Command, seen: impl FnMut(&str)) -> Result<bool> {
    let mut child = start(command.stdout(Stdio::piped()))?;
    let stdout = child.stdout.take().context("the child has no stdout")?;
    pass_on(stdout, std::io::stdout(), seen)?;
    Ok(child.wait()?.success())
}

/// The same of its stderr, to which nextest writes.
///
/// # Errors
/// As [`run_reading`].
pub fn run_reading_progress(command: &mut Command, seen: impl FnMut(&str)) -> Result<bool> {
    let mut child = start(command.stderr(Stdio::piped()))?;
    let stderr = child.stderr.take().context("the child has no stderr")?;
    pass_on(stderr, std::io::stderr(), seen)?;
    Ok(child.wait()?.success())
}

fn start(command: &mut Command) -> Result<Child> {
    announce(command);
    command.spawn().with_context(|| format!("cannot start {}", line_of(command)))
}

fn pass_on(from: impl Read, mut to: impl Write, mut seen: impl FnMut(&str)) -> Result<()> {
    for line in BufReader::new(from).lines() {
        let line = line?;
        seen(&line);
        writeln!(to, "{line}")?;
    }
    Ok(())
}

/// Runs a program that judges for itself. Returns its verdict, read from its last line.
///
/// # Errors
/// The program could not be run, its last line is no verdict (it did not build, or died), or the
/// exit code contradicts it.
pub fn run_judging(command: &mut Command) -> Result<bool> {
    let mut last = String::new();
    let success = run_reading(command, |line| last = line.to_owned())?;
    let ok = last.starts_with("verdict: ok");
    if !ok && !last.starts_with("verdict: FAILED") {
        bail!("{} ended without a verdict", line_of(command));
    }
    if ok != success {
        bail!("{} contradicts its verdict: exit code", line_of(command));
    }
    Ok(ok)
}

fn announce(command: &Command) {
    eprintln!("$ {}", line_of(command));
}

/// The command as one would type it.
fn line_of(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name();
    let mut words = Vec::new();
    for (key, value) in command.get_envs() {
        let value = value.unwrap_or_default().to_string_lossy();
        words.push(format!("{}={value:?}", key.to_string_lossy()));
    }
    words.push(name.unwrap_or_default().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// `flag` behind the compiler flags that the caller already has.
pub fn rustflags(flag: &str) -> String {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    format!("{given} {flag}").trim_start().to_owned()
}
