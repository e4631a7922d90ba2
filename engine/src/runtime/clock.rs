//! The only door to time.
//!
//! The log's time comes from here once, when *order* writes it into an event; below, time
//! is what the log says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where *order* gets the time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's, in nanoseconds since 1970.
    #[default]
    System,
    /// A number that somebody moves: tests, simulations.
    Manual(Arc<AtomicU64>),
    /// None: events keep the time that their source wrote. For recorded flow.
    OfEvents,
}

impl Clock {
    /// A clock that stands at `now_ns` until [`set`](Self::set) moves it.
    #[must_use]
    pub fn manual(now_ns: u64) -> Self {
        Clock::Manual(Arc::new(AtomicU64::new(now_ns)))
    }

    /// Moves a manual clock; the others go by themselves.
    pub fn set(&self, now_ns: u64) {
        if let Clock::Manual(now) = self {
            // ORDERING: Relaxed, nothing is read by way of the number.
            now.store(now_ns, Ordering::Relaxed);
        }
    }

    /// The time now; `None` where events bring their own.
    #[must_use]
    pub fn now_ns(&self) -> Option<u64> {
        match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Some(since.map_or(0, |since| {
                    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
                }))
            }
            // ORDERING: Relaxed, nothing is read by way of the number.
            Clock::Manual(now) => Some(now.load(Ordering::Relaxed)),
            Clock::OfEvents => None,
        }
    }
}

/// Measures how long something of an operator's takes: recovery, a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
