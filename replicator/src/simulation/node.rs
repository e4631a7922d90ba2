//! One process of a simulated cluster: what the simulator drives, and the model's own.

use lockstep_journaler::retention::{self, Needs, Plan};
use lockstep_journaler::snapshots::{KEEP_MIN, Manifest, SnapshotOf, Snapshots};
use lockstep_journaler::storage::Simulated;
use lockstep_journaler::tools::{Catalog, ToolError};
use lockstep_journaler::{From, Options, Position, Reader, Term};

use super::model::{ADD, EVENTS, Event, Model, OPEN, Reply};
use crate::ids::NodeId;
use crate::members::Change;
use crate::replica::{Mutation, OfferError, Opened, ReceiveError, Replica, ReplicaOptions};
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

    /// Of the logic's state, which the events before [`applied`](Self::applied) have made.
    fn state_hash(&self) -> u64;
}

/// The model on a replica.
#[derive(Debug)]
pub struct ModelNode {
    storage: Simulated,
    replica: Replica<Simulated>,
    model: Model,
    reader: Option<Reader<Simulated>>,
    /// Read, and beyond the gate yet: index, first position and events.
    next: Option<(u64, u64, Vec<Event>)>,
    cuts: u64,
    applied: Position,
    /// The index of the frame in front of that position.
    applied_index: u64,
    asked: Vec<Event>,
    replies: Vec<Reply>,
}

/// Events of one frame at most.
const FRAME_EVENTS: usize = 5;

impl ModelNode {
    fn new(
        setup: &Setup,
        (replica, opened): (Replica<Simulated>, Opened),
    ) -> Result<ModelNode, String> {
        let storage = setup.storage.clone();
        let mutation = replica.options().mutation;
        let (mut model, mut start) = (Model::default(), (Position(0), 0));
        if mutation == Some(Mutation::SkipDeduplication) {
            model = model.forgetting_requests();
        }
        let is_of_log = |manifest: &Manifest| {
            manifest.reached.position <= opened.committed
                && replica.index().chain_at(manifest.index) == Some(manifest.chain)
        };
        let loaded = Snapshots::new(storage.clone()).load_newest(is_of_log, 1);
        let (loaded, rejected) = loaded.map_err(|error| error.to_string())?;
        match loaded {
            Some(loaded) => {
                let state = Model::from_bytes(&loaded.parts.concat());
                model = state.ok_or("the bytes of a snapshot are no state")?;
                start = (loaded.manifest.reached.position, loaded.manifest.index);
            }
            None if opened.journal.oldest > Position(0) => {
                let oldest = opened.journal.oldest;
                return Err(format!(
                    "the log begins at {oldest}, no state: {rejected:?}"
                ));
            }
            None => {}
        }
        let mut node = ModelNode {
            storage,
            cuts: replica.cuts(),
            replica,
            model,
            reader: None,
            next: None,
            applied: start.0,
            applied_index: start.1,
            asked: Vec::new(),
            replies: Vec::new(),
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
        let durable = self.replica.durable();
        let gate = match self.replica.options().mutation {
            Some(Mutation::LogicBeforeGate) => durable,
            _ => durable.min(self.replica.committed()),
        };
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
            let answers = self.replica.view().role == crate::consensus::Role::Leader;
            for (position, event) in (first..).zip(&events) {
                let reply = self.model.apply(position, event);
                self.replies.extend(reply.filter(|_| answers));
            }
            self.applied = Position(first + events.len() as u64);
            self.applied_index = index;
        }
        Ok(())
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
            if !events.is_empty() {
                let (index, first) = (frame.header().index, frame.first_position().0);
                return Ok(Some((index, first, events.to_vec())));
            }
        }
        Ok(None)
    }

    /// The state, as it is behind the last frame that was applied.
    fn save(&self) -> Option<Manifest> {
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
                // Never framed, never answered: the clients ask again.
                Ok(_) | Err(OfferError::NotNow(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
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
        let begun = self.replica.begin(now_ns, out);
        begun.map_err(|fatal| fatal.to_string())?;
        self.run_logic()
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

    fn state_hash(&self) -> u64 {
        self.model.hash()
    }
}
