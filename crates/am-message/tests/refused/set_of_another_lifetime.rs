use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed<'a> {
    Blob(&'a [u8]),
    Note(&'static str),
}

fn main() {}
