//! `result.json`: one file that has everything that compare, plot and export need.
//!
//! Its schema is `perf/schema/result-1.schema.json`. Unknown fields are ignored on reading,
//! times are whole nanoseconds, and a percentile that too few samples carry is `null`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::environment::{Environment, Tool};
use crate::machine::floor::Floor;
use crate::measure::harness::{Report, Run};
use crate::measure::statistics::Spread;
use crate::measure::tail::Cause;
use crate::measure::validity::Verdict;

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// Samples that must lie above a percentile for it to be said.
pub const SAMPLES_ABOVE_MIN: f64 = 10.0;

/// What the name of a part's histogram begins with; its number and its name follow.
pub const PART: &str = "part.";

/// What the name of a histogram of work that events wait for begins with.
pub const SPAN: &str = "work.";

/// How histograms are written.
const CODEC: &str = "hdr-v2-deflate-b64";

/// A whole result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The version of the format.
    pub schema: u32,
    /// The program that measured.
    pub tool: Tool,
    /// What was asked for.
    pub verb: String,
    /// The command line, without the program's name.
    pub argv: Vec<String>,
    /// What the user calls it.
    pub label: String,
    /// When it began, in UTC.
    pub started: String,
    /// What was measured, resolved: no `auto` is left in it.
    pub config: BTreeMap<String, Value>,
    /// On what.
    pub env: Environment,
    /// Where each thread was put, and whether it was seen there.
    #[serde(default)]
    pub placement: BTreeMap<String, Placed>,
    /// The platform's floor on the same CPUs.
    #[serde(default)]
    pub floor: Vec<FloorRecord>,
    /// The runs.
    #[serde(default)]
    pub runs: Vec<RunRecord>,
    /// Core-to-core pairs, of `c2c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairRecord>,
    /// Candidates, of `tune`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateRecord>,
    /// All runs together.
    pub summary: Summary,
    /// Whether it was ended early.
    #[serde(default)]
    pub interrupted: bool,
}

/// Where a thread was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The CPU; none: wherever the scheduler wanted.
    pub cpu: Option<u32>,
    /// Whether it was seen there.
    pub verified: bool,
    /// Its wait strategy.
    pub wait: String,
    /// The stages on it.
    pub stages: Vec<String>,
}

/// The floor of one CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorRecord {
    /// `before` or `after` the runs, or `alone`.
    pub when: String,
    /// The CPU; none: not pinned.
    pub cpu: Option<u32>,
    /// How long it was watched.
    pub watched_ns: u64,
    /// The share of the time that was lost.
    pub lost: f64,
    /// The share in which another task ran.
    pub preempted: f64,
    /// Gaps above 5 µs a second.
    pub gaps_per_second: f64,
    /// What an event that arrives at a random moment waits.
    pub arrival_p99_ns: u64,
    /// The same at 99.9.
    pub arrival_p999_ns: u64,
    /// The gaps' lengths.
    pub gaps: Hist,
}

/// One run at one rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// From 1.
    pub n: usize,
    /// Events a second asked for; none: as many as possible.
    pub rate: Option<u64>,
    /// What to think of it.
    pub verdict: Verdict,
    /// Events of the measured phase that were sent.
    pub sent: u64,
    /// Those whose end was seen.
    pub received: u64,
    /// Sent and not seen.
    pub lost: u64,
    /// Due and not sent.
    pub unsent: u64,
    /// Found no room at first.
    pub blocked: u64,
    /// Done before they were sent.
    pub negative_samples: u64,
    /// Events a second, measured.
    pub achieved_rate: f64,
    /// CPU seconds used by the process.
    pub cpu_s: f64,
    /// The share of all CPUs' time that the hypervisor gave to others meanwhile.
    #[serde(default)]
    pub stolen: f64,
    /// What a message between two of the CPUs took one way, in nanoseconds, just before and
    /// just behind the run: on a virtual machine they may be near each other now and far then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub line_ns: Vec<f64>,
    /// `response`, `service`, `lateness`; with `--stages` `part.N.NAME`; of a journal
    /// `work.journal sync` and `work.journal write`, one sample a call.
    pub hist: BTreeMap<String, Hist>,
    /// Response by time.
    #[serde(default)]
    pub intervals: Vec<Interval>,
    /// From which response on an event belongs to the tail.
    #[serde(default)]
    pub tail_from_ns: u64,
    /// What the tail waited for.
    #[serde(default)]
    pub tail: Vec<Cause>,
    /// Events taken per turn, by stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub batches: BTreeMap<String, Batches>,
    /// What the journal did, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub work: BTreeMap<String, Work>,
    /// Share of its time that each thread was preempted.
    #[serde(default)]
    pub preempted: BTreeMap<String, f64>,
}

