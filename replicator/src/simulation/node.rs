//! One process of a simulated cluster: what the simulator drives, and the model's own.
//!
//! Where the plan says so, the model's logic runs ahead of its gate while it leads:
//!
//! ```text
//!   offered ─► applied at once ─► its answers are held ─► committed and durable ─► they leave
//!                                        │ another leads
//!                                        └► held answers are forgotten, the state is made anew
//!                                           from snapshot and log, as far as it was promised
//! ```
//!
//! # Invariants
//!
//! * `RA1` Only what this leader offered in this term is applied ahead; a follower applies nothing ahead.
//! * `RA2` An answer leaves when its event is committed and durable, and in the term that applied it.
//! * `RA3` How far a state is kept is what was promised while this node led: what is committed later at
//!   the same positions may be other events.

use std::collections::VecDeque;

use lockstep_journaler::retention::{self, Needs, Plan};
use lockstep_journaler::snapshots::{KEEP_MIN, Manifest, SnapshotOf, Snapshots};
use lockstep_journaler::storage::Simulated;
use lockstep_journaler::tools::{Catalog, ToolError};
use lockstep_journaler::{From, Options, Position, Reader, Term};

use super::model::{ADD, EVENT_BYTES, EVENTS, Event, Model, OPEN, Reply};
use super::quarantining::Quarantining;
use crate::consensus::Role;
use crate::ids::NodeId;
use crate::members::Change;
use crate::replica::{
    Forced, Mutation, OfferError, Opened, ReceiveError, Replica, ReplicaOptions, StartError,
    force_single,
};
use crate::sites::Gating;
use crate::wire::Message;

/// What a process is started from; all of it survives the process.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its disk.
    pub storage: Simulated,
    /// Of its journal.
    pub journal: Options,
    /// Of its part in the cluster.
    pub replica: ReplicaOptions,
    /// Whether the model's logic runs ahead of its gate while it leads.
    pub runs_ahead: bool,
    /// Whether the model's logic panics where no other does.
    pub panics_alone: bool,
}

/// What a client asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub client: u64,
    /// In which session; 0 opens one.
    pub session: u64,
    /// Which request of the session; the client's own word where one is opened.
    pub number: u32,
    /// Which register.
    pub register: u64,
    /// How much is added.
    pub amount: i64,
}

/// What a node says to a request at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It will be answered, or never.
    Taken,
    /// Ask this one, or any.
    NotLeader(Option<NodeId>),
    /// Ask again.
    Busy,
}

/// A process that the simulator can drive: a replica, and what stands on it.
///
/// Time is the node's own: `now_ns` is its monotone clock, `wall_ns` the one that may jump.
pub trait Node: Sized {
    /// Makes a node on an empty disk.
    ///
    /// # Errors
    ///
    /// Why it will not start.
    fn create(setup: &Setup) -> Result<Self, String>;

    /// Starts a node on what its disk has.
    ///
    /// # Errors
    ///
    /// Why it will not start.
    fn open(setup: &Setup) -> Result<Self, String>;

    /// Makes the node on this disk the only member, in the epoch of its options.
    ///
    /// # Errors
    ///
    /// Why it will not.
    fn force(setup: &Setup, time_ns: u64) -> Result<Forced, StartError> {
        let (storage, word) = (setup.storage.clone(), [0; EVENT_BYTES as usize]);
        let (journal, replica) = (&setup.journal, &setup.replica);
        force_single(storage, journal, replica, &word, &word, time_ns)
    }

    /// Its part in the cluster, for the checkers.
    fn replica(&self) -> &Replica<Simulated>;

    /// The same, for connections and administration.
    fn replica_mut(&mut self) -> &mut Replica<Simulated>;

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// Why not.
    fn receive(&mut self, message: &Message) -> Result<(), ReceiveError>;

    /// The first half of a turn: requests are cut into frames, and what does not wait for the disk is said.
    ///
    /// # Errors
    ///
    /// The node is at its end.
    fn begin(
        &mut self,
        now_ns: u64,
        wall_ns: u64,
        out: &mut Vec<(NodeId, Message)>,
    ) -> Result<(), String>;

