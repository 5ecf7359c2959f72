//! Decoding: what a payload is taken for, and what is refused.

#![forbid(unsafe_code)] // the derives may be used where nothing unsafe is

use am_message::{BadMessage, Kind, KindOf, Message, MessageSet, Shape};
use proptest::prelude::*;

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(i8)]
enum Side {
    Buy = 1,
    Sell = -2,
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    sym: u32,
    px: u32,
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Order {
    tick: Tick,
    letter: char,
    sides: [Side; 2],
    open: bool,
    spare: u8,
}

#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
struct Stop(());

#[derive(MessageSet, Debug, PartialEq)]
enum Feed<'a> {
    Tick(Tick),
    Order(&'a Order),
    Orders(&'a [Order]),
    Blob(&'a [u8]),
    Note(&'a str),
    Stop(Stop),
}

/// A set whose views borrow nothing needs no lifetime.
#[derive(MessageSet, Debug, PartialEq)]
enum Small {
    Side(Side),
    Flags([bool; 4]),
}

const ORDER: Order = Order {
    tick: Tick { sym: 7, px: 100 },
    letter: 'x',
    sides: [Side::Buy, Side::Sell],
    open: true,
    spare: 0,
};

/// Bytes that begin at a multiple of 16, and `skew` bytes after one where told.
#[repr(C, align(16))]
struct Aligned([u8; 256]);

impl Aligned {
    fn of(payload: &[u8], skew: usize) -> Self {
        let mut aligned = Self([0; 256]);
        aligned.0[skew..][..payload.len()].copy_from_slice(payload);
        aligned
    }
}

/// Returns the index of `K` in `S`, as a post does.
fn index<S: MessageSet, K: KindOf<S> + ?Sized>() -> u32 {
    K::INDEX
}

#[test]
fn kinds_of_a_set_are_indexed_as_declared() {
    let kinds: Vec<_> = Feed::KINDS.iter().map(|k| (k.name, k.shape, k.unit_bytes)).collect();
    assert_eq!(
        kinds,
        [
            ("Tick", Shape::Value, 8),
            ("Order", Shape::Value, 16),
            ("Orders", Shape::Slice, 16),
            ("Blob", Shape::Slice, 1),
            ("Note", Shape::Text, 1),
            ("Stop", Shape::Value, 0),
        ]
    );
    assert_eq!(index::<Feed, Tick>(), 0);
    assert_eq!(index::<Feed, Order>(), 1);
    assert_eq!(index::<Feed, [Order]>(), 2);
    assert_eq!(index::<Feed, [u8]>(), 3);
    assert_eq!(index::<Feed, str>(), 4);
    assert_eq!(index::<Feed, Stop>(), 5);
    assert_eq!(index::<Small, [bool; 4]>(), 1);
}

#[test]
fn view_of_each_kind_is_what_was_posted() {
    let orders = [ORDER, Order { open: false, ..ORDER }];
    assert_eq!(Feed::view(0, ORDER.tick.as_payload()), Ok(Feed::Tick(ORDER.tick)));
    assert_eq!(Feed::view(1, ORDER.as_payload()), Ok(Feed::Order(&ORDER)));
    assert_eq!(Feed::view(2, orders.as_payload()), Ok(Feed::Orders(&orders)));
    assert_eq!(Feed::view(2, &Aligned::of(&[], 0).0[..0]), Ok(Feed::Orders(&[])));
    assert_eq!(Feed::view(3, b"\xFF\x00"), Ok(Feed::Blob(b"\xFF\x00")));
    assert_eq!(Feed::view(4, "naïve".as_payload()), Ok(Feed::Note("naïve")));
    assert_eq!(Feed::view(5, &[]), Ok(Feed::Stop(Stop(()))));
    assert_eq!(Small::view(0, &[0xFE]), Ok(Small::Side(Side::Sell)));
    assert_eq!(Small::view(1, &[0, 1, 1, 0]), Ok(Small::Flags([false, true, true, false])));
}

#[test]
fn view_lends_the_payload_itself() {
    let payload = ORDER.as_payload();
    let Ok(Feed::Order(order)) = Feed::view(1, payload) else { panic!("refused") };
    assert!(std::ptr::addr_eq(order, payload.as_ptr()));
}

#[test]
fn view_of_a_set_of_one_kind_is_a_reference() {
    assert_eq!(<Tick as MessageSet>::view(0, ORDER.tick.as_payload()), Ok(&ORDER.tick));
    assert_eq!(<[u8] as MessageSet>::view(0, b"ab"), Ok(&b"ab"[..]));
    assert_eq!(<str as MessageSet>::view(0, b"ab"), Ok("ab"));
    assert_eq!(<[Side] as MessageSet>::view(0, &[1, 0xFE]), Ok(&[Side::Buy, Side::Sell][..]));
    let unknown = Err(BadMessage::UnknownKind { kind: 1, kinds: 1 });
    assert_eq!(<str as MessageSet>::view(1, b"ab"), unknown);
    assert_eq!(index::<u64, u64>(), 0);
}

#[test]
fn view_of_an_unknown_kind_says_how_many_there_are() {
    for kind in [6, u32::MAX] {
        assert_eq!(Feed::view(kind, &[]), Err(BadMessage::UnknownKind { kind, kinds: 6 }));
    }
}

#[test]
fn view_of_a_wrong_length_says_both_lengths() {
    let bytes = Aligned::of(ORDER.as_payload(), 0).0;
    for seen_bytes in [0, 7, 9, 16] {
        let refused = Err(BadMessage::ValueLength { value_bytes: 8, seen_bytes });
        assert_eq!(Feed::view(0, &bytes[..seen_bytes]), refused);
    }
    let refused = Err(BadMessage::ValueLength { value_bytes: 16, seen_bytes: 15 });
    assert_eq!(Feed::view(1, &bytes[..15]), refused);
    let refused = Err(BadMessage::SliceLength { unit_bytes: 16, seen_bytes: 17 });
    assert_eq!(Feed::view(2, &bytes[..17]), refused);
    let refused = Err(BadMessage::ValueLength { value_bytes: 0, seen_bytes: 1 });
    assert_eq!(Feed::view(5, &bytes[..1]), refused);
}

#[test]
fn view_at_an_odd_address_is_refused_where_lent_and_taken_where_copied() {
    let skewed = Aligned::of(ORDER.as_payload(), 1);
    let misaligned = Err(BadMessage::Misaligned { align_bytes: 4 });
    assert_eq!(Feed::view(1, &skewed.0[1..17]), misaligned);
    assert_eq!(Feed::view(2, &skewed.0[1..17]), misaligned);
    assert_eq!(Feed::view(0, &skewed.0[1..9]), Ok(Feed::Tick(ORDER.tick)));
}

#[test]
fn view_of_every_wrong_bit_pattern_is_refused() {
    // A char beyond Unicode, a surrogate, sides of neither value, a bool of 2.
    for (at, wrong) in [(10, 0x11), (9, 0xD8), (12, 0), (13, 2), (13, 0xFF), (14, 2), (14, 0xFF)] {
        let mut bytes = Aligned::of(ORDER.as_payload(), 0);
        bytes.0[at] = wrong;
        assert_eq!(Feed::view(1, &bytes.0[..16]), Err(BadMessage::BitPattern), "{wrong} at {at}");
        let mut second = Aligned::of(ORDER.as_payload(), 0);
        second.0.copy_within(0..16, 16);
        second.0[16 + at] = wrong;
        assert_eq!(Feed::view(2, &second.0[..32]), Err(BadMessage::BitPattern));
    }
    assert_eq!(Small::view(1, &[0, 1, 1, 2]), Err(BadMessage::BitPattern));
}

#[test]
fn view_of_broken_text_says_where_it_breaks() {
    assert_eq!(Feed::view(4, b"ab\xC3"), Err(BadMessage::NotUtf8 { valid_bytes: 2 }));
}

#[test]
fn bad_message_reads_as_a_sentence() {
    let told = BadMessage::ValueLength { value_bytes: 8, seen_bytes: 7 }.to_string();
    assert_eq!(told, "a payload of 7 bytes is no message of 8 bytes");
}

/// Judges an order by the rules of the language, without the code under test.
fn is_order(bytes: &[u8]) -> bool {
    let letter = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    let side = |byte: u8| byte == 1 || byte == 0xFE;
    char::from_u32(letter).is_some() && side(bytes[12]) && side(bytes[13]) && bytes[14] < 2
}

/// Bytes of which many are an order's, since few of all byte strings are.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let order = (
        any::<u64>(),
        0..0x11_1000_u32,
        prop::array::uniform4(prop::sample::select(vec![0, 1, 1, 1, 2, 0xFE, 0xFF])),
    );
    let order = order.prop_map(|(tick, letter, rest)| {
        [&tick.to_le_bytes()[..], &letter.to_le_bytes(), &rest].concat()
    });
    let orders = prop::collection::vec(order, 0..4).prop_map(|orders| orders.concat());
    let text = "\\PC{0,20}".prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..70), orders, text]
}

