//! What can be refused, and what each refusal tells the one who asked.
//!
//! Four kinds, one for each moment: [`BuildError`] before anything runs,
//! [`StartError`] while threads start, [`ClaimError`] while publishing, [`Fault`] when a
//! stage fails.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::cursor::Sequence;
use crate::sync::Arc;

/// Why a graph cannot be built. No thread has been started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The capacity is zero, no power of two, or beyond the limit.
    #[error(
        "a ring of {asked} slots is not possible: the capacity is a power of two from 1 to {max}; \
         the nearest one is {suggestion}"
    )]
    Capacity {
        /// What was asked for.
        asked: usize,
        /// The largest capacity.
        max: usize,
        /// The next larger power of two, or the largest.
        suggestion: usize,
    },
    /// The slots do not fit into memory.
    #[error(
        "cannot allocate {capacity} slots of {slot_bytes} bytes each; use fewer slots or a smaller event"
    )]
    NoMemory {
        /// How many slots.
        capacity: usize,
        /// The size of one.
        slot_bytes: usize,
    },
    /// The slots could not be locked into memory.
    #[error(
        "cannot lock {bytes} bytes into memory: {source}; raise the limit (ulimit -l, LimitMEMLOCK) or leave `lock` off"
    )]
    Lock {
        /// The size of the block.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A ring that nobody reads would overwrite what it was given.
    #[error("the graph has no stage: add one with `stage`, or a `poller`")]
    NoStage,
    /// Two stages have the same name.
    #[error("two stages are called {name:?}; names identify stages in reports and must differ")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// No stage has this name.
    #[error(
        "there is no stage called {name:?}; the stages are {known:?}{}",
        nearest(.name, .known.iter().map(String::as_str), "; did you mean ", "?")
    )]
    UnknownStage {
        /// What was looked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// An identifier comes from another graph.
    #[error(
        "{what} names {id} of another graph; use the ids that this graph returned, those of {known:?}"
    )]
    ForeignStage {
        /// Who used the identifier.
        what: String,
        /// The number of the stage in its own graph, or the lane.
        id: String,
        /// The stages that this graph has.
        known: Vec<String>,
    },
    /// A stage follows itself.
    #[error("stage {stage:?} is told to follow itself; name the stages before it, or none")]
    FollowsItself {
        /// The stage.
        stage: String,
    },
    /// Stages follow one another in a circle.
    #[error("stages follow one another in a circle: {}; remove one of these edges", .stages.join(" -> "))]
    Cycle {
        /// The circle, its first stage again at the end.
        stages: Vec<String>,
    },
    /// A stage that writes events has a stage beside it that is not ordered against it.
    #[error(
        "stage {writer:?} writes events, but {other:?} is neither before nor behind it and would read them \
         at the same time; let one follow the other, or give {writer:?} a lane of its own"
    )]
    ParallelWriter {
        /// The stage that writes.
        writer: String,
        /// The stage that is not ordered against it.
        other: String,
    },
    /// Others follow a poller that may leave.
    #[error(
        "poller {poller:?} may be dropped (OnDrop::Detach), but {follower:?} follows it and would never move again; \
         use OnDrop::Halt"
    )]
    DetachableFollowed {
        /// The poller.
        poller: String,
        /// Who follows it.
        follower: String,
    },
    /// A stage was placed on two threads.
    #[error("stage {stage:?} is placed twice; a stage runs on one thread")]
    PlacedTwice {
        /// The stage.
        stage: String,
    },
    /// A poller cannot be placed: its user drives it.
    #[error("{stage:?} is driven by its user's thread and cannot be placed on a runner")]
    NotPlaceable {
        /// What was placed.
        stage: String,
    },
    /// There is no such poller, or it was handed out before.
    #[error("{stage:?} is no poller that can be had: it is a stage, or was handed out already")]
    NotAPoller {
        /// What was asked for.
        stage: String,
    },
    /// A graph of more stages than its table of cursors has room for.
    #[error(
        "{asked} stages are too many for one graph: it holds {max}; join some with `Fused`, or chain two rings"
    )]
    TooManyStages {
        /// How many were made.
        asked: usize,
        /// How many there may be.
        max: usize,
    },
    /// Readers come and go, so somebody else has to hold the producer back.
    #[error("seats for readers need at least one stage that stays; the graph has none")]
    ReadersAlone,
    /// More seats for readers than the table of cursors has room for.
    #[error(
        "{asked} seats for readers are not possible: there are from 0 to {max}; the nearest is {max}"
    )]
    Seats {
        /// What was asked for.
        asked: usize,
        /// The most there may be.
        max: usize,
    },
    /// The ring starts so late that its sequences would come to their end.
    #[error("a ring cannot start at {asked}: it starts at 0 to {max}; the nearest is {max}")]
    Start {
        /// What was asked for.
        asked: Sequence,
        /// The largest start.
        max: Sequence,
    },
    /// The largest batch is zero or beyond the ring.
    #[error(
        "a largest batch of {asked} is not possible: it is from 1 to the {capacity} slots of the ring; \
         the nearest is {}", (*.asked).clamp(1, *.capacity)
    )]
    MaxBatch {
        /// What was asked for.
        asked: usize,
        /// The capacity of the ring.
        capacity: usize,
    },
    /// A stage that takes whole batches cannot skip one event.
    #[error(
        "stage {stage:?} takes whole batches, so the event at fault is not known and cannot be skipped; \
         write it with `each`, or use OnFault::Halt"
    )]
    SkipNeedsEvents {
        /// The stage.
        stage: String,
    },
    /// A lane has no owner, or two.
    #[error(
        "a lane of {type_name} has {owners} owners; say `graph.lane_owner(stage, &lane)` exactly once"
    )]
    LaneOwner {
        /// What the lane holds.
        type_name: &'static str,
        /// How many stages claimed it.
        owners: usize,
    },
    /// The thread cannot be placed on this CPU.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// The name among `known` that is most like `name`, if any is, between two texts.
