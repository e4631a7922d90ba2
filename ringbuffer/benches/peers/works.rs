//! What is measured: the shapes, how many events, in which unit.

use std::fmt;

/// Slots of a ring or queue under load.
pub(crate) const RING: usize = 65_536;
/// Where only one event is ever under way.
pub(crate) const SMALL_RING: usize = 1_024;
/// Where LMAX's own test of the shape has it so.
pub(crate) const DIAMOND_RING: usize = 8_192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One producer, which publishes `claim` events at once; one reader.
    OneToOne { claim: u64 },
    /// Three readers, each of which gets every event.
    OneToThree,
    /// Three readers, one behind the other.
    Pipeline,
    /// Two readers side by side and one behind both.
    Diamond,
    /// Three producers, one reader.
    ThreeToOne,
    /// One event there and one back.
    PingPong,
    /// Open loop: how late an event reaches the one reader.
    LagOneToOne { per_second: u64 },
    /// Open loop: how late it reaches the reader behind both.
    LagDiamond { per_second: u64 },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) shape: Shape,
}

pub(crate) const WORKS: [Work; 12] = [
    work("one_to_one_1", "1→1 by 1", Shape::OneToOne { claim: 1 }),
    work("one_to_one_10", "1→1 by 10", Shape::OneToOne { claim: 10 }),
    work(
        "one_to_one_100",
        "1→1 by 100",
        Shape::OneToOne { claim: 100 },
    ),
    work("one_to_three", "1→3", Shape::OneToThree),
    work("pipeline", "pipeline of 3", Shape::Pipeline),
    work("diamond", "diamond", Shape::Diamond),
    work("three_to_one", "3→1", Shape::ThreeToOne),
    work("ping_pong", "ping-pong", Shape::PingPong),
    work(
        "lag_one_to_one_100k",
        "lag 1→1 100k/s",
        Shape::LagOneToOne {
            per_second: 100_000,
        },
    ),
    work(
        "lag_one_to_one_1m",
        "lag 1→1 1M/s",
        Shape::LagOneToOne {
            per_second: 1_000_000,
        },
    ),
    work(
        "lag_diamond_100k",
        "lag diamond 100k/s",
        Shape::LagDiamond {
            per_second: 100_000,
        },
    ),
    work(
        "lag_diamond_1m",
        "lag diamond 1M/s",
        Shape::LagDiamond {
            per_second: 1_000_000,
        },
    ),
];

const fn work(key: &'static str, title: &'static str, shape: Shape) -> Work {
    Work { key, title, shape }
}

/// What a figure counts, and so which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    EventsPerSecond,
    MedianNs,
}

impl Unit {
    /// How many times better `ours` is than `theirs`.
    pub(crate) fn better_by(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::EventsPerSecond => ours / theirs,
            Self::MedianNs => theirs / ours,
        }
    }

    /// The figure as it is printed.
    pub(crate) fn text(self, value: f64) -> String {
        let (value, unit) = match self {
            Self::EventsPerSecond => (value / 1e6, ""),
            Self::MedianNs if value >= 99_950.0 => (value / 1e6, " ms"),
            Self::MedianNs if value >= 9_995.0 => (value / 1e3, " µs"),
            Self::MedianNs => return format!("{value:.0}"),
        };
        match value {
            large if large >= 99.95 => format!("{value:.0}{unit}"),
            middle if middle >= 9.995 => format!("{value:.1}{unit}"),
            _ => format!("{value:.2}{unit}"),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EventsPerSecond => "M/s",
            Self::MedianNs => "ns p50",
        })
    }
}

impl Work {
    pub(crate) fn unit(&self) -> Unit {
        match self.shape {
            Shape::PingPong | Shape::LagOneToOne { .. } | Shape::LagDiamond { .. } => {
                Unit::MedianNs
            }
            _ => Unit::EventsPerSecond,
        }
    }

    /// How many events a run of `seconds` needs, from what an earlier run gave.
    ///
    /// A multiple of 300, so that claims of 100 and three producers come out even; where
    /// throughput is measured, the ring is filled some times over.
    pub(crate) fn events(&self, seconds: f64, earlier: Option<f64>) -> u64 {
        let (events, least) = match self.shape {
            Shape::LagOneToOne { per_second } | Shape::LagDiamond { per_second } => {
                (seconds * crate::run::as_f64(per_second), 1_000)
            }
            Shape::PingPong => (earlier.map_or(0.0, |ns| seconds * 1e9 / ns), 3_000),
            _ => (
                earlier.map_or(0.0, |per_second| seconds * per_second),
                2 * RING as u64,
            ),
        };
        crate::run::whole(events)
            .clamp(least, 200_000_000)
            .div_ceil(300)
            * 300
    }
}