proptest! {
    #[test]
    fn view_of_any_bytes_is_right_or_refused(
        payload in payloads(), kind in 0_u32..8, skew in prop_oneof![3 => Just(0_usize), 1 => 0..16_usize]
    ) {
        let place = Aligned::of(&payload, skew);
        let payload = &place.0[skew..][..payload.len()];
        let (fits, aligned) = (payload.len() == 16, skew % 4 == 0);
        let whole = payload.len().is_multiple_of(16);
        let seen = Feed::view(kind, payload);
        let right = match kind {
            0 => payload.len() == 8,
            1 => fits && aligned && is_order(payload),
            2 => whole && aligned && payload.chunks(16).all(is_order),
            3 => true,
            4 => std::str::from_utf8(payload).is_ok(),
            5 => payload.is_empty(),
            _ => false,
        };
        prop_assert_eq!(seen.is_ok(), right, "{:?}", seen);
        // What was taken is the bytes that were given: posting it again makes the same.
        let again = match &seen {
            Ok(Feed::Tick(tick)) => tick.as_payload(),
            Ok(Feed::Order(order)) => order.as_payload(),
            Ok(Feed::Orders(orders)) => orders.as_payload(),
            Ok(Feed::Blob(blob)) => blob.as_payload(),
            Ok(Feed::Note(note)) => note.as_payload(),
            Ok(Feed::Stop(stop)) => stop.as_payload(),
            Err(_) => payload,
        };
        prop_assert_eq!(again, payload);
    }
}
