use am_message::{Message, MessageSet};

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Tick {
    sym: u32,
}

#[derive(MessageSet)]
enum OneKindTwice<'a> {
    Tick(Tick),
    Other(&'a Tick),
}

#[derive(MessageSet)]
enum WithoutField {
    Stop,
}

#[derive(MessageSet)]
enum NamedFields {
    Tick { sym: u32 },
}

#[derive(MessageSet)]
enum OtherLifetime<'a> {
    Blob(&'a [u8]),
    Note(&'static str),
}

#[derive(MessageSet)]
enum Mutable<'a> {
    Blob(&'a mut [u8]),
}

#[derive(MessageSet)]
enum WithParameters<T> {
    Any(T),
}

#[derive(MessageSet)]
enum WithoutKinds {}

#[derive(MessageSet)]
struct NotAnEnum {
    sym: u32,
}

fn main() {}
