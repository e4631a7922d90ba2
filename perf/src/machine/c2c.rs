//! What a message from one CPU to another costs: a line that two pinned threads hand to and
//! fro.
//!
//! Every sample is a run of round trips, so that the clock's cost does not count. The one-way
//! time is half of it. A guest's CPUs may share a cache at one moment and not at the next,
//! for the host moves them: such pairs show two regimes, *near* and *far*, and the share of
//! samples in each is shown instead of a mean that neither has.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::clock::{Clock, Ticks, ratio};
use super::pin::pin;

/// Round trips of one sample.
const TRIPS: u64 = 200;

/// Round trips before the first sample.
const WARM_UP: u64 = 2_000;

/// How far two halves of the samples must be apart to be called two regimes.
const REGIME_RATIO: f64 = 1.6;

/// The word that two threads hand to and fro, alone on its lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Ball(AtomicU64);

/// One pair of CPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Who serves.
    pub from: u32,
    /// Who returns.
    pub to: u32,
    /// One-way times, one of each sample, in nanoseconds, ascending.
    pub one_way_ns: Vec<f64>,
    /// How far the other CPU's clock seems ahead, in nanoseconds.
    pub skew_ns: f64,
    /// What the skew cannot be told apart from: half a round trip.
    pub skew_bound_ns: f64,
}

/// Samples that fall into two groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regimes {
    /// Median of the near ones.
    pub near_ns: f64,
    /// Median of the far ones.
    pub far_ns: f64,
    /// The share of near ones.
    pub near_share: f64,
}

impl Pair {
    /// The middle sample.
    #[must_use]
    pub fn median_ns(&self) -> f64 {
        percentile(&self.one_way_ns, 50)
    }

    /// The fastest one.
    #[must_use]
    pub fn min_ns(&self) -> f64 {
        percentile(&self.one_way_ns, 0)
    }

    /// The two regimes, if there are two.
    #[must_use]
    pub fn regimes(&self) -> Option<Regimes> {
        regimes(&self.one_way_ns)
    }
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0.0)
}

/// Splits ascending values at their widest relative step, if both sides hold a twentieth and
/// their medians differ clearly.
fn regimes(sorted: &[f64]) -> Option<Regimes> {
    let least = (sorted.len() / 20).max(2);
    let steps = sorted.windows(2).enumerate();
    let (cut, _) = steps
        .map(|(index, pair)| (index + 1, pair[1] / pair[0].max(1e-9)))
        .filter(|(cut, _)| *cut >= least && sorted.len() - cut >= least)
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let (near, far) = sorted.split_at(cut);
    let (near_ns, far_ns) = (percentile(near, 50), percentile(far, 50));
    (far_ns > near_ns * REGIME_RATIO).then(|| Regimes {
        near_ns,
        far_ns,
        near_share: ratio(near.len() as u64, sorted.len() as u64),
    })
}

/// Measures one pair with so many samples.
///
/// # Errors
///
/// When one of the threads cannot be pinned.
pub fn measure(clock: &Clock, from: u32, to: u32, samples: usize) -> io::Result<Pair> {
    let there = Ball::default();
    let back = Ball::default();
    let stamp = Ball::default();
    let trips = WARM_UP + TRIPS * samples as u64;
    let proofs = (Ball::default(), Ball::default());
    thread::scope(|scope| {
        let returns = scope.spawn(|| {
            let pinned = pin(to);
            if !both_ready(&proofs.1, &proofs.0, pinned.is_ok()) {
                return pinned.map(|_| ());
            }
            for trip in 1..=trips {
                wait_for(&there, trip);
                // ORDERING: Relaxed, the release of `back` below publishes it.
                stamp.0.store(clock.ordered(), Ordering::Relaxed);
                // ORDERING: Release, pairs with the Acquire in `wait_for`: the stamp.
                back.0.store(trip, Ordering::Release);
            }
            Ok(())
        });
        let serves = scope.spawn(|| {
            let pinned = pin(from);
            if !both_ready(&proofs.0, &proofs.1, pinned.is_ok()) {
                return pinned.map(|_| (Vec::new(), 0.0, f64::INFINITY));
            }
            Ok(serve(clock, &there, &back, &stamp, samples))
        });
        let returned = returns
            .join()
            .map_err(|_| io::Error::other("the returning thread panicked"))?;
        let served = serves
            .join()
            .map_err(|_| io::Error::other("the serving thread panicked"))?;
        returned?;
        let (mut one_way_ns, skew_ns, skew_bound_ns) = served?;
        one_way_ns.sort_by(f64::total_cmp);
        Ok(Pair {
            from,
            to,
            one_way_ns,
            skew_ns,
            skew_bound_ns,
        })
    })
}

