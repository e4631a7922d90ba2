//! One run: events in the order of their times, a step for each, the checkers behind each step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use lockstep_journaler::frame::{FrameHeader, HEADER_BYTES};
use lockstep_journaler::storage::{Fault, Simulated, Storage};
use lockstep_journaler::{Background, FrameDraft, Options, Position, SegmentId, Term};

use super::checker::Checker;
use super::disk::OnDisk;
use super::model::{Answer, EVENT_BYTES, EVENTS, Reply};
use super::network::{Fate, Network};
use super::node::{Admitted, Node, Request, Setup};
use super::plan::Plan;
use super::random::Random;
use super::tally::Tally;
use crate::consensus::{Role, StepError};
use crate::ids::{ClusterId, NodeId};
use crate::members::Change;
use crate::policy::Policy;
use crate::replica::{Mutation, OfferError, ReceiveError, ReplicaOptions};
use crate::sites::{Gating, Sites};
use crate::wire::{Body, Decoder, HEAD_BYTES, Head, Kind, Limits, Message, SharedFrame};

const MS: u64 = 1_000_000;
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// A rule that did not hold, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After so many steps.
    pub step: u64,
    /// At this simulated time.
    pub at_ns: u64,
    /// Which rule, and what was seen.
    pub what: String,
}

impl Failure {
    pub(super) fn panicked(seed: u64, text: String) -> Failure {
        Failure {
            seed,
            step: 0,
            at_ns: 0,
            what: format!("a node panicked: {text}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} failed at step {} ({} ms): {}\nagain, with every step: \
             cargo run --release -p lockstep-replicator --example sim -- --seed {} --trace",
            self.seed,
            self.step,
            self.at_ns / MS,
            self.what,
            self.seed
        )
    }
}

impl std::error::Error for Failure {}

#[derive(Debug, Clone)]
enum Happening {
    Deliver {
        from: NodeId,
        to: NodeId,
        life: u64,
        bytes: Vec<u8>,
    },
    Turn(NodeId, u64),
    Persist(NodeId, u64),
    Ask(NodeId, Request),
    Answer(Reply),
    Client(u64),
    Fault,
    Operator,
    Snapshot,
    Connect(NodeId, NodeId),
    Restart(NodeId),
    HealNetwork,
    HealDisk(NodeId),
}

#[derive(Debug)]
struct Scheduled {
    at_ns: u64,
    number: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.number).cmp(&(other.at_ns, other.number))
    }
}

/// A process, or what is left of it.
struct Process<N> {
    setup: Setup,
    node: Option<N>,
    /// Rises with every start: turns of an earlier life are void.
    life: u64,
    is_made: bool,
    /// For ever: its disk is lost, or it was removed.
    is_gone: bool,
    /// A fault of its disk was planned: it may stop.
    is_hurt: bool,
    /// Its disk has no room: it may stop too, though it should wait.
    is_full: bool,
    /// Its log begins anew when it is opened next.
    begins_anew: bool,
    /// A byte of its journal was changed: it must not start.
    is_rotten: bool,
    paused_until_ns: u64,
    is_slow: bool,
    persists: bool,
    /// Millionths by which its monotone clock is fast.
    drift: u64,
    wall_offset_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    request: Request,
    floor: u64,
    asked_ns: u64,
    timeout_ns: u64,
}

#[derive(Debug)]
struct Client {
    session: u64,
    number: u32,
    waiting: Option<Waiting>,
    leader: Option<NodeId>,
    /// Requests done since everything was healed.
    done_healed: u32,
}

pub(super) struct Cluster<N: Node> {
    plan: Plan,
    random: Random,
    now_ns: u64,
    numbers: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    processes: BTreeMap<NodeId, Process<N>>,
    disks: BTreeMap<NodeId, Simulated>,
    network: Network,
    clients: BTreeMap<u64, Client>,
    checker: Checker,
    tally: Tally,
    founders: Vec<NodeId>,
    next_id: u16,
    /// Requests that are answered are done before this position.
    floor: u64,
    lost_for_ever: u64,
    is_healed: bool,
}

type Outcome = Result<(), Box<Failure>>;

/// Even numbers at one site, the others at another.
fn sites() -> Sites {
    let name = |node: u16| {
        if node.is_multiple_of(2) {
            "lyon"
        } else {
            "paris"
        }
    };
    Sites::new((1..=64).map(|node| (NodeId(node), name(node).to_owned()))).gated()
}

impl<N: Node> Cluster<N> {
    pub(super) fn new(plan: &Plan) -> Result<Cluster<N>, Box<Failure>> {
        let founders: Vec<NodeId> = (1..=plan.voters).map(NodeId).collect();
        let mut cluster = Cluster {
            plan: plan.clone(),
            random: Random::new(plan.seed),
            now_ns: 0,
            numbers: 0,
            queue: BinaryHeap::new(),
            processes: BTreeMap::new(),
            disks: BTreeMap::new(),
            network: Network::default(),
            clients: BTreeMap::new(),
            checker: Checker::new(),
            tally: Tally::default(),
            next_id: plan.voters + 1,
            founders: founders.clone(),
            floor: 0,
            lost_for_ever: 0,
            is_healed: false,
        };
        if plan.has_sites {
            cluster.checker.gate(&sites());
        }
        for node in founders {
            cluster.add_process(node);
            cluster.start(node)?;
        }
        for client in 1..=plan.clients {
            let fresh = Client {
                session: 0,
                number: 0,
                waiting: None,
                leader: None,
                done_healed: 0,
            };
            cluster.clients.insert(client, fresh);
            cluster.after(5 * MS, Happening::Client(client));
        }
        cluster.after(plan.fault_every_ns, Happening::Fault);
        if plan.operator_every_ns > 0 {
            cluster.after(plan.operator_every_ns, Happening::Operator);
        }
        if plan.snapshot_every_ns > 0 {
            cluster.after(plan.snapshot_every_ns, Happening::Snapshot);
        }
        Ok(cluster)
    }

