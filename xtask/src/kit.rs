//! The test kit's own program, which the verbs about breaking things run.

use std::process::Command;

use crate::process;

/// The kit with one of its verbs, optimised; its arguments are to be added.
pub fn kit(verb: &str) -> Command {
    process::cargo(["run", "--quiet", "--release", "--package=am-testkit", "--bin=kit", "--", verb])
}
