//! One node's part behind the agreement: ring, logic and answers, from role to role.
//!
//! Poll-driven: no thread, no socket, no clock. The owner moves the agreement and gives this turns, in
//! this order:
//!
//! ```text
//!   messages ─► agreement ─► member.offer ─► agreement.turn (send, write, sync) ─► member.follow
//!                            └ order, cut, offer             new role? next ring │ promises, feed, door
//!                                                                                └ logic, egress, answers
//! ```
//!
//! Rings change behind the agreement's turn: votes and the first frame of a new leader do not wait for it.
//!
//! # Invariants
//!
//! * `MB1` `applied ≤ min(durable, committed)`, on every node, in every role; under `gate = output` a leader's state may be
//!   ahead of that, and what is told of it is not.
//! * `MB2` The state lives on from ring to ring: no event is applied twice, none is left out.
//! * `MB3` A ring is left before the promises are looked at that belong to the next one.
//! * `MB4` What is kept of a state is what both promises had let through in the ring that ends: what is committed
//!   later at the same positions may be other events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lockstep_journaler::{From, Position, Reader};
use lockstep_replicator::NodeId;
use lockstep_ringbuffer::{ClaimError, Probe};

use super::administration::Administration;
use super::agreement::{Agreement, Stand};
use super::answers::{Answers, Asker};
use super::back::Back;
use super::life::{Kept, Life};
use super::quarantine::Quarantining;
use crate::config::Config;
use crate::core::first_version;
use crate::error::{Error, Result};
use crate::event::Slot;
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::runtime::clock::Clock;
use crate::shared::Shared;
use crate::system::{Beacon, Parameters, Quotas, Tick};

/// Full frames that are offered in one turn: they are one write and one sync.
const FRAMES_PER_TURN: usize = 16;

/// Why an event was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Another leads, or nobody yet.
    NotLeading {
        /// Who does, as far as is known here.
        leader: Option<NodeId>,
    },
    /// No room: ask again in a moment.
    Busy,
}

/// Everything that a member is made of.
pub(crate) struct Parts<L: Logic> {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// The most bytes of events in one frame.
    pub(crate) frame_bytes_max: usize,
    pub(crate) kept: Kept<L>,
    pub(crate) back: Back,
    pub(crate) answers: Answers<OutputOf<L>>,
    pub(crate) shared: Arc<Shared>,
    /// What a log begins with: the first leader puts it in, as one frame.
    pub(crate) first_events: Vec<EventOf<L>>,
    /// Where that is the policy.
    pub(crate) quarantining: Option<Quarantining>,
}

/// See the module.
pub(crate) struct Member<L: Logic, A: Agreement> {
    config: Config,
    clock: Clock,
    frame_events_max: usize,
    /// `None` once it has failed.
    life: Option<Life<L>>,
    stand: Stand,
    back: Back,
    reader: Reader<A::Storage>,
    answers: Answers<OutputOf<L>>,
    shared: Arc<Shared>,
    /// When the last tick was published.
    ticked_ns: u64,
    /// What the state goes by, as far as this node has said or found.
    parameters: Parameters,
    /// The same of how much a principal may have.
    sessions_per_principal: u32,
    first_events: Vec<EventOf<L>>,
    /// What this node has decided while it leads, on its way into the log.
    decided: VecDeque<(Option<EventOf<L>>, EventOf<L>)>,
    /// The last beacon that is in the log, or need not come into it.
    marked: Option<Beacon>,
    quarantining: Option<Quarantining>,
}

impl<L: Logic, A: Agreement> std::fmt::Debug for Member<L, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("life", &self.life)
            .field("stand", &self.stand)
            .finish_non_exhaustive()
    }
}

