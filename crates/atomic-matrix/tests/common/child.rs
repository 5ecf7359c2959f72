//! A child is the test binary started anew, to run its test `child_entry` alone with a role from the
//! environment. It is told what to do by lines on its standard input, and answers by lines on its
//! standard output that begin with a mark.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const MARK: &str = "matrix-child:";
const ROLE: &str = "ATOMIC_MATRIX_TEST_ROLE";
const SEGMENT: &str = "ATOMIC_MATRIX_TEST_SEGMENT";

/// The role of this process and its segment, if it is a child.
pub fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(SEGMENT).ok()?))
}

/// Answers the parent.
pub fn say(what: impl std::fmt::Display) {
    // In one piece, and past the capturing of the test runner.
    let line = format!("{MARK}{what}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// A child, killed when it goes out of scope.
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    answers: Option<Answers>,
}

pub struct Answers(Lines<BufReader<ChildStdout>>);

impl Actor {
    pub fn start(role: &str, segment: &str) -> Self {
        Self::start_with(role, segment, Stdio::piped())
    }

    pub fn start_with(role: &str, segment: &str, input: Stdio) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("has a path"))
            .args(["--exact", "child_entry", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(SEGMENT, segment)
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts a child");
        let input = child.stdin.take();
        let out = child.stdout.take().expect("was piped");
        Self { child, input, answers: Some(Answers(BufReader::new(out).lines())) }
    }

    pub fn tell(&mut self, what: impl std::fmt::Display) {
        writeln!(self.input.as_mut().expect("not hung up"), "{what}").expect("the child listens");
    }

    /// The next answer.
    pub fn answer(&mut self) -> String {
        let answers = self.answers.as_mut().expect("not taken");
        answers.next().expect("the child ended without an answer")
    }

    pub fn ask(&mut self, what: impl std::fmt::Display) -> String {
        self.tell(what);
        self.answer()
    }

    /// Takes both ends of the conversation away, for threads that carry it on.
    pub fn ends(&mut self) -> (ChildStdin, Answers) {
        (self.input.take().expect("not hung up"), self.answers.take().expect("not taken"))
    }

    /// Ends the child's input and waits for the child, which must end well.
    pub fn finish(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "the child ended with {status}");
    }
}

impl Iterator for Answers {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0.by_ref().find_map(|line| {
            let line = line.expect("the child writes text");
            Some(line.split_once(MARK)?.1.to_owned())
        })
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
