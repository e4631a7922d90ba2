//! How a schema comes from structs: by the compiler, with `offset_of!`, in a constant.

use std::borrow::Cow;

use super::{Field, FieldType, Kind, NamedValue};

/// Generates a [`Schema`](crate::schema::Schema) constant and the
/// [`Described`](crate::schema::Described) of the event from `repr(C)` structs.
///
/// ```text
/// schema! {
///     NAME: "what the events are" version N for Event, kind by FIELD;    or: , one kind;
///     header { FIELD: HOW; … }                    the fields that all kinds share, of Event
///     NUMBER = "kind" as Struct { FIELD: HOW; … } … more kinds, each a struct as large as Event
/// }
/// HOW:  plain | time | chars | bytes | boolean | padding | decimal(DIGITS)
///     | enumeration { name = value, … } | flags { name = mask, … }
/// ```
///
/// `plain` goes by the Rust type: integers, arrays of them, `[u8; N]` as bytes.
/// A field may be a path, `header.time_ns`; its last name counts. The compiler
/// refuses a kind whose fields leave a byte of the event out, or take it twice.
#[macro_export]
macro_rules! schema {
    (
        $(#[$meta:meta])*
        $vis:vis $constant:ident: $name:literal version $version:literal for $event:ty,
        $(kind by $($kind_field:ident).+)? $(one $kind_word:ident)?;
        header { $($shared:tt)* }
        $($number:literal = $kind_name:literal as $kind:ty { $($own:tt)* })*
    ) => {
        $(#[$meta])*
        $vis const $constant: $crate::schema::Schema = {
            const HEADER: &[$crate::schema::Field] = $crate::schema_fields!($event; [] $($shared)*);
            const KINDS: &[$crate::schema::Kind] = &[$({
                const FIELDS: &[$crate::schema::Field] = $crate::schema_fields!($kind; [] $($own)*);
                const { assert!(
                    ::core::mem::size_of::<$kind>() == ::core::mem::size_of::<$event>(),
                    "every kind is as large as the event"
                ) };
                $crate::schema::check_kind(HEADER, FIELDS, ::core::mem::size_of::<$event>());
                $crate::schema::Kind {
                    number: $number,
                    name: ::std::borrow::Cow::Borrowed($kind_name),
                    fields: ::std::borrow::Cow::Borrowed(FIELDS),
                }
            }),*];
            #[allow(unused_mut, unused_assignments, reason = "an event of one kind has no number")]
            const KIND_AT: (usize, usize) = {
                let mut at = (0, 0);
                $(at = (
                    ::core::mem::offset_of!($event, $($kind_field).+),
                    $crate::schema::shape_of::<$event, _>(|event| &event.$($kind_field).+).bytes(),
                );)?
                at
            };
            $crate::schema::Schema {
                name: ::std::borrow::Cow::Borrowed($name),
                version: $version,
                event_size: $crate::schema::in_event(::core::mem::size_of::<$event>()),
                kind_offset: $crate::schema::in_event(KIND_AT.0),
                kind_size: $crate::schema::in_event(KIND_AT.1),
                header: ::std::borrow::Cow::Borrowed(HEADER),
                kinds: ::std::borrow::Cow::Borrowed(KINDS),
            }
        };

        impl $crate::schema::Described for $event {
            fn schema() -> &'static $crate::schema::Schema {
                static SCHEMA: $crate::schema::Schema = $constant;
                &SCHEMA
            }

            fn schema_hash() -> u64 {
                static HASH: ::std::sync::OnceLock<u64> = ::std::sync::OnceLock::new();
                *HASH.get_or_init(|| Self::schema().hash())
            }
        }
    };
}

/// The fields of one struct, taken one by one from the front.
#[doc(hidden)]
#[macro_export]
macro_rules! schema_fields {
    ($of:ty; [$($done:expr,)*]) => { &[$($done,)*] };
    ($of:ty; [$($done:expr,)*] $($path:ident).+: plain; $($rest:tt)*) => {
        $crate::schema_fields!($of; [$($done,)* $crate::schema_field!($of, $($path).+),] $($rest)*)
    };
    ($of:ty; [$($done:expr,)*] $($path:ident).+: decimal($scale:literal); $($rest:tt)*) => {
        $crate::schema_fields!($of; [$($done,)* $crate::schema::rescaled(
            $crate::schema_field!($of, $($path).+), $scale,
        ),] $($rest)*)
    };
    ($of:ty; [$($done:expr,)*] $($path:ident).+: $how:ident {
        $($value_name:ident = $value:expr),* $(,)?
    }; $($rest:tt)*) => {
        $crate::schema_fields!($of; [$($done,)* $crate::schema::with_values(
            $crate::schema_field!($of, $($path).+),
            stringify!($how),
            &[$($crate::schema::NamedValue {
                number: $value as i64,
                name: ::std::borrow::Cow::Borrowed(stringify!($value_name)),
            }),*],
        ),] $($rest)*)
    };
    ($of:ty; [$($done:expr,)*] $($path:ident).+: $how:ident; $($rest:tt)*) => {
        $crate::schema_fields!($of; [$($done,)* $crate::schema::retyped(
            $crate::schema_field!($of, $($path).+), stringify!($how),
        ),] $($rest)*)
    };
}

/// One field as its Rust type has it.
#[doc(hidden)]
#[macro_export]
macro_rules! schema_field {
    ($of:ty, $($path:ident).+) => {
        $crate::schema::shape_of::<$of, _>(|event| &event.$($path).+).field(
            $crate::schema::last_name(stringify!($($path).+)),
            ::core::mem::offset_of!($of, $($path).+),
        )
    };
}

/// How a Rust type is laid out as a field.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    kind: FieldType,
    element_size: u16,
    count: u32,
}

