//! The operations on readers that wait, which are interrupted at every instruction; see [`ops`](crate::ops).

use crate::acts::{Act, recover};
use crate::ops::Op;
use crate::sleep_acts::{
    arm, drop_with_bell, open_with_bell, ring, ring_again, sleep, wait_for_bell, wake,
};
use crate::stage::Shape;
use crate::topic_plot::Plot;

fn op(name: &str, act: Act, plot: Plot) -> Op {
    Op::new(name, Shape::Topic, "S2", act).plot(plot.naps()).named().stride(2)
}

/// Returns the rows of the table.
pub(crate) fn all(ops: &mut Vec<Op>) {
    let (topic, listened) = (Plot::LOSSLESS, Plot::LOSSLESS.listens());
    ops.extend([
        op("sleep", sleep, topic).dozes(),
        op("wake-dead", wake, topic.posts(0, 1)).after_death_of(sleep, 60),
        op("bell-open", open_with_bell, topic),
        op("bell-arm", arm, topic),
        op("bell-wait", wait_for_bell, topic).dozes(),
        op("bell-drop", drop_with_bell, topic),
        op("ring", ring, listened.posts(0, 1)),
        op("ring-again", ring_again, listened.posts(1, 1)),
        op("ring-dead", ring, topic.posts(0, 1)).after_death_of(arm, 100),
        op("bell-open-after-dead", open_with_bell, topic)
            .after_death_of(arm, 100)
            .thorough_if(true),
    ]);
    for (name, victim, part, thorough) in [
        ("sleep", sleep as Act, 60, false),
        ("bell-open", open_with_bell, 50, true),
        ("bell-arm", arm, 100, true),
        ("bell-drop", drop_with_bell, 50, true),
    ] {
        let op = op(&format!("recover-{name}-{part}"), recover, topic).stride(6);
        ops.push(op.after_death_of(victim, part).thorough_if(thorough));
    }
    let op = op("recover-ring-80", recover, listened.victim(0, 1)).stride(6);
    ops.push(op.after_death_of(ring, 80).thorough_if(true));
}
