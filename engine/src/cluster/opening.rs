//! A node comes from its storage: the agreement and its journal, the state behind what is known committed, the
//! stages around it. A passive node has the first of these, and the others when it is made active.

use std::sync::Arc;

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Options, Position, Tail};
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
use super::passive::Passive;
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

/// Makes what runs the stages behind the gate, once there is a state.
pub(super) type OpenBack = Box<dyn FnOnce(&Arc<Shared>) -> Result<Back> + Send>;

/// Of what a state is made, and the stages around it.
pub(super) struct Ways<L: Logic, S: Storage> {
    pub(super) storage: S,
    pub(super) options: NodeOptions,
    pub(super) factory: Factory<L>,
    pub(super) first_events: Vec<EventOf<L>>,
    pub(super) back: OpenBack,
}

/// A state, and what there is to say of how it came.
pub(super) type Recovered<L> = (Made<L>, Recovery);

/// Everything behind the gate.
struct Stages<L: Logic, S: Storage> {
    member: Member<L, Replica<S>>,
    face: Face<L>,
    shadowing: Option<Shadowing<L, S>>,
    beacons: Arc<Reports>,
    verdicts: Arc<Verdicts>,
}

impl<L: Logic, S: Storage> ClusterNode<L, S> {
    /// The same with `back` running what is behind the gate, and a log that begins with these events.
    pub(crate) fn open_with(
        storage: S,
        options: &NodeOptions,
        factory: Factory<L>,
        first_events: Vec<EventOf<L>>,
        back: impl FnOnce(&Arc<Shared>) -> Result<Back> + Send + 'static,
    ) -> Result<Self> {
        options.checked()?;
        check_first_events(&first_events, options)?;
        let schema = L::In::schema();
        let journal = Options {
            background: options.background,
            ..crate::log::options(&options.config, &schema)
        };
        let (mut replica, opened) = Replica::create(storage.clone(), &journal, &options.replica)?;
        check_passive(&replica, options)?;
        replica.be_passive(options.is_passive);
        let ways = Ways {
            storage: storage.clone(),
            options: options.clone(),
            factory,
            first_events,
            back: Box::new(back),
        };
        let found = crate::node::describe(&opened.journal);
        let mut node = Self::without_logic(replica, storage, options, &opened, found);
        if options.is_passive {
            node.passive = Passive::asleep(ways);
        } else {
            // CN2
            let end = *node.replica.tail();
            let recover = ways.recovery(&node, opened.committed, end)?;
            let state = recover()?;
            node.take_logic(ways, state)?;
        }
        Ok(node)
    }

    /// As it is before there is a state.
    fn without_logic(
        replica: Replica<S>,
        storage: S,
        options: &NodeOptions,
        opened: &Opened,
        found: String,
    ) -> Self {
        let shared = Arc::new(Shared::new(0, options.config.slots));
        shared.oldest.set(opened.journal.oldest.0);
        let face = Face {
            shared,
            desk: Arc::default(),
            mailbox: Arc::new(Mailbox::new()),
            recovery: Recovery::none(found),
        };
        Self {
            replica,
            member: None,
            face,
            passive: Passive::Not,
            shadowing: None,
            storage,
            offered: 0,
            wanted: 0,
            builds: Builds::default(),
            beacons: Arc::default(),
            verdicts: Arc::default(),
            handing_over: HandingOver::default(),
            is_stepped: options.is_stepped(),
        }
    }

    /// From here on it has a logic, in this state.
    pub(super) fn take_logic(&mut self, ways: Ways<L, S>, state: Recovered<L>) -> Result<()> {
        let oldest = self.face.shared.oldest.get();
        let stages = ways.stages(&self.replica, state, oldest)?;
        self.offered = stages.face.shared.snapshot.get();
        self.member = Some(stages.member);
        self.face = stages.face;
        self.shadowing = stages.shadowing;
        self.beacons = stages.beacons;
        self.verdicts = stages.verdicts;
        Ok(())
    }
}

/// A passive node that nobody could relieve would stand for ever.
fn check_passive<S: Storage>(
    replica: &Replica<S>,
    options: &NodeOptions,
) -> Result<(), ConfigError> {
    let is_alone = replica.members().voters == [options.replica.node];
    if options.is_passive && is_alone {
        return Err(ConfigError::Contradiction(
            "passive = true and the only voter: nobody else could lead; leave passive out of the node's file",
        ));
    }
    Ok(())
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

impl<L: Logic, S: Storage> Ways<L, S> {
    /// What makes the state in front of `until`, where the log of this node ends at `end`: with a reader of its
    /// own, on whatever thread.
    pub(super) fn recovery(
        &self,
        node: &ClusterNode<L, S>,
        until: Position,
        end: Tail,
    ) -> Result<impl FnOnce() -> Result<Recovered<L>> + Send + use<L, S>> {
        let mut reader = node.replica.reader(From::Oldest)?;
        let oldest = Position(node.face.shared.oldest.get());
        let found = node.face.recovery.journal.clone();
        let log = node.replica.journal().log_id();
        let (storage, factory) = (self.storage.clone(), Arc::clone(&self.factory));
        let config = self.options.config.clone();
        Ok(move || {
            let mut source = Source {
                storage: &storage,
                reader: &mut reader,
                factory: &factory,
                log,
                end,
                oldest,
                config: &config,
                unmarked: Unmarked::EndsThere,
            };
            let recovered = recovery::recover_to(&mut source, until, None, &mut [], found);
            if let Err(Error::Step(StepError::Diverged { position, .. })) = &recovered
                && let Ok(agreed) = source.beacon_before(*position)
            {
                // AS1: a beacon is in the log because a majority has that state.
                set_aside(&storage, agreed, oldest);
            }
            recovered
        })
    }

    /// The stages around this state.
    fn stages(
        self,
        replica: &Replica<S>,
        (made, recovery): Recovered<L>,
        oldest: u64,
    ) -> Result<Stages<L, S>> {
        let config = &self.options.config;
        let position = made.core.position();
        let shared = Arc::new(Shared::new(position.0, config.slots));
        shared.oldest.set(oldest);
        shared.cuts.set(replica.cuts());
        shared.version.set(u64::from(made.core.version()));
        let verdicts = Arc::new(Verdicts::of(made.core.quarantined()));
        let shadowing = self.shadowing(replica, &made.core, &shared, &verdicts)?;
        let face = Face {
            shared: Arc::clone(&shared),
            desk: Arc::new(Desk::default()),
            mailbox: Arc::new(Mailbox::new()),
            recovery,
        };
        let beacons = Arc::new(Reports::default());
        let (kept, quarantining) =
            self.kept(replica, made.core, &face, &verdicts, Arc::clone(&beacons))?;
        let answers = face.subscribe("answers", Slow::Wait, config.output_slots)?;
        let parts = Parts {
            config: config.clone(),
            clock: self.options.clock.clone(),
            frame_bytes_max: self.options.frame_bytes_max,
            kept,
            back: (self.back)(&shared)?,
            answers: Answers::new(answers, Arc::clone(&shared)),
            shared,
            first_events: self.first_events,
            quarantining,
        };
        Ok(Stages {
            member: Member::new(parts, replica)?,
            face,
            shadowing,
            beacons,
            verdicts,
        })
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
            &self.storage,
            &self.options,
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
            storage: &self.storage,
            journal: replica.journal(),
            factory: &self.factory,
            config: &self.options.config,
            end: *replica.tail(),
            oldest: Position(0),
            // What went by here without a mark did not panic.
            unmarked: Unmarked::Refused,
        };
        ground.rebuild()
    }
}
