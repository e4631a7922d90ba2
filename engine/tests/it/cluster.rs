//! Three whole nodes in one thread, from a seed: real order, agreement, journal, logic and egress over
//! simulated disks and a network that loses, delays and cuts. What a client was told holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use lockstep_engine::cluster::{Asker, ClusterNode, Done, NoSwitch, NodeOptions, Refused, request};
use lockstep_engine::core::Core;
use lockstep_engine::node::recovery::Recovery;
use lockstep_engine::prelude::*;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::system::{SessionOpen, code};
use lockstep_engine::{Clock, Config, Error, OnApplyPanic, Retention};
use lockstep_journaler::Background;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::wire::{Decoder, Limits, Message};
use lockstep_replicator::{
    Fatal, Gating, NodeId, OfferError, ReceiveError, Replica, ReplicaOptions, Sites,
};

use crate::bank::{Bank, BankIn, BankOut, Bomb, Deposit, deposit};
use crate::quarantine::quietly;

const NODES: u16 = 3;
const TICK_NS: u64 = 10_000_000;
/// A client that has no answer for so long asks again.
const PATIENCE_NS: u64 = 400_000_000;

/// Whoever asks with this token hears nothing.
const NOBODY: u64 = u64::MAX;

/// Numbers from a seed.
struct Random(u64);

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

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// A client that deposits 1 on its own account, one request after the other.
#[derive(Default)]
struct Client {
    session: Option<u64>,
    request: u32,
    /// What it waits for: since when, and at which node.
    asked: Option<(u64, usize)>,
    leader: usize,
    /// The position of each answer, by request.
    answers: BTreeMap<u32, u64>,
}

/// What the clients heard in one turn.
#[derive(Default)]
struct Heard(Vec<(u64, Result<Done, bool>)>);

impl Asker<Event64> for Heard {
    fn output(&mut self, _: u64, _: &Event64) {}
    fn done(&mut self, token: u64, done: Done) {
        self.0.push((token, Ok(done)));
    }
    fn not_led(&mut self, token: u64) {
        self.0.push((token, Err(true)));
    }
    fn unknown(&mut self, token: u64) {
        self.0.push((token, Err(false)));
    }
}

/// What goes wrong on one node only. Not part of the state: as broken memory is not.
#[derive(Clone)]
struct Faults {
    /// From this position on every deposit is one cent more.
    wrong_from: Arc<AtomicU64>,
    /// From this position on every deposit panics.
    panics_from: Arc<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Self {
        let never = || Arc::new(AtomicU64::new(u64::MAX));
        Self {
            wrong_from: never(),
            panics_from: never(),
        }
    }
}

impl Faults {
    fn are_planted(&self) -> bool {
        let is_set = |from: &AtomicU64| from.load(Ordering::Relaxed) != u64::MAX;
        is_set(&self.wrong_from) || is_set(&self.panics_from)
    }
}

/// The bank, in the versions from 1 to `NEWEST`; on one node it may do another thing than on the others.
struct Flaky<const NEWEST: u32> {
    bank: Bank,
    faults: Faults,
}

impl<const NEWEST: u32> State for Flaky<NEWEST> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.bank.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            bank: Bank::load(from)?,
            faults: Faults::default(),
        })
    }
}

impl<const NEWEST: u32> Logic for Flaky<NEWEST> {
    type In = BankIn<'static>;
    type Out = BankOut<'static>;
    const VERSIONS: std::ops::RangeInclusive<u32> = 1..=NEWEST;

    fn validate(&self, event: BankIn<'_>, context: &Context) -> Result<(), Reject> {
        self.bank.validate(event, context)
    }

    fn apply(
        &mut self,
        event: BankIn<'_>,
        context: &Context,
        out: &mut Outputs<'_, BankOut<'static>>,
    ) {
        // From version 2 on every deposit counts twice.
        if let (BankIn::Deposit(deposit), true) = (event, context.version() >= 2) {
            *self.bank.balances.entry(deposit.account) += deposit.cents;
            self.bank.total += deposit.cents;
        }
        self.bank.apply(event, context, out);
        let is_due = context.position().0 >= self.faults.panics_from.load(Ordering::Relaxed);
        assert!(!is_due, "a bomb on one node");
        if context.position().0 >= self.faults.wrong_from.load(Ordering::Relaxed) {
            *self.bank.balances.entry(0) += 1;
            self.bank.total += 1;
        }
    }
}

/// A node of either build.
enum Build {
    Old(ClusterNode<Flaky<1>, Simulated>),
    New(ClusterNode<Flaky<2>, Simulated>),
}

macro_rules! each {
    ($build:expr, $node:ident => $what:expr) => {
        match $build {
            Build::Old($node) => $what,
            Build::New($node) => $what,
        }
    };
}

