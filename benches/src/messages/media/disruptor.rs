//! The crate `disruptor`: events written where they lie in a ring, one by one or in batches, between
//! threads. It cannot leave its process, and marks the ceiling.

use anyhow::{Context, Result};
use disruptor::{
    BusySpin, EventPoller, MultiConsumerBarrier, MultiProducer, MultiProducerBarrier, Polling,
    Producer, SingleConsumerBarrier, SingleProducer, SingleProducerBarrier, build_multi_producer,
    build_single_producer,
};

use crate::ipc::pause;
use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// An event: a payload in the ring.
pub type Event<const BYTES: usize> = [u8; BYTES];

/// A ring; `BATCHED` posters publish many events at once.
pub struct Disruptor<const BYTES: usize, const BATCHED: bool> {
    posters: Vec<Option<RingPoster<BYTES, BATCHED>>>,
    readers: Vec<Option<RingReader<BYTES>>>,
}

impl<const BYTES: usize, const BATCHED: bool> Medium for Disruptor<BYTES, BATCHED> {
    type Poster = RingPoster<BYTES, BATCHED>;
    type Reader = RingReader<BYTES>;

    fn create(plan: &Plan) -> Result<Self> {
        let (depth, event) = (plan.depth.next_power_of_two(), || [0; BYTES]);
        let (posters, readers) = match (plan.posters, plan.readers) {
            (1, 1) => {
                let ring = build_single_producer(depth, event, BusySpin);
                let (reader, ring) = ring.new_event_poller();
                (vec![RingPoster::One(ring.build())], vec![RingReader::OfOne(reader)])
            }
            (1, _) => {
                let ring = build_single_producer(depth, event, BusySpin);
                let (first, ring) = ring.new_event_poller();
                let (second, ring) = ring.new_event_poller();
                let readers = [first, second].map(RingReader::OfOne);
                (vec![RingPoster::OneToMany(ring.build())], readers.into())
            }
            _ => {
                let ring = build_multi_producer(depth, event, BusySpin);
                let (reader, ring) = ring.new_event_poller();
                let posters = vec![ring.build(); plan.posters].into_iter().map(RingPoster::Many);
                (posters.collect(), vec![RingReader::OfMany(reader)])
            }
        };
        Ok(Self {
            posters: posters.into_iter().map(Some).collect(),
            readers: readers.into_iter().map(Some).collect(),
        })
    }

    fn poster(&mut self, number: usize) -> Result<Self::Poster> {
        self.posters[number].take().context("the poster's end is taken")
    }

    fn reader(&mut self, number: usize) -> Result<Self::Reader> {
        let reader = self.readers.get_mut(number).and_then(Option::take);
        reader.context("two posters have one reader here")
    }
}

/// A poster's end: types differ with the number of ends.
pub enum RingPoster<const BYTES: usize, const BATCHED: bool> {
    /// One poster, one reader.
    One(SingleProducer<Event<BYTES>, SingleConsumerBarrier>),
    /// One poster, two readers.
    OneToMany(SingleProducer<Event<BYTES>, MultiConsumerBarrier>),
    /// Two posters, one reader.
    Many(MultiProducer<Event<BYTES>, SingleConsumerBarrier>),
}

#[inline(always)]
fn post_one<const BYTES: usize>(producer: &mut impl Producer<Event<BYTES>>, draft: &Draft) {
    let mut spins = 0;
    while producer.try_publish(|event| draft.write(event)).is_err() {
        pause(&mut spins);
    }
}

#[inline(always)]
fn post_batch<const BYTES: usize>(
    producer: &mut impl Producer<Event<BYTES>>,
    draft: &mut Draft,
    count: u32,
) {
    let mut spins = 0;
    while producer.try_batch_publish(count as usize, |events| write_all(events, draft)).is_err() {
        pause(&mut spins);
    }
}

#[inline(always)]
fn write_all<'e, const BYTES: usize>(
    events: impl Iterator<Item = &'e mut Event<BYTES>>,
    draft: &mut Draft,
) {
    for event in events {
        draft.write(event);
        draft.number += 1;
    }
}

impl<const BYTES: usize, const BATCHED: bool> Post for RingPoster<BYTES, BATCHED> {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        match self {
            Self::One(producer) => post_one(producer, draft),
            Self::OneToMany(producer) => post_one(producer, draft),
            Self::Many(producer) => post_one(producer, draft),
        }
        Ok(())
    }

    #[inline(always)]
    fn post_many(&mut self, draft: &mut Draft, count: u32) -> Result<()> {
        if !BATCHED {
            for _ in 0..count {
                self.post(draft)?;
                draft.number += 1;
            }
            return Ok(());
        }
        match self {
            Self::One(producer) => post_batch(producer, draft, count),
            Self::OneToMany(producer) => post_batch(producer, draft, count),
            Self::Many(producer) => post_batch(producer, draft, count),
        }
        Ok(())
    }
}

/// A reader's end.
pub enum RingReader<const BYTES: usize> {
    /// Of a ring with one poster.
    OfOne(EventPoller<Event<BYTES>, SingleProducerBarrier>),
    /// Of a ring with two.
    OfMany(EventPoller<Event<BYTES>, MultiProducerBarrier>),
}

/// Shows all events that are there.
macro_rules! look_at_all {
    ($poller:expr, $look:expr) => {
        match $poller.poll() {
            Ok(mut events) => {
                let mut count = 0;
                for event in &mut events {
                    $look(&event[..]);
                    count += 1;
                }
                Ok(count)
            }
            Err(Polling::NoEvents | Polling::Shutdown) => Ok(0),
        }
    };
}

impl<const BYTES: usize> Read for RingReader<BYTES> {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        match self {
            Self::OfOne(poller) => look_at_all!(poller, look),
            Self::OfMany(poller) => look_at_all!(poller, look),
        }
    }
}
