//! Between the logic of a node in a cluster, which panicked, and the thread that talks with the others.
//!
//! ```text
//!   logic:  stands in front of p ──stand──►  the node asks the others
//!           waits                            a majority stands there: the leader marks p in the log
//!           passes p over      ◄──decide──   the mark is committed and durable here
//! ```
//!
//! # Invariants
//!
//! * `VD1` The logic goes past an event on which it panicked only behind a mark that is committed.
//! * `VD2` What is said of an event is final: it is said of those that the state has gone past.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_journaler::Position;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// Whether the logic stands, or has told of what nobody has heard yet.
    has_news: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    standing: Option<u64>,
    decided: Option<u64>,
    quarantined: BTreeSet<u64>,
    /// Went into quarantine, and was not told to the others.
    untold: Vec<u64>,
}

impl Known {
    fn has_news(&self) -> bool {
        self.standing.is_some() || !self.untold.is_empty()
    }
}

impl Verdicts {
    /// For a state in which these are in quarantine.
    pub(crate) fn of(quarantined: &BTreeSet<u64>) -> Self {
        let known = Known {
            quarantined: quarantined.clone(),
            ..Known::default()
        };
        Self {
            has_news: AtomicBool::new(false),
            known: Mutex::new(known),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The logic stands in front of this event; whether it may pass it over (`VD1`).
    pub(crate) fn stand(&self, position: Position) -> bool {
        let mut known = self.known();
        known.standing = Some(position.0);
        // ORDERING: Relaxed, a hint: the lock orders what it hints at.
        self.has_news.store(true, Ordering::Relaxed);
        known.decided == Some(position.0)
    }

    /// The state is one in which this event is in quarantine.
    pub(crate) fn is_passed_over(&self, position: Position) {
        let mut known = self.known();
        known.quarantined.insert(position.0);
        known.untold.push(position.0);
        known.standing.take_if(|standing| *standing == position.0);
        // ORDERING: Relaxed, as above.
        self.has_news.store(known.has_news(), Ordering::Relaxed);
    }

    /// Where the logic stands. A hint: who misses it looks again in the next turn.
    pub(crate) fn standing(&self) -> Option<Position> {
        // ORDERING: Relaxed, as above.
        if !self.has_news.load(Ordering::Relaxed) {
            return None;
        }
        self.known().standing.map(Position)
    }

    /// What went into quarantine since the last call.
    pub(crate) fn untold(&self) -> Vec<Position> {
        // ORDERING: Relaxed, as above.
        if !self.has_news.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut known = self.known();
        let untold = std::mem::take(&mut known.untold);
        self.has_news.store(known.has_news(), Ordering::Relaxed);
        untold.into_iter().map(Position).collect()
    }

    /// The log has a mark for this event, committed and durable here.
    pub(crate) fn decide(&self, position: Position) {
        self.known().decided = Some(position.0);
    }

    /// All events that are in quarantine and that the state has gone past.
    pub(crate) fn quarantined(&self) -> BTreeSet<u64> {
        self.known().quarantined.clone()
    }

    /// Whether an event that the state has gone past is in quarantine (`VD2`).
    pub(crate) fn is_quarantined(&self, position: Position) -> bool {
        self.known().quarantined.contains(&position.0)
    }
}
