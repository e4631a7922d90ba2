//! The engine: opened on a directory, started on threads, closed in order.

pub(crate) mod metrics;
pub mod recovery;
pub mod stepped;
pub(crate) mod watch;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_journaler::retention::Readers;
use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_journaler::{
    From, Journal, OpenError, Position, Reader, Recovered, Tail, Verdict, directory,
};
use lockstep_ringbuffer::{
    Graph, MultiProducer, OnFull, Pipeline, Probe, Report, Running, Stage, StageId, Wait,
};

use crate::config::{
    Config, ConfigError, GateAt, JournalMode, JournalThread, OnApplyPanic, OnValidatePanic,
    Retention,
};
use crate::core::{Core, first_version};
use crate::counters::CounterFile;
use crate::error::{Error, Result, panic_text};
use crate::event::{Body, Kinds, Slot};
use crate::graph::build::{Attach, Attached, Parts, build, output_ring};
use crate::ledger::Ledger;
use crate::log::Log;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::mailbox::Mailbox;
use crate::requests::Reply;
use crate::runtime::clock::Clock;
use crate::shared::{Shared, Waited};
use crate::snapshot::keeper::{Bell, Keeper, LogReaders};
use crate::snapshot::shadow::{Asked, Orders, Shadow};
use crate::source::{Ack, Producer, stopped};
use crate::stage::egress::{Desk, Egress, Sink, Slow, Subscription};
use crate::stage::logic::{Exceptions, LogicStage, Rebuild};
use crate::stage::order::Order;
use crate::system::VersionSwitch;
use metrics::Metrics;
use recovery::{Factory, Made, OutputId, Recovery, Source, Unmarked};
pub use stepped::Stepped;
use watch::{Rows, Watch};

/// How often a start looks why it takes so long.
const LOOK_AT_START: Duration = Duration::from_millis(20);

/// An engine that runs. Dropped, it halts; [`close`](Self::close) lets it finish. Threads may share it.
pub struct Engine<L: Logic> {
    /// Only who closes it takes it out; the lock lets threads share the engine.
    running: Mutex<Option<Running>>,
    producer: Producer<L>,
    shared: Arc<Shared>,
    desk: Arc<Desk<OutputOf<L>>>,
    /// Where reads go: to the shadow, or to the logic where there is none.
    mailbox: Arc<Mailbox<L>>,
    shadow: Option<(JoinHandle<()>, Arc<Asked>)>,
    keeper: Option<(JoinHandle<()>, Arc<Bell>)>,
    readers: Option<Box<dyn LogReaders>>,
    watch: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    metrics: Option<(JoinHandle<()>, SocketAddr)>,
    probe: Probe,
    recovery: Recovery,
    config: Config,
}

impl<L: Logic> std::fmt::Debug for Engine<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("position", &self.position())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Everything that is chosen before an engine starts.
pub struct Builder<L: Logic, S: Storage = Disk> {
    storage: Box<dyn FnOnce() -> Result<S> + Send>,
    directory: Option<PathBuf>,
    factory: Factory<L>,
    config: Result<Config>,
    clock: Clock,
    sinks: Vec<Sink<OutputOf<L>>>,
    outputs_after: Option<OutputId>,
    replicate: Option<Attach<EventOf<L>>>,
    attached: Vec<Attached<EventOf<L>>>,
}

impl<L: Logic, S: Storage> std::fmt::Debug for Builder<L, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<L: Logic> Engine<L> {
    /// An engine on a directory, with a fresh logic where there is nothing yet. The defaults
    /// are a working single node: `Engine::<Bank>::open("./bank").start()`.
    pub fn open(directory: impl AsRef<Path>) -> Builder<L>
    where
        L: Default,
    {
        Self::open_with(directory, L::default)
    }