impl Build {
    fn open(
        newest: u32,
        disk: Simulated,
        options: &NodeOptions,
        faults: &Faults,
    ) -> lockstep_engine::Result<Self> {
        fn fresh<const NEWEST: u32>(faults: &Faults) -> impl Fn() -> Flaky<NEWEST> + use<NEWEST> {
            let faults = faults.clone();
            move || Flaky {
                bank: Bank::default(),
                faults: faults.clone(),
            }
        }
        Ok(match newest {
            1 => Self::Old(ClusterNode::open(disk, options, fresh(faults))?),
            _ => Self::New(ClusterNode::open(disk, options, fresh(faults))?),
        })
    }

    fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        each!(self, node => node.receive(message))
    }

    fn turn(
        &mut self,
        now_ns: u64,
        outbox: &mut Vec<(NodeId, Message)>,
        heard: &mut Heard,
    ) -> lockstep_engine::Result<bool> {
        each!(self, node => node.turn(now_ns, outbox, heard))
    }

    fn let_in(&mut self, token: u64, event: &Event64) -> Result<Position, Refused> {
        each!(self, node => node.let_in(token, event))
    }

    fn transfer_to(&mut self, to: NodeId) -> Result<(), OfferError> {
        each!(self, node => node.transfer_to(to))
    }

    fn go_by(&mut self, word: Gating) -> Result<(), OfferError> {
        each!(self, node => node.go_by(word))
    }

    fn peer_runs(&mut self, peer: NodeId, newest: u32) {
        each!(self, node => node.peer_runs(peer, 1..=newest));
    }

    fn switch_version(&mut self, version: u32) -> Result<Position, NoSwitch> {
        each!(self, node => node.switch_version(NOBODY, version))
    }

    fn version(&self) -> u32 {
        each!(self, node => node.version())
    }

    fn is_open(&self) -> bool {
        each!(self, node => node.is_open())
    }

    fn applied(&self) -> Position {
        each!(self, node => node.applied())
    }

    fn replica(&self) -> &Replica<Simulated> {
        each!(self, node => node.replica())
    }

    fn recovery(&self) -> &Recovery {
        each!(self, node => node.recovery())
    }

    fn close(self) -> lockstep_engine::Result<()> {
        each!(self, node => node.close(&mut Heard::default()))
    }

    /// Position, hash and balances, with the next turn.
    fn state(&self) -> Receiver<(u64, u64, Vec<i64>)> {
        fn state<const NEWEST: u32>(core: &Core<Flaky<NEWEST>>) -> (u64, u64, Vec<i64>) {
            let of = |account| core.logic().bank.balances.get(&account).copied();
            let balances = (0..4).map(|account| of(account).unwrap_or(0));
            (core.position().0, core.state_hash(), balances.collect())
        }
        each!(self, node => node.look(Position(0), state).unwrap())
    }
}

struct Process {
    disk: Simulated,
    clock: Clock,
    faults: Faults,
    /// Why it stopped by itself.
    stopped: Option<String>,
    /// `None` while it is down.
    node: Option<Build>,
    /// Which build is started: the newest version of the logic that it has.
    newest: u32,
    is_paused: bool,
}

