//! A node comes from its storage: the agreement and its journal, the state behind what is known committed, the
//! stages around it.

use std::sync::Arc;

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Options, Position};
use lockstep_replicator::Replica;
use lockstep_replicator::replica::{Mutation, Opened};

use super::answers::Answers;
use super::aside::set_aside;
use super::back::Back;
use super::builds::Builds;
use super::handing_over::HandingOver;
use super::life::Kept;
use super::member::{Member, Parts};
use super::node::ClusterNode;
use super::options::NodeOptions;
use super::quarantine::Quarantining;
use super::shadowing::Shadowing;
use crate::config::ConfigError;
use crate::core::{Core, StepError};
use crate::error::{Error, Result};
use crate::event::Kinds;
use crate::graph::build::output_ring;
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic};
use crate::mailbox::Mailbox;
use crate::node::face::Face;
use crate::node::rebuild::Ground;
use crate::node::recovery::{self, Factory, Made, Recovery, Source, Unmarked};
use crate::shared::Shared;
use crate::stage::egress::{Desk, Egress, Slow};
use crate::stage::logic::{Exceptions, LogicStage, Rebuild, Reports};
use crate::stage::verdicts::Verdicts;

/// What a node is opened on.
struct Ways<'a, L: Logic, S: Storage> {
    storage: &'a S,
    options: &'a NodeOptions,
    factory: &'a Factory<L>,
}

impl<L: Logic, S: Storage> ClusterNode<L, S> {
    /// The same with `back` running what is behind the gate, and a log that begins with these events.
    pub(crate) fn open_with(
        storage: S,
        options: &NodeOptions,
        factory: Factory<L>,
        first_events: Vec<EventOf<L>>,
        back: impl FnOnce(&Arc<Shared>) -> Result<Back>,
    ) -> Result<Self> {
        options.checked()?;
        check_first_events(&first_events, options)?;
        let config = &options.config;
        let schema = L::In::schema();
        let journal = Options {
            background: options.background,
            ..crate::log::options(config, &schema)
        };
        let (replica, opened) = Replica::create(storage.clone(), &journal, &options.replica)?;
        let ways = Ways {
            storage: &storage,
            options,
            factory: &factory,
        };
        let (made, recovery) = ways.recover(&replica, &opened)?;
        let position = made.core.position();
        let shared = Arc::new(Shared::new(position.0, config.slots));
        shared.oldest.set(opened.journal.oldest.0);
        shared.cuts.set(replica.cuts());
        shared.version.set(u64::from(made.core.version()));
        let verdicts = Arc::new(Verdicts::of(made.core.quarantined()));
        let shadowing = ways.shadowing(&replica, &made.core, &shared, &verdicts)?;
        let face = Face {
            shared: Arc::clone(&shared),
            desk: Arc::new(Desk::default()),
            mailbox: Arc::new(Mailbox::new()),
            recovery,
        };
        let beacons = Arc::new(Reports::default());
        let (kept, quarantining) =
            ways.kept(&replica, made.core, &face, &verdicts, Arc::clone(&beacons))?;
        let answers = face.subscribe("answers", Slow::Wait, config.output_slots)?;
        let parts = Parts {
            config: config.clone(),
            clock: options.clock.clone(),
            frame_bytes_max: options.frame_bytes_max,
            kept,
            back: back(&shared)?,
            answers: Answers::new(answers, Arc::clone(&shared)),
            shared: Arc::clone(&shared),
            first_events,
            quarantining,
        };
        let member = Some(Member::new(parts, &replica)?);
        Ok(Self {
            replica,
            member,
            face,
            shadowing,
            storage,
            offered: shared.snapshot.get(),
            wanted: 0,
            builds: Builds::default(),
            beacons,
            verdicts,
            handing_over: HandingOver::default(),
            is_stepped: options.is_stepped(),
        })
    }
}

