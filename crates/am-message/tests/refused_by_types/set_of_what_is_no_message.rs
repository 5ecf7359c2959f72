use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed {
    Note(String),
}

fn main() {}
