//! The text of a latency result: one table for each rate, and what to think of it.

use std::fmt::Write as _;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::environment::Environment;
use super::result::{Document, PART, RunRecord, SPAN, percentile};
use super::text::{Table, wrap};
use crate::args::quantity::{Units, show_count, show_rate};
use crate::machine::clock::ratio;
use crate::machine::cpus::Machine;
use crate::measure::harness::Report;

/// The percentiles of the tables.
const PERCENTILES: [(f64, &str); 5] = [
    (50.0, "p50"),
    (90.0, "p90"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (99.99, "p99.99"),
];

/// The whole text.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn text(document: &Document, units: Units) -> Result<String> {
    let mut text = String::new();
    for rate in &document.summary.rates {
        text.push_str(&one_rate(document, rate.rate, units)?);
    }
    let valid = format!("valid    {}", verdict(document));
    let _ = writeln!(text, "{}", wrap(&valid, 79, "         "));
    Ok(text)
}

impl Report {
    /// As a result that can be kept, compared and drawn.
    ///
    /// # Errors
    ///
    /// When a histogram cannot be encoded.
    pub fn document(&self) -> Result<Document> {
        let environment = Environment::here(&Machine::here(), &self.clock);
        let mut document = Document::new("latency", &self.name, environment);
        document.add(self)?;
        Ok(document)
    }

    /// As `lockstep latency` prints it.
    ///
    /// # Errors
    ///
    /// As [`document`](Self::document).
    pub fn text(&self) -> Result<String> {
        text(&self.document()?, Units::Auto)
    }
}

/// Reasons that a text names; the result has them all.
const REASONS_SHOWN: usize = 4;

/// The verdict with its main reasons.
#[must_use]
pub fn verdict(document: &Document) -> String {
    let mut verdict = document.summary.verdict.clone();
    let hidden = verdict.reasons.len().saturating_sub(REASONS_SHOWN);
    verdict.reasons.truncate(REASONS_SHOWN);
    match hidden {
        0 => verdict.to_string(),
        1 => format!("{verdict}; and 1 more reason in the result"),
        more => format!("{verdict}; and {more} more reasons in the result"),
    }
}

fn one_rate(document: &Document, rate: Option<u64>, units: Units) -> Result<String> {
    let runs: Vec<&RunRecord> = document
        .runs
        .iter()
        .filter(|run| run.rate == rate)
        .collect();
    let mut table = Table::new("lrrrrrrr");
    let mut head = vec![rate.map_or_else(String::new, |r| format!("{}/s", show_count(r)))];
    head.extend(PERCENTILES.map(|(_, name)| name.to_owned()));
    head.extend(["max".to_owned(), "count".to_owned()]);
    table.row(head);
    for (kind, name) in [
        ("response", "response"),
        ("service", "service"),
        ("lateness", "generator late"),
    ] {
        table.row(row(name, &document.merged(kind, rate)?, units));
        if kind == "service" {
            for part in document.kinds(PART, rate) {
                let name = part_name(&part);
                table.row(row(
                    &format!(" ├ {name}"),
                    &document.merged(&part, rate)?,
                    units,
                ));
            }
        }
    }
    for kind in document.kinds(SPAN, rate) {
        let name = &kind[SPAN.len()..];
        table.row(row(name, &document.merged(&kind, rate)?, units));
    }
    let mut text = table.to_string();
    if let Some(floor) = floor_row(document, units)? {
        text.push_str(&floor);
    }
    text.push_str(&spreads(&runs, units));
    text.push_str(&tail(&runs, units));
    text.push_str(&rates(&runs));
    Ok(text)
}

/// `order` of `part.0.order`.
pub(super) fn part_name(kind: &str) -> &str {
    let numbered = kind.strip_prefix(PART).unwrap_or(kind);
    numbered.split_once('.').map_or(numbered, |(_, name)| name)
}

fn row(name: &str, histogram: &Histogram<u64>, units: Units) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend(PERCENTILES.map(|(p, _)| show(percentile(histogram, p), units)));
    cells.push(units.show(histogram.max()));
    cells.push(show_count(histogram.len()));
    cells
}

/// A percentile that too few samples carry is a dash, never 0.
#[must_use]
pub fn show(value: Option<u64>, units: Units) -> String {
    value.map_or_else(|| "-".to_owned(), |ns| units.show(ns))
}

fn floor_row(document: &Document, units: Units) -> Result<Option<String>> {
    if document.floor.is_empty() {
        return Ok(None);
    }
    let curve = super::chart::floor("floor", &document.floor)?;
    let at = |nines: f64| {
        let point = curve.points.iter().find(|(x, _)| *x + 1e-9 >= nines);
        point.map(|(_, ns)| crate::args::quantity::whole(*ns))
    };
    let lost = document
        .floor
        .iter()
        .map(|floor| floor.lost)
        .fold(0.0, f64::max);
    Ok(Some(format!(
        "floor    p99 {}  p99.9 {}  of an idle thread there, which lost {:.2}% of its time\n",
        show(at(2.0), units),
        show(at(3.0), units),
        lost * 100.0
    )))
}

fn spreads(runs: &[&RunRecord], units: Units) -> String {
    if runs.len() < 2 {
        return String::new();
    }
    let mut parts = Vec::new();
    for (name, pick) in [
        (
            "p50",
            (|h| h.p50) as fn(&super::result::Hist) -> Option<u64>,
        ),
        ("p99", |h| h.p99),
    ] {
        let values: Vec<String> = runs
            .iter()
            .map(|run| show(run.hist.get("response").and_then(pick), units))
            .collect();
        parts.push(format!("{name} {}", values.join(" / ")));
    }
    format!("runs     {}\n", parts.join("    "))
}

fn tail(runs: &[&RunRecord], units: Units) -> String {
    let mut causes: Vec<(String, u64)> = Vec::new();
    for cause in runs.iter().flat_map(|run| &run.tail) {
        match causes.iter_mut().find(|(name, _)| *name == cause.cause) {
            Some((_, count)) => *count += cause.count,
            None => causes.push((cause.cause.clone(), cause.count)),
        }
    }
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all: u64 = causes.iter().map(|(_, count)| count).sum();
    let from = runs.iter().map(|run| run.tail_from_ns).min().unwrap_or(0);
    if all == 0 {
        return String::new();
    }
    let shares: Vec<String> = causes
        .iter()
        .map(|(cause, count)| format!("{:.0}% {cause}", ratio(*count, all) * 100.0))
        .collect();
    let line = format!(
        "tail     {} slowest, above {}: {}",
        show_count(all),
        units.show(from),
        shares.join(" · ")
    );
    format!("{}\n", wrap(&line, 79, "         "))
}

fn rates(runs: &[&RunRecord]) -> String {
    let sum = |pick: fn(&RunRecord) -> u64| runs.iter().map(|run| pick(run)).sum::<u64>();
    let achieved = runs
        .iter()
        .map(|run| run.achieved_rate)
        .fold(f64::INFINITY, f64::min);
    let line = format!(
        "rate     achieved {}, {} lost, {} not sent, {} found the ring full, {} negative samples",
        show_rate(achieved),
        show_count(sum(|r| r.lost)),
        show_count(sum(|r| r.unsent)),
        show_count(sum(|r| r.blocked)),
        show_count(sum(|r| r.negative_samples))
    );
    format!("{}\n", wrap(&line, 79, "         "))
}
