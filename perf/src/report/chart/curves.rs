//! What is drawn of a result: percentiles, a histogram, the time, what `tune` tried.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::{Chart, Line, Series};
use crate::args::quantity::{show_short, whole};
use crate::machine::clock::ratio;
use crate::measure::statistics::median;
use crate::report::result::{Document, FloorRecord, Interval, SAMPLES_ABOVE_MIN};

/// Names of percentiles by their number of nines: 90, 99, 99.9 …
const NINES: [&str; 8] = [
    "0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999",
];

/// Points of a percentile curve.
const CURVE_POINTS: u32 = 120;

/// The percentiles of a histogram as a curve over nines, as far as samples carry it.
#[must_use]
pub fn percentiles(name: &str, histogram: &Histogram<u64>) -> Series {
    let reach = (ratio(histogram.len(), 1) / SAMPLES_ABOVE_MIN).log10();
    curve(name, reach, |p| histogram.value_at_percentile(p))
}

/// What an event that arrives at a random moment waits for the machine, as a curve.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn floor(name: &str, floors: &[FloorRecord]) -> Result<Series> {
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    let mut watched_ns = 0;
    for floor in floors {
        watched_ns += floor.watched_ns;
        let histogram = floor.gaps.decode()?;
        gaps.extend(
            histogram
                .iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_at_value())),
        );
    }
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    // An arrival a microsecond: finer than that a floor of a second is not.
    let reach = (ratio(watched_ns, 1_000) / SAMPLES_ABOVE_MIN)
        .max(1.0)
        .log10();
    Ok(curve(name, reach, |p| arrival_wait(&gaps, watched_ns, p)))
}

/// As `Floor::arrival_wait_ns`, for gaps that are counted by length, longest first.
pub(super) fn arrival_wait(gaps: &[(u64, u64)], watched_ns: u64, p: f64) -> u64 {
    let beyond_ns = (100.0 - p) / 100.0 * ratio(watched_ns, 1);
    let (mut sum, mut count) = (0, 0);
    for (index, (length, times)) in gaps.iter().enumerate() {
        sum += length * times;
        count += times;
        let next = gaps.get(index + 1).map_or(0, |(length, _)| *length);
        if ratio(sum - count * next, 1) >= beyond_ns {
            return whole((ratio(sum, 1) - beyond_ns) / ratio(count, 1));
        }
    }
    0
}

fn curve(name: &str, reach: f64, value: impl Fn(f64) -> u64) -> Series {
    let reach = reach.clamp(0.0, 7.0);
    let points = (0..=CURVE_POINTS).map(|step| {
        let nines = reach * f64::from(step) / f64::from(CURVE_POINTS);
        let percentile = 100.0 * (1.0 - 10_f64.powf(-nines));
        (nines, ratio(value(percentile), 1))
    });
    Series {
        name: name.to_owned(),
        // Nothing is no latency: a floor begins where an arrival waits at all.
        points: points.filter(|(_, ns)| *ns >= 1.0).collect(),
        line: Line::Solid,
        colour: 0,
    }
}

/// The percentile chart of a result: response and service of each rate, and the floor.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn percentile_chart(document: &Document) -> Result<Chart> {
    let rates = &document.summary.rates;
    let mut series = Vec::new();
    for rate in rates {
        let suffix = match (rate.rate, rates.len()) {
            (Some(rate), 2..) => format!(" {}/s", show_short(rate)),
            _ => String::new(),
        };
        let response = document.merged("response", rate.rate)?;
        series.push(percentiles(&format!("response{suffix}"), &response));
        if rates.len() == 1 {
            let service = document.merged("service", rate.rate)?;
            series.push(percentiles("service", &service));
        }
    }
    if !document.floor.is_empty() {
        series.push(floor("floor", &document.floor)?);
    }
    let title = "latency by percentile, from the intended send time";
    Ok(chart_of_percentiles(title, series))
}

/// Curves of [`percentiles`] over one axis, each with its colour.
#[must_use]
pub fn chart_of_percentiles(title: &str, mut series: Vec<Series>) -> Chart {
    for (colour, series) in series.iter_mut().enumerate() {
        series.colour = colour;
    }
    Chart {
        title: title.to_owned(),
        x_name: "percentile".to_owned(),
        x_ticks: nines_ticks(&series),
        series,
        y_max: None,
    }
}

pub(super) fn nines_ticks(series: &[Series]) -> Vec<(f64, String)> {
    let reach = reach(series);
    let mut ticks = vec![(0.0, NINES[0].to_owned()), (2_f64.log10(), "50".to_owned())];
    for (nines, name) in (1_u32..).zip(&NINES[1..]) {
        if f64::from(nines) <= reach {
            ticks.push((f64::from(nines), (*name).to_owned()));
        }
    }
    ticks
}

pub(super) fn reach(series: &[Series]) -> f64 {
    let all = series.iter().flat_map(|s| &s.points);
    all.map(|(x, _)| *x).fold(0.0, f64::max)
}

