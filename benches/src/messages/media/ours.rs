//! AtomicMatrix: a lossless topic of bytes, payloads written and read where they lie.

use anyhow::{Context, Result};
use atomic_matrix::{Matrix, Poster, Reader, Topic, WaitStrategy};
use uuid::Uuid;

use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// Size of the segment, in bytes; what is not used of it takes no memory.
const SEGMENT_BYTES: u64 = 256 << 20;
/// The topic's name.
const TOPIC: &str = "messages";

/// A topic, in a matrix of its own.
pub struct Ours {
    matrix: Matrix,
    id: Uuid,
}

impl Ours {
    /// Opens the topic anew: a forked process cannot use what it inherits.
    fn open(&self) -> Result<Topic<[u8]>> {
        let matrix = Matrix::builder().open(&self.id.to_string());
        let matrix = matrix.context("cannot open the matrix")?;
        matrix.topic::<[u8]>(TOPIC).open().context("cannot open the topic")
    }
}

impl Medium for Ours {
    type Poster = Poster<[u8]>;
    type Reader = Reader<[u8]>;

    fn create(plan: &Plan) -> Result<Self> {
        let matrix = Matrix::builder().size(SEGMENT_BYTES).create(&plan.id.to_string());
        let matrix = matrix.context("cannot create the matrix")?;
        matrix.topic::<[u8]>(TOPIC).capacity(plan.depth as u64).create()?;
        Ok(Self { matrix, id: plan.id })
    }

    fn poster(&mut self, _number: usize) -> Result<Poster<[u8]>> {
        Ok(self.open()?.poster()?)
    }

    fn reader(&mut self, _number: usize) -> Result<Reader<[u8]>> {
        // Whoever measures waits itself; a reader that may sleep costs posters a look.
        Ok(self.open()?.reader().wait(WaitStrategy::YIELD).open()?)
    }

    fn audit(self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.matrix.check().iter().take(3).map(ToString::to_string).collect();
        if let Err(error) = self.matrix.destroy() {
            faults.push(format!("cannot remove the matrix: {error}"));
        }
        faults
    }
}

impl Post for Poster<[u8]> {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        let mut loan = self.loan_bytes(draft.bytes)?;
        draft.write(&mut loan);
        loan.commit()?;
        Ok(())
    }
}

impl Read for Reader<[u8]> {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let Some(message) = self.try_read() else { return Ok(0) };
        look(message.bytes());
        Ok(1)
    }
}
