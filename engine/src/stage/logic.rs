//! *logic*: the only place where an event means something.
//!
//! ```text
//!   batch ─► core.step ─► outputs, in claimed slots of the output ring ─► committed together
//!               │ panic
//!               ├─ in validate: the state is untouched; refuse, quarantine or halt
//!               └─ in apply: the state is rebuilt from snapshot and log, the event passed over
//!                            and marked in the log; or halt
//!                            in a cluster: the state stands in front of the event until the log has the mark
//! ```
//!
//! # Invariants
//!
//! * `LS1` `released ≤ core.position`: at most one event more is applied than released, while
//!   its outputs wait for room.
//! * `LS2` Outputs enter the output ring in the order of their positions, each once, and those
//!   of an event that failed never do.
//! * `LS3` What the engine decides here (beacon, quarantine) becomes an event.
//! * `LS4` Where the logic runs ahead of the promises, whatever is told of an event waits until that is promised: a
//!   panic, a beacon, a look. What was never promised is taken back with the ring.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_journaler::Position;
use lockstep_ringbuffer::{
    Batch, Cause, ClaimError, MultiProducer, Producer, Progress, Sequence, Stage, Standing,
};

use crate::config::{OnApplyPanic, OnValidatePanic};
use crate::core::{Core, StepError};
use crate::error::panic_text;
use crate::event::Slot;
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::mailbox::Mailbox;
use crate::outputs::Outputs;
use crate::shared::Shared;
use crate::stage::verdicts::Verdicts;
use crate::system::{Beacon, Quarantine, code};

/// Slots claimed in the output ring at a time.
const CHUNK: usize = 256;

/// Rebuilds the state in front of a position from snapshot and log, passing these over; `None`
/// until the log is durable so far.
pub(crate) type Rebuild<L> =
    Box<dyn FnMut(Position, &BTreeSet<u64>) -> Result<Option<Core<L>>, crate::error::Error> + Send>;

/// What to do about panics, and with what.
pub(crate) struct Exceptions<L: Logic> {
    pub(crate) on_validate: OnValidatePanic,
    pub(crate) on_apply: OnApplyPanic,
    pub(crate) rebuild: Option<Rebuild<L>>,
    /// In a cluster: whether an event goes into quarantine, a majority and the log say.
    pub(crate) verdicts: Option<Arc<Verdicts>>,
}

/// See the module.
pub(crate) struct LogicStage<L: Logic> {
    core: Core<L>,
    ledger: Ledger,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<L>>,
    outputs: Producer<OutputOf<L>>,
    spill: Vec<OutputOf<L>>,
    /// How much of the spill is in the ring.
    spilled: usize,
    exceptions: Exceptions<L>,
    /// The door, for events of the engine's own (`LS3`); in a cluster it is empty where another node decides.
    door: MultiDoor<L>,
    decided: VecDeque<EventOf<L>>,
    /// In a cluster: where beacons go, for the nodes to judge before one enters the log.
    beacons: Option<Arc<Reports>>,
    /// Whether events come here before they are promised (`LS4`).
    runs_ahead: bool,
    /// The event that is next made the logic panic: what it said. The state is not to be
    /// used before that is settled.
    panicked: Option<String>,
    /// Whether that was said.
    is_told: bool,
    refused: u64,
    repeated: u64,
}

/// Beacons on their way to the thread that talks with the other nodes.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: AtomicBool,
    beacons: Mutex<VecDeque<Beacon>>,
}

impl Reports {
    fn put(&self, beacons: impl Iterator<Item = Beacon>) {
        let mut waiting = self.beacons.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(beacons);
        // ORDERING: Relaxed, a hint: the lock orders what it hints at.
        self.waiting.store(!waiting.is_empty(), Ordering::Relaxed);
    }

