//! Queues between threads, which hold messages by value: crossbeam's ArrayQueue and bounded channel,
//! and rtrb. They cannot leave their process, and mark the ceiling.

use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use crossbeam_queue::ArrayQueue;

use crate::ipc::pause;
use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// A payload that is moved into the queue and out of it.
pub type Payload<const BYTES: usize> = [u8; BYTES];

/// A queue of one reader.
pub trait Queue<T>: Sized {
    /// Where messages go in.
    type In;
    /// Where they come out.
    type Out;

    /// Makes one for `depth` messages, with as many places to go in as there are posters; `None` when
    /// it takes fewer.
    fn create(posters: usize, depth: usize) -> Option<(Vec<Self::In>, Self::Out)>;

    /// Puts a message in; gives it back when there is no room.
    fn put(into: &mut Self::In, message: T) -> Result<(), T>;

    /// Takes the oldest message out.
    fn take(from: &mut Self::Out) -> Option<T>;
}

/// crossbeam's ArrayQueue.
pub struct Array;

impl<T> Queue<T> for Array {
    type In = Arc<ArrayQueue<T>>;
    type Out = Arc<ArrayQueue<T>>;

    fn create(posters: usize, depth: usize) -> Option<(Vec<Self::In>, Self::Out)> {
        let queue = Arc::new(ArrayQueue::new(depth));
        Some((vec![queue.clone(); posters], queue))
    }

    #[inline(always)]
    fn put(into: &mut Self::In, message: T) -> Result<(), T> {
        into.push(message)
    }

    #[inline(always)]
    fn take(from: &mut Self::Out) -> Option<T> {
        from.pop()
    }
}

/// crossbeam's bounded channel.
pub struct Channel;

impl<T> Queue<T> for Channel {
    type In = Sender<T>;
    type Out = Receiver<T>;

    fn create(posters: usize, depth: usize) -> Option<(Vec<Self::In>, Self::Out)> {
        let (sender, receiver) = crossbeam_channel::bounded(depth);
        Some((vec![sender; posters], receiver))
    }

    #[inline(always)]
    fn put(into: &mut Self::In, message: T) -> Result<(), T> {
        into.try_send(message).map_err(TrySendError::into_inner)
    }

    #[inline(always)]
    fn take(from: &mut Self::Out) -> Option<T> {
        from.try_recv().ok()
    }
}

/// rtrb: one poster, one reader.
pub struct Rtrb;

impl<T> Queue<T> for Rtrb {
    type In = rtrb::Producer<T>;
    type Out = rtrb::Consumer<T>;

    fn create(posters: usize, depth: usize) -> Option<(Vec<Self::In>, Self::Out)> {
        let (producer, consumer) = rtrb::RingBuffer::new(depth);
        (posters == 1).then(|| (vec![producer], consumer))
    }

    #[inline(always)]
    fn put(into: &mut Self::In, message: T) -> Result<(), T> {
        into.push(message).map_err(|rtrb::PushError::Full(message)| message)
    }

    #[inline(always)]
    fn take(from: &mut Self::Out) -> Option<T> {
        from.pop().ok()
    }
}

/// A queue `Q` for every reader; posters put a copy in each.
pub struct Queues<Q: Queue<Payload<BYTES>>, const BYTES: usize> {
    /// By posters, then by readers.
    ins: Vec<Vec<Q::In>>,
    outs: Vec<Option<Q::Out>>,
}

impl<Q: Queue<Payload<BYTES>>, const BYTES: usize> Medium for Queues<Q, BYTES> {
    type Poster = QueuePoster<Q, BYTES>;
    type Reader = QueueReader<Q, BYTES>;

    fn create(plan: &Plan) -> Result<Self> {
        let mut queues = Self { ins: Vec::new(), outs: Vec::new() };
        queues.ins.resize_with(plan.posters, Vec::new);
        for _ in 0..plan.readers {
            let made = Q::create(plan.posters, plan.depth);
            let (ins, out) = made.context("the queue does not take so many posters")?;
            queues.ins.iter_mut().zip(ins).for_each(|(all, one)| all.push(one));
            queues.outs.push(Some(out));
        }
        Ok(queues)
    }

    fn poster(&mut self, number: usize) -> Result<Self::Poster> {
        Ok(QueuePoster { ins: std::mem::take(&mut self.ins[number]), _payload: PhantomData })
    }

    fn reader(&mut self, number: usize) -> Result<Self::Reader> {
        let out = self.outs[number].take().context("the reader's end is taken")?;
        Ok(QueueReader { out, _payload: PhantomData })
    }
}

/// A poster's ends of all queues.
pub struct QueuePoster<Q: Queue<Payload<BYTES>>, const BYTES: usize> {
    ins: Vec<Q::In>,
    _payload: PhantomData<Payload<BYTES>>,
}

impl<Q: Queue<Payload<BYTES>>, const BYTES: usize> Post for QueuePoster<Q, BYTES> {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        let mut payload = [0; BYTES];
        draft.write(&mut payload);
        for into in &mut self.ins {
            let (mut message, mut spins) = (payload, 0);
            while let Err(back) = Q::put(into, message) {
                message = back;
                pause(&mut spins);
            }
        }
        Ok(())
    }
}

/// A reader's end of its queue.
pub struct QueueReader<Q: Queue<Payload<BYTES>>, const BYTES: usize> {
    out: Q::Out,
    _payload: PhantomData<Payload<BYTES>>,
}

impl<Q: Queue<Payload<BYTES>>, const BYTES: usize> Read for QueueReader<Q, BYTES> {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let Some(message) = Q::take(&mut self.out) else { return Ok(0) };
        look(&message);
        Ok(1)
    }
}
