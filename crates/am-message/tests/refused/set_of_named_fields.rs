use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed {
    Tick { sym: u32 },
}

fn main() {}