    /// The second half: write, sync, and say what waited for it; then the logic runs as far as it may.
    ///
    /// # Errors
    ///
    /// The node is at its end.
    fn persist(&mut self, out: &mut Vec<(NodeId, Message)>) -> Result<(), String>;

    /// A client asks.
    fn request(&mut self, request: Request) -> Admitted;

    /// What clients are told since the last time.
    fn replies(&mut self) -> Vec<Reply>;

    /// An operator asks for a change of members.
    ///
    /// # Errors
    ///
    /// Why not.
    fn change(&mut self, change: Change, wall_ns: u64) -> Result<(), OfferError>;

    /// An operator says whether the other site is waited for.
    ///
    /// # Errors
    ///
    /// Why not.
    fn go_by(&mut self, word: Gating, wall_ns: u64) -> Result<(), OfferError>;

    /// Takes a snapshot, keeps two, and gives up the log behind them.
    fn take_snapshot(&mut self);

    /// Before this position the logic has applied everything.
    fn applied(&self) -> Position;

    /// Before this position all that is applied is committed and durable here: what lies between the two
    /// may have to be taken back.
    fn promised(&self) -> Position {
        self.applied()
    }

    /// The event in front of which the logic stands, since it panics on it.
    fn standing(&self) -> Option<Position> {
        None
    }

    /// Whether it stands there alone: it is going to stop by name, and that is right.
    fn stands_alone(&self) -> bool {
        false
    }

    /// Of the logic's state, which the events before [`applied`](Self::applied) have made.
    fn state_hash(&self) -> u64;
}

/// The model on a replica.
#[derive(Debug)]
pub struct ModelNode {
    storage: Simulated,
    pub(super) replica: Replica<Simulated>,
    pub(super) model: Model,
    reader: Option<Reader<Simulated>>,
    /// Read, and beyond the gate yet: index, first position and events.
    next: Option<(u64, u64, Vec<Event>)>,
    cuts: u64,
    pub(super) applied: Position,
    /// The index of the frame in front of that position.
    applied_index: u64,
    asked: Vec<Event>,
    replies: Vec<Reply>,
    runs_ahead: bool,
    ahead: Option<Ahead>,
    pub(super) quarantining: Quarantining,
}

/// What the state has that may have to be taken back.
#[derive(Debug)]
struct Ahead {
    /// In which this node leads and applies what it offers.
    term: u64,
    /// Before it everything is committed and durable.
    promised: Position,
    /// Answers to what lies behind it.
    held: VecDeque<Reply>,
}

/// A state, the position behind it, and the index of the frame in front of that.
type Loaded = (Model, Position, u64);

/// Events of one frame at most.
const FRAME_EVENTS: usize = 5;

impl ModelNode {
    fn new(
        setup: &Setup,
        (replica, opened): (Replica<Simulated>, Opened),
    ) -> Result<ModelNode, String> {
        let storage = setup.storage.clone();
        let oldest = opened.journal.oldest;
        let (model, applied, applied_index) = load(&storage, &replica, opened.committed, oldest)?;
        let mut node = ModelNode {
            storage,
            cuts: replica.cuts(),
            replica,
            model,
            reader: None,
            next: None,
            applied,
            applied_index,
            asked: Vec::new(),
            replies: Vec::new(),
            runs_ahead: setup.runs_ahead,
            ahead: None,
            quarantining: Quarantining::new(setup.panics_alone),
        };
        node.run_logic()?;
        node.replies.clear();
        Ok(node)
    }

    /// The logic, as far as both promises go (`R3`).
    fn run_logic(&mut self) -> Result<(), String> {
        if self.cuts != self.replica.cuts() {
            self.cuts = self.replica.cuts();
            (self.reader, self.next) = (None, None);
        }
        self.settle()?;
        let gate = match self.replica.options().mutation {
            Some(Mutation::LogicBeforeGate) => self.replica.durable(),
            _ => self.both(),
        };
        self.run_to(gate, self.replica.view().role == Role::Leader)
    }

