//! What a comparison came to, for a terminal and as a page.

use lockstep_perf::args::quantity::{Units, show_rate, show_short, whole};
use lockstep_perf::measure::compare::{Comparison, Finding, Metric};
use lockstep_perf::measure::recorder::histogram;
use lockstep_perf::measure::statistics::Spread;
use lockstep_perf::report::chart::{Chart, chart_of_percentiles, percentiles};
use lockstep_perf::report::html;
use lockstep_perf::report::result::Document;
use lockstep_perf::report::text::{Table, wrap};

use super::Answer;

/// Reasons in a text; the result has them all.
const REASONS_SHOWN: usize = 3;

/// The first few reasons, and how many more there are.
pub(super) fn several(reasons: &[String]) -> String {
    let shown = &reasons[..reasons.len().min(REASONS_SHOWN)];
    match reasons.len() - shown.len() {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

/// `p99 at 100k/s`.
pub(super) fn row_name(rate: Option<u64>, metric: Metric) -> String {
    match rate {
        Some(rate) => format!("{} at {}/s", metric.name(), show_short(rate)),
        None => metric.name().to_owned(),
    }
}

/// A value of this metric.
pub(super) fn show(metric: Metric, value: f64) -> String {
    if metric == Metric::Throughput {
        show_rate(value)
    } else {
        Units::Auto.show(whole(value))
    }
}

/// The letter of a command line; a path or a label as it is.
fn short(name: &str) -> &str {
    match name.split_once(": ") {
        Some((letter @ ("A" | "B"), _)) => letter,
        _ => name,
    }
}

/// A comparison in words.
pub(super) struct Shown {
    title: String,
    head: [String; 5],
    rows: Vec<[String; 5]>,
    notes: Vec<(&'static str, String)>,
}

impl Shown {
    pub(super) fn of(answer: &Answer, base: &[Document], new: &[Document]) -> Self {
        let runs = |documents: &[Document]| documents.iter().map(|d| d.runs.len()).sum::<usize>();
        let head = [
            String::new(),
            format!("base: {} ({} runs)", short(&answer.base), runs(base)),
            format!("new: {} ({} runs)", short(&answer.new), runs(new)),
            "change".to_owned(),
            "verdict".to_owned(),
        ];
        let compared = answer.comparisons.iter();
        let mut notes = Vec::new();
        if !answer.disturbed.is_empty() {
            let count = answer.disturbed.len();
            let s = if count == 1 { "" } else { "s" };
            let why = several(&answer.disturbed);
            notes.push(("left out", format!("{count} disturbed pair{s}: {why}")));
        }
        let differs = if answer.differs.is_empty() {
            "nothing that was recorded".to_owned()
        } else {
            answer.differs.join(", ")
        };
        notes.push(("differs", differs));
        notes.push(("result", result(&answer.comparisons)));
        Self {
            title: format!("lockstep compare: {} against {}", answer.new, answer.base),
            head,
            rows: compared.map(|(rate, one)| row(*rate, one)).collect(),
            notes,
        }
    }

    /// For a terminal; the last line is open.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new("lllrl");
        table.row(self.head.clone());
        for row in &self.rows {
            table.row(row.clone());
        }
        let note =
            |(name, text): &(&str, String)| wrap(&format!("{name:<8} {text}"), 79, "         ");
        let notes: Vec<String> = self.notes.iter().map(note).collect();
        format!("{table}{}   ", notes.join("\n"))
    }

    /// As a page of its own, with both curves where there are any.
    pub(super) fn page(&self, base: &[Document], new: &[Document]) -> anyhow::Result<String> {
        Ok(html::comparison(
            &self.title,
            &self.head,
            &self.rows,
            &self.notes,
            curves(base, new)?.as_ref(),
        ))
    }
}

fn row(rate: Option<u64>, comparison: &Comparison) -> [String; 5] {
    let metric = comparison.metric;
    let side = |spread: Option<Spread>| {
        spread.map_or_else(
            || "-".to_owned(),
            |s| {
                let [median, min, max] = [s.median, s.min, s.max].map(|value| show(metric, value));
                format!("{median} [{min}..{max}]")
            },
        )
    };
    let with = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(", {reason}"),
    };
    let verdict = match comparison.finding {
        Finding::Better => format!("better{}", with(&comparison.reason)),
        Finding::Worse => format!("WORSE{}", with(&comparison.reason)),
        Finding::Noise if comparison.interval.is_some() => comparison.reason.clone(),
        Finding::Noise => format!("noise ({})", comparison.reason),
        Finding::Insufficient => format!("insufficient ({})", comparison.reason),
    };
    [
        row_name(rate, metric),
        side(comparison.base),
        side(comparison.new),
        format!("{:+.1}%", comparison.change * 100.0),
        verdict,
    ]
}

fn result(comparisons: &[(Option<u64>, Comparison)]) -> String {
    let all = comparisons.iter().map(|(_, comparison)| comparison);
    let worse: Vec<&str> = all
        .clone()
        .filter(|c| c.finding == Finding::Worse)
        .map(|c| c.metric.name())
        .collect();
    if !worse.is_empty() {
        return format!("regression in {}", worse.join(", "));
    }
    let mut findings = all.map(|c| c.finding);
    if findings.all(|finding| finding == Finding::Noise) {
        "no difference".to_owned()
    } else {
        "no regression".to_owned()
    }
}

/// The response of both sides by percentile, all runs of a side together.
fn curves(base: &[Document], new: &[Document]) -> anyhow::Result<Option<Chart>> {
    let mut series = Vec::new();
    let rates = base
        .iter()
        .take(1)
        .flat_map(|document| &document.summary.rates);
    for rate in rates.filter_map(|summary| summary.rate) {
        for (name, documents) in [("base", base), ("new", new)] {
            let mut all = histogram();
            for document in documents {
                all.add(&document.merged("response", Some(rate))?)?;
            }
            let name = format!("{name}, {}/s", show_short(rate));
            series.push(percentiles(&name, &all));
        }
    }
    let title = "response by percentile, from the intended send time";
    Ok((!series.is_empty()).then(|| chart_of_percentiles(title, series)))
}
