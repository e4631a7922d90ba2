//! From what was chosen to an engine that runs: journal, state, graph, threads.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use lockstep_journaler::retention::Readers;
use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Journal, OpenError, Position, Reader, Recovered, Tail, directory};
use lockstep_ringbuffer::{MultiProducer, OnFull, Pipeline, Probe};

use super::engine::Engine;
use super::face::Face;
use super::metrics::Metrics;
use super::rebuild::Ground;
use super::recovery::{Factory, Made, OutputId, Recovery, Source, Unmarked};
use super::watch::{Rows, Watch};
use super::{describe, no_room, recovery, spawn};
use crate::config::{Config, GateAt, JournalMode, OnApplyPanic, OnValidatePanic};
use crate::core::{Core, first_version};
use crate::counters::CounterFile;
use crate::error::{Error, Result};
use crate::graph::build::{Attach, Attached, Parts, build, output_ring};
use crate::ledger::Ledger;
use crate::log::Log;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::mailbox::Mailbox;
use crate::runtime::clock::Clock;
use crate::shared::Shared;
use crate::snapshot::keeper::{Bell, Keeper, LogReaders};
use crate::snapshot::shadow::{Asked, Orders, Shadow};
use crate::source::{Ack, Producer};
use crate::stage::egress::{Desk, Egress, Sink};
use crate::stage::logic::{Exceptions, LogicStage, Rebuild};
use crate::stage::order::Order;
use crate::system::Parameters;

/// A builder whose parts are known to fit.
pub(super) struct Starter<L: Logic, S: Storage> {
    pub(super) config: Config,
    pub(super) options: lockstep_journaler::Options,
    pub(super) storage: S,
    pub(super) directory: Option<PathBuf>,
    pub(super) factory: Factory<L>,
    pub(super) clock: Clock,
    pub(super) sinks: Vec<Sink<OutputOf<L>>>,
    pub(super) outputs_after: Option<OutputId>,
    pub(super) replicate: Option<Attach<EventOf<L>>>,
    pub(super) attached: Vec<Attached<EventOf<L>>>,
}

/// The shadow, where to ask it, and what is asked.
pub(super) type Shadowing<L, S> = (Shadow<L, S>, Arc<Mailbox<L>>, Arc<Asked>);

/// The parts of an engine that is built and does not run yet.
pub(super) struct Prepared<L: Logic, S: Storage> {
    pub(super) ring: MultiProducer<EventOf<L>>,
    pub(super) pipeline: Pipeline<EventOf<L>>,
    /// Its looks go to the logic itself.
    pub(super) face: Face<L>,
    pub(super) shadow: Option<Shadowing<L, S>>,
    pub(super) keeper: Option<(Keeper<S>, Arc<Bell>)>,
    pub(super) ledger: Ledger,
    pub(super) probe: Probe,
    pub(super) parameters: Parameters,
}

impl<L: Logic, S: Storage> Prepared<L, S> {
    pub(super) fn producer(&self) -> Producer<L> {
        let shared = Arc::clone(&self.face.shared);
        Producer::new(self.ring.clone(), self.ledger, shared)
    }
}

/// Puts into the log what the state is to go by and does not yet: a change of that is an event.
pub(super) fn agree_on<L: Logic>(
    mut producer: Producer<L>,
    recovered: Position,
    found: Parameters,
    wanted: Parameters,
) -> Result<Vec<Ack>> {
    let mut acks = Vec::new();
    if let Some(version) = first_version::<L>().filter(|_| recovered.0 == 0) {
        acks.push(producer.own(&version)?);
    }
    if wanted != found {
        acks.push(producer.own(&wanted)?);
    }
    Ok(acks)
}

/// The journal and what reads it.
struct Opened<S: Storage> {
    journal: Journal<S>,
    recovered: Recovered,
    end: Tail,
}

impl<L: Logic, S: Storage> Starter<L, S> {
    pub(super) fn start(mut self) -> Result<Engine<L>> {
        let prepared = self.prepare(OnFull::Wait)?;
        let watch = self.watch(&prepared)?;
        let metrics = self.metrics(&prepared, &watch.1)?;
        let producer = prepared.producer();
        let Prepared {
            pipeline,
            mut face,
            probe,
            parameters,
            ..
        } = prepared;
        let running = pipeline.start()?;
        let shared = Arc::clone(&face.shared);
        let shadow = match prepared.shadow {
            Some((shadow, mailbox, asked)) => {
                face.mailbox = mailbox;
                Some((spawn("shadow", &shared, || shadow.run())?, asked))
            }
            None => None,
        };
        let keeper = match prepared.keeper {
            Some((keeper, bell)) => Some((spawn("keeper", &shared, || keeper.run())?, bell)),
            None => None,
        };
        let readers: Box<dyn LogReaders> = Box::new(Readers::new(self.storage.clone()));
        let readers = (self.config.journal != JournalMode::None).then_some(readers);
        let watch = Some((spawn("watch", &shared, || watch.0.run())?, watch.1));
        let metrics = match metrics {
            Some((metrics, address)) => {
                Some((spawn("metrics", &shared, || metrics.run())?, address))
            }
            None => None,
        };
        let engine = Engine {
            running: Mutex::new(Some(running)),
            producer,
            face,
            shadow,
            keeper,
            readers,
            watch,
            metrics,
            probe,
            config: self.config,
        };
        engine.agree_on(parameters)?;
        Ok(engine)
    }

