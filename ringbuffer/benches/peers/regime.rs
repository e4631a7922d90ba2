//! How far apart the two CPUs are right now: one cache line bounced between them.
//!
//! On a virtual machine the two may share an L3 at one moment and not at the next; the same
//! binary then differs several times over. So every run is labelled by a probe before and
//! one after it, and ratios are formed between runs of one label.

use std::fmt;

use crate::clock;
use crate::limits::{Caller, bounced_line};
use crate::machine::Machine;
use crate::run::as_f64;
use crate::statistics::median;

/// Between runs of which label a ratio may be formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Regime {
    /// Both probes found the CPUs near: presumably one L3.
    Near,
    /// Both found them far.
    Far,
    /// They moved meanwhile, or a probe was disturbed.
    Mixed,
    /// There is but one CPU.
    Alone,
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Mixed => "mixed",
            Self::Alone => "alone",
        })
    }
}

/// There and back in less: near. Cores of one L3 need 40 to 140 ns, others 250 and more.
const NEAR_BELOW_NS: f64 = 200.0;

/// Round trips of a block, and blocks of a probe: some 0.2 to 1 ms in all.
const TRIPS: u64 = 100;
const BLOCKS: usize = 15;

/// What one probe found: the median block, in ns there and back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe(pub(crate) Option<f64>);

pub(crate) fn probe(machine: &Machine) -> Probe {
    Probe(machine.pair().map(|pair| {
        let mut blocks = Vec::with_capacity(BLOCKS);
        bounced_line(machine, pair, |line| {
            line.there_and_back(1_000);
            blocks.extend((0..BLOCKS).map(|_| block_ns(line)));
        });
        median(blocks.into_iter()).unwrap_or(f64::INFINITY)
    }))
}

/// Ns there and back, over one block.
fn block_ns(line: &mut Caller<'_>) -> f64 {
    let from = clock::ticks();
    line.there_and_back(TRIPS);
    as_f64(clock::ticks() - from) * clock::ns_per_tick() / as_f64(TRIPS)
}

/// The label of a run between two probes.
pub(crate) fn label(before: Probe, after: Probe) -> Regime {
    let (Some(before), Some(after)) = (before.0, after.0) else {
        return Regime::Alone;
    };
    if of(before) == of(after) {
        of(before)
    } else {
        Regime::Mixed
    }
}

/// What one probe says.
pub(crate) fn of(probe_ns: f64) -> Regime {
    if probe_ns < NEAR_BELOW_NS {
        Regime::Near
    } else {
        Regime::Far
    }
}
