use am_message::{Message, MessageSet};

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Tick {
    sym: u32,
}

#[derive(MessageSet)]
enum Feed<'a> {
    Tick(Tick),
    Other(&'a Tick),
}

fn main() {}
