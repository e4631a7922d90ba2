//! The rows as text.

use std::fmt::Write;

use crate::results::{Goal, Results, Row, Unit};
use crate::statistics::{Figure, Reading};

/// Everything that is printed at the end.
pub(crate) fn text(results: &Results, description: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _infallible = write_all(&mut text, results, description);
    text
}

fn write_all(
    out: &mut String,
    results: &Results,
    description: &[(&'static str, String)],
) -> std::fmt::Result {
    for (name, value) in description {
        writeln!(out, "{name:12} {value}")?;
    }
    writeln!(
        out,
        "\n{:10} {:30} {:26} {:15} {:22} {:26} {:15} {:17} {:8}",
        "work", "case", "ours", "p90/p99", "against", "reaches", "p90/p99", "ratio", "goal"
    )?;
    for row in &results.rows {
        let unit = row.about.unit;
        let met = match row.is_met() {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        writeln!(
            out,
            "{:10} {:30} {:26} {:15} {:22} {:26} {:15} {:17} {:8} {met}",
            row.about.work,
            row.about.case,
            with_spread(Row::figure(&row.ours), unit),
            tail(&row.ours, unit),
            row.about.against,
            with_spread(Row::figure(&row.other), unit),
            tail(&row.other, unit),
            ratio(row.ratio()),
            goal(row.about.goal, unit),
        )?;
    }
    writeln!(
        out,
        "\nmedian [least..most] over the rounds; times are p50 of a round, tails medians of its p90 and p99.\n\
         ratio: ours divided by the other within a round, median [least..most]."
    )?;
    for note in &results.notes {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

fn with_spread(figure: Option<Figure>, unit: Unit) -> String {
    figure.map_or_else(String::new, |figure| {
        let [median, least, most] =
            [figure.median, figure.least, figure.most].map(|value| number(value, unit));
        format!("{median} [{least}..{most}]")
    })
}

fn tail(readings: &[Reading], unit: Unit) -> String {
    Row::tail(readings).map_or_else(String::new, |tail| {
        let [p90, p99] = tail.map(|value| number(value, unit));
        format!("{p90}/{p99}")
    })
}

fn ratio(figure: Option<Figure>) -> String {
    figure.map_or_else(String::new, |figure| {
        format!(
            "{:.2} [{:.2}..{:.2}]",
            figure.median, figure.least, figure.most
        )
    })
}

fn goal(goal: Goal, unit: Unit) -> String {
    match goal {
        Goal::None => String::new(),
        Goal::RatioAtMost(limit) => format!("≤ {limit:.2}"),
        Goal::RatioAtLeast(limit) => format!("≥ {limit:.2}"),
        Goal::AtMost(limit) => format!("≤ {}", number(limit, unit)),
        Goal::AtLeast(limit) => format!("≥ {}", number(limit, unit)),
    }
}

/// With three digits or more, and its unit.
fn number(value: f64, unit: Unit) -> String {
    let (scaled, name) = match unit {
        Unit::Ns if value >= 1e9 => (value / 1e9, "s"),
        Unit::Ns if value >= 1e7 => (value / 1e6, "ms"),
        Unit::Ns => (value / 1e3, "us"),
        Unit::EventsPerSecond => (value / 1e6, "M/s"),
        Unit::BytesPerSecond => (value / 1e6, "MB/s"),
        Unit::Bytes => (value / 1_048_576.0, "MiB"),
        Unit::Count => (value, ""),
    };
    let digits = match scaled {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{name}")
}
