use am_message::{Message, MessageSet};

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Tick {
    sym: u32,
}

type Tock = Tick;

#[derive(MessageSet)]
enum Feed {
    Tick(Tick),
    Tock(Tock),
}

fn main() {}
