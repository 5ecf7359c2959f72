//! Random operations on one topic, deaths among them, compared with a plain history of what was posted.
#![cfg(not(loom))]

mod heap;
mod player;

use am_topic::Flow;
use player::Player;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// How far the dead came with a number that it claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Marked,
    Taken,
    Forgotten,
    Told,
    LetGo,
}

/// What becomes of a number that was claimed.
#[derive(Clone, Copy, Debug)]
enum Act {
    Publish,
    /// Dropped as it was claimed.
    Drop,
    /// Dropped when the old message was taken back.
    DropLater,
}

/// One step; `who` picks among those that there are, if there are any.
#[derive(Clone, Debug)]
enum Step {
    JoinPoster,
    LeavePoster {
        who: usize,
    },
    Post {
        who: usize,
        acts: Vec<Act>,
    },
    Collect {
        who: usize,
    },
    /// A poster dies with a batch, of which it had finished some.
    DiePosting {
        who: usize,
        acts: Vec<Act>,
        more: u64,
        stage: Stage,
    },
    DieCollecting {
        who: usize,
        taken: bool,
    },
    JoinReader {
        start: u64,
    },
    LeaveReader {
        who: usize,
    },
    Read {
        who: usize,
        count: usize,
    },
    Hold {
        who: usize,
    },
    LetGo {
        who: usize,
        again: bool,
    },
    /// Looks ahead, and goes on by what it saw.
    Skip {
        who: usize,
        count: u64,
    },
    /// A reader dies, with what it holds.
    DieReading {
        who: usize,
    },
    Recover,
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![8 => Just(Act::Publish), 1 => Just(Act::Drop), 1 => Just(Act::DropLater)];
    prop::collection::vec(act, 1..=most)
}

fn step() -> impl Strategy<Value = Step> {
    let who = any::<usize>;
    let stage = prop::sample::select(vec![
        Stage::Marked,
        Stage::Taken,
        Stage::Forgotten,
        Stage::Told,
        Stage::LetGo,
    ]);
    prop_oneof![
        2 => Just(Step::JoinPoster),
        1 => who().prop_map(|who| Step::LeavePoster { who }),
        8 => (who(), acts(70)).prop_map(|(who, acts)| Step::Post { who, acts }),
        4 => (who(), acts(1)).prop_map(|(who, acts)| Step::Post { who, acts }),
        2 => who().prop_map(|who| Step::Collect { who }),
        1 => (who(), acts(5), 0..50u64, stage)
            .prop_map(|(who, acts, more, stage)| Step::DiePosting { who, acts, more, stage }),
        1 => (who(), any::<bool>()).prop_map(|(who, taken)| Step::DieCollecting { who, taken }),
        2 => (0..300u64).prop_map(|start| Step::JoinReader { start }),
        1 => who().prop_map(|who| Step::LeaveReader { who }),
        6 => (who(), 1..100usize).prop_map(|(who, count)| Step::Read { who, count }),
        3 => who().prop_map(|who| Step::Hold { who }),
        3 => (who(), any::<bool>()).prop_map(|(who, again)| Step::LetGo { who, again }),
        2 => (who(), 1..100u64).prop_map(|(who, count)| Step::Skip { who, count }),
        1 => who().prop_map(|who| Step::DieReading { who }),
        2 => Just(Step::Recover),
    ]
}

fn play(flow: Flow, steps: &[Step]) {
    let ring = heap::Ring::new(flow);
    let heap = heap::Heap::default();
    let mut player = Player::new(ring.topic(), &heap);
    for step in steps {
        player.play(step);
        heap.assert_nobodys(&player.nobodys());
    }
    player.end();
}

/// 100 runs per property, or as many as `PROPTEST_CASES` says. The seed of a failure is printed and kept
/// beside the test, where the next run begins with it.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { 100 };
    let seeds = Some(Box::new(FileFailurePersistence::WithSource("seeds")) as _);
    ProptestConfig { cases, failure_persistence: seeds, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lossless_topic_agrees_with_the_history(steps in prop::collection::vec(step(), 1..200)) {
        play(Flow::Lossless, &steps);
    }

    #[test]
    fn lossy_topic_agrees_with_the_history(steps in prop::collection::vec(step(), 1..200)) {
        play(Flow::Lossy, &steps);
    }
}