    /// The whole engine, before anything runs.
    pub(super) fn prepare(&mut self, on_full: OnFull) -> Result<Prepared<L, S>> {
        let opened = self.open_journal()?;
        let is_journaled = opened.is_some();
        let (made, recovery) = self.recover(opened.as_ref())?;
        let position = made.core.position();
        let shared = Arc::new(Shared::new(position.0, self.config.slots));
        let bell = Arc::new(Bell::default());
        let shadow = self.shadow(opened.as_ref(), &made.core, &shared, &bell)?;
        let keeper = opened.as_ref().map(|opened| {
            let keeper = self.keeper(opened, &shared, &bell);
            (keeper, Arc::clone(&bell))
        });
        let rebuild = opened
            .as_ref()
            .map(|opened| self.rebuild(opened))
            .transpose()?;
        let mailbox = Arc::new(Mailbox::new());
        let desk = Arc::new(Desk::default());
        let door = Arc::new(OnceLock::new());
        let ledger = Ledger::starting_at(position);
        let parameters = *made.core.parameters();
        let (outputs, poller) = output_ring(&self.config)?;
        let order = Order::new(self.clock.clone(), made.core.time_ns());
        let exceptions = Exceptions {
            on_validate: self.config.on_validate_panic,
            on_apply: self.config.on_apply_panic,
            rebuild,
            verdicts: None,
        };
        let logic = LogicStage::new(
            made.core,
            ledger,
            Arc::clone(&shared),
            Arc::clone(&mailbox),
            outputs,
            exceptions,
            Arc::clone(&door),
            &made.unmarked,
        );
        // Without a promise there is nothing to wait for.
        let is_promised = is_journaled || self.replicate.is_some();
        let is_gate = self.config.gate == GateAt::Output && is_promised;
        let sinks = std::mem::take(&mut self.sinks);
        let egress = Egress::new(
            poller,
            sinks,
            Arc::clone(&desk),
            ledger,
            Arc::clone(&shared),
            is_gate,
        );
        let parts = Parts {
            order,
            log: opened.map(|opened| Log::new(opened.journal, &self.options)),
            replicate: self.replicate.take(),
            logic,
            egress,
            attached: std::mem::take(&mut self.attached),
            ledger,
            shared: Arc::clone(&shared),
        };
        let (ring, pipeline) = build(&self.config, on_full, parts)?;
        // Set once, here: the stage finds it in its first turn.
        let _first = door.set(Mutex::new(ring.clone()));
        let probe = pipeline.probe();
        let face = Face {
            shared,
            desk,
            mailbox,
            recovery,
        };
        Ok(Prepared {
            ring,
            pipeline,
            face,
            shadow,
            keeper,
            ledger,
            probe,
            parameters,
        })
    }

    fn open_journal(&self) -> Result<Option<Opened<S>>> {
        if self.config.journal == JournalMode::None {
            return match directory::segments(&self.storage).map_err(OpenError::from)? {
                segments if segments.is_empty() => Ok(None),
                _ => Err(Error::HasJournal),
            };
        }
        let (journal, recovered) = Journal::open(self.storage.clone(), &self.options)?;
        let end = *journal.tail();
        Ok(Some(Opened {
            journal,
            recovered,
            end,
        }))
    }

    fn recover(&mut self, opened: Option<&Opened<S>>) -> Result<(Made<L>, Recovery)> {
        let Some(opened) = opened else {
            return Ok(self.fresh());
        };
        let mut reader = opened.journal.reader(From::Oldest)?;
        let mut source = Source {
            storage: &self.storage,
            reader: &mut reader,
            factory: &self.factory,
            log: opened.journal.log_id(),
            end: opened.end,
            oldest: opened.recovered.oldest,
            config: &self.config,
            unmarked: Unmarked::ByPolicy,
        };
        let journal = describe(&opened.recovered);
        recovery::recover(&mut source, self.outputs_after, &mut self.sinks, journal)
    }

    /// Without a journal every start is the first.
    fn fresh(&self) -> (Made<L>, Recovery) {
        let core = Core::new((self.factory)());
        let plan = recovery::Plan {
            snapshot: None,
            passed_over: Vec::new(),
            events: 0,
            estimate: Duration::ZERO,
        };
        let recovery = Recovery {
            plan: plan.clone(),
            position: core.position(),
            state_hash: core.state_hash(),
            took: Duration::ZERO,
            quarantined: Vec::new(),
            journal: "none is kept".to_owned(),
        };
        (
            Made {
                core,
                plan,
                unmarked: Vec::new(),
            },
            recovery,
        )
    }

