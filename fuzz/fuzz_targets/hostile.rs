//! A fuzzer chooses what the victim of `kit hostile` does, and what is done to it.

#![no_main]

use std::cell::OnceCell;

use am_testkit::hostile::bed::Bed;
use am_testkit::hostile::play_steps;
use am_testkit::hostile::step::Step;
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// Made once, made anew for every input.
    static BED: OnceCell<Bed> = const { OnceCell::new() };
}

fuzz_target!(|steps: Vec<Step>| {
    BED.with(|bed| {
        let bed =
            bed.get_or_init(|| Bed::guarded(576 << 10, (40, 30)).expect("memory for a segment"));
        // A panic, a signal or a hang is the fuzzer's to notice.
        play_steps(bed, &steps).expect("what is handed out lies in a sector");
    });
});
