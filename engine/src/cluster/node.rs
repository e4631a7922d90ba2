//! A whole node of a cluster, without threads and sockets: the real order, agreement, journal, logic
//! and egress, given turns by whoever owns it.
//!
//! The simulator drives several of these in one thread; a program drives one of them from a thread
//! with sockets, and may put the stages behind the gate on a second thread.
//!
//! ```text
//!   receive(message)* ─► turn(now): offer ─► say (a leader's frames) ─► write, sync ─► say ─► follow
//! ```
//!
//! # Invariants
//!
//! * `CN1` Nothing moves but within a call, except the logic where it has a thread of its own.
//! * `CN2` What is applied at opening is known committed; what lies behind it waits for a leader.
//! * `CN4` A beacon enters the log when a majority of the voters has that state; a node with another
//!   one stops.
//! * `CN5` A node that lagged behind the beginning of the others' log ends with
//!   [`Fatal::BegunAnew`] once it has a snapshot of the leader:
//!   opened again, it goes on from there.
//! * `CN3` Dropped, it leaves its storage as a killed process does.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{Background, From, Options, Position, Tail};
use lockstep_replicator::consensus::Role;
use lockstep_replicator::wire::Message;
use lockstep_replicator::{
    Fatal, Gating, NodeId, OfferError, Outbox, ReceiveError, Replica, ReplicaOptions,
};

use super::administration::Administration;
use super::agreement::Agreement as _;
use super::answers::{Answers, Asker};
use super::aside::set_aside;
use super::back::Back;
use super::leaving::{KeptBack, Leaving};
use super::life::Kept;
use super::member::{Member, Parts, Refused};
use super::quarantine::Quarantining;
use super::shadowing::Shadowing;
use crate::config::{Config, ConfigError, GateAt, JournalMode, OnApplyPanic, OnValidatePanic};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::event::{Kinds, Slot};
use crate::graph::build::output_ring;
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::mailbox::Mailbox;
use crate::node::recovery::{self, Factory, Recovery, Source, Unmarked};
use crate::node::watch::Rows;
use crate::requests::Reply;
use crate::runtime::clock::Clock;
use crate::shared::Shared;
use crate::source::stopped;
use crate::stage::egress::{Desk, Egress, Slow, Subscription};
use crate::stage::logic::{Exceptions, LogicStage, Rebuild, Reports};
use crate::stage::verdicts::Verdicts;
use crate::system::{KNOWS_ADMINISTRATION, KNOWS_PRINCIPALS, Membership, VersionSwitch};

/// What the wire takes, unless both sides agree on something else.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// A frame's header and the mark of its group.
const FRAME_OVERHEAD: usize = 128;

/// What is chosen of a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Of the engine, with its own names.
    pub config: Config,
    /// Of the agreement: which cluster, which node, who else.
    pub replica: ReplicaOptions,
    /// Where the log's time comes from while this node leads.
    pub clock: Clock,
    /// Who does the journal's work ahead: a thread, or the turns.
    pub background: Background,
    /// Most bytes of events in one frame; the same on all nodes. Default 64 KiB.
    pub frame_bytes_max: usize,
}

impl NodeOptions {
    /// The defaults, for this node.
    #[must_use]
    pub fn new(replica: ReplicaOptions) -> Self {
        Self {
            config: Config::default(),
            replica,
            clock: Clock::System,
            background: Background::Thread,
            frame_bytes_max: FRAME_BYTES_MAX,
        }
    }

    fn checked(&self) -> Result<(), ConfigError> {
        self.config.checked()?;
        if self.config.gate != GateAt::Logic {
            return Err(ConfigError::Contradiction(
                "gate = output in a cluster: a deposed leader would have to take back what its logic has applied; \
                 choose gate = logic",
            ));
        }
        if !matches!(
            self.config.journal,
            JournalMode::Sync | JournalMode::Direct | JournalMode::Async
        ) {
            return Err(ConfigError::Contradiction(
                "journal = none in a cluster: the journal is the log that the nodes agree on; choose sync",
            ));
        }
        // An eighth of a segment is the longest write, and a frame has to fit into it with its mark.
        let room = usize::try_from(self.config.segment_bytes / 8).unwrap_or(usize::MAX);
        if room < self.frame_bytes_max + FRAME_OVERHEAD {
            return Err(ConfigError::Value {
                name: "segment_bytes",
                found: self.config.segment_bytes.to_string(),
                expected: "at least 1048576 in a cluster: a frame of 64 KiB has to fit into an eighth of it",
            });
        }
        Ok(())
    }

