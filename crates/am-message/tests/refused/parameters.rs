use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Pair<T> {
    one: T,
    two: T,
}

fn main() {}
