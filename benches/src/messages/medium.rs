//! What a way for messages has to offer to be measured, and what is sent over it.

use anyhow::Result;
use uuid::Uuid;

use crate::ipc;

/// The most posters, and the most readers, of one medium.
pub const ENDS_MAX: usize = 2;
/// Bytes of a payload that say whose message it is and which; the smallest payload has more.
const HEAD_BYTES: usize = 8;
/// Bits of the head that hold the number; the poster stands above them.
const NUMBER_BITS: u32 = 56;

/// What a medium is made for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names it.
    pub id: Uuid,
    /// Posters, 1 to [`ENDS_MAX`].
    pub posters: usize,
    /// Readers, 1 to [`ENDS_MAX`], each of which sees every message.
    pub readers: usize,
    /// Bytes of every message.
    pub bytes: usize,
    /// Messages that may be on their way to a reader, about.
    pub depth: usize,
}

/// A way for messages of one length from posters to readers.
///
/// It is made in one process. The ends are taken where they are used: in processes forked from that
/// one, each of which drops the rest of it then; or in the same one, to be given to threads.
pub trait Medium: Sized {
    /// A poster's end.
    type Poster: Post;
    /// A reader's end.
    type Reader: Read;
    /// Whether a reader waits in the kernel, until the posters' ends are closed. If not, those stay
    /// until all is read.
    const ENDS_BY_CLOSING: bool = false;

    /// Makes it.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn create(plan: &Plan) -> Result<Self>;

    /// Takes the end of poster `number`, from 0.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn poster(&mut self, number: usize) -> Result<Self::Poster>;

    /// Takes the end of reader `number`, from 0.
    ///
    /// # Errors
    /// The peer's own refusal.
    fn reader(&mut self, number: usize) -> Result<Self::Reader>;

    /// Closes, in the process that made it, what keeps ends in forked processes open.
    fn forked(&mut self) {}

    /// Removes it; lists what is wrong with it when all ends are gone.
    fn audit(self) -> Vec<String> {
        Vec::new()
    }
}

/// A poster's end.
pub trait Post {
    /// Sends a message; waits for room.
    ///
    /// # Errors
    /// When it cannot be sent.
    fn post(&mut self, draft: &Draft) -> Result<()>;

    /// Sends `count` messages from `draft` on, and moves it on; in batches where the peer is to.
    ///
    /// # Errors
    /// As [`Self::post`].
    #[inline(always)]
    fn post_many(&mut self, draft: &mut Draft, count: u32) -> Result<()> {
        for _ in 0..count {
            self.post(draft)?;
            draft.number += 1;
        }
        Ok(())
    }
}

/// A reader's end.
pub trait Read {
    /// Shows the messages that are there, or the first of them, to `look`; returns how many.
    ///
    /// # Errors
    /// When the medium is broken.
    fn read(&mut self, look: impl FnMut(&[u8])) -> Result<u64>;
}

/// A message to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its poster, from 0.
    pub poster: usize,
    /// How many that poster sent before it.
    pub number: u64,
    /// Its length in bytes.
    pub bytes: usize,
    /// Whether anything is written.
    pub touched: bool,
}

impl Draft {
    /// Writes all of the payload, if it is to be touched.
    #[inline(always)]
    pub fn write(&self, payload: &mut [u8]) {
        if !self.touched {
            return;
        }
        let tag = (self.poster as u64) << NUMBER_BITS | self.number;
        let (head, rest) = payload.split_at_mut(HEAD_BYTES);
        head.copy_from_slice(&tag.to_ne_bytes());
        ipc::fill(rest, tag);
    }
}

/// What a reader found wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Numbers that never came.
    pub lost: u64,
    /// Numbers that came when a later one had come already.
    pub repeated: u64,
    /// Payloads that are not what was written.
    pub corrupted: u64,
}

impl Wrong {
    /// Adds what another found.
    pub fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            repeated: self.repeated + other.repeated,
            corrupted: self.corrupted + other.corrupted,
        }
    }
}

/// What a reader expects.
#[derive(Clone, Debug)]
pub struct Checker {
    bytes: usize,
    touched: bool,
    next: [u64; ENDS_MAX],
    wrong: Wrong,
}

impl Checker {
    /// Expects messages of `bytes` bytes, from the first of every poster on.
    pub fn new(bytes: usize, touched: bool) -> Self {
        Self { bytes, touched, next: [0; ENDS_MAX], wrong: Wrong::default() }
    }

    /// Checks the length of a message; its sequence and all of its payload, if they were written.
    #[inline(always)]
    pub fn look(&mut self, payload: &[u8]) {
        if payload.len() != self.bytes {
            self.wrong.corrupted += 1;
            return;
        }
        if !self.touched {
            return;
        }
        let (head, rest) = payload.split_at(HEAD_BYTES);
        let tag = head.try_into().map_or(u64::MAX, u64::from_ne_bytes);
        let next = self.next.get_mut((tag >> NUMBER_BITS) as usize);
        let Some(next) = next.filter(|_| ipc::is_intact(rest, tag)) else {
            self.wrong.corrupted += 1;
            return;
        };
        let number = tag & ((1 << NUMBER_BITS) - 1);
        if number < *next {
            self.wrong.repeated += 1;
            return;
        }
        self.wrong.lost += number - *next;
        *next = number + 1;
    }

    /// Returns what was found wrong, when `received` messages came of `sent`.
    pub fn finish(&self, received: u64, sent: u64) -> Wrong {
        // Those at the end leave no gap.
        Wrong { lost: self.wrong.lost.max(sent.saturating_sub(received)), ..self.wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 64;

    fn message(poster: usize, number: u64) -> [u8; BYTES] {
        let mut payload = [0; BYTES];
        Draft { poster, number, bytes: BYTES, touched: true }.write(&mut payload);
        payload
    }

    fn wrong(messages: &[[u8; BYTES]]) -> Wrong {
        let mut checker = Checker::new(BYTES, true);
        messages.iter().for_each(|message| checker.look(message));
        checker.wrong
    }

    #[test]
    fn checker_sees_nothing_wrong_in_two_posters_orders_mixed() {
        let messages = [message(0, 0), message(1, 0), message(1, 1), message(0, 1)];
        assert_eq!(wrong(&messages), Wrong::default());
    }

    #[test]
    fn checker_counts_gaps_repetitions_and_any_changed_byte() {
        assert_eq!(wrong(&[message(0, 0), message(0, 3)]).lost, 2);
        assert_eq!(wrong(&[message(0, 0), message(0, 0)]).repeated, 1);
        for byte in 0..BYTES {
            let mut changed = message(0, 0);
            changed[byte] ^= 0x40;
            assert_eq!(wrong(&[changed]).corrupted, 1, "byte {byte}");
        }
    }

    #[test]
    fn checker_counts_what_is_missing_at_the_end() {
        assert_eq!(Checker::new(BYTES, false).finish(7, 9).lost, 2);
    }
}
