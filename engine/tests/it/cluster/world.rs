//! Three nodes, their disks, the network between them, and what goes wrong: all of it from a seed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError};

use lockstep_engine::cluster::NodeOptions;
use lockstep_engine::prelude::*;
use lockstep_engine::replay::{self, Replay};
use lockstep_engine::{Clock, Config, Error, GateAt, OnApplyPanic, Result, Retention};
use lockstep_journaler::Background;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::consensus::Role;
use lockstep_replicator::replica::Mutation;
use lockstep_replicator::wire::{Decoder, Limits, Message};
use lockstep_replicator::{Fatal, NodeId, ReceiveError, ReplicaOptions, Sites};

use super::clients::{Client, Heard};
use super::flaky::{Build, Faults, Flaky, Seen};
use crate::quarantine::quietly;

const NODES: u16 = 3;

/// All of them, as a world counts them.
pub(super) const ALL: Range<usize> = 0..NODES as usize;

const TICK_NS: u64 = 10_000_000;

/// The node that comes behind this one, in a circle.
pub(super) fn next_of(at: usize) -> usize {
    (at + 1) % ALL.len()
}

/// How others call it.
pub(super) fn id_of(at: usize) -> NodeId {
    NodeId(u16::try_from(at).unwrap() + 1)
}

/// Numbers from a seed.
pub(super) struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

pub(super) struct Process {
    pub(super) disk: Simulated,
    clock: Clock,
    pub(super) faults: Faults,
    /// Why it stopped by itself.
    pub(super) stopped: Option<String>,
    /// `None` while it is down.
    pub(super) node: Option<Build>,
    /// Which build is started: the newest version of the logic that it has.
    pub(super) newest: u32,
    pub(super) is_paused: bool,
    /// Its gates stand in front of the logic, whatever the seed says.
    pub(super) is_gated_in_front: bool,
    /// As its file says: it is started without a logic.
    pub(super) is_passive: bool,
}

struct Flight {
    due_ns: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) now_ns: u64,
    pub(super) processes: Vec<Process>,
    flights: Vec<Flight>,
    /// The link from one to the other is cut.
    pub(super) cut: [[bool; NODES as usize]; NODES as usize],
    loss_percent: u64,
    pub(super) clients: Vec<Client>,
    pub(super) deposits_max: u32,
    /// Node 3 is at another site, and is waited for.
    is_gated: bool,
    /// Starts that began with a snapshot.
    pub(super) from_snapshots: u32,
    /// The log is given up behind snapshots.
    gives_up: bool,
    /// Nodes that came back by a snapshot of another.
    pub(super) begun_anew: u32,
    /// One request of so many is one on which the logic panics; 0: none.
    pub(super) bomb_every: u32,
    /// Nobody says that it is passive: as a build from before that.
    pub(super) hides_passive: bool,
    /// Steps in which a passive node led.
    pub(super) led_passively: u32,
    /// What is wrong with every node.
    mutation: Option<Mutation>,
    /// States that had run ahead of what was committed, and were made anew.
    pub(super) taken_back: u64,
    /// Steps of nodes whose state was ahead of what was committed.
    pub(super) ahead: u64,
    /// Every output that a client was given, by position and index.
    outputs: BTreeMap<(u64, u32), Event64>,
    /// What was asked of states, and which hash was seen at which position.
    looks: Vec<Receiver<Seen>>,
    hashes: BTreeMap<u64, u64>,
}

/// Whether the gates stand in front of the outputs.
pub(super) fn runs_ahead(seed: u64) -> bool {
    seed % 4 >= 2
}

