//! Work of a known length, in the place of logic.
//!
//! It is counted, not timed: so many rounds of a calculation in which each needs the one
//! before. Work that ends when a clock says so takes as long on a CPU that is taken away
//! meanwhile, or that runs slower, as on one that is not; work that is counted takes longer
//! there, as logic does. And it reads no clock, so what is asked for is what is added.

use std::hint::black_box;
use std::time::Duration;

use crate::args::quantity::{nanos, whole};
use crate::machine::clock::{Clock, Ticks, ratio};

/// Rounds in a row of a calibration: some 20 µs, short enough to be left alone at times.
const ROUNDS: u64 = 1 << 14;

/// Tries of a calibration; the fastest counts, for nothing makes work faster than it is.
const TRIES: usize = 200;

/// So many rounds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Toil {
    rounds: u64,
}

impl Toil {
    /// Work that takes so long on this machine, undisturbed.
    #[must_use]
    pub fn of(clock: &Clock, duration: Duration) -> Self {
        if duration.is_zero() {
            return Self::default();
        }
        let rounds = ratio(nanos(duration), 1) / round_ns(clock);
        Self {
            rounds: whole(rounds.round()).max(1),
        }
    }

    /// How many rounds it is.
    #[must_use]
    pub fn rounds(self) -> u64 {
        self.rounds
    }

    /// Does it.
    #[inline]
    pub fn work(self) {
        if self.rounds != 0 {
            black_box(chain(self.rounds));
        }
    }
}

/// What a round takes, in nanoseconds.
fn round_ns(clock: &Clock) -> f64 {
    let one = |_| {
        let start = clock.ordered();
        black_box(chain(ROUNDS));
        clock.ordered() - start
    };
    let fastest = (0..TRIES).map(one).min().unwrap_or(1);
    (ratio(clock.to_ns(fastest), ROUNDS)).max(0.01)
}

/// Each round needs the one before: there is nothing to do side by side.
#[inline(never)]
fn chain(rounds: u64) -> u64 {
    let mut value = black_box(0x9E37_79B9_7F4A_7C15_u64);
    for _ in 0..rounds {
        value = (value ^ (value >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_time_is_twice_the_rounds() {
        let clock = Clock::monotonic();
        let rounds_ns = round_ns(&clock);
        let of = |ns: f64| whole((ns / rounds_ns).round());
        assert_eq!(Toil::of(&clock, Duration::ZERO).rounds(), 0);
        assert!(of(100_000.0).abs_diff(2 * of(50_000.0)) <= 1);
        assert!(Toil::of(&clock, Duration::from_nanos(1)).rounds() >= 1);
    }
}
