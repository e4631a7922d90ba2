//! The schema as bytes in a segment: fixed-width tables, one behind the other.
//!
//! ```text
//!   0 magic        LOCKSCHM       24 version      u32     64 name  [u8; 64], zeros behind
//!   8 length       u32            28 event_size   u32    128 fields × 64 B: the shared ones first,
//!  12 crc          u32 over 16..  32 kind_offset  u32                       then kind by kind
//!  16 hash         u64            36 kind_size    u32        kinds  × 64 B
//!                                 40 shared, fields, kinds, values: u32 each, then 8 zeros
//!                                                            values × 48 B: field by field
//!  field  0 name [u8; 32]   32 type u8, scale u8, element_size u16   36 offset  40 count
//!        44 first_value     48 values   52..64 zeros
//!  kind   0 number u32       4 first_field   8 fields  12 zeros   16 name [u8; 48]
//!  value  0 number i64       8 name [u8; 40]
//! ```
//!
//! `hash` is FNV-1a, 64 bits, over the bytes from 24 on (`SC2`).

use std::borrow::Cow;

use bytemuck::{Pod, Zeroable};

use super::{Field, FieldType, Kind, NamedValue, Schema, macros};

/// The longest descriptor: what a segment keeps room for.
pub const DESCRIPTOR_BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"LOCKSCHM";

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    length: u32,
    crc: u32,
    hash: u64,
    version: u32,
    event_size: u32,
    kind_offset: u32,
    kind_size: u32,
    shared: u32,
    fields: u32,
    kinds: u32,
    values: u32,
    reserved: u64,
    name: [u8; 64],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct FieldRow {
    name: [u8; 32],
    kind: u8,
    scale: u8,
    element_size: u16,
    offset: u32,
    count: u32,
    first_value: u32,
    values: u32,
    reserved: [u32; 3],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct KindRow {
    number: u32,
    first_field: u32,
    fields: u32,
    reserved: u32,
    name: [u8; 48],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ValueRow {
    number: i64,
    name: [u8; 40],
}

const _: () = assert!(size_of::<Head>() == 128 && size_of::<FieldRow>() == 64);
const _: () = assert!(size_of::<KindRow>() == 64 && size_of::<ValueRow>() == 48);

/// Why a schema cannot be written, or a descriptor not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A name is longer than its place in the descriptor, or empty.
    #[error("schema: the name {name:?} has {} bytes, 1 to {max} are possible", name.len())]
    Name {
        /// The name.
        name: String,
        /// Bytes that there is room for.
        max: usize,
    },
    /// The descriptor is longer than a segment has room for.
    #[error(
        "schema: the descriptor takes {bytes} bytes, at most {DESCRIPTOR_BYTES_MAX} are possible: name fewer values"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The fields leave bytes of the event out, or take some twice.
    #[error(
        "schema: the fields of kind {kind} do not cover each of the {event_size} bytes of an event once (SC1)"
    )]
    Cover {
        /// The kind's number.
        kind: u32,
        /// Bytes of an event.
        event_size: u32,
    },
    /// The event's size is none that a journal can hold.
    #[error("schema: an event of {event_size} bytes: a multiple of 8 from 8 to 65536 is possible")]
    EventSize {
        /// The size.
        event_size: u32,
    },
    /// The bytes are no descriptor: cut short, another magic, a wrong CRC, or rows that
    /// point outside.
    #[error("schema: the descriptor is damaged: {what}")]
    Damaged {
        /// What does not hold.
        what: &'static str,
    },
}