struct Flight {
    due_ns: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

struct World {
    seed: u64,
    random: Random,
    now_ns: u64,
    processes: Vec<Process>,
    flights: Vec<Flight>,
    /// The link from one to the other is cut.
    cut: [[bool; NODES as usize]; NODES as usize],
    loss_percent: u64,
    clients: Vec<Client>,
    deposits_max: u32,
    /// Node 3 is at another site, and is waited for.
    is_gated: bool,
    /// Starts that began with a snapshot.
    from_snapshots: u32,
    /// The log is given up behind snapshots.
    gives_up: bool,
    /// Nodes that came back by a snapshot of another.
    begun_anew: u32,
    /// One request of so many is one on which the logic panics; 0: none.
    bomb_every: u32,
}

/// Whether this request of a client is one on which the logic panics.
fn is_bomb(every: u32, number: usize, request: u32) -> bool {
    let number = u32::try_from(number).unwrap();
    every != 0 && (request + number).is_multiple_of(every)
}

fn options(node: u16, seed: u64, clock: &Clock) -> NodeOptions {
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
            ..Config::default()
        },
        clock: clock.clone(),
        background: Background::Stepped,
        ..NodeOptions::new(replica)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with_bombs(seed, 0)
    }

    fn with_bombs(seed: u64, bomb_every: u32) -> Self {
        quietly();
        let processes = (1..=NODES).map(|node| Process {
            disk: Simulated::new(seed * 8 + u64::from(node)),
            clock: Clock::manual(0),
            faults: Faults::default(),
            stopped: None,
            newest: 1,
            node: None,
            is_paused: false,
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
        };
        (0..usize::from(NODES)).for_each(|at| world.start(at));
        world
    }

    /// A log that is given up, in small segments.
    fn giving_up(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.gives_up = true;
        for at in 0..usize::from(NODES) {
            world.processes[at].node = None;
            world.processes[at].disk = Simulated::new(seed * 8 + at as u64);
            world.start(at);
        }
        world
    }

    /// Two nodes at one site and one at another, which is waited for.
    fn gated(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.is_gated = true;
        for at in 0..usize::from(NODES) {
            world.processes[at].node = None;
            world.start(at);
        }
        world
    }

    fn start(&mut self, at: usize) {
        let process = &mut self.processes[at];
        process.clock.set(self.now_ns);
        let number = u16::try_from(at).unwrap() + 1;
        let mut options = options(number, self.seed, &process.clock);
        if self.is_gated {
            let of = [(1, "paris"), (2, "paris"), (3, "lyon")];
            let of = of.map(|(node, site)| (NodeId(node), site.to_owned()));
            options.replica.sites = Sites::new(of).gated();
        }
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
        let node = Build::open(newest, process.disk.clone(), &options, &process.faults);
        let node = node.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let plan = &node.recovery().plan;
        assert_eq!(plan.passed_over, [], "seed {}", self.seed);
        self.from_snapshots += u32::from(plan.snapshot.is_some());
        process.stopped = None;
        process.node = Some(node);
        process.is_paused = false;
        self.greet();
    }

    /// Who runs says which versions it has, and hears it of the others.
    fn greet(&mut self) {
        let runs: Vec<(NodeId, u32)> = (1..)
            .map(NodeId)
            .zip(&self.processes)
            .filter_map(|(id, process)| process.node.as_ref().map(|_| (id, process.newest)))
            .collect();
        for node in self
            .processes
            .iter_mut()
            .filter_map(|process| process.node.as_mut())
        {
            runs.iter()
                .for_each(|(id, newest)| node.peer_runs(*id, *newest));
        }
    }

    /// The process is gone, and what was not synced, as far as the seed says.
    fn kill(&mut self, at: usize) {
        self.processes[at].disk.crash();
        self.processes[at].node = None;
        self.flights
            .retain(|flight| flight.from != at && flight.to != at);
        for client in &mut self.clients {
            if client.asked.is_some_and(|(_, node)| node == at) {
                client.asked = None;
                client.leader = (at + 1) % usize::from(NODES);
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
        if let Err(error) = node.turn(now, &mut outbox, &mut heard) {
            if matches!(error, Error::Agreement(Fatal::BegunAnew { .. })) {
                self.begun_anew += 1;
                self.kill(at);
                return self.start(at);
            }
            return self.stop(at, &error.to_string());
        }
        self.send(at, outbox);
        for (token, what) in heard.0 {
            self.hear(at, token, what);
        }
    }

    fn hear(&mut self, at: usize, token: u64, what: Result<Done, bool>) {
        if token == NOBODY {
            return;
        }
        let number = usize::try_from(token >> 32).unwrap();
        let asked_for = u32::try_from(token & u64::from(u32::MAX)).unwrap();
        let client = &mut self.clients[number];
        let is_current =
            client.request == asked_for && client.asked.is_some_and(|(_, node)| node == at);
        match what {
            Ok(done) if done.code == 0 && asked_for == 0 => {
                if client.session.is_none() {
                    client.session = Some(done.position.0 + 1);
                    (client.request, client.asked) = (1, None);
                }
            }
            Ok(done)
                if done.code == 0 && !is_bomb(self.bomb_every, number, asked_for)
                    || done.code == code::QUARANTINED
                        && is_bomb(self.bomb_every, number, asked_for) =>
            {
                let position = done.first.unwrap_or(done.position).0;
                let first = client.answers.entry(asked_for).or_insert(position);
                assert_eq!(
                    *first, position,
                    "seed {}: a repeated request got another answer",
                    self.seed
                );
                if is_current {
                    (client.request, client.asked) = (asked_for + 1, None);
                }
            }
            Ok(done) => panic!(
                "seed {}: client {number}, request {asked_for}: {done:?}",
                self.seed
            ),
            Err(_) if is_current => {
                client.asked = None;
                client.leader = (at + 1) % usize::from(NODES);
            }
            Err(_) => {}
        }
    }

    fn ask(&mut self, number: usize) {
        let now = self.now_ns;
        let client = &mut self.clients[number];
        if client
            .asked
            .is_some_and(|(since, _)| now - since > PATIENCE_NS)
        {
            client.asked = None;
            client.leader = (client.leader + 1) % usize::from(NODES);
        }
        if client.asked.is_some() || client.request > self.deposits_max {
            return;
        }
        let at = client.leader;
        let account = u64::try_from(number).unwrap();
        let event: Event64 = match client.session {
            None => Event64::event(&SessionOpen { tag: account }),
            Some(session) if is_bomb(self.bomb_every, number, client.request) => {
                let is_armed_in_validate = 0;
                let bomb = Bomb {
                    account,
                    is_armed_in_validate,
                };
                request(session, client.request, &bomb)
            }
            Some(session) => request(session, client.request, &Deposit { account, cents: 1 }),
        };
        let token = account << 32 | u64::from(client.request);
        let process = &mut self.processes[at];
        let Some(node) = process.node.as_mut().filter(|_| !process.is_paused) else {
            client.leader = (at + 1) % usize::from(NODES);
            return;
        };
        match node.let_in(token, &event) {
            Ok(_) => client.asked = Some((now, at)),
            Err(Refused::Busy) => {}
            Err(Refused::NotLeading { leader }) => {
                client.leader = leader.map_or((at + 1) % usize::from(NODES), |leader| {
                    usize::from(leader.0) - 1
                });
            }
        }
    }

    fn step(&mut self) {
        self.now_ns += 200_000 + self.random.below(600_000);
        self.deliver();
        for number in 0..self.clients.len() {
            if self.random.below(4) == 0 {
                self.ask(number);
            }
        }
        let first = usize::try_from(self.random.below(u64::from(NODES))).unwrap();
        for at in 0..usize::from(NODES) {
            self.turn((first + at) % usize::from(NODES));
        }
    }

    /// Something goes wrong, or gets better.
    fn trouble(&mut self) {
        let at = usize::try_from(self.random.below(u64::from(NODES))).unwrap();
        let other = (at + 1 + usize::try_from(self.random.below(2)).unwrap()) % usize::from(NODES);
        match self.random.below(8) {
            0 | 1 if self.processes[at].node.is_some() => self.kill(at),
            0..=2 if self.processes[at].node.is_none() => self.start(at),
            3 => self.processes[at].is_paused = !self.processes[at].is_paused,
            4 => self.cut[at][other] = true,
            5 => {
                let leader = self.leader();
                let to = NodeId(u16::try_from(other).unwrap() + 1);
                if let Some(node) = leader.and_then(|at| self.processes[at].node.as_mut()) {
                    let _refused = node.transfer_to(to);
                }
            }
            6 => self.loss_percent = self.random.below(20),
            _ => {
                self.cut = Default::default();
                self.loss_percent = 0;
            }
        }
    }

    fn leader(&self) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.node.as_ref().is_some_and(Build::is_open))
    }

    fn heal(&mut self) {
        self.cut = Default::default();
        self.loss_percent = 0;
        for at in 0..usize::from(NODES) {
            self.processes[at].is_paused = false;
            if self.processes[at].node.is_none() {
                self.start(at);
            }
        }
    }

    /// Runs until it is so.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("seed {}: {what} does not come", self.seed);
    }

    /// Runs until every node has everything.
    fn level(&mut self) {
        self.until("every node at the end", |world| {
            let applied = |process: &Process| process.node.as_ref().map(Build::applied);
            let end = world.processes.iter().map(applied).max();
            let mut all = world.processes.iter();
            all.all(|process| Some(applied(process)) == end) && world.leader().is_some()
        });
    }

    /// Whoever replays the log of any node comes to the same state.
    fn replay_agrees(&self, (position, state_hash, _): &(u64, u64, Vec<i64>)) {
        let range = Range {
            until: Some(Position(*position)),
            ..Range::default()
        };
        for process in &self.processes {
            let fresh = || Flaky::<2> {
                bank: Bank::default(),
                faults: Faults::default(),
            };
            let replay = Replay::open_on(process.disk.clone(), fresh, range);
            let summary = replay.unwrap().run(|_| ()).unwrap();
            assert_eq!(summary.state_hash, *state_hash, "seed {}", self.seed);
        }
    }

    /// What each node has in its state: balances, position and hash.
    fn states(&mut self) -> Vec<(u64, u64, Vec<i64>)> {
        let looks: Vec<_> = self
            .processes
            .iter()
            .map(|process| process.node.as_ref().unwrap().state())
            .collect();
        (0..usize::from(NODES)).for_each(|at| self.turn(at));
        looks.iter().map(|look| look.try_recv().unwrap()).collect()
    }
}

