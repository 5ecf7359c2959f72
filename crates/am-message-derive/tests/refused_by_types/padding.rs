use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Within {
    side: u8,
    px: u32,
}

#[derive(Message, Clone, Copy)]
#[repr(C, align(16))]
struct AtTheEnd {
    px: u32,
}

fn main() {}