impl<L: Logic, A: Agreement> Member<L, A> {
    pub(crate) fn new(parts: Parts<L>, agreement: &A) -> Result<Self> {
        let Parts {
            config,
            clock,
            frame_bytes_max,
            kept,
            mut back,
            answers,
            shared,
            first_events,
            quarantining,
        } = parts;
        let position = kept.logic.core().position();
        let parameters = *kept.logic.core().parameters();
        let sessions_per_principal = kept.logic.core().sessions_per_principal();
        let stand = agreement.stand();
        let reader = agreement.reader(From::Position(position))?;
        let is_leading = stand.leading.is_some();
        let life = Life::begin(&config, &clock, is_leading, kept, &mut back)?;
        Ok(Self {
            frame_events_max: (frame_bytes_max / size_of::<EventOf<L>>()).max(1),
            ticked_ns: clock.now_ns().unwrap_or(0),
            config,
            clock,
            life: Some(life),
            stand,
            back,
            reader,
            answers,
            shared,
            parameters,
            sessions_per_principal,
            first_events,
            decided: VecDeque::new(),
            marked: None,
            quarantining,
        })
    }

    /// Lets an event in at the door, for whoever gave the token, and in front of it who asked for it, where
    /// that is to be in the log; its position, if it stays there.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn let_in(
        &mut self,
        token: u64,
        asked: Option<&Administration>,
        event: &EventOf<L>,
    ) -> Result<Position, Refused> {
        let leader = self.stand.leader;
        let is_kept = self.quarantining.is_some();
        let life = self.life.as_mut().filter(|life| life.is_open());
        let Some(life) = life else {
            // A leader that is not open yet will be in a moment.
            return Err(match self.stand.leading {
                Some(_) => Refused::Busy,
                None => Refused::NotLeading { leader },
            });
        };
        // QU3
        let events = 1 + usize::from(asked.is_some());
        if is_kept && !life.has_room(events) {
            return Err(Refused::Busy);
        }
        let published = match asked {
            // AD1
            Some(asked) => life.publish_pair([EventOf::<L>::event(asked), *event]),
            None => life.publish(|slot| *slot = *event),
        };
        match published {
            Ok(position) => {
                self.answers.expect(position, token);
                Ok(position)
            }
            Err(ClaimError::Full { .. }) => Err(Refused::Busy),
            Err(_) => Err(Refused::NotLeading { leader }),
        }
    }

    /// Whether events are let in.
    pub(crate) fn is_open(&self) -> bool {
        self.life.as_ref().is_some_and(Life::is_open)
    }

    /// Whether the ring is of this stand: else it is left, or goes on, before its promises move (`MB3`).
    pub(crate) fn is_of(&self, stand: &Stand) -> bool {
        self.stand.leading == stand.leading
    }

    /// Watches the stages of the present ring.
    pub(crate) fn probe(&self) -> Option<(Probe, Ledger)> {
        self.life.as_ref().map(Life::probe)
    }

    /// Wakes the logic, if it sleeps.
    pub(crate) fn ring_logic(&self) {
        if let Some(life) = &self.life {
            life.ring_logic();
        }
    }

    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.answers.waiting()
    }

    /// Before the owner sleeps: whether there are answers that were not told.
    pub(crate) fn set_alarm(&self) -> bool {
        self.answers.set_alarm()
    }

    /// In front of the agreement's turn: stamps what came, and offers it; whether anything was done.
    pub(crate) fn offer(&mut self, agreement: &mut A) -> bool {
        // What is in a ring of another role is of another term.
        if !self.is_of(&agreement.stand()) {
            return true;
        }
        self.tick();
        let most = self.frame_events_max;
        let Some(life) = &mut self.life else {
            return false;
        };
        let mut worked = life.turn();
        for _ in 0..FRAMES_PER_TURN {
            match life.offer(agreement, most) {
                Ok(true) => worked = true,
                Ok(false) | Err(_) => break,
            }
        }
        worked
    }

    /// Behind the agreement's turn: what it promised, and what came of it; whether anything was done.
    pub(crate) fn follow(
        &mut self,
        agreement: &A,
        asker: &mut impl Asker<OutputOf<L>>,
    ) -> Result<bool> {
        let stand = agreement.stand();
        // MB3
        let mut worked = self.change_role(stand, agreement, asker)?;
        let both = stand.durable.min(stand.committed);
        let Some(life) = &mut self.life else {
            return Ok(worked);
        };
        if stand.cuts != self.stand.cuts {
            self.reader = agreement.reader(From::Position(life.next_from_log()))?;
        }
        self.stand = stand;
        self.mark(agreement.agreed_state());
        self.tell_decided();
        let Some(life) = &mut self.life else {
            return Ok(worked);
        };
        worked |= life.feed(&mut self.reader, both)?;
        if let Some(found) = life.new_parameters() {
            self.parameters = found;
        }
        if let Some(found) = life.new_quotas() {
            self.sessions_per_principal = found.sessions_per_principal;
        }
        worked |= life.turn();
        life.promise(stand.durable, stand.committed, &self.shared);
        if life.open_door(agreement.tail().reached.position, both) {
            tracing::info!(
                term = stand.leading,
                position = both.0,
                "this node leads, and its door is open"
            );
            worked = true;
            let is_empty = both == Position(0);
            if is_empty {
                self.begin_version();
            }
            self.agree_on();
            if is_empty {
                self.begin_log();
            }
        }
        self.agree_on();
        worked |= self.put_into_quarantine(agreement, both)?;
        worked |= self.back.turn();
        self.look_for_faults();
        worked |= self.answers.tell(asker);
        Ok(worked)
    }

    /// Leadership begins or ends: a ring whose door was open ends, and the next one begins where the state
    /// is (`MB2`); any other holds nothing but what is committed, and goes on.
    fn change_role(
        &mut self,
        stand: Stand,
        agreement: &A,
        asker: &mut impl Asker<OutputOf<L>>,
    ) -> Result<bool> {
        if stand.leading == self.stand.leading {
            return Ok(false);
        }
        let is_leading = stand.leading.is_some();
        let Some(mut life) = self.life.take() else {
            return Ok(false);
        };
        // Who led before has put it into the log, or it is left out: the next one comes.
        self.marked = agreement.agreed_state();
        self.decided.clear();
        if let Some(quarantining) = &mut self.quarantining {
            quarantining.enter();
        }
        if life.go_on(is_leading) {
            self.stand.leading = stand.leading;
            self.life = Some(life);
            return Ok(true);
        }
        let (within, promised) = (self.within(), life.promised());
        let (mut kept, offered) = life.end(&mut self.back, within)?;
        self.answers.end(offered, asker);
        // MB4
        if !agreement.keeps_what_did_not_commit() {
            kept.take_back_behind(promised)?;
        }
        let position = kept.logic.core().position();
        self.parameters = *kept.logic.core().parameters();
        self.sessions_per_principal = kept.logic.core().sessions_per_principal();
        tracing::info!(
            leading = stand.leading,
            leader = stand.leader.map(|node| node.0),
            position = position.0,
            "a new role, a new ring"
        );
        self.reader = agreement.reader(From::Position(position))?;
        let back = &mut self.back;
        self.life = Some(Life::begin(
            &self.config,
            &self.clock,
            is_leading,
            kept,
            back,
        )?);
        self.stand = stand;
        Ok(true)
    }

    /// What the logic panicked on is marked in the log, or found there.
    fn put_into_quarantine(&mut self, agreement: &A, both: Position) -> Result<bool> {
        match (&mut self.quarantining, &mut self.life) {
            (Some(quarantining), Some(life)) => quarantining.turn(life, agreement, both),
            _ => Ok(false),
        }
    }

    /// An open ring with a place for an event of the engine's own.
    fn roomy_life(&mut self) -> Option<&mut Life<L>> {
        let is_kept = self.quarantining.is_some();
        let open = self.life.as_mut().filter(|life| life.is_open());
        open.filter(|life| !is_kept || life.has_room(1))
    }

    fn within(&self) -> Duration {
        self.config.drain()
    }

    /// A log that this build begins is in the oldest version that it can run.
    fn begin_version(&mut self) {
        let Some(life) = &mut self.life else { return };
        if let Some(switch) = first_version::<L>() {
            // LF3: the ring has room for it, the door has just been opened.
            let _position = life.publish(|slot| *slot = EventOf::<L>::event(&switch));
        }
    }

    /// A change of what the state goes by is an event.
    fn agree_on(&mut self) {
        let wanted = self.config.parameters();
        if wanted != self.parameters && self.publish_own(&EventOf::<L>::event(&wanted)) {
            self.parameters = wanted;
        }
        let most = self.config.sessions_per_principal;
        let quotas = Quotas {
            sessions_per_principal: most,
            spare: 0,
        };
        if most != self.sessions_per_principal && self.publish_own(&EventOf::<L>::event(&quotas)) {
            self.sessions_per_principal = most;
        }
    }

    /// Whether there was room for an event of the engine's own; else there is in a later turn.
    fn publish_own(&mut self, event: &EventOf<L>) -> bool {
        let life = self.roomy_life();
        life.is_some_and(|life| life.publish(|slot| *slot = *event).is_ok())
    }

    /// The first events of a log that has none: with what was agreed on they are the first frame, all of
    /// them or none, since nothing else is in the ring and *order* has not run.
    fn begin_log(&mut self) {
        let Some(life) = &mut self.life else { return };
        for event in &self.first_events {
            // LF3: the ring has room, the options say how many there may be.
            let _position = life.publish(|slot| *slot = *event);
        }
    }

    /// A decision of this leader's, behind who asked for it where the log may say that, to be put into the log; it
    /// is lost if the leadership ends before.
    pub(crate) fn decide(&mut self, asked: Option<Administration>, event: EventOf<L>) {
        let asked = asked.as_ref().map(EventOf::<L>::event);
        self.decided.push_back((asked, event));
        self.tell_decided();
    }

    fn tell_decided(&mut self) {
        // Ends: with what was decided, or with the room.
        while let Some((asked, event)) = self.decided.front().copied() {
            let is_kept = self.quarantining.is_some();
            let Some(life) = self.roomy_life() else {
                return;
            };
            let events = 1 + usize::from(asked.is_some());
            if is_kept && !life.has_room(events) {
                return;
            }
            let told = match asked {
                Some(asked) => life.publish_pair([asked, event]),
                None => life.publish(|slot| *slot = event),
            };
            if told.is_err() {
                return;
            }
            self.decided.pop_front();
        }
    }

    /// A beacon enters the log when a majority agrees on it, not before: whoever replays the log
    /// compares, and must not be measured by the state of one node.
    fn mark(&mut self, agreed: Option<Beacon>) {
        let (Some(agreed), marked) = (agreed, self.marked) else {
            return;
        };
        let is_new = marked.is_none_or(|marked| marked.position < agreed.position);
        let Some(life) = self.roomy_life().filter(|_| is_new) else {
            return;
        };
        let told = life.publish(|slot| *slot = EventOf::<L>::event(&agreed));
        if told.is_ok() {
            self.marked = Some(agreed);
        }
    }

    /// A tick of the log's, when one is due.
    fn tick(&mut self) {
        let every = self.config.tick_ms.saturating_mul(1_000_000);
        let now = self.clock.now_ns().unwrap_or(0);
        let is_due = every != 0 && now.saturating_sub(self.ticked_ns) >= every;
        if is_due && self.is_open() {
            self.ticked_ns = now;
            let Some(life) = self.roomy_life() else {
                return;
            };
            // A full ring has no need of a tick: its events carry the time.
            let _full = life.publish(|slot| *slot = EventOf::<L>::event(&Tick::default()));
        }
    }

    fn look_for_faults(&self) {
        if let Some(cause) = self.life.as_ref().and_then(Life::check)
            && self.shared.fault().is_none()
        {
            self.shared.fail(cause);
        }
    }

    /// Ends the ring for good: the parts, closed in order or not.
    pub(crate) fn end(mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<Kept<L>> {
        let within = self.within();
        let life = self.life.take().ok_or_else(|| Error::Stopped {
            cause: self.shared.fault().unwrap_or("it had failed").to_owned(),
        })?;
        let (kept, offered) = life.end(&mut self.back, within)?;
        self.answers.end(offered, asker);
        Ok(kept)
    }
}