/// How many seeds a campaign has.
fn seeds() -> Option<u64> {
    std::env::var("LOCKSTEP_SEEDS").ok()?.parse().ok()
}

/// A life full of trouble; then all is well, and everything is compared. How many starts began with a
/// snapshot.
fn run(seed: u64, bomb_every: u32) -> u32 {
    let mut world = World::with_bombs(seed, bomb_every);
    world.until("a first leader", |world| world.leader().is_some());
    for _ in 0..25 {
        for _ in 0..80 {
            world.step();
        }
        world.trouble();
    }
    world.heal();
    let goal = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap_or(0)
        + 5;
    world.deposits_max = goal;
    world.until("every answer", |world| {
        world.clients.iter().all(|client| client.request > goal)
    });
    world.level();
    let states = world.states();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?}"
    );
    world.replay_agrees(&states[0]);
    for (number, (client, balance)) in world.clients.iter().zip(&states[0].2).enumerate() {
        let requests = 1..=goal;
        let bombs = requests.filter(|request| is_bomb(bomb_every, number, *request));
        let bombs = u32::try_from(bombs.count()).unwrap();
        assert_eq!(
            u64::try_from(client.answers.len()).unwrap(),
            u64::from(goal),
            "seed {seed}"
        );
        assert_eq!(
            *balance,
            i64::from(goal - bombs),
            "seed {seed}: applied not exactly once"
        );
        let positions: Vec<u64> = client.answers.values().copied().collect();
        assert!(positions.is_sorted(), "seed {seed}: {positions:?}");
    }
    world.from_snapshots
}