    /// The same with a logic that `fresh` makes where there is nothing yet.
    pub fn open_with(
        directory: impl AsRef<Path>,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Builder<L> {
        let directory = directory.as_ref().to_owned();
        let root = directory.clone();
        let storage = move || {
            Disk::create(&root).map_err(|source| Error::Directory {
                directory: root.display().to_string(),
                source,
            })
        };
        Builder {
            directory: Some(directory),
            ..Builder::new(Box::new(storage), fresh)
        }
    }

    /// The same on any storage: a simulated disk, a faulty one.
    pub fn open_on<S: Storage>(
        storage: S,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Builder<L, S> {
        Builder::new(Box::new(move || Ok(storage)), fresh)
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl<L: Logic, S: Storage> Builder<L, S> {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    if let Ok(config) = &mut self.config {
                        config.$name = $name;
                    }
                    self
                }
            )*
        }
    };
}

options! {
    /// Slots of the ring, a power of two.
    slots: usize;
    /// Slots of the output ring, a power of two.
    output_slots: usize;
    /// The most events that a stage takes in one turn; 0: what the ring chooses.
    batch: usize;
    /// Asks the kernel for huge pages below both rings.
    huge_pages: bool;
    /// Keeps both rings in memory; an error where they cannot be locked.
    lock_memory: bool;
    /// What the journal promises.
    journal: JournalMode;
    /// Where the sync blocks.
    journal_thread: JournalThread;
    /// Bytes of a segment file.
    segment_bytes: u64;
    /// Allows `sync` on a file system that forgets at a power cut.
    allow_volatile: bool;
    /// What *logic* waits for.
    gate: GateAt;
    /// How threads wait.
    wait: Wait;
    /// Events between two snapshots; 0 takes none.
    snapshot_every: u64;
    /// Snapshots kept, at least 2.
    snapshots_kept: usize;
    /// Which segments the journal gives up.
    retention: Retention;
    /// Under `retention = snapshots` at least so many bytes of segments stay.
    retention_bytes: u64;
    /// Whether a second copy of the state answers reads and takes the snapshots.
    shadow: bool;
    /// Events between two beacons; 0: none.
    beacon_every: u64;
    /// Client sessions open at once; 0: requests are not checked.
    sessions_max: u32;
    /// Client sessions open at once of one principal, in a cluster; 0: as many as there may be.
    sessions_per_principal: u32;
    /// Replies kept for each session.
    session_replies: u32;
    /// A session without a request for so long ends.
    session_expiry_ms: u64;
    /// What happens when `validate` panics.
    on_validate_panic: OnValidatePanic;
    /// What happens when `apply` panics.
    on_apply_panic: OnApplyPanic;
    /// A tick in the log each so many milliseconds; 0: none.
    tick_ms: u64;
    /// Whether positions and counts are shown in a file.
    counters: bool;
    /// How long `close` waits.
    drain_ms: u64;
}

