//! AtomicMatrix: a lossless topic of bytes, payloads written and read where they lie.

use anyhow::{Context, Result};
use atomic_matrix::{Matrix, Poster, Reader, Topic, WaitStrategy};
use uuid::Uuid;

use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// Size of the segment, in bytes; what is not used of it takes no memory.
const SEGMENT_BYTES: u64 = 256 << 20;
/// Messages that are posted or read at once.
const BATCH: usize = 64;
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

/// The same, posted and read many at a time.
pub struct OursBatched {
    ours: Ours,
    bytes: usize,
}

impl Medium for OursBatched {
    type Poster = BatchPoster;
    type Reader = BatchReader;

    fn create(plan: &Plan) -> Result<Self> {
        Ok(Self { ours: Ours::create(plan)?, bytes: plan.bytes })
    }

    fn poster(&mut self, number: usize) -> Result<BatchPoster> {
        let payloads = vec![vec![0; self.bytes]; BATCH];
        Ok(BatchPoster { poster: self.ours.poster(number)?, payloads })
    }

    fn reader(&mut self, number: usize) -> Result<BatchReader> {
        Ok(BatchReader(self.ours.reader(number)?))
    }

    fn audit(self) -> Vec<String> {
        self.ours.audit()
    }
}

/// A poster that copies its messages into the segment.
pub struct BatchPoster {
    poster: Poster<[u8]>,
    payloads: Vec<Vec<u8>>,
}

impl Post for BatchPoster {
    fn post(&mut self, draft: &Draft) -> Result<()> {
        let payload = &mut self.payloads[0];
        draft.write(payload);
        self.poster.post(&payload[..])?;
        Ok(())
    }

    #[inline(always)]
    fn post_many(&mut self, draft: &mut Draft, count: u32) -> Result<()> {
        let mut left = count as usize;
        while left > 0 {
            let batch = &mut self.payloads[..left.min(BATCH)];
            for payload in batch.iter_mut() {
                draft.write(payload);
                draft.number += 1;
            }
            self.poster.post_many(batch.iter().map(|payload| &payload[..]))?;
            left -= batch.len();
        }
        Ok(())
    }
}

/// A reader that takes many at once.
pub struct BatchReader(Reader<[u8]>);

impl Read for BatchReader {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let Some(batch) = self.0.try_read_many(BATCH) else { return Ok(0) };
        batch.iter().for_each(|message| look(message.bytes()));
        Ok(batch.len() as u64)
    }
}
