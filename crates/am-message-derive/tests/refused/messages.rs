use am_message::Message;

#[derive(Message, Clone, Copy)]
struct WithoutRepr {
    sym: u32,
}

#[derive(Message, Clone, Copy)]
#[repr(C, packed(2))]
struct Packed {
    sym: u16,
    px: u32,
}

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct WithParameters<T> {
    one: T,
}

#[derive(Message, Clone, Copy)]
#[repr(C)]
union Either {
    number: u32,
    float: f32,
}

#[derive(Message, Clone, Copy)]
#[repr(C)]
enum WithoutInteger {
    Buy,
    Sell,
}

#[derive(Message, Clone, Copy)]
#[repr(u8)]
enum WithFields {
    Start,
    Tick(u32),
}

#[derive(Message, Clone, Copy)]
enum WithoutVariants {}

#[derive(Message, Clone, Copy)]
#[message(pod)]
#[repr(C)]
struct UnknownOption {
    sym: u32,
}

fn main() {}