/// How often something was done, and how much of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// How often.
    pub count: u64,
    /// Share of the time that it took.
    pub share: f64,
}

/// How many events a stage took at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Batches {
    /// Turns that took something.
    pub turns: u64,
    /// Events on average.
    pub mean: f64,
    /// The most at once.
    pub max: u64,
}

/// A slice of the time series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Seconds since the measured phase began.
    pub t: f64,
    /// Events in it.
    pub count: u64,
    /// Response.
    pub p50: Option<u64>,
    /// Response.
    pub p99: Option<u64>,
    /// Response.
    pub max: u64,
}

/// A histogram, with its main percentiles in the clear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hist {
    /// `ns`.
    pub unit: String,
    /// How `data` is written.
    pub codec: String,
    /// Samples.
    pub count: u64,
    /// The least.
    pub min: u64,
    /// The middle one; null where too few samples carry it, as all below.
    pub p50: Option<u64>,
    /// 90 %.
    pub p90: Option<u64>,
    /// 99 %.
    pub p99: Option<u64>,
    /// 99.9 %.
    pub p999: Option<u64>,
    /// 99.99 %.
    pub p9999: Option<u64>,
    /// The greatest.
    pub max: u64,
    /// The whole histogram.
    pub data: String,
}

/// One pair of CPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairRecord {
    /// From which CPU.
    pub from: u32,
    /// To which.
    pub to: u32,
    /// What lies between them.
    pub distance: String,
    /// One way, median, in nanoseconds.
    pub p50_ns: f64,
    /// The fastest sample.
    pub min_ns: f64,
    /// Median of the near samples, where there are two regimes.
    pub near_ns: Option<f64>,
    /// Median of the far ones.
    pub far_ns: Option<f64>,
    /// The share of near ones.
    pub near_share: Option<f64>,
    /// How far the clocks seem apart.
    pub skew_ns: f64,
    /// What that cannot be told apart from.
    pub skew_bound_ns: f64,
}

/// One candidate of `tune`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// Its flags: `wait`, `place`, `ring`, `batch`.
    pub config: BTreeMap<String, String>,
    /// Whether it reached the last round.
    pub confirmed: bool,
    /// Runs behind the figures.
    pub runs: usize,
    /// The objective's values, one of each run; lower is better.
    pub scores: Vec<f64>,
    /// Response, median over the runs.
    pub p50: Option<f64>,
    /// The same.
    pub p99: Option<f64>,
    /// The same.
    pub p999: Option<f64>,
    /// CPUs used.
    pub cpus: f64,
    /// `recommended`, `best`, `equal`, `worse`, `screened out`, `failed`.
    pub rank: String,
}

/// All runs together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// What to think of them.
    pub verdict: Verdict,
    /// One line of figures for each rate.
    pub rates: Vec<RateSummary>,
}

/// The runs of one rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateSummary {
    /// The rate; none: as many as possible.
    pub rate: Option<u64>,
    /// Runs.
    pub runs: usize,
    /// Response.
    pub p50: Option<Spread>,
    /// Response.
    pub p90: Option<Spread>,
    /// Response.
    pub p99: Option<Spread>,
    /// Response.
    pub p999: Option<Spread>,
    /// Events a second.
    pub throughput: Option<Spread>,
}

/// The value at `percentile`, if enough samples lie above it.
///
/// ```
/// use lockstep_perf::measure::recorder::histogram;
/// use lockstep_perf::report::result::percentile;
///
/// let mut few = histogram();
/// few.record_n(100, 500)?;
/// assert_eq!(percentile(&few, 90.0), Some(100));
/// assert_eq!(percentile(&few, 99.0), None); // 5 samples above it say nothing
/// # Ok::<(), hdrhistogram::RecordError>(())
/// ```
#[must_use]
pub fn percentile(histogram: &Histogram<u64>, percentile: f64) -> Option<u64> {
    let above = crate::machine::clock::ratio(histogram.len(), 1) * (100.0 - percentile) / 100.0;
    // The difference of two decimal fractions is not exact.
    (above + 1e-6 >= SAMPLES_ABOVE_MIN).then(|| histogram.value_at_percentile(percentile))
}

