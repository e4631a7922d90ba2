//! The rows that rounds fill.

use crate::statistics::{Figure, Reading};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Less is better.
    Ns,
    /// More is better.
    EventsPerSecond,
    /// More is better.
    BytesPerSecond,
    /// Less is better.
    Bytes,
    /// Neither.
    Count,
}

/// What the project wants of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Nothing: the row explains another.
    None,
    /// Ours divided by the other, at most.
    RatioAtMost(f64),
    /// Ours divided by the other, at least.
    RatioAtLeast(f64),
    /// Ours, at most.
    AtMost(f64),
    /// Ours, at least.
    AtLeast(f64),
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct About {
    pub(crate) work: &'static str,
    pub(crate) case: String,
    pub(crate) unit: Unit,
    pub(crate) against: &'static str,
    pub(crate) goal: Goal,
}

/// Ours and the other, round by round.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) about: About,
    pub(crate) ours: Vec<Reading>,
    pub(crate) other: Vec<Reading>,
}

/// All rows, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

impl Results {
    pub(crate) fn add(&mut self, about: About, ours: Reading, other: Option<Reading>) {
        let found = self.rows.iter_mut().find(|row| row.about == about);
        match found {
            Some(row) => {
                row.ours.push(ours);
                row.other.extend(other);
            }
            None => self.rows.push(Row {
                about,
                ours: vec![ours],
                other: other.into_iter().collect(),
            }),
        }
    }

    /// Something to know beside the rows; said once.
    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

impl Row {
    pub(crate) fn figure(readings: &[Reading]) -> Option<Figure> {
        let values: Vec<f64> = readings.iter().map(|reading| reading.value).collect();
        Figure::of(&values)
    }

    /// Medians of p90 and p99.
    pub(crate) fn tail(readings: &[Reading]) -> Option<[f64; 2]> {
        let tails: Vec<[f64; 2]> = readings.iter().filter_map(|reading| reading.tail).collect();
        let of = |at: usize| {
            let values: Vec<f64> = tails.iter().map(|tail| tail[at]).collect();
            Figure::of(&values).map(|figure| figure.median)
        };
        Some([of(0)?, of(1)?])
    }

    /// Ours divided by the other, within each round.
    pub(crate) fn ratio(&self) -> Option<Figure> {
        let pairs = self.ours.iter().zip(&self.other);
        let ratios: Vec<f64> = pairs
            .map(|(ours, other)| ours.value / other.value)
            .collect();
        Figure::of(&ratios)
    }

    /// Whether the goal is met by the medians; `None` if there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ours = Row::figure(&self.ours)?.median;
        let ratio = self.ratio().map(|figure| figure.median);
        match self.about.goal {
            Goal::None => None,
            Goal::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Goal::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Goal::AtMost(most) => Some(ours <= most),
            Goal::AtLeast(least) => Some(ours >= least),
        }
    }
}
