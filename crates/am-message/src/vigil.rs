//! Waiting: until when, and when to ask who is dead.

use am_matrix::Matrix;
use std::time::{Duration, Instant};

/// How often who waits for others asks whether they are dead.
pub(crate) const RECOVERY_EVERY: Duration = Duration::from_millis(100);
/// Looks in vain between two looks at the clock.
const LOOKS: u32 = 1024;

/// When such a timeout is over; a time that no clock reaches is none.
pub(crate) fn until(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Lets who depends on others ask now and then who is dead, however short its waits are: time counts across calls.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    looks: u32,
    /// When it asked last, or first depended on others.
    asked: Option<Instant>,
}

impl Vigil {
    /// Tells when it is time to ask.
    pub fn due(&mut self) -> Instant {
        *self.asked.get_or_insert_with(Instant::now) + RECOVERY_EVERY
    }

    /// After a wait in vain: asks, if it is time.
    pub fn wait(&mut self, matrix: &Matrix) {
        if Instant::now() >= self.due() {
            matrix.recover();
            // Afterwards: a recovery may take long.
            self.asked = Some(Instant::now());
        }
    }

    /// After a look in vain.
    #[cold]
    pub fn look(&mut self, matrix: &Matrix) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS) {
            self.wait(matrix);
        }
    }
}
