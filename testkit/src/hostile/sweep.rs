//! Every word of a topic, alone or a service's, that says something, each with every value that may mislead.

use super::step::{
    AnswerBy, Asking, Begin, Change, Damage, End, Keeping, Operation, Place, Size, Step, Telling,
    TopicWord,
};
use am_topic::telling_wides;

/// The number of the first round of the sweep; those drawn at random are before it.
pub const FIRST: u64 = 1 << 40;
/// Words of a message's header, and the first two of its payload.
const HEADER_WORDS: u64 = 10;
/// Slots whose message is damaged: one that is read, and one that is to be.
const SLOTS: [u8; 2] = [0, 5];
/// Topics that are swept over: the lossless and the lossy one, of the service the first replies and the requests.
const TOPICS: [u8; 4] = [0, 1, 2, 4];
/// Leaves a word as it is.
const AS_IS: Change = Change::Add(0);

/// What becomes of the lower and the upper half of a word.
const VALUES: [[Change; 2]; 20] = [
    [Change::Set(0), Change::Set(0)],
    [Change::Set(1), Change::Set(0)],
    [Change::Set(2), Change::Set(0)],
    [Change::Set(3), Change::Set(0)],
    [Change::Set(128 << 8 | 1), Change::Set(0)],
    [Change::Most(0), Change::Most(0)],
    [Change::Most(1), Change::Most(0)],
    [Change::Most(0), Change::Set(0)],
    [Change::Set(1), Change::Most(0)],
    [Change::Add(1), AS_IS],
    [Change::Add(-1), AS_IS],
    [Change::Number(1), AS_IS],
    [Change::Number(-1), AS_IS],
    [Change::Number(127), AS_IS],
    [Change::Code(0), AS_IS],
    [Change::Code(1), AS_IS],
    [Change::Code(2), AS_IS],
    [Change::Code(65), AS_IS],
    [Change::Code(255), AS_IS],
    [AS_IS, Change::Flip(31)],
];

/// Words that are damaged in each topic: wide ones, the two of sleepers, and those of messages.
fn words() -> u64 {
    telling_wides().count() as u64 + 2 + SLOTS.len() as u64 * HEADER_WORDS
}

/// Returns how many rounds there are: each topic's words with each value.
#[must_use]
pub fn rounds() -> u64 {
    TOPICS.len() as u64 * words() * VALUES.len() as u64
}

/// The steps of one: the topic in use, one word damaged, and every call after it.
#[must_use]
pub fn script(number: u64) -> Vec<Step> {
    let values = VALUES.len() as u64;
    let [low, high] = VALUES[(number % values) as usize];
    let topics = TOPICS.len() as u64;
    let topic = TOPICS[(number / values % topics) as usize];
    let (first, second) = halves(number / values / topics % words());
    let damage = |word, change| Step::Damage(Damage { place: Place::Topic(topic, word), change });
    let mut steps = if topic < 2 { before(topic == 1) } else { before_service() };
    steps.push(damage(first, low));
    steps.extend(second.map(|second| damage(second, high)));
    steps.extend(if topic < 2 { after(topic == 1) } else { after_service() });
    steps
}

/// The lower and the upper half of the word of that number; some have no upper one.
fn halves(number: u64) -> (TopicWord, Option<TopicWord>) {
    let wides = telling_wides().count() as u64;
    match number.checked_sub(wides) {
        None => {
            let number = number as u8;
            (TopicWord::Telling(number, false), Some(TopicWord::Telling(number, true)))
        }
        Some(word @ 0..2) => (TopicWord::Sleep(word == 0), None),
        Some(word) => {
            let (slot, word) = ((word - 2) / HEADER_WORDS, (word - 2) % HEADER_WORDS);
            (TopicWord::Message(SLOTS[slot as usize % SLOTS.len()], word as u8), None)
        }
    }
}

fn post(kind: u8) -> Step {
    Step::Tell(Telling::Post { which: 0, kind, len: 40 })
}

fn read(which: u8, end: End) -> Step {
    Step::Tell(Telling::Read { which, end })
}

/// Two readers, a member of a group and its fellow, a poster; eight messages, some of them looked at and given
/// back. In the lossy topic the oldest slots are used again meanwhile, and readers hold what was there.
fn before(lossy: bool) -> Vec<Step> {
    let reader = Step::Tell(Telling::Reader { lossy, start: Begin::Earliest });
    let member = Step::Tell(Telling::Member { lossy, group: false });
    let mut steps = vec![Step::Tell(Telling::Poster { lossy }), reader, reader, member, member];
    steps.extend((0..8).map(post));
    // The first reader's message, and one member's, are held on; the other gives its message back.
    steps.extend([read(0, End::Forget), read(2, End::Forget), read(3, End::Nack)]);
    if lossy {
        let many = Step::Tell(Telling::PostMany { which: 0, count: 61 });
        steps.extend([many, many]);
    }
    steps
}

