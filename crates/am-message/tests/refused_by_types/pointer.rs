use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Note {
    length: usize,
    bytes: *const u8,
}

fn main() {}
