//! A clock that tests move: a tick is a nanosecond, and every look costs one.

use std::cell::Cell;
use std::rc::Rc;

use crate::machine::clock::Ticks;

/// Time as the test wants it; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedClock {
    now: Rc<Cell<u64>>,
    /// What one look costs.
    step: u64,
}

impl SimulatedClock {
    pub(crate) fn new() -> Self {
        Self {
            now: Rc::new(Cell::new(0)),
            step: 1,
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ns: u64) {
        self.now.set(self.now.get() + ns);
    }
}

impl Ticks for SimulatedClock {
    fn ordered(&self) -> u64 {
        self.pass(self.step);
        self.now.get()
    }

    fn early(&self) -> u64 {
        self.ordered()
    }

    fn to_ns(&self, ticks: u64) -> u64 {
        ticks
    }

    fn to_ticks(&self, ns: u64) -> u64 {
        ns
    }
}