impl Hist {
    /// Of a histogram of nanoseconds.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn of(histogram: &Histogram<u64>) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .context("a histogram cannot be encoded")?;
        Ok(Self {
            unit: "ns".to_owned(),
            codec: CODEC.to_owned(),
            count: histogram.len(),
            min: histogram.min(),
            p50: percentile(histogram, 50.0),
            p90: percentile(histogram, 90.0),
            p99: percentile(histogram, 99.0),
            p999: percentile(histogram, 99.9),
            p9999: percentile(histogram, 99.99),
            max: histogram.max(),
            data: BASE64.encode(bytes),
        })
    }

    /// The histogram itself.
    ///
    /// # Errors
    ///
    /// When the data are damaged, or written in a way that is not known here.
    pub fn decode(&self) -> anyhow::Result<Histogram<u64>> {
        if self.codec != CODEC {
            bail!(
                "histogram codec {:?} is not known, expected {CODEC:?}",
                self.codec
            );
        }
        let bytes = BASE64
            .decode(&self.data)
            .context("a histogram's data are no base64")?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| anyhow::anyhow!("a histogram's data are damaged: {error}"))?;
        if histogram.len() != self.count {
            bail!(
                "a histogram's data are damaged: {} samples, expected {}",
                histogram.len(),
                self.count
            );
        }
        Ok(histogram)
    }
}

impl FloorRecord {
    /// Of a watched floor.
    ///
    /// # Errors
    ///
    /// When its histogram cannot be encoded.
    pub fn of(when: &str, floor: &Floor) -> anyhow::Result<Self> {
        Ok(Self {
            when: when.to_owned(),
            cpu: floor.cpu,
            watched_ns: floor.watched_ns,
            lost: floor.lost(),
            preempted: floor.preempted(),
            gaps_per_second: floor.gaps_per_second_above(5_000),
            arrival_p99_ns: floor.arrival_wait_ns(99.0),
            arrival_p999_ns: floor.arrival_wait_ns(99.9),
            gaps: Hist::of(&floor.lengths)?,
        })
    }
}

impl RunRecord {
    /// Of a latency run.
    ///
    /// # Errors
    ///
    /// When a histogram cannot be encoded.
    pub fn of(run: &Run, rate: u64) -> anyhow::Result<Self> {
        let mut hist = BTreeMap::from([
            ("response".to_owned(), Hist::of(&run.response)?),
            ("service".to_owned(), Hist::of(&run.service)?),
            ("lateness".to_owned(), Hist::of(&run.lateness)?),
        ]);
        for (index, (name, part)) in run.parts.iter().enumerate() {
            hist.insert(format!("{PART}{index}.{name}"), Hist::of(part)?);
        }
        for (name, spans) in run.spans.iter().filter(|(_, spans)| !spans.is_empty()) {
            hist.insert(format!("{SPAN}{name}"), Hist::of(spans)?);
        }
        let slice_s = crate::machine::clock::ratio(run.slice_ns, 1_000_000_000);
        let intervals = run
            .slices
            .iter()
            .enumerate()
            .map(|(index, slice)| Interval {
                t: slice_s * crate::machine::clock::ratio(index as u64, 1),
                count: slice.len(),
                p50: percentile(slice, 50.0),
                p99: percentile(slice, 99.0),
                max: slice.max(),
            });
        Ok(Self {
            n: run.number,
            rate: Some(rate),
            verdict: run.verdict.clone(),
            sent: run.sent,
            received: run.received,
            lost: run.lost,
            unsent: run.unsent,
            blocked: run.blocked,
            negative_samples: run.negative,
            achieved_rate: run.achieved_rate,
            cpu_s: run.cpu_s,
            stolen: run.stolen,
            line_ns: Vec::new(),
            hist,
            intervals: intervals.collect(),
            tail_from_ns: run.tail_from_ns,
            tail: run.tail.clone(),
            batches: BTreeMap::new(),
            work: BTreeMap::new(),
            preempted: run
                .paused
                .iter()
                .map(|paused| (paused.thread.clone(), paused.preempted))
                .collect(),
        })
    }
}

impl RateSummary {
    /// Of the runs of one rate.
    #[must_use]
    pub fn of(rate: Option<u64>, runs: &[&RunRecord]) -> Self {
        let spread = |value: &dyn Fn(&Hist) -> Option<u64>| {
            let values: Option<Vec<f64>> = runs
                .iter()
                .map(|run| run.hist.get("response").and_then(value).map(|ns| ns as f64))
                .collect();
            Spread::of(&values?)
        };
        let rates: Vec<f64> = runs.iter().map(|run| run.achieved_rate).collect();
        Self {
            rate,
            runs: runs.len(),
            p50: spread(&|hist| hist.p50),
            p90: spread(&|hist| hist.p90),
            p99: spread(&|hist| hist.p99),
            p999: spread(&|hist| hist.p999),
            throughput: Spread::of(&rates),
        }
    }
}