/// Response over time, one point a slice: the middle and the 99th percentile; of a single
/// rate the slowest too.
#[must_use]
pub fn time_chart(document: &Document) -> Chart {
    let mut series = Vec::new();
    let is_alone = document.summary.rates.len() == 1;
    for (number, rate) in document.summary.rates.iter().enumerate() {
        for (place, (name, pick)) in [
            ("p50", (|i| i.p50) as fn(&Interval) -> Option<u64>),
            ("p99", |i| i.p99),
            ("max", |i| Some(i.max).filter(|_| i.count > 0)),
        ]
        .into_iter()
        .enumerate()
        {
            // Of several rates two curves each: more of them nobody can tell apart.
            if name == "max" && !is_alone {
                continue;
            }
            let mut offset = 0.0;
            let mut points = Vec::new();
            for run in document.runs.iter().filter(|run| run.rate == rate.rate) {
                points.extend(
                    run.intervals.iter().filter_map(|interval| {
                        Some((offset + interval.t, ratio(pick(interval)?, 1)))
                    }),
                );
                let step = run.intervals.get(1).map_or(1.0, |second| second.t);
                offset += step * ratio(run.intervals.len() as u64, 1);
            }
            let rate = rate
                .rate
                .map_or_else(String::new, |r| format!(" {}/s", show_short(r)));
            series.push(Series {
                name: format!("{name}{rate}"),
                points,
                line: if is_alone || place == 0 {
                    Line::Solid
                } else {
                    Line::Dashed
                },
                colour: if is_alone { place } else { number },
            });
        }
    }
    let reach = reach(&series);
    Chart {
        title: "response over time, runs one behind the other".to_owned(),
        x_name: "measured seconds".to_owned(),
        x_ticks: round_ticks(reach, "s"),
        series,
        y_max: None,
    }
}

/// Places of an axis from 0 to `reach`, at round numbers.
pub(super) fn round_ticks(reach: f64, unit: &str) -> Vec<(f64, String)> {
    const TICKS_MAX: f64 = 6.0;
    let rough = (reach / TICKS_MAX).max(1e-3);
    let decade = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * decade);
    let places = if step < 0.1 {
        2
    } else if step < 1.0 {
        1
    } else {
        0
    };
    (0..=whole((reach / step + 1e-9).floor()))
        .map(|n| {
            let at = ratio(n, 1) * step;
            (at, format!("{at:.places$}{unit}"))
        })
        .collect()
}

/// The trade-off of `tune`: what is to become small against the CPUs that it takes, and the
/// front of those that nobody beats in both.
#[must_use]
pub fn tune_chart(document: &Document) -> Chart {
    let ranks = ["recommended", "best", "equal", "worse", "screened out"];
    let mut groups: Vec<Series> = Vec::new();
    for (colour, rank) in ranks.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = document
            .candidates
            .iter()
            .filter(|candidate| candidate.rank == rank)
            .filter_map(|candidate| Some((candidate.cpus, median(&candidate.scores)?)))
            .collect();
        if !points.is_empty() {
            groups.push(Series {
                name: rank.to_owned(),
                points,
                line: Line::Points,
                // The last ones stay in the background.
                colour: [3, 0, 1, 4, 2][colour],
            });
        }
    }
    let confirmed = document.candidates.iter().filter(|c| c.confirmed);
    let points = confirmed.filter_map(|c| Some((c.cpus, median(&c.scores)?)));
    groups.push(Series {
        name: "nobody confirmed is better in both".to_owned(),
        points: front(points.collect()),
        line: Line::Front,
        colour: 2,
    });
    let objective = document.config.get("objective").and_then(|v| v.as_str());
    let objective = objective.unwrap_or("response");
    let goal = objective.split(',').next().unwrap_or(objective);
    let what = if goal == "throughput" {
        "time of an event at full speed"
    } else {
        goal
    };
    let reach = reach(&groups).max(1.0).ceil();
    Chart {
        title: format!("{what} against CPUs used, each point one configuration"),
        x_name: "CPUs used".to_owned(),
        x_ticks: round_ticks(reach, ""),
        series: groups,
        y_max: None,
    }
}

/// Of points, those that no other beats in both.
pub(super) fn front(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut best = f64::INFINITY;
    points.retain(|(_, y)| {
        let is_better = *y < best;
        best = best.min(*y);
        is_better
    });
    points
}

/// Steps of a decade that events are counted in.
const STEPS: f64 = 8.0;

/// How many events took how long: the share of each step of time.
#[must_use]
pub fn shares(name: &str, histogram: &Histogram<u64>) -> Series {
    let mut steps: BTreeMap<u64, u64> = BTreeMap::new();
    for value in histogram.iter_recorded() {
        let ns = ratio(value.value_iterated_to().max(1), 1);
        *steps
            .entry(whole((ns.log10() * STEPS).floor()))
            .or_default() += value.count_at_value();
    }
    let points = steps.into_iter().map(|(step, count)| {
        let middle = 10_f64.powf((ratio(step, 1) + 0.5) / STEPS);
        (100.0 * ratio(count, histogram.len()), middle)
    });
    Series {
        name: name.to_owned(),
        points: points.collect(),
        line: Line::Bars,
        colour: 0,
    }
}

/// How many events of each rate took how long, from the intended send time.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn histogram_chart(document: &Document) -> Result<Chart> {
    let rates = &document.summary.rates;
    let mut series = Vec::new();
    for (colour, rate) in rates.iter().enumerate() {
        let suffix = match (rate.rate, rates.len()) {
            (Some(rate), 2..) => format!(" {}/s", show_short(rate)),
            _ => String::new(),
        };
        let response = document.merged("response", rate.rate)?;
        series.push(Series {
            colour,
            ..shares(&format!("response{suffix}"), &response)
        });
    }
    Ok(Chart {
        title: "how many events took how long, from the intended send time".to_owned(),
        x_name: "percent of the events, in each eighth of a decade".to_owned(),
        x_ticks: round_ticks(reach(&series), "%"),
        series,
        y_max: None,
    })
}
