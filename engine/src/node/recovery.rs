//! From what lies in the directory to a state that can go on.
//!
//! | found | done |
//! |---|---|
//! | a snapshot that is whole, of this log, with the journal's chain | loaded; the tail behind it is replayed |
//! | a snapshot that is damaged, foreign, of an unknown version | named and passed over; the older one is tried |
//! | no snapshot, and the journal begins at 0 | all of it is replayed |
//! | no snapshot, and the journal begins later | refused |
//! | a mark for an event that was applied | all marks are read, and the replay begins again |
//! | a panic, and a mark for it, or the policy says quarantine | the event is passed over, the replay begins again |
//! | a panic otherwise | refused, with the position |
//! | a beacon with another hash | refused, with the position |
//!
//! The same function rebuilds the state after a panic in a running engine: recovery in
//! miniature, up to the event at fault.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lockstep_journaler::snapshots::{Manifest, Snapshots};
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Position, Reader, Tail};

use crate::config::{Config, OnApplyPanic, OnValidatePanic};
use crate::core::{Core, Scratch};
use crate::error::{Error, Result};
use crate::event::{Body, Slot};
use crate::log::{Broken, chain_at, events_of, replay};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::runtime::clock::Stopwatch;
use crate::stage::egress::Sink;
use crate::system::{Beacon, Quarantine};

/// Events a second that a plan reckons with before anything was measured.
const PLANNED_RATE: u64 = 5_000_000;

/// What a recovery is going to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The snapshot that it begins with.
    pub snapshot: Option<Position>,
    /// Snapshots that were passed over, and why.
    pub passed_over: Vec<(Position, String)>,
    /// Events to be replayed.
    pub events: u64,
    /// How long that may take.
    pub estimate: Duration,
}

/// What it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What was planned.
    pub plan: Plan,
    /// Where the state is: behind all events of the journal.
    pub position: Position,
    /// Its hash.
    pub state_hash: u64,
    /// How long it took.
    pub took: Duration,
    /// Events that were passed over because the logic panics on them.
    pub quarantined: Vec<Position>,
    /// How the journal ended: a clean end, or a torn tail that was cut.
    pub journal: String,
}

impl Recovery {
    /// Nothing was recovered of a journal that was found so: a passive node has no state.
    pub(crate) fn none(journal: String) -> Self {
        let plan = Plan {
            snapshot: None,
            passed_over: Vec::new(),
            events: 0,
            estimate: Duration::ZERO,
        };
        Self {
            plan,
            position: Position(0),
            state_hash: 0,
            took: Duration::ZERO,
            quarantined: Vec::new(),
            journal,
        }
    }
}

/// Makes a fresh logic.
pub(crate) type Factory<L> = Arc<dyn Fn() -> L + Send + Sync>;

/// Which output was the last that somebody has: position and index.
pub type OutputId = (Position, u32);

/// How far in front of a position a beacon is looked for at first.
const BEACONS_WITHIN: u64 = 1 << 21;

/// What is needed to make a state from a directory.
pub(crate) struct Source<'a, L: Logic, S: Storage> {
    pub(crate) storage: &'a S,
    pub(crate) reader: &'a mut Reader<S>,
    pub(crate) factory: &'a Factory<L>,
    pub(crate) log: [u8; 16],
    /// Where the log ends.
    pub(crate) end: Tail,
    pub(crate) oldest: Position,
    pub(crate) config: &'a Config,
    pub(crate) unmarked: Unmarked,
}

/// What becomes of an event on which the logic panics, and for which there is no mark in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmarked {
    /// What the configuration says.
    ByPolicy,
    /// Where that is quarantine, the state ends in front of it: in a cluster the nodes decide together, and
    /// a mark only counts if it lies in front of where the state was to go.
    EndsThere,
    /// The state cannot be made.
    Refused,
}

/// A state, and what there is to say of how it came.
pub(crate) struct Made<L: Logic> {
    pub(crate) core: Core<L>,
    pub(crate) plan: Plan,
    /// Events in quarantine without a mark in the log.
    pub(crate) unmarked: Vec<Position>,
}