    pub(super) fn run(mut self) -> Result<Tally, Box<Failure>> {
        let chaos_ns = self.plan.chaos_ns;
        // Ends: time goes on with every event, and every live node has one.
        while self.now_ns < chaos_ns {
            self.step()?;
        }
        self.heal()?;
        let limit_ns = chaos_ns + self.plan.heal_ns;
        // Ends: at the latest with the limit.
        while !self.is_well() {
            self.step()?;
            if self.now_ns > limit_ns {
                let state = self.state();
                return Err(self.failure(format!(
                    "not well {} ms after all was healed: {state}",
                    self.plan.heal_ns / MS
                )));
            }
        }
        self.tally.elections = self.checker.elections();
        self.tally.done = self.checker.done();
        self.tally.gated = self.checker.gated();
        (self.tally.ahead, self.tally.taken_back) = self.checker.ahead();
        for process in self.processes.values() {
            if let Some(node) = &process.node {
                self.tally.cut_back += node.replica().cuts();
            }
        }
        Ok(self.tally)
    }

    fn failure(&self, what: String) -> Box<Failure> {
        self.trace(|| self.state());
        Box::new(Failure {
            seed: self.plan.seed,
            step: self.tally.steps,
            at_ns: self.now_ns,
            what,
        })
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.plan.is_traced {
            #[expect(clippy::print_stderr, reason = "a trace is asked for by name")]
            {
                eprintln!("{:>12.3} ms  {}", self.now_ns as f64 / 1e6, text());
            }
        }
    }

    fn after(&mut self, delay_ns: u64, what: Happening) {
        self.at(self.now_ns + delay_ns, what);
    }

    fn at(&mut self, at_ns: u64, what: Happening) {
        self.numbers += 1;
        self.queue.push(Reverse(Scheduled {
            at_ns,
            number: self.numbers,
            what,
        }));
    }

    fn add_process(&mut self, id: NodeId) {
        let storage = Simulated::new(self.random.draw());
        let mut journal = Options::new(&EVENTS).with_segment_bytes(self.plan.segment_bytes);
        journal.background = Background::Stepped;
        journal.journal_id = Some([u8::try_from(id.0).unwrap_or(255); 16]);
        journal.mutations.retry_failed_sync = self.plan.mutation == Some(Mutation::RetryFailedSync);
        journal.mutations.cut_without_intent =
            self.plan.mutation == Some(Mutation::CutWithoutIntent);
        let cluster: ClusterId = "simulated"
            .parse()
            .unwrap_or_else(|_| unreachable!("a good name"));
        let mut replica = ReplicaOptions::new(cluster, id, &self.founders);
        replica.settings.seed = self.plan.seed;
        replica.settings.frames_per_append = self.plan.frames_per_append;
        replica.tick_ns = self.plan.tick_ns;
        replica.window_frames = 64;
        replica.recent_bytes_max = 2048;
        replica.message_bytes_max = 4096;
        replica.mutation = self.plan.mutation;
        replica.policy = self.plan.policy;
        replica.boot = 1;
        if self.plan.has_sites {
            replica.sites = sites();
        }
        if self.plan.policy != Policy::Disks {
            self.checker.count_written(id);
        }
        self.disks.insert(id, storage.clone());
        let process = Process {
            setup: Setup {
                storage,
                journal,
                replica,
                runs_ahead: self.plan.runs_ahead,
            },
            node: None,
            life: 0,
            is_made: false,
            is_gone: false,
            is_hurt: false,
            is_full: false,
            begins_anew: false,
            is_rotten: false,
            paused_until_ns: 0,
            is_slow: false,
            persists: false,
            drift: self.random.below(2000),
            wall_offset_ns: self.random.below(50 * MS),
        };
        self.processes.insert(id, process);
    }

    fn start(&mut self, id: NodeId) -> Outcome {
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        if process.is_gone || process.node.is_some() {
            return Ok(());
        }
        process.setup.storage.set_capacity(u64::MAX);
        process.is_full = false;
        let is_cut = process.begins_anew
            && !self.is_healed
            && self.plan.policy == Policy::Disks
            && self.random.chance(300);
        if is_cut {
            let after = self.random.below(40);
            process.setup.storage.cut_power_after(after);
        }
        let started = if process.is_made {
            N::open(&process.setup)
        } else {
            N::create(&process.setup)
        };
        process.life += 1;
        process.persists = false;
        let life = process.life;
        match started {
            Ok(_) if process.is_rotten => Err(self.failure(format!(
                "node {id} starts, though a byte of its journal is rotten"
            ))),
            Ok(_) | Err(_) if process.setup.storage.is_off() => {
                self.lose_power_in_start(id);
                Ok(())
            }
            Ok(node) => {
                process.begins_anew = false;
                self.tally.torn += u64::from(node.replica().has_cut_torn_tail());
                process.node = Some(node);
                process.is_made = true;
                // Where it was to lose power as it begins anew, and did not, it does later.
                process.is_hurt = is_cut;
                self.checker.restarted(id);
                self.trace(|| format!("node {id} starts"));
                self.after(MS, Happening::Turn(id, life));
                for other in self.ids() {
                    if other != id {
                        let delay = self.random.between(1, 20) * MS;
                        self.after(delay, Happening::Connect(id, other));
                    }
                }
                self.look(id)
            }
            Err(reason) if process.is_rotten => {
                // Its journal is damaged, and it says so: a node that does not start harms nobody.
                process.is_gone = true;
                self.tally.rotten += 1;
                self.trace(|| format!("node {id} will not start: {reason}"));
                Ok(())
            }
            Err(reason) => Err(self.failure(format!("node {id} will not start: {reason}"))),
        }
    }

