//! Who takes part, and what each of them can do.

pub(crate) mod array_queue;
pub(crate) mod crossbeam_channel;
pub(crate) mod disruptor;
pub(crate) mod kanal;
pub(crate) mod ours;
pub(crate) mod rtrb;
pub(crate) mod sync_channel;

use std::fmt;

use crate::limits;
use crate::machine::Machine;
use crate::run::Reading;
use crate::works::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Ours,
    Disruptor,
    Rtrb,
    CrossbeamChannel,
    ArrayQueue,
    Kanal,
    SyncChannel,
    /// What the machine allows; no contender.
    Limit,
    /// The hand-written ring where another limit stands; no contender.
    HandRing,
}

/// Whom we compare ourselves with.
pub(crate) const PEERS: [Contender; 6] = [
    Contender::Disruptor,
    Contender::Rtrb,
    Contender::CrossbeamChannel,
    Contender::ArrayQueue,
    Contender::Kanal,
    Contender::SyncChannel,
];

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "lockstep",
            Self::Disruptor => "disruptor",
            Self::Rtrb => "rtrb",
            Self::CrossbeamChannel => "crossbeam-channel",
            Self::ArrayQueue => "crossbeam-queue",
            Self::Kanal => "kanal",
            Self::SyncChannel => "std-mpsc",
            Self::Limit => "limit",
            Self::HandRing => "hand-written ring",
        }
    }
}

/// Runs so many events or round trips; what it gave, or what went missing.
pub(crate) type RunCase = Box<dyn Fn(&Machine, u64) -> Result<Reading, String>>;

/// One contender in one variant at one work.
pub(crate) struct Case {
    pub(crate) contender: Contender,
    /// How it waits, and how its stages are placed.
    pub(crate) variant: String,
    pub(crate) run: RunCase,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.contender.name(), self.variant)
    }
}

impl Case {
    pub(crate) fn new(contender: Contender, variant: impl Into<String>, run: RunCase) -> Self {
        Self {
            contender,
            variant: variant.into(),
            run,
        }
    }
}

/// Everybody who can do this work here.
pub(crate) fn cases(work: &Work, machine: &Machine) -> Vec<Case> {
    let mut cases = Vec::new();
    ours::cases(work, machine, &mut cases);
    disruptor::cases(work, machine, &mut cases);
    rtrb::cases(work, machine, &mut cases);
    crossbeam_channel::cases(work, machine, &mut cases);
    array_queue::cases(work, machine, &mut cases);
    kanal::cases(work, machine, &mut cases);
    sync_channel::cases(work, machine, &mut cases);
    limits::cases(work, machine, &mut cases);
    cases
}
