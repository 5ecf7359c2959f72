use am_message::Message;

#[derive(Message, Clone, Copy)]
struct Tick {
    sym: u32,
    px: u32,
}

fn main() {}
