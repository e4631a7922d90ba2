//! *order*: every event gets its time. Its position it has from where it lies in the ring.
//!
//! # Invariants
//!
//! * `OR1` The time never goes back, whatever the clock does: `time(n) ≤ time(n + 1)`, unless
//!   events bring their own; then the state's time does not go back (`CO2`).
//! * `OR2` Events in front of `stamps_from` come from the log and keep the time that they have there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_ringbuffer::{BatchMut, Progress, StageMut};

use crate::event::Slot;
use crate::runtime::clock::Clock;

/// See the module.
#[derive(Debug)]
pub(crate) struct Order {
    clock: Clock,
    last_ns: u64,
    /// The sequence of the first event that is not from the log.
    stamps_from: Arc<AtomicU64>,
}

impl Order {
    pub(crate) fn new(clock: Clock, last_ns: u64) -> Self {
        Self::behind(clock, last_ns, Arc::default())
    }

    /// The same behind what comes from the log (`OR2`).
    pub(crate) fn behind(clock: Clock, last_ns: u64, stamps_from: Arc<AtomicU64>) -> Self {
        Self {
            clock,
            last_ns,
            stamps_from,
        }
    }
}

impl<E: Slot> StageMut<E> for Order {
    fn on_batch(&mut self, mut batch: BatchMut<'_, E>) -> Progress {
        // ORDERING: Relaxed, moved on this stage's own thread, before the first such event is published.
        let stamps_from = self.stamps_from.load(Ordering::Relaxed);
        let known = stamps_from.saturating_sub(batch.first().0);
        let known = usize::try_from(known).map_or(batch.len(), |known| known.min(batch.len()));
        let (known, fresh) = batch.events_mut().split_at_mut(known);
        if let Some(last) = known.last() {
            self.last_ns = self.last_ns.max(last.header().time);
        }
        if let Some(now_ns) = self.clock.now_ns().filter(|_| !fresh.is_empty()) {
            // One look at the clock for the batch: its events came together.
            self.last_ns = self.last_ns.max(now_ns);
            for event in fresh {
                event.header_mut().time = self.last_ns;
            }
        }
        Progress::All
    }
}