    fn quarantines(&self) -> bool {
        self.config.on_apply_panic == OnApplyPanic::Quarantine
            || self.config.on_validate_panic == OnValidatePanic::Quarantine
    }
}

/// Why the log does not go to another version of the logic's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSwitch {
    /// Another leads.
    #[error("this node does not lead: ask the one that does")]
    NotLeading,
    /// It is in that version, or in a newer one.
    #[error("version {version} is not above {now}, in which the log is: a version never goes back")]
    Back {
        /// What was asked for.
        version: u32,
        /// As it is.
        now: u32,
    },
    /// A member has not said what it can run.
    #[error(
        "node {node} has not been heard since this node started, so nobody knows which versions it can run: start it, \
         or remove it from the cluster"
    )]
    Silent {
        /// Which.
        node: NodeId,
    },
    /// A member cannot run it.
    #[error(
        "node {node} runs versions {oldest} to {newest}, not {version}: start it with a newer build first"
    )]
    CannotRun {
        /// Which.
        node: NodeId,
        /// What was asked for.
        version: u32,
        /// The oldest that it can run.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// The door is closed, or the ring is full.
    #[error("not at the moment: ask again")]
    Refused(Refused),
}

/// See the module.
pub struct ClusterNode<L: Logic, S: Storage> {
    replica: Replica<S>,
    /// `None` once it has failed.
    member: Option<Member<L, Replica<S>>>,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<L>>,
    desk: Arc<Desk<OutputOf<L>>>,
    recovery: Recovery,
    shadowing: Option<Shadowing<L, S>>,
    storage: S,
    /// The newest snapshot that the agreement was told of.
    offered: u64,
    /// How far the keeper had asked to give the log up.
    wanted: u64,
    /// Which versions of the logic's rules the others can run, as they said last.
    can_run: BTreeMap<NodeId, RangeInclusive<u32>>,
    /// Which generation of the engine's own kinds the others know, as they said last.
    knows: BTreeMap<NodeId, u8>,
    /// Beacons of the logic, for the others.
    beacons: Arc<Reports>,
    /// What the logic panicked on.
    verdicts: Arc<Verdicts>,
    /// To whom this leader handed over last.
    asked: Option<NodeId>,
    /// It was asked to end while it led; and it does not lead any more.
    has_led: bool,
    leaving: Option<Leaving>,
    is_stepped: bool,
}

