//! Everything that is chosen before an engine starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_journaler::Position;
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_ringbuffer::{Graph, Stage, StageId, Wait};

use super::engine::Engine;
use super::recovery::{Factory, OutputId};
use super::starter::Starter;
use super::stepped::Stepped;
use crate::config::{
    Config, ConfigError, GateAt, JournalMode, JournalThread, OnApplyPanic, OnValidatePanic,
    Retention,
};
use crate::error::{Error, Result};
use crate::event::{Body, Kinds as _, Slot as _};
use crate::graph::build::{Attach, Attached};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::runtime::clock::Clock;
use crate::stage::egress::Sink;

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
    /// runs beside *journal*, and the gate waits for both. Under `gate = output` all outputs of one event then have
    /// to find room in the output ring: what the quorum has is seen by the ring alone.
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