impl<L: Logic, S: Storage> Builder<L, S> {
    fn new(
        storage: Box<dyn FnOnce() -> Result<S> + Send>,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Self {
        Self {
            storage,
            directory: None,
            factory: Arc::new(fresh),
            config: Ok(Config::default()),
            clock: Clock::System,
            sinks: Vec::new(),
            outputs_after: None,
            replicate: None,
            attached: Vec::new(),
        }
    }

    /// Takes all of this configuration.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        Self {
            config: Ok(config),
            ..self
        }
    }

    /// Takes the configuration of a TOML file; what is wrong with it, `start` says.
    #[must_use]
    pub fn config_file(self, path: impl AsRef<Path>) -> Self {
        Self {
            config: Config::read(path).map_err(Error::from),
            ..self
        }
    }

    /// Which stages share a thread: `order+journal,logic+egress`.
    #[must_use]
    pub fn place(mut self, place: &str) -> Self {
        if let Ok(config) = &mut self.config {
            place.clone_into(&mut config.place);
        }
        self
    }

    /// The CPU of each thread of `place`.
    #[must_use]
    pub fn pin(mut self, cpus: &[usize]) -> Self {
        if let Ok(config) = &mut self.config {
            config.pin = cpus.to_vec();
        }
        self
    }

    /// How each thread of `place` waits, in its order.
    #[must_use]
    pub fn waits(mut self, waits: &[Wait]) -> Self {
        if let Ok(config) = &mut self.config {
            config.waits = waits.to_vec();
        }
        self
    }

    /// Under `retention = snapshots` a segment stays until the archive in this directory has it.
    #[must_use]
    pub fn archive(mut self, directory: impl AsRef<Path>) -> Self {
        if let Ok(config) = &mut self.config {
            config.archive = Some(directory.as_ref().to_owned());
        }
        self
    }

    /// Where the counters are shown over HTTP.
    #[must_use]
    pub fn prometheus(mut self, address: &str) -> Self {
        if let Ok(config) = &mut self.config {
            config.prometheus = Some(address.to_owned());
        }
        self
    }

    /// Where the log's time comes from.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Calls `take` with every output of this body, on the thread of *egress*, which waits for it.
    #[must_use]
    pub fn on_output<B: Body>(self, mut take: impl FnMut(Position, &B) + Send + 'static) -> Self {
        self.on_outputs(move |output| {
            let header = output.output();
            if header.kind == B::KIND {
                take(Position(header.position), output.body_as::<B>());
            }
        })
    }

    /// The same with every output, whatever it is, header and all.
    #[must_use]
    pub fn on_outputs(mut self, take: impl FnMut(&OutputOf<L>) + Send + 'static) -> Self {
        self.sinks.push(Box::new(take));
        self
    }

    /// Outputs behind this one are handed to the `on_output` closures again while the log is
    /// replayed: for whoever keeps outputs and crashed before it had them all. Without it, the
    /// outputs of a replay are muted.
    #[must_use]
    pub fn outputs_after(self, last: OutputId) -> Self {
        Self {
            outputs_after: Some(last),
            ..self
        }
    }

    /// Attaches a stage of the application's own to the ring of events, behind the stages of
    /// these names: `order`, `journal`, `replicate`, `logic`, `egress`, or others attached before.
    ///
    /// It counts by `Sequence`, from 0 at each start: an event's position is that of
    /// [`Engine::recovery`] and the sequence more.
    ///
    /// ```no_run
    /// use lockstep_engine::prelude::*;
    /// use lockstep_engine::ringbuffer::each;
    ///
    /// # fn open<Bank: Logic<In = Deposit> + Default>() -> lockstep_engine::Result<Engine<Bank>> {
    /// let count = each(|event: &Event64, at| println!("{at:?}: kind {}", event.header().kind));
    /// let engine = Engine::<Bank>::open("./bank").stage("count", &["journal"], count).start()?;
    /// # Ok(engine)
    /// # }
    /// # bodies! { Deposit, kind 1, version 1: { account: u64, cents: i64 } }
    /// ```
    #[must_use]
    pub fn stage(
        mut self,
        name: &str,
        after: &[&str],
        stage: impl Stage<EventOf<L>> + 'static,
    ) -> Self {
        let own = name.to_owned();
        self.attached.push(Attached {
            name: name.to_owned(),
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            attach: Box::new(move |graph, after| graph.stage(&own, after, stage)),
        });
        self
    }

    /// Plugs in the stage whose promise is "committed by the quorum": it is called `replicate`,
    /// runs beside *journal*, and the gate waits for both.
    #[must_use]
    pub fn replicate(
        mut self,
        attach: impl FnOnce(&mut Graph<EventOf<L>>, &[StageId]) -> StageId + Send + 'static,
    ) -> Self {
        self.replicate = Some(Box::new(attach));
        self
    }

    /// Opens the journal, recovers the state, builds the graph and starts it.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong, where, and what helps. Nothing runs then.
    pub fn start(self) -> Result<Engine<L>> {
        self.starter()?.start()
    }

    /// Opens the journal, recovers the state and builds the same graph, all on the caller's
    /// thread: nothing runs but in [`Stepped::turn`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_stepped(self) -> Result<Stepped<L, S>> {
        Stepped::start(self.starter()?)
    }

    fn starter(self) -> Result<Starter<L, S>> {
        let config = self.config?;
        config.checked()?;
        if config.sessions_per_principal != 0 {
            return Err(ConfigError::Contradiction(
                "sessions_per_principal in an engine alone: nobody proves a name there; leave it out, or run a cluster",
            )
            .into());
        }
        let storage = (self.storage)()?;
        Ok(Starter {
            options: crate::log::options(&config, &L::In::schema()),
            config,
            storage,
            directory: self.directory,
            factory: self.factory,
            clock: self.clock,
            sinks: self.sinks,
            outputs_after: self.outputs_after,
            replicate: self.replicate,
            attached: self.attached,
        })
    }
}