impl<L: Logic, S: Storage> fmt::Debug for ClusterNode<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNode")
            .field("replica", &self.replica)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl<L: Logic, S: Storage> ClusterNode<L, S> {
    /// Opens the node in this storage, or makes it there, with everything on the caller's thread.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong, where, and what helps.
    pub fn open(
        storage: S,
        options: &NodeOptions,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Result<Self> {
        let here = |_: &Arc<Shared>| Ok(Back::Here(None));
        Self::open_with(storage, options, Arc::new(fresh), Vec::new(), here)
    }

    /// The same with `back` running what is behind the gate, and a log that begins with these events.
    pub(crate) fn open_with(
        storage: S,
        options: &NodeOptions,
        factory: Factory<L>,
        first_events: Vec<EventOf<L>>,
        back: impl FnOnce(&Arc<Shared>) -> Result<Back>,
    ) -> Result<Self> {
        options.checked()?;
        let config = &options.config;
        let frame_bytes_max = options.frame_bytes_max;
        let most = (frame_bytes_max / size_of::<EventOf<L>>()).min(config.slots / 2);
        if first_events.len() >= most {
            return Err(ConfigError::Value {
                name: "first events",
                found: first_events.len().to_string(),
                expected: "fewer than half of the ring has slots, and than one frame holds",
            }
            .into());
        }
        let schema = L::In::schema();
        let journal = Options {
            background: options.background,
            ..crate::log::options(config, &schema)
        };
        let (replica, opened) = Replica::create(storage.clone(), &journal, &options.replica)?;
        let mut reader = replica.reader(From::Oldest)?;
        let mut source = Source {
            storage: &storage,
            reader: &mut reader,
            factory: &factory,
            log: replica.journal().log_id(),
            end: *replica.tail(),
            oldest: opened.journal.oldest,
            config,
            unmarked: Unmarked::EndsThere,
        };
        let found = crate::node::describe(&opened.journal);
        // CN2
        let (made, recovery) =
            recovery::recover_to(&mut source, opened.committed, None, &mut [], found)?;
        drop(reader);
        let position = made.core.position();
        let shared = Arc::new(Shared::new(position.0, config.slots));
        shared.oldest.set(opened.journal.oldest.0);
        shared.cuts.set(replica.cuts());
        let verdicts = Arc::new(Verdicts::of(made.core.quarantined()));
        let quarantine = || -> Result<Option<(Rebuild<L>, Arc<Verdicts>)>> {
            if !options.quarantines() {
                return Ok(None);
            }
            let rebuild = rebuild(&storage, &replica, &factory, config)?;
            Ok(Some((rebuild, Arc::clone(&verdicts))))
        };
        let shadowing = Shadowing::start(
            &storage,
            options,
            &replica,
            &made.core,
            &shared,
            quarantine()?,
        )?;
        shared.version.set(u64::from(made.core.version()));
        let mailbox = Arc::new(Mailbox::new());
        let desk = Arc::new(Desk::default());
        let ledger = Ledger::starting_at(position);
        let (outputs, poller) = output_ring(config)?;
        let (rebuild, judged) = quarantine()?.unzip();
        let quarantining = judged.clone().map(Quarantining::new);
        let exceptions = Exceptions {
            on_validate: config.on_validate_panic,
            on_apply: config.on_apply_panic,
            rebuild,
            verdicts: judged,
        };
        let beacons = Arc::new(Reports::default());
        let mut logic = LogicStage::new(
            made.core,
            ledger,
            Arc::clone(&shared),
            Arc::clone(&mailbox),
            outputs,
            exceptions,
            Arc::default(),
            &[],
        );
        logic.report_beacons(Arc::clone(&beacons));
        let sinks = Vec::new();
        let egress = Egress::new(
            poller,
            sinks,
            Arc::clone(&desk),
            ledger,
            Arc::clone(&shared),
            false,
        );
        let subscription = desk.subscribe("answers", Slow::Wait, config.output_slots)?;
        let parts = Parts {
            config: config.clone(),
            clock: options.clock.clone(),
            frame_bytes_max,
            kept: Kept { logic, egress },
            back: back(&shared)?,
            answers: Answers::new(subscription, Arc::clone(&shared)),
            shared: Arc::clone(&shared),
            first_events,
            quarantining,
        };
        let member = Some(Member::new(parts, &replica)?);
        let offered = shared.snapshot.get();
        Ok(Self {
            replica,
            member,
            shared,
            mailbox,
            desk,
            recovery,
            shadowing,
            storage,
            offered,
            wanted: 0,
            can_run: BTreeMap::new(),
            knows: BTreeMap::new(),
            beacons,
            verdicts,
            asked: None,
            has_led: false,
            leaving: None,
            is_stepped: options.background == Background::Stepped,
        })
    }

    /// Takes a message of a peer.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: fatal, or to be told to whoever is connected.
    pub fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        let received = self.replica.receive(message);
        if let Err(ReceiveError::Fatal(fatal)) = &received {
            self.look_at_end(fatal);
        }
        received
    }

    /// One turn of everything; whether there is more to do at once.
    ///
    /// # Errors
    ///
    /// The node has failed, and why; it takes no further part.
    pub fn turn(
        &mut self,
        now_ns: u64,
        outbox: &mut impl Outbox,
        asker: &mut impl Asker<OutputOf<L>>,
    ) -> Result<bool> {
        let begun = self.begin(now_ns, outbox)?;
        self.persist(outbox)?;
        Ok(self.follow(asker)? | begun)
    }

    /// The first part of a turn: what does not wait for this disk. Whoever has sockets lets go what was
    /// said before the next part begins.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<bool> {
        let leaving = self.leaving;
        let begun = self.try_begin(now_ns, &mut KeptBack::by(leaving.as_ref(), outbox));
        self.unless_failed(begun)
    }

    /// The second part: write, sync, and say what waited for that. Peers need not wait for the third.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn persist(&mut self, outbox: &mut impl Outbox) -> Result<()> {
        let mut outbox = KeptBack::by(self.leaving.as_ref(), outbox);
        let persisted = self.replica.persist(&mut outbox).map_err(Error::from);
        self.unless_failed(persisted.map(|()| true)).map(drop)
    }

    /// The third part: what comes of it here, in ring, logic and answers; whether there is more to do.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn follow(&mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<bool> {
        let followed = self.try_follow(asker);
        self.unless_failed(followed)
    }

    fn unless_failed(&mut self, turned: Result<bool>) -> Result<bool> {
        // CN5: that end is none that anybody has to look into.
        let begins_anew = matches!(turned, Err(Error::Agreement(Fatal::BegunAnew { .. })));
        if let Err(error) = &turned
            && !begins_anew
        {
            let cause = error.to_string();
            self.shared.fail(cause);
            if let Error::Agreement(fatal) = error {
                self.look_at_end(fatal);
            }
        }
        match (turned, self.shared.fault()) {
            (Ok(worked), None) => Ok(worked),
            (Ok(_), Some(cause)) => Err(Error::Stopped {
                cause: cause.to_owned(),
            }),
            (Err(error), _) => Err(error),
        }
    }

    /// Behind a state that the majority does not have its snapshots go, once nobody takes one any more.
    fn look_at_end(&mut self, fatal: &Fatal) {
        let has_wrong_state = matches!(
            fatal,
            Fatal::Diverged {
                has_majority: true,
                ..
            }
        );
        if has_wrong_state {
            self.shared.fail(fatal.to_string());
            drop(self.shadowing.take());
            let agreed = self.replica.agreed_state().map_or(0, |one| one.position);
            let oldest = self.replica.index().base().reached.position;
            set_aside(&self.storage, Position(agreed), oldest);
        }
    }

    fn try_begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<bool> {
        if let Some(cause) = self.shared.fault() {
            return Err(Error::Stopped {
                cause: cause.to_owned(),
            });
        }
        let Some(member) = &mut self.member else {
            return Err(stopped(&self.shared));
        };
        let worked = member.offer(&mut self.replica);
        self.replica.begin(now_ns, outbox)?;
        Ok(worked | self.replica.has_unwritten())
    }

    fn try_follow(&mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<bool> {
        let Some(member) = &mut self.member else {
            return Err(stopped(&self.shared));
        };
        // Before the promises move: what they let through is read from the log as it is now.
        self.shared.cuts.set(self.replica.cuts());
        let worked = member.follow(&self.replica, asker)?;
        // Ends: the logic makes at most one beacon for each 64 events.
        while let Some(beacon) = self.beacons.take() {
            self.replica
                .state_is(Position(beacon.position), beacon.hash)?;
        }
        self.talk_of_panics()?;
        if self.is_stepped {
            self.replica.step_background();
        }
        if let Some(shadowing) = &mut self.shadowing {
            shadowing.turn(&self.shared);
        }
        self.give_up();
        Ok(worked | self.replica.has_more())
    }

    /// Where the logic stands the others hear, and where it went past they do who ask.
    fn talk_of_panics(&mut self) -> Result<()> {
        self.replica.stands_at(self.verdicts.standing())?;
        for position in self.verdicts.untold() {
            self.replica.went_past(position, true)?;
        }
        // VD2: first how far, then what is in quarantine of it.
        let applied = self.applied();
        for position in self.replica.asked_about() {
            if position < applied {
                let is_quarantined = self.verdicts.is_quarantined(position);
                self.replica.went_past(position, is_quarantined)?;
            }
        }
        Ok(())
    }

    /// What the shadow took is offered to nodes that lag, and what the keeper wants to give up is
    /// forgotten here first.
    fn give_up(&mut self) {
        let newest = self.shared.snapshot.get();
        if newest != self.offered {
            self.offered = newest;
            let snapshots = Snapshots::new(self.storage.clone());
            match snapshots.manifest(Position(newest)) {
                Ok(manifest) => drop(self.replica.offer_snapshot(&manifest)),
                Err(error) => tracing::warn!(%error, "a snapshot cannot be offered to others"),
            }
        }
        let lent = self.replica.lent().map_or(0, |at| at.0 + 1);
        self.shared.lent.set(lent);
        let wanted = self.shared.wanted.get();
        if wanted != self.wanted {
            self.wanted = wanted;
            let compacted = self.replica.compact(Position(wanted));
            if compacted.0 > self.shared.compacted.get() {
                self.shared.compacted.set(compacted.0);
                if let Some(shadowing) = &mut self.shadowing {
                    shadowing.look_again();
                }
            }
        }
    }

    /// Lets an event in at the door, for whoever gave the token: the [`Asker`] hears of it. Its
    /// position, if it stays there.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn let_in(&mut self, token: u64, event: &EventOf<L>) -> Result<Position, Refused> {
        self.let_in_behind(token, None, event)
    }

    /// The same for what an operator wants: who asked for it comes into the log right in front of it, unless a
    /// member is [too old](Self::too_old_for_administration) for such an event.
    ///
    /// # Errors
    ///
    /// [`Refused`]; then neither is in the log.
    pub fn let_in_asked(
        &mut self,
        token: u64,
        asked: &Administration,
        event: &EventOf<L>,
    ) -> Result<Position, Refused> {
        self.let_in_behind(token, self.sayable(asked), event)
    }

    fn let_in_behind(
        &mut self,
        token: u64,
        asked: Option<&Administration>,
        event: &EventOf<L>,
    ) -> Result<Position, Refused> {
        match self
            .member
            .as_mut()
            .filter(|_| self.shared.fault().is_none())
        {
            Some(member) => member.let_in(token, asked, event),
            None => Err(Refused::NotLeading { leader: None }),
        }
    }

    /// Whether events are let in: it leads, and all of the log in front of the door is applied or on
    /// its way.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let stand = self.replica.stand();
        self.member
            .as_ref()
            .is_some_and(|member| member.is_open() && member.is_of(&stand))
    }

    /// How many wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.member.as_ref().map_or(0, Member::waiting)
    }

    /// Hands leadership over to a voter that has caught up.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or that node cannot.
    pub fn transfer_to(&mut self, to: NodeId) -> Result<(), OfferError> {
        self.replica.transfer_to(to)
    }

    /// Hands leadership over to the voter whose log is the furthest: whom it is being handed to. `None`: this
    /// node does not lead, or nobody has all that is committed yet; ask again in a later turn. Who did not take
    /// over within an election is asked again only where nobody else can.
    pub fn hand_over(&mut self) -> Option<NodeId> {
        let view = self.replica.view();
        if view.role != Role::Leader {
            self.asked = None;
            return None;
        }
        if view.handing_over.is_none() {
            let heir = self.heir()?;
            self.asked = Some(heir);
            if let Err(error) = self.transfer_to(heir) {
                tracing::warn!(%error, heir = heir.0, "no handing over");
            }
        }
        self.replica.view().handing_over
    }

    /// A node that is to end asks this in front of each turn: whether it may. A leader hands over first, and then
    /// waits until the others commit without it: who has just come may not be connected with all of them.
    pub fn leave(&mut self, now_ns: u64) -> bool {
        if self.replica.members().voters.len() < 2 {
            return true;
        }
        let view = self.replica.view();
        if view.role == Role::Leader {
            let _to = self.hand_over();
            self.leaving = None;
            self.has_led = true;
            return false;
        }
        if !self.has_led {
            return true;
        }
        let tick_ns = self.replica.options().tick_ns;
        let leaving = self
            .leaving
            .get_or_insert(Leaving::begin(now_ns, view.last));
        leaving.look(now_ns, tick_ns, view.committed, view.last)
    }

    /// Who is to lead behind this node: a voter that answers and misses nothing that is committed.
    fn heir(&self) -> Option<NodeId> {
        let (me, members) = (self.replica.options().node, self.replica.members());
        let committed = self.replica.view().committed;
        let able = self.replica.peers().filter(|peer| {
            peer.node != me
                && members.is_voter(peer.node)
                && peer.is_active
                && !peer.in_snapshot
                && peer.matched >= committed
        });
        let best = able.max_by_key(|peer| (self.asked != Some(peer.node), peer.matched));
        best.map(|peer| peer.node)
    }

    /// An operator's word on whether the other site is waited for: it counts on this leader at once, and
    /// enters the log when there is room, behind who said it.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or waits for no site.
    pub fn go_by(&mut self, word: Gating, asked: &Administration) -> Result<(), OfferError> {
        self.replica.go_by(word)?;
        let mut event = EventOf::<L>::event(&Membership::default());
        word.write_to(bytemuck::bytes_of_mut(&mut event));
        let asked = self.sayable(asked).copied();
        if let Some(member) = &mut self.member {
            member.decide(asked, event);
        }
        Ok(())
    }

    /// A peer says which versions of the logic's rules it can run.
    pub fn peer_runs(&mut self, peer: NodeId, versions: RangeInclusive<u32>) {
        self.can_run.insert(peer, versions);
    }

    /// A peer says which generation of the engine's own kinds of events it knows.
    pub fn peer_knows(&mut self, peer: NodeId, generation: u8) {
        self.knows.insert(peer, generation);
    }

    /// A member that has said that its build knows the engine's own kinds up to an older generation only.
    fn older_member(&self, generation: u8) -> Option<NodeId> {
        let is_older = |node: &NodeId| {
            self.knows
                .get(node)
                .is_some_and(|known| *known < generation)
        };
        self.replica.members().all().into_iter().find(is_older)
    }

    /// A member that has said that its build is from before [`Administration`]: while there is one, the log
    /// does not say who asked for a change (`SY3`).
    #[must_use]
    pub fn too_old_for_administration(&self) -> Option<NodeId> {
        self.older_member(KNOWS_ADMINISTRATION)
    }

    /// Who asked, as far as the log may say it (`SY3`).
    fn sayable<'a>(&self, asked: &'a Administration) -> Option<&'a Administration> {
        let Some(old) = self.too_old_for_administration() else {
            return Some(asked);
        };
        tracing::warn!(
            ?asked,
            node = old.0,
            "the log does not say who asked for this: that node's build does not know such events; upgrade it"
        );
        None
    }

    /// Whether every member that has said so knows the events in which a principal has a name (`SY3`).
    pub(crate) fn knows_principals(&self) -> bool {
        self.older_member(KNOWS_PRINCIPALS).is_none()
    }

    /// The version of the logic's rules that the state is in.
    #[must_use]
    pub fn version(&self) -> u32 {
        u32::try_from(self.shared.version.get()).unwrap_or(u32::MAX)
    }

    /// Whether the log may go to this version of the logic's rules: every member says that it can run it.
    ///
    /// # Errors
    ///
    /// [`NoSwitch`], which says who cannot.
    pub fn check_version(&self, version: u32) -> Result<(), NoSwitch> {
        if !self.is_open() {
            return Err(NoSwitch::NotLeading);
        }
        let now = self.version();
        if version <= now {
            return Err(NoSwitch::Back { version, now });
        }
        let me = self.replica.options().node;
        for node in self.replica.members().all() {
            let runs = match self.can_run.get(&node) {
                _ if node == me => L::VERSIONS,
                Some(runs) => runs.clone(),
                None => return Err(NoSwitch::Silent { node }),
            };
            if !runs.contains(&version) {
                let (oldest, newest) = runs.into_inner();
                return Err(NoSwitch::CannotRun {
                    node,
                    version,
                    oldest,
                    newest,
                });
            }
        }
        Ok(())
    }

    /// Lets the event in by which every node goes to this version of the logic's rules, at its position.
    ///
    /// # Errors
    ///
    /// [`NoSwitch`]
    pub fn switch_version(&mut self, token: u64, version: u32) -> Result<Position, NoSwitch> {
        self.check_version(version)?;
        let event = EventOf::<L>::event(&VersionSwitch { version, spare: 0 });
        self.let_in(token, &event).map_err(NoSwitch::Refused)
    }

    /// The agreement, to look at.
    #[must_use]
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The agreement, for what an operator asks of it.
    pub fn replica_mut(&mut self) -> &mut Replica<S> {
        &mut self.replica
    }

    /// Everything before it is in the state.
    #[must_use]
    pub fn applied(&self) -> Position {
        Position(self.shared.applied.get())
    }

    /// Everything before it is answered: its outputs have left.
    #[must_use]
    pub fn answered(&self) -> Position {
        Position(self.shared.answered.get())
    }

    /// What the stages of the present ring count.
    pub(crate) fn count(&self, rows: &mut Rows, values: &mut Vec<u64>) {
        let Some((probe, ledger)) = self.member.as_ref().and_then(Member::probe) else {
            // The ring is gone: the node has failed, which the row behind all others says.
            let last = rows.names().len() - 1;
            values.extend(std::iter::repeat_n(0, last));
            values.push(1);
            return;
        };
        let journal = self.replica.journal().counters();
        self.shared.durable.set(self.replica.durable().0);
        self.shared.syncs.set(journal.syncs);
        self.shared.last_sync_ns.set(journal.last_sync_ns);
        values.extend_from_slice(rows.look(&probe, ledger, &self.shared));
    }

    /// The rows that [`count`](Self::count) fills; `None` once it has failed.
    pub(crate) fn rows(&self) -> Option<Rows> {
        let (probe, _) = self.member.as_ref().and_then(Member::probe)?;
        Some(Rows::of(&probe))
    }

    /// The caller is about to sleep, with all answers taken that it knows of: whether there are more.
    pub(crate) fn set_alarm(&self) -> bool {
        self.member.as_ref().is_some_and(Member::set_alarm)
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Outputs from now on, whoever leads: a follower's logic is hot.
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

    /// Asks for a look at the state between two events, once everything before `position` is applied;
    /// the answer comes with turns.
    ///
    /// # Errors
    ///
    /// The node stopped.
    pub fn look<R: Send + 'static>(
        &self,
        position: Position,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<std::sync::mpsc::Receiver<R>> {
        let sent = self.mailbox.send(position.0, look);
        sent.ok_or_else(|| stopped(&self.shared))
    }

    /// The kept reply to a client's request; as [`look`](Self::look).
    ///
    /// # Errors
    ///
    /// The node stopped.
    pub fn reply(
        &self,
        session: u64,
        request: u32,
    ) -> Result<std::sync::mpsc::Receiver<Option<Reply>>> {
        self.look(Position(0), move |core| {
            core.requests().reply(session, request)
        })
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.shared.fault().map(str::to_owned)
    }

    /// Ends in order: who waits hears of it, the journal says that it was closed.
    ///
    /// # Errors
    ///
    /// It had failed, or the journal does.
    pub fn close(mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<()> {
        drop(self.shadowing.take());
        let member = self.member.take();
        let ended = member.map(|member| member.end(asker)).transpose();
        self.shared.close();
        if let Some(cause) = self.shared.fault() {
            return Err(Error::Stopped {
                cause: cause.to_owned(),
            });
        }
        let kept = ended?;
        self.mailbox.close();
        drop(kept);
        Ok(self.replica.close()?)
    }
}

/// Rebuilds a state while the node runs, from a reader of its own.
fn rebuild<L: Logic, S: Storage>(
    storage: &S,
    replica: &Replica<S>,
    factory: &Factory<L>,
    config: &Config,
) -> Result<Rebuild<L>> {
    let mut reader = replica.reader(From::Oldest)?;
    let (storage, factory, config) = (storage.clone(), Arc::clone(factory), config.clone());
    let (journal, first_end) = (replica.journal(), *replica.tail());
    let (log, progress) = (journal.log_id(), journal.progress());
    Ok(Box::new(move |until, skip| {
        let reached = progress.durable();
        if reached.position < until {
            return Ok(None);
        }
        let oldest = crate::log::oldest(&mut reader, Position(0))?;
        let mut source = Source {
            storage: &storage,
            reader: &mut reader,
            factory: &factory,
            log,
            end: Tail {
                reached: reached.max(first_end.reached),
                ..first_end
            },
            oldest,
            config: &config,
            // What went by here without a mark did not panic.
            unmarked: Unmarked::Refused,
        };
        Ok(Some(source.make(until, skip, None, &mut [])?.core))
    }))
}

/// An event of this body, as a client's request.
#[must_use]
pub fn request<E: Slot, B: crate::event::Body>(session: u64, request: u32, body: &B) -> E {
    let mut event = E::event(body);
    event.header_mut().session = session;
    event.header_mut().request = request;
    event
}
