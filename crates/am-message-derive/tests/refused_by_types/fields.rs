use std::sync::atomic::AtomicU32;

use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Reference {
    text: &'static str,
}

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Pointer {
    length: usize,
    bytes: *const u8,
}

#[derive(Message)]
#[repr(C)]
struct Cell {
    count: AtomicU32,
}

#[derive(Message, Clone, Copy)]
#[repr(C, align(8192))]
struct FarApart {
    bytes: [u8; 8192],
}

#[derive(Message)]
#[repr(C)]
struct NotCopy {
    px: u32,
}

fn main() {}
