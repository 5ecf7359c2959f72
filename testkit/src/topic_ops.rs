//! The operations on topics that are interrupted at every instruction; see [`ops`](crate::ops).

use crate::acts::{Act, recover};
use crate::ops::{Op, pair};
use crate::stage::Shape;
use crate::topic_acts::{
    BATCH, close_group, create, done, drop_poster, drop_reader, follow, join_group, leave,
    leave_into_full, loan_and_commit, loan_and_drop, nack, nack_into_full, open, open_follower,
    open_poster, open_reader, post, post_first, post_into_full, post_longer, post_many, put_back,
    read, read_many, take,
};
use crate::topic_plot::{Count, GroupPlot, Holds, Plot};

/// The survivor holds a block beside the topic's.
const LAYOUT: &str = "S2";
/// Messages of a batch, as a number of messages.
const MANY: u64 = BATCH as u64;

fn op(name: &str, act: Act, plot: Plot) -> Op {
    Op::new(name, Shape::Topic, LAYOUT, act).plot(plot)
}

/// Returns the rows of the table.
pub(crate) fn all(ops: &mut Vec<Op>) {
    posts(ops);
    reads(ops);
    groups(ops);
    recoveries(ops);
}

fn posts(ops: &mut Vec<Op>) {
    let (lossless, lossy, in_ring) = (Plot::LOSSLESS, Plot::LOSSY, Plot::IN_RING);
    ops.extend([
        // It writes every word of the topic.
        op("create", create, Plot::NONE_YET).thorough_if(true),
        op("open", open, lossless),
        op("open-poster", open_poster, lossless),
        op("drop-poster", drop_poster, lossless.posts(1, 0)),
        op("post", post, lossless.posts(1, 1)),
        op("post-longer", post_longer, lossless.posts(1, 1)),
        op("post-first", post_first, lossless.posts(0, 1)),
        op("post-into-fresh-slot", post, Plot::FRESH.posts(1, 1)),
        op("post-into-full", post_into_full, Plot::FULL),
        op("loan-commit", loan_and_commit, lossless.posts(1, 1)),
        op("loan-drop", loan_and_drop, lossless.posts(1, 0)),
        op("post-many", post_many, lossless.posts(1, MANY)),
        op("ring-post", post, in_ring.posts(1, 1)),
        op("ring-post-longer", post_longer, in_ring.posts(1, 1)),
        op("ring-post-many", post_many, in_ring.posts(1, MANY)),
        op("lossy-post", post, lossy.posts(1, 1)),
        op("lossy-post-many", post_many, lossy.posts(1, MANY)),
        op("overrun", post_first, lossy.holds(Holds::Next).posts(0, 1)),
        op("collect", post_first, lossy.holds(Holds::Orphan).posts(0, 1)),
    ]);
}

fn reads(ops: &mut Vec<Op>) {
    let (lossless, lossy) = (Plot::LOSSLESS, Plot::LOSSY);
    ops.extend([
        op("open-reader", open_reader, lossless),
        op("drop-reader", drop_reader, lossless),
        op("read", read, lossless),
        op("read-many", read_many, lossless),
        op("put-back", put_back, lossless),
        op("ring-read", read, Plot::IN_RING),
        op("ring-read-many", read_many, Plot::IN_RING),
        op("lossy-open-reader", open_reader, lossy).thorough_if(true),
        op("lossy-drop-reader", drop_reader, lossy),
        op("lossy-read", read, lossy),
        op("lossy-put-back", put_back, lossy),
        op("open-follower", open_follower, lossless),
        op("follow", follow, lossless),
        op("lead", read, lossless.leads()),
    ]);
}

