//! Three whole nodes in one thread, from a seed: real order, agreement, journal, logic and egress over
//! simulated disks and a network that loses, delays and cuts. What a client was told holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_engine::cluster::{Asker, ClusterNode, Done, NodeOptions, Refused, request};
use lockstep_engine::prelude::*;
use lockstep_engine::system::SessionOpen;
use lockstep_engine::{Clock, Config};
use lockstep_journaler::Background;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::wire::{Decoder, Limits, Message};
use lockstep_replicator::{Gating, NodeId, ReceiveError, ReplicaOptions, Sites};

use crate::bank::{Bank, BankIn, BankOut, Deposit};

const NODES: u16 = 3;
const TICK_NS: u64 = 10_000_000;
/// A client that has no answer for so long asks again.
const PATIENCE_NS: u64 = 400_000_000;

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

/// The bank, which on one node may do another thing than on the others.
struct Flaky {
    bank: Bank,
    /// From this position on every deposit is one cent more. Not part of the state: as broken memory is not.
    wrong_from: Arc<AtomicU64>,
}

impl State for Flaky {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.bank.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            bank: Bank::load(from)?,
            wrong_from: Arc::new(AtomicU64::new(u64::MAX)),
        })
    }
}

impl Logic for Flaky {
    type In = BankIn<'static>;
    type Out = BankOut<'static>;

    fn validate(&self, event: BankIn<'_>, context: &Context) -> Result<(), Reject> {
        self.bank.validate(event, context)
    }

    fn apply(
        &mut self,
        event: BankIn<'_>,
        context: &Context,
        out: &mut Outputs<'_, BankOut<'static>>,
    ) {
        self.bank.apply(event, context, out);
        if context.position().0 >= self.wrong_from.load(Ordering::Relaxed) {
            *self.bank.balances.entry(0) += 1;
            self.bank.total += 1;
        }
    }
}

struct Process {
    disk: Simulated,
    clock: Clock,
    wrong_from: Arc<AtomicU64>,
    /// Why it stopped by itself.
    stopped: Option<String>,
    /// `None` while it is down.
    node: Option<ClusterNode<Flaky, Simulated>>,
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
        let processes = (1..=NODES).map(|node| Process {
            disk: Simulated::new(seed * 8 + u64::from(node)),
            clock: Clock::manual(0),
            wrong_from: Arc::new(AtomicU64::new(u64::MAX)),
            stopped: None,
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
        };
        (0..usize::from(NODES)).for_each(|at| world.start(at));
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
        let wrong_from = Arc::clone(&process.wrong_from);
        let fresh = move || Flaky {
            bank: Bank::default(),
            wrong_from: Arc::clone(&wrong_from),
        };
        let node = ClusterNode::open(process.disk.clone(), &options, fresh);
        let node = node.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let plan = &node.recovery().plan;
        assert_eq!(plan.passed_over, [], "seed {}", self.seed);
        self.from_snapshots += u32::from(plan.snapshot.is_some());
        process.stopped = None;
        process.node = Some(node);
        process.is_paused = false;
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
        let is_planted = self.processes[at].wrong_from.load(Ordering::Relaxed) != u64::MAX;
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
            return self.stop(at, &error.to_string());
        }
        self.send(at, outbox);
        for (token, what) in heard.0 {
            self.hear(at, token, what);
        }
    }

    fn hear(&mut self, at: usize, token: u64, what: Result<Done, bool>) {
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
            Ok(done) if done.code == 0 => {
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
            .position(|process| process.node.as_ref().is_some_and(ClusterNode::is_open))
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
            let applied = |process: &Process| process.node.as_ref().map(ClusterNode::applied);
            let end = world.processes.iter().map(applied).max();
            let mut all = world.processes.iter();
            all.all(|process| Some(applied(process)) == end) && world.leader().is_some()
        });
    }

    /// What each node has in its state: balances, position and hash.
    fn states(&mut self) -> Vec<(u64, u64, Vec<i64>)> {
        let looks: Vec<_> = self
            .processes
            .iter()
            .map(|process| {
                let node = process.node.as_ref().unwrap();
                node.look(Position(0), |core| {
                    let balances = (0..4).map(|account| {
                        core.logic()
                            .bank
                            .balances
                            .get(&account)
                            .copied()
                            .unwrap_or(0)
                    });
                    (
                        core.position().0,
                        core.state_hash(),
                        balances.collect::<Vec<_>>(),
                    )
                })
                .unwrap()
            })
            .collect();
        (0..usize::from(NODES)).for_each(|at| self.turn(at));
        looks.iter().map(|look| look.try_recv().unwrap()).collect()
    }
}

/// A life full of trouble; then all is well, and everything is compared. How many starts began with a
/// snapshot.
fn run(seed: u64) -> u32 {
    let mut world = World::new(seed);
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
    for (client, balance) in world.clients.iter().zip(&states[0].2) {
        assert_eq!(
            u64::try_from(client.answers.len()).unwrap(),
            u64::from(goal),
            "seed {seed}"
        );
        assert_eq!(
            *balance,
            i64::from(goal),
            "seed {seed}: applied not exactly once"
        );
        let positions: Vec<u64> = client.answers.values().copied().collect();
        assert!(positions.is_sorted(), "seed {seed}: {positions:?}");
    }
    world.from_snapshots
}

#[test]
fn what_clients_were_told_holds_through_crashes_partitions_and_transfers() {
    let seeds = std::env::var("LOCKSTEP_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    let from_snapshots: u32 = (1..=seeds.unwrap_or(20)).map(run).sum();
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
        node.close(&mut Heard::default()).unwrap();
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
    let applied =
        |world: &World, at: usize| world.processes[at].node.as_ref().map(ClusterNode::applied);
    let from = applied(&world, wrong).unwrap().0;
    world.processes[wrong]
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
        let replica = world.processes[others[0]]
            .node
            .as_ref()
            .map(ClusterNode::replica);
        replica
            .and_then(|replica| replica.agreed_state())
            .is_some_and(|agreed| agreed.position > end.0)
    });
    world.processes[wrong]
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
