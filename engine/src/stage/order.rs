//! *order*: every event gets its time. Its position it has from where it lies in the ring.
//!
//! # Invariants
//!
//! * `OR1` The time never goes back, whatever the clock does: `time(n) ≤ time(n + 1)`, unless
//!   events bring their own; then the state's time does not go back (`CO2`).

use lockstep_ringbuffer::{BatchMut, Progress, StageMut};

use crate::event::Slot;
use crate::runtime::clock::Clock;

/// See the module.
#[derive(Debug)]
pub(crate) struct Order {
    clock: Clock,
    last_ns: u64,
}

impl Order {
    pub(crate) fn new(clock: Clock, last_ns: u64) -> Self {
        Self { clock, last_ns }
    }
}

impl<E: Slot> StageMut<E> for Order {
    fn on_batch(&mut self, mut batch: BatchMut<'_, E>) -> Progress {
        if let Some(now_ns) = self.clock.now_ns() {
            // One look at the clock for the batch: its events came together.
            self.last_ns = self.last_ns.max(now_ns);
            for event in batch.events_mut() {
                event.header_mut().time = self.last_ns;
            }
        }
        Progress::All
    }
}
