use am_message::Message;

#[derive(Message, Clone, Copy)]
#[repr(C)]
union Either {
    number: u32,
    float: f32,
}

fn main() {}