    /// The oldest, once, if all in front of it is promised (`LS4`).
    pub(crate) fn take(&self, promised: Position) -> Option<Beacon> {
        // ORDERING: Relaxed, as above; who misses it looks again in the next turn.
        if !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        let mut waiting = self.beacons.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = match waiting.front() {
            Some(beacon) if beacon.position <= promised.0 => waiting.pop_front(),
            _ => None,
        };
        self.waiting.store(!waiting.is_empty(), Ordering::Relaxed);
        oldest
    }

    /// The state behind `promised` is taken back.
    fn forget_behind(&self, promised: Position) {
        let mut waiting = self.beacons.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|beacon| beacon.position <= promised.0);
    }
}

/// Filled in when the graph is built, since the door leads into the ring that the stage is in.
pub(crate) type MultiDoor<L> =
    Arc<std::sync::OnceLock<std::sync::Mutex<MultiProducer<EventOf<L>>>>>;

/// What a run of events came to.
enum Ran {
    /// All that fitted.
    Done,
    /// A panic at the event that is next.
    Panicked(String),
    /// The log has a mark for this event, which was applied.
    Marked(Position),
    /// The engine cannot go on.
    Stopped(Cause),
}

impl<L: Logic> LogicStage<L> {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one of its parts, named at the only call"
    )]
    pub(crate) fn new(
        core: Core<L>,
        ledger: Ledger,
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox<L>>,
        outputs: Producer<OutputOf<L>>,
        exceptions: Exceptions<L>,
        door: MultiDoor<L>,
        marks: &[Position],
    ) -> Self {
        let marks = marks
            .iter()
            .map(|at| EventOf::<L>::event(&Quarantine { position: at.0 }));
        Self {
            core,
            ledger,
            shared,
            mailbox,
            outputs,
            spill: Vec::with_capacity(CHUNK),
            spilled: 0,
            exceptions,
            door,
            decided: marks.collect(),
            beacons: None,
            runs_ahead: false,
            panicked: None,
            is_told: false,
            refused: 0,
            repeated: 0,
        }
    }

    /// Goes on in another ring, with the state as it is.
    pub(crate) fn enter(&mut self, ledger: Ledger, door: MultiDoor<L>) {
        self.ledger = ledger;
        self.door = door;
        self.decided.clear();
    }

    /// From now on beacons go here, and none into the log by this stage.
    pub(crate) fn report_beacons(&mut self, to: Arc<Reports>) {
        // A node that came up says where it is: the others may wait for its word.
        to.put(self.core.newest_beacon().into_iter());
        self.beacons = Some(to);
    }

    /// From now on events come before they are promised.
    pub(crate) fn run_ahead(&mut self) {
        self.runs_ahead = true;
    }

    /// Whether everything before `position` is promised (`LS4`).
    fn is_promised(&self, position: Position) -> bool {
        !self.runs_ahead || position.0 <= self.shared.promised.get()
    }

    /// Between two rings: what was not promised by the end of the last one is taken back, and the state is that in
    /// front of it. Where the outputs end that are not to leave, if there was anything.
    pub(crate) fn take_back_behind(
        &mut self,
        promised: Position,
    ) -> Result<Option<Sequence>, Cause> {
        let position = self.core.position();
        // Behind a panic the event that is next is half in the state.
        if position < promised || position == promised && self.panicked.is_none() {
            return Ok(None);
        }
        if let Some(reports) = &self.beacons {
            reports.put(self.core.take_due_beacons().into_iter().flatten());
            reports.forget_behind(promised);
        }
        (self.panicked, self.is_told) = (None, false);
        self.spill.clear();
        self.spilled = 0;
        let skip = self.core.quarantined().clone();
        if !self.rebuild(promised, &skip)? {
            return Err(format!("what is promised before {promised} is not durable").into());
        }
        self.shared.taken_back.add(1);
        self.show();
        tracing::warn!(%position, %promised, "the state had run ahead, and was made anew in front of what is not committed");
        Ok(Some(self.outputs.next_sequence()))
    }

    /// The state, between two rings.
    pub(crate) fn core(&self) -> &Core<L> {
        &self.core
    }

    /// Steps through events until the claimed slots are used up, or *egress* is to have a turn, and commits what came
    /// out.
    fn run(
        &mut self,
        events: &[EventOf<L>],
        done: &mut usize,
        promised: u64,
    ) -> Result<Ran, ClaimError> {
        let mut claim = self.outputs.try_claim_up_to(CHUNK)?;
        let slots = claim.slots();
        let mut out = Outputs::<L::Out>::new(slots.head, slots.tail, &mut self.spill);
        let (core, shared, runs_ahead) = (&mut self.core, &*self.shared, self.runs_ahead);
        let (mut refused, mut repeated) = (0, 0);
        let first = *done;
        // A panic leaves `done` at the event that caused it.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            for event in &events[first..] {
                let position = core.position().0;
                let outcome = core.step(event, &mut out)?;
                shared.remember(position, outcome.code);
                if outcome.code != 0 {
                    refused += u64::from(outcome.code != code::REPEATED);
                    repeated += u64::from(outcome.code == code::REPEATED);
                }
                *done += 1;
                if out.left() == 0 || runs_ahead && shared.promised.get() != promised {
                    break;
                }
            }
            Ok::<_, StepError>(())
        }));
        let ran = match ran {
            Ok(Ok(())) => Ran::Done,
            Ok(Err(error)) => {
                out.take_back();
                match error {
                    StepError::Marked { position } if self.exceptions.verdicts.is_some() => {
                        Ran::Marked(position)
                    }
                    error => Ran::Stopped(Box::new(error)),
                }
            }
            Err(panic) => {
                out.take_back();
                Ran::Panicked(panic_text(panic.as_ref()))
            }
        };
        let used = out.used() - self.spill.len();
        claim.commit_first(used);
        self.refused += refused;
        self.repeated += repeated;
        self.shared.outputs.add(used as u64);
        Ok(ran)
    }

    /// Puts the spill into the ring, as far as there is room; whether all of it is there.
    fn flush(&mut self) -> Result<bool, ClaimError> {
        while self.spilled < self.spill.len() {
            let left = &self.spill[self.spilled..];
            match self.outputs.try_claim_up_to(left.len()) {
                Ok(mut claim) => {
                    let count = claim.len();
                    claim.slots().copy_from(&left[..count]);
                    claim.commit();
                    self.spilled += count;
                    self.shared.spilled.add(count as u64);
                    self.shared.outputs.add(count as u64);
                }
                Err(ClaimError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.spill.clear();
        self.spilled = 0;
        Ok(true)
    }

    /// What came of a panic at the event that is next: done with it, not yet, or the end.
    #[cold]
    fn recover(&mut self, event: &EventOf<L>, panic: &str) -> Result<bool, Cause> {
        let position = self.core.position();
        let kind = event.header().kind;
        let was_validating = self.core.was_validating();
        let what = if was_validating { "validate" } else { "apply" };
        if !self.is_told {
            tracing::error!(%position, kind, panic, "the logic panicked in {what}");
        }
        let is_quarantined = match (
            was_validating,
            self.exceptions.on_validate,
            self.exceptions.on_apply,
        ) {
            (true, OnValidatePanic::Refuse, _) => return self.refuse(event).map(|()| true),
            (true, OnValidatePanic::Quarantine, _) | (false, _, OnApplyPanic::Quarantine) => true,
            (true, OnValidatePanic::Halt, _) | (false, _, OnApplyPanic::Halt) => false,
        };
        if !is_quarantined {
            return Err(format!(
                "the logic panicked in {what} at position {position} (kind {kind}): {panic}; the event is in the \
                 log and will panic again: mend the logic, or start with on_{what}_panic = quarantine"
            )
            .into());
        }
        // VD1
        let verdicts = self.exceptions.verdicts.as_ref();
        if verdicts.is_some_and(|verdicts| !verdicts.stand(position)) {
            return Ok(false);
        }
        let skip = self.core.quarantined().clone();
        if !was_validating && !self.rebuild(position, &skip)? {
            return Ok(false);
        }
        self.pass_over(event)?;
        Ok(true)
    }

    /// The log has a mark for an event that this logic applied, since it does not panic here: what the log
    /// says holds, and the state becomes one in which that event was passed over.
    #[cold]
    fn pass_over_late(&mut self, marked: Position) -> Result<bool, Cause> {
        let position = self.core.position();
        tracing::error!(%marked, %position, "an event that was applied here is in quarantine: the state is rebuilt");
        let mut skip = self.core.quarantined().clone();
        skip.insert(marked.0);
        if !self.rebuild(position, &skip)? {
            return Ok(false);
        }
        if let Some(verdicts) = &self.exceptions.verdicts {
            verdicts.is_passed_over(marked);
        }
        self.shared.quarantined.add(1);
        Ok(true)
    }

    /// The state in front of `position` again; `false` until the log is durable so far.
    fn rebuild(&mut self, position: Position, skip: &BTreeSet<u64>) -> Result<bool, Cause> {
        let Some(rebuild) = &mut self.exceptions.rebuild else {
            return Err("the state cannot be rebuilt without a journal".into());
        };
        let Some(core) = rebuild(position, skip)? else {
            return Ok(false);
        };
        assert!(
            core.position() == position,
            "LS1: the state is that in front of the event"
        );
        self.core = core;
        Ok(true)
    }

    fn pass_over(&mut self, event: &EventOf<L>) -> Result<(), Cause> {
        let position = self.core.position().0;
        let mut out = Outputs::<L::Out>::new(&mut [], &mut [], &mut self.spill);
        let outcome = self.core.step_over(event, &mut out)?;
        self.shared.remember(position, outcome.code);
        self.shared.quarantined.add(1);
        match &self.exceptions.verdicts {
            // The mark is in the log.
            Some(verdicts) => verdicts.is_passed_over(Position(position)),
            None => {
                let mark = Quarantine { position };
                self.decided.push_back(EventOf::<L>::event(&mark));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, event: &EventOf<L>) -> Result<(), Cause> {
        let position = self.core.position().0;
        let mut out = Outputs::<L::Out>::new(&mut [], &mut [], &mut self.spill);
        let outcome = self.core.step_refused(event, &mut out)?;
        self.shared.remember(position, outcome.code);
        self.refused += 1;
        Ok(())
    }

    /// What was decided goes into the log, when there is room (`LS3`).
    fn tell(&mut self) -> bool {
        match &self.beacons {
            Some(reports) => {
                if let Some(due) = self.core.take_due_beacons() {
                    reports.put(due);
                }
            }
            None => {
                let beacon = self.core.take_due_beacon();
                let event = beacon.map(|beacon| EventOf::<L>::event(&beacon));
                self.decided.extend(event);
            }
        }
        let Some(event) = self.decided.front() else {
            return false;
        };
        let Some(door) = self.door.get() else {
            if self.beacons.is_some() {
                // In a cluster who leads decides the same, and says so.
                self.decided.clear();
            }
            return false;
        };
        let mut door = door
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = door.try_publish(|slot| *slot = *event).is_ok();
        if told {
            self.decided.pop_front();
        }
        told
    }

    fn show(&self) {
        self.shared.version.set(u64::from(self.core.version()));
        self.shared.applied.set(self.core.position().0);
        self.shared.refused.set(self.refused);
        self.shared.repeated.set(self.repeated);
    }

    fn fail(&self, cause: Cause) -> Progress {
        self.shared.fail(format!("logic: {cause}"));
        Progress::Fail(cause)
    }

    /// How far may be released: an event whose outputs are not all in the ring may not.
    fn progress(&self, first: Sequence, done: usize) -> Progress {
        let to = first + done as u64;
        let held = u64::from(self.spilled < self.spill.len());
        match to.0.saturating_sub(held) {
            to if to <= first.0 => Progress::Retry,
            to => Progress::To(Sequence(to)),
        }
    }

    /// Whether the next event has to wait until all in front of it is promised, or it itself (`LS4`).
    fn waits(&self) -> bool {
        let position = self.core.position();
        if self.panicked.is_some() {
            return !self.is_promised(Position(position.0 + 1));
        }
        self.mailbox.has_letters() && !self.is_promised(position) && self.mailbox.is_due(position)
    }

    /// Ahead of the promises there is much to do at once, and *egress* is on the same thread: once they have moved it has
    /// something to let out.
    fn have_moved(&self, promised: u64) -> bool {
        self.runs_ahead && self.shared.promised.get() != promised
    }

    /// Lets those look who asked to, if the state may be seen (`LS4`); whether there was anybody.
    fn show_state(&self) -> bool {
        self.mailbox.has_letters()
            && self.is_promised(self.core.position())
            && self.mailbox.open(&self.core)
    }

    fn batch(&mut self, first: Sequence, events: &[EventOf<L>]) -> Result<Progress, Cause> {
        if self.panicked.is_none() {
            self.show_state();
        }
        let promised = self.shared.promised.get();
        // LS1: what is applied already and was not released.
        let ahead = self.core.position().0 - self.ledger.position(first).0;
        let mut done = usize::try_from(ahead).map_err(|_| "LS1: at most one event is ahead")?;
        // Ends: each turn steps over an event, or returns.
        loop {
            let is_over = !self.flush()? || done == events.len() || self.waits();
            if is_over || self.have_moved(promised) {
                return Ok(self.progress(first, done));
            }
            if let Some(panic) = self.panicked.take() {
                self.is_told = !self.recover(&events[done], &panic)?;
                if self.is_told {
                    self.panicked = Some(panic);
                    return Ok(self.progress(first, done));
                }
                done += 1;
                continue;
            }
            match self.run(events, &mut done, promised) {
                Ok(Ran::Done) => {}
                Ok(Ran::Stopped(cause)) => return Err(cause),
                Ok(Ran::Panicked(panic)) => self.panicked = Some(panic),
                Ok(Ran::Marked(marked)) => {
                    if !self.pass_over_late(marked)? {
                        return Ok(self.progress(first, done));
                    }
                }
                Err(ClaimError::Full { .. }) => return Ok(self.progress(first, done)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<L: Logic> Stage<EventOf<L>> for LogicStage<L> {
    fn on_batch(&mut self, batch: Batch<'_, EventOf<L>>) -> Progress {
        let progress = self.batch(batch.first(), batch.events());
        self.show();
        progress.unwrap_or_else(|cause| self.fail(cause))
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        if self.panicked.is_some() {
            return false;
        }
        let told = self.tell();
        told | self.show_state()
    }

    fn on_stop(&mut self) {
        if self.panicked.is_none() {
            self.show_state();
        }
        self.mailbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ls4_a_beacon_is_told_when_all_in_front_of_it_is_promised_and_not_once_it_is_taken_back() {
        let at = |position| Beacon { position, hash: 7 };
        let reports = Reports::default();
        reports.put([at(64), at(128), at(192)].into_iter());
        assert_eq!(reports.take(Position(63)), None);
        assert_eq!(reports.take(Position(64)), Some(at(64)));
        assert_eq!(reports.take(Position(127)), None);
        reports.forget_behind(Position(128));
        reports.put([at(192)].into_iter());
        assert_eq!(reports.take(Position(u64::MAX)), Some(at(128)));
        assert_eq!(reports.take(Position(u64::MAX)), Some(at(192)));
        assert_eq!(reports.take(Position(u64::MAX)), None);
    }
}