impl Schema {
    /// The descriptor's bytes.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] names what does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, SchemaError> {
        self.check()?;
        let mut fields: Vec<FieldRow> = Vec::new();
        let mut kinds: Vec<KindRow> = Vec::new();
        let mut values: Vec<ValueRow> = Vec::new();
        for field in self.header.iter() {
            fields.push(field_row(field, &mut values)?);
        }
        for kind in self.kinds.iter() {
            let first_field = row_count(fields.len())?;
            for field in kind.fields.iter() {
                fields.push(field_row(field, &mut values)?);
            }
            kinds.push(KindRow {
                number: kind.number,
                first_field,
                fields: row_count(kind.fields.len())?,
                reserved: 0,
                name: name_bytes(&kind.name)?,
            });
        }
        let mut head = Head {
            magic: MAGIC,
            length: 0,
            crc: 0,
            hash: 0,
            version: self.version,
            event_size: self.event_size,
            kind_offset: self.kind_offset,
            kind_size: self.kind_size,
            shared: row_count(self.header.len())?,
            fields: row_count(fields.len())?,
            kinds: row_count(kinds.len())?,
            values: row_count(values.len())?,
            reserved: 0,
            name: name_bytes(&self.name)?,
        };
        let mut bytes = bytemuck::bytes_of(&head).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&fields));
        bytes.extend_from_slice(bytemuck::cast_slice(&kinds));
        bytes.extend_from_slice(bytemuck::cast_slice(&values));
        head.length = row_count(bytes.len())?;
        head.hash = fnv(&bytes[24..]);
        bytes[..128].copy_from_slice(bytemuck::bytes_of(&head));
        head.crc = crc32c::crc32c(&bytes[16..]);
        bytes[..128].copy_from_slice(bytemuck::bytes_of(&head));
        Ok(bytes)
    }

    /// The schema in these bytes; what lies behind the descriptor is not looked at.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Damaged`] and what does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Schema, SchemaError> {
        let damaged = |what| SchemaError::Damaged { what };
        let head = bytes.get(..128).ok_or(damaged("shorter than its head"))?;
        let head: Head = bytemuck::pod_read_unaligned(head);
        if head.magic != MAGIC {
            return Err(damaged("the magic is not LOCKSCHM"));
        }
        let bytes = bytes
            .get(..head.length as usize)
            .ok_or(damaged("shorter than it says"))?;
        let sealed = bytes.get(16..).ok_or(damaged("shorter than its head"))?;
        if crc32c::crc32c(sealed) != head.crc {
            return Err(damaged("the CRC does not hold"));
        }
        let tables = Tables::split(&head, &bytes[128..]).ok_or(damaged("the tables do not fit"))?;
        tables
            .schema(&head)
            .ok_or(damaged("a row points outside its table, or is unknown"))?
            .checked()
    }

    /// The hash of the layout: equal for equal descriptors (`SC2`). Pin it in a test.
    ///
    /// # Panics
    ///
    /// For a schema that cannot be encoded.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let bytes = self
            .encode()
            .expect("a schema in use has been encoded before");
        fnv(&bytes[24..])
    }

    fn checked(self) -> Result<Schema, SchemaError> {
        self.check().map(|()| self)
    }

    fn check(&self) -> Result<(), SchemaError> {
        if !(8..=65536).contains(&self.event_size) || !self.event_size.is_multiple_of(8) {
            return Err(SchemaError::EventSize {
                event_size: self.event_size,
            });
        }
        if self.kinds.is_empty() {
            return Err(SchemaError::Damaged {
                what: "an event has at least one kind",
            });
        }
        let number_end = u64::from(self.kind_offset) + u64::from(self.kind_size);
        if !matches!(self.kind_size, 0 | 1 | 2 | 4) || number_end > u64::from(self.event_size) {
            return Err(SchemaError::Damaged {
                what: "the kind's number is not inside the event",
            });
        }
        let fields = || {
            self.kinds
                .iter()
                .flat_map(|kind| kind.fields.iter())
                .chain(self.header.iter())
        };
        if !fields().all(Field::is_possible) {
            return Err(SchemaError::Damaged {
                what: "a field has an impossible size",
            });
        }
        let uncovered = |kind: &&Kind| !macros::covers(&self.header, kind, self.event_size);
        match self.kinds.iter().find(uncovered) {
            Some(kind) => Err(SchemaError::Cover {
                kind: kind.number,
                event_size: self.event_size,
            }),
            None => Ok(()),
        }
    }
}

impl Field {
    fn is_possible(&self) -> bool {
        let bytes = u64::from(self.element_size) * u64::from(self.count);
        matches!(self.element_size, 1 | 2 | 4 | 8 | 16)
            && (1..=65536).contains(&bytes)
            && self.scale <= 18
    }
}

