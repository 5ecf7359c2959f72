use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C, align(16))]
struct Tick {
    px: u32,
}

fn main() {}