/// A type that a field of an event may have.
pub trait FieldShape {
    /// Its layout.
    const SHAPE: Shape;
}

macro_rules! shapes {
    ($kind:ident: $($type:ty),*) => {$(
        #[expect(clippy::cast_possible_truncation, reason = "an integer has at most 16 bytes")]
        impl FieldShape for $type {
            const SHAPE: Shape =
                Shape { kind: FieldType::$kind, element_size: in_event(size_of::<$type>()) as u16, count: 1 };
        }
    )*};
}
shapes!(Unsigned: u8, u16, u32, u64, u128);
shapes!(Signed: i8, i16, i32, i64, i128);

impl<T: FieldShape, const N: usize> FieldShape for [T; N] {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an event has far fewer elements"
    )]
    const SHAPE: Shape = {
        let bytes_only = matches!(T::SHAPE.kind, FieldType::Unsigned) && T::SHAPE.element_size == 1;
        assert!(
            N <= 0xffff && T::SHAPE.count == 1,
            "a field is a number or one array of them"
        );
        Shape {
            kind: if bytes_only {
                FieldType::Bytes
            } else {
                T::SHAPE.kind
            },
            element_size: T::SHAPE.element_size,
            count: N as u32,
        }
    };
}

/// A size or an offset in an event.
///
/// # Panics
///
/// While compiling, for more than 64 KiB.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "asserted far below 2^32")]
pub const fn in_event(bytes: usize) -> u32 {
    assert!(bytes <= 65536, "an event has at most 64 KiB");
    bytes as u32
}

/// The shape of the field that `_field` names: it is never called, its type tells.
#[must_use]
pub const fn shape_of<T, F: FieldShape>(_field: fn(&T) -> &F) -> Shape {
    F::SHAPE
}

impl Shape {
    /// The field of this shape at `offset`.
    ///
    /// # Panics
    ///
    /// While compiling, for a name longer than 32 bytes.
    #[must_use]
    pub const fn field(self, name: &'static str, offset: usize) -> Field {
        assert!(name.len() <= 32, "a field's name has at most 32 bytes");
        Field {
            name: Cow::Borrowed(name),
            kind: self.kind,
            scale: 0,
            element_size: self.element_size,
            offset: in_event(offset),
            count: self.count,
            values: Cow::Borrowed(&[]),
        }
    }

    /// Bytes of all elements.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.element_size as usize * self.count as usize
    }
}