    pub(super) fn both(&self) -> Position {
        self.replica.durable().min(self.replica.committed())
    }

    fn run_to(&mut self, gate: Position, answers: bool) -> Result<(), String> {
        // Ends: each turn applies a frame, or returns.
        while self.applied < gate {
            if self.next.is_none() {
                self.next = self.read()?;
            }
            let Some((index, first, events)) = self.next.take() else {
                return Ok(());
            };
            if first + events.len() as u64 > gate.0 {
                self.next = Some((index, first, events));
                return Ok(());
            }
            let before = self.before_a_panic(first, &events)?;
            let replies = self.apply(first, &events[..before]);
            self.replies.extend(replies.into_iter().filter(|_| answers));
            if before < events.len() {
                self.next = Some((index, first + before as u64, events[before..].to_vec()));
                return Ok(());
            }
            self.applied_index = index;
        }
        Ok(())
    }

    fn apply(&mut self, first: u64, events: &[Event]) -> Vec<Reply> {
        let run = (first..).zip(events);
        let replies = run.filter_map(|(position, event)| self.model.apply(position, event));
        let replies = replies.collect();
        self.applied = Position(first + events.len() as u64);
        replies
    }

    /// What was offered is applied at once, if everything in front of it is (`RA1`).
    fn run_ahead(&mut self, offered: Position, events: &[Event]) {
        let view = self.replica.view();
        let is_next = view.role == Role::Leader && offered == self.applied;
        let is_of_term = |ahead: &Ahead| ahead.term == view.term;
        if !self.runs_ahead || !is_next || !self.ahead.as_ref().is_none_or(is_of_term) {
            return;
        }
        if self.before_a_panic(offered.0, events) != Ok(events.len()) {
            // It is to stand there, and that is not for who runs ahead.
            self.quarantining.stand(None, false);
            return;
        }
        let replies = self.apply(offered.0, events);
        if self.replica.options().mutation == Some(Mutation::OutputBeforeItsGate) {
            self.replies.extend(&replies);
        }
        let ahead = self.ahead.get_or_insert(Ahead {
            term: view.term,
            promised: offered,
            held: VecDeque::new(),
        });
        ahead.held.extend(replies);
    }

    /// What was applied ahead is promised by now, or is never going to be by this leader.
    fn settle(&mut self) -> Result<(), String> {
        let (view, both) = (self.replica.view(), self.both());
        let Some(ahead) = &mut self.ahead else {
            return Ok(());
        };
        if view.role == Role::Leader && view.term == ahead.term {
            // RA2
            ahead.promised = ahead.promised.max(both.min(self.applied));
            let (held, promised) = (&mut ahead.held, ahead.promised.0);
            let left = held.partition_point(|reply| reply.position < promised);
            self.replies.extend(held.drain(..left));
            if ahead.promised == self.applied {
                self.applied_index = self.replica.index().index_reaching(self.applied);
                (self.ahead, self.reader, self.next) = (None, None, None);
            }
            return Ok(());
        }
        // RA3
        let promised = ahead.promised;
        (self.ahead, self.reader, self.next) = (None, None, None);
        if self.replica.options().mutation == Some(Mutation::KeepsAStateThatDidNotCommit) {
            return Ok(());
        }
        let oldest = self.replica.index().base().reached.position;
        (self.model, self.applied, self.applied_index) =
            load(&self.storage, &self.replica, promised, oldest)?;
        self.run_to(promised, false)?;
        if self.applied == promised {
            Ok(())
        } else {
            Err(format!(
                "the state was to be made anew up to {promised}, and ends at {}",
                self.applied
            ))
        }
    }

