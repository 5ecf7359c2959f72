//! Decoding: what a payload is taken for, and what is refused.

use am_message::{BadMessage, Kind, KindOf, Message, MessageSet, Shape};

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Side {
    Buy = 1,
    Sell = 2,
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    sym: u32,
    px: u32,
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Order {
    tick: Tick,
    letter: char,
    sides: [Side; 2],
    open: bool,
    spare: u8,
}

#[derive(MessageSet, Debug, PartialEq)]
enum Feed<'a> {
    Tick(Tick),
    Order(&'a Order),
    Orders(&'a [Order]),
    Blob(&'a [u8]),
    Note(&'a str),
}

#[test]
fn kinds_of_a_set_are_indexed_as_declared() {
    let names: Vec<_> = Feed::KINDS.iter().map(|kind| (kind.name, kind.shape)).collect();
    assert_eq!(
        names,
        [
            ("Tick", Shape::Value),
            ("Order", Shape::Value),
            ("Orders", Shape::Slice),
            ("Blob", Shape::Slice),
            ("Note", Shape::Text)
        ]
    );
}
