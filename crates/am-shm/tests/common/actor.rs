//! Children that act a role.
//!
//! A child is the very test binary, started anew to run its test `child_acts_its_role` alone. It
//! gets its role from the environment, and answers on standard error in lines that begin with
//! [`MARK`].

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use am_shm::Place;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Scratch, skip};

const MARK: &str = "am-shm-child:";

/// The child's role and place; `None`, with a notice, when nobody started it as a child.
pub fn role() -> Option<(String, Place)> {
    let Ok(role) = env::var("AM_SHM_ROLE") else {
        skip("child_acts_its_role", "no role was given");
        return None;
    };
    Some((role, Place::Path(env::var_os("AM_SHM_PATH").unwrap_or_default().into())))
}

/// Answers, as a child.
pub fn say(what: &str) {
    eprintln!("{MARK}{what}");
}

/// A child, killed when it goes out of scope.
pub struct Actor {
    child: Child,
    answers: BufReader<std::process::ChildStderr>,
}

impl Actor {
    pub fn start(role: &str, scratch: &Scratch, input: Stdio) -> Self {
        let mut child = Command::new(env::current_exe().expect("has a path"))
            .args(["--exact", "child_acts_its_role", "--ignored", "--nocapture"])
            .env("AM_SHM_ROLE", role)
            .env("AM_SHM_PATH", scratch.path())
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts a child");
        let answers = BufReader::new(child.stderr.take().expect("was piped"));
        Self { child, answers }
    }

    /// The next answer; panics with everything else the child said when it ends without one.
    pub fn answer(&mut self) -> String {
        let mut other = String::new();
        for line in self.answers.by_ref().lines() {
            let line = line.expect("the child writes text");
            match line.split_once(MARK) {
                Some((_, answer)) => return answer.to_owned(),
                None => other += &(line + "\n"),
            }
        }
        panic!("the child ended without an answer:\n{other}");
    }

    #[track_caller]
    pub fn expect(&mut self, answer: &str) {
        assert_eq!(self.answer(), answer);
    }

    /// Ends the child's standard input: the start of a race.
    pub fn go(&mut self) {
        drop(self.child.stdin.take());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("tells").is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the child is there");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("is a pid"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