#[test]
fn what_clients_were_told_holds_through_crashes_partitions_and_transfers() {
    let seeds = 1..=seeds().unwrap_or(20);
    let from_snapshots: u32 = seeds.map(|seed| run(seed, 0)).sum();
    assert!(from_snapshots > 10, "only {from_snapshots}");
}

#[test]
fn a_node_starts_behind_its_snapshot_whatever_was_replaced_behind_it() {
    let mut world = World::new(2);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    for round in 1..=4 {
        world.until("answers", |world| is_done(world, round * 30));
        // Whoever leads is alone with what it takes from now on, which the others replace.
        let leader = world.leader().unwrap();
        for other in (0..usize::from(NODES)).filter(|at| *at != leader) {
            world.cut[leader][other] = true;
        }
        (0..40).for_each(|_| world.step());
        world.heal();
        world.until("answers", |world| is_done(world, round * 30 + 10));
    }
    world.deposits_max = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap();
    world.until("all answers", |world| is_done(world, world.deposits_max));
    world.level();
    let before = world.states();
    (0..usize::from(NODES)).for_each(|at| world.kill(at));
    (0..usize::from(NODES)).for_each(|at| world.start(at));
    for process in &world.processes {
        let recovery = process.node.as_ref().unwrap().recovery();
        assert!(recovery.plan.snapshot.is_some(), "{recovery:?}");
        assert!(recovery.plan.events < 200, "{recovery:?}");
    }
    world.level();
    let behind = world.states();
    assert!(behind.iter().all(|state| state.2 == before[0].2));
}

#[test]
fn qu_what_the_logic_panics_on_is_in_quarantine_everywhere_through_crashes_and_partitions() {
    for seed in 1..=seeds().unwrap_or(6) {
        run(seed, 5 + u32::try_from(seed % 17).unwrap());
    }
}

#[test]
fn a_planned_transfer_and_a_closed_cluster_go_on_where_they_were() {
    let mut world = World::new(7);
    world.deposits_max = 30;
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let other = (leader + 1) % usize::from(NODES);
    let to = NodeId(u16::try_from(other).unwrap() + 1);
    world.processes[leader]
        .node
        .as_mut()
        .unwrap()
        .transfer_to(to)
        .unwrap();
    world.until("the other leads", |world| world.leader() == Some(other));
    world.until("twenty answers", |world| is_done(world, 20));
    for at in 0..usize::from(NODES) {
        let node = world.processes[at].node.take().unwrap();
        node.close().unwrap();
        world.start(at);
        let journal = &world.processes[at]
            .node
            .as_ref()
            .unwrap()
            .recovery()
            .journal;
        assert_eq!(journal, "closed in order");
    }
    for client in &mut world.clients {
        client.asked = None;
    }
    world.until("thirty answers", |world| is_done(world, 30));
    world.level();
    let states = world.states();
    assert_eq!(states[0].2, [30; 4]);
}

/// One node does another thing than the others, from some position on: it stops by name, whoever leads,
/// and they go on.
fn one_is_wrong(seed: u64, is_leader: bool) {
    let mut world = World::new(seed);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let wrong = if is_leader {
        leader
    } else {
        (leader + 1) % usize::from(NODES)
    };
    let applied = |world: &World, at: usize| world.processes[at].node.as_ref().map(Build::applied);
    let from = applied(&world, wrong).unwrap().0;
    world.processes[wrong]
        .faults
        .wrong_from
        .store(from, Ordering::Relaxed);
    world.until("the wrong one stops", |world| {
        world.processes[wrong].stopped.is_some()
    });
    let why = world.processes[wrong].stopped.clone().unwrap();
    let name = format!("node {} has", wrong + 1);
    let is_named = why.contains(&name) && why.contains("a majority agrees on another one");
    assert!(is_named, "{why}");
    let goal = 60;
    world.until("the others go on", |world| is_done(world, goal));
    let others = (0..usize::from(NODES)).filter(|at| *at != wrong);
    let others: Vec<usize> = others.collect();
    assert!(
        others
            .iter()
            .all(|at| world.processes[*at].stopped.is_none())
    );
    // The log says what was right: whoever replays it wrongly is told where.
    let end = applied(&world, others[0]).unwrap();
    world.until("the log is marked", |world| {
        let replica = world.processes[others[0]].node.as_ref().map(Build::replica);
        replica
            .and_then(|replica| replica.agreed_state())
            .is_some_and(|agreed| agreed.position > end.0)
    });
    world.processes[wrong]
        .faults
        .wrong_from
        .store(u64::MAX, Ordering::Relaxed);
    world.start(wrong);
    world.deposits_max = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap();
    world.level();
    let states = world.states();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?}"
    );
}

