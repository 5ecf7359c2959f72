//! The length of the timed part: a number of seconds, or until a signal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};

const TICK: Duration = Duration::from_millis(50);

/// Set by SIGINT and SIGTERM: the timed part ends, the rest runs as ever.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal cut the timed part short.
pub fn interrupted() -> bool {
    // Relaxed: the flag carries no data.
    INTERRUPTED.load(Ordering::Relaxed)
}

extern "C" fn note_interrupt(_signal: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Makes SIGINT and SIGTERM end the timed part.
pub fn catch_signals() -> Result<()> {
    let handler = SigHandler::Handler(note_interrupt);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which is safe in a handler.
        unsafe { signal::sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Sleeps for the timed part, or until a signal; reports the time gone by now and then.
pub fn wait(seconds: u64, mut report: impl FnMut(Duration)) {
    let begin = Instant::now();
    let end = Duration::from_secs(seconds);
    while begin.elapsed() < end && !interrupted() {
        report(begin.elapsed());
        thread::sleep(TICK.min(end.saturating_sub(begin.elapsed())));
    }
}

/// The same with a progress bar, which shows only on a terminal.
pub fn wait_with_bar(seconds: u64) {
    let bar = ProgressBar::new(seconds.saturating_mul(1000));
    let style = ProgressStyle::with_template("{wide_bar} {elapsed} of {msg} s");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(seconds.to_string());
    wait(seconds, |gone| bar.set_position(gone.as_millis() as u64));
    bar.finish_and_clear();
}
