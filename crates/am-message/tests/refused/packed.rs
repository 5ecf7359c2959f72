use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C, packed(2))]
struct Tick {
    sym: u16,
    px: u32,
}

fn main() {}
