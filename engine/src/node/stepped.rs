//! The whole engine on the caller's thread: for tests, campaigns and simulations.
//!
//! The same order, journal, logic, egress and shadow as on threads, given turns by whoever
//! owns it, over any [`Storage`] and a clock that only the owner moves. What happens is a
//! function of the calls: no thread, no timer, no randomness of its own.
//!
//! ```text
//!   try_publish ─► ring ─┐
//!   turn() ──────────────┴─► order ─► journal ─► logic ─► egress, then the shadow, then the
//!                                                         journal's work ahead
//!   drop: the process dies;  close(): it ends in order
//! ```
//!
//! # Invariants
//!
//! * `ST1` Nothing moves but within a call of the owner's.
//! * `ST2` Dropped, it leaves the storage as a killed process does: nothing is written, synced
//!   or closed on the way out.

use std::fmt;
use std::sync::Arc;

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{Background, Position};
use lockstep_ringbuffer::{ClaimError, OnFull, Pipeline, Probe, Turn};

use super::engine::with_faults;
use super::face::{self, Face};
use super::recovery::Recovery;
use super::starter::{Starter, agree_on};
use crate::config::{Config, ConfigError, JournalThread};
use crate::core::Core;
use crate::error::{Error, Result, of_fault};
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::requests::Reply;
use crate::runtime::clock::Clock;
use crate::snapshot::keeper::Keeper;
use crate::snapshot::shadow::{Asked, Shadow};
use crate::source::{Producer, stopped};
use crate::stage::egress::{Slow, Subscription};
use crate::system::Tick;

/// An engine that runs only in [`turn`](Self::turn).
///
/// ```
/// use lockstep_engine::prelude::*;
/// use lockstep_engine::Clock;
/// use lockstep_journaler::storage::Simulated;
///
/// bodies! {
///     Deposit, kind 1, version 1: { account: u64, cents: i64 }
///     Balance, kind 101, version 1: { account: u64, cents: i64 }
/// }
/// #[derive(Default)]
/// struct Bank { balances: DetMap<u64, i64> }
/// snapshot!(Bank { balances });
/// impl Logic for Bank {
///     type In = Deposit;
///     type Out = Balance;
///     fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
///         let balance = self.balances.entry(deposit.account);
///         *balance += deposit.cents;
///         out.emit(Balance { account: deposit.account, cents: *balance });
///     }
/// }
///
/// let disk = Simulated::new(7);
/// let open = || {
///     Engine::<Bank>::open_on(disk.clone(), Bank::default)
///         .clock(Clock::manual(1_000))
///         .slots(64)
///         .segment_bytes(1 << 20)
///         .start_stepped()
/// };
/// let mut engine = open()?;
/// let ack = engine.producer().publish(|slot: &mut Deposit| { slot.account = 7; slot.cents = 100; })?;
/// engine.settle();
/// assert!(ack.poll().is_some(), "durable, applied, its outputs gone");
///
/// disk.crash(); // whatever was not synced is gone, or not
/// drop(engine); // and nothing is tidied up
/// let mut engine = open()?;
/// let (_, cents) = engine.read(|bank| bank.balances.get(&7).copied())?;
/// assert_eq!(cents, Some(100));
/// # Ok::<(), lockstep_engine::Error>(())
/// ```
pub struct Stepped<L: Logic, S: Storage> {
    pipeline: Option<Pipeline<EventOf<L>>>,
    producer: Producer<L>,
    /// Looks go to the logic itself: it has nobody else's time to lose.
    face: Face<L>,
    shadow: Option<(Shadow<L, S>, Arc<Asked>)>,
    keeper: Option<Keeper<S>>,
    /// The newest snapshot when the keeper last looked.
    kept: Position,
    ledger: Ledger,
    probe: Probe,
    clock: Clock,
    /// When the last tick was published.
    ticked_ns: u64,
    config: Config,
}

