use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed {
    Stop,
}

fn main() {}
