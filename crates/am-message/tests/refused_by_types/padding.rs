use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Tick {
    side: u8,
    px: u32,
}

fn main() {}
