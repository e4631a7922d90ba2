//! One configuration on its way through a tune, and what its runs came to.

use std::collections::BTreeMap;

use lockstep_perf::args::plan::Plan;
use lockstep_perf::args::quantity::show_short;
use lockstep_perf::args::shape::Shape;
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::measure::statistics::median;
use lockstep_perf::report::result::CandidateRecord;
use serde::{Deserialize, Serialize};

/// One configuration on its way.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) wait: String,
    pub(super) ring: usize,
    pub(super) plan: Plan,
    pub(super) runs: Vec<Outcome>,
}

/// What one run of a candidate came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Lower is better; infinite where the rate was not kept.
    #[serde(with = "finite")]
    pub(super) score: f64,
    pub(super) p50: Option<u64>,
    pub(super) p99: Option<u64>,
    pub(super) p999: Option<u64>,
    pub(super) cpus: f64,
}

impl Outcome {
    pub(super) fn failed() -> Self {
        Self {
            score: f64::INFINITY,
            p50: None,
            p99: None,
            p999: None,
            cpus: 0.0,
        }
    }
}

impl Candidate {
    pub(super) fn median_score(&self) -> f64 {
        let scores: Vec<f64> = self.runs.iter().map(|run| run.score).collect();
        median(&scores).unwrap_or(f64::INFINITY)
    }

    pub(super) fn cpus(&self) -> f64 {
        let cpus: Vec<f64> = self.runs.iter().map(|run| run.cpus).collect();
        median(&cpus).unwrap_or(0.0)
    }

    fn config(&self) -> BTreeMap<String, String> {
        let mut config = BTreeMap::from([
            ("wait".to_owned(), self.wait.clone()),
            ("place".to_owned(), self.plan.place()),
            ("ring".to_owned(), show_short(self.ring as u64)),
        ]);
        if self.plan.shape == Shape::Full {
            config.insert("sync".to_owned(), self.plan.log.thread_name().to_owned());
        }
        if self.plan.batch > 0 {
            config.insert("batch".to_owned(), self.plan.batch.to_string());
        }
        config
    }

    pub(super) fn show(&self) -> String {
        let parts: Vec<String> = self
            .config()
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        parts.join(" ")
    }

    pub(super) fn record(&self, rank: &str, confirmed: bool) -> CandidateRecord {
        let middle = |pick: fn(&Outcome) -> Option<u64>| {
            let values: Vec<f64> = self
                .runs
                .iter()
                .filter_map(pick)
                .map(|ns| ratio(ns, 1))
                .collect();
            median(&values)
        };
        CandidateRecord {
            config: self.config(),
            confirmed,
            runs: self.runs.len(),
            // Infinity is no JSON: a rate that was not kept has no score.
            scores: self
                .runs
                .iter()
                .map(|run| run.score)
                .filter(|s| s.is_finite())
                .collect(),
            p50: middle(|run| run.p50),
            p99: middle(|run| run.p99),
            p999: middle(|run| run.p999),
            cpus: self.cpus(),
            rank: rank.to_owned(),
        }
    }
}

/// Infinity is no JSON: it is written as null.
mod finite {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(score: &f64, to: S) -> Result<S::Ok, S::Error> {
        Some(*score).filter(|score| score.is_finite()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
    }
}
