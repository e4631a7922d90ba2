//! The layout of events as a segment's header tells it, so that the tools can
//! show the journal of an application that they were not built with.
//!
//! An event has fields that all kinds share (its header) and fields of its kind;
//! one of the shared fields is the kind's number. The descriptor is generated
//! from the structs by [`schema!`](macro@crate::schema), never by hand:
//!
//! ```
//! use bytemuck::{Pod, Zeroable};
//!
//! #[derive(Clone, Copy, Pod, Zeroable)]
//! #[repr(C)]
//! struct Order { time_ns: u64, kind: u32, side: u8, symbol: [u8; 3], price: i64, quantity: u64 }
//!
//! lockstep_journaler::schema! {
//!     /// Orders of the example.
//!     ORDERS: "example.orders" version 1 for Order, kind by kind;
//!     header { time_ns: time; kind: plain; }
//!     1 = "new" as Order {
//!         side: enumeration { buy = 1, sell = 2 };
//!         symbol: chars;
//!         price: decimal(4);
//!         quantity: plain;
//!     }
//! }
//! assert_eq!(ORDERS.kind(1).unwrap().fields[2].name, "price");
//! ```
//!
//! # Invariants
//!
//! * `SC1` The fields of a kind and the shared ones cover every byte of the event
//!   once: checked when the program is compiled, and when a file is read.
//! * `SC2` Two schemas with one hash have one layout, and read one another's events.
//! * `SC3` A segment's schema lists every kind that its writer can write: a writer with more
//!   kinds begins a new one.

use std::borrow::Cow;
use std::fmt;

mod continued;
mod descriptor;
mod macros;
mod value;

pub(crate) use continued::GoesOn;
pub use descriptor::{DESCRIPTOR_BYTES_MAX, SchemaError};
#[doc(hidden)]
pub use macros::{
    FieldShape, Shape, check_kind, in_event, last_name, rescaled, retyped, shape_of, with_values,
};
pub use value::Value;

/// The layout of the events in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// What the events are: `exchange.orders`.
    pub name: Cow<'static, str>,
    /// Raised with every change of the layout.
    pub version: u32,
    /// Bytes of an event, a multiple of 8.
    pub event_size: u32,
    /// Where in an event its kind's number is.
    pub kind_offset: u32,
    /// Bytes of the kind's number: 1, 2, 4, or 0 where there is one kind only.
    pub kind_size: u32,
    /// The fields that all kinds share.
    pub header: Cow<'static, [Field]>,
    /// The kinds of events.
    pub kinds: Cow<'static, [Kind]>,
}

/// One kind of event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Its number in the event.
    pub number: u32,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its own fields, by offset.
    pub fields: Cow<'static, [Field]>,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, at most 32 bytes.
    pub name: Cow<'static, str>,
    /// How its bytes are read.
    pub kind: FieldType,
    /// Digits behind the point of a decimal.
    pub scale: u8,
    /// Bytes of one element.
    pub element_size: u16,
    /// From the start of the event.
    pub offset: u32,
    /// How many elements; of characters and bytes, how many bytes.
    pub count: u32,
    /// The names of an enumeration's values, of a flag set's bits.
    pub values: Cow<'static, [NamedValue]>,
}

/// The name of a value, or of a bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedValue {
    /// The value, or the mask.
    pub number: i64,
    /// Its name, at most 40 bytes.
    pub name: Cow<'static, str>,
}

/// How the bytes of a field are read, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldType {
    /// An unsigned integer of `element_size` bytes.
    Unsigned = 1,
    /// A signed integer of `element_size` bytes.
    Signed = 2,
    /// One byte, 0 or 1.
    Bool = 3,
    /// `count` bytes of UTF-8, zeros or spaces behind.
    Chars = 4,
    /// `count` bytes as they are.
    Bytes = 5,
    /// Nanoseconds since 1970, unsigned.
    Time = 6,
    /// A signed integer, `scale` digits of it behind the point.
    Decimal = 7,
    /// An unsigned integer that is one of the named values.
    Enumeration = 8,
    /// An unsigned integer whose bits have names.
    Flags = 9,
    /// Zeros that fill the layout.
    Padding = 10,
}

/// An event type with a schema: what [`schema!`](macro@crate::schema) makes of a struct.
pub trait Described: bytemuck::Pod {
    /// The layout of its bytes.
    fn schema() -> &'static Schema;

    /// The hash of that layout, computed once.
    fn schema_hash() -> u64;
}

impl Schema {
    /// The kind with this number.
    #[must_use]
    pub fn kind(&self, number: u32) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.number == number)
    }

    /// The number of this event's kind; that of the only kind where events do not say.
    #[must_use]
    pub fn kind_number(&self, event: &[u8]) -> Option<u32> {
        if self.kind_size == 0 {
            return self.kinds.first().map(|kind| kind.number);
        }
        let at = self.kind_offset as usize;
        let bytes = event.get(at..at + self.kind_size as usize)?;
        u32::try_from(value::unsigned(bytes)?).ok()
    }

    /// The fields of this event, shared ones first, with their values; only the shared ones
    /// where the kind is not known. Padding is left out.
    pub fn values<'a>(&'a self, event: &'a [u8]) -> impl Iterator<Item = (&'a Field, Value<'a>)> {
        let own = self.kind_number(event).and_then(|number| self.kind(number));
        let own = own.map_or(&[][..], |kind| &kind.fields);
        let fields = self.header.iter().chain(own);
        fields
            .filter(|field| field.kind != FieldType::Padding)
            .filter_map(|field| Some((field, field.value(event)?)))
    }
}

impl Field {
    /// Bytes it takes in an event.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.element_size as u32 * self.count
    }
}

impl FieldType {
    const ALL: [FieldType; 10] = [
        FieldType::Unsigned,
        FieldType::Signed,
        FieldType::Bool,
        FieldType::Chars,
        FieldType::Bytes,
        FieldType::Time,
        FieldType::Decimal,
        FieldType::Enumeration,
        FieldType::Flags,
        FieldType::Padding,
    ];

    pub(crate) fn of_number(number: u8) -> Option<FieldType> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        let bits = u32::from(self.element_size) * 8;
        match self.kind {
            FieldType::Unsigned => write!(f, "u{bits}")?,
            FieldType::Signed => write!(f, "i{bits}")?,
            FieldType::Bool => write!(f, "bool")?,
            FieldType::Chars => return write!(f, "char[{}]", self.count),
            FieldType::Bytes => return write!(f, "bytes[{}]", self.count),
            FieldType::Time => write!(f, "time")?,
            FieldType::Decimal => write!(f, "decimal({}) i{bits}", self.scale)?,
            FieldType::Enumeration => write!(f, "enum u{bits}")?,
            FieldType::Flags => write!(f, "flags u{bits}")?,
            FieldType::Padding => write!(f, "padding")?,
        }
        if self.count == 1 {
            Ok(())
        } else {
            write!(f, "[{}]", self.count)
        }
    }
}

#[cfg(test)]
mod tests;
