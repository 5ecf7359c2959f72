use am_message::Message;

#[derive(Message, Clone, Copy)]
#[message(pod)]
#[repr(C)]
struct Tick {
    sym: u32,
}

fn main() {}
