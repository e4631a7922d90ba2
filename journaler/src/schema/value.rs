//! What a field of an event holds, read by its descriptor.

use std::fmt::{self, Display};

use super::{Field, FieldType};

/// The value of a field, borrowed from the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An unsigned integer.
    Unsigned(u128),
    /// A signed integer.
    Signed(i128),
    /// True or false.
    Bool(bool),
    /// Text without the zeros and spaces behind it.
    Text(&'a str),
    /// Bytes as they are, also characters that are no UTF-8.
    Bytes(&'a [u8]),
    /// Nanoseconds since 1970.
    Time(u64),
    /// `unscaled / 10^scale`.
    Decimal {
        /// The integer.
        unscaled: i128,
        /// Digits behind the point.
        scale: u8,
    },
    /// One of the named values, or one without a name.
    Enumeration {
        /// The number.
        number: u128,
        /// Its name, if it has one.
        name: Option<&'a str>,
    },
    /// A set of named bits.
    Flags {
        /// The bits.
        bits: u128,
        /// The field that knows their names.
        field: &'a Field,
    },
    /// Several elements.
    Array {
        /// The field with its elements' type.
        field: &'a Field,
        /// All elements' bytes.
        bytes: &'a [u8],
    },
}

impl Field {
    /// The value in this event; `None` if the event is too short for it.
    #[must_use]
    pub fn value<'a>(&'a self, event: &'a [u8]) -> Option<Value<'a>> {
        let at = self.offset as usize;
        let bytes = event.get(at..at.checked_add(self.bytes() as usize)?)?;
        match self.kind {
            FieldType::Chars => Some(text(bytes)),
            FieldType::Bytes | FieldType::Padding => Some(Value::Bytes(bytes)),
            _ if self.count != 1 => Some(Value::Array { field: self, bytes }),
            _ => self.element(bytes),
        }
    }

    fn element<'a>(&'a self, bytes: &'a [u8]) -> Option<Value<'a>> {
        let number = unsigned(bytes)?;
        let shift = 128 - 8 * u32::from(self.element_size);
        let signed = (number << shift).cast_signed() >> shift;
        Some(match self.kind {
            FieldType::Unsigned => Value::Unsigned(number),
            FieldType::Signed => Value::Signed(signed),
            FieldType::Bool => Value::Bool(number != 0),
            FieldType::Time => Value::Time(u64::try_from(number).ok()?),
            FieldType::Decimal => Value::Decimal {
                unscaled: signed,
                scale: self.scale,
            },
            FieldType::Enumeration => Value::Enumeration {
                number,
                name: self.name_of(number),
            },
            FieldType::Flags => Value::Flags {
                bits: number,
                field: self,
            },
            FieldType::Chars | FieldType::Bytes | FieldType::Padding => Value::Bytes(bytes),
        })
    }

    fn name_of(&self, number: u128) -> Option<&str> {
        let named = self
            .values
            .iter()
            .find(|value| i128::from(value.number).cast_unsigned() == number);
        named.map(|value| &*value.name)
    }
}

/// Little-endian, of 1 to 16 bytes.
pub(super) fn unsigned(bytes: &[u8]) -> Option<u128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Some(u128::from_le_bytes(wide))
}

fn text(bytes: &[u8]) -> Value<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.trim_end_matches(['\0', ' '])),
        Err(_) => Value::Bytes(bytes),
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Unsigned(number) => number.fmt(f),
            Value::Signed(number) => number.fmt(f),
            Value::Bool(truth) => truth.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Value::Time(nanoseconds) => time(nanoseconds, f),
            Value::Decimal { unscaled, scale } => decimal(unscaled, scale, f),
            Value::Enumeration {
                name: Some(name), ..
            } => f.write_str(name),
            Value::Enumeration { number, name: None } => number.fmt(f),
            Value::Flags { bits, field } => flags(bits, field, f),
            Value::Array { field, bytes } => {
                f.write_str("[")?;
                let elements = bytes.chunks_exact(usize::from(field.element_size).max(1));
                for (at, element) in elements.enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    f.write_str(comma)?;
                    field
                        .element(element)
                        .map_or(Ok(()), |value| value.fmt(f))?;
                }
                f.write_str("]")
            }
        }
    }
}

fn decimal(unscaled: i128, scale: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(unit) = 10u128.checked_pow(u32::from(scale)).filter(|_| scale > 0) else {
        return unscaled.fmt(f);
    };
    let sign = if unscaled < 0 { "-" } else { "" };
    let (whole, rest) = (
        unscaled.unsigned_abs() / unit,
        unscaled.unsigned_abs() % unit,
    );
    write!(
        f,
        "{sign}{whole}.{rest:0width$}",
        width = usize::from(scale)
    )
}

fn flags(bits: u128, field: &Field, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut left = bits;
    let mut separator = "";
    for value in field.values.iter() {
        let mask = i128::from(value.number).cast_unsigned();
        if mask != 0 && bits & mask == mask {
            write!(f, "{separator}{}", value.name)?;
            separator = "|";
            left &= !mask;
        }
    }
    if left != 0 || separator.is_empty() {
        write!(f, "{separator}{left}")
    } else {
        Ok(())
    }
}

/// `2026-01-31T12:00:00.000000001Z`, by the civil calendar.
fn time(nanoseconds: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(
        f,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z"
    )
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted
/// from March here, so that the leap day is the last of a year; 400 of them are
/// 146 097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0 = days + 719_468;
    let (cycle, day_of_cycle) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let leap_days = day_of_cycle / 1460 + day_of_cycle / 146_096 - day_of_cycle / 36_524;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (
        year_of_cycle + 400 * cycle + u64::from(month <= 2),
        month,
        day,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_calendar() {
        let shown = |seconds: u64| Value::Time(seconds * 1_000_000_000 + 5).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(shown(951_782_399), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00.000000005Z");
    }

    #[test]
    fn decimals_keep_sign_and_zeros() {
        let shown = |unscaled, scale| Value::Decimal { unscaled, scale }.to_string();
        assert_eq!(shown(-5, 2), "-0.05");
        assert_eq!(shown(1_000_250, 4), "100.0250");
        assert_eq!(shown(7, 0), "7");
    }
}
