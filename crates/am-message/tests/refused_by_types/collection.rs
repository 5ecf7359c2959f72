use am_message::Message;

#[derive(Message, Clone)]
#[repr(C)]
struct Note {
    bytes: Vec<u8>,
}

fn main() {}
