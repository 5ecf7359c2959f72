//! The operations on services that are interrupted at every instruction; see [`ops`](crate::ops).

use crate::acts::{Act, recover};
use crate::ops::{Op, pair};
use crate::service_acts::{
    ask, ask_by_loan, ask_first, create, drop_client, drop_out_of_order, drop_pending,
    drop_request, drop_server, give_back, open, open_client, open_server, receive, respond,
    respond_by_loan, take,
};
use crate::service_plot::Plot;
use crate::stage::Shape;

/// The survivor holds a block beside the service's.
const LAYOUT: &str = "S2";

fn op(name: &str, act: Act, plot: Plot) -> Op {
    Op::new(name, Shape::Service, LAYOUT, act).plot(plot)
}

/// Returns the rows of the table.
pub(crate) fn all(ops: &mut Vec<Op>) {
    clients(ops);
    servers(ops);
    recoveries(ops);
}

fn clients(ops: &mut Vec<Op>) {
    let (in_ring, in_blocks) = (Plot::IN_RING, Plot::IN_BLOCKS);
    ops.extend([
        // It writes every word of the service.
        op("create", create, Plot::NONE_YET).thorough_if(true).stride(16),
        op("open", open, in_ring),
        op("open-client", open_client, in_ring),
        op("drop-client", drop_client, in_ring.asks(1, 0)),
        op("ask", ask, in_ring.asks(1, 1)),
        op("ask-first", ask_first, in_ring.asks(0, 1)),
        op("ask-longer", ask, in_blocks.asks(1, 1)),
        op("ask-by-loan", ask_by_loan, in_blocks.asks(1, 1)),
        op("take", take, in_ring.asks_itself(3)),
        op("take-longer", take, in_blocks.asks_itself(3)),
        op("drop-out-of-order", drop_out_of_order, in_ring.asks_itself(3)),
        op("drop-pending", drop_pending, in_ring.asks_itself(3)),
    ]);
}

fn servers(ops: &mut Vec<Op>) {
    let (in_ring, in_blocks) = (Plot::IN_RING, Plot::IN_BLOCKS);
    ops.extend([
        op("open-server", open_server, in_ring),
        op("drop-server", drop_server, in_ring.delivers(1, 1)),
        op("receive", receive, in_ring.delivers(0, 1)),
        op("receive-returned", receive, in_ring.delivers(1, 2).returned()),
        op("respond", respond, in_ring.answers()),
        op("respond-longer", respond, in_blocks.answers()),
        op("respond-by-loan", respond_by_loan, in_blocks.answers()),
        op("drop-request", drop_request, in_ring.refuses()),
        op("give-back", give_back, in_ring.delivers(1, 1)),
    ]);
}

/// Recovery after a death in the middle of an operation; it is killed itself.
fn recoveries(ops: &mut Vec<Op>) {
    let (in_ring, in_blocks) = (Plot::IN_RING, Plot::IN_BLOCKS);
    for (name, victim, plot, parts) in [
        ("ask", ask as Act, in_ring.victim_asks(2), &[30, 50, 70, 100][..]),
        ("ask-longer", ask, in_blocks.victim_asks(2), &[30, 50, 70, 90]),
        ("drop-client", drop_client, in_ring.victim_asks(1), &[30, 60]),
        ("open-client", open_client, in_ring, &[50, 80, 100]),
        ("receive", receive, in_ring.delivers(0, 1), &[50, 100]),
        ("respond", respond, in_ring.victim_answers(), &[25, 50, 75, 100]),
        ("respond-longer", respond, in_blocks.victim_answers(), &[30, 50, 70, 90]),
        ("give-back", give_back, in_ring.delivers(0, 1), &[40, 80]),
    ] {
        for (number, &part) in parts.iter().enumerate() {
            let op = op(&format!("recover-{name}-{part}"), recover, plot).stride(6);
            // They walk the whole sector: the gate has one of a request, and one of a response.
            let is_few = ["ask-longer", "respond-longer"].contains(&name);
            let thorough = !is_few || number != parts.len() / 2;
            ops.push(op.after_death_of(victim, part).thorough_if(thorough));
        }
    }
}

/// Returns the pairs: one asleep in the middle, and another one at work beside it.
pub(crate) fn pairs(pairs: &mut Vec<Op>) {
    let row = |name: &str, a: Act, b: Act, plot: Plot| {
        pair(name, Shape::Service, LAYOUT, a, b).plot(plot).thorough_if(true)
    };
    let in_ring = Plot::IN_RING;
    pairs.extend([
        row("ask-respond", ask, respond, in_ring.asks(1, 1).beside(1)),
        row("respond-respond", respond, respond, in_ring.answers().beside(1)).thorough_if(false),
        row("respond-recover", respond, recover, in_ring.answers()),
        row("receive-give-back", receive, give_back, in_ring.delivers(0, 2)),
    ]);
}
