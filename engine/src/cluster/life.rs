//! A ring for the present: one whose door was opened ends with that leadership, any other goes on.
//!
//! ```text
//!   following   own log, committed and durable ─► ring ─► order ─► journal, replicate ─► logic ─► egress
//!   leading     the same up to its end, then the door opens:
//!               producers ─► ring ─► order (stamps) ─► offered: one frame at a time ─┬─► durable ──┬─► logic
//!                                                                                   └─► committed ┘
//! ```
//!
//! What comes from the log enters a ring only when it is committed and durable here. So the ring of
//! a follower never holds an event that could be replaced: when its node is elected it goes on, and
//! nothing is built while clients wait. What it holds behind the door was offered by this leader, in
//! this term. When that leadership ends, the ring goes, with all that was not committed; no stage knows
//! how to undo. Under `gate = output` the logic is fed by a third promise, *offered*, and *egress* waits for the
//! two; then the state that was made ahead of them is made anew ([`Kept::take_back_behind`]).
//!
//! # Invariants
//!
//! * `LF1` Events enter the ring in the order of their positions, each once: position = base + sequence.
//! * `LF2` `released(journal) ≤ durable`, `released(replicate) ≤ committed`: nothing is seen before
//!   both, by the logic or of its outputs, and never an event of another ring.
//! * `LF3` The door is open only when all of the log in front of it is committed, durable and in the ring.
//! * `LF4` Ahead of both promises the logic sees only what this leader offered, in this term.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytemuck::Zeroable;
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{Position, Reader};
use lockstep_ringbuffer::{
    ClaimError, Gate, Halter, MultiProducer, OnFull, Probe, Progress, Runner, Running, Sequence,
    Turn, View,
};

use super::agreement::{Agreement, NotNow};
use super::back::Back;
use super::lent::Home;
use crate::config::{Config, GateAt};
use crate::error::{Error, Result, of_fault};
use crate::event::{Body, Slot};
use crate::graph::build::ring;
use crate::ledger::Ledger;
use crate::log::events_of;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::runtime::clock::Clock;
use crate::shared::Shared;
use crate::stage::egress::Egress;
use crate::stage::logic::{LogicStage, MultiDoor};
use crate::stage::order::Order;
use crate::system::{Membership, Parameters, Quotas};

/// The parts that live on from ring to ring.
pub(crate) struct Kept<L: Logic> {
    pub(crate) logic: LogicStage<L>,
    pub(crate) egress: Egress<OutputOf<L>>,
}

impl<L: Logic> Kept<L> {
    /// Everything that was made of events at or behind this position is taken back, if there is any: they may
    /// become others.
    pub(crate) fn take_back_behind(&mut self, promised: Position) -> Result<()> {
        let taken_back = self.logic.take_back_behind(promised);
        let outputs_end = taken_back.map_err(|cause| Error::Stopped {
            cause: format!(
                "the state could not be made anew in front of position {promised}: {cause}"
            ),
        })?;
        if let Some(end) = outputs_end {
            self.egress.forget_behind(promised, end);
        }
        Ok(())
    }
}

/// See the module.
pub(crate) struct Life<L: Logic> {
    ledger: Ledger,
    door: MultiProducer<EventOf<L>>,
    /// The stages in front of the gate.
    front: Runner,
    logic_home: Home<LogicStage<L>>,
    egress_home: Home<Egress<OutputOf<L>>>,
    durable: Gate<EventOf<L>>,
    committed: Gate<EventOf<L>>,
    /// Where the logic runs ahead of those two: what it waits for instead.
    ahead: Option<Gate<EventOf<L>>>,
    /// The door of the logic's own events, filled when the door opens.
    decided: MultiDoor<L>,
    /// The newest parameters that went from the log into the ring.
    parameters: Option<Parameters>,
    /// And the newest quotas.
    quotas: Option<Quotas>,
    stamps_from: Arc<AtomicU64>,
    /// Events of the log that are in the ring.
    fed: Sequence,
    /// Read from the log, without room yet.
    carry: VecDeque<EventOf<L>>,
    /// Everything before it was offered, or comes from the log.
    offered: Sequence,
    is_leading: bool,
    is_open: bool,
    halter: Halter,
    /// Last: it goes when everything else has.
    running: Running,
}

impl<L: Logic> std::fmt::Debug for Life<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life")
            .field("ledger", &self.ledger)
            .field("fed", &self.fed)
            .field("offered", &self.offered)
            .field("is_leading", &self.is_leading)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}

