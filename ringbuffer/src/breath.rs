//! Letting a busy reader breathe, so that it does not take the producer's line for every
//! event.
//!
//! A reader that keeps up finds one event, looks again, finds one more: each look pulls
//! the line of the cursor and that of the slot from the producer, which then waits for
//! them. If it looks a little later it finds several, for the price of one. So after a
//! turn that found more than a breath's worth, the breath doubles; else it halves; a turn
//! that found nothing ends it. An event is late by about as many events as came with it.
//!
//! What it buys, two near CPUs, events of 64 bytes, one to one, `auto`: 50 → 386 M/s by 1
//! and 173 → 832 M/s by 100 (bench `peers`); latency in open loop at 1 and 5 M/s is the
//! same; at 20 M/s it rises from 0.18 to 0.48 µs. [`Wait::Spin`](crate::Wait::Spin) never
//! breathes.

use crate::sync::spin_loop;

/// The longest breath, in PAUSEs: some 0.8 µs.
const PAUSES_MAX: u64 = 32;

/// How long a runner breathes between two turns that worked.
#[derive(Debug, Default)]
pub(crate) struct Breath {
    pauses: u64,
}

impl Breath {
    /// A turn took `events`.
    #[inline(always)]
    pub(crate) fn after(&mut self, events: u64) {
        self.pauses = if events > 2 * self.pauses {
            (2 * self.pauses).clamp(1, PAUSES_MAX)
        } else {
            self.pauses / 2
        };
        pause(self.pauses);
    }

    /// A turn took nothing: what comes next is looked for at once.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        self.pauses = 0;
    }
}

/// Under loom and Miri a PAUSE is a change of threads: one does what many do elsewhere.
const PAUSES_ARE_TURNS: bool = cfg!(any(loom, miri));

#[inline(always)]
fn pause(times: u64) {
    for _ in 0..if PAUSES_ARE_TURNS {
        times.min(1)
    } else {
        times
    } {
        spin_loop();
    }
}

/// The longest that a producer gives way: some 13 µs.
const GIVE_WAY_MAX: u32 = 512;
/// Claims without a lost race after which a producer gives way for half as long.
const WINS_UNTIL_HALF: u32 = 1024;

/// How long a producer stands aside after it lost the race for a claim.
///
/// Producers that claim in turns, one event each, move the line of the claims and those of
/// the slots with every event. If the loser of a race stays away for a while, the other
/// claims hundreds in a row; then they change places. How long is learned: it doubles with
/// each loss and is halved by a thousand claims without one, so that producers that meet
/// seldom wait a fraction of a microsecond.
///
/// What it buys, three producers on two CPUs, `yield:0`: 34-48 → 97-116 M/s near, 12 → 16
/// far, not in turns (bench `peers`, work `three_to_one`; docs/FIGURES.md has the reserves).
#[derive(Debug, Default)]
pub(crate) struct GiveWay {
    pauses: u32,
    wins: u32,
}

impl GiveWay {
    #[inline(always)]
    pub(crate) fn won(&mut self) {
        self.wins += 1;
        if self.wins == WINS_UNTIL_HALF {
            self.wins = 0;
            self.pauses /= 2;
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn lost(&mut self) {
        self.wins = 0;
        self.pauses = (2 * self.pauses).clamp(8, GIVE_WAY_MAX);
        pause(u64::from(self.pauses));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(turns: &[u64]) -> u64 {
        let mut breath = Breath::default();
        turns.iter().for_each(|&events| breath.after(events));
        breath.pauses
    }

    #[test]
    fn a_breath_grows_with_what_it_brings_and_shrinks_without() {
        assert_eq!(after(&[1]), 1);
        assert_eq!(after(&[1, 3]), 2);
        assert_eq!(after(&[1, 3, 9, 17]), 8);
        assert_eq!(after(&[1, 3, 9, 17, 16]), 4);
        assert_eq!((after(&[1, 1]), after(&[1, 1, 1])), (0, 1));
        assert_eq!(after(&[1_000; 20]), PAUSES_MAX);
    }

    #[test]
    fn a_producer_gives_way_for_longer_the_more_it_loses() {
        let mut way = GiveWay::default();
        (0..3).for_each(|_| way.lost());
        assert_eq!(way.pauses, 32);
        (0..20).for_each(|_| way.lost());
        assert_eq!(way.pauses, GIVE_WAY_MAX);
        (0..2 * WINS_UNTIL_HALF).for_each(|_| way.won());
        assert_eq!(way.pauses, GIVE_WAY_MAX / 4);
    }

    #[test]
    fn an_idle_turn_ends_it() {
        let mut breath = Breath { pauses: 32 };
        breath.end();
        assert_eq!(breath.pauses, 0);
    }
}
