//! What a victim does and what is done to it, as plain values: out of a seed, or out of a fuzzer's
//! bytes.

use arbitrary::{Arbitrary, Unstructured};
use fastrand::Rng;

use super::bed::TOPICS;
use super::sweep;

/// Damages of one round: so often is a segment damaged before it is made anew.
pub const DAMAGES: u64 = 8;
/// Operations before the first damage, at most.
const WARM_UP: usize = 24;
/// Operations after each damage, at most.
const BETWEEN: usize = 6;
/// Bytes that the longest step is made of, and some to spare.
const STEP_BYTES: usize = 48;

/// One step of a round.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Step {
    /// The victim calls the allocator.
    Do(Operation),
    /// The victim posts, reads, comes or goes.
    Tell(Telling),
    /// The victim asks, answers, comes or goes.
    Ask(Asking),
    /// Somebody writes where only the allocator may.
    Damage(Damage),
}

/// A call of the victim. `which` picks one of the blocks or offsets it has, modulo their number.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum Operation {
    Allocate {
        size: Size,
    },
    AllocateZeroed {
        size: Size,
    },
    AllocateAligned {
        size: Size,
        shift: u8,
    },
    AllocateOffset {
        size: Size,
    },
    AllocateValue {
        wide: bool,
    },
    AllocateMany {
        count: u8,
        size: Size,
    },
    Drop {
        which: u8,
    },
    Free {
        which: u8,
    },
    FreeMany {
        count: u8,
    },
    IntoOffset {
        which: u8,
    },
    FromOffset {
        which: u8,
    },
    FromForged {
        raw: Raw,
    },
    ValueFromOffset {
        which: u8,
        wide: bool,
    },
    Ack {
        which: u8,
    },
    AckUnshared {
        which: u8,
    },
    Trim,
    AckForged {
        raw: Raw,
    },
    Shrink {
        which: u8,
        size: Size,
    },
    TryGrow {
        which: u8,
        size: Size,
    },
    UsableBytes {
        raw: Raw,
    },
    PayloadPtr {
        raw: Raw,
    },
    Stats,
    Check,
    HeapMap {
        width: u16,
    },
    Participants,
    Recover,
    AttachAnew,
    /// One more participant attaches, and dies with blocks in its hands.
    Die {
        how: u8,
    },
    /// As `Die`; the dead are to be met more often than by one call in thirty.
    DieToo {
        how: u8,
    },
}

/// A call of the victim about messages. `lossy` picks one of the two topics, `which` one of the victim's posters or
/// readers, modulo their number.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum Telling {
    OpenTopic {
        lossy: bool,
    },
    Poster {
        lossy: bool,
    },
    DropPoster {
        which: u8,
    },
    Post {
        which: u8,
        kind: u8,
        len: u8,
    },
    /// As often as all others but `Read`: most of what can go wrong begins with one.
    PostTimeout {
        which: u8,
        kind: u8,
        len: u8,
    },
    PostMany {
        which: u8,
        count: u8,
    },
    Loan {
        which: u8,
        size: Size,
        commits: bool,
    },
    Reader {
        lossy: bool,
        start: Begin,
    },
    Follower {
        leader: u8,
    },
    Member {
        lossy: bool,
        group: bool,
    },
    DropReader {
        which: u8,
    },
    Read {
        which: u8,
        end: End,
    },
    ReadTimeout {
        which: u8,
        end: End,
    },
    ReadMany {
        which: u8,
        count: u8,
        end: End,
    },
    Inquire {
        which: u8,
    },
    CloseGroup {
        lossy: bool,
        group: bool,
    },
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "as in the product")]
pub enum Begin {
    Earliest,
    Latest,
    At(u8),
    Far(u64),
}

/// What becomes of a message that was read.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum End {
    Done,
    PutBack,
    Nack,
    Forget,
}

/// A call of the victim about the service. `which` picks one of its clients or servers, `request` and `response` one of
/// what a client has in hand, modulo their number.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum Asking {
    OpenService,
    Client,
    DropClient { which: u8 },
    Ask { which: u8, len: u8, waits: bool },
    AskByLoan { which: u8, size: Size, sends: bool },
    Take { which: u8, request: u8, waits: bool, end: Keeping },
    DropPending { which: u8, request: u8 },
    DropResponse { which: u8, response: u8 },
    Server,
    DropServer { which: u8 },
    Receive { which: u8, waits: bool },
    Answer { which: u8, by: AnswerBy },
    Inquire { which: u8 },
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after what is done")]
pub enum Keeping {
    Drop,
    Keep,
    Forget,
}

/// How a server ends a request.
#[derive(Clone, Copy, Debug, Arbitrary)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum AnswerBy {
    Value { len: u8 },
    Loan { size: Size, sends: bool },
    GivingBack,
    Dropping,
    Forgetting,
}

/// A payload size.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Size {
    /// Of the small sector, mostly.
    Small(u8),
    /// Up to 64 KiB.
    Any(u16),
    /// Up to 1 MiB, in steps of 4 KiB.
    Large(u8),
    /// Near the largest number.
    Absurd(u8),
}

impl Size {
    /// Returns the size in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Small(n) => usize::from(n) * 3,
            Self::Any(n) => n.into(),
            Self::Large(n) => usize::from(n) << 12,
            Self::Absurd(n) => usize::MAX >> (n % 64),
        }
    }
}

