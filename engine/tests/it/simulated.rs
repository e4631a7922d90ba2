//! The whole node in the simulator of the replicator: its clock, network and disks, its faults, its
//! checkers, and the engine's rings, gates, logic and answers.
//!
//! The logic is the simulator's own model, so that its checkers can hold every state and every reply
//! against it; sessions and repeats are the model's too. What the engine itself does about sessions
//! is in `cluster`.

use lockstep_engine::cluster::{Asker, ClusterNode, Done, NodeOptions, Refused};
use lockstep_engine::event::{Kinds, schema_kind};
use lockstep_engine::prelude::*;
use lockstep_engine::schema::Schema;
use lockstep_engine::system::{Membership, schema_of};
use lockstep_engine::{Clock, Config, Retention};
use lockstep_journaler::Background;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::simulation::model::{self, ADD, Answer, OPEN, Reply};
use lockstep_replicator::simulation::{Admitted, Node, Plan, Request, Setup, run_seed_of};
use lockstep_replicator::wire::Message;
use lockstep_replicator::{Change, Gating, NodeId, OfferError, ReceiveError, Replica};

/// The model's event as a slot.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
struct Word(model::Event);
impl Slot for Word {}

bodies! {
    /// Of the model's events, for the journal's schema: the model reads the whole slot.
    Opening, kind 1, version 1: { client: u64, register: u64, amount: i64 }
    /// The same.
    Adding, kind 2, version 1: { client: u64, register: u64, amount: i64 }
    /// What the model answers, as an output.
    Said, kind 101, version 1: {
        client: u64, session: u64, request: u32, answer: u32, at: u64, value: i64
    }
}

const _: () = assert!(Opening::KIND == OPEN && Adding::KIND == ADD);

#[derive(Debug)]
enum Words {}

impl Kinds for Words {
    type Slot = Word;
    type View<'a> = &'a Word;
    const VERSIONS: &'static [(u16, u16)] = &[(OPEN, 1), (ADD, 1)];

    fn view(slot: &Word) -> Option<&Word> {
        Some(slot)
    }

    fn schema() -> Schema {
        let kinds = vec![
            schema_kind::<Word, Opening>(),
            schema_kind::<Word, Adding>(),
        ];
        schema_of::<Word>("test.words", 1, kinds)
    }

    fn version_of(kind: u16) -> Option<u16> {
        [OPEN, ADD].contains(&kind).then_some(1)
    }
}

/// The model as a logic.
#[derive(Default)]
struct Registers {
    model: model::Model,
    /// Everything before it is in the model.
    next: u64,
}

impl Registers {
    /// Changes of members are the engine's own and never come to a logic; the simulator's model
    /// counts them like any event that does nothing.
    fn pass_over(model: &mut model::Model, next: u64, until: u64) {
        let event = model::Event {
            kind: Membership::KIND,
            ..bytemuck::Zeroable::zeroed()
        };
        for position in next..until {
            model.apply(position, &event);
        }
    }

    /// The hash of everything before `until`.
    fn hash(&self, until: Position) -> u64 {
        let mut model = self.model.clone();
        Self::pass_over(&mut model, self.next, until.0);
        model.hash()
    }
}

impl State for Registers {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.next.save(out);
        self.model.to_bytes().save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let (next, bytes) = (u64::load(from)?, Vec::<u8>::load(from)?);
        let model = model::Model::from_bytes(&bytes).ok_or(LoadError::Own {
            what: "Registers",
            why: "its bytes are no model".to_owned(),
        })?;
        Ok(Self { model, next })
    }
}

impl Logic for Registers {
    type In = Words;
    type Out = Said;

    fn apply(&mut self, word: &Word, context: &Context, out: &mut Outputs<'_, Said>) {
        let position = context.position().0;
        Self::pass_over(&mut self.model, self.next, position);
        self.next = position + 1;
        let Some(reply) = self.model.apply(position, &word.0) else {
            return;
        };
        let (answer, at, value) = match reply.answer {
            Answer::Opened => (0, 0, 0),
            Answer::Done { at, value } => (1, at, value),
            Answer::Gone => (2, 0, 0),
            Answer::Unknown => (3, 0, 0),
        };
        out.emit(Said {
            client: reply.client,
            session: reply.session,
            request: reply.request,
            answer,
            at,
            value,
        });
    }
}

/// The engine's node, as the simulator drives it.
struct Whole {
    node: ClusterNode<Registers, Simulated>,
    clock: Clock,
    heard: Heard,
    token: u64,
    /// Where the logic was at the end of the last turn, and its hash.
    seen: (Position, u64),
}

#[derive(Default)]
struct Heard(Vec<Reply>);

impl Asker<Event64> for Heard {
    fn output(&mut self, _: u64, output: &Event64) {
        let said = output.body_as::<Said>();
        let answer = match said.answer {
            0 => Answer::Opened,
            1 => Answer::Done {
                at: said.at,
                value: said.value,
            },
            2 => Answer::Gone,
            _ => Answer::Unknown,
        };
        self.0.push(Reply {
            client: said.client,
            session: said.session,
            request: said.request,
            position: output.output().position,
            answer,
        });
    }

    fn done(&mut self, _: u64, _: Done) {}
    fn not_led(&mut self, _: u64) {}
    fn unknown(&mut self, _: u64) {}
}