const READY: u64 = 1;
const FAILED: u64 = 2;

/// Tells the other side whether this one is pinned, and waits for its word.
fn both_ready(ours: &Ball, theirs: &Ball, ok: bool) -> bool {
    // ORDERING: Release and Acquire, for the pair to start after both pins.
    ours.0
        .store(if ok { READY } else { FAILED }, Ordering::Release);
    // Ends: the other side always gives its word.
    loop {
        // ORDERING: Acquire, see above.
        match theirs.0.load(Ordering::Acquire) {
            0 => thread::yield_now(),
            word => return ok && word == READY,
        }
    }
}

/// Spins until the ball has come `trip` times; after a while it lets others run, for the two
/// may have to share a CPU with the rest of the machine.
#[inline]
fn wait_for(ball: &Ball, trip: u64) {
    let mut looks = 0_u32;
    // Ends: the other side plays the same number of trips.
    // ORDERING: Acquire, pairs with the Release of the store it waits for.
    while ball.0.load(Ordering::Acquire) < trip {
        looks += 1;
        if looks.is_multiple_of(100_000) {
            thread::yield_now();
        }
    }
}

fn serve(
    clock: &Clock,
    there: &Ball,
    back: &Ball,
    stamp: &Ball,
    samples: usize,
) -> (Vec<f64>, f64, f64) {
    let mut trip = 0;
    let mut play = || {
        trip += 1;
        // ORDERING: Release, pairs with the Acquire in `wait_for`.
        there.0.store(trip, Ordering::Release);
        wait_for(back, trip);
    };
    let mut best: Option<(u64, f64)> = None;
    for _ in 0..WARM_UP {
        let sent = clock.ordered();
        play();
        let returned = clock.ordered();
        // ORDERING: Relaxed, `play` has acquired what came with the ball.
        let seen = stamp.0.load(Ordering::Relaxed);
        let round = returned.saturating_sub(sent);
        if best.is_none_or(|(least, _)| round < least) {
            let middle = sent + round / 2;
            let skew = if seen >= middle {
                ratio(clock.to_ns(seen - middle), 1)
            } else {
                -ratio(clock.to_ns(middle - seen), 1)
            };
            best = Some((round, skew));
        }
    }
    let one_way = (0..samples).map(|_| {
        let start = clock.ordered();
        (0..TRIPS).for_each(|_| play());
        ratio(clock.to_ns(clock.ordered() - start), 2 * TRIPS)
    });
    let one_way = one_way.collect();
    let (round, skew) = best.unwrap_or((0, 0.0));
    (one_way, skew, ratio(clock.to_ns(round), 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_regimes_are_told_apart_and_one_is_left_alone() {
        let mut values: Vec<f64> = (0..40).map(|n| 50.0 + f64::from(n) * 0.1).collect();
        assert_eq!(regimes(&values), None);
        values.extend((0..60).map(|n| 250.0 + f64::from(n) * 0.1));
        let found = regimes(&values).unwrap();
        assert!((found.near_share - 0.4).abs() < 1e-9);
        assert!(found.near_ns < 55.0 && found.far_ns > 249.0, "{found:?}");
        assert_eq!(regimes(&[]), None);
    }

    #[test]
    fn one_slow_sample_is_no_regime() {
        let mut values = vec![50.0; 99];
        values.push(5_000.0);
        assert_eq!(regimes(&values), None);
    }

    #[test]
    fn a_cpu_that_cannot_be_used_is_an_error_and_not_a_wrong_number() {
        let clock = Clock::monotonic();
        assert!(measure(&clock, 0, 60_000, 1).is_err());
        assert!(measure(&clock, 60_000, 0, 1).is_err());
    }
}
