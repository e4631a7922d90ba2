//! How values of a journal are shown.

use std::io::{self, Write};

use lockstep_journaler::Schema;
use lockstep_journaler::schema::Value;
use serde_json::json;

use crate::verb::{Format, Global};

/// The result document on stdout, in the format asked for; `quiet` prints nothing. An object says which verb
/// it is of.
pub(in crate::verb) fn result(
    global: &Global,
    json: impl FnOnce() -> serde_json::Value,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match global.format {
        Format::Json => {
            let mut told = json();
            if let Some(object) = told.as_object_mut() {
                object
                    .entry("verb")
                    .or_insert_with(|| global.verb.clone().into());
            }
            writeln!(out, "{told:#}")?;
        }
        Format::Text => text(&mut out)?,
        Format::Quiet => {}
    }
    out.flush()
}

/// An identity as it is shown everywhere.
pub(super) fn identity(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, factor) in UNITS {
        if bytes >= factor {
            let tenths = u128::from(bytes) * 10 / u128::from(factor);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// A time of the log; a dash where there is none.
pub(in crate::verb) fn time(ns: u64) -> String {
    if ns == 0 {
        "-".to_owned()
    } else {
        Value::Time(ns).to_string()
    }
}

/// The same to the millisecond, for who reads lines.
pub(in crate::verb) fn time_to_ms(ns: u64) -> String {
    let text = time(ns);
    match text.split_once('.') {
        Some((seconds, rest)) if rest.len() > 3 => format!("{seconds}.{}Z", &rest[..3]),
        _ => text,
    }
}

/// Nanoseconds for people.
pub(super) fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} us", ns / 1_000, ns / 100 % 10),
        _ => format!("{}.{:02} ms", ns / 1_000_000, ns / 10_000 % 100),
    }
}

/// The kind's name of an event.
pub(in crate::verb) fn kind_name(schema: &Schema, event: &[u8]) -> String {
    match schema.kind_number(event) {
        None => "?".to_owned(),
        Some(number) => match schema.kind(number) {
            Some(kind) => kind.name.to_string(),
            None => format!("kind {number}"),
        },
    }
}

/// A field's value as JSON: numbers where JSON has them exactly, else text as in `dump`.
pub(in crate::verb) fn field(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Unsigned(number) => match u64::try_from(*number) {
            Ok(number) => json!(number),
            Err(_) => json!(number.to_string()),
        },
        Value::Signed(number) => match i64::try_from(*number) {
            Ok(number) => json!(number),
            Err(_) => json!(number.to_string()),
        },
        Value::Bool(truth) => json!(truth),
        Value::Time(ns) => json!(ns),
        // A decimal as text keeps every digit; a JSON number may not.
        other => json!(other.to_string()),
    }
}

/// Text for a cell of CSV: quoted where it must be.
pub(super) fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(nanoseconds(177_400), "177.4 us");
        assert_eq!(nanoseconds(5_182_000), "5.18 ms");
        assert_eq!(cell("a,b\"c"), "\"a,b\"\"c\"");
    }

    #[test]
    fn times_are_cut_to_the_millisecond() {
        let ns = 1_795_631_282_123_456_789;
        assert_eq!(time_to_ms(ns), "2026-11-25T18:28:02.123Z");
        assert_eq!(time_to_ms(0), "-");
    }
}
