//! `#[derive(Message)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Data, DataEnum, DataStruct, DeriveInput, Error, Fields, Index, Member, Result, Type};

use crate::options::{Repr, place_of, support_path};

/// Returns the implementation of `Message` for this item, and what it hangs on.
///
/// # Errors
///
/// The item has parameters, no layout of its own, or fields in its variants; or it is a union.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a message has no parameters: what lies in a segment is one layout",
        ));
    }
    let support = support_path(&input.attrs)?;
    let repr = Repr::of(&input.attrs)?;
    match &input.data {
        Data::Struct(data) => expand_struct(input, data, &repr, &support),
        Data::Enum(data) => expand_enum(input, data, &repr, &support),
        Data::Union(_) => Err(Error::new(
            input.ident.span(),
            "a union is no message: nobody can tell which of its fields is meant",
        )),
    }
}

/// One field, under all its names.
struct Field<'a> {
    member: Member,
    name: String,
    r#type: &'a Type,
}

fn fields_of(fields: &Fields) -> Vec<Field<'_>> {
    let named = |(index, field): (usize, &syn::Field)| match &field.ident {
        Some(ident) => (Member::Named(ident.clone()), ident.unraw().to_string()),
        None => (Member::Unnamed(Index::from(index)), index.to_string()),
    };
    let whole = fields.iter().enumerate().map(|(index, field)| (named((index, field)), &field.ty));
    whole.map(|((member, name), r#type)| Field { member, name, r#type }).collect()
}

fn expand_struct(
    input: &DeriveInput,
    data: &DataStruct,
    repr: &Repr,
    support: &TokenStream,
) -> Result<TokenStream> {
    check_struct_repr(input, repr)?;
    let item = &input.ident;
    let fields = fields_of(&data.fields);
    let types: Vec<_> = fields.iter().map(|field| field.r#type).collect();
    // Spanned, so that a field that is no message is what the compiler points at.
    let hashed = fields.iter().map(|Field { member, name, r#type }| {
        quote_spanned!(place_of(r#type)=> .field::<#r#type>(#name, ::core::mem::offset_of!(Self, #member)))
    });
    let checked = fields.iter().map(|Field { member, r#type, .. }| {
        quote_spanned!(place_of(r#type)=> && #support::field_is_valid::<#r#type>(
            bytes,
            ::core::mem::offset_of!(Self, #member),
        ))
    });
    let no_padding = no_padding(input, &types);
    Ok(quote! {
        #no_padding

        // SAFETY: the bits are as long and as aligned as the item, by what they are made of. Every
        // field is a message, or would not be hashed and checked, and there is no byte beside the
        // fields (asserted); so what holds of each field holds of all.
        #[automatically_derived]
        unsafe impl #support::Message for #item {
            type Bits = [
                <#support::Align<{ ::core::mem::align_of::<#item>() }> as #support::Unit>::Unit;
                ::core::mem::size_of::<#item>() / ::core::mem::align_of::<#item>()
            ];
            const LAYOUT: u64 = #support::LayoutHasher::new("struct")
                .number(::core::mem::size_of::<Self>() as u64)
                .number(::core::mem::align_of::<Self>() as u64)
                #(#hashed)*
                .finish();

            #[inline]
            fn is_valid(bits: &Self::Bits) -> bool {
                let bytes = #support::bytes_of(bits);
                let _ = bytes; // a struct without fields asks nothing of them
                true #(#checked)*
            }
        }
    })
}

/// Refuses a struct without a layout of its own, and one whose fields cannot be lent.
fn check_struct_repr(input: &DeriveInput, repr: &Repr) -> Result<()> {
    if let Some(packed) = repr.packed {
        return Err(Error::new(
            packed,
            "a packed struct is no message: readers are lent references to its fields",
        ));
    }
    if !repr.c && !repr.transparent {
        return Err(Error::new(
            input.ident.span(),
            "a message needs `#[repr(C)]` or `#[repr(transparent)]`, or every build may lay it out \
             in another way",
        ));
    }
    Ok(())
}

/// Returns the assertion that the fields fill the item.
fn no_padding(input: &DeriveInput, types: &[&Type]) -> TokenStream {
    let item = &input.ident;
    let complaint = format!(
        "`{item}` has padding, which would copy what the memory held before: order its fields from \
         large to small, or fill the gaps with fields"
    );
    quote_spanned! {place_of(item)=>
        const _: () = ::core::assert!(
            ::core::mem::size_of::<#item>() == 0 #(+ ::core::mem::size_of::<#types>())*,
            #complaint
        );
    }
}

fn expand_enum(
    input: &DeriveInput,
    data: &DataEnum,
    repr: &Repr,
    support: &TokenStream,
) -> Result<TokenStream> {
    let item = &input.ident;
    if data.variants.is_empty() {
        return Err(Error::new(item.span(), "an enum without variants has no value to send"));
    }
    let Some(integer) = &repr.integer else {
        return Err(Error::new(
            item.span(),
            "a message needs an integer's layout on an enum, such as `#[repr(u8)]`",
        ));
    };
    if let Some(variant) = data.variants.iter().find(|v| !matches!(v.fields, Fields::Unit)) {
        return Err(Error::new_spanned(
            variant,
            "a message's enum has no fields: make each variant a kind of a `MessageSet`",
        ));
    }
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = variants.iter().map(|variant| variant.unraw().to_string());
    Ok(quote! {
        // SAFETY: an enum without fields of this representation is laid out as that integer, and
        // has no uninitialized byte; valid are the values of its variants only.
        #[automatically_derived]
        unsafe impl #support::Message for #item {
            type Bits = #integer;
            const LAYOUT: u64 = #support::LayoutHasher::new("enum")
                .number(<#integer as #support::Message>::LAYOUT)
                #(.text(#names).number(Self::#variants as #integer as u64))*
                .finish();

            #[inline]
            fn is_valid(bits: &#integer) -> bool {
                false #(|| *bits == Self::#variants as #integer)*
            }
        }
        const _: () = {
            ::core::assert!(::core::mem::size_of::<#integer>() == ::core::mem::size_of::<#item>());
            ::core::assert!(::core::mem::align_of::<#integer>() == ::core::mem::align_of::<#item>());
        };
    })
}