fn after(lossy: bool) -> Vec<Step> {
    let tell = |telling| Step::Tell(telling);
    let wait = |which| tell(Telling::ReadTimeout { which, end: End::PutBack });
    let many = |which, end| tell(Telling::ReadMany { which, count: 9, end });
    let mut steps = vec![Step::Do(Operation::Recover)];
    for which in 0..4 {
        steps.extend([tell(Telling::Inquire { which }), wait(which), many(which, End::Done)]);
        steps.extend([read(which, End::Nack), read(which, End::Done)]);
    }
    let post_timeout = |kind| tell(Telling::PostTimeout { which: 0, kind, len: 9 });
    steps.extend([post(0), post_timeout(1), tell(Telling::PostMany { which: 0, count: 130 })]);
    steps.push(tell(Telling::Loan { which: 0, size: Size::Small(30), commits: true }));
    // Others come, by a topic opened anew, and go.
    steps.extend([tell(Telling::OpenTopic { lossy }), tell(Telling::Poster { lossy })]);
    steps.push(tell(Telling::Reader { lossy, start: Begin::Far(u64::MAX) }));
    steps.push(tell(Telling::Follower { leader: 0 }));
    steps.extend([post(2), many(4, End::PutBack), read(5, End::Done)]);
    steps.push(Step::Do(Operation::Die { how: 0 }));
    steps.push(Step::Do(Operation::Recover));
    steps.extend([0, 1, 2].map(|_| tell(Telling::DropReader { which: 1 })));
    steps.push(tell(Telling::CloseGroup { lossy, group: false }));
    steps.extend([post_timeout(2), wait(0), tell(Telling::DropPoster { which: 0 })]);
    steps
}

fn ask(len: u8, waits: bool) -> Step {
    Step::Ask(Asking::Ask { which: 0, len, waits })
}

fn receive(which: u8, waits: bool) -> Step {
    Step::Ask(Asking::Receive { which, waits })
}

fn answer(which: u8, by: AnswerBy) -> Step {
    Step::Ask(Asking::Answer { which, by })
}

fn take(request: u8, waits: bool, end: Keeping) -> Step {
    Step::Ask(Asking::Take { which: 0, request, waits, end })
}

/// A client and two servers; of six requests, in the ring and in blocks, three are answered and one is given back. A
/// server has one in hand, the client looks at a response.
///
/// Whichever server does something is the last one afterwards; so the first of two does each in turn.
fn before_service() -> Vec<Step> {
    let server = Step::Ask(Asking::Server);
    let mut steps = vec![Step::Ask(Asking::Client), server, server];
    steps.extend([40, 90, 40, 90, 40, 90].map(|len| ask(len, false)));
    let (short, long) = (AnswerBy::Value { len: 40 }, AnswerBy::Value { len: 90 });
    for by in [short, long, AnswerBy::GivingBack, short] {
        // The one that received, the last, answers; the other one is the last of both then.
        steps.extend([receive(0, false), answer(1, by)]);
    }
    steps.extend([receive(0, false), take(0, false, Keeping::Keep)]);
    steps
}

fn after_service() -> Vec<Step> {
    let tell = |asking| Step::Ask(asking);
    let mut steps = vec![Step::Do(Operation::Recover)];
    steps.extend([0, 0].map(|which| tell(Asking::Inquire { which })));
    steps.extend([take(0, false, Keeping::Keep), take(0, true, Keeping::Drop)]);
    steps.push(tell(Asking::DropResponse { which: 0, response: 0 }));
    let size = Size::Small(40);
    let loan = AnswerBy::Loan { size, sends: true };
    for by in [AnswerBy::Value { len: 90 }, loan, AnswerBy::Dropping, AnswerBy::GivingBack] {
        // Either server, whichever has one in hand.
        steps.extend([answer(0, by), answer(0, by), receive(0, false), receive(0, true)]);
    }
    steps.extend([answer(0, loan), answer(0, AnswerBy::Forgetting), receive(0, false)]);
    steps.extend([ask(9, true), ask(90, false)]);
    steps.push(tell(Asking::AskByLoan { which: 0, size, sends: true }));
    steps.push(tell(Asking::DropPending { which: 0, request: 1 }));
    // Others come, by a service opened anew, and go.
    steps.extend([Asking::OpenService, Asking::Client, Asking::Server].map(tell));
    steps.extend([receive(0, false), answer(2, loan), take(0, true, Keeping::Forget)]);
    steps.push(Step::Do(Operation::Die { how: 0 }));
    steps.push(Step::Do(Operation::Recover));
    steps.extend([receive(0, true), answer(2, AnswerBy::Value { len: 9 })]);
    steps.extend([0, 0].map(|which| tell(Asking::DropServer { which })));
    steps.extend([ask(9, false), take(0, false, Keeping::Drop)]);
    steps.push(tell(Asking::DropClient { which: 0 }));
    steps
}
