//! What service an operation finds, and what becomes of its requests.

use atomic_matrix::{Matrix, ServiceBuilder};

use crate::accounts::When;
use crate::topic_plot::{Count, GroupPlot};

/// Name of every service.
pub(crate) const NAME: &str = "s";
/// Clients of every service: the survivor, and one that is or was an actor's.
pub(crate) const CLIENTS: usize = 2;

/// What service there is before an operation, and what must be there after it.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The survivor has made the service; else the actor does.
    pub(crate) made: bool,
    /// Requests and responses lie in the rings; else each has a block.
    pub(crate) in_ring: bool,
    /// Requests of the survivor's that nobody had answered when the operation began.
    pub(crate) asked: u64,
    /// What becomes of those: how many actor A is done with, and how often the next one was delivered.
    pub(crate) servers: GroupPlot,
    /// Actor A ends the last of those without a response.
    pub(crate) refuses: bool,
    /// Requests of actor A that it does not answer itself.
    pub(crate) asks: Count,
    /// Requests of actor A that it has answered itself.
    pub(crate) asks_itself: u64,
    /// Requests of actor C, at most, and responses.
    pub(crate) victim: (u64, u64),
    /// Responses of actor B, all of them.
    pub(crate) beside_answers: u64,
    /// Requests, and responses, that were claimed when somebody died, at most.
    pub(crate) claims_max: (u64, u64),
}

impl Plot {
    /// A service in its second turn, with requests in its ring.
    pub(crate) const IN_RING: Self = Self {
        made: true,
        in_ring: true,
        asked: 3,
        servers: GroupPlot::delivers((0, 0)),
        refuses: false,
        asks: Count { before: 0, during: 0 },
        asks_itself: 0,
        victim: (0, 0),
        beside_answers: 0,
        claims_max: (0, 0),
    };
    /// One whose requests and responses have blocks.
    pub(crate) const IN_BLOCKS: Self = Self { in_ring: false, ..Self::IN_RING };
    /// None yet.
    pub(crate) const NONE_YET: Self = Self { made: false, asked: 0, ..Self::IN_RING };

    /// Actor A asks so many, the last `during` by the operation.
    pub(crate) const fn asks(self, before: u64, during: u64) -> Self {
        let claims_max = (during, self.claims_max.1);
        Self { asks: Count { before, during }, claims_max, ..self }
    }

    /// Actor A has asked so many, and answered them itself; nobody else has asked anything.
    pub(crate) const fn asks_itself(self, count: u64) -> Self {
        Self { asked: 0, asks_itself: count, ..self }
    }

    /// Actor A takes the first request, which was delivered so often in vain before the operation and after it.
    pub(crate) const fn delivers(self, before: u8, after: u8) -> Self {
        Self { servers: GroupPlot { attempts: (before, after), ..self.servers }, ..self }
    }

    /// Actor A, which has the first request, answers it.
    pub(crate) const fn answers(self) -> Self {
        let done = Count { before: 0, during: 1 };
        let servers = GroupPlot { done, attempts: (1, 1), ..self.servers };
        Self { servers, claims_max: (self.claims_max.0, 1), ..self }
    }

    /// The survivor has given the first request back.
    pub(crate) const fn returned(self) -> Self {
        Self { servers: GroupPlot { returned: 1, ..self.servers }, ..self }
    }

    /// Actor A's answer is that there is none.
    pub(crate) const fn refuses(self) -> Self {
        Self { refuses: true, ..self.answers() }
    }

    /// Actor C may have asked so many, the last of them by one claim.
    pub(crate) const fn victim_asks(self, count: u64) -> Self {
        Self { victim: (count, self.victim.1), claims_max: (1, self.claims_max.1), ..self }
    }

    /// Actor C, which has the first request, may have answered it.
    pub(crate) const fn victim_answers(self) -> Self {
        let servers = GroupPlot { attempts: (0, 1), ..self.servers };
        Self { victim: (self.victim.0, 1), claims_max: (self.claims_max.0, 1), servers, ..self }
    }

    /// Actor B answers so many.
    pub(crate) const fn beside(self, answers: u64) -> Self {
        Self { beside_answers: answers, ..self }
    }

    /// Requests of the survivor's that may wait for what the dead have in hand, as long as nobody recovers.
    pub(crate) fn waiting_max(&self, when: When) -> u64 {
        let claims = self.claims_max.0 > 0 && (when == When::Amid || self.victim.0 > 0);
        let holds = self.servers.attempts.1 > 0;
        u64::from(claims || holds)
    }

    pub(crate) fn len_bytes(&self) -> usize {
        // The longest that lies in a ring, and longer.
        if self.in_ring { 64 } else { 96 }
    }

    pub(crate) fn builder(&self, matrix: &Matrix) -> ServiceBuilder<[u8], [u8]> {
        matrix.service::<[u8], [u8]>(NAME).clients(CLIENTS).capacity(64).outstanding(64)
    }
}
