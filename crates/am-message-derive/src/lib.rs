//! The derives of `am-message`, which documents and reexports them.
//!
//! A derive sees tokens only. So whatever the soundness of an expansion hangs on (sizes, offsets,
//! what a field's type is) is asserted in the expansion, where the compiler knows.

#![forbid(unsafe_code)] // what it writes is argued where it is written

mod message;
mod options;
mod set;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct or a fieldless enum a message: plain old data with a layout hash.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes an enum a set of messages: the kinds that one topic carries.
#[proc_macro_derive(MessageSet, attributes(message))]
pub fn derive_message_set(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    set::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
