//! When events are meant to be sent: a schedule that nothing moves.
//!
//! # Invariants
//!
//! * `A1` The n-th intended time depends on start, rate and kind only: however late the
//!   sender is, the plan stays where it was.
//! * `A2` Intended times never run backwards.
//! * `A3` Over a whole table of gaps the mean rate is the one asked for.

use std::fmt;
use std::str::FromStr;

use crate::args::quantity::{count, show_short, whole};
use crate::machine::clock::{Ticks, ratio};

/// How arrivals are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// One every `1 / rate`.
    #[default]
    Even,
    /// Independent of each other, as those of many clients.
    Poisson {
        /// Of the random numbers: one seed, one schedule.
        seed: u64,
    },
    /// So many at the same time, then a pause that keeps the rate.
    Burst {
        /// Events of one burst, at least 1.
        size: u64,
    },
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(count(number)?)),
            None => (text, None),
        };
        match (kind, number) {
            ("even", None) => Ok(Self::Even),
            ("poisson", seed) => Ok(Self::Poisson {
                seed: seed.unwrap_or(1),
            }),
            ("burst", Some(size)) if size > 0 => Ok(Self::Burst { size }),
            _ => Err(format!(
                "{text:?} is no kind of arrivals: even, poisson, poisson:SEED or burst:N with N above 0"
            )),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even => f.write_str("even"),
            Self::Poisson { seed } => write!(f, "poisson:{seed}"),
            Self::Burst { size } => write!(f, "burst:{}", show_short(*size)),
        }
    }
}

/// Gaps of a Poisson schedule, drawn beforehand: a logarithm per event would cost more than
/// the event.
const GAPS: usize = 1 << 16;

/// Ticks with 32 binary places: after 2³² events a schedule is off by one tick at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fine {
    whole: u64,
    part: u32,
}

impl Fine {
    fn of(ticks: u128, divisor: u128) -> Self {
        let fixed = (ticks << 32) / divisor.max(1);
        Self {
            whole: u64::try_from(fixed >> 32).unwrap_or(u64::MAX / 2),
            part: u32::try_from(fixed & u128::from(u32::MAX)).expect("masked to 32 bits"),
        }
    }

    fn plus(self, other: Self) -> Self {
        let (part, carry) = self.part.overflowing_add(other.part);
        Self {
            whole: self.whole + other.whole + u64::from(carry),
            part,
        }
    }
}

/// The intended times, one after the other, in ticks.
#[derive(Debug, Clone)]
pub struct Schedule {
    at: Fine,
    gaps: Vec<Fine>,
    next_gap: usize,
    burst: u64,
    left_in_burst: u64,
}

impl Schedule {
    /// Arrivals at `per_second`, the first at `start`.
    #[must_use]
    pub fn new(arrivals: Arrivals, per_second: u64, clock: &impl Ticks, start: u64) -> Self {
        let second = u128::from(clock.to_ticks(1_000_000_000));
        let rate = u128::from(per_second.max(1));
        let (gaps, burst) = match arrivals {
            Arrivals::Even => (vec![Fine::of(second, rate)], 1),
            Arrivals::Burst { size } => {
                let size = size.max(1);
                (vec![Fine::of(second * u128::from(size), rate)], size)
            }
            Arrivals::Poisson { seed } => (exponential(seed, second, rate), 1),
        };
        Self {
            at: Fine {
                whole: start,
                part: 0,
            },
            gaps,
            next_gap: 0,
            burst,
            left_in_burst: burst,
        }
    }

    /// The next intended time.
    #[inline]
    pub fn take(&mut self) -> u64 {
        let now = self.at.whole;
        self.left_in_burst -= 1;
        if self.left_in_burst == 0 {
            self.left_in_burst = self.burst;
            self.at = self.at.plus(self.gaps[self.next_gap]);
            self.next_gap += 1;
            if self.next_gap == self.gaps.len() {
                self.next_gap = 0;
            }
        }
        now
    }
}