impl<L: Logic> Life<L> {
    /// A ring that begins where the state is, with its stages in front of the gate here and those
    /// behind it with `back`.
    pub(crate) fn begin(
        config: &Config,
        clock: &Clock,
        is_leading: bool,
        kept: Kept<L>,
        back: &mut Back,
    ) -> Result<Self> {
        let Kept {
            mut logic,
            mut egress,
        } = kept;
        let ledger = Ledger::starting_at(logic.core().position());
        let decided: MultiDoor<L> = Arc::new(OnceLock::new());
        logic.enter(ledger, Arc::clone(&decided));
        egress.enter(ledger);
        let stamps_from = Arc::new(AtomicU64::new(u64::MAX));
        let order = Order::behind(
            clock.clone(),
            logic.core().time_ns(),
            Arc::clone(&stamps_from),
        );
        let (logic_home, egress_home) = (Home::empty(), Home::empty());

        let mut graph = ring(config, config.slots, EventOf::<L>::zeroed)?;
        graph.on_full(OnFull::Reject).wait(config.wait);
        let order = graph.stage_mut("order", &[], order);
        let (mut durable, mut committed, mut ahead) = (None, None, None);
        let take_all = |_: View<'_, EventOf<L>>| Progress::All;
        let journal = graph.late_stage("journal", &[order], |gate| {
            durable = Some(gate);
            take_all
        });
        let replicate = graph.late_stage("replicate", &[order], |gate| {
            committed = Some(gate);
            take_all
        });
        let (mut front, promises) = (vec![order, journal, replicate], vec![journal, replicate]);
        let (before_logic, mut before_egress) = match config.gate {
            GateAt::Logic => (promises, Vec::new()),
            GateAt::Output => {
                let offered = graph.late_stage("offered", &[order], |gate| {
                    ahead = Some(gate);
                    take_all
                });
                front.push(offered);
                (vec![offered], promises)
            }
        };
        let logic = graph.stage("logic", &before_logic, logic_home.lend(logic));
        before_egress.push(logic);
        let egress = graph.stage("egress", &before_egress, egress_home.lend(egress));
        graph.together(&front).wait(config.wait_at(0));
        let placed = graph.together(&[logic, egress]);
        placed.wait(config.wait_at(1));
        if let Some(&cpu) = config.pin.get(1) {
            placed.pin(cpu);
        }
        let (door, pipeline) = graph.build_multi(|event| *event = EventOf::<L>::zeroed())?;
        let (mut runners, running) = pipeline.into_runners();
        let behind = runners.pop().expect("LF: the graph has two runners");
        let front = runners.pop().expect("LF: the graph has two runners");
        back.take(behind);
        Ok(Self {
            ledger,
            door,
            front,
            logic_home,
            egress_home,
            durable: durable.expect("LF: late_stage makes its stage"),
            committed: committed.expect("LF: late_stage makes its stage"),
            ahead,
            decided,
            parameters: None,
            quotas: None,
            stamps_from,
            fed: Sequence(0),
            carry: VecDeque::new(),
            offered: Sequence(0),
            is_leading,
            is_open: false,
            halter: running.halter(),
            running,
        })
    }

    /// Whether events of producers may enter.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Goes on under another role, where no door has to be closed for it; whether it does.
    pub(crate) fn go_on(&mut self, is_leading: bool) -> bool {
        if self.is_open {
            return false;
        }
        self.is_leading = is_leading;
        true
    }

    /// What the events of the log say that the state goes by, if they said so since last time.
    pub(crate) fn new_parameters(&mut self) -> Option<Parameters> {
        self.parameters.take()
    }

    /// The same of quotas.
    pub(crate) fn new_quotas(&mut self) -> Option<Quotas> {
        self.quotas.take()
    }

    /// The position of the next event that is read from the log.
    pub(crate) fn next_from_log(&self) -> Position {
        self.ledger.position(self.fed + self.carry.len() as u64)
    }

    /// Everything before it was offered to the others, or comes from the log.
    pub(crate) fn offered(&self) -> Position {
        self.ledger.position(self.offered)
    }

    /// Everything before it both promises had let through: it stays, whatever comes of the rest.
    pub(crate) fn promised(&self) -> Position {
        let both = self.durable.released().min(self.committed.released());
        self.ledger.position(both)
    }

