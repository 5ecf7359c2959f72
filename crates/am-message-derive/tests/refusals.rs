//! What does not compile, and what is said then.
//!
//! `TRYBUILD=overwrite cargo test -p am-message-derive --test refusals` writes the texts anew.

/// What the derives say themselves, which is the same for every compiler.
#[test]
fn items_that_cannot_be_messages_are_refused_in_our_words() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}

/// What the compiler says of what the derives assert; it words that anew in every version.
#[rustversion::attr(not(stable(1.95)), ignore = "the texts are those of Rust 1.95")]
#[test]
fn types_that_cannot_be_messages_are_refused_by_the_compiler() {
    trybuild::TestCases::new().compile_fail("tests/refused_by_types/*.rs");
}
