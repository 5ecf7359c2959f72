//! The last line of every verb that judges.

use std::fmt;
use std::process::ExitCode;

/// `verdict: ok …` or `verdict: FAILED …`, with `name=value` pairs behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether everything that was judged is sound.
    pub ok: bool,
    /// The pairs, `name=value`, separated by blanks.
    pub values: String,
}

impl Verdict {
    /// The work is sound.
    pub fn ok(values: impl Into<String>) -> Self {
        Self { ok: true, values: values.into() }
    }

    /// Something is wrong; `values` says what.
    pub fn failed(values: impl Into<String>) -> Self {
        Self { ok: false, values: values.into() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.ok { "ok" } else { "FAILED" };
        write!(f, "verdict: {word} {}", self.values)
    }
}

/// How a verb ended.
#[derive(Debug)]
pub enum Outcome {
    /// The verb judged: its line is still to be printed.
    Judge(Verdict),
    /// The program that the verb ran has printed its own verdict; this is whether it was ok.
    Judged(bool),
    /// Done; there was nothing to judge.
    Done,
}

impl Outcome {
    /// Prints the verdict if it is still to be printed; returns the exit code of the verb.
    pub fn finish(self) -> ExitCode {
        let ok = match self {
            Outcome::Judge(verdict) => {
                println!("{verdict}");
                verdict.ok
            }
            Outcome::Judged(ok) => ok,
            Outcome::Done => true,
        };
        if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
