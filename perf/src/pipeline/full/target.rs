//! The generator's end of an engine, and the end at which outputs leave.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lockstep_engine::prelude::*;

use super::home::Home;
use super::relay::{Filled, Relay};
use super::{below, builder};
use crate::args::plan::Plan;
use crate::args::quantity::nanos;
use crate::machine::clock::{Clock, Ticks as _};
use crate::machine::pin::{ThreadSeen, threads};
use crate::measure::generator::Target;
use crate::measure::harness::{Recorder, Session};
use crate::measure::recorder::Ticket;
use crate::pipeline::order::Order;
use crate::pipeline::toil::Toil;
use crate::pipeline::watched::Times;

/// Parts of the way of an event, with `--stages`.
pub(super) const PARTS: [&str; 4] = ["order", "journal and gate", "logic", "egress"];

/// What became of a run's engine.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) seen: Vec<ThreadSeen>,
    pub(super) fault: Option<String>,
}

pub(super) type Shared = Arc<Mutex<Ended>>;

/// The generator's end of an engine, and the engine: closed when it is dropped.
pub(super) struct EngineTarget<O: Order> {
    producer: Producer<Relay<O>>,
    engine: Option<Engine<Relay<O>>>,
    /// Claimed and not yet published.
    pending: Vec<O::Slot>,
    claim: usize,
    yields: bool,
    split: bool,
    ended: Shared,
    _home: Home,
}

impl<O: Order> EngineTarget<O> {
    pub(super) fn start(
        plan: &Plan,
        toil: Toil,
        session: &mut Session,
        ended: &Shared,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let home = Home::create(&below(plan))?;
        let clock = session.clock();
        let times = Times {
            clock,
            writes: session.spans("journal write"),
            syncs: session.spans("journal sync"),
        };
        if plan.stages {
            session.split(&PARTS.map(str::to_owned));
        }
        let relay = Relay::<O>::new(toil, plan.stages.then_some(clock));
        let recorder = session.recorder();
        let builder = builder(plan, &home, times, relay)?;
        let engine = builder
            .on_output(sink(recorder, clock, plan.stages))
            .start()?;
        Ok(Self {
            producer: engine.producer(),
            engine: Some(engine),
            pending: Vec::with_capacity(plan.claim),
            claim: plan.claim,
            yields: plan.producers_yield,
            split: plan.stages,
            ended: Arc::clone(ended),
            _home: home,
        })
    }

    fn order(&self, ticket: Ticket) -> O {
        O::of(ticket, if self.split { unix_ns() } else { 0 })
    }

    /// What is pending goes out, and room for it is waited for.
    fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(error) = self.producer.publish_events(&self.pending) {
            self.note(&error.to_string());
        }
        self.pending.clear();
    }

    #[cold]
    fn note(&self, fault: &str) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.fault.get_or_insert_with(|| fault.to_owned());
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, nanos)
}

/// Takes outputs on the thread of *egress*.
fn sink(
    mut recorder: Recorder,
    clock: Clock,
    split: bool,
) -> impl FnMut(Position, &Filled) + Send + 'static {
    move |_, filled| {
        let ticket = Ticket {
            intended: filled.intended,
            sent: filled.sent,
        };
        if split {
            recorder.done_by_parts(ticket, |now| {
                let ordered = filled.sent + clock.to_ticks(filled.ordered_ns);
                [
                    ordered.saturating_sub(filled.sent),
                    filled.begun.saturating_sub(ordered),
                    filled.applied.saturating_sub(filled.begun),
                    now.saturating_sub(filled.applied),
                ]
            });
        } else {
            recorder.done(ticket);
        }
        recorder.turn();
    }
}

impl<O: Order> Target for EngineTarget<O> {
    #[inline]
    fn offer(&mut self, ticket: Ticket) -> bool {
        let order = self.order(ticket);
        if self.claim > 1 {
            self.pending.push(O::Slot::event(&order));
            if self.pending.len() == self.claim {
                self.publish();
            }
            return true;
        }
        match self
            .producer
            .try_publish_as(0, 0, |slot: &mut O| *slot = order)
        {
            Ok(_) => true,
            Err(lockstep_engine::Error::Busy) => false,
            Err(error) => {
                self.note(&error.to_string());
                false
            }
        }
    }

    #[inline]
    fn idle(&mut self) {
        if self.yields {
            std::thread::yield_now();
        }
    }

    fn flush(&mut self) {
        self.publish();
    }
}

impl<O: Order> Drop for EngineTarget<O> {
    fn drop(&mut self) {
        let seen = threads();
        let closed = self.engine.take().map(Engine::close);
        if let Some(Err(error)) = closed {
            self.note(&error.to_string());
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.seen = seen;
    }
}