/// The name behind the last point of a path.
#[must_use]
pub const fn last_name(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut start = bytes.len();
    while start > 0 && bytes[start - 1] != b'.' && bytes[start - 1] != b' ' {
        start -= 1;
    }
    path.split_at(start).1
}

/// The field, read as `how` says.
///
/// # Panics
///
/// While compiling, for a way that the field's type has not.
#[must_use]
pub const fn retyped(mut field: Field, how: &str) -> Field {
    let is_byte = field.element_size == 1;
    field.kind = if same(how, "time") {
        assert!(field.element_size == 8, "a time is a u64 of nanoseconds");
        FieldType::Time
    } else if same(how, "chars") {
        assert!(is_byte, "characters are [u8; N]");
        FieldType::Chars
    } else if same(how, "bytes") {
        assert!(is_byte, "bytes are [u8; N]");
        FieldType::Bytes
    } else if same(how, "boolean") {
        assert!(is_byte, "a boolean is a u8");
        FieldType::Bool
    } else if same(how, "padding") {
        FieldType::Padding
    } else {
        panic!(
            "a field is plain, time, chars, bytes, boolean, padding, decimal, enumeration or flags"
        )
    };
    field
}

/// The field as a decimal.
///
/// # Panics
///
/// While compiling, for a field that is no signed integer.
#[must_use]
pub const fn rescaled(mut field: Field, scale: u8) -> Field {
    assert!(
        matches!(field.kind, FieldType::Signed),
        "a decimal is a signed integer"
    );
    assert!(
        scale <= 18,
        "a decimal has at most 18 digits behind the point"
    );
    field.kind = FieldType::Decimal;
    field.scale = scale;
    field
}

/// The field with names for its values.
///
/// # Panics
///
/// While compiling, for a field that is no unsigned integer.
#[must_use]
pub const fn with_values(mut field: Field, how: &str, values: &'static [NamedValue]) -> Field {
    assert!(
        matches!(field.kind, FieldType::Unsigned),
        "named values are unsigned integers"
    );
    field.kind = if same(how, "enumeration") {
        FieldType::Enumeration
    } else if same(how, "flags") {
        FieldType::Flags
    } else {
        panic!("named values are an enumeration or flags")
    };
    // A constant cannot drop what was there; borrowed and empty, it owns nothing.
    std::mem::forget(std::mem::replace(&mut field.values, Cow::Borrowed(values)));
    field
}

/// Checks that the fields cover the event exactly once (`SC1`).
///
/// # Panics
///
/// While compiling, unless they do.
pub const fn check_kind(header: &[Field], own: &[Field], event_size: usize) {
    assert!(
        event_size.is_multiple_of(8),
        "SC1: an event is a multiple of 8 bytes"
    );
    let mut covered = 0;
    let mut at = 0;
    while at < header.len() + own.len() {
        let field = nth(header, own, at);
        covered += field.bytes() as usize;
        let mut before = 0;
        while before < at {
            let other = nth(header, own, before);
            let apart = field.offset + field.bytes() <= other.offset
                || other.offset + other.bytes() <= field.offset;
            assert!(apart, "SC1: no two fields of an event share a byte");
            before += 1;
        }
        at += 1;
    }
    assert!(
        covered == event_size,
        "SC1: the fields cover every byte of the event"
    );
}

const fn nth<'a>(header: &'a [Field], own: &'a [Field], at: usize) -> &'a Field {
    if at < header.len() {
        &header[at]
    } else {
        &own[at - header.len()]
    }
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// As [`check_kind`], for a schema from a file: `false` instead of a panic.
pub(super) fn covers(header: &[Field], kind: &Kind, event_size: u32) -> bool {
    let mut ranges: Vec<(u64, u64)> = header
        .iter()
        .chain(kind.fields.iter())
        .map(|field| {
            (
                u64::from(field.offset),
                u64::from(field.element_size) * u64::from(field.count),
            )
        })
        .collect();
    ranges.sort_unstable();
    let mut end = 0;
    for (offset, bytes) in ranges {
        if offset != end {
            return false;
        }
        end = offset + bytes;
    }
    end == u64::from(event_size)
}
