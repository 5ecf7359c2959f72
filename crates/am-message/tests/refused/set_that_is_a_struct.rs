use am_message::MessageSet;

#[derive(MessageSet)]
struct Feed {
    sym: u32,
}

fn main() {}
