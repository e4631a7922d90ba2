//! Numbers as people write and read them: `64Ki`, `1M/s`, `250ms`, `30,000,000`, `1.97ms`.

use std::time::Duration;

/// Suffixes of a count: decimal as in rates, binary as in sizes.
const SUFFIXES: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("", 1),
];

/// Suffixes of a duration, in nanoseconds.
const TIMES: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Reads `65536`, `64Ki`, `1.5M`, `1_000`.
///
/// # Errors
///
/// Says what is expected when `text` is no such number, or is not whole.
///
/// ```
/// use lockstep_perf::args::quantity::count;
///
/// assert_eq!(count("64Ki"), Ok(65_536));
/// assert_eq!(count("1.5M"), Ok(1_500_000));
/// assert!(count("many").is_err());
/// ```
pub fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let Some((_, factor)) = SUFFIXES.iter().find(|(suffix, _)| *suffix == unit) else {
        return Err(format!(
            "{text:?} is no number: after the digits may stand k, M, G (thousands) or Ki, Mi, Gi (1024)"
        ));
    };
    scaled(digits, *factor)
        .ok_or_else(|| format!("{text:?} is no whole number, as in 1000, 1M or 64Ki"))
}

/// Reads events a second: a [`count`] with or without `/s`.
///
/// # Errors
///
/// As [`count`].
pub fn rate(text: &str) -> Result<u64, String> {
    count(text.strip_suffix("/s").unwrap_or(text))
}

/// Reads `250ms`, `30s`, `20m`, `2h`; `0` needs no unit.
///
/// # Errors
///
/// Says what is expected when the unit is missing or unknown.
///
/// ```
/// use lockstep_perf::args::quantity::duration;
/// use std::time::Duration;
///
/// assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
/// assert!(duration("10").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (digits, unit) = split(text);
    let Some((_, factor)) = TIMES.iter().find(|(suffix, _)| *suffix == unit) else {
        return Err(format!(
            "{text:?} is no duration: a number and one of ns, us, ms, s, m, h, as in 250ms or 10s"
        ));
    };
    scaled(digits, *factor)
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("{text:?} is no duration, as in 250ms or 10s"))
}

/// The same for a time in which something is measured: some of it.
///
/// # Errors
///
/// As [`duration`], and for 0.
pub fn span(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!(
            "{text:?} is no time to measure in, as in 250ms or 10s"
        )),
        some => Ok(some),
    }
}

/// Nanoseconds of a duration, at most what a `u64` holds (584 years).
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Digits (with `.` and `_`) and what follows them.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `digits * factor` if that is a whole number within `u64`.
fn scaled(digits: &str, factor: u64) -> Option<u64> {
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut total = whole.checked_mul(factor)?;
    if !fraction.is_empty() {
        let unit = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        let part = fraction.parse::<u64>().ok()?.checked_mul(factor)?;
        if !part.is_multiple_of(unit) {
            return None;
        }
        total = total.checked_add(part / unit)?;
    }
    Some(total)
}

/// The nearest whole number, 0 for what is negative or no number.
#[must_use]
pub fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates: the ends and NaN are what the doc says"
    )]
    let nearest = number.round() as u64;
    nearest
}

/// The unit in which latencies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Units {
    /// Three digits, in whichever unit suits.
    #[default]
    Auto,
    /// Nanoseconds.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
}

impl Units {
    /// `ns` nanoseconds as text.
    ///
    /// ```
    /// use lockstep_perf::args::quantity::Units;
    ///
    /// assert_eq!(Units::Auto.show(1_968_000), "1.97ms");
    /// assert_eq!(Units::Auto.show(312), "312ns");
    /// assert_eq!(Units::Microseconds.show(312), "0.312us");
    /// ```
    #[must_use]
    pub fn show(self, ns: u64) -> String {
        match self {
            Self::Auto => automatic(ns),
            Self::Nanoseconds => format!("{ns}ns"),
            Self::Microseconds => format!("{}us", thousandths(ns)),
            Self::Milliseconds => format!("{}ms", thousandths(ns / 1000)),
        }
    }
}

fn thousandths(number: u64) -> String {
    format!("{}.{:03}", number / 1000, number % 1000)
}