impl Document {
    /// A result without measurements yet.
    #[must_use]
    pub fn new(verb: &str, label: &str, env: Environment) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::this(),
            verb: verb.to_owned(),
            argv: std::env::args().skip(1).collect(),
            label: label.to_owned(),
            started: super::store::Moment::now().rfc3339(),
            config: BTreeMap::new(),
            env,
            placement: BTreeMap::new(),
            floor: Vec::new(),
            runs: Vec::new(),
            pairs: Vec::new(),
            candidates: Vec::new(),
            summary: Summary::default(),
            interrupted: false,
        }
    }

    /// Adds the runs and floors of one rate.
    ///
    /// # Errors
    ///
    /// When a histogram cannot be encoded.
    pub fn add(&mut self, report: &Report) -> anyhow::Result<()> {
        for (when, floors) in [
            ("before", &report.floor_before),
            ("after", &report.floor_after),
        ] {
            for floor in floors {
                self.floor.push(FloorRecord::of(when, floor)?);
            }
        }
        for run in &report.runs {
            self.runs.push(RunRecord::of(run, report.rate)?);
        }
        self.interrupted |= report.interrupted;
        let verdict = report.verdict();
        self.summary.verdict.grade = self.summary.verdict.grade.max(verdict.grade);
        for reason in verdict.reasons {
            if !self.summary.verdict.reasons.contains(&reason) {
                self.summary.verdict.reasons.push(reason);
            }
        }
        self.summarise();
        Ok(())
    }

    /// Fills the summary's lines from the runs.
    pub fn summarise(&mut self) {
        let mut rates: Vec<Option<u64>> = Vec::new();
        for run in &self.runs {
            if !rates.contains(&run.rate) {
                rates.push(run.rate);
            }
        }
        self.summary.rates = rates
            .into_iter()
            .map(|rate| {
                let runs: Vec<&RunRecord> = self.runs.iter().filter(|r| r.rate == rate).collect();
                RateSummary::of(rate, &runs)
            })
            .collect();
    }

    /// As JSON text.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// From JSON text.
    ///
    /// # Errors
    ///
    /// When it is no result, or one of a newer format.
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(text).context("this is no JSON")?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(found) if found == u64::from(SCHEMA) => {}
            Some(found) => bail!("schema {found}, this lockstep reads {SCHEMA}"),
            None => bail!("no \"schema\" in it: this is no result of lockstep"),
        }
        serde_json::from_value(value).context("this result is incomplete")
    }

    /// The kinds of histograms of one rate that begin with `prefix`, in their order.
    #[must_use]
    pub fn kinds(&self, prefix: &str, rate: Option<u64>) -> Vec<String> {
        let runs = self.runs.iter().filter(|run| run.rate == rate);
        let names = runs.flat_map(|run| run.hist.keys());
        let mut kinds: Vec<String> = names
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// All runs' histograms of one kind, of one rate, together.
    ///
    /// # Errors
    ///
    /// When one is damaged.
    pub fn merged(&self, kind: &str, rate: Option<u64>) -> anyhow::Result<Histogram<u64>> {
        let mut total = crate::measure::recorder::histogram();
        for run in self.runs.iter().filter(|run| run.rate == rate) {
            if let Some(hist) = run.hist.get(kind) {
                total
                    .add(hist.decode()?)
                    .context("histograms of unlike bounds")?;
            }
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorder::histogram;

    #[test]
    fn a_histogram_survives_the_file() {
        let mut original = histogram();
        for ns in 1..2_000 {
            original.record(ns * 977).unwrap();
        }
        let hist = Hist::of(&original).unwrap();
        assert_eq!(hist.decode().unwrap(), original);
        assert_eq!(hist.p9999, None, "2 samples in 10,000 are none of 2,000");
        let damaged = Hist { count: 7, ..hist };
        assert!(
            damaged
                .decode()
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }

    #[test]
    fn another_schema_is_refused_with_both_numbers() {
        let error = Document::from_json("{\"schema\": 3}").unwrap_err();
        assert_eq!(error.to_string(), "schema 3, this lockstep reads 1");
        assert!(Document::from_json("{}").is_err());
        assert!(Document::from_json("nonsense").is_err());
    }
}
