use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed<T> {
    Any(T),
}

fn main() {}
