//! `#[derive(MessageSet)]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{
    Data, DataEnum, DeriveInput, Error, Fields, GenericParam, Ident, Lifetime, Result, Type,
    Variant,
};

use crate::options::{place_of, support_path};

/// Returns the implementations of `MessageSet` for this enum, and of `KindOf` for each of its kinds.
///
/// # Errors
///
/// The item is no enum, or has other parameters than one lifetime, or none or two of one kind, or a
/// variant has not just one field.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "a set of messages is an enum of its kinds; a single message is a set by itself",
        ));
    };
    let support = support_path(&input.attrs)?;
    let lifetime = lifetime_of(input)?;
    let kinds = kinds_of(input, data, lifetime)?;
    let set = match lifetime {
        Some(lifetime) => quote!(<#lifetime>),
        None => quote!(),
    };
    let memberships = memberships(input, &kinds, &set, &support);
    let body = set_body(input, &kinds, lifetime.is_some(), &support);
    let item = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #set #support::MessageSet for #item #set {
            #body
        }
        #memberships
    })
}

/// One variant.
struct KindField<'a> {
    variant: &'a Ident,
    /// The kind: the field's type, or what it refers to.
    kind: &'a Type,
    /// The field is a reference.
    lent: bool,
}

/// Returns the enum's lifetime, if it has one.
fn lifetime_of(input: &DeriveInput) -> Result<Option<&Lifetime>> {
    let mut lifetime = None;
    for parameter in &input.generics.params {
        match parameter {
            GenericParam::Lifetime(told) if lifetime.is_none() && told.bounds.is_empty() => {
                lifetime = Some(&told.lifetime);
            }
            other => {
                return Err(Error::new_spanned(
                    other,
                    "a set of messages has no parameters but one lifetime, that of the payload",
                ));
            }
        }
    }
    Ok(lifetime)
}

fn kinds_of<'a>(
    input: &DeriveInput,
    data: &'a DataEnum,
    lifetime: Option<&Lifetime>,
) -> Result<Vec<KindField<'a>>> {
    if data.variants.is_empty() {
        return Err(Error::new(input.ident.span(), "a set of messages has at least one kind"));
    }
    let mut kinds: Vec<KindField> = Vec::new();
    for variant in &data.variants {
        let kind = kind_of(variant, lifetime)?;
        // Only what is spelled alike is seen here, for a better message than the compiler's own.
        if let Some(first) = kinds.iter().find(|other| other.kind == kind.kind) {
            let told = kind.kind.to_token_stream().to_string();
            return Err(Error::new_spanned(
                variant,
                format!(
                    "`{told}` is the kind of the variant `{}` already, and a post of it could mean either: wrap \
                     one of them in a struct of its own",
                    first.variant
                ),
            ));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

fn kind_of<'a>(variant: &'a Variant, lifetime: Option<&Lifetime>) -> Result<KindField<'a>> {
    let wrong = |field: &dyn ToTokens, complaint| Err(Error::new_spanned(field, complaint));
    let field = match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => &fields.unnamed[0],
        _ => return wrong(variant, "a kind is one field: `Tick(Tick)`, or `Blob(&'a [u8])`"),
    };
    match &field.ty {
        Type::Reference(lent) if lent.mutability.is_some() => {
            wrong(lent, "a message that was posted is not changed: make it `&'a`")
        }
        Type::Reference(lent) if lent.lifetime.as_ref() != lifetime => wrong(
            lent,
            "a payload lives for as long as the enum's own lifetime tells, as `&'a` does",
        ),
        Type::Reference(lent) => {
            Ok(KindField { variant: &variant.ident, kind: &lent.elem, lent: true })
        }
        Type::Slice(_) => wrong(&field.ty, "a slice is lent: `&'a [..]`"),
        Type::Path(path) if path.path.is_ident("str") => {
            wrong(&field.ty, "text is lent: `&'a str`")
        }
        owned => Ok(KindField { variant: &variant.ident, kind: owned, lent: false }),
    }
}

/// Returns what makes up `impl MessageSet`.
fn set_body(
    input: &DeriveInput,
    kinds: &[KindField],
    lives: bool,
    support: &TokenStream,
) -> TokenStream {
    let item = &input.ident;
    let view = if lives { quote!(<'__payload>) } else { quote!() };
    let infos = kinds.iter().map(|KindField { variant, kind, .. }| {
        let name = variant.unraw().to_string();
        quote_spanned!(place_of(kind)=> #support::KindInfo::of::<#kind>(#name))
    });
    let arms = kinds.iter().zip(0_u32..).map(|(KindField { variant, kind, lent }, index)| {
        let read = if *lent {
            quote!(<#kind as #support::Kind>::view(payload))
        } else {
            quote!(#support::copied::<#kind>(payload))
        };
        quote!(#index => #read.map(#item::#variant))
    });
    quote! {
        type View<'__payload> = #item #view;
        const KINDS: &'static [#support::KindInfo] = &[#(#infos),*];

        fn view<'__payload>(
            kind: u32,
            payload: &'__payload [u8],
        ) -> ::core::result::Result<#item #view, #support::BadMessage> {
            match kind {
                #(#arms,)*
                _ => ::core::result::Result::Err(#support::BadMessage::UnknownKind {
                    kind,
                    kinds: Self::KINDS.len() as u32,
                }),
            }
        }
    }
}

/// Returns `impl KindOf` for each kind. Two kinds that are spelled differently and are the same type
/// are refused by the compiler here, for two implementations of one trait.
fn memberships(
    input: &DeriveInput,
    kinds: &[KindField],
    set: &TokenStream,
    support: &TokenStream,
) -> TokenStream {
    let item = &input.ident;
    let each = kinds.iter().zip(0_u32..).map(|(KindField { kind, .. }, index)| {
        quote_spanned! {place_of(kind)=>
            #[automatically_derived]
            impl #set #support::KindOf<#item #set> for #kind {
                const INDEX: u32 = #index;
            }
        }
    });
    quote!(#(#each)*)
}