fn automatic(ns: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    for (unit, name) in STEPS {
        // 999,600 ns are 1.00ms, not 1000us.
        if ns.saturating_mul(1000) >= unit * 1000 - unit / 2 {
            return format!("{}{name}", three_digits(ns, unit));
        }
    }
    format!("{ns}ns")
}

/// `ns / unit` with three significant digits.
fn three_digits(ns: u64, unit: u64) -> String {
    let hundredths = (ns + unit / 200) / (unit / 100);
    if hundredths < 1000 {
        return trim(format!("{}.{:02}", hundredths / 100, hundredths % 100));
    }
    let tenths = (ns + unit / 20) / (unit / 10);
    if tenths < 1000 {
        return trim(format!("{}.{}", tenths / 10, tenths % 10));
    }
    ((ns + unit / 2) / unit).to_string()
}

/// `2.00` is written `2`, as a rule is written; `2.10` stays, as a measurement is.
fn trim(text: String) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'0') => whole.to_owned(),
        _ => text,
    }
}

/// Thousands set apart: `30,000,000`.
#[must_use]
pub fn show_count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 GiB`, `640 MiB`: bytes for people.
///
/// ```
/// use lockstep_perf::args::quantity::show_bytes;
///
/// assert_eq!(show_bytes(1_288_490_188), "1.2 GiB");
/// assert_eq!(show_bytes(671_088_640), "640.0 MiB");
/// ```
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let bytes = crate::machine::clock::ratio(bytes, 1);
    if bytes >= f64::from(1 << 30) {
        format!("{:.1} GiB", bytes / f64::from(1 << 30))
    } else {
        format!("{:.1} MiB", bytes / f64::from(1 << 20))
    }
}

/// A count as short as it can be said exactly: `64Ki`, `1M`, `1500`.
#[must_use]
pub fn show_short(number: u64) -> String {
    for (suffix, factor) in [
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1_000),
    ] {
        if number >= factor && number.is_multiple_of(factor) {
            return format!("{}{suffix}", number / factor);
        }
    }
    number.to_string()
}

/// A rate with three digits: `26.4 M/s`, `980 k/s`.
#[must_use]
pub fn show_rate(per_second: f64) -> String {
    let (value, unit) = if per_second >= 1e6 {
        (per_second / 1e6, "M/s")
    } else if per_second >= 1e3 {
        (per_second / 1e3, "k/s")
    } else {
        (per_second, "/s")
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// So many of something, with an `s` where there are not just one of them.
///
/// ```
/// use lockstep_perf::args::quantity::counted;
///
/// assert_eq!(counted(1, "run"), "1 run");
/// assert_eq!(counted(12, "run"), "12 runs");
/// ```
#[must_use]
pub fn counted(count: impl std::fmt::Display, what: &str) -> String {
    let count = count.to_string();
    let s = if count == "1" { "" } else { "s" };
    format!("{count} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_decimal_and_binary_suffixes() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1000),
            ("1_000", 1000),
            ("100k", 100_000),
            ("1.5M", 1_500_000),
            ("64Ki", 65_536),
            ("0.5Mi", 524_288),
            ("2G", 2_000_000_000),
        ] {
            assert_eq!(count(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "1x", "1.2.3", "-1", "0.3", "99999999999G", ".5"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_may_say_a_second() {
        assert_eq!(rate("1M/s"), Ok(1_000_000));
        assert_eq!(rate("1M"), Ok(1_000_000));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["10", "ms", "1d", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn latencies_show_three_digits_in_the_unit_that_suits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1us"),
            (1_970, "1.97us"),
            (58_100, "58.1us"),
            (999_400, "999us"),
            (999_600, "1ms"),
            (52_070_000, "52.1ms"),
            (9_999_999_999, "10s"),
        ] {
            assert_eq!(Units::Auto.show(ns), text, "{ns}");
        }
    }

    #[test]
    fn counts_show_thousands_and_exact_suffixes() {
        assert_eq!(show_count(30_000_000), "30,000,000");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_short(65_536), "64Ki");
        assert_eq!(show_short(1_000_000), "1M");
        assert_eq!(show_short(60_000), "60k");
        assert_eq!(show_short(1_234), "1234");
    }
}