/// A builder whose parts are known to fit.
struct Starter<L: Logic, S: Storage> {
    config: Config,
    options: lockstep_journaler::Options,
    storage: S,
    directory: Option<PathBuf>,
    factory: Factory<L>,
    clock: Clock,
    sinks: Vec<Sink<OutputOf<L>>>,
    outputs_after: Option<OutputId>,
    replicate: Option<Attach<EventOf<L>>>,
    attached: Vec<Attached<EventOf<L>>>,
}

/// The shadow, where to ask it, and what is asked.
type Shadowing<L, S> = (Shadow<L, S>, Arc<Mailbox<L>>, Arc<Asked>);

/// The parts of an engine that is built and does not run yet.
struct Prepared<L: Logic, S: Storage> {
    ring: MultiProducer<EventOf<L>>,
    pipeline: Pipeline<EventOf<L>>,
    shared: Arc<Shared>,
    desk: Arc<Desk<OutputOf<L>>>,
    logic_mailbox: Arc<Mailbox<L>>,
    shadow: Option<Shadowing<L, S>>,
    keeper: Option<(Keeper<S>, Arc<Bell>)>,
    ledger: Ledger,
    probe: Probe,
    recovery: Recovery,
    parameters: crate::system::Parameters,
}

/// The journal and what reads it.
struct Opened<S: Storage> {
    journal: Journal<S>,
    recovered: Recovered,
    end: Tail,
}

