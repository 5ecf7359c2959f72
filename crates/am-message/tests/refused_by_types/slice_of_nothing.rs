use am_message::{Kind, MessageSet};

fn main() {
    let _ = <[()] as MessageSet>::view(0, b"");
    let _ = <[()] as Kind>::view(b"");
}
