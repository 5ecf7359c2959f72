//! The kit's own parts: deaths that are no process's are met as such.

use am_testkit::hostile::bed::Bed;
use am_testkit::hostile::play_steps;
use am_testkit::hostile::player::Player;
use am_testkit::hostile::step::{DAMAGES, Operation, Step, script};

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
        for sector in handle.stats().sectors {
            assert_eq!(sector.free_bytes, sector.size_bytes, "how {how}: {sector:?}");
            assert_eq!(sector.free_blocks, 1, "how {how}: {sector:?}");
        }
    }
}

#[test]
fn death_on_a_bed_between_guard_pages_is_recovered() {
    recovers(&Bed::guarded(1 << 20, (40, 30)).unwrap());
}

#[test]
fn death_on_a_bed_in_a_memfd_is_recovered() {
    recovers(&Bed::memfd(1 << 20, (40, 30)).unwrap());
}

#[test]
fn script_without_its_damages_leaves_a_sound_segment() {
    let bed = Bed::guarded(1 << 20, (40, 30)).unwrap();
    let mut damages = 0;
    for round in 0..60 {
        let mut steps = script(7, round);
        damages += steps.iter().filter(|step| matches!(step, Step::Damage(_))).count() as u64;
        steps.retain(|step| matches!(step, Step::Do(_)));
        play_steps(&bed, &steps).unwrap();
        let handle = bed.attach().unwrap();
        assert!(!handle.recover().busy);
        assert_eq!(handle.check(), [], "seed 7, round {round}");
    }
    assert_eq!(damages, 60 * DAMAGES);
}