    /// Puts events of the log into the ring, up to `limit`, as far as there is room (`LF1`);
    /// whether anything came.
    pub(crate) fn feed<S: Storage>(
        &mut self,
        reader: &mut Reader<S>,
        limit: Position,
    ) -> Result<bool> {
        if self.is_open {
            return Ok(false);
        }
        let before = self.fed;
        // Ends: each turn puts something into the ring, or returns.
        loop {
            if !self.carry.is_empty() {
                if !self.put_carry() {
                    break;
                }
                continue;
            }
            if self.next_from_log() >= limit {
                break;
            }
            let Some(frame) = reader.next_frame()? else {
                break;
            };
            let known = self
                .next_from_log()
                .0
                .saturating_sub(frame.header().first_position);
            let events = events_of::<EventOf<L>>(&frame)?;
            let known =
                usize::try_from(known).map_or(events.len(), |known| known.min(events.len()));
            let fresh = &events[known..];
            self.parameters = newest_of(fresh).copied().or(self.parameters);
            self.quotas = newest_of(fresh).copied().or(self.quotas);
            self.carry.extend(fresh);
        }
        Ok(self.fed != before)
    }

    /// Moves what was read into the ring; whether there was room for any of it.
    fn put_carry(&mut self) -> bool {
        let count = self.carry.len().min(self.door.remaining());
        if count == 0 {
            return false;
        }
        let Ok(mut claim) = self.door.try_claim(count) else {
            return false;
        };
        let slots = claim.slots();
        for slot in slots.head.iter_mut().chain(slots.tail) {
            *slot = self
                .carry
                .pop_front()
                .expect("LF1: as many as were claimed");
        }
        claim.commit();
        self.fed = self.fed + count as u64;
        self.offered = self.fed;
        true
    }

    /// Opens the door if this ring leads, and all of the log is in it (`LF3`); whether it did.
    pub(crate) fn open_door(&mut self, end: Position, committed: Position) -> bool {
        let is_due = self.is_leading && !self.is_open && self.carry.is_empty();
        if !is_due || committed < end || self.next_from_log() != end {
            return false;
        }
        // ORDERING: Relaxed, read by *order* on this thread.
        self.stamps_from.store(self.fed.0, Ordering::Relaxed);
        // Set once, here: the logic finds it in its next turn.
        let _first = self.decided.set(Mutex::new(self.door.clone()));
        self.is_open = true;
        true
    }

    /// Publishes an event of a client's; its position.
    ///
    /// # Errors
    ///
    /// The ring is full, closed, or a stage has failed.
    pub(crate) fn publish(
        &mut self,
        fill: impl FnOnce(&mut EventOf<L>),
    ) -> Result<Position, ClaimError> {
        let sequence = self.door.try_publish(fill)?;
        Ok(self.ledger.position(sequence))
    }

    /// Publishes two events side by side; the position of the second.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); then neither is in the ring.
    pub(crate) fn publish_pair(&mut self, pair: [EventOf<L>; 2]) -> Result<Position, ClaimError> {
        let mut claim = self.door.try_claim(2)?;
        let slots = claim.slots();
        for (slot, event) in slots.head.iter_mut().chain(slots.tail).zip(pair) {
            *slot = event;
        }
        let first = claim.commit();
        Ok(self.ledger.position(first + 1))
    }

    /// Whether so many events more would leave a place for the mark of one that goes into quarantine: without
    /// it a full ring whose logic stands could not be told to go on.
    pub(crate) fn has_room(&self, events: usize) -> bool {
        self.door.remaining() > events
    }

    /// One turn of the stages in front of the gate.
    pub(crate) fn turn(&mut self) -> bool {
        self.front.turn() == Turn::Worked
    }

