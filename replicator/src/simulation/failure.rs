//! A rule that did not hold, with all that it takes to see it again.

use std::fmt;

const MS: u64 = 1_000_000;

/// A rule that did not hold, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After so many steps.
    pub step: u64,
    /// At this simulated time.
    pub at_ns: u64,
    /// Which rule, and what was seen.
    pub what: String,
}

impl Failure {
    pub(super) fn panicked(seed: u64, text: String) -> Failure {
        Failure {
            seed,
            step: 0,
            at_ns: 0,
            what: format!("a node panicked: {text}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} failed at step {} ({} ms): {}\nagain, with every step: \
             cargo run --release -p lockstep-replicator --example sim -- --seed {} --trace",
            self.seed,
            self.step,
            self.at_ns / MS,
            self.what,
            self.seed
        )
    }
}

impl std::error::Error for Failure {}