impl<L: Logic, S: Storage> Starter<L, S> {
    fn start(mut self) -> Result<Engine<L>> {
        let prepared = self.prepare(OnFull::Wait)?;
        let watch = self.watch(&prepared)?;
        let metrics = self.metrics(&prepared, &watch.1)?;
        let Prepared {
            ring,
            pipeline,
            shared,
            desk,
            logic_mailbox,
            shadow,
            keeper,
            ledger,
            probe,
            recovery,
            parameters,
        } = prepared;
        let running = pipeline.start()?;
        let producer = Producer::new(ring, ledger, Arc::clone(&shared));
        let (shadow, mailbox) = match shadow {
            Some((shadow, mailbox, asked)) => (
                Some((spawn("shadow", &shared, || shadow.run())?, asked)),
                mailbox,
            ),
            None => (None, logic_mailbox),
        };
        let keeper = match keeper {
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
        let mut engine = Engine {
            running: Mutex::new(Some(running)),
            producer,
            shared,
            desk,
            mailbox,
            shadow,
            keeper,
            readers,
            watch,
            metrics,
            probe,
            recovery,
            config: self.config,
        };
        engine.agree_on(parameters)?;
        Ok(engine)
    }

    /// The whole engine, before anything runs.
    fn prepare(&mut self, on_full: OnFull) -> Result<Prepared<L, S>> {
        let opened = self.open_journal()?;
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
        let logic_mailbox = Arc::new(Mailbox::new());
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
            Arc::clone(&logic_mailbox),
            outputs,
            exceptions,
            Arc::clone(&door),
            &made.unmarked,
        );
        let is_gate = self.config.gate == GateAt::Output;
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
        Ok(Prepared {
            ring,
            pipeline,
            shared,
            desk,
            logic_mailbox,
            shadow,
            keeper,
            ledger,
            probe,
            recovery,
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

    /// Rebuilds a state while the engine runs, from a reader of its own.
    fn rebuild(&self, opened: &Opened<S>) -> Result<Rebuild<L>> {
        let mut reader = opened.journal.reader(From::Oldest)?;
        let (storage, factory, config) = (
            self.storage.clone(),
            Arc::clone(&self.factory),
            self.config.clone(),
        );
        let (log, oldest, first_end) =
            (opened.journal.log_id(), opened.recovered.oldest, opened.end);
        let progress = opened.journal.progress();
        Ok(Box::new(move |until, skip| {
            let reached = progress.durable();
            if reached.position < until {
                return Ok(None);
            }
            // A snapshot that was taken since is in front of `until`, at a frame's end in the log.
            let end = Tail {
                reached: reached.max(first_end.reached),
                ..first_end
            };
            // Retention may have taken segments since.
            let oldest = crate::log::oldest(&mut reader, oldest)?;
            let mut source = Source {
                storage: &storage,
                reader: &mut reader,
                factory: &factory,
                log,
                end,
                oldest,
                config: &config,
                unmarked: Unmarked::ByPolicy,
            };
            let made = source.make(until, skip, None, &mut [])?;
            Ok(Some(made.core))
        }))
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
            ErrorKind::StorageFull => no_room(&prepared.shared, &prepared.probe),
            _ => Error::Beside {
                what: "the counters",
                source,
            },
        })?;
        let is_over = Arc::new(AtomicBool::new(false));
        let tick = (self.config.tick_ms != 0).then(|| Duration::from_millis(self.config.tick_ms));
        let watch = Watch {
            shared: Arc::clone(&prepared.shared),
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
            shared: Arc::clone(&prepared.shared),
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

fn no_room(shared: &Shared, probe: &Probe) -> Error {
    Error::NoRoom {
        durable: Position(shared.durable.get()),
        report: probe.look().to_string(),
    }
}

/// A cold thread of this name: if it panics the engine ends with that as its cause (`EN4`).
pub(crate) fn spawn(
    what: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    // It is used up, and what it shares with others are numbers.
    let run = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            shared.fail(format!("thread {what:?} panicked: {}", panic_text(&*panic)));
        }
    };
    let builder = std::thread::Builder::new().name(what.to_owned());
    builder
        .spawn(run)
        .map_err(|source| Error::Beside { what, source })
}

pub(crate) fn describe(recovered: &Recovered) -> String {
    match &recovered.verdict {
        Verdict::Created => "created".to_owned(),
        Verdict::CleanEnd if recovered.was_clean => "closed in order".to_owned(),
        Verdict::CleanEnd => "ended between two groups".to_owned(),
        Verdict::TornTail(torn) => {
            format!(
                "a torn tail of {} bytes at position {} was cut; a copy is in {}",
                torn.bytes, torn.position, torn.quarantine
            )
        }
    }
}

impl<L: Logic> Engine<L> {
    /// A change of what the state goes by is an event.
    fn agree_on(&mut self, parameters: crate::system::Parameters) -> Result<()> {
        let wanted = self.config.parameters();
        if let Some(version) = first_version::<L>().filter(|_| self.recovery.position.0 == 0) {
            self.wait_unless_full(&self.producer.clone().own(&version)?)?;
        }
        if wanted != parameters {
            self.wait_unless_full(&self.producer.clone().own(&wanted)?)?;
        }
        Ok(())
    }

    /// Goes to another version of the logic's rules, from the next event on, here and in every replay.
    ///
    /// # Errors
    ///
    /// This build cannot run it, the log is in a newer one, or the engine stopped.
    pub fn switch_version(&self, version: u32) -> Result<crate::source::Answer> {
        if !L::VERSIONS.contains(&version) {
            return Err(crate::config::ConfigError::Value {
                name: "version",
                found: version.to_string(),
                expected: "one of the versions that this build's logic can run",
            }
            .into());
        }
        let switch = VersionSwitch { version, spare: 0 };
        self.producer.clone().own(&switch)?.wait()
    }

    /// The version of the logic's rules that the log is in.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn version(&self) -> Result<u32> {
        self.read_core(Core::version)
    }

    /// Nobody who starts an engine waits for room on a disk without being told.
    fn wait_unless_full(&self, ack: &Ack) -> Result<()> {
        // Ends: answered, stopped, or the disk is full.
        loop {
            match ack.wait_for(LOOK_AT_START) {
                Err(Error::TimedOut { .. }) if self.shared.waits_for_room.get() != 0 => {
                    return Err(no_room(&self.shared, &self.probe));
                }
                Err(Error::TimedOut { .. }) => {}
                answered => return answered.map(|_| ()),
            }
        }
    }

    /// The writing end: one for each thread that publishes.
    #[must_use]
    pub fn producer(&self) -> Producer<L> {
        self.producer.clone()
    }

    /// Everything before it is answered: durable as the gate says, applied, its outputs gone.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.shared.answered.get())
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What it was started with.
    #[must_use]
    pub fn configuration(&self) -> &Config {
        &self.config
    }

    /// Where the counters are shown over HTTP: with port 0 in the configuration, the one that was free.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Watches how far every stage is.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// Looks at the state, between two events, not before what is answered now: a reader
    /// sees what it has been told. With a shadow the logic is not held up. Without one, and under
    /// `gate = output`, it is the logic's own state, which may have run ahead of what is durable.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&L) -> R + Send + 'static,
    ) -> Result<(Position, R)> {
        self.read_core(move |core| (core.position(), look(core.logic())))
    }