pub(crate) fn nearest<'n>(
    name: &str,
    known: impl Iterator<Item = &'n str>,
    before: &str,
    behind: &str,
) -> String {
    let likest = known.map(|other| (distance(name, other), other)).min();
    match likest {
        Some((far, other)) if far <= 1 + other.len() / 3 => format!("{before}{other:?}{behind}"),
        _ => String::new(),
    }
}

/// How many bytes have to be added, dropped or changed to make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Why a thread cannot be pinned.
#[derive(Debug, Error)]
#[error("cannot pin {runner:?} to CPU {cpu}: {source}; this process may use CPUs {allowed}")]
pub struct PinError {
    /// The runner that was to be pinned.
    pub runner: String,
    /// The CPU that was asked for.
    pub cpu: usize,
    /// The CPUs that this process may use, in the syntax of `taskset`.
    pub allowed: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// Why the threads of a pipeline could not be started. Those that had been are stopped
/// and joined; no event has been touched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system gave no thread.
    #[error("cannot start the thread of runner {runner:?}: {source}")]
    Spawn {
        /// The runner.
        runner: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A thread could not be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A poller would hold the ring back for ever, since nobody has it.
    #[error("poller {poller:?} was not taken: call `pipeline.poller(id)` before `start`")]
    PollerNotTaken {
        /// The poller.
        poller: String,
    },
}

/// Why events could not be claimed. Nothing was claimed, and nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The ring has no room; the policy, or a `try_` call, says not to wait.
    #[error("the ring is full: {missing} more slots are needed")]
    Full {
        /// How many slots have to become free.
        missing: u64,
    },
    /// The ring had no room until the deadline.
    #[error("the ring stayed full until the deadline: {missing} more slots are needed")]
    TimedOut {
        /// How many slots have to become free.
        missing: u64,
    },
    /// No ring of this size can hold so many events at once.
    #[error(
        "{asked} events do not fit into a ring of {capacity} slots: claim from 1 to {capacity} at once, \
         and publish more in parts"
    )]
    TooLarge {
        /// How many were asked for.
        asked: usize,
        /// The capacity of the ring.
        capacity: usize,
    },
    /// A claim of nothing.
    #[error("a claim of 0 events claims nothing: claim at least 1")]
    Nothing,
    /// A stage failed, and the pipeline stopped there.
    #[error("the pipeline is poisoned: {fault}")]
    Poisoned {
        /// The first fault that stopped it: the stage, the place, and what was said.
        fault: Arc<Fault>,
    },
    /// The pipeline was halted.
    #[error("the pipeline was halted")]
    Halted,
}

/// What went wrong in a stage, in the words of whoever failed.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One failure of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The stage.
    pub stage: Arc<str>,
    /// The event at fault where the stage goes event by event; else the first event that
    /// the stage has not promised.
    pub at: Sequence,
    /// How it failed.
    pub kind: FaultKind,
    /// The panic's message, or the error's: the first KiB of it.
    pub text: String,
}

/// How a stage failed; shown as the verb of a sentence about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It panicked.
    Panic,
    /// It returned `Progress::Fail`, or a promise outside its batch.
    Error,
    /// It panicked or failed on one event, which was skipped as its policy says.
    Skipped,
    /// It panicked or failed on one event, which is delivered again as its policy says.
    Retried,
    /// Its gate was told to fail, or was dropped with events in flight.
    Gate,
    /// Its poller was dropped, and its policy says that this halts the pipeline.
    PollerDropped,
    /// A multi-producer claim was aborted and the ring's void value could not be made.
    Void,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Panic => "panicked",
            FaultKind::Error => "failed",
            FaultKind::Skipped => "skipped an event",
            FaultKind::Retried => "retries an event",
            FaultKind::Gate => "lost its promise",
            FaultKind::PollerDropped => "lost its poller",
            FaultKind::Void => "could not void a claim",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stage {:?} {} at {}: {}",
            self.stage, self.kind, self.at, self.text
        )
    }
}
