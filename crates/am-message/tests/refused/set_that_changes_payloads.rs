use am_message::MessageSet;

#[derive(MessageSet)]
enum Feed<'a> {
    Blob(&'a mut [u8]),
}

fn main() {}