    fn lose_power_in_start(&mut self, id: NodeId) {
        self.tally.begun_in_two += 1;
        if let Some(process) = self.processes.get_mut(&id) {
            process.setup.storage.crash();
            process.setup.storage.heal();
            process.setup.replica.boot += 1;
        }
        self.restart_later(id);
    }

    /// One node takes a snapshot, and gives up what is behind two of them.
    fn snapshot(&mut self) -> Outcome {
        let delay = self.random.between(1, 2 * self.plan.snapshot_every_ns);
        self.after(delay, Happening::Snapshot);
        let alive = self.alive();
        let Some(&id) = self.random.pick(&alive) else {
            return Ok(());
        };
        let now_ns = self.now_ns;
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        if process.paused_until_ns > now_ns {
            return Ok(());
        }
        if let Some(node) = &mut process.node {
            let first = node.replica().index().first();
            node.take_snapshot();
            self.tally.snapshots += 1;
            self.tally.given_up += node.replica().index().first() - first;
        }
        self.trace(|| format!("node {id} takes a snapshot"));
        self.look(id)
    }

    fn ids(&self) -> Vec<NodeId> {
        self.processes.keys().copied().collect()
    }

    /// Those that run.
    fn alive(&self) -> Vec<NodeId> {
        let alive = self
            .processes
            .iter()
            .filter(|(_, process)| process.node.is_some());
        alive.map(|(&id, _)| id).collect()
    }

