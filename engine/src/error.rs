//! What can go wrong with an engine, one line each that an operator can act on.

use lockstep_journaler::snapshots::SnapshotError;
use lockstep_journaler::{OpenError, Position, ReadError};
use lockstep_ringbuffer::{BuildError, Fault, StartError};
use thiserror::Error;

use crate::config::ConfigError;
use crate::core::StepError;
use crate::ledger::Ledger;
use crate::state::LoadError;

/// Why an engine did not start, stopped, or could not replay.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory cannot be used.
    #[error("cannot use the directory {directory}: {source}")]
    Directory {
        /// Which.
        directory: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The configuration keeps no journal, and there is one.
    #[error(
        "journal = none, and the directory has a journal: its events would be left out of the state; \
         choose another directory, or keep a journal (journal = sync)"
    )]
    HasJournal,
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The node does not fit the cluster, or its directory.
    #[error(transparent)]
    Cluster(#[from] lockstep_replicator::StartError),
    /// The node cannot go on in the cluster.
    #[error(transparent)]
    Agreement(#[from] lockstep_replicator::Fatal),
    /// The node's sockets cannot be had.
    #[error(transparent)]
    Transport(#[from] lockstep_replicator::transport::TransportError),
    /// Snapshots cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What retention goes by cannot be read, or a segment cannot be removed.
    #[error("retention: {0}")]
    Retention(#[from] lockstep_journaler::tools::ToolError),
    /// The state cannot be loaded from any snapshot, and the journal does not begin at 0.
    #[error(
        "no snapshot can be loaded and the journal begins at position {oldest}: {reasons}; \
         put a snapshot or the older segments back from the archive"
    )]
    NoStart {
        /// The journal's first position.
        oldest: Position,
        /// What is wrong with each snapshot.
        reasons: String,
    },
    /// A state cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The log cannot be applied.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The logic panicked during a replay.
    #[error(
        "the logic panicked in {what} at position {position} (kind {kind}): {text}; mend the logic, or open with \
         on_{what}_panic = quarantine"
    )]
    Panicked {
        /// `validate` or `apply`.
        what: &'static str,
        /// The event's position.
        position: Position,
        /// Its kind.
        kind: u16,
        /// What the panic said.
        text: String,
    },
    /// The events in the journal are of another size than the logic's.
    #[error(
        "the events in the journal have {found} bytes, the logic's have {expected}: it is another application's"
    )]
    EventSize {
        /// Of the logic.
        expected: usize,
        /// In the journal.
        found: u32,
    },
    /// The log holds the events of another application.
    #[error(
        "the journal holds events of {found}, the logic takes those of {expected}: another application wrote it; \
         lockstep journal dump shows events of any application"
    )]
    OtherSchema {
        /// The name of the logic's schema.
        expected: String,
        /// The name that the journal has.
        found: String,
    },
    /// The outputs that are asked for lie before what can be replayed.
    #[error(
        "outputs behind position {wanted} are asked for, and the log can be replayed from {oldest} on only"
    )]
    OutputsGone {
        /// As asked.
        wanted: Position,
        /// The earliest start.
        oldest: Position,
    },
    /// The graph cannot be built.
    #[error(transparent)]
    Graph(#[from] BuildError),
    /// The threads cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A thread of the engine's own cannot be had, or its file or port.
    #[error("cannot start {what}: {source}")]
    Beside {
        /// Which.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine stopped.
    #[error("the engine stopped: {cause}")]
    Stopped {
        /// Why.
        cause: String,
    },
    /// The node has no state that could be looked at.
    #[error(
        "node {node} is passive: it has the log and no logic; `lockstep cluster activate {node}` gives it one, or ask \
         another node"
    )]
    Passive {
        /// Which.
        node: lockstep_replicator::NodeId,
    },
    /// The node has a logic, or is about to.
    #[error("node {node} cannot be made active: {why}")]
    NotPassive {
        /// Which.
        node: lockstep_replicator::NodeId,
        /// What it is.
        why: &'static str,
    },
    /// A closure that looked at the state panicked; nothing has changed, and the engine goes on.
    #[error(
        "the closure that was to look at the state panicked: its own text is in the log of the program"
    )]
    LookPanicked,
    /// The engine was closed before the answer came.
    #[error("the engine was closed at position {position}")]
    Closed {
        /// How far it came.
        position: Position,
    },
    /// Closing took longer than it may.
    #[error("not everything was done within {within_ms} ms: {report}; raise drain_ms")]
    NotDrained {
        /// The limit.
        within_ms: u64,
        /// Where each stage was.
        report: String,
    },
    /// Closing found the disk still full.
    #[error(
        "the disk is full: everything before position {durable} is durable, nothing behind it was answered; \
         make room (journal retention apply, journal archive) and start again: {report}"
    )]
    NoRoom {
        /// What is durable.
        durable: Position,
        /// Where each stage was.
        report: String,
    },
    /// The ring is full, and the call was not to wait.
    #[error("busy: the ring is full; try again")]
    Busy,
    /// The event is none that the logic knows.
    #[error(
        "kind {kind} version {version} is not among the logic's: events are published in the newest version"
    )]
    UnknownKind {
        /// The event's kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// Nobody answered in time.
    #[error("position {position} was not reached in time")]
    TimedOut {
        /// What was waited for.
        position: Position,
    },
}

/// What a stage that failed says, in one line, and in positions of the log.
pub(crate) fn of_fault(fault: &Fault, ledger: Ledger) -> String {
    let Fault {
        stage, kind, text, ..
    } = fault;
    let at = ledger.position(fault.at);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    format!(
        "stage {stage:?} {kind} at position {at}: {}",
        lines.join("; ")
    )
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// What the engine's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
