//! The derives find the facade where only that is in the manifest.

use atomic_matrix::{Kind, KindOf, Message, MessageSet};

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    sym: u32,
    px: u32,
}

#[derive(MessageSet, Debug, PartialEq)]
enum Feed<'a> {
    Tick(Tick),
    Blob(&'a [u8]),
}

#[test]
fn set_derived_by_way_of_the_facade_reads_what_was_written() {
    let tick = Tick { sym: 7, px: 100 };
    let read = Feed::view(<Tick as KindOf<Feed>>::INDEX, tick.as_payload());
    assert_eq!(read, Ok(Feed::Tick(tick)));
    let read = Feed::view(<[u8] as KindOf<Feed>>::INDEX, b"bytes");
    assert_eq!(read, Ok(Feed::Blob(b"bytes")));
}