/// They are one frame of the first leader's, and go through its ring.
fn check_first_events<E>(events: &[E], options: &NodeOptions) -> Result<(), ConfigError> {
    let most = (options.frame_bytes_max / size_of::<E>()).min(options.config.slots / 2);
    if events.len() < most {
        return Ok(());
    }
    Err(ConfigError::Value {
        name: "first events",
        found: events.len().to_string(),
        expected: "fewer than half of the ring has slots, and than one frame holds",
    })
}

impl<L: Logic, S: Storage> Ways<'_, L, S> {
    /// `CN2`
    fn recover(&self, replica: &Replica<S>, opened: &Opened) -> Result<(Made<L>, Recovery)> {
        let mut reader = replica.reader(From::Oldest)?;
        let mut source = Source {
            storage: self.storage,
            reader: &mut reader,
            factory: self.factory,
            log: replica.journal().log_id(),
            end: *replica.tail(),
            oldest: opened.journal.oldest,
            config: &self.options.config,
            unmarked: Unmarked::EndsThere,
        };
        let found = crate::node::describe(&opened.journal);
        let recovered = recovery::recover_to(&mut source, opened.committed, None, &mut [], found);
        if let Err(Error::Step(StepError::Diverged { position, .. })) = &recovered
            && let Ok(agreed) = source.beacon_before(*position)
        {
            // AS1: a beacon is in the log because a majority has that state.
            set_aside(self.storage, agreed, opened.journal.oldest);
        }
        recovered
    }

    fn shadowing(
        &self,
        replica: &Replica<S>,
        core: &Core<L>,
        shared: &Arc<Shared>,
        verdicts: &Arc<Verdicts>,
    ) -> Result<Option<Shadowing<L, S>>> {
        let rebuilds = self.options.quarantines();
        let rebuild = rebuilds.then(|| self.rebuild(replica)).transpose()?;
        let quarantine = rebuild.map(|rebuild| (rebuild, Arc::clone(verdicts)));
        Shadowing::start(
            self.storage,
            self.options,
            replica,
            core,
            shared,
            quarantine,
        )
    }

    /// The stages behind the gate, which outlive each ring.
    fn kept(
        &self,
        replica: &Replica<S>,
        core: Core<L>,
        face: &Face<L>,
        verdicts: &Arc<Verdicts>,
        beacons: Arc<Reports>,
    ) -> Result<(Kept<L>, Option<Quarantining>)> {
        let config = &self.options.config;
        let ledger = Ledger::starting_at(core.position());
        let (outputs, poller) = output_ring(config)?;
        let (quarantines, runs_ahead) = (self.options.quarantines(), self.options.runs_ahead());
        let rebuilds = quarantines || runs_ahead;
        let rebuild = rebuilds.then(|| self.rebuild(replica)).transpose()?;
        let verdicts = quarantines.then(|| Arc::clone(verdicts));
        let quarantining = verdicts.clone().map(Quarantining::new);
        let exceptions = Exceptions {
            on_validate: config.on_validate_panic,
            on_apply: config.on_apply_panic,
            rebuild,
            verdicts,
        };
        let mut logic = LogicStage::new(
            core,
            ledger,
            Arc::clone(&face.shared),
            Arc::clone(&face.mailbox),
            outputs,
            exceptions,
            Arc::default(),
            &[],
        );
        logic.report_beacons(beacons);
        if runs_ahead {
            logic.run_ahead();
        }
        let planted = self.options.replica.mutation;
        let egress = Egress::new(
            poller,
            Vec::new(),
            Arc::clone(&face.desk),
            ledger,
            Arc::clone(&face.shared),
            runs_ahead && planted != Some(Mutation::OutputBeforeItsGate),
        );
        Ok((Kept { logic, egress }, quarantining))
    }

    /// What makes the state again: behind a panic where that is the policy, and where it had run ahead.
    fn rebuild(&self, replica: &Replica<S>) -> Result<Rebuild<L>> {
        let ground = Ground {
            storage: self.storage,
            journal: replica.journal(),
            factory: self.factory,
            config: &self.options.config,
            end: *replica.tail(),
            oldest: Position(0),
            // What went by here without a mark did not panic.
            unmarked: Unmarked::Refused,
        };
        ground.rebuild()
    }
}
