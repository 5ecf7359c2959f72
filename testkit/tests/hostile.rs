//! The kit's own parts: deaths that are no process's are met as such.

use std::collections::BTreeSet;

use am_testkit::hostile::bed::Bed;
use am_testkit::hostile::play_steps;
use am_testkit::hostile::player::Player;
use am_testkit::hostile::step::{DAMAGES, Operation, Step, script};
use am_testkit::hostile::sweep;

fn recovers(bed: &Bed) {
    for how in (0..=u8::MAX).step_by(5) {
        bed.reset();
        let handle = bed.attach().unwrap();
        let handles = [bed.attach().unwrap()];
        let mut player = Player::new(bed, &handles);
        player.perform(Operation::Die { how }).unwrap();
        drop(player);
        let recovery = handle.recover();
        assert_eq!(recovery.dead.len(), 1, "how {how}: {recovery:?}");
        assert_eq!((recovery.deferred, recovery.busy), (0, false), "how {how}");
        let limbo = usize::from(how & 3 != 0);
        assert_eq!(recovery.limbo.len(), limbo, "how {how}: {recovery:?}");
        assert_eq!(recovery.blocks + limbo as u64, 5, "how {how}: {recovery:?}");
        // Three were freed; a refill carves some beside them.
        assert!(recovery.cached >= 3, "how {how}: {recovery:?}");
        assert_eq!(recovery.cached, recovery.dead[0].cached_blocks, "how {how}");
        assert_eq!(handle.check(), [], "how {how}");
        // It posted in both topics, read, and was a member in each; it asked in the service, and was a server, who posts
        // to both clients.
        assert_eq!((recovery.posters, recovery.readers), (5, 6), "how {how}: {recovery:?}");
        let sectors = handle.stats().sectors;
        for sector in &sectors {
            let sum = sector.free_bytes + sector.common_bytes;
            assert_eq!(sum, sector.size_bytes, "how {how}: {sector:?}");
        }
        // Both topics, the service, and a message in the lossy topic; what else there is lies in rings.
        let commons: u64 = sectors.iter().map(|sector| sector.common_blocks).sum();
        assert_eq!(commons, 4, "how {how}: {sectors:?}");
    }
}

#[test]
fn death_on_a_bed_between_guard_pages_is_recovered() {
    recovers(&Bed::guarded(2 << 20, (40, 30)).unwrap());
}

#[test]
fn death_on_a_bed_in_a_memfd_is_recovered() {
    recovers(&Bed::memfd(2 << 20, (40, 30)).unwrap());
}

#[test]
fn script_without_its_damages_leaves_a_sound_segment() {
    let bed = Bed::guarded(2 << 20, (40, 30)).unwrap();
    let mut damages = 0;
    for round in 0..60 {
        let mut steps = script(7, round);
        damages += steps.iter().filter(|step| matches!(step, Step::Damage(_))).count() as u64;
        steps.retain(|step| !matches!(step, Step::Damage(_)));
        play_steps(&bed, &steps).unwrap();
        let handle = bed.attach().unwrap();
        assert!(!handle.recover().busy);
        assert_eq!(handle.check(), [], "seed 7, round {round}");
    }
    assert_eq!(damages, 60 * DAMAGES);
}

#[test]
fn sweep_without_its_damages_posts_and_reads_asks_and_answers() {
    let bed = Bed::guarded(576 << 10, (40, 30)).unwrap();
    for number in 0..sweep::rounds() {
        let steps = sweep::script(number);
        let damages = steps.iter().filter(|step| matches!(step, Step::Damage(_))).count();
        assert!((1..=2).contains(&damages), "round {number}: {damages}");
    }
    // A round of the lossless topic and one of the lossy one, one of a service's replies and one of its requests.
    for number in [0, 20, 40, 60] {
        bed.reset();
        let handles = [bed.attach().unwrap(), bed.attach().unwrap()];
        let mut player = Player::new(&bed, &handles);
        for step in sweep::script(number) {
            match step {
                Step::Do(operation) => player.perform(operation).unwrap(),
                Step::Tell(telling) => player.tell(telling).unwrap(),
                Step::Ask(asking) => player.ask(asking).unwrap(),
                Step::Damage(_) => {}
            }
        }
        let calls = player.calls;
        // Who reads to the end finds nothing more now and then.
        assert!(calls.made > 60 && calls.refused * 3 < calls.made, "round {number}: {calls:?}");
    }
}

#[test]
fn telling_words_of_a_topic_are_all_different_and_its_own() {
    let words: BTreeSet<usize> = am_topic::telling_wides().collect();
    assert_eq!(words.len(), am_topic::telling_wides().count());
    // Eight slots of four words are the last ones.
    assert_eq!(words.last(), Some(&(am_topic::WIDES_FIXED + 8 * 4 - 1)));
}