    /// Offers one frame of what was stamped and not offered, of `most` events at most; whether there
    /// was anything.
    ///
    /// # Errors
    ///
    /// Not at the moment; the events stay.
    pub(crate) fn offer(
        &mut self,
        agreement: &mut impl Agreement,
        most: usize,
    ) -> Result<bool, NotNow> {
        if !self.is_open {
            return Ok(false);
        }
        let held = self.durable.held();
        let known = usize::try_from(self.offered.0 - held.first.0).unwrap_or(usize::MAX);
        let (head, tail) = behind(held.head, held.tail, known);
        let (head, tail) = (first(head, most), first(tail, most - head.len().min(most)));
        let (head, tail) = one_kind(head, tail);
        let Some(last) = tail.last().or(head.last()) else {
            return Ok(false);
        };
        let time_ns = last.header().time;
        let position = self.ledger.position(self.offered);
        let body = [bytemuck::cast_slice(head), bytemuck::cast_slice(tail)];
        let is_change = is_change(last);
        let given = if is_change {
            agreement.offer_change(body[0], time_ns)?
        } else {
            agreement.offer(body, time_ns)?
        };
        assert!(
            given == position,
            "LF1: the log goes on where the ring does: the ring is at {position}, the log at {given}"
        );
        self.offered = self.offered + (head.len() + tail.len()) as u64;
        self.let_ahead();
        Ok(true)
    }

    /// Moves the two promises (`LF2`).
    pub(crate) fn promise(&mut self, durable: Position, committed: Position, shared: &Shared) {
        // What is in this ring and was not offered has no place in the log yet.
        let ledger = self.ledger;
        let within = |to: Position| ledger.sequence(to).unwrap_or_default().min(self.offered);
        let durable = within(durable).max(self.durable.released());
        let committed = within(committed).max(self.committed.released());
        // First: whoever is woken by the gates finds it.
        shared
            .promised
            .set(ledger.position(durable.min(committed)).0);
        self.durable.release_to(durable);
        self.committed.release_to(committed);
        self.let_ahead();
    }

    /// `LF4`
    fn let_ahead(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.release_to(self.offered);
        }
    }

    /// Watches how far every stage is, and from which position the ring counts.
    pub(crate) fn probe(&self) -> (Probe, Ledger) {
        (self.running.probe(), self.ledger)
    }

    /// Wakes the logic, if it sleeps.
    pub(crate) fn ring_logic(&self) {
        self.committed.wake();
    }

    /// Which stage failed, where and how, if one did.
    pub(crate) fn check(&self) -> Option<String> {
        match self.door.check() {
            Err(ClaimError::Poisoned { fault }) => Some(of_fault(&fault, self.ledger)),
            _ => None,
        }
    }

    /// Ends the ring; the parts that live on, and where it ended: what lies at or behind the
    /// returned position was never offered.
    pub(crate) fn end(self, back: &mut Back, within: Duration) -> Result<(Kept<L>, Position)> {
        let offered = self.offered();
        self.halter.halt();
        if !back.end(within) {
            return Err(Error::Stopped {
                cause: format!(
                    "stage \"logic\" did not come to an end within {} ms when the role changed, in front of position {}",
                    within.as_millis(),
                    offered
                ),
            });
        }
        drop(self.front);
        let parts = (self.logic_home.take(), self.egress_home.take());
        let (Some(logic), Some(egress)) = parts else {
            return Err(Error::Stopped {
                cause: "LT1: the logic did not come back from its ring".to_owned(),
            });
        };
        Ok((Kept { logic, egress }, offered))
    }
}

fn is_of<E: Slot, B: Body>(event: &E) -> bool {
    event.header().kind == B::KIND
}

/// The last of these events that is of this kind.
fn newest_of<E: Slot, B: Body>(events: &[E]) -> Option<&B> {
    let newest = events.iter().rfind(|event| is_of::<E, B>(event));
    newest.map(Slot::body_as)
}

/// Whether it is a change of members: it is a frame of its own.
fn is_change<E: Slot>(event: &E) -> bool {
    is_of::<E, Membership>(event)
}

/// The run in front of the first change of members, or that change alone.
fn one_kind<'e, E: Slot>(head: &'e [E], tail: &'e [E]) -> (&'e [E], &'e [E]) {
    match head.iter().chain(tail).position(is_change) {
        None => (head, tail),
        Some(0) if head.is_empty() => (&tail[..1], &[]),
        Some(0) => (&head[..1], &[]),
        Some(at) if at <= head.len() => (&head[..at], &[]),
        Some(at) => (head, &tail[..at - head.len()]),
    }
}

/// What lies behind the first `skip` events of two runs.
fn behind<'e, E>(head: &'e [E], tail: &'e [E], skip: usize) -> (&'e [E], &'e [E]) {
    if skip < head.len() {
        (&head[skip..], tail)
    } else {
        (&tail[(skip - head.len()).min(tail.len())..], &[])
    }
}

fn first<E>(run: &[E], most: usize) -> &[E] {
    &run[..run.len().min(most)]
}
