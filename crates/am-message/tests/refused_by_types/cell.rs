use std::sync::atomic::AtomicU32;

use am_message::Message;

#[derive(Message)]
#[repr(C)]
struct Counter {
    count: AtomicU32,
}

fn main() {}
