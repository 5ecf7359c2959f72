use am_message::Message;

#[derive(Message)]
#[repr(C)]
struct Tick {
    px: u32,
}

fn main() {}
