//! What the attributes of an item say: where the crate is, and how the item is laid out.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, Path, Result, Token, parenthesized};

/// The crates that export the derives, and what these expand to names of; the facade first, since
/// who depends on both names it.
const EXPORTERS: [&str; 2] = ["atomic-matrix", "am-message"];

/// Returns the path of the hidden module that has all that an expansion names.
///
/// # Errors
///
/// `#[message(..)]` says something else than `crate = path`, or nothing does and the manifest names
/// none of the exporters.
pub fn support_path(attributes: &[Attribute]) -> Result<TokenStream> {
    let mut told = None;
    for attribute in attributes.iter().filter(|a| a.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("expected `crate = path`"));
            }
            if told.is_some() {
                return Err(meta.error("`crate` is told twice"));
            }
            told = Some(meta.value()?.call(Path::parse_mod_style)?);
            Ok(())
        })?;
    }
    let path = match told {
        Some(path) => quote!(#path),
        None => found_path()?,
    };
    Ok(quote!(#path::__derive))
}

/// Finds an exporter in the manifest of the crate that is being compiled.
fn found_path() -> Result<TokenStream> {
    for exporter in EXPORTERS {
        let name = match crate_name(exporter) {
            Ok(FoundCrate::Name(name)) => name,
            // Its tests, examples and documentation are crates of their own that see it by its
            // name; within it, the name is an `extern crate self`.
            Ok(FoundCrate::Itself) => exporter.replace('-', "_"),
            Err(_) => continue,
        };
        let name = format_ident!("{name}");
        return Ok(quote!(::#name));
    }
    Err(Error::new(
        Span::call_site(),
        "the manifest names neither `atomic-matrix` nor `am-message`: tell which crate reexports them \
         by `#[message(crate = path)]`",
    ))
}

/// What `#[repr(..)]` says, of all attributes.
#[derive(Default)]
pub struct Repr {
    /// `repr(C)`.
    pub c: bool,
    /// `repr(transparent)`.
    pub transparent: bool,
    /// `repr(packed)`, with or without a number.
    pub packed: Option<Span>,
    /// The integer type of `repr(u8)` and the like.
    pub integer: Option<Ident>,
}

impl Repr {
    /// Reads it from the attributes of an item.
    pub fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut repr = Self::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("repr")) {
            attribute.parse_nested_meta(|meta| {
                let Some(word) = meta.path.get_ident() else { return Ok(()) };
                match word.to_string().as_str() {
                    "C" => repr.c = true,
                    "transparent" => repr.transparent = true,
                    "packed" => repr.packed = Some(word.span()),
                    integer if is_integer(integer) => repr.integer = Some(word.clone()),
                    _ => {}
                }
                skip_argument(&meta)
            })?;
        }
        Ok(repr)
    }
}

/// Passes over the number of `align(8)` or `packed(2)`.
fn skip_argument(meta: &syn::meta::ParseNestedMeta) -> Result<()> {
    if meta.input.peek(syn::token::Paren) {
        let argument;
        parenthesized!(argument in meta.input);
        argument.parse::<TokenStream>()?;
    }
    debug_assert!(meta.input.is_empty() || meta.input.peek(Token![,]));
    Ok(())
}

fn is_integer(word: &str) -> bool {
    let Some(width) = word.strip_prefix(['u', 'i']) else { return false };
    matches!(width, "8" | "16" | "32" | "64" | "128" | "size")
}

/// Returns the place of `tokens` with the names of the derive: what the compiler complains of is
/// shown there, and yet sees what the expansion declares.
pub fn place_of(tokens: &impl Spanned) -> Span {
    Span::call_site().located_at(tokens.span())
}
