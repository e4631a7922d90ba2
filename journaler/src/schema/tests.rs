//! A schema made by the macro, written, read and used.

use bytemuck::{Pod, Zeroable};

use super::{FieldType, Schema, SchemaError, Value};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    time_ns: u64,
    session: u32,
    kind: u16,
    version: u16,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Event {
    head: Head,
    body: [u8; 48],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct New {
    head: Head,
    price: i64,
    quantity: u32,
    side: u8,
    marks: u8,
    urgent: u8,
    reserved: u8,
    symbol: [u8; 8],
    levels: [i16; 4],
    token: [u8; 16],
}

crate::schema! {
    ORDERS: "test.orders" version 3 for Event, kind by head.kind;
    header { head.time_ns: time; head.session: plain; head.kind: plain; head.version: plain; }
    1 = "new" as New {
        price: decimal(4);
        quantity: plain;
        side: enumeration { buy = 1, sell = 2 };
        marks: flags { hidden = 1, post_only = 2 };
        urgent: boolean;
        reserved: padding;
        symbol: chars;
        levels: plain;
        token: plain;
    }
    2 = "raw" as Event { body: plain; }
}

fn event() -> Event {
    let head = Head {
        time_ns: 1,
        session: 9,
        kind: 1,
        version: 3,
    };
    bytemuck::cast(New {
        head,
        price: -15_000,
        quantity: 10,
        side: 2,
        marks: 3,
        urgent: 1,
        reserved: 0,
        symbol: *b"ACME\0\0\0\0",
        levels: [1, -2, 3, -4],
        token: [0xab; 16],
    })
}

#[test]
fn sc2_a_schema_survives_its_descriptor_and_the_hash_is_pinned() {
    let bytes = ORDERS.encode().unwrap();
    let read = Schema::decode(&bytes).unwrap();
    assert_eq!(read, ORDERS);
    assert_eq!(read.encode().unwrap(), bytes);
    assert_eq!(
        ORDERS.hash(),
        12_844_965_050_643_901_631,
        "the layout changed: raise the version, then pin the new hash"
    );
}

#[test]
fn an_event_is_shown_by_its_descriptor_alone() {
    let schema = Schema::decode(&ORDERS.encode().unwrap()).unwrap();
    let event = event();
    let shown: Vec<String> = schema
        .values(bytemuck::bytes_of(&event))
        .map(|(field, value)| format!("{}={value}", field.name))
        .collect();
    let expected = "time_ns=1970-01-01T00:00:00.000000001Z session=9 kind=1 version=3 price=-1.5000 \
        quantity=10 side=sell marks=hidden|post_only urgent=true symbol=ACME levels=[1,-2,3,-4] \
        token=abababababababababababababababab";
    assert_eq!(shown.join(" "), expected);
}

#[test]
fn an_unknown_kind_shows_the_shared_fields_only() {
    let mut event = event();
    event.head.kind = 77;
    let values: Vec<_> = ORDERS
        .values(bytemuck::bytes_of(&event))
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values.len(), 4);
    assert_eq!(values[2], Value::Unsigned(77));
}

#[test]
fn sc1_a_hole_in_the_layout_is_refused() {
    let mut schema = ORDERS.clone();
    schema.kinds.to_mut()[0].fields.to_mut().remove(2);
    assert!(matches!(
        schema.encode(),
        Err(SchemaError::Cover {
            kind: 1,
            event_size: 64
        })
    ));
    assert_eq!(ORDERS.kinds[0].fields[5].kind, FieldType::Padding);
}

#[test]
fn every_flipped_bit_of_a_descriptor_shows() {
    let bytes = ORDERS.encode().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Schema::decode(&bad).is_err(), "bit {bit}");
    }
}
