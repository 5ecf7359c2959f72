//! iceoryx2: publish and subscribe between processes, slices loaned and sent without copying.

use anyhow::{Result, anyhow};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// A service, made by whoever takes the first end.
pub struct Iceoryx(Plan);

/// A node and the service that it opened.
type Opened = (Node<ipc::Service>, PortFactory<ipc::Service, [u8], ()>);

impl Iceoryx {
    fn open(&self) -> Result<Opened> {
        set_log_level(LogLevel::Error);
        let plan = &self.0;
        let node = NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
        let node = node.create::<ipc::Service>().map_err(refused)?;
        let name = ServiceName::new(&plan.id.to_string()).map_err(refused)?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .max_publishers(plan.posters)
            .max_subscribers(plan.readers)
            .subscriber_max_buffer_size(plan.depth)
            // Lossless, as the others.
            .enable_safe_overflow(false)
            .open_or_create()
            .map_err(refused)?;
        Ok((node, service))
    }
}

/// Makes one of the many error types an error with its words.
fn refused(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("iceoryx2: {error:?}")
}

impl Medium for Iceoryx {
    type Poster = IceoryxPoster;
    type Reader = IceoryxReader;

    fn create(plan: &Plan) -> Result<Self> {
        // Nothing is made before the forks, which iceoryx2 does not provide for.
        Ok(Self(plan.clone()))
    }

    fn poster(&mut self, _number: usize) -> Result<IceoryxPoster> {
        let opened = self.open()?;
        let publisher = opened
            .1
            .publisher_builder()
            .initial_max_slice_len(self.0.bytes)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(refused)?;
        Ok(IceoryxPoster { publisher, _opened: opened })
    }

    fn reader(&mut self, _number: usize) -> Result<IceoryxReader> {
        let opened = self.open()?;
        let subscriber = opened.1.subscriber_builder().create().map_err(refused)?;
        Ok(IceoryxReader { subscriber, _opened: opened })
    }
}

/// A publisher.
pub struct IceoryxPoster {
    publisher: Publisher<ipc::Service, [u8], ()>,
    _opened: Opened,
}

impl Post for IceoryxPoster {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(draft.bytes).map_err(refused)?;
        // SAFETY: shared memory is always initialised, if only with what lay there before.
        let mut sample = unsafe { sample.assume_init() };
        draft.write(sample.payload_mut());
        sample.send().map_err(refused)?;
        Ok(())
    }
}

/// A subscriber.
pub struct IceoryxReader {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    _opened: Opened,
}

impl Read for IceoryxReader {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let Some(sample) = self.subscriber.receive().map_err(refused)? else { return Ok(0) };
        look(sample.payload());
        Ok(1)
    }
}
