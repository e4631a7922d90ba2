//! What a tune looks for, and among what.

use std::str::FromStr;

use lockstep_engine::{JournalMode, JournalThread};
use lockstep_perf::args::plan::Wishes;
use lockstep_perf::args::quantity::{rate, show_short};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::wish::Log;

/// What is to become small.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objective {
    /// A percentile at a rate; none: throughput.
    pub(super) latency: Option<(f64, u64)>,
    /// CPUs that may be used.
    pub(super) cpus_below: Option<f64>,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no objective: p99@500k, p50@1M,cpu<2 or throughput");
        let mut parts = text.split(',').map(str::trim);
        let goal = parts.next().ok_or_else(bad)?;
        let latency = if goal == "throughput" {
            None
        } else {
            let (name, at) = goal.split_once('@').ok_or_else(bad)?;
            let percentile: f64 = name
                .strip_prefix('p')
                .and_then(|n| n.parse().ok())
                .ok_or_else(bad)?;
            let per_second = rate(at)?;
            if !(percentile > 0.0 && percentile < 100.0) || per_second == 0 {
                return Err(bad());
            }
            Some((percentile, per_second))
        };
        let mut cpus_below = None;
        for limit in parts {
            let number = limit
                .strip_prefix("cpu<")
                .and_then(|n| n.parse::<f64>().ok());
            cpus_below = Some(number.ok_or_else(bad)?);
        }
        Ok(Self {
            latency,
            cpus_below,
        })
    }
}

/// What is tried.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Space {
    pub(super) waits: Vec<String>,
    pub(super) places: Vec<usize>,
    pub(super) rings: Vec<usize>,
    pub(super) batches: Vec<Option<usize>>,
    pub(super) syncs: Vec<JournalThread>,
}

impl Space {
    /// All that is worth trying for these stages. The engine chooses its batches, unless they
    /// are named; where its syncs block is tried.
    pub(super) fn whole(wishes: &Wishes) -> Self {
        let stages = wishes.shape.stages();
        let is_full = wishes.shape == Shape::Full;
        let has_syncs = is_full && wishes.log.mode != JournalMode::None;
        let waits = ["spin", "spin-pause", "yield:100", "backoff", "park"];
        let mut places = vec![1, 2, stages];
        places.retain(|threads| *threads <= stages);
        places.sort_unstable();
        places.dedup();
        Self {
            waits: waits.map(str::to_owned).to_vec(),
            places,
            rings: vec![1 << 10, 1 << 14, 1 << 16],
            batches: if is_full {
                vec![wishes.batch]
            } else {
                vec![Some(16), Some(64), Some(256)]
            },
            syncs: if has_syncs {
                vec![JournalThread::Inline, JournalThread::Worker]
            } else {
                vec![wishes.log.thread]
            },
        }
    }

    /// What is named here, and what is not from another.
    pub(super) fn or(self, other: Self) -> Self {
        fn named<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
            if own.is_empty() { other } else { own }
        }
        Self {
            waits: named(self.waits, other.waits),
            places: named(self.places, other.places),
            rings: named(self.rings, other.rings),
            batches: named(self.batches, other.batches),
            syncs: named(self.syncs, other.syncs),
        }
    }
}

impl FromStr for Space {
    type Err = String;

    /// What is not named keeps its own values: an empty list stands for them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut space = Self::default();
        for part in text.split(',') {
            let (key, values) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: as in wait=spin|park,ring=1Ki|64Ki"))?;
            let sizes = || {
                values
                    .split('|')
                    .map(crate::verb::flags::size)
                    .collect::<Result<Vec<_>, _>>()
            };
            match key.trim() {
                "wait" => {
                    for wait in values.split('|') {
                        wait.parse::<lockstep_perf::args::wish::Waits>()?;
                        space.waits.push(wait.to_owned());
                    }
                }
                "place" => space.places = sizes()?,
                "ring" => space.rings = sizes()?,
                "batch" => space.batches = sizes()?.into_iter().map(Some).collect(),
                "sync" => {
                    let each = values.split('|').map(Log::thread);
                    space.syncs = each.collect::<Result<_, _>>()?;
                }
                other => {
                    return Err(format!(
                        "{other:?} is not tuned: wait, place, ring, batch, sync"
                    ));
                }
            }
        }
        Ok(space)
    }
}

impl Objective {
    pub(super) fn show(&self) -> String {
        let goal = match self.latency {
            Some((p, rate)) => format!("p{p}@{}", show_short(rate)),
            None => "throughput".to_owned(),
        };
        match self.cpus_below {
            Some(cpus) => format!("{goal},cpu<{cpus}"),
            None => goal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_and_spaces_are_read() {
        for text in ["p99@500k", "throughput", "p50@1M,cpu<2"] {
            assert_eq!(text.parse::<Objective>().unwrap().show(), text);
        }
        for text in ["", "p99", "p100@1k", "p99@0", "fast", "throughput,mem<2"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
        let space: Space = "wait=spin|park,ring=1Ki".parse().unwrap();
        assert_eq!(space.waits, ["spin", "park"]);
        assert_eq!(space.rings, [1024]);
        assert!("colour=red".parse::<Space>().is_err());
        let space: Space = "sync=inline|worker".parse().unwrap();
        assert_eq!(space.syncs, [JournalThread::Inline, JournalThread::Worker]);
    }
}