/// Exponential gaps whose sum is exactly that of even ones (A3).
fn exponential(seed: u64, second: u128, rate: u128) -> Vec<Fine> {
    let mut random = Random::new(seed);
    let drawn: Vec<f64> = (0..GAPS).map(|_| -random.unit().ln()).collect();
    let sum: f64 = drawn.iter().sum();
    let total = Fine::of(second * GAPS as u128, rate);
    let total = ratio(total.whole, 1);
    let places = f64::from(u32::MAX) + 1.0;
    drawn
        .into_iter()
        .map(|gap| {
            let ticks = gap / sum * total;
            let whole_ticks = ticks.floor();
            Fine {
                whole: whole(whole_ticks),
                part: u32::try_from(whole((ticks - whole_ticks) * places)).unwrap_or(u32::MAX),
            }
        })
        .collect()
}

/// Random numbers that a seed repeats: xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed; any will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // An odd multiplier spreads small seeds; zero is the one state that never moves.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        ratio((self.bits() >> 11) + 1, 1 << 53)
    }

    /// Below `limit`, which is above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let product = u128::from(self.bits()) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// Puts `items` into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::SimulatedClock;
    use super::*;

    #[test]
    fn a1_even_arrivals_do_not_drift() {
        // 3 events a second: a period that no whole number of ticks is.
        let clock = SimulatedClock::new();
        let mut schedule = Schedule::new(Arrivals::Even, 3, &clock, 1000);
        for event in 0..300_000_u64 {
            let expected = 1000 + event * 1_000_000_000 / 3;
            assert!(schedule.take().abs_diff(expected) <= 1, "event {event}");
        }
    }

    #[test]
    fn a1_a_million_even_arrivals_end_where_they_should() {
        let clock = SimulatedClock::new();
        let mut schedule = Schedule::new(Arrivals::Even, 7_000_000, &clock, 0);
        for _ in 0..7_000_000 {
            schedule.take();
        }
        assert!(schedule.take().abs_diff(1_000_000_000) <= 1);
    }

    #[test]
    fn a3_poisson_arrivals_keep_the_rate_and_vary_as_they_must() {
        let clock = SimulatedClock::new();
        let mut schedule = Schedule::new(Arrivals::Poisson { seed: 7 }, 1_000_000, &clock, 0);
        let times: Vec<u64> = (0..=GAPS).map(|_| schedule.take()).collect();
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = ratio(times[GAPS], GAPS as u64);
        assert!((mean - 1000.0).abs() < 0.01, "mean {mean}");
        // Of exponential gaps a share of 1/e is longer than the mean.
        let longer = gaps.iter().filter(|gap| **gap > 1000).count();
        let share = ratio(longer as u64, GAPS as u64);
        assert!((share - 0.368).abs() < 0.01, "share {share}");
        let mut again = Schedule::new(Arrivals::Poisson { seed: 7 }, 1_000_000, &clock, 0);
        assert_eq!(
            times[1],
            {
                again.take();
                again.take()
            },
            "a seed repeats"
        );
    }

    #[test]
    fn bursts_come_together_and_keep_the_rate() {
        let clock = SimulatedClock::new();
        let mut schedule = Schedule::new(Arrivals::Burst { size: 3 }, 3_000_000, &clock, 5);
        let times: Vec<u64> = (0..7).map(|_| schedule.take()).collect();
        assert_eq!(times, [5, 5, 5, 1005, 1005, 1005, 2005]);
    }

    #[test]
    fn kinds_of_arrivals_are_read_and_written() {
        for text in ["even", "poisson:5", "burst:64"] {
            assert_eq!(text.parse::<Arrivals>().unwrap().to_string(), text);
        }
        for text in ["", "burst", "burst:0", "even:3", "uniform"] {
            assert!(text.parse::<Arrivals>().is_err(), "{text}");
        }
    }
}
