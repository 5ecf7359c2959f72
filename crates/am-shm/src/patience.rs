//! Bounded waiting for other processes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(1);
/// Most often that one call begins anew because its file was replaced.
const RESTARTS_MAX: u32 = 1_000;

/// What one call is willing to bear from others.
pub(crate) struct Patience<'a> {
    path: &'a Path,
    start: Instant,
    wait: Duration,
    restarts: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(path: &'a Path, wait: Duration) -> Self {
        Self { path, start: Instant::now(), wait, restarts: 0 }
    }

    /// The segment that is waited for.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// Sleeps for a moment.
    ///
    /// # Errors
    /// [`Error::FormatterStalled`] when the time is up.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        let waited = self.start.elapsed();
        if waited >= self.wait {
            return Err(Error::FormatterStalled { path: self.path.into(), waited });
        }
        std::thread::sleep(POLL.min(self.wait - waited));
        Ok(())
    }

    /// Counts one more beginning from the open on.
    ///
    /// # Errors
    /// [`Error::Unsettled`] when there were too many.
    pub(crate) fn begin_anew(&mut self) -> Result<(), Error> {
        self.restarts += 1;
        match self.restarts > RESTARTS_MAX {
            true => Err(Error::Unsettled { path: self.path.into(), times: self.restarts }),
            false => Ok(()),
        }
    }
}