struct Tables {
    fields: Vec<FieldRow>,
    kinds: Vec<KindRow>,
    values: Vec<ValueRow>,
}

impl Tables {
    fn split(head: &Head, bytes: &[u8]) -> Option<Tables> {
        let (fields, bytes) = rows(bytes, head.fields)?;
        let (kinds, bytes) = rows(bytes, head.kinds)?;
        let (values, bytes) = rows(bytes, head.values)?;
        bytes.is_empty().then_some(Tables {
            fields,
            kinds,
            values,
        })
    }

    fn schema(&self, head: &Head) -> Option<Schema> {
        let kind = |row: &KindRow| {
            Some(Kind {
                number: row.number,
                name: name_of(&row.name)?,
                fields: self.fields(row.first_field, row.fields)?,
            })
        };
        Some(Schema {
            name: name_of(&head.name)?,
            version: head.version,
            event_size: head.event_size,
            kind_offset: head.kind_offset,
            kind_size: head.kind_size,
            header: self.fields(0, head.shared)?,
            kinds: self
                .kinds
                .iter()
                .map(kind)
                .collect::<Option<Vec<_>>>()?
                .into(),
        })
    }

    fn fields(&self, first: u32, count: u32) -> Option<Cow<'static, [Field]>> {
        let rows = self
            .fields
            .get(first as usize..first.checked_add(count)? as usize)?;
        let field = |row: &FieldRow| {
            let end = row.first_value.checked_add(row.values)?;
            let values = self.values.get(row.first_value as usize..end as usize)?;
            let value = |row: &ValueRow| {
                Some(NamedValue {
                    number: row.number,
                    name: name_of(&row.name)?,
                })
            };
            Some(Field {
                name: name_of(&row.name)?,
                kind: FieldType::of_number(row.kind)?,
                scale: row.scale,
                element_size: row.element_size,
                offset: row.offset,
                count: row.count,
                values: values.iter().map(value).collect::<Option<Vec<_>>>()?.into(),
            })
        };
        rows.iter()
            .map(field)
            .collect::<Option<Vec<_>>>()
            .map(Cow::Owned)
    }
}

fn rows<T: Pod>(bytes: &[u8], count: u32) -> Option<(Vec<T>, &[u8])> {
    let length = (count as usize).checked_mul(size_of::<T>())?;
    let (table, rest) = bytes.split_at_checked(length)?;
    Some((
        table
            .chunks_exact(size_of::<T>())
            .map(bytemuck::pod_read_unaligned)
            .collect(),
        rest,
    ))
}

fn field_row(field: &Field, values: &mut Vec<ValueRow>) -> Result<FieldRow, SchemaError> {
    let first_value = row_count(values.len())?;
    for value in field.values.iter() {
        values.push(ValueRow {
            number: value.number,
            name: name_bytes(&value.name)?,
        });
    }
    Ok(FieldRow {
        name: name_bytes(&field.name)?,
        kind: field.kind as u8,
        scale: field.scale,
        element_size: field.element_size,
        offset: field.offset,
        count: field.count,
        first_value,
        values: row_count(field.values.len())?,
        reserved: [0; 3],
    })
}

fn row_count(count: usize) -> Result<u32, SchemaError> {
    match u32::try_from(count) {
        Ok(count) if count as usize <= DESCRIPTOR_BYTES_MAX => Ok(count),
        _ => Err(SchemaError::TooLong { bytes: count }),
    }
}

fn name_bytes<const N: usize>(name: &str) -> Result<[u8; N], SchemaError> {
    if name.is_empty() || name.len() > N || name.contains('\0') {
        return Err(SchemaError::Name {
            name: name.to_owned(),
            max: N,
        });
    }
    let mut bytes = [0; N];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn name_of(bytes: &[u8]) -> Option<Cow<'static, str>> {
    let length = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let is_padded = bytes[length..].iter().all(|&byte| byte == 0);
    let name = std::str::from_utf8(&bytes[..length]).ok()?;
    (is_padded && !name.is_empty()).then(|| Cow::Owned(name.to_owned()))
}

/// FNV-1a, 64 bits: spreads names and layouts well enough to tell them apart, in three lines.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