#[test]
fn cn4_a_follower_with_another_state_stops_by_name_and_the_others_go_on() {
    (1..=4).for_each(|seed| one_is_wrong(seed, false));
}

#[test]
fn cn4_a_leader_with_another_state_stops_by_name_and_the_others_go_on() {
    (1..=4).for_each(|seed| one_is_wrong(seed, true));
}

#[test]
fn cn4_two_that_differ_go_on_until_a_third_tells_which_is_right() {
    let mut world = World::new(5);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let third = (leader + 1) % usize::from(NODES);
    world.kill(third);
    let node = world.processes[leader].node.as_ref().unwrap();
    let from = node.applied().0;
    world.processes[leader]
        .faults
        .wrong_from
        .store(from, Ordering::Relaxed);
    world.until("an alarm", |world| {
        let node = world.processes[leader].node.as_ref();
        node.is_some_and(|node| node.replica().disputed_state().is_some())
    });
    world.until("they go on", |world| is_done(world, 40));
    assert!(
        world
            .processes
            .iter()
            .all(|process| process.stopped.is_none())
    );
    world.start(third);
    world.until("the leader stops", |world| {
        world.processes[leader].stopped.is_some()
    });
    world.until("the others go on", |world| is_done(world, 80));
}

/// Each node is stopped and started with the new build, one after the other, the leader last; then the log
/// goes to version 2.
fn upgraded(seed: u64) -> (World, Position) {
    let mut world = World::new(seed);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let ask = |world: &mut World, version| {
        let leader = world.leader().unwrap();
        world.processes[leader]
            .node
            .as_mut()
            .unwrap()
            .switch_version(version)
    };
    let refused = ask(&mut world, 2).unwrap_err().to_string();
    assert!(
        refused.contains("node 1 runs versions 1 to 1, not 2"),
        "{refused}"
    );
    let mut goal = 20;
    let followers = (0..usize::from(NODES)).filter(|at| *at != leader);
    for at in followers.collect::<Vec<_>>().into_iter().chain([leader]) {
        world.kill(at);
        world.processes[at].newest = 2;
        world.start(at);
        world.until("answers meanwhile", |world| is_done(world, goal));
        goal += 10;
    }
    world.until("a leader", |world| world.leader().is_some());
    let back = ask(&mut world, 1).unwrap_err().to_string();
    assert!(back.contains("never goes back"), "{back}");
    let refused = ask(&mut world, 3).unwrap_err().to_string();
    assert!(refused.contains("runs versions 1 to 2, not 3"), "{refused}");
    let at = ask(&mut world, 2).unwrap();
    (world, at)
}

/// Every deposit counts once before the switch and twice behind it.
fn counted(world: &World, at: Position) -> Vec<i64> {
    let of = |client: &Client| {
        let positions = client.answers.values();
        positions
            .map(|position| if *position > at.0 { 2 } else { 1 })
            .sum()
    };
    world.clients.iter().map(of).collect()
}

#[test]
fn every_node_goes_to_a_new_version_at_one_position_under_load() {
    for seed in 1..=3 {
        let (mut world, at) = upgraded(seed);
        let is_done =
            |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
        world.until("answers in version 2", |world| is_done(world, 80));
        world.deposits_max = world
            .clients
            .iter()
            .map(|client| client.request)
            .max()
            .unwrap();
        let all = world.deposits_max;
        world.until("the last answers", |world| is_done(world, all));
        world.level();
        let states = world.states();
        assert!(
            states.iter().all(|state| *state == states[0]),
            "seed {seed}: {states:?}"
        );
        assert_eq!(states[0].2, counted(&world, at), "seed {seed}");
        // The same by the log alone.
        for at in 0..usize::from(NODES) {
            world.kill(at);
            world.start(at);
        }
        world.level();
        assert_eq!(world.states()[0].2, states[0].2, "seed {seed}");
        let versions = world
            .processes
            .iter()
            .filter_map(|process| process.node.as_ref());
        assert!(versions.into_iter().all(|node| node.version() == 2));
    }
}

#[test]
fn a_node_that_cannot_run_the_version_stops_at_it_by_name_and_the_others_go_on() {
    let mut world = World::new(4);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    for at in 0..usize::from(NODES) {
        world.kill(at);
        world.processes[at].newest = 2;
        world.start(at);
    }
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let old = (leader + 1) % usize::from(NODES);
    // It said that it can, and comes back with the build before: nobody can know that.
    world.kill(old);
    let switched = world.processes[leader]
        .node
        .as_mut()
        .unwrap()
        .switch_version(2);
    let at = switched.unwrap();
    world.processes[old].newest = 1;
    world.start(old);
    world.until("it stops", |world| world.processes[old].stopped.is_some());
    let why = world.processes[old].stopped.clone().unwrap();
    let name = format!("version 2 of the logic at position {at}");
    assert!(why.contains(&name), "{why}");
    world.until("the others go on", |world| is_done(world, 30));
    // Its log has the switch by now, mostly: then it does not even start.
    world.processes[old].newest = 2;
    world.start(old);
    world.deposits_max = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap();
    let all = world.deposits_max;
    world.until("the last answers", |world| is_done(world, all));
    world.level();
    let states = world.states();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    assert_eq!(states[0].2, counted(&world, at));
}