impl Whole {
    fn start(setup: &Setup) -> Result<Self, String> {
        let clock = Clock::manual(0);
        let gives_up = setup.replica.settings.seed.is_multiple_of(2);
        let config = Config {
            slots: 64,
            output_slots: 64,
            segment_bytes: setup.journal.segment_bytes,
            // What the model does itself, and what would be events that it does not know.
            sessions_max: 0,
            session_replies: 0,
            session_expiry_ms: 0,
            beacon_every: 0,
            // Half of the seeds: the log is given up behind snapshots, and who lags gets one.
            snapshot_every: if gives_up { 20 } else { 0 },
            retention: if gives_up {
                Retention::Snapshots
            } else {
                Retention::Keep
            },
            ..Config::default()
        };
        let options = NodeOptions {
            config,
            clock: clock.clone(),
            background: Background::Stepped,
            frame_bytes_max: 5 * 64,
            ..NodeOptions::new(setup.replica.clone())
        };
        let node = ClusterNode::open(setup.storage.clone(), &options, Registers::default);
        let mut whole = Self {
            node: node.map_err(|error| error.to_string())?,
            clock,
            heard: Heard::default(),
            token: 0,
            seen: (Position(0), 0),
        };
        whole.seen = whole.hash()?;
        Ok(whole)
    }

    /// Asks the logic where it is, and gives the turn that answers.
    fn hash(&mut self) -> Result<(Position, u64), String> {
        let answer = self.ask_hash()?;
        let mut nobody = Vec::new();
        let persisted = self.node.persist(&mut nobody);
        persisted.map_err(|error| error.to_string())?;
        let turned = self.node.follow(&mut self.heard);
        turned.map_err(|error| error.to_string())?;
        answer.try_recv().map_err(|error| error.to_string())
    }

    fn ask_hash(&self) -> Result<std::sync::mpsc::Receiver<(Position, u64)>, String> {
        let look = self.node.look(Position(0), |core| {
            (core.position(), core.logic().hash(core.position()))
        });
        look.map_err(|error| error.to_string())
    }
}

impl Node for Whole {
    fn create(setup: &Setup) -> Result<Self, String> {
        Self::start(setup)
    }

    fn open(setup: &Setup) -> Result<Self, String> {
        Self::start(setup)
    }

    fn replica(&self) -> &Replica<Simulated> {
        self.node.replica()
    }

    fn replica_mut(&mut self) -> &mut Replica<Simulated> {
        self.node.replica_mut()
    }

    fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        self.node.receive(message)
    }

    fn begin(
        &mut self,
        now_ns: u64,
        wall_ns: u64,
        out: &mut Vec<(NodeId, Message)>,
    ) -> Result<(), String> {
        self.clock.set(wall_ns);
        let begun = self.node.begin(now_ns, out);
        begun.map(drop).map_err(|error| error.to_string())
    }

    fn persist(&mut self, out: &mut Vec<(NodeId, Message)>) -> Result<(), String> {
        let answer = self.ask_hash()?;
        self.node.persist(out).map_err(|error| error.to_string())?;
        let finished = self.node.follow(&mut self.heard);
        finished.map_err(|error| error.to_string())?;
        if let Ok(seen) = answer.try_recv() {
            self.seen = seen;
        }
        Ok(())
    }

    fn request(&mut self, request: Request) -> Admitted {
        let event = Word(model::Event {
            time: 0,
            session: request.session,
            request: request.number,
            kind: if request.session == 0 { OPEN } else { ADD },
            version: 1,
            client: request.client,
            register: request.register,
            amount: request.amount,
            rest: [0; 2],
        });
        self.token += 1;
        match self.node.let_in(self.token, &event) {
            Ok(_) => Admitted::Taken,
            Err(Refused::Busy) => Admitted::Busy,
            Err(Refused::NotLeading { leader }) => Admitted::NotLeader(leader),
        }
    }

    fn replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.heard.0)
    }

    fn change(&mut self, change: Change, _: u64) -> Result<(), OfferError> {
        if let Err(reason) = self.node.replica().members().check(change) {
            return Err(OfferError::Change { change, reason });
        }
        let mut event = Word::event(&Membership::default());
        change.write_to(bytemuck::bytes_of_mut(&mut event));
        self.token += 1;
        // A door that is closed is found out by whoever looks whether the change came.
        let _refused = self.node.let_in(self.token, &event);
        Ok(())
    }

    fn go_by(&mut self, word: Gating, _: u64) -> Result<(), OfferError> {
        self.node
            .go_by(word, &lockstep_engine::cluster::Administration::default())
    }

    /// Its shadow takes them by itself.
    fn take_snapshot(&mut self) {}

    fn applied(&self) -> Position {
        self.seen.0
    }

    fn state_hash(&self) -> u64 {
        self.seen.1
    }
}

#[test]
fn the_whole_node_keeps_the_simulators_rules() {
    let seeds = std::env::var("LOCKSTEP_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    // The last two are of two sites.
    let gated = (5..).filter(|&seed| Plan::of_seed(seed).has_sites).take(2);
    for seed in (1..=seeds.unwrap_or(4)).chain(gated) {
        // What becomes of an event on which a logic panics is in `cluster`.
        let plan = Plan {
            panics: false,
            // An engine is forced in `cluster`.
            forces_at_ns: 0,
            ..Plan::of_seed(seed)
        };
        if let Err(failure) = run_seed_of::<Whole>(&plan) {
            panic!("{failure}");
        }
    }
}