    fn step(&mut self) -> Outcome {
        let Some(Reverse(scheduled)) = self.queue.pop() else {
            return Err(self.failure("nothing happens any more".to_owned()));
        };
        self.now_ns = self.now_ns.max(scheduled.at_ns);
        self.tally.steps += 1;
        match scheduled.what {
            Happening::Deliver {
                from,
                to,
                life,
                bytes,
            } => self.deliver(from, to, life, bytes),
            Happening::Turn(id, life) => self.turn(id, life),
            Happening::Persist(id, life) => self.persist(id, life),
            Happening::Ask(id, request) => {
                self.ask(id, request);
                Ok(())
            }
            Happening::Answer(reply) => self.answer(&reply),
            Happening::Client(client) => {
                self.client(client);
                Ok(())
            }
            Happening::Fault => self.fault(),
            Happening::Operator => self.operator(),
            Happening::Snapshot => self.snapshot(),
            Happening::Connect(a, b) => self.connect(a, b),
            Happening::Restart(id) => self.start(id),
            Happening::HealNetwork => {
                self.network.unblock_all();
                self.trace(|| "the network is whole".to_owned());
                self.reconnect_all();
                Ok(())
            }
            Happening::HealDisk(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_slow = false;
                    process.is_full = false;
                    process.setup.storage.set_capacity(u64::MAX);
                }
                Ok(())
            }
        }
    }

    // ---- one node's steps

    /// Its node, if it runs this life and is not paused; else the event comes again, or never.
    fn is_running(&mut self, id: NodeId, life: u64, again: Happening) -> bool {
        let Some(process) = self.processes.get(&id) else {
            return false;
        };
        if process.node.is_none() || (life != 0 && process.life != life) {
            return false;
        }
        if process.paused_until_ns > self.now_ns {
            let at = process.paused_until_ns;
            self.at(at, again);
            return false;
        }
        true
    }

    fn turn(&mut self, id: NodeId, life: u64) -> Outcome {
        if !self.is_running(id, life, Happening::Turn(id, life)) {
            return Ok(());
        }
        let delay = self.random.between(MS, 4 * MS);
        self.after(delay, Happening::Turn(id, life));
        self.begin(id)
    }

    fn begin(&mut self, id: NodeId) -> Outcome {
        let now_ns = self.now_ns;
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let own_ns = now_ns + now_ns / 1_000_000 * process.drift;
        let wall_ns = EPOCH_NS + own_ns + process.wall_offset_ns;
        let mut out = Vec::new();
        let begun = node.begin(own_ns, wall_ns, &mut out);
        let (life, is_slow) = (process.life, process.is_slow);
        let wants_disk = !process.persists;
        process.persists = true;
        if let Err(reason) = begun {
            return self.stopped(id, &reason);
        }
        if wants_disk {
            let (least, most) = self.plan.disk_ns;
            let delay = self.random.between(least, most) * if is_slow { 20 } else { 1 };
            self.after(delay, Happening::Persist(id, life));
        }
        self.send_all(id, out);
        self.look(id)
    }

    fn persist(&mut self, id: NodeId, life: u64) -> Outcome {
        if !self.is_running(id, life, Happening::Persist(id, life)) {
            return Ok(());
        }
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        process.persists = false;
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let mut out = Vec::new();
        if let Err(reason) = node.persist(&mut out) {
            if self.plan.policy != Policy::Disks {
                // Answers that promise memory had left before the sync.
                self.send_all(id, out);
            }
            return self.stopped(id, &reason);
        }
        self.send_all(id, out);
        self.look(id)
    }

    /// What must hold, and what it tells its clients.
    fn look(&mut self, id: NodeId) -> Outcome {
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let replies = node.replies();
        let checked = self.checker.check(id, &*node, &self.disks);
        checked.map_err(|what| self.failure(what))?;
        for reply in replies {
            let checked = self.checker.check_reply(id, &reply);
            checked.map_err(|what| self.failure(what))?;
            if !self.is_healed && self.random.chance(30) {
                continue;
            }
            let delay = self
                .random
                .between(self.plan.delay_ns.0, self.plan.delay_ns.1);
            self.after(delay, Happening::Answer(reply));
        }
        Ok(())
    }

    /// A node came to its end; that is right if its disk was hurt.
    fn stopped(&mut self, id: NodeId, reason: &str) -> Outcome {
        if self
            .replica(id)
            .is_some_and(|replica| replica.has_begun_anew())
        {
            self.trace(|| format!("node {id}: {reason}"));
            self.tally.begun_anew += 1;
            self.kill(id, false);
            if let Some(process) = self.processes.get_mut(&id) {
                process.begins_anew = true;
            }
            let delay = self.random.between(1, 20) * MS;
            self.after(delay, Happening::Restart(id));
            return Ok(());
        }
        let is_hurt = self
            .processes
            .get(&id)
            .is_some_and(|process| process.is_hurt || process.is_full);
        if !is_hurt {
            return Err(self.failure(format!("node {id} stopped without a cause: {reason}")));
        }
        self.trace(|| format!("node {id} stops: {reason}"));
        self.kill(id, true);
        self.restart_later(id);
        Ok(())
    }

    fn kill(&mut self, id: NodeId, loses_power: bool) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if let Some(node) = process.node.take() {
            self.tally.cut_back += node.replica().cuts();
        }
        process.life += 1;
        process.paused_until_ns = 0;
        // What the cache says of a disk that has failed once is not to be believed: the machine is
        // started again, and not the process alone.
        let loses_power = loses_power || process.is_hurt;
        if loses_power {
            self.checker.loses_power(id, &process.setup.storage);
            process.setup.storage.crash();
            process.setup.replica.boot += 1;
        }
        process.setup.storage.heal();
        process.is_hurt = false;
        self.network.reset_all_of(id);
        self.checker.restarted(id);
        self.trace(|| format!("node {id} is killed, power lost: {loses_power}"));
    }

    fn restart_later(&mut self, id: NodeId) {
        let delay = self.random.between(10, 400) * MS;
        self.after(delay, Happening::Restart(id));
    }

    // ---- the network

    fn send_all(&mut self, from: NodeId, out: Vec<(NodeId, Message)>) {
        for (to, message) in out {
            let message = self.perhaps_changed(message);
            let kind = message.head.kind;
            let fate =
                self.network
                    .send((from, to), kind, self.now_ns, &self.plan, &mut self.random);
            self.trace(|| format!("{from} -> {to}  {:?} {fate:?}", message.head));
            match fate {
                Fate::Lost => self.tally.dropped += 1,
                Fate::Breaks => self.reset(from, to),
                Fate::Arrives(times, life) => {
                    self.tally.doubled += u64::from(times.len() > 1);
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    for at_ns in times {
                        let bytes = self.perhaps_flipped(bytes.clone());
                        self.at(
                            at_ns,
                            Happening::Deliver {
                                from,
                                to,
                                life,
                                bytes,
                            },
                        );
                    }
                }
            }
        }
    }

    /// A piece of a snapshot may be read wrongly, and be sent with a CRC that holds.
    fn perhaps_changed(&mut self, message: Message) -> Message {
        let Body::Bytes(bytes) = &message.body else {
            return message;
        };
        if self.is_healed || !self.random.chance(100) {
            return message;
        }
        self.tally.changed_pieces += 1;
        let mut bytes = (**bytes).clone();
        let at = usize::try_from(self.random.below(bytes.len() as u64)).unwrap_or(0);
        bytes[at] ^= 1 << self.random.below(8);
        Message::piece(message.head, message.head.a, bytes)
    }

    fn perhaps_flipped(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if !self.is_healed && self.random.below(100_000) < self.plan.flipped {
            let at = usize::try_from(self.random.below(bytes.len() as u64)).unwrap_or(0);
            bytes[at] ^= 1 << self.random.below(8);
            self.tally.flipped += 1;
        }
        bytes
    }

    fn reset(&mut self, a: NodeId, b: NodeId) {
        if self.network.reset(Network::pair(a, b)) {
            self.tally.resets += 1;
            self.trace(|| format!("the log connection of {a} and {b} is lost"));
        }
        let delay = self.random.between(1, 30) * MS;
        self.after(delay, Happening::Connect(a, b));
    }

    fn reconnect_all(&mut self) {
        let alive = self.alive();
        for &a in &alive {
            for &b in &alive {
                if a < b && !self.network.is_up((a, b)) {
                    let delay = self.random.between(1, 20) * MS;
                    self.after(delay, Happening::Connect(a, b));
                }
            }
        }
    }

    fn connect(&mut self, a: NodeId, b: NodeId) -> Outcome {
        let pair = Network::pair(a, b);
        let runs = |id| {
            let process = self.processes.get(id);
            process.is_some_and(|process| process.node.is_some())
        };
        if !runs(&a) || !runs(&b) || self.network.is_up(pair) || !self.network.can_connect(pair) {
            return Ok(());
        }
        self.network.connect(pair);
        for (one, other) in [(a, b), (b, a)] {
            let hello = self.replica(other).map(|replica| replica.hello());
            let (Some(hello), Some(process)) = (hello, self.processes.get_mut(&one)) else {
                continue;
            };
            if let Some(node) = &mut process.node {
                node.replica_mut().reconnected(other);
                let judged = node.replica_mut().judge(&hello);
                if let Err(error) = judged {
                    return Err(self.failure(format!("node {one} refuses {other}: {error}")));
                }
            }
        }
        Ok(())
    }

    fn replica(&self, id: NodeId) -> Option<&crate::replica::Replica<Simulated>> {
        let process = self.processes.get(&id)?;
        process.node.as_ref().map(Node::replica)
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, life: u64, bytes: Vec<u8>) -> Outcome {
        if !self.network.arrives(from, to, life) {
            self.tally.dropped += 1;
            return Ok(());
        }
        let again = Happening::Deliver {
            from,
            to,
            life,
            bytes: bytes.clone(),
        };
        if !self.is_running(to, 0, again) {
            return Ok(());
        }
        let mut decoder = Decoder::new(Limits {
            event_size: EVENT_BYTES,
            frame_bytes_max: 4096,
            message_bytes_max: 1 << 16,
        });
        decoder.push(&bytes);
        let message = match decoder.next() {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => match self.believed(&bytes) {
                Some(message) => message,
                // Not what was sent: whoever decodes closes the connection.
                None => {
                    if life != 0 {
                        self.reset(from, to);
                    }
                    return Ok(());
                }
            },
        };
        self.tally.delivered += 1;
        let Some(process) = self.processes.get_mut(&to) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        match node.receive(&message) {
            Ok(()) => {}
            Err(ReceiveError::Fatal(fatal)) => return self.stopped(to, &fatal.to_string()),
            Err(ReceiveError::Step(StepError::Stale { .. } | StepError::Kind { .. })) => {}
            Err(ReceiveError::Step(StepError::Lost { .. }))
                if self.plan.policy != Policy::Disks => {}
            Err(ReceiveError::Barred) => {}
            Err(error) => {
                return Err(self.failure(format!("node {to} refuses a message: {error}")));
            }
        }
        self.look(to)?;
        self.begin(to)
    }

    /// What a node without CRC and chain would have taken.
    fn believed(&self, bytes: &[u8]) -> Option<Message> {
        if self.plan.mutation != Some(Mutation::NoChain) {
            return None;
        }
        let head = Head::decode(bytes.get(..HEAD_BYTES)?.try_into().ok()?).ok()?;
        if head.kind != Kind::Append {
            return None;
        }
        let mut frames = Vec::new();
        let mut rest = &bytes[HEAD_BYTES..];
        // Ends: each turn takes a header away.
        while !rest.is_empty() {
            let header: FrameHeader = bytemuck::pod_read_unaligned(rest.get(..HEADER_BYTES)?);
            let length = usize::try_from(header.body_bytes(64)).ok()?;
            let body = [rest.get(HEADER_BYTES..HEADER_BYTES + length)?, &[][..]];
            let draft = FrameDraft {
                time_ns: header.time_ns,
                term: Term(header.term),
                index: header.index,
                commit: Position(header.commit),
                schema_version: header.schema_version,
                kind: header.kind,
                flags: header.flags,
            };
            let at = Position(header.first_position);
            let sealed = FrameHeader::seal(&draft, at, header.count, body, header.chain);
            frames.push(SharedFrame::new(sealed, body));
            rest = &rest[HEADER_BYTES + length..];
        }
        Some(Message::append(head, frames))
    }

    // ---- clients

    fn client(&mut self, number: u64) {
        let delay = self.random.between(3, 30) * MS;
        self.after(delay, Happening::Client(number));
        let (now_ns, floor, is_healed) = (self.now_ns, self.floor, self.is_healed);
        let alive = self.alive();
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let waiting = match client.waiting {
            Some(waiting) if now_ns < waiting.asked_ns + waiting.timeout_ns => return,
            Some(waiting) => {
                self.tally.retried += 1;
                client.leader = None;
                waiting
            }
            None if is_healed && client.done_healed >= 3 => return,
            None => {
                client.number += 1;
                Waiting {
                    request: Request {
                        client: number,
                        session: client.session,
                        number: client.number,
                        register: self.random.below(8),
                        amount: i64::try_from(self.random.between(1, 1000)).unwrap_or(1),
                    },
                    floor,
                    asked_ns: now_ns,
                    timeout_ns: 0,
                }
            }
        };
        let request = waiting.request;
        let timeout_ns = self.random.between(50, 150) * MS;
        client.waiting = Some(Waiting {
            asked_ns: now_ns,
            timeout_ns,
            ..waiting
        });
        let to = client.leader.or_else(|| self.random.pick(&alive).copied());
        // Some ask twice at once: it is done once.
        let times = if self.random.chance(100) { 2 } else { 1 };
        for _ in 0..times {
            if let Some(to) = to
                && !self.random.chance(if is_healed { 0 } else { 30 })
            {
                let delay = self
                    .random
                    .between(self.plan.delay_ns.0, self.plan.delay_ns.1);
                self.after(delay, Happening::Ask(to, request));
            }
        }
    }

    fn ask(&mut self, id: NodeId, request: Request) {
        if !self.is_running(id, 0, Happening::Ask(id, request)) {
            return;
        }
        let Some(node) = self
            .processes
            .get_mut(&id)
            .and_then(|process| process.node.as_mut())
        else {
            return;
        };
        let admitted = node.request(request);
        if let (Admitted::NotLeader(leader), Some(client)) =
            (admitted, self.clients.get_mut(&request.client))
        {
            client.leader = leader;
            if let Some(waiting) = &mut client.waiting {
                waiting.timeout_ns = 5 * MS;
            }
        }
    }

    fn answer(&mut self, reply: &Reply) -> Outcome {
        let Some(client) = self.clients.get_mut(&reply.client) else {
            return Ok(());
        };
        let Some(waiting) = client.waiting else {
            return Ok(());
        };
        let is_opening = waiting.request.session == 0;
        let is_ours = reply.request == waiting.request.number
            && is_opening == (reply.answer == Answer::Opened)
            && (is_opening || reply.session == waiting.request.session);
        if !is_ours {
            return Ok(());
        }
        client.waiting = None;
        if is_opening {
            client.session = reply.session;
            client.number = 0;
        }
        if self.is_healed {
            client.done_healed += 1;
        }
        self.tally.acknowledged += 1;
        let done = Checker::check_order(reply, waiting.floor).map_err(|what| self.failure(what))?;
        self.floor = self.floor.max(done);
        Ok(())
    }

    // ---- an operator

    fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let replica = self.replica(*id);
            replica.is_some_and(|replica| replica.is_ready_to_lead())
        };
        self.alive().into_iter().find(leads)
    }

    fn operator(&mut self) -> Outcome {
        if self.is_healed && !self.plan.has_sites {
            return Ok(());
        }
        let delay = self.random.between(1, self.plan.operator_every_ns);
        self.after(delay, Happening::Operator);
        if self.plan.has_sites {
            self.say_a_word()?;
        }
        if self.is_healed {
            return Ok(());
        }
        self.stop_removed();
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        if self.random.chance(250) {
            let voters = self
                .replica(leader)
                .map(|replica| replica.members().voters.clone());
            let to = self.random.pick(&voters.unwrap_or_default()).copied();
            if let (Some(to), Some(process)) = (to, self.processes.get_mut(&leader))
                && let Some(node) = &mut process.node
                && node.replica_mut().transfer_to(to).is_ok()
            {
                self.tally.transfers += u64::from(to != leader);
                self.trace(|| format!("{leader} hands over to {to}"));
            }
            return self.begin(leader);
        }
        let Some(change) = self.wanted_change(leader) else {
            return Ok(());
        };
        self.make(leader, change)
    }

    /// The other site is given up where it is lost, and now and then without need; and is waited for again.
    fn say_a_word(&mut self) -> Outcome {
        let gating = |id: &NodeId| {
            let replica = self.replica(*id)?;
            let leads = replica.view().role == Role::Leader;
            replica.gating().filter(|_| leads).map(|word| (*id, word))
        };
        let Some((leader, gating)) = self.alive().iter().find_map(gating) else {
            return Ok(());
        };
        let is_lost = self.replica(leader).is_some_and(|replica| {
            let gone = |id: &NodeId| self.processes.get(id).is_none_or(|process| process.is_gone);
            let is_lost = |voters: &[NodeId]| {
                let left: Vec<NodeId> = voters.iter().copied().filter(|id| !gone(id)).collect();
                !sites().has_two(&left)
            };
            // While members change both halves have to have it at two sites.
            let members = replica.members();
            is_lost(&members.voters) || (members.is_joint() && is_lost(&members.voters_outgoing))
        });
        let word = match gating {
            Gating::Sites if is_lost => Gating::Degraded,
            Gating::Sites if !self.is_healed && self.random.chance(30) => Gating::Degraded,
            Gating::Degraded if !is_lost && self.random.chance(200) => Gating::Sites,
            Gating::Sites | Gating::Degraded => return Ok(()),
        };
        let Some(process) = self.processes.get_mut(&leader) else {
            return Ok(());
        };
        let wall_ns = EPOCH_NS + self.now_ns + process.wall_offset_ns;
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let term = node.replica().view().term;
        let outcome = node.go_by(word, wall_ns);
        let has_died = matches!(outcome, Err(OfferError::Fatal(_)));
        if outcome.is_ok() || (has_died && word == Gating::Degraded) {
            // A leader that dies with the word may have gone by it.
            self.checker.told(term, word);
        }
        if outcome.is_ok() {
            match word {
                Gating::Degraded => self.tally.degraded += 1,
                Gating::Sites => self.tally.regated += 1,
            }
        }
        self.trace(|| format!("{leader} is told to go by {}: {outcome:?}", word.name()));
        self.begin(leader)
    }

    fn make(&mut self, leader: NodeId, change: Change) -> Outcome {
        if let Change::AddLearner(node) = change
            && !self.processes.contains_key(&node)
        {
            self.add_process(node);
            self.start(node)?;
        }
        let Some(process) = self.processes.get_mut(&leader) else {
            return Ok(());
        };
        let wall_ns = EPOCH_NS + self.now_ns + process.wall_offset_ns;
        if let Some(node) = &mut process.node {
            let outcome = node.change(change, wall_ns);
            self.tally.changes += u64::from(outcome.is_ok());
            self.trace(|| format!("{leader} is asked to {change}: {outcome:?}"));
        }
        self.begin(leader)
    }

    /// First what is lost is replaced; else something at random that leaves enough voters.
    fn wanted_change(&mut self, leader: NodeId) -> Option<Change> {
        let members = self.replica(leader)?.members().clone();
        let gone = |id: &NodeId| self.processes.get(id).is_none_or(|process| process.is_gone);
        let lost_voter = members.voters.iter().copied().find(gone);
        let lost_learner = members.learners.iter().copied().find(gone);
        if let Some(lost) = lost_learner {
            return Some(Change::Remove(lost));
        }
        let learner = members.learners.first().copied();
        match (lost_voter, learner) {
            (Some(gone), Some(by)) => return Some(Change::Replace { gone, by }),
            (Some(_), None) => return self.new_learner(),
            (None, _) => {}
        }
        let others: Vec<NodeId> = members
            .voters
            .iter()
            .copied()
            .filter(|&id| id != leader)
            .collect();
        match (self.random.below(5), learner) {
            (0 | 1, None) if members.all().len() < 6 => self.new_learner(),
            (0, Some(learner)) if members.voters.len() < 5 => Some(Change::Promote(learner)),
            (1, Some(learner)) => Some(Change::Remove(learner)),
            (2, Some(by)) => {
                let gone = self.random.pick(&others).copied()?;
                Some(Change::Replace { gone, by })
            }
            (3, _) if members.voters.len() > 3 => {
                self.random.pick(&others).copied().map(Change::Remove)
            }
            _ => None,
        }
    }

    fn new_learner(&mut self) -> Option<Change> {
        if self.next_id > 20 {
            return None;
        }
        let id = NodeId(self.next_id);
        self.next_id += 1;
        Some(Change::AddLearner(id))
    }

    /// Whoever is removed is stopped, mostly; but only when a majority of those that stay knows of it:
    /// while they may count it among their voters, they may need it.
    fn stop_removed(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(replica) = self.replica(leader) else {
            return;
        };
        let members = replica.members().clone();
        let highest = members.all().last().copied().unwrap_or(NodeId(0));
        for id in self.alive() {
            let knows = |voter: &NodeId| {
                let replica = self.replica(*voter);
                replica.is_some_and(|replica| !replica.members().contains(id))
            };
            let knowing: Vec<NodeId> = members.voters.iter().copied().filter(knows).collect();
            // A node that was never added yet is not removed.
            let is_removed = id <= highest && members.is_quorum(&knowing) && !members.contains(id);
            if is_removed && self.random.chance(500) {
                self.kill(id, false);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_gone = true;
                }
            }
        }
    }

    // ---- what goes wrong

    fn fault(&mut self) -> Outcome {
        if self.is_healed {
            return Ok(());
        }
        let delay = self.random.between(1, 2 * self.plan.fault_every_ns);
        self.after(delay, Happening::Fault);
        let alive = self.alive();
        let Some(&id) = self.random.pick(&alive) else {
            return Ok(());
        };
        let kind = self.random.below(100);
        match kind {
            0..50 if self.plan.breaks_nodes => self.break_node(id),
            50..85 if self.plan.breaks_network => {
                self.break_network(id);
                Ok(())
            }
            85..90 => {
                let jump = self.random.below(2_000 * MS);
                if let Some(process) = self.processes.get_mut(&id) {
                    // Forward, and at another time back again.
                    process.wall_offset_ns = jump;
                    self.tally.jumps += 1;
                }
                Ok(())
            }
            _ => {
                let other = self.random.pick(&alive).copied().unwrap_or(id);
                if other != id {
                    self.reset(id, other);
                }
                Ok(())
            }
        }
    }

    fn break_node(&mut self, id: NodeId) -> Outcome {
        let kind = self.kind_of_break(id);
        match kind {
            0..20 => {
                self.tally.killed += 1;
                self.kill(id, false);
                self.restart_later(id);
            }
            20..40 => {
                self.tally.power_lost += 1;
                self.kill(id, true);
                self.restart_later(id);
            }
            40..50 => {
                let after = self.random.below(12);
                self.hurt(id, |disk| disk.cut_power_after(after));
                self.tally.power_cut += 1;
            }
            50..54 => {
                // The whole site loses power.
                for id in self.alive() {
                    self.tally.power_lost += 1;
                    self.kill(id, true);
                    self.restart_later(id);
                }
            }
            54..66 => {
                let until = self.now_ns + self.random.between(20, 600) * MS;
                if let Some(process) = self.processes.get_mut(&id) {
                    process.paused_until_ns = until;
                    self.tally.paused += 1;
                    self.trace(|| format!("node {id} pauses"));
                }
            }
            66..80 => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_slow = true;
                    self.tally.slow += 1;
                }
                let delay = self.random.between(50, 500) * MS;
                self.after(delay, Happening::HealDisk(id));
            }
            80..88 => {
                let fault = [Fault::SyncError, Fault::WriteError, Fault::ShortWrite]
                    [usize::try_from(self.random.below(3)).unwrap_or(0)];
                let skip = self.random.below(4);
                self.hurt(id, |disk| disk.inject(fault, "", skip));
                self.tally.disk_errors += 1;
            }
            88..94 => {
                if let Some(process) = self.processes.get_mut(&id) {
                    let disk = &process.setup.storage;
                    disk.set_capacity(u64::MAX);
                    // With room for everything, what is free tells what is used.
                    let used = u64::MAX - disk.free_bytes().unwrap_or(0);
                    disk.set_capacity(used.saturating_add(1000));
                    process.is_full = true;
                    self.tally.disk_full += 1;
                }
                let delay = self.random.between(50, 500) * MS;
                self.after(delay, Happening::HealDisk(id));
            }
            _ => return self.lose_disk(id),
        }
        Ok(())
    }

    /// Under a policy of memory power is lost by one node at a time, and by the next only when that
    /// one votes again; disks do as they are told. More was not promised.
    fn kind_of_break(&mut self, id: NodeId) -> u64 {
        let kind = self.random.below(100);
        if self.plan.policy == Policy::Disks {
            return kind;
        }
        let others = self
            .processes
            .iter()
            .filter(|(other, process)| **other != id && !process.is_gone);
        let all_know = others.into_iter().all(|(_, process)| {
            process
                .node
                .as_ref()
                .is_some_and(|node| !node.replica().is_barred())
                && !process.is_hurt
        });
        match kind {
            20..40 if all_know && self.plan.voters >= 3 => kind,
            40..50 if all_know && self.plan.voters >= 3 && self.plan.cuts_memory => kind,
            54..80 => kind,
            _ => 0,
        }
    }

    fn hurt(&mut self, id: NodeId, how: impl FnOnce(&Simulated)) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.is_hurt = true;
            how(&process.setup.storage);
            self.trace(|| format!("the disk of node {id} is hurt"));
        }
    }

    /// One disk in a run is lost, or rots; the majority of three can bear it.
    fn lose_disk(&mut self, id: NodeId) -> Outcome {
        let others = self
            .processes
            .values()
            .filter(|process| !process.is_gone)
            .count();
        let is_bearable = self.plan.voters >= 3
            && others > 2
            && self.lost_for_ever == 0
            && self.plan.operator_every_ns > 0;
        if !is_bearable {
            return Ok(());
        }
        self.lost_for_ever += 1;
        self.kill(id, true);
        let disk = self.disks.get(&id).cloned();
        let Some(disk) = disk else { return Ok(()) };
        // What it had acknowledged it had: the checker goes on looking at the disk as it was.
        self.disks.insert(id, disk.fork());
        if self.random.chance(500) {
            self.tally.wiped += 1;
            if let Some(process) = self.processes.get_mut(&id) {
                process.is_gone = true;
            }
            return Ok(());
        }
        // In an older group: of the newest one nobody can tell rot from a torn write.
        let frames = self.checker.disk(id, &disk).frames();
        let newest = frames.last().map(|frame| (frame.segment, frame.group));
        let is_older = |frame: &&OnDisk| Some((frame.segment, frame.group)) != newest;
        let older: Vec<OnDisk> = frames.iter().filter(is_older).cloned().collect();
        let Some(frame) = self.random.pick(&older).cloned() else {
            // There is nothing to rot yet.
            self.disks.insert(id, disk);
            self.restart_later(id);
            return Ok(());
        };
        let length = HEADER_BYTES as u64 + frame.body.len() as u64;
        let at = frame.offset + self.random.below(length);
        if disk
            .rot(&SegmentId(frame.segment).file_name(), at, 0x10)
            .is_ok()
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.is_rotten = true;
        }
        self.checker.restarted(id);
        self.restart_later(id);
        Ok(())
    }

    fn break_network(&mut self, id: NodeId) {
        let ids = self.ids();
        let kind = self.random.below(100);
        match kind {
            0..30 => {
                self.tally.partitions += 1;
                for &other in &ids {
                    self.cut(id, other);
                    self.cut(other, id);
                }
            }
            30..55 => {
                self.tally.partitions += 1;
                let sides: Vec<bool> = ids.iter().map(|_| self.random.chance(500)).collect();
                for (&a, one) in ids.iter().zip(&sides) {
                    for (&b, other) in ids.iter().zip(&sides) {
                        if one != other {
                            self.cut(a, b);
                        }
                    }
                }
            }
            55..80 => {
                self.tally.one_way += 1;
                let is_inward = self.random.chance(500);
                for &other in &ids {
                    if is_inward {
                        self.cut(other, id);
                    } else {
                        self.cut(id, other);
                    }
                }
            }
            _ => {
                // Two sides; `id` sees both.
                self.tally.bridges += 1;
                let others: Vec<NodeId> =
                    ids.iter().copied().filter(|&other| other != id).collect();
                let (left, right) = others.split_at(others.len() / 2);
                for &a in left {
                    for &b in right {
                        self.cut(a, b);
                        self.cut(b, a);
                    }
                }
            }
        }
        self.trace(|| "the network is cut".to_owned());
        let delay = self.random.between(30, 700) * MS;
        self.after(delay, Happening::HealNetwork);
    }

    fn cut(&mut self, from: NodeId, to: NodeId) {
        if from != to {
            self.network.block(from, to);
            self.network.reset(Network::pair(from, to));
        }
    }

    // ---- the end

    fn heal(&mut self) -> Outcome {
        self.is_healed = true;
        self.plan.lost = 0;
        self.network.unblock_all();
        for id in self.ids() {
            let Some(process) = self.processes.get_mut(&id) else {
                continue;
            };
            process.paused_until_ns = 0;
            process.is_slow = false;
            let disk = process.setup.storage.clone();
            disk.set_capacity(u64::MAX);
            disk.heal();
            if disk.is_off() || process.is_hurt {
                self.kill(id, true);
            }
            self.start(id)?;
        }
        self.reconnect_all();
        Ok(())
    }

    /// One leader, all members level with it, and every client served.
    fn is_well(&mut self) -> bool {
        if self
            .clients
            .values()
            .any(|client| client.done_healed < 3 || client.waiting.is_some())
        {
            return false;
        }
        let Some(leader) = self.leader() else {
            return false;
        };
        let Some(replica) = self.replica(leader) else {
            return false;
        };
        let (end, members) = (replica.committed(), replica.members().clone());
        let is_level = |id: &NodeId| {
            let Some(process) = self.processes.get(id) else {
                return false;
            };
            let is_level = |node: &N| node.applied() == end && *node.replica().members() == members;
            process.is_gone || process.node.as_ref().is_some_and(is_level)
        };
        replica.tail().reached.position == end
            && !members.is_joint()
            && members.all().iter().all(is_level)
    }

    fn state(&self) -> String {
        let mut text = String::new();
        for (id, process) in &self.processes {
            let state = match &process.node {
                None if process.is_gone => "gone".to_owned(),
                None => "down".to_owned(),
                Some(node) => {
                    let view = node.replica().view();
                    format!(
                        "{:?} of {:?} in term {}, ready {}, position {} of {}, last {}, committed {}, durable {}, applied {}, voters {:?}, learners {:?}",
                        view.role,
                        view.leader,
                        view.term,
                        node.replica().is_ready_to_lead(),
                        node.replica().durable(),
                        node.replica().committed(),
                        view.last,
                        view.committed,
                        view.durable,
                        node.applied(),
                        node.replica().members().voters,
                        node.replica().members().learners,
                    )
                }
            };
            text.push_str(&format!("\n  node {id}: {state}"));
        }
        for (id, client) in &self.clients {
            text.push_str(&format!("\n  client {id}: {client:?}"));
        }
        text
    }
}
