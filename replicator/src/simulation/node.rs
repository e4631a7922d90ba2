//! One process of a simulated cluster: what the simulator drives, and the model's own.

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{From, Options, Position, Reader};

use super::model::{ADD, Event, Model, OPEN, Reply};
use crate::ids::NodeId;
use crate::members::Change;
use crate::replica::{Mutation, OfferError, ReceiveError, Replica, ReplicaOptions};
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

    /// Before this position the logic has applied everything.
    fn applied(&self) -> Position;

    /// Of the logic's state, which the events before [`applied`](Self::applied) have made.
    fn state_hash(&self) -> u64;
}

/// The model on a replica.
#[derive(Debug)]
pub struct ModelNode {
    replica: Replica<Simulated>,
    model: Model,
    reader: Option<Reader<Simulated>>,
    /// Read, and beyond the gate yet: first position and events.
    next: Option<(u64, Vec<Event>)>,
    cuts: u64,
    applied: Position,
    asked: Vec<Event>,
    replies: Vec<Reply>,
}

/// Events of one frame at most.
const FRAME_EVENTS: usize = 5;

impl ModelNode {
    fn new(replica: Replica<Simulated>) -> Result<ModelNode, String> {
        let mutation = replica.options().mutation;
        let model = if mutation == Some(Mutation::SkipDeduplication) {
            Model::default().forgetting_requests()
        } else {
            Model::default()
        };
        let mut node = ModelNode {
            cuts: replica.cuts(),
            replica,
            model,
            reader: None,
            next: None,
            applied: Position(0),
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
            let Some((first, events)) = self.next.take() else {
                return Ok(());
            };
            if first + events.len() as u64 > gate.0 {
                self.next = Some((first, events));
                return Ok(());
            }
            let answers = self.replica.view().role == crate::consensus::Role::Leader;
            for (position, event) in (first..).zip(&events) {
                let reply = self.model.apply(position, event);
                self.replies.extend(reply.filter(|_| answers));
            }
            self.applied = Position(first + events.len() as u64);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(u64, Vec<Event>)>, String> {
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
                return Ok(Some((frame.first_position().0, events.to_vec())));
            }
        }
        Ok(None)
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
        ModelNode::new(created.map_err(|error| error.to_string())?.0)
    }

    fn open(setup: &Setup) -> Result<ModelNode, String> {
        let opened = Replica::open(setup.storage.clone(), &setup.journal, &setup.replica);
        ModelNode::new(opened.map_err(|error| error.to_string())?.0)
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

    fn applied(&self) -> Position {
        self.applied
    }

    fn state_hash(&self) -> u64 {
        self.model.hash()
    }
}