pub(super) fn options(node: u16, seed: u64, clock: &Clock) -> NodeOptions {
    let ids: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
    let mut replica = ReplicaOptions::new("bench".parse().unwrap(), NodeId(node), &ids);
    replica.tick_ns = TICK_NS;
    replica.settings.seed = seed * 16 + u64::from(node);
    NodeOptions {
        config: Config {
            slots: 64,
            output_slots: 64,
            segment_bytes: 1 << 20,
            beacon_every: 64,
            // Half of the seeds take snapshots, and start behind them.
            snapshot_every: if seed.is_multiple_of(2) { 40 } else { 0 },
            // On half of them the logic of whoever leads runs ahead.
            gate: if runs_ahead(seed) {
                GateAt::Output
            } else {
                GateAt::Logic
            },
            ..Config::default()
        },
        clock: clock.clone(),
        background: Background::Stepped,
        ..NodeOptions::new(replica)
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::with_bombs(seed, 0)
    }

    pub(super) fn with_bombs(seed: u64, bomb_every: u32) -> Self {
        quietly();
        let processes = (1..=NODES).map(|node| Process {
            disk: Simulated::new(seed * 8 + u64::from(node)),
            clock: Clock::manual(0),
            faults: Faults::default(),
            stopped: None,
            newest: 1,
            node: None,
            is_paused: false,
            is_gated_in_front: false,
            is_passive: false,
        });
        let mut world = Self {
            seed,
            random: Random::of(seed),
            now_ns: 1_000_000_000,
            processes: processes.collect(),
            flights: Vec::new(),
            cut: Default::default(),
            loss_percent: 0,
            clients: (0..4).map(|_| Client::default()).collect(),
            deposits_max: u32::MAX,
            is_gated: false,
            from_snapshots: 0,
            bomb_every,
            gives_up: false,
            begun_anew: 0,
            mutation: None,
            taken_back: 0,
            ahead: 0,
            outputs: BTreeMap::new(),
            looks: Vec::new(),
            hashes: BTreeMap::new(),
            hides_passive: false,
            led_passively: 0,
        };
        ALL.for_each(|at| world.start(at));
        world
    }

    /// A log that is given up, in small segments.
    pub(super) fn giving_up(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.gives_up = true;
        for (at, process) in world.processes.iter_mut().enumerate() {
            process.disk = Simulated::new(seed * 8 + at as u64);
        }
        world.begin_again()
    }

    /// Two nodes at one site and one at another, which is waited for.
    pub(super) fn gated(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.is_gated = true;
        world.begin_again()
    }

    /// Nodes that are all wrong in this way.
    pub(super) fn mutated(seed: u64, mutation: Mutation) -> Self {
        let mut world = Self::new(seed);
        world.mutation = Some(mutation);
        world.begin_again()
    }

    /// This node is passive.
    pub(super) fn with_passive(mut self, at: usize) -> Self {
        self.processes[at].is_passive = true;
        self.begin_again()
    }

    /// A passive node is made active, and its file says so from now on.
    pub(super) fn activate(&mut self, at: usize) {
        self.processes[at].is_passive = false;
        self.node_mut(at).activate().unwrap();
        self.until("it is active", |world| !world.node(at).is_passive());
        self.greet();
    }

    /// Every node is started once more, under other options.
    fn begin_again(mut self) -> Self {
        for at in ALL {
            self.processes[at].node = None;
            self.start(at);
        }
        self
    }

    /// It runs.
    pub(super) fn node(&self, at: usize) -> &Build {
        self.processes[at].node.as_ref().unwrap()
    }

    /// It runs.
    pub(super) fn node_mut(&mut self, at: usize) -> &mut Build {
        self.processes[at].node.as_mut().unwrap()
    }

    /// Why it stopped by itself, if it has.
    pub(super) fn stopped(&self, at: usize) -> Option<&str> {
        self.processes[at].stopped.as_deref()
    }

    /// The others of a node.
    pub(super) fn others(at: usize) -> impl Iterator<Item = usize> {
        ALL.filter(move |other| *other != at)
    }

    /// The end of the process, and another with this build.
    pub(super) fn restart_with(&mut self, at: usize, newest: u32) {
        self.kill(at);
        self.processes[at].newest = newest;
        self.start(at);
    }

    pub(super) fn start(&mut self, at: usize) {
        self.try_start(at)
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
    }

    /// It starts, or says why it does not.
    pub(super) fn try_start(&mut self, at: usize) -> Result<()> {
        let process = &mut self.processes[at];
        process.clock.set(self.now_ns);
        let mut options = options(id_of(at).0, self.seed, &process.clock);
        if self.is_gated {
            let of = [(1, "paris"), (2, "paris"), (3, "lyon")];
            let of = of.map(|(node, site)| (NodeId(node), site.to_owned()));
            options.replica.sites = Sites::new(of).gated();
        }
        options.replica.mutation = self.mutation;
        if process.is_gated_in_front {
            options.config.gate = GateAt::Logic;
        }
        options.is_passive = process.is_passive;
        if self.bomb_every != 0 {
            options.config.on_apply_panic = OnApplyPanic::Quarantine;
        }
        if self.gives_up {
            options.frame_bytes_max = 1024;
            options.config.segment_bytes = 32 << 10;
            options.config.snapshot_every = 40;
            options.config.retention = Retention::Snapshots;
        }
        let newest = process.newest;
        let node = Build::open(newest, process.disk.clone(), &options, &process.faults)?;
        let plan = &node.recovery().plan;
        assert_eq!(plan.passed_over, [], "seed {}", self.seed);
        self.from_snapshots += u32::from(plan.snapshot.is_some());
        process.stopped = None;
        process.node = Some(node);
        process.is_paused = false;
        self.greet();
        Ok(())
    }

    /// Who runs says which versions it has and whether it is passive, and hears it of the others.
    fn greet(&mut self) {
        let hides = self.hides_passive;
        let runs: Vec<(NodeId, u32, bool)> = (1..)
            .map(NodeId)
            .zip(&self.processes)
            .filter_map(|(id, process)| {
                let node = process.node.as_ref()?;
                Some((id, process.newest, node.is_passive() && !hides))
            })
            .collect();
        for node in self
            .processes
            .iter_mut()
            .filter_map(|process| process.node.as_mut())
        {
            for (id, newest, is_passive) in &runs {
                node.peer_runs(*id, *newest);
                node.peer_is_passive(*id, *is_passive);
            }
        }
    }

    /// The process is gone, and what was not synced, as far as the seed says.
    pub(super) fn kill(&mut self, at: usize) {
        self.processes[at].disk.crash();
        self.processes[at].node = None;
        self.flights
            .retain(|flight| flight.from != at && flight.to != at);
        for client in &mut self.clients {
            if client.asked.is_some_and(|(_, node)| node == at) {
                client.asked = None;
                client.leader = next_of(at);
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now_ns;
        // In order for each pair: the appends of a connection do not overtake each other.
        let (due, rest) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|flight| flight.due_ns <= now);
        self.flights = rest;
        for flight in due {
            let Flight {
                from, to, bytes, ..
            } = flight;
            if self.cut[from][to] {
                continue;
            }
            let Some(node) = self.processes[to].node.as_mut() else {
                continue;
            };
            let mut decoder = Decoder::new(Limits::for_events_of(64));
            decoder.push(&bytes);
            let message = decoder.next().unwrap().unwrap();
            // What is late or from before a restart is refused, and said so: nothing breaks of it.
            if let Err(ReceiveError::Fatal(fatal)) = node.receive(&message) {
                self.stop(to, &fatal.to_string());
            }
        }
    }

    /// A node came to its end by itself: right where something was planted.
    fn stop(&mut self, at: usize, why: &str) {
        let process = &self.processes[at];
        let is_planted = process.faults.are_planted()
            || (process.newest < 2 && why.contains("this build runs 1 to 1"));
        assert!(is_planted, "seed {}: node {}: {why}", self.seed, at + 1);
        self.kill(at);
        self.processes[at].stopped = Some(why.to_owned());
    }

    fn send(&mut self, from: usize, messages: Vec<(NodeId, Message)>) {
        for (to, message) in messages {
            let to = usize::from(to.0) - 1;
            if self.cut[from][to] || self.random.below(100) < self.loss_percent {
                continue;
            }
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let last = self
                .flights
                .iter()
                .rev()
                .find(|flight| (flight.from, flight.to) == (from, to));
            let earliest = last.map_or(0, |flight| flight.due_ns);
            let due_ns = (self.now_ns + 100_000 + self.random.below(900_000)).max(earliest);
            self.flights.push(Flight {
                due_ns,
                from,
                to,
                bytes,
            });
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.now_ns;
        let process = &mut self.processes[at];
        let Some(node) = process.node.as_mut().filter(|_| !process.is_paused) else {
            return;
        };
        process.clock.set(now);
        let (mut outbox, mut heard) = (Vec::new(), Heard::default());
        let before = node.taken_back();
        let turned = node.turn(now, &mut outbox, &mut heard);
        self.taken_back += node.taken_back() - before;
        let replica = node.replica();
        let both = replica.committed().min(replica.durable());
        self.ahead += u64::from(node.applied() > both);
        self.hear_outputs(at, both, &heard.outputs);
        if let Err(error) = turned {
            if matches!(error, Error::Agreement(Fatal::BegunAnew { .. })) {
                self.begun_anew += 1;
                // As a driver does: one that is being made active is, behind the snapshot.
                let is_asleep = self.node(at).is_asleep();
                let is_passive = std::mem::replace(&mut self.processes[at].is_passive, is_asleep);
                self.kill(at);
                self.start(at);
                self.processes[at].is_passive = is_passive;
                return;
            }
            return self.stop(at, &error.to_string());
        }
        self.send(at, outbox);
        for (token, what) in heard.what {
            self.hear(at, token, what);
        }
    }

    /// An output that a client is given is committed and durable, and nobody is ever given another in its place.
    fn hear_outputs(&mut self, at: usize, both: Position, outputs: &[Event64]) {
        for output in outputs {
            let (position, index) = (output.output().position, output.output().index);
            assert!(
                position < both.0,
                "seed {}: node {} gives an output of position {position}, and {both} is committed and durable there",
                self.seed,
                at + 1
            );
            let first = self.outputs.entry((position, index)).or_insert(*output);
            assert!(
                bytemuck::bytes_of(first) == bytemuck::bytes_of(output),
                "seed {}: node {} gives another output {index} of position {position}",
                self.seed,
                at + 1
            );
        }
    }

    /// Whoever looks at a state sees what stays: at one position all see the same.
    pub(super) fn look_around(&mut self) {
        let nodes = self.processes.iter();
        let nodes = nodes.filter_map(|process| process.node.as_ref());
        self.looks.extend(nodes.map(Build::state));
        let hashes = &mut self.hashes;
        self.looks.retain(|look| match look.try_recv() {
            Ok(seen) => {
                let hash = *hashes.entry(seen.position).or_insert(seen.hash);
                assert_eq!(hash, seen.hash, "seed {}: at {}", self.seed, seen.position);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        });
    }

    pub(super) fn step(&mut self) {
        self.now_ns += 200_000 + self.random.below(600_000);
        self.deliver();
        for number in 0..self.clients.len() {
            if self.random.below(4) == 0 {
                self.ask(number);
            }
        }
        let first = usize::try_from(self.random.below(u64::from(NODES))).unwrap();
        for at in ALL {
            self.turn((first + at) % ALL.len());
        }
        self.look_at_passive();
    }

    /// `PA1`: who has no logic lets nobody in, and has applied nothing.
    fn look_at_passive(&mut self) {
        for process in &self.processes {
            let Some(node) = process.node.as_ref().filter(|node| node.is_asleep()) else {
                continue;
            };
            assert!(
                !node.is_open(),
                "seed {}: a passive node is open",
                self.seed
            );
            assert_eq!(node.applied(), Position(0), "seed {}", self.seed);
            self.led_passively += u32::from(node.replica().view().role == Role::Leader);
        }
    }

    /// Something goes wrong, or gets better.
    pub(super) fn trouble(&mut self) {
        let at = usize::try_from(self.random.below(u64::from(NODES))).unwrap();
        let other = (at + 1 + usize::try_from(self.random.below(2)).unwrap()) % ALL.len();
        match self.random.below(8) {
            0 | 1 if self.processes[at].node.is_some() => self.kill(at),
            0..=2 if self.processes[at].node.is_none() => self.start(at),
            3 => self.processes[at].is_paused = !self.processes[at].is_paused,
            4 => self.cut[at][other] = true,
            5 => {
                let leader = self.leader();
                if let Some(node) = leader.and_then(|at| self.processes[at].node.as_mut()) {
                    let _refused = node.transfer_to(id_of(other));
                }
            }
            6 => self.loss_percent = self.random.below(20),
            _ => {
                self.cut = Default::default();
                self.loss_percent = 0;
            }
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.node.as_ref().is_some_and(Build::is_open))
    }

    pub(super) fn heal(&mut self) {
        self.cut = Default::default();
        self.loss_percent = 0;
        for at in ALL {
            self.processes[at].is_paused = false;
            if self.processes[at].node.is_none() {
                self.start(at);
            }
        }
    }

    /// Runs until it is so.
    pub(super) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("seed {}: {what} does not come", self.seed);
    }

    /// Runs until every node has everything.
    pub(super) fn level(&mut self) {
        self.until("every node at the end", |world| {
            let applied = |process: &Process| process.node.as_ref().map(Build::applied);
            let end = world.processes.iter().map(applied).max();
            let mut all = world.processes.iter();
            all.all(|process| Some(applied(process)) == end) && world.leader().is_some()
        });
    }

    /// Runs until every client has the answer to this request.
    pub(super) fn until_answered(&mut self, request: u32) {
        self.until(&format!("every answer to request {request}"), |world| {
            world.clients.iter().all(|client| client.request > request)
        });
    }

    /// Runs until there is a leader: which.
    pub(super) fn until_led(&mut self) -> usize {
        self.until("a leader", |world| world.leader().is_some());
        self.leader().unwrap()
    }

    /// The newest request of any client.
    pub(super) fn asked(&self) -> u32 {
        let asked = self.clients.iter().map(|client| client.request);
        asked.max().unwrap()
    }

    /// How many requests were answered.
    pub(super) fn answers(&self) -> usize {
        self.clients.iter().map(|client| client.answers.len()).sum()
    }

    /// Everybody asks so many times more, and hears every answer; then all nodes agree.
    pub(super) fn finish(&mut self, more: u32) -> Seen {
        self.deposits_max = self.asked() + more;
        self.until_answered(self.deposits_max);
        self.agree()
    }

    /// Runs until every node has everything: then all have the same state, which is returned.
    pub(super) fn agree(&mut self) -> Seen {
        self.level();
        let mut states = self.states();
        let all_agree = states.iter().all(|state| *state == states[0]);
        assert!(all_agree, "seed {}: {states:?}", self.seed);
        states.swap_remove(0)
    }

    /// Whoever replays the log of any node comes to the same state.
    pub(super) fn replay_agrees(&self, seen: &Seen) {
        let range = replay::Range {
            until: Some(Position(seen.position)),
            ..replay::Range::default()
        };
        for process in &self.processes {
            let replay = Replay::open_on(process.disk.clone(), Flaky::<2>::default, range);
            let mut told = self.outputs.clone();
            let summary = replay.unwrap().run(|output| {
                let header = output.output();
                let told = told.remove(&(header.position, header.index));
                let is_it =
                    told.is_none_or(|told| bytemuck::bytes_of(&told) == bytemuck::bytes_of(output));
                assert!(is_it, "seed {}: {header:?} was told otherwise", self.seed);
            });
            assert_eq!(summary.unwrap().state_hash, seen.hash, "seed {}", self.seed);
            assert!(
                told.is_empty(),
                "seed {}: outputs of no event: {told:?}",
                self.seed
            );
        }
    }

    /// What each node has in its state.
    pub(super) fn states(&mut self) -> Vec<Seen> {
        let looks: Vec<_> = ALL.map(|at| self.node(at).state()).collect();
        ALL.for_each(|at| self.turn(at));
        looks.iter().map(|look| look.try_recv().unwrap()).collect()
    }
}
