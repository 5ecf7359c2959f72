use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(u8)]
enum Event {
    Start,
    Tick(u32),
}

fn main() {}
