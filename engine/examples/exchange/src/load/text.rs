//! Rows of text, and the numbers in them.

use std::io::{BufRead, Read};

use super::{At, LoadError, Problem};

/// Lines of a text, counted; one buffer for all of them.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    line: String,
    number: u64,
}

/// No line of these formats is longer.
const LINE_BYTES_MAX: u64 = 4_096;

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(reader: R) -> Self {
        Self {
            reader,
            line: String::new(),
            number: 0,
        }
    }

    pub(crate) const fn at(&self) -> At {
        At::Line(self.number)
    }

    /// The next line without its end; `None` at the end of the text.
    pub(crate) fn next(&mut self) -> Result<Option<&str>, LoadError> {
        self.line.clear();
        self.number += 1;
        let mut bytes = std::mem::take(&mut self.line).into_bytes();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| LoadError::new(At::Line(self.number), error))?;
        if read == 0 {
            return Ok(None);
        }
        self.line = String::from_utf8(bytes).map_err(|_| {
            let value = Problem::Value {
                field: "line",
                found: "bytes that are no text".into(),
            };
            LoadError::new(At::Line(self.number), value)
        })?;
        Ok(Some(self.line.trim_end_matches(['\n', '\r'])))
    }
}

pub(crate) fn whole<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Problem> {
    let found = || Problem::NotANumber {
        field,
        found: text.to_owned(),
    };
    text.trim().parse().map_err(|_| found())
}

pub(crate) fn decimal(field: &'static str, text: &str, decimals: u32) -> Result<i64, Problem> {
    let found = |source| Problem::Decimal {
        field,
        found: text.to_owned(),
        source,
    };
    crate::price::parse_decimal(text.trim(), decimals).map_err(found)
}

/// A price or time that is at least `least`.
pub(crate) fn at_least(field: &'static str, value: i64, least: i64) -> Result<i64, Problem> {
    if value >= least {
        return Ok(value);
    }
    Err(Problem::Value {
        field,
        found: value.to_string(),
    })
}
