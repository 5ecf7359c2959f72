use am_message::{KindOf, MessageSet};

type Bytes = [u8];

#[derive(MessageSet)]
enum OneKindTwice<'a> {
    Blob(&'a [u8]),
    Bytes(&'a Bytes),
}

#[derive(MessageSet)]
enum Unsized {
    Blob([u8]),
}

#[derive(MessageSet)]
enum NotAMessage {
    Note(String),
}

#[derive(MessageSet)]
enum Feed<'a> {
    Blob(&'a [u8]),
}

fn post<S: MessageSet, K: KindOf<S> + ?Sized>(_: &K) {}

fn main() {
    post::<Feed, _>("text");
}
