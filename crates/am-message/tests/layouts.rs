//! Layout hashes: what changes them and what does not.

use std::collections::HashMap;
use std::num::{NonZeroU32, Wrapping};

use am_message::{Kind, Message, MessageSet};

#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Tick {
    sym: u32,
    px: u32,
}

/// The same bytes, of another meaning.
#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Renamed {
    sym: u32,
    price: u32,
}

/// The hash of a struct with these fields, whatever it is called.
macro_rules! hash_of {
    ($($repr:meta),* ; $($item:tt)*) => {{
        #[derive(Message, Clone, Copy)]
        $(#[$repr])*
        #[allow(dead_code)]
        struct Other { $($item)* }
        <Other as Message>::LAYOUT
    }};
}

/// The hash of an enum with these variants.
macro_rules! hash_of_enum {
    ($repr:meta ; $($variants:tt)*) => {{
        #[derive(Message, Clone, Copy)]
        #[$repr]
        #[allow(dead_code)]
        enum Other { $($variants)* }
        <Other as Message>::LAYOUT
    }};
}

/// Asserts that no two of these are equal.
fn assert_distinct(hashes: &[(&str, u64)]) {
    let mut seen = HashMap::new();
    for (name, hash) in hashes {
        if let Some(other) = seen.insert(hash, name) {
            panic!("{name} and {other} have one hash, {hash:#x}");
        }
    }
}

#[test]
fn struct_of_the_same_fields_has_the_same_hash_whatever_its_name() {
    assert_eq!(hash_of!(repr(C); sym: u32, px: u32), <Tick as Message>::LAYOUT);
    assert_eq!(hash_of!(repr(C); r#sym: u32, px: u32), <Tick as Message>::LAYOUT);
}

#[test]
fn struct_of_other_fields_has_another_hash() {
    assert_distinct(&[
        ("as it is", <Tick as Message>::LAYOUT),
        ("field renamed", hash_of!(repr(C); sym: u32, price: u32)),
        ("names swapped", hash_of!(repr(C); px: u32, sym: u32)),
        ("signed", hash_of!(repr(C); sym: u32, px: i32)),
        ("float", hash_of!(repr(C); sym: u32, px: f32)),
        ("char", hash_of!(repr(C); sym: u32, px: char)),
        ("never zero", hash_of!(repr(C); sym: u32, px: NonZeroU32)),
        ("zero as none", hash_of!(repr(C); sym: u32, px: Option<NonZeroU32>)),
        ("wrapping", hash_of!(repr(C); sym: u32, px: Wrapping<u32>)),
        ("bytes", hash_of!(repr(C); sym: u32, px: [u8; 4])),
        ("halves", hash_of!(repr(C); sym: u32, px: [u16; 2])),
        ("wider", hash_of!(repr(C); sym: u64, px: u64)),
        ("one more", hash_of!(repr(C); sym: u32, px: u32, more: u32)),
        ("one less", hash_of!(repr(C); sym: u32)),
        ("nothing more", hash_of!(repr(C); sym: u32, px: u32, more: ())),
        ("aligned", hash_of!(repr(C, align(8)); sym: u32, px: u32)),
        ("nested", hash_of!(repr(C); tick: Tick)),
        ("array of one", <[Tick; 1] as Message>::LAYOUT),
        ("array of two", <[Tick; 2] as Message>::LAYOUT),
    ]);
}

#[test]
fn struct_that_nests_a_changed_one_has_another_hash() {
    assert_ne!(hash_of!(repr(C); t: Tick), hash_of!(repr(C); t: Renamed));
    assert_ne!(hash_of!(repr(C); t: [Tick; 2]), hash_of!(repr(C); t: [Renamed; 2]));
}

#[test]
fn enum_hash_covers_integer_names_and_values() {
    let same = hash_of_enum!(repr(u8); Buy = 1, Sell = 2);
    assert_eq!(hash_of_enum!(repr(u8); Buy = 1, Sell), same);
    assert_distinct(&[
        ("as it is", same),
        ("value changed", hash_of_enum!(repr(u8); Buy = 1, Sell = 3)),
        ("counted from 0", hash_of_enum!(repr(u8); Buy, Sell)),
        ("renamed", hash_of_enum!(repr(u8); Bid = 1, Sell = 2)),
        ("values swapped", hash_of_enum!(repr(u8); Buy = 2, Sell = 1)),
        ("one more", hash_of_enum!(repr(u8); Buy = 1, Sell = 2, Short = 3)),
        ("signed", hash_of_enum!(repr(i8); Buy = 1, Sell = 2)),
        ("wider", hash_of_enum!(repr(u16); Buy = 1, Sell = 2)),
    ]);
}

#[test]
fn scalars_have_hashes_of_their_own() {
    macro_rules! hashes {
        ($($scalar:ty),*) => { &[$((stringify!($scalar), <$scalar as Message>::LAYOUT)),*] };
    }
    assert_distinct(hashes![
        u8,
        u16,
        u32,
        u64,
        u128,
        usize,
        i8,
        i16,
        i32,
        i64,
        i128,
        isize,
        f32,
        f64,
        bool,
        char,
        ()
    ]);
}

#[test]
fn kinds_of_one_message_have_hashes_of_their_own() {
    assert_distinct(&[
        ("message", <Tick as Message>::LAYOUT),
        ("value", <Tick as Kind>::LAYOUT),
        ("slice", <[Tick] as Kind>::LAYOUT),
        ("value of other fields", <Renamed as Kind>::LAYOUT),
        ("slice of other fields", <[Renamed] as Kind>::LAYOUT),
        ("bytes", <[u8] as Kind>::LAYOUT),
        ("text", <str as Kind>::LAYOUT),
    ]);
}

/// A user's names and the derive's own must not meet.
#[test]
fn fields_and_types_may_be_called_as_the_derive_calls_its_own() {
    #[derive(Message, Clone, Copy)]
    #[repr(transparent)]
    struct Bits(u32);
    #[derive(Message, Clone, Copy)]
    #[repr(C)]
    struct Unit {
        bytes: Bits,
        bits: Bits,
        r#type: u64,
    }
    let unit = Unit { bytes: Bits(1), bits: Bits(2), r#type: 3 };
    assert_eq!(<Unit as Kind>::view(unit.as_payload()).map(|unit| unit.bits.0), Ok(2));
    let same = hash_of!(repr(C); bytes: Bits, bits: Bits, r#type: u64);
    assert_eq!(<Unit as Message>::LAYOUT, same);
}

#[test]
fn message_of_every_alignment_is_read_again() {
    macro_rules! read_again {
        ($($bytes:literal)*) => {$({
            #[derive(Message, Clone, Copy)]
            #[repr(C, align($bytes))]
            struct Wide([u8; $bytes], [bool; $bytes]);
            let mut wide = Wide([7; $bytes], [true; $bytes]);
            wide.1[$bytes - 1] = false;
            let seen = <Wide as Kind>::view(wide.as_payload()).unwrap();
            assert!(seen.0 == wide.0 && seen.1 == wide.1, "aligned to {}", $bytes);
            assert_eq!(<Wide as Kind>::ALIGN_BYTES, $bytes);
        })*};
    }
    read_again!(1 2 4 8 16 32 64 128 256 512 1024 2048 4096);
}

#[test]
fn set_hash_covers_names_kinds_and_order() {
    macro_rules! set {
        ($($variants:tt)*) => {{
            #[derive(MessageSet)]
            #[allow(dead_code)]
            enum Set<'a> { $($variants)* }
            <Set as MessageSet>::LAYOUT
        }};
    }
    let same = set!(Tick(Tick), Blob(&'a [u8]));
    // Whether a reader copies is a reader's own affair.
    assert_eq!(set!(Tick(&'a Tick), Blob(&'a [u8])), same);
    assert_distinct(&[
        ("as it is", same),
        ("renamed", set!(Tick(Tick), Bytes(&'a [u8]))),
        ("other fields", set!(Tick(Renamed), Blob(&'a [u8]))),
        ("reordered", set!(Blob(&'a [u8]), Tick(Tick))),
        ("other shape", set!(Tick(&'a [Tick]), Blob(&'a [u8]))),
        ("text", set!(Tick(Tick), Blob(&'a str))),
        ("one more", set!(Tick(Tick), Blob(&'a [u8]), Text(&'a str))),
        ("one less", set!(Blob(&'a [u8]))),
        ("kind alone", <[u8] as MessageSet>::LAYOUT),
        ("message alone", <Tick as MessageSet>::LAYOUT),
        ("message of other fields alone", <Renamed as MessageSet>::LAYOUT),
    ]);
}

/// Segments outlive builds: whoever changes how hashes are made changes the format of a segment.
///
/// The numbers are from another implementation of XXH3, fed with the same parts.
#[test]
fn hashes_are_the_same_in_every_build() {
    assert_eq!(<u32 as Message>::LAYOUT, 0x9c9d_b58d_b09b_3a0b);
    assert_eq!(<Tick as Message>::LAYOUT, 0x94c3_2b4c_f0d6_ad7d);
    assert_eq!(<str as MessageSet>::LAYOUT, 0xfd94_3199_20da_0ec2);
}
