//! The optimised programs that verbs run.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// All of them. One build for all: apart, each would choose features of its own for what they share,
/// and that would be compiled anew.
const ALL: [&str; 6] = [
    "--package=am-testkit",
    "--bin=kit",
    "--package=atomic-matrix",
    "--example=endurance",
    "--example=handover",
    "--example=messages",
];

/// Builds the programs.
///
/// # Errors
/// They do not compile.
pub fn build() -> Result<()> {
    process::run(process::cargo(["build", "--quiet", "--release"]).args(ALL))
}

/// The test kit's own program with one of its verbs, built; its arguments are to be added.
///
/// # Errors
/// It does not compile.
pub fn kit(verb: &str) -> Result<Command> {
    let mut command = built("kit")?;
    command.arg(verb);
    Ok(command)
}

/// An example of the facade, built; its arguments are to be added.
///
/// # Errors
/// It does not compile.
pub fn example(name: &str) -> Result<Command> {
    built(&format!("examples/{name}"))
}

/// The program at this path below the folder of optimised builds.
fn built(path: &str) -> Result<Command> {
    build()?;
    let mut command = Command::new(process::target_dir().join("release").join(path));
    command.current_dir(process::root());
    Ok(command)
}
