//! What a comparison came to, for a terminal and as a page.

use lockstep_perf::args::quantity::{Units, counted, show_rate, show_short, whole};
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
    /// What stands on each side.
    sides: [(&'static str, String); 2],
    rows: Vec<Row>,
    notes: Vec<(&'static str, String)>,
}

/// One metric: name, both sides, change and the word for it; and why it is no other word.
struct Row {
    cells: [String; 5],
    why: String,
}

impl Shown {
    pub(super) fn of(answer: &Answer, base: &[Document], new: &[Document]) -> Self {
        let runs = |documents: &[Document]| documents.iter().map(|d| d.runs.len()).sum::<usize>();
        let side = |name: &str, documents: &[Document]| {
            format!("{}, {}", short(name), counted(runs(documents), "run"))
        };
        let compared = answer.comparisons.iter();
        let mut notes = Vec::new();
        if !answer.disturbed.is_empty() {
            let pairs = counted(answer.disturbed.len(), "disturbed pair");
            let why = several(&answer.disturbed);
            notes.push(("left out", format!("{pairs}: {why}")));
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
            sides: [
                ("base", side(&answer.base, base)),
                ("new", side(&answer.new, new)),
            ],
            rows: compared.map(|(rate, one)| row(*rate, one)).collect(),
            notes,
        }
    }

    /// For a terminal, in its 80 columns; the last line is open.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new("lllrl");
        table.row(["", "base", "new", "change", "verdict"]);
        for row in &self.rows {
            table.row(row.cells.clone());
        }
        let note =
            |(name, text): &(&str, String)| wrap(&format!("{name:<8} {text}"), 79, "         ");
        let sides = self.sides.each_ref().map(note).join("\n");
        let whys = self.whys().into_iter().map(|why| ("why", why));
        let notes: Vec<String> = whys.chain(self.notes.clone()).map(|n| note(&n)).collect();
        format!("{sides}\n{table}{}   ", notes.join("\n"))
    }

    /// Each reason once, behind the metrics that it is of.
    fn whys(&self) -> Vec<String> {
        let mut whys: Vec<(Vec<&str>, &str)> = Vec::new();
        for row in self.rows.iter().filter(|row| !row.why.is_empty()) {
            match whys.iter_mut().find(|(_, why)| *why == row.why) {
                Some((names, _)) => names.push(&row.cells[0]),
                None => whys.push((vec![&row.cells[0]], &row.why)),
            }
        }
        let told = whys.into_iter();
        told.map(|(names, why)| format!("{}: {why}", names.join(", ")))
            .collect()
    }

    /// As a page of its own, with both curves where there are any.
    pub(super) fn page(&self, base: &[Document], new: &[Document]) -> anyhow::Result<String> {
        let head = [
            String::new(),
            format!("base: {}", self.sides[0].1),
            format!("new: {}", self.sides[1].1),
            "change".to_owned(),
            "verdict".to_owned(),
        ];
        let rows: Vec<[String; 5]> = self.rows.iter().map(Row::whole).collect();
        Ok(html::comparison(
            &self.title,
            &head,
            &rows,
            &self.notes,
            curves(base, new)?.as_ref(),
        ))
    }
}

impl Row {
    /// Its cells, with the reason in the last one: for where there is room.
    fn whole(&self) -> [String; 5] {
        let mut cells = self.cells.clone();
        if !self.why.is_empty() {
            cells[4] = format!("{}, {}", cells[4], self.why);
        }
        cells
    }
}

fn row(rate: Option<u64>, comparison: &Comparison) -> Row {
    let metric = comparison.metric;
    let side = |spread: Option<Spread>| {
        spread.map_or_else(
            || "-".to_owned(),
            |s| {
                let [median, min, max] = [s.median, s.min, s.max].map(|value| show(metric, value));
                range([&median, &min, &max])
            },
        )
    };
    let verdict = match comparison.finding {
        Finding::Better => "better",
        Finding::Worse => "WORSE",
        Finding::Noise => "noise",
        Finding::Insufficient => "insufficient",
    };
    Row {
        cells: [
            row_name(rate, metric),
            side(comparison.base),
            side(comparison.new),
            match (comparison.base, comparison.new) {
                (Some(_), Some(_)) => format!("{:+.1}%", comparison.change * 100.0),
                _ => "-".to_owned(),
            },
            verdict.to_owned(),
        ],
        why: comparison.reason.clone(),
    }
}

/// `312ns [309..315]`: the unit once, where all have the same.
fn range([median, min, max]: [&str; 3]) -> String {
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let unit = |text: &str| text.trim_start_matches(is_digit).to_owned();
    let own = unit(median);
    if unit(min) == own && unit(max) == own {
        let bare = |text: &str| text.strip_suffix(own.as_str()).unwrap_or(text).to_owned();
        return format!("{median} [{}..{}]", bare(min), bare(max));
    }
    format!(
        "{median} [{}..{}]",
        min.replace(' ', ""),
        max.replace(' ', "")
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(metric: Metric, values: [f64; 3], finding: Finding, reason: &str) -> Comparison {
        let spread = Spread {
            median: values[1],
            min: values[0],
            max: values[2],
        };
        Comparison {
            metric,
            base: Some(spread),
            new: Some(spread),
            change: 0.1,
            interval: None,
            finding,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn a_comparison_fits_a_terminal_and_gives_each_reason_once() {
        let times = [31_210.0, 33_450.0, 39_990.0];
        let overlap = "ranges overlap";
        let answer = Answer {
            base: "lockstep-results/20261123-061200-latency-main/result.json".repeat(2),
            new: "B: latency --rate 100k".to_owned(),
            comparisons: vec![
                (
                    Some(100_000),
                    compared(Metric::P50, times, Finding::Noise, overlap),
                ),
                (
                    Some(100_000),
                    compared(Metric::P999, times, Finding::Noise, overlap),
                ),
                (
                    None,
                    compared(
                        Metric::Throughput,
                        [29.1e6, 29.3e6, 130e6],
                        Finding::Worse,
                        "",
                    ),
                ),
            ],
            differs: Vec::new(),
            regression: true,
            disturbed: vec!["a thread lost 40% to other tasks".to_owned()],
        };
        let shown = Shown::of(&answer, &[], &[]);
        let text = shown.text();
        for line in text.lines() {
            let is_path = line.contains("lockstep-results");
            assert!(is_path || line.chars().count() <= 80, "{line}");
        }
        assert_eq!(text.matches(overlap).count(), 1, "{text}");
        assert!(
            text.contains("why      p50 at 100k/s, p99.9 at 100k/s: ranges overlap"),
            "{text}"
        );
        assert!(text.contains("new      B, 0 runs\n"), "{text}");
        assert!(text.contains("33.5us [31.2..40]"), "{text}");
        assert!(text.contains("29.3 M/s [29.1..130]"), "{text}");
        assert!(
            text.contains("left out 1 disturbed pair: a thread"),
            "{text}"
        );
        assert_eq!(shown.rows[0].whole()[4], "noise, ranges overlap");
        assert_eq!(shown.rows[2].whole()[4], "WORSE");
    }
}
