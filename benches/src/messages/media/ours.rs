//! AtomicMatrix: a lossless topic of bytes, payloads written and read where they lie.

use anyhow::{Context, Result};
use atomic_matrix::{Matrix, MessageSet, Poster, Reader, Topic, WaitStrategy};
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
    /// Makes the matrix and a topic of that set.
    fn create_of<S: MessageSet + ?Sized>(plan: &Plan) -> Result<Self> {
        let matrix = Matrix::builder().size(SEGMENT_BYTES).create(&plan.id.to_string());
        let matrix = matrix.context("cannot create the matrix")?;
        matrix.topic::<S>(TOPIC).capacity(plan.depth as u64).create()?;
        Ok(Self { matrix, id: plan.id })
    }

    /// Opens the topic anew: a forked process cannot use what it inherits.
    fn open_of<S: MessageSet + ?Sized>(&self) -> Result<Topic<S>> {
        let matrix = Matrix::builder().open(&self.id.to_string());
        let matrix = matrix.context("cannot open the matrix")?;
        matrix.topic::<S>(TOPIC).open().context("cannot open the topic")
    }

    fn open(&self) -> Result<Topic<[u8]>> {
        self.open_of()
    }
}

impl Medium for Ours {
    type Poster = Poster<[u8]>;
    type Reader = Reader<[u8]>;

    fn create(plan: &Plan) -> Result<Self> {
        Self::create_of::<[u8]>(plan)
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

/// The same, posted and read many at a time: a topic of arrays of that length.
pub struct OursBatched<const BYTES: usize>(Ours);

impl<const BYTES: usize> OursBatched<BYTES> {
    fn open(&self) -> Result<Topic<[u8; BYTES]>> {
        self.0.open_of()
    }
}

impl<const BYTES: usize> Medium for OursBatched<BYTES> {
    type Poster = BatchPoster<BYTES>;
    type Reader = BatchReader<BYTES>;

    fn create(plan: &Plan) -> Result<Self> {
        Ok(Self(Ours::create_of::<[u8; BYTES]>(plan)?))
    }

    fn poster(&mut self, _number: usize) -> Result<Self::Poster> {
        Ok(BatchPoster(self.open()?.poster()?))
    }

    fn reader(&mut self, _number: usize) -> Result<Self::Reader> {
        Ok(BatchReader(self.open()?.reader().wait(WaitStrategy::YIELD).open()?))
    }

    fn audit(self) -> Vec<String> {
        self.0.audit()
    }
}

/// A poster whose messages are made where they are read.
pub struct BatchPoster<const BYTES: usize>(Poster<[u8; BYTES]>);

impl<const BYTES: usize> Post for BatchPoster<BYTES> {
    fn post(&mut self, draft: &Draft) -> Result<()> {
        let mut payload = [0; BYTES];
        draft.write(&mut payload);
        self.0.post(&payload)?;
        Ok(())
    }

    #[inline(always)]
    fn post_many(&mut self, draft: &mut Draft, count: u32) -> Result<()> {
        self.0.post_from_fn(count.into(), |_| {
            let mut payload = [0; BYTES];
            draft.write(&mut payload);
            draft.number += 1;
            payload
        })?;
        Ok(())
    }
}

/// A reader that takes many at once.
pub struct BatchReader<const BYTES: usize>(Reader<[u8; BYTES]>);

impl<const BYTES: usize> Read for BatchReader<BYTES> {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let Some(batch) = self.0.try_read_many(BATCH) else { return Ok(0) };
        batch.iter().for_each(|message| look(message.bytes()));
        Ok(batch.len() as u64)
    }
}
