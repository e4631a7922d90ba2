//! The end of a run: what is under way is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::machine::clock::{Clock, Ticks as _};
use crate::measure::generator::Target;
use crate::measure::recorder::Progress;

/// How many events all generators together have sent, known when the last one is done.
#[derive(Debug, Default)]
pub(super) struct AtomicExpected {
    sent: std::sync::atomic::AtomicU64,
    finished: std::sync::atomic::AtomicU64,
}

/// Waits until every recorder has seen every event, or the limit is over.
#[derive(Debug)]
pub(super) struct DrainLimit<'a> {
    pub(super) progress: &'a [Arc<Progress>],
    pub(super) expected: AtomicExpected,
    pub(super) limit: u64,
}

impl DrainLimit<'_> {
    pub(super) fn done(&self) -> u64 {
        let seen = self.progress.iter().map(|progress| progress.get());
        seen.min().unwrap_or(0)
    }

    /// Keeps an inline pipeline moving until everything that all generators sent is done.
    pub(super) fn wait(
        &self,
        clock: &Clock,
        sent: u64,
        all: u64,
        target: &mut impl Target,
        stop: &AtomicBool,
    ) {
        // ORDERING: AcqRel, pairs with the Acquire below: who sees that all have finished
        // sees what they have added to `sent`.
        self.expected.sent.fetch_add(sent, Ordering::AcqRel);
        // ORDERING: AcqRel, as above.
        self.expected.finished.fetch_add(1, Ordering::AcqRel);
        let end = clock.early() + self.limit;
        // Ends: all is done, or the clock passes `end`.
        loop {
            target.idle();
            // ORDERING: Acquire, pairs with the additions above.
            let all_sent = self.expected.finished.load(Ordering::Acquire) == all;
            // ORDERING: Acquire, as above.
            let sent = self.expected.sent.load(Ordering::Acquire);
            if all_sent && self.done() >= sent || clock.early() >= end {
                return;
            }
            // ORDERING: Relaxed, the flag carries nothing but itself.
            if stop.load(Ordering::Relaxed) && all_sent && self.done() >= sent {
                return;
            }
            thread::yield_now();
        }
    }
}