/// An offset out of thin air.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Raw {
    /// Any number.
    Wild(u32),
    /// The start of a granule of a sector, or one unit beside it.
    Granule(u8, u32, i8),
}

/// Somebody else's write into the allocator's own words.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Damage {
    /// Where.
    pub place: Place,
    /// What is written.
    pub change: Change,
}

/// A word that is not the victim's payload. Every number is taken modulo what there is.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Place {
    /// A word of the init guard.
    Guard(u8),
    /// A word of the geometry.
    Geometry(u8),
    /// Any word before the first sector: control words, roster, index, padding …
    Own(u32),
    /// A word between the geometry and the first index.
    Fixed(u16),
    /// A word of the roster's own line, or of one of its first slots.
    Slot(u8, u8),
    /// A word of one of the first lanes of the roster: owner and intents.
    Lane(u8, u8),
    /// A word of a sector's index.
    Index(u8, u32),
    /// One of the first words of a sector's index, where the levels above are.
    IndexTop(u8, u8),
    /// Any granule word of a sector.
    Granule(u8, u32),
    /// The head of a block, by its number in the sector, or a word so many beside it.
    NearHead(u8, u8, Beside),
    /// The head of a block in a thread's cache, by its number among those, or a word so many beside it.
    NearParked(u8, u8, Beside),
    /// Where that block ends, or a word so many beside it.
    NearEnd(u8, u8, Beside),
    /// A word of that block's header.
    Header(u8, u8, u8),
    /// A word of one of the [topics](super::bed::TOPICS).
    Topic(u8, TopicWord),
}

/// A word that has to do with a topic.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum TopicWord {
    /// Half of one of the words that say something while few take part.
    Telling(u8, bool),
    /// Half of any word of the topic.
    Any(u16, bool),
    /// What readers sleep on, or how many sleep.
    Sleep(bool),
    /// A word of a slot.
    Slot(u8, u8),
    /// A word of the header, or of the payload's beginning, of the message that a slot names.
    Message(u8, u8),
}

/// A number of granules beside a place.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Beside {
    /// None.
    Exactly,
    /// A few before or behind.
    Few(i8),
}

impl From<Beside> for i64 {
    fn from(beside: Beside) -> Self {
        match beside {
            Beside::Exactly => 0,
            Beside::Few(n) => i64::from(n / 16),
        }
    }
}

/// What becomes of a word.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Change {
    /// One bit the other way.
    Flip(u8),
    /// Any value.
    Set(u32),
    /// A small number: a slot, a state, a count.
    Small(u8),
    /// All ones, less a small number.
    Most(u8),
    /// A little more or less.
    Add(i8),
    /// Another code in the lowest byte.
    Code(u8),
    /// A number above the lowest byte that is a little higher or lower.
    Number(i8),
    /// A head word of a state (or an illegal one) and a length.
    Head(u8, Length),
    /// A tail word.
    Tail(Length),
    /// What another word of the matrix's own region says.
    CopyOf(u32),
}

/// A length or distance in granules, seen from the damaged word.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Length {
    /// What the word says already.
    Same,
    /// Exactly to the sector's end.
    ToEnd,
    /// So many beyond the sector's end.
    OverEnd(u8),
    /// Back to the sector's origin, and so many further.
    ToOrigin(u8),
    /// As long as a word can say.
    Most,
    /// A few.
    Small(u8),
}

/// What most calls, and damages, of a round are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Blocks,
    Topics,
    Service,
}

impl Subject {
    /// Every other round is about blocks.
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..4) {
            0 => Self::Topics,
            1 => Self::Service,
            _ => Self::Blocks,
        }
    }

    fn call(self, rng: &mut Rng) -> Step {
        match (self, rng.u8(..4)) {
            (Self::Topics, 1..) => Step::Tell(draw(rng)),
            (Self::Service, 1..) => Step::Ask(draw(rng)),
            _ => Step::Do(draw(rng)),
        }
    }

    fn damage(self, rng: &mut Rng) -> Damage {
        let damage: Damage = draw(rng);
        let place = match (self, rng.u8(..4)) {
            (Self::Topics, 1..) => Place::Topic(rng.u8(..2), draw(rng)),
            (Self::Service, 1..) => Place::Topic(rng.u8(2..TOPICS as u8), draw(rng)),
            _ => damage.place,
        };
        Damage { place, ..damage }
    }
}

/// The steps of a round; one of those beyond the [first](sweep::FIRST) of the sweep is that round of the sweep.
#[must_use]
pub fn script(seed: u64, round: u64) -> Vec<Step> {
    if let Some(number) = round.checked_sub(sweep::FIRST) {
        return sweep::script(number);
    }
    let mut rng = Rng::with_seed(mix(seed, round));
    let subject = Subject::draw(&mut rng);
    let mut steps = Vec::new();
    for _ in 0..rng.usize(..=WARM_UP) {
        steps.push(subject.call(&mut rng));
    }
    for _ in 0..DAMAGES {
        steps.push(Step::Damage(subject.damage(&mut rng)));
        for _ in 0..rng.usize(1..=BETWEEN) {
            steps.push(subject.call(&mut rng));
        }
    }
    steps
}

/// A seed of its own for each `number` under one seed.
#[must_use]
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn draw<T: for<'a> Arbitrary<'a>>(rng: &mut Rng) -> T {
    let mut bytes = [0; STEP_BYTES];
    rng.fill(&mut bytes);
    T::arbitrary(&mut Unstructured::new(&bytes)).expect("enough bytes for any step")
}
