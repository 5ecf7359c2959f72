use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