impl<L: Logic, S: Storage> fmt::Debug for Stepped<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepped")
            .field("position", &self.position())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<L: Logic, S: Storage> Stepped<L, S> {
    pub(super) fn start(mut starter: Starter<L, S>) -> Result<Self> {
        if starter.config.journal_thread == JournalThread::Worker {
            return Err(ConfigError::Contradiction(
                "journal_thread = worker and a stepped engine contradict each other: nothing runs but in its turn; \
                 choose inline",
            )
            .into());
        }
        starter.config.journal_thread = JournalThread::Inline;
        starter.options.background = Background::Stepped;
        let prepared = starter.prepare(OnFull::Reject)?;
        let ticked_ns = starter.clock.now_ns().unwrap_or(0);
        let recovered = prepared.face.recovery.position;
        let (found, wanted) = (prepared.parameters, starter.config.parameters());
        let stepped = Self {
            producer: prepared.producer(),
            pipeline: Some(prepared.pipeline),
            face: prepared.face,
            shadow: prepared.shadow.map(|(shadow, _, asked)| (shadow, asked)),
            keeper: prepared.keeper.map(|(keeper, _)| keeper),
            kept: Position(u64::MAX),
            ledger: prepared.ledger,
            probe: prepared.probe,
            clock: starter.clock,
            ticked_ns,
            config: starter.config,
        };
        let _agreed = agree_on(stepped.producer(), recovered, found, wanted)?;
        Ok(stepped)
    }

    /// Gives every stage one turn, then the shadow and the keeper; whether anything was done.
    pub fn turn(&mut self) -> bool {
        self.tick();
        let Some(pipeline) = &mut self.pipeline else {
            return false;
        };
        let worked = pipeline.turn() == Turn::Worked;
        self.look_for_faults();
        let moved = self.turn_shadow();
        let newest = self.newest_snapshot();
        if let Some(keeper) = self.keeper.as_mut().filter(|_| self.kept != newest) {
            self.kept = newest;
            keeper.turn();
        }
        moved | worked
    }

    /// Gives turns until there is nothing more to do.
    pub fn settle(&mut self) {
        // Ends: what was published is finite, and a stage that is held by somebody says so.
        while self.turn() {}
    }

    /// A tick of the log's, when the caller's clock says that one is due.
    fn tick(&mut self) {
        let every = self.config.tick_ms.saturating_mul(1_000_000);
        let now = self.clock.now_ns().unwrap_or(0);
        if every != 0 && now.saturating_sub(self.ticked_ns) >= every {
            self.ticked_ns = now;
            // A full ring has no need of a tick: its events carry the time.
            let _full = self.producer.own(&Tick::default());
        }
    }

    fn look_for_faults(&self) {
        if let Err(ClaimError::Poisoned { fault }) = self.producer.check_ring()
            && self.face.shared.fault().is_none()
        {
            self.face.shared.fail(of_fault(&fault, self.ledger));
        }
    }

    fn turn_shadow(&mut self) -> bool {
        let Some((shadow, _)) = self
            .shadow
            .as_mut()
            .filter(|_| self.face.shared.fault().is_none())
        else {
            return false;
        };
        shadow.turn().unwrap_or_else(|error| {
            self.face.shared.fail(format!("shadow: {error}"));
            false
        })
    }

    /// The writing end. A full ring is [`Error::Busy`], whatever method is called: nobody
    /// else would give the turns that make room. Answers are polled for, never waited for.
    #[must_use]
    pub fn producer(&self) -> Producer<L> {
        self.producer.clone()
    }

    /// Everything before it is answered.
    #[must_use]
    pub fn position(&self) -> Position {
        self.face.answered()
    }

    /// Everything before it is durable here, as the mode says.
    #[must_use]
    pub fn durable(&self) -> Position {
        Position(self.face.shared.durable.get())
    }

    /// Everything before it is in the state.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.face.applied()
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.face.recovery
    }

    /// Watches how far every stage is.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// Outputs from now on, as from a running engine; they come with turns.
    ///
    /// # Errors
    ///
    /// `slots` is no power of two.
    pub fn subscribe(
        &self,
        name: &str,
        slow: Slow,
        slots: usize,
    ) -> Result<Subscription<OutputOf<L>>> {
        self.face.subscribe(name, slow, slots)
    }

    /// Looks at the state as it is behind everything that a settled engine has applied.
    ///
    /// # Errors
    ///
    /// The engine stopped, or the logic stands at an event that it panicked on.
    pub fn read<R: Send + 'static>(
        &mut self,
        look: impl FnOnce(&L) -> R + Send + 'static,
    ) -> Result<(Position, R)> {
        self.read_core(face::state(look))
    }

    /// The hash of the whole state, with the position it is of.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn state_hash(&mut self) -> Result<(Position, u64)> {
        self.read_core(face::state_hash)
    }

    /// The kept reply to a client's request.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn reply(&mut self, session: u64, request: u32) -> Result<Option<Reply>> {
        self.read_core(face::reply(session, request))
    }

    fn read_core<R: Send + 'static>(
        &mut self,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<R> {
        let answer = self.face.look(Position(0), look)?;
        // Ends: with the answer, or when no turn does anything any more.
        loop {
            let worked = self.turn();
            match answer.try_recv() {
                Ok(found) => return Ok(found),
                Err(_) if worked => {}
                Err(_) => return Err(stopped(&self.face.shared)),
            }
        }
    }

    /// Asks the shadow for a snapshot, which it takes once it is level with the journal.
    pub fn snapshot_now(&self) {
        if let Some((_, asked)) = &self.shadow {
            asked.ask_for_snapshot();
        }
    }

    /// The position of the newest snapshot; 0 before the first.
    #[must_use]
    pub fn newest_snapshot(&self) -> Position {
        self.face.newest_snapshot()
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.face.fault()
    }

    /// Lets everything that was published pass every stage and closes the journal.
    ///
    /// # Errors
    ///
    /// The engine had stopped before, and why; or somebody holds a stage, who does not come.
    pub fn close(mut self) -> Result<()> {
        self.settle();
        let report = self.pipeline.as_ref().map(Pipeline::report);
        let published = report.as_ref().map(|report| report.positions.published);
        let is_done = published.is_none_or(|end| self.ledger.position(end) <= self.position());
        drop(self.pipeline.take());
        self.face.shared.close();
        match (self.face.shared.fault(), report) {
            (Some(cause), report) => Err(Error::Stopped {
                cause: with_faults(cause, report.as_ref()),
            }),
            (None, Some(report)) if !is_done => Err(Error::NotDrained {
                within_ms: 0,
                report: report.to_string(),
            }),
            (None, _) => Ok(()),
        }
    }
}

impl<L: Logic, S: Storage> Drop for Stepped<L, S> {
    /// `ST2`
    fn drop(&mut self) {
        self.face.shared.abandon();
        drop(self.pipeline.take());
        self.face.shared.close();
    }
}