/// A group of which the survivor is a member, too.
fn groups(ops: &mut Vec<Op>) {
    let group = |attempts| Plot::LOSSLESS.group(GroupPlot::delivers(attempts));
    let opened = GroupPlot { survivor_joins: false, ..GroupPlot::delivers((0, 0)) };
    let is_done = Count { before: 0, during: 1 };
    let ends = GroupPlot { done: is_done, ..GroupPlot::delivers((1, 1)) };
    let again = GroupPlot { returned: 1, ..GroupPlot::delivers((1, 2)) };
    let full = Plot::LOSSLESS.joined(80).group(GroupPlot::gives_back_all((1, 1)));
    ops.extend([
        op("nack-into-full", nack_into_full, full),
        op("leave-into-full", leave_into_full, full),
        op("open-group", join_group, Plot::LOSSLESS.group(opened)),
        op("close-group", close_group, Plot::LOSSLESS.group(opened)),
        op("join-group", join_group, group((0, 0))),
        op("take", take, group((0, 1))),
        op("take-returned", take, Plot::LOSSLESS.group(again)),
        op("done", done, Plot::LOSSLESS.group(ends)),
        op("nack", nack, group((1, 1))),
        op("leave", leave, group((1, 1))),
        op("lossy-take", take, Plot::LOSSY.group(GroupPlot::delivers((0, 1)))),
    ]);
}

/// Recovery after a death in the middle of an operation; it is killed itself.
fn recoveries(ops: &mut Vec<Op>) {
    let (lossless, lossy) = (Plot::LOSSLESS, Plot::LOSSY);
    let group = lossless.group(GroupPlot::delivers((0, 1)));
    let again = lossless.group(GroupPlot { returned: 1, ..GroupPlot::delivers((1, 2)) });
    let full = lossless.joined(80).group(GroupPlot::gives_back_all((0, 1)));
    for (name, victim, plot, parts) in [
        ("post", post as Act, lossless.victim(1, 1), &[20, 40, 60, 80, 100][..]),
        ("post-many", post_many, lossless.victim(1, MANY), &[30, 45, 60, 75, 90]),
        ("ring-post", post, Plot::IN_RING.victim(1, 1), &[60, 80]),
        ("overrun", post_first, lossy.holds(Holds::Next).victim(0, 1), &[40, 55, 70, 85]),
        ("collect", post_first, lossy.holds(Holds::Orphan).victim(0, 1), &[15, 30, 45]),
        ("read", read, lossless, &[50]),
        ("lossy-read", read, lossy, &[50]),
        ("take", take, group, &[50, 70, 100]),
        ("take-returned", take, again, &[100]),
        ("nack", nack, group, &[30, 60, 80]),
        ("nack-into-full", nack_into_full, full, &[50, 100]),
        ("leave-into-full", leave_into_full, full, &[50, 100]),
    ] {
        for (number, &part) in parts.iter().enumerate() {
            let op = op(&format!("recover-{name}-{part}"), recover, plot).stride(4);
            // They walk the whole sector: the gate has claims of many, orphans, a member's message.
            let is_few = ["post-many", "overrun", "collect", "take"].contains(&name);
            let thorough = !is_few || number != parts.len() / 2;
            ops.push(op.after_death_of(victim, part).thorough_if(thorough));
        }
    }
}

/// Returns the pairs: one asleep in the middle, and another one at work beside it.
pub(crate) fn pairs(pairs: &mut Vec<Op>) {
    let (lossless, lossy) = (Plot::LOSSLESS, Plot::LOSSY);
    let row = |name: &str, a: Act, b: Act, plot: Plot| {
        pair(name, Shape::Topic, LAYOUT, a, b).plot(plot).thorough_if(true)
    };
    let overrun = lossy.holds(Holds::Next).posts(0, 1);
    let group = lossless.group(GroupPlot::delivers((0, 1)));
    // Who wakes may take what the other had and gave back.
    let twice = lossless.group(GroupPlot::delivers((0, 2)));
    pairs.extend([
        row("post-post", post, post, lossless.posts(1, 1).beside(2)).thorough_if(false),
        row("post-many-post", post_many, post, lossless.posts(1, MANY).beside(2)),
        row("post-read", post, read, lossless.posts(1, 1)),
        row("post-recover", post, recover, lossless.posts(1, 1)),
        row("overrun-overrun", post_first, post_first, overrun.beside(1)),
        row("overrun-read", post_first, read, lossy.holds(Holds::Next).posts(0, 1)),
        row("lossy-read-post", read, post, lossy.beside(2)),
        row("take-take", take, take, twice).thorough_if(false),
        row("take-nack", take, nack, twice),
        row("take-recover", take, recover, group),
    ]);
}
