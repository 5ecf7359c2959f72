use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed {
    Blob([u8]),
}

fn main() {}
