use am_message::{KindOf, MessageSet};

#[derive(MessageSet)]
enum Feed<'a> {
    Blob(&'a [u8]),
}

fn post<S: MessageSet, K: KindOf<S> + ?Sized>(_: &K) {}

fn main() {
    post::<Feed, _>("text");
}