    fn rebuild(&self, opened: &Opened<S>) -> Result<Rebuild<L>> {
        let ground = Ground {
            storage: &self.storage,
            journal: &opened.journal,
            factory: &self.factory,
            config: &self.config,
            end: opened.end,
            oldest: opened.recovered.oldest,
            unmarked: Unmarked::ByPolicy,
        };
        ground.rebuild()
    }

    fn shadow(
        &self,
        opened: Option<&Opened<S>>,
        core: &Core<L>,
        shared: &Arc<Shared>,
        bell: &Arc<Bell>,
    ) -> Result<Option<Shadowing<L, S>>> {
        let Some(opened) = opened.filter(|_| self.config.has_shadow()) else {
            return Ok(None);
        };
        let position = core.position();
        let copy = Core::load(&core.to_bytes(), position)?;
        let reader: Reader<S> = opened.journal.reader(From::Position(position))?;
        let newest = Snapshots::new(self.storage.clone())
            .list()?
            .first()
            .map_or(0, |listed| listed.position.0);
        let schema = &self.options.schema;
        let orders = Orders {
            storage: self.storage.clone(),
            log: opened.journal.log_id(),
            schema_version: schema.version,
            schema_hash: schema.hash(),
            every: self.config.snapshot_every,
            bell: Arc::clone(bell),
            refuses_panics: self.config.on_validate_panic == OnValidatePanic::Refuse,
            waits_for_quorum: self.replicate.is_some(),
            newest,
        };
        shared.snapshot.set(newest);
        let (mailbox, asked) = (Arc::new(Mailbox::new()), Arc::new(Asked::default()));
        let quarantines = self.config.on_apply_panic == OnApplyPanic::Quarantine
            || self.config.on_validate_panic == OnValidatePanic::Quarantine;
        let rebuild = quarantines.then(|| self.rebuild(opened)).transpose()?;
        let shadow = Shadow::new(
            copy,
            reader,
            orders,
            Arc::clone(&mailbox),
            Arc::clone(shared),
            Arc::clone(&asked),
            rebuild,
            None,
            opened.end,
        );
        Ok(Some((shadow, mailbox, asked)))
    }

    fn keeper(&self, opened: &Opened<S>, shared: &Arc<Shared>, bell: &Arc<Bell>) -> Keeper<S> {
        shared.oldest.set(opened.recovered.oldest.0);
        Keeper::new(
            self.storage.clone(),
            opened.journal.retainer(),
            &self.config,
            Arc::clone(shared),
            Arc::clone(bell),
        )
    }

    fn watch(&self, prepared: &Prepared<L, S>) -> Result<(Watch<EventOf<L>>, Arc<AtomicBool>)> {
        let directory = self.directory.as_deref().filter(|_| self.config.counters);
        let rows = Rows::of(&prepared.probe);
        let now_ns = Clock::System.now_ns().unwrap_or(0);
        let file = directory
            .filter(|directory| directory.is_dir())
            .map(|directory| CounterFile::create(directory, now_ns, rows.names()))
            .transpose();
        let file = file.map_err(|source| match source.kind() {
            ErrorKind::StorageFull => no_room(&prepared.face.shared, &prepared.probe),
            _ => Error::Beside {
                what: "the counters",
                source,
            },
        })?;
        let is_over = Arc::new(AtomicBool::new(false));
        let tick = (self.config.tick_ms != 0).then(|| Duration::from_millis(self.config.tick_ms));
        let watch = Watch {
            shared: Arc::clone(&prepared.face.shared),
            probe: prepared.probe.clone(),
            ledger: prepared.ledger,
            door: prepared.ring.clone(),
            rows,
            file,
            tick,
            is_over: Arc::clone(&is_over),
        };
        Ok((watch, is_over))
    }

    /// Who answers over HTTP, at which address.
    fn metrics(
        &self,
        prepared: &Prepared<L, S>,
        is_over: &Arc<AtomicBool>,
    ) -> Result<Option<(Metrics, SocketAddr)>> {
        let Some(address) = &self.config.prometheus else {
            return Ok(None);
        };
        let (listener, address) = listen(address).map_err(|source| Error::Beside {
            what: "the prometheus address",
            source,
        })?;
        let metrics = Metrics {
            listener,
            shared: Arc::clone(&prepared.face.shared),
            probe: prepared.probe.clone(),
            ledger: prepared.ledger,
            rows: Rows::of(&prepared.probe),
            is_over: Arc::clone(is_over),
        };
        Ok(Some((metrics, address)))
    }
}

fn listen(address: &str) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
