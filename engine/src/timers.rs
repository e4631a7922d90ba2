//! Timers by the log's time: part of the state, fired by events.
//!
//! A timer fires when an event brings the log's time to it, in the order of their times
//! and, at one time, in the order in which they were set. Where nothing happens, a tick in
//! the log moves the time.
//!
//! ```
//! use lockstep_engine::Timers;
//!
//! let mut timers: Timers<u64> = Timers::default();
//! let expiry = timers.set(1_000, 7);
//! timers.set(900, 8);
//! assert_eq!(timers.due(950), Some(8));
//! assert_eq!(timers.due(950), None);
//! assert!(timers.cancel(expiry));
//! assert_eq!(timers.due(2_000), None);
//! ```

use std::collections::BTreeMap;

use crate::state::{LoadError, State, StateReader, StateWriter};

/// Names a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at_ns: u64,
    number: u64,
}

/// Timers with something to remember each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers<T> {
    set: BTreeMap<(u64, u64), T>,
    next: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            set: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Timers<T> {
    /// Sets a timer.
    pub fn set(&mut self, at_ns: u64, what: T) -> TimerId {
        let number = self.next;
        self.next += 1;
        self.set.insert((at_ns, number), what);
        TimerId { at_ns, number }
    }

    /// Takes a timer back; whether it was set.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        self.set.remove(&(id.at_ns, id.number)).is_some()
    }

    /// The next timer that is due at this time of the log. Ask until there is none.
    pub fn due(&mut self, now_ns: u64) -> Option<T> {
        let entry = self.set.first_entry()?;
        (entry.key().0 <= now_ns).then(|| entry.remove())
    }

    /// How many are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

impl State for TimerId {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.at_ns.save(out);
        self.number.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            at_ns: State::load(from)?,
            number: State::load(from)?,
        })
    }
}

impl<T: State> State for Timers<T> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.next.save(out);
        self.set.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            next: State::load(from)?,
            set: State::load(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_survive_a_snapshot() {
        let mut timers = Timers::default();
        for (at, what) in [(30, 1_u32), (10, 2), (30, 3), (20, 4)] {
            timers.set(at, what);
        }
        let mut read: Timers<u32> =
            crate::state::from_bytes(&crate::state::to_bytes(&timers)).unwrap();
        assert_eq!(read, timers);
        let fired: Vec<u32> = std::iter::from_fn(|| read.due(30)).collect();
        assert_eq!(fired, [2, 4, 1, 3]);
    }
}