#[test]
fn answers_wait_for_the_other_site_until_an_operator_says_otherwise() {
    let mut world = World::gated(3);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    // Node 3 is the other site: without it a majority is there, and nothing is answered.
    world.kill(2);
    world.until("frames that wait", |world| {
        let leader = world
            .leader()
            .and_then(|at| world.processes[at].node.as_ref());
        leader.is_some_and(|node| node.replica().frames_held_by_site() > 0)
    });
    let answers = |world: &World| -> usize {
        world
            .clients
            .iter()
            .map(|client| client.answers.len())
            .sum()
    };
    let before = answers(&world);
    (0..3000).for_each(|_| world.step());
    // Who was committed and not told yet may have been told.
    assert!(
        answers(&world) <= before + 4,
        "answers without the other site"
    );
    let leader = world.leader().unwrap();
    let tell = |world: &mut World, at: usize, word: Gating| {
        world.processes[at]
            .node
            .as_mut()
            .unwrap()
            .go_by(word)
            .unwrap();
    };
    tell(&mut world, leader, Gating::Degraded);
    let more = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap()
        + 10;
    world.until("answers again", |world| is_done(world, more));
    // The word is in the log: whoever leads next goes by it, and nobody tells that one.
    let other = 1 - leader;
    world.kill(leader);
    world.start(leader);
    world.processes[leader].is_paused = false;
    world.until("a leader", |world| world.leader().is_some());
    let more = more + 10;
    world.until("answers of whoever leads", |world| is_done(world, more));
    let degraded = |world: &World, at: usize| {
        let node = world.processes[at].node.as_ref();
        node.and_then(|node| node.replica().gating()) == Some(Gating::Degraded)
    };
    assert!(degraded(&world, leader) && degraded(&world, other));
    // And back, when the other site is there again.
    world.start(2);
    let leader = world.leader().unwrap();
    tell(&mut world, leader, Gating::Sites);
    let more = more + 10;
    world.until("answers with both sites", |world| is_done(world, more));
    world.deposits_max = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap();
    world.level();
    let all = 0..usize::from(NODES);
    assert!(all.clone().all(|at| !degraded(&world, at)));
    let states = world.states();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// Where the log of a node begins, as its agreement has it, and on its disk.
fn begins(world: &World, at: usize) -> (u64, u64) {
    let process = &world.processes[at];
    let node = process.node.as_ref().unwrap();
    let segments = lockstep_journaler::directory::segments(&process.disk).unwrap();
    (
        node.replica().index().base().reached.position.0,
        segments[0].0,
    )
}

/// A node that is down until the others have given up what it needs comes back by a snapshot of one of
/// them; then the others do, one after the other.
fn comes_back(seed: u64) {
    let mut world = World::giving_up(seed);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    let applied = |world: &World, at: usize| {
        let node = world.processes[at].node.as_ref();
        node.map(Build::applied)
    };
    world.until("ten answers", |world| is_done(world, 10));
    for gone in 0..usize::from(NODES) {
        let end = applied(&world, gone).unwrap().0;
        world.kill(gone);
        world.until("logs that begin behind its end", |world| {
            let mut others = (0..usize::from(NODES)).filter(|at| *at != gone);
            others.all(|at| {
                let (base, segment) = begins(world, at);
                base > end && segment > 0
            })
        });
        let before = world.begun_anew;
        world.start(gone);
        world.until("a snapshot of another", |world| world.begun_anew > before);
        world.until("it has caught up", |world| {
            let last = world.leader().and_then(|at| applied(world, at));
            last.is_some() && applied(world, gone) == last
        });
    }
    world.deposits_max = world
        .clients
        .iter()
        .map(|client| client.request)
        .max()
        .unwrap();
    world.level();
    let states = world.states();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?}"
    );
}

#[test]
fn cn5_a_node_that_lags_behind_the_beginning_of_the_log_comes_back_by_a_snapshot() {
    (1..=2).for_each(comes_back);
}

