//! Which slots of a ring with many producers are published: one stamp a slot.
//!
//! Producers finish in any order, so the cursor of the claims does not say what may be
//! read. Each slot has a stamp, the number of its lap; a slot is published when its stamp
//! is that of the lap that the reader is in.
//!
//! ```text
//!   ring of 4, claimed up to 7:   slot     0     1     2     3
//!                                 events   4     5     6     3
//!                                 stamp   lap 1 lap 0 lap 1 lap 0    reader at 4: sees 4, waits for 5
//!                                               ▲ 5 is being written
//! ```
//!
//! A producer is never more than a lap ahead of the slowest reader (R2), so a stamp is
//! either that of the reader's lap or that of the one before: 32 bits may wrap.

use crate::column::index;
use crate::orderings::{stamp_get, stamp_set};
use crate::sync::AtomicU32;

/// The stamps of a ring.
#[derive(Debug)]
pub(crate) struct Stamps {
    laps: Box<[AtomicU32]>,
    mask: u64,
    lap_shift: u32,
}

impl Stamps {
    /// The stamps of a ring of `capacity` slots that starts at `start`: nothing published.
    pub(crate) fn new(capacity: u64, start: u64) -> Self {
        let mask = capacity - 1;
        let lap_shift = capacity.trailing_zeros();
        let first_of = |slot: u64| start + (slot.wrapping_sub(start) & mask);
        Self {
            laps: (0..capacity)
                .map(|slot| AtomicU32::new(lap(first_of(slot), lap_shift).wrapping_sub(1)))
                .collect(),
            mask,
            lap_shift,
        }
    }

    /// Publishes the slot of `sequence`.
    #[inline(always)]
    pub(crate) fn publish(&self, sequence: u64) {
        let lap = lap(sequence, self.lap_shift);
        self.laps[index(sequence & self.mask)].store(lap, stamp_set());
    }

    /// Whether the event of `sequence` is published, and not a lap behind.
    #[inline(always)]
    pub(crate) fn is_published(&self, sequence: u64) -> bool {
        self.laps[index(sequence & self.mask)].load(stamp_get()) == lap(sequence, self.lap_shift)
    }

    /// The first sequence in `[from, limit)` that is not published, or `limit`.
    #[inline]
    pub(crate) fn published_until(&self, from: u64, limit: u64) -> u64 {
        let mut at = from;
        while at < limit && self.is_published(at) {
            at += 1;
        }
        at
    }
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "laps are told apart from their neighbours only"
)]
fn lap(sequence: u64, lap_shift: u32) -> u32 {
    (sequence >> lap_shift) as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_published_before_publish_and_exactly_the_range_after() {
        let stamps = Stamps::new(8, 0);
        assert_eq!(stamps.published_until(0, 8), 0);
        (0..3).for_each(|sequence| stamps.publish(sequence));
        assert_eq!(stamps.published_until(0, 8), 3);
        assert!(!stamps.is_published(3));
    }

    #[test]
    fn out_of_order_shows_only_what_is_there() {
        let stamps = Stamps::new(8, 0);
        stamps.publish(3);
        stamps.publish(5);
        let seen: Vec<u64> = (0..8).filter(|&at| stamps.is_published(at)).collect();
        assert_eq!(seen, [3, 5]);
        assert_eq!(
            stamps.published_until(0, 8),
            0,
            "a query has no side effect"
        );
        assert_eq!(stamps.published_until(3, 8), 4);
    }

    #[test]
    fn an_event_is_unavailable_after_its_slot_has_wrapped() {
        let stamps = Stamps::new(4, 0);
        stamps.publish(1);
        assert!(stamps.is_published(1) && !stamps.is_published(5));
        stamps.publish(5);
        assert!(stamps.is_published(5) && !stamps.is_published(1));
    }

    #[test]
    fn any_start_has_nothing_published_and_the_lap_counter_may_wrap() {
        for start in [0, 1, 5, 1023, (1 << 34) - 3, u64::MAX / 2] {
            let stamps = Stamps::new(4, start);
            for sequence in start..start + 20 {
                assert!(!stamps.is_published(sequence), "{start} {sequence}");
                stamps.publish(sequence);
                assert_eq!(stamps.published_until(sequence, sequence + 9), sequence + 1);
            }
        }
    }
}