    /// Waits until everything before `position` is answered; then `read` sees it, whoever was told of
    /// the position: another thread, another process's client.
    ///
    /// ```no_run
    /// # use lockstep_engine::logic::EventOf;
    /// # use lockstep_engine::prelude::*;
    /// # fn show<Bank: Logic + Default>(events: &[EventOf<Bank>]) -> lockstep_engine::Result<()> {
    /// let engine = Engine::<Bank>::open("./bank").start()?;
    /// let end = engine.producer().publish_events(events)?.end;
    /// let (position, _) = engine.at_least(end)?.read(|bank| bank.state_hash())?;
    /// assert!(position >= end);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The engine stopped before.
    pub fn at_least(&self, position: Position) -> Result<&Self> {
        match self.shared.wait(&self.shared.answered, position.0, None) {
            Waited::Reached => Ok(self),
            Waited::Stopped | Waited::TimedOut => Err(stopped(&self.shared)),
        }
    }

    /// The hash of the whole state, with the position it is of.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn state_hash(&self) -> Result<(Position, u64)> {
        self.read_core(|core| (core.position(), core.state_hash()))
    }

    /// The kept reply to a client's request: the position of the event, and its code.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn reply(&self, session: u64, request: u32) -> Result<Option<Reply>> {
        self.read_core(move |core| core.requests().reply(session, request))
    }

    /// Positions in quarantine.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn quarantined(&self) -> Result<Vec<Position>> {
        self.read_core(|core| core.quarantined().iter().map(|at| Position(*at)).collect())
    }

    fn read_core<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<R> {
        let position = self.shared.answered.get();
        let answer = self
            .mailbox
            .send(position, look)
            .ok_or_else(|| stopped(&self.shared))?;
        if let Some((shadow, _)) = &self.shadow {
            shadow.thread().unpark();
        }
        answer.recv().map_err(|_| {
            if self.shared.is_over() {
                stopped(&self.shared)
            } else {
                Error::LookPanicked
            }
        })
    }

    /// Outputs from now on, for a thread of the application's own. A consumer that is slow is
    /// cut off or waited for; nothing is dropped in silence.
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
        Ok(self.desk.subscribe(name, slow, slots)?)
    }

    /// Asks the shadow for a snapshot of what is durable now.
    pub fn snapshot_now(&self) {
        if let Some((shadow, asked)) = &self.shadow {
            asked.ask_for_snapshot();
            shadow.thread().unpark();
        }
    }

    /// The position of the newest snapshot; 0 before the first.
    #[must_use]
    pub fn newest_snapshot(&self) -> Position {
        Position(self.shared.snapshot.get())
    }

    /// The newest snapshot that the engine has read back from the disk and found whole, and behind which
    /// it has removed what nobody needs any more; 0 before the first.
    #[must_use]
    pub fn kept_snapshot(&self) -> Position {
        Position(self.shared.kept.get())
    }

    /// The oldest position that is in the journal; what lies before it was given up.
    #[must_use]
    pub fn oldest(&self) -> Position {
        Position(self.shared.oldest.get())
    }

    /// Says durably that somebody still needs the log from `position` on, and the state in front of
    /// it: retention waits for them, also behind a restart. Whoever keeps outputs says so with
    /// each that they keep, and can ask for those behind it by
    /// [`outputs_after`](Builder::outputs_after). The name is that of a file; the same name again
    /// moves it.
    ///
    /// # Errors
    ///
    /// [`Error::Retention`]: the disk says no, or the name; there is no journal.
    pub fn keep_from(&self, name: &str, position: Position) -> Result<()> {
        self.readers()?.keep_from(name, position)
    }

    /// Nothing is kept for this reader any more.
    ///
    /// # Errors
    ///
    /// [`Error::Retention`]: the disk says no, or there is none of that name.
    pub fn forget_reader(&self, name: &str) -> Result<()> {
        self.readers()?.forget(name)
    }

    fn readers(&self) -> Result<&dyn LogReaders> {
        let none = || Error::Retention(lockstep_journaler::tools::ToolError::NoJournal);
        self.readers.as_deref().ok_or_else(none)
    }

    /// Whether the journal waits for room on the disk: nothing is lost, and nothing is answered until
    /// there is some.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.shared.waits_for_room.get() != 0
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.shared.fault().map(str::to_owned)
    }

    /// Runs until SIGTERM or SIGINT asks it to end, or it stops by itself; then closes it.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); signals cannot be watched.
    pub fn run_until_signal(self) -> Result<()> {
        crate::runtime::signals::watch().map_err(|source| Error::Beside {
            what: "signals",
            source,
        })?;
        while !crate::runtime::signals::is_asked_to_end() && self.shared.fault().is_none() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.close()
    }

    /// Lets everything that was published pass every stage, closes the journal, and ends the
    /// threads.
    ///
    /// # Errors
    ///
    /// The engine had stopped before, and why; or it did not finish within `drain_ms`.
    pub fn close(mut self) -> Result<()> {
        self.end_watch();
        self.end_keeper();
        let within = self.config.drain();
        let drained = self.take_running().map(|running| running.drain(within));
        self.end_shadow();
        self.shared.close();
        match (self.shared.fault(), drained) {
            (Some(cause), drained) => {
                let report = drained.map(|drained| drained.unwrap_or_else(|report| *report));
                Err(Error::Stopped {
                    cause: with_faults(cause, report.as_ref()),
                })
            }
            (None, Some(Err(report))) if self.shared.waits_for_room.get() != 0 => {
                Err(Error::NoRoom {
                    durable: Position(self.shared.durable.get()),
                    report: report.to_string(),
                })
            }
            (None, Some(Err(report))) if report.was_live => Err(Error::NotDrained {
                within_ms: self.config.drain_ms,
                report: report.to_string(),
            }),
            (None, Some(Err(report))) => Err(Error::Stopped {
                cause: report.to_string(),
            }),
            (None, _) => Ok(()),
        }
    }

    fn take_running(&mut self) -> Option<Running> {
        let running = self.running.get_mut();
        running.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end_watch(&mut self) {
        if let Some((thread, is_over)) = self.watch.take() {
            // ORDERING: Release, pairs with the Acquire in the thread.
            is_over.store(true, Ordering::Release);
            thread.thread().unpark();
            // A panic there is nobody's loss: it was the cold thread.
            let _panicked = thread.join();
        }
        if let Some((thread, _)) = self.metrics.take() {
            thread.thread().unpark();
            // As above.
            let _panicked = thread.join();
        }
    }

    /// Before the journal: what may be missing is written by whoever has it open.
    fn end_keeper(&mut self) {
        if let Some((thread, bell)) = self.keeper.take() {
            bell.end();
            // A panic there has removed nothing further, and the log is as it was.
            let _panicked = thread.join();
        }
    }

    fn end_shadow(&mut self) {
        if let Some((thread, asked)) = self.shadow.take() {
            // ORDERING: Release, pairs with the Acquire in the thread.
            asked.end.store(true, Ordering::Release);
            thread.thread().unpark();
            // A panic there has ended no promise: the shadow only follows.
            let _panicked = thread.join();
        }
    }
}

/// The first cause, and what the stages said besides.
fn with_faults(cause: &str, report: Option<&Report>) -> String {
    let others = report.map(|report| report.faults.iter().map(|fault| format!("; {fault}")));
    let others: String = others.into_iter().flatten().collect();
    format!("{cause}{others}")
}

impl<L: Logic> Drop for Engine<L> {
    fn drop(&mut self) {
        self.end_watch();
        self.end_keeper();
        drop(self.take_running());
        self.end_shadow();
        self.shared.close();
    }
}