    fn read(&mut self) -> Result<Option<(u64, u64, Vec<Event>)>, String> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let reader = self.replica.reader(From::Position(self.applied));
                none.insert(reader.map_err(|error| error.to_string())?)
            }
        };
        // Ends: at the durable end, or at a frame with events.
        while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
            let events = frame.events::<Event>().map_err(|error| error.to_string())?;
            let (index, first) = (frame.header().index, frame.first_position().0);
            // Of a frame in the midst of which the logic stood, what is applied is not applied again.
            let applied = usize::try_from(self.applied.0.saturating_sub(first)).unwrap_or(0);
            if applied < events.len() {
                let (events, first) = (&events[applied..], first + applied as u64);
                return Ok(Some((index, first, events.to_vec())));
            }
        }
        Ok(None)
    }

    /// The state, as it is behind the last frame that was applied.
    fn save(&self) -> Option<Manifest> {
        if self.ahead.is_some() {
            return None;
        }
        let tail = self.replica.index().tail_at(self.applied_index)?;
        if tail.index == 0 || tail.reached.position != self.applied {
            return None;
        }
        let of = SnapshotOf {
            log: self.replica.journal().log_id(),
            reached: tail.reached,
            index: tail.index,
            term: Term(tail.term),
            chain: tail.chain,
            time_ns: tail.time_ns,
            schema_version: EVENTS.version,
            schema_hash: EVENTS.hash(),
            build: "simulated".to_owned(),
        };
        let mut writer = Snapshots::new(self.storage.clone()).create(of).ok()?;
        writer.write(&self.model.to_bytes()).ok()?;
        writer.finish(self.model.hash()).ok()
    }

    /// Keeps two snapshots that hold, and what is being fetched; gives up the log in front of them.
    fn give_up(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let snapshots = Snapshots::new(self.storage.clone());
        let lent = self.replica.lent();
        let mut kept = Vec::new();
        for listed in snapshots.list()? {
            let at = listed.position;
            if kept.len() < KEEP_MIN && snapshots.verify(at, 1).is_ok() {
                kept.push(at);
            } else if lent != Some(at) {
                snapshots.remove(at)?;
            }
        }
        let oldest = kept.last().filter(|_| kept.len() >= KEEP_MIN);
        let Some(oldest) = oldest.copied().map(|own| own.min(lent.unwrap_or(own))) else {
            return Ok(());
        };
        let compacted = self.replica.compact(oldest);
        let needs = Needs {
            snapshot: Some(oldest),
            ..Needs::default()
        };
        let plan = retention::plan(&Catalog::read(&self.storage)?, &needs);
        let may_go = |leaving: &&retention::Leaving| leaving.end_position < compacted;
        let remove = plan.remove.iter().take_while(may_go).copied().collect();
        let retainer = self.replica.journal().retainer();
        let refused = |error| ToolError::Io {
            operation: "writing",
            name: "journal.meta".to_owned(),
            source: std::io::Error::other(error),
        };
        let give_up = |first| retainer.give_up_before(first).map_err(refused);
        let plan = Plan { remove, ..plan };
        Ok(retention::apply(
            &self.storage,
            &plan,
            give_up,
            &mut |_, _| (),
        )?)
    }

    fn offer_asked(&mut self, wall_ns: u64) -> Result<(), String> {
        let asked = std::mem::take(&mut self.asked);
        for events in asked.chunks(FRAME_EVENTS) {
            match self
                .replica
                .offer([bytemuck::cast_slice(events), &[]], wall_ns)
            {
                Ok(position) => self.run_ahead(position, events),
                // Never framed, never answered: the clients ask again.
                Err(OfferError::NotNow(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// The newest state that a snapshot has of this log, not behind `until`.
fn load(
    storage: &Simulated,
    replica: &Replica<Simulated>,
    until: Position,
    oldest: Position,
) -> Result<Loaded, String> {
    let is_of_log = |manifest: &Manifest| {
        manifest.reached.position <= until
            && replica.index().chain_at(manifest.index) == Some(manifest.chain)
    };
    let loaded = Snapshots::new(storage.clone()).load_newest(is_of_log, 1);
    let (loaded, rejected) = loaded.map_err(|error| error.to_string())?;
    if let Some(loaded) = loaded {
        let model = Model::from_bytes(&loaded.parts.concat());
        let model = model.ok_or("the bytes of a snapshot are no state")?;
        let Manifest { reached, index, .. } = loaded.manifest;
        return Ok((model, reached.position, index));
    }
    if oldest > Position(0) {
        return Err(format!(
            "the log begins at {oldest}, no state: {rejected:?}"
        ));
    }
    let mut model = Model::default();
    if replica.options().mutation == Some(Mutation::SkipDeduplication) {
        model = model.forgetting_requests();
    }
    Ok((model, Position(0), 0))
}

impl Node for ModelNode {
    fn create(setup: &Setup) -> Result<ModelNode, String> {
        let created = Replica::create(setup.storage.clone(), &setup.journal, &setup.replica);
        ModelNode::new(setup, created.map_err(|error| error.to_string())?)
    }

    fn open(setup: &Setup) -> Result<ModelNode, String> {
        let opened = Replica::open(setup.storage.clone(), &setup.journal, &setup.replica);
        ModelNode::new(setup, opened.map_err(|error| error.to_string())?)
    }

    fn replica(&self) -> &Replica<Simulated> {
        &self.replica
    }

    fn replica_mut(&mut self) -> &mut Replica<Simulated> {
        &mut self.replica
    }

    fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        self.replica.receive(message)
    }

    fn begin(
        &mut self,
        now_ns: u64,
        wall_ns: u64,
        out: &mut Vec<(NodeId, Message)>,
    ) -> Result<(), String> {
        self.offer_asked(wall_ns)?;
        self.offer_mark(wall_ns)?;
        let begun = self.replica.begin(now_ns, out);
        begun.map_err(|fatal| fatal.to_string())?;
        self.run_logic()?;
        self.talk_of_panics()
    }

    fn persist(&mut self, out: &mut Vec<(NodeId, Message)>) -> Result<(), String> {
        let persisted = self.replica.persist(out);
        persisted.map_err(|fatal| fatal.to_string())?;
        self.replica.step_background();
        self.run_logic()
    }

    fn request(&mut self, request: Request) -> Admitted {
        if self.asked.len() >= 64 {
            return Admitted::Busy;
        }
        if !self.replica.is_ready_to_lead() {
            return Admitted::NotLeader(self.replica.view().leader);
        }
        self.asked.push(Event {
            time: 0,
            session: request.session,
            request: request.number,
            kind: if request.session == 0 { OPEN } else { ADD },
            version: 0,
            client: request.client,
            register: request.register,
            amount: request.amount,
            rest: [0; 2],
        });
        Admitted::Taken
    }

    fn replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    fn change(&mut self, change: Change, wall_ns: u64) -> Result<(), OfferError> {
        let mut event = [0; size_of::<Event>()];
        change.write_to(&mut event);
        self.replica.offer_change(&event, wall_ns).map(drop)
    }

    fn go_by(&mut self, word: Gating, wall_ns: u64) -> Result<(), OfferError> {
        let mut event = [0; size_of::<Event>()];
        word.write_to(&mut event);
        self.replica.offer_change(&event, wall_ns).map(drop)
    }

    fn take_snapshot(&mut self) {
        if let Some(manifest) = self.save() {
            self.replica.offer_snapshot(&manifest);
        }
        // What fails removes nothing further, and is tried again behind the next one.
        let _failed = self.give_up();
    }

    fn applied(&self) -> Position {
        self.applied
    }

    fn promised(&self) -> Position {
        let ahead = self.ahead.as_ref();
        ahead.map_or(self.applied, |ahead| ahead.promised)
    }

    fn standing(&self) -> Option<Position> {
        self.quarantining.standing
    }

    fn stands_alone(&self) -> bool {
        self.quarantining.stands_alone
    }

    fn state_hash(&self) -> u64 {
        self.model.hash()
    }
}