impl<L: Logic, S: Storage> Source<'_, L, S> {
    /// The state in front of `until`, passing over what is in quarantine. Outputs behind
    /// `outputs_after` go to the sinks.
    pub(crate) fn make(
        &mut self,
        until: Position,
        skip: &BTreeSet<u64>,
        outputs_after: Option<OutputId>,
        sinks: &mut [Sink<OutputOf<L>>],
    ) -> Result<Made<L>> {
        let newest = outputs_after.map_or(until, |(position, _)| position.min(until));
        let marks_end = match self.unmarked {
            Unmarked::ByPolicy => Position(u64::MAX),
            Unmarked::EndsThere | Unmarked::Refused => until,
        };
        let mut until = until;
        let mut skip = skip.clone();
        let mut unmarked = Vec::new();
        let mut told = outputs_after;
        // Ends: each turn passes over an event more, or returns.
        loop {
            let (mut core, plan) = self.start_in_front(newest.min(until), until, &skip)?;
            if outputs_after.is_some_and(|(wanted, _)| core.position() > wanted) {
                let wanted = newest;
                return Err(Error::OutputsGone {
                    wanted,
                    oldest: core.position(),
                });
            }
            core.skip(&skip);
            let start = core.position();
            let mut on_output = |output: &OutputOf<L>| tell(output, &mut told, sinks);
            let at = match self.replay(&mut core, until, &mut on_output) {
                Ok(()) => {
                    // Whoever ran this log has told of its beacons.
                    let _told = core.take_due_beacon();
                    return Ok(Made {
                        core,
                        plan,
                        unmarked,
                    });
                }
                Err(Broken::Failed(Error::Step(crate::core::StepError::Marked { position }))) => {
                    position
                }
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Panicked {
                    is_validating,
                    kind,
                    text,
                }) => {
                    let position = core.position();
                    self.marks(start, marks_end, &mut skip)?;
                    if !skip.contains(&position.0) {
                        if self.unmarked == Unmarked::Refused || !self.is_quarantined(is_validating)
                        {
                            let what = if is_validating { "validate" } else { "apply" };
                            return Err(Error::Panicked {
                                what,
                                position,
                                kind,
                                text,
                            });
                        }
                        if self.unmarked == Unmarked::EndsThere {
                            tracing::error!(%position, kind, text, "the state ends here until the nodes agree");
                            until = position;
                            continue;
                        }
                        tracing::error!(%position, kind, text, "into quarantine");
                        unmarked.push(position);
                    }
                    position
                }
            };
            self.marks(start, marks_end, &mut skip)?;
            skip.insert(at.0);
        }
    }

    fn is_quarantined(&self, is_validating: bool) -> bool {
        if is_validating {
            self.config.on_validate_panic == OnValidatePanic::Quarantine
        } else {
            self.config.on_apply_panic == OnApplyPanic::Quarantine
        }
    }

    fn replay(
        &mut self,
        core: &mut Core<L>,
        until: Position,
        on_output: &mut dyn FnMut(&OutputOf<L>),
    ) -> Result<(), Broken> {
        self.reader
            .seek(From::Position(core.position()))
            .map_err(Error::from)?;
        let mut scratch = Scratch::default();
        let refuses = self.config.on_validate_panic == OnValidatePanic::Refuse;
        replay(self.reader, core, &mut scratch, until, refuses, on_output)
    }

    /// As [`start`](Self::start), from a state in which all of these that it has gone past are in
    /// quarantine: a snapshot may be older than the mark of an event in front of it.
    fn start_in_front(
        &mut self,
        newest: Position,
        until: Position,
        skip: &BTreeSet<u64>,
    ) -> Result<(Core<L>, Plan)> {
        let mut newest = newest;
        // Ends: each turn looks further in front.
        loop {
            let (core, plan) = self.start(newest, until)?;
            let mut passed = skip.range(..core.position().0);
            match passed.find(|at| !core.quarantined().contains(at)) {
                Some(applied) => newest = Position(*applied),
                None => return Ok((core, plan)),
            }
        }
    }

    /// All marks of quarantine in the log from `start` on, and in front of `end`.
    pub(crate) fn marks(
        &mut self,
        start: Position,
        end: Position,
        into: &mut BTreeSet<u64>,
    ) -> Result<()> {
        self.reader.seek(From::Position(start))?;
        // Ends: at `end`, or where the reader does.
        while self.reader.reached().position < end
            && let Some(frame) = self.reader.next_frame()?
        {
            let events = events_of::<EventOf<L>>(&frame)?;
            let marks = events
                .iter()
                .filter(|event| event.header().kind == Quarantine::KIND);
            into.extend(marks.map(|event| event.body_as::<Quarantine>().position));
        }
        Ok(())
    }

    /// Where the log says what the state is, the last time in front of this; 0: nowhere.
    pub(crate) fn beacon_before(&mut self, position: Position) -> Result<Position> {
        let mut span = BEACONS_WITHIN;
        // Ends: each turn looks twice as far, down to the oldest.
        loop {
            let start = Position(position.0.saturating_sub(span)).max(self.oldest);
            let found = self.last_beacon(start, position)?;
            if found.0 != 0 || start == self.oldest {
                return Ok(found);
            }
            span = span.saturating_mul(2);
        }
    }

    fn last_beacon(&mut self, start: Position, end: Position) -> Result<Position> {
        self.reader.seek(From::Position(start))?;
        let mut last = Position(0);
        // Ends: with the beacon of `end`, or where the reader does. A beacon comes into the log behind its position.
        while let Some(frame) = self.reader.next_frame()? {
            let events = events_of::<EventOf<L>>(&frame)?;
            let beacons = events
                .iter()
                .filter(|event| event.header().kind == Beacon::KIND);
            for beacon in beacons.map(|event| event.body_as::<Beacon>().position) {
                if beacon >= end.0 {
                    return Ok(last);
                }
                last = last.max(Position(beacon));
            }
        }
        Ok(last)
    }

    /// The newest state that can be had at or before `newest`, and what is left to do to `until`.
    pub(crate) fn start(&mut self, newest: Position, until: Position) -> Result<(Core<L>, Plan)> {
        let snapshots = Snapshots::new(self.storage.clone());
        let mut passed_over = Vec::new();
        for listed in snapshots.list()? {
            if listed.position > newest {
                continue;
            }
            match listed
                .manifest
                .map_err(Error::from)
                .and_then(|manifest| self.load(&snapshots, &manifest))
            {
                Ok(core) => {
                    let plan = plan(
                        Some(core.position()),
                        passed_over,
                        until.0 - core.position().0,
                    );
                    return Ok((core, plan));
                }
                Err(error) => {
                    tracing::warn!(position = %listed.position, %error, "snapshot passed over");
                    passed_over.push((listed.position, error.to_string()));
                }
            }
        }
        if self.oldest.0 != 0 {
            let reasons = passed_over.iter().map(|(at, why)| format!("{at}: {why}"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(Error::NoStart {
                oldest: self.oldest,
                reasons,
            });
        }
        let plan = plan(None, passed_over, until.0);
        Ok((Core::new((self.factory)()), plan))
    }

    /// The oldest state that can be had, not behind `until`: for a log whose beginning was given up.
    pub(crate) fn start_earliest(&mut self, until: Position) -> Result<(Core<L>, Plan)> {
        let snapshots = Snapshots::new(self.storage.clone());
        for listed in snapshots.list()?.into_iter().rev() {
            if listed.position <= until
                && let Ok((core, plan)) = self.start(listed.position, listed.position)
            {
                return Ok((core, plan));
            }
        }
        // No snapshot there: says why none.
        self.start(until, until)
    }

    /// The state of one snapshot, if it is of this log and hashes to what its taker said.
    fn load(&mut self, snapshots: &Snapshots<S>, manifest: &Manifest) -> Result<Core<L>> {
        let position = manifest.reached.position;
        let name = format!("snap/{position:020}");
        let damaged = |what: String| {
            Error::Snapshot(lockstep_journaler::snapshots::SnapshotError::Damaged {
                name: name.clone(),
                what,
            })
        };
        if manifest.log != self.log {
            return Err(damaged("it is of another log".to_owned()));
        }
        if position > self.end.reached.position {
            return Err(damaged(format!(
                "it lies behind the journal's end, {}",
                self.end.reached.position
            )));
        }
        match chain_at(self.reader, manifest.reached, &self.end) {
            Some(chain) if chain == manifest.chain => {}
            found => {
                let what = format!(
                    "expected chain {:08x} in the journal, found {found:08x?}",
                    manifest.chain
                );
                return Err(damaged(what));
            }
        }
        let parts = snapshots.load(manifest, 1)?;
        let core = Core::load(&parts.concat(), position)?;
        let found = core.state_hash();
        if found != manifest.state_hash {
            let what = format!(
                "state hash {found:016x}, the manifest says {:016x}",
                manifest.state_hash
            );
            return Err(damaged(what));
        }
        Ok(core)
    }
}

fn plan(snapshot: Option<Position>, passed_over: Vec<(Position, String)>, events: u64) -> Plan {
    let estimate = Duration::from_millis(events.saturating_mul(1000) / PLANNED_RATE);
    let plan = Plan {
        snapshot,
        passed_over,
        events,
        estimate,
    };
    if snapshot.is_none() && events == 0 {
        // Nothing is there to be recovered.
        return plan;
    }
    tracing::info!(
        snapshot = snapshot.map(|at| at.0),
        events,
        estimate_ms = u64::try_from(plan.estimate.as_millis()).unwrap_or(u64::MAX),
        "recovery planned"
    );
    plan
}

/// Hands an output on that nobody has, each once even if the replay begins again.
fn tell<O: Slot>(output: &O, told: &mut Option<OutputId>, sinks: &mut [Sink<O>]) {
    let Some(last) = told else { return };
    let own = (Position(output.output().position), output.output().index);
    if own > *last {
        sinks.iter_mut().for_each(|sink| sink(output));
        *last = own;
    }
}

/// Runs a recovery and says what it did.
pub(crate) fn recover<L: Logic, S: Storage>(
    source: &mut Source<'_, L, S>,
    outputs_after: Option<OutputId>,
    sinks: &mut [Sink<OutputOf<L>>],
    journal: String,
) -> Result<(Made<L>, Recovery)> {
    let end = source.end.reached.position;
    recover_to(source, end, outputs_after, sinks, journal)
}

/// The same up to `end`, where what lies behind it may still be replaced.
pub(crate) fn recover_to<L: Logic, S: Storage>(
    source: &mut Source<'_, L, S>,
    end: Position,
    outputs_after: Option<OutputId>,
    sinks: &mut [Sink<OutputOf<L>>],
    journal: String,
) -> Result<(Made<L>, Recovery)> {
    let watch = Stopwatch::start();
    let made = source.make(end, &BTreeSet::new(), outputs_after, sinks)?;
    let recovery = Recovery {
        plan: made.plan.clone(),
        position: made.core.position(),
        state_hash: made.core.state_hash(),
        took: watch.elapsed(),
        quarantined: made
            .core
            .quarantined()
            .iter()
            .map(|at| Position(*at))
            .collect(),
        journal,
    };
    if recovery.position.0 > 0 {
        tracing::info!(
            position = recovery.position.0,
            state_hash = format_args!("{:016x}", recovery.state_hash),
            took_ms = u64::try_from(recovery.took.as_millis()).unwrap_or(u64::MAX),
            journal = recovery.journal,
            "recovered"
        );
    }
    Ok((made, recovery))
}
