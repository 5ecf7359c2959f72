//! Bells of a topic's readers: who waits in `poll` or `epoll` is told by a named pipe beside the segment.

use crate::error::TopicError;
use crate::topic::Shared;
use crate::{MessageSet, Reader};
use am_shm::{Bell, Error, Ringer};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where the bells of a topic are, and those that this process rang.
pub(crate) struct Bells {
    segment: PathBuf,
    topic: String,
    /// By the reader's seat.
    ringers: Mutex<HashMap<u32, Ringer>>,
}

impl Bells {
    pub fn new(segment: &Path, topic: &str) -> Self {
        Self { segment: segment.into(), topic: topic.into(), ringers: Mutex::default() }
    }

    /// Becomes who listens at the bell of that seat.
    pub fn listen(&self, seat: u32) -> Result<Bell, Error> {
        Bell::listen(&self.segment, &self.topic, seat)
    }

    /// Rings the bell of that seat; if its reader is dead or gone, there is nobody to tell.
    fn ring(&self, seat: u32) {
        // A thread that panicked in here left a map that is whole.
        let mut ringers = self.ringers.lock().unwrap_or_else(PoisonError::into_inner);
        if ringers.get(&seat).is_some_and(|ringer| ringer.ring().is_ok()) {
            return;
        }
        ringers.remove(&seat);
        // Another reader may have the seat by now, and a bell of its own.
        if let Ok(ringer) = Ringer::open(&self.segment, &self.topic, seat)
            && ringer.ring().is_ok()
        {
            ringers.insert(seat, ringer);
        }
    }
}

impl Shared {
    /// Rings the bells of those who wait for them. Call it after a publication with a full barrier.
    pub fn ring(&self) {
        if let Some(bells) = &self.bells
            && self.berth().disarm()
        {
            self.topic.armed().take().for_each(|seat| bells.ring(seat));
        }
    }
}

impl<S: MessageSet + ?Sized> Reader<S> {
    /// Returns the descriptor that becomes readable when there may be a message, if the reader was opened
    /// [with one](crate::ReaderBuilder::with_bell).
    ///
    /// Before every wait for it, [`arm`](Self::arm) it: only then is it rung.
    #[must_use]
    pub fn bell(&self) -> Option<&Bell> {
        self.bell.as_ref()
    }

    /// Gets ready to wait for the [bell](Self::bell); true when there is nothing to read yet. Otherwise read on,
    /// rather than wait.
    ///
    /// Posters make no system call for a reader that is not armed, and one that wakes it disarms it; so arm it
    /// before each wait. Then wait for no longer than a second: a poster that is killed just after it posted rings
    /// nobody. A reader that follows others or is in a group learns of deaths by the calls that
    /// wait, or by [`recover`](am_matrix::Matrix::recover).
    ///
    /// # Errors
    /// [`TopicError::Bell`] in a child that inherited the reader by fork, [`TopicError::NoBell`] when it has none.
    pub fn arm(&mut self) -> Result<bool, TopicError> {
        let is_there = self.arm_or(|reader| reader.look().map(drop))?.is_some();
        if is_there {
            // It was looked at only.
            self.source.put_off();
        }
        Ok(!is_there)
    }

    /// Gets ready to wait for the bell, unless `look` finds something.
    pub(crate) fn arm_or<T>(
        &mut self,
        look: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, TopicError> {
        let shared = self.shared.clone();
        let bell = self.bell.as_ref();
        let bell = bell.ok_or_else(|| TopicError::NoBell { name: shared.name.clone() })?;
        // First: whoever disarms this reader from here on rings after it.
        bell.drain().map_err(|cause| TopicError::Bell { name: shared.name.clone(), cause })?;
        let seat = self.source.seat_number();
        shared.topic.armed().insert(seat);
        let found = shared.berth().arm(|| look(self));
        if found.is_some() {
            // Nobody need ring.
            shared.topic.armed().remove(seat);
        }
        Ok(found)
    }
}
