use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Note {
    text: &'static str,
}

fn main() {}