#[test]
fn what_cannot_work_in_a_cluster_is_refused_by_name() {
    let clock = Clock::manual(0);
    let refused = |change: fn(&mut NodeOptions)| {
        let mut options = options(1, 1, &clock);
        change(&mut options);
        let node = ClusterNode::open(Simulated::new(1), &options, Bank::default);
        node.unwrap_err().to_string()
    };
    let gate = refused(|options| options.config.gate = GateAt::Output);
    assert!(gate.contains("gate = output in a cluster"), "{gate}");
    let journal = refused(|options| options.config.journal = lockstep_engine::JournalMode::None);
    assert!(journal.contains("journal = none in a cluster"), "{journal}");
    let segment = refused(|options| options.config.segment_bytes = 1 << 19);
    assert!(segment.contains("segment_bytes = 524288"), "{segment}");
    let sites = refused(|options| {
        let of = (1..=3).map(|node| (NodeId(node), "paris".to_owned()));
        options.replica.sites = Sites::new(of).gated();
    });
    assert!(sites.contains("all voters are at one site"), "{sites}");
    // A directory belongs to one node of one cluster.
    let disk = Simulated::new(3);
    drop(ClusterNode::open(disk.clone(), &options(1, 1, &clock), Bank::default).unwrap());
    let other = ClusterNode::open(disk.clone(), &options(2, 1, &clock), Bank::default).unwrap_err();
    assert!(other.to_string().contains("of node 1"), "{other}");
    let mut foreign = options(1, 1, &clock);
    foreign.replica.cluster = "elsewhere".parse().unwrap();
    let other = ClusterNode::open(disk, &foreign, Bank::default).unwrap_err();
    assert!(other.to_string().contains("bench"), "{other}");
}

/// The logic of one node panics where that of the others does not: it stops by name, whoever leads, and
/// nothing that was answered is taken back.
fn one_panics(seed: u64, is_leader: bool) {
    // None that all of them panic on: a state that was rebuilt from a snapshot has no faults any more.
    let mut world = World::with_bombs(seed, 1_000_000);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("ten answers", |world| is_done(world, 10));
    let leader = world.leader().unwrap();
    let odd = (leader + usize::from(!is_leader)) % usize::from(NODES);
    let from = world.processes[odd].node.as_ref().map(Build::applied);
    let panics_from = Arc::clone(&world.processes[odd].faults.panics_from);
    panics_from.store(from.unwrap().0, Ordering::Relaxed);
    world.until("the odd one stops", |world| {
        world.processes[odd].stopped.is_some()
    });
    let why = world.processes[odd].stopped.clone().unwrap();
    let name = format!("node {} is not with a majority", odd + 1);
    let is_named = why.contains(&name) && why.contains("the logic panicked at position");
    assert!(is_named, "seed {seed}: {why}");
    world.until("the others go on", |world| is_done(world, 30));
    let others = (0..usize::from(NODES)).filter(|at| *at != odd);
    for at in others {
        assert_eq!(world.processes[at].stopped, None, "seed {seed}");
    }
    // It comes back with a logic that does not panic there, and is as the others.
    panics_from.store(u64::MAX, Ordering::Relaxed);
    world.start(odd);
    let asked = world.clients.iter().map(|client| client.request).max();
    world.deposits_max = asked.unwrap();
    let goal = world.deposits_max;
    world.until("every answer", |world| is_done(world, goal));
    world.level();
    let states = world.states();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?}"
    );
    world.replay_agrees(&states[0]);
}

#[test]
fn qu_a_follower_that_panics_alone_stops_by_name() {
    (1..=seeds().unwrap_or(4)).for_each(|seed| one_panics(seed, false));
}

#[test]
fn qu_a_leader_that_panics_alone_stops_by_name_and_another_answers() {
    (1..=seeds().unwrap_or(4)).for_each(|seed| one_panics(seed, true));
}

/// The ring of the leader is full behind the event, and the leader dies: the mark finds a place, in
/// its ring or in that of the next one.
fn full_ring(seed: u64) {
    let mut world = World::with_bombs(seed, 10);
    let is_done = |world: &World, to: u32| world.clients.iter().all(|client| client.request > to);
    world.until("two answers", |world| is_done(world, 2));
    let leader = world.leader().unwrap();
    let account = 77;
    let is_armed_in_validate = 0;
    let bomb = Event64::event(&Bomb {
        account,
        is_armed_in_validate,
    });
    let node = world.processes[leader].node.as_mut().unwrap();
    let bombed = node.let_in(NOBODY, &bomb).unwrap();
    let mut filled = 0;
    while node.let_in(NOBODY, &deposit(account, 1)).is_ok() {
        filled += 1;
    }
    assert!(filled > 40, "the ring has 64 slots: {filled}");
    for _ in 0..world.random.below(60) {
        world.step();
    }
    if seed.is_multiple_of(2) && world.leader() == Some(leader) {
        world.kill(leader);
        for _ in 0..world.random.below(2000) {
            world.step();
        }
    }
    world.heal();
    let asked = world.clients.iter().map(|client| client.request).max();
    let goal = asked.unwrap() + 3;
    world.deposits_max = goal;
    world.until("every answer", |world| is_done(world, goal));
    world.level();
    let states = world.states();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?} {bombed:?}"
    );
    world.replay_agrees(&states[0]);
}

#[test]
fn qu3_a_full_ring_has_a_place_for_the_mark() {
    (1..=seeds().unwrap_or(10)).for_each(full_ring);
}
