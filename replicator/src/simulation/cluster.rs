//! One run: events in the order of their times, a step for each, the checkers behind each step.
//!
//! | file | |
//! |---|---|
//! | `starting` | processes are made and started |
//! | `stepping` | what happens next, and a node's steps, with the checkers behind each |
//! | `traffic` | messages and connections |
//! | `clients`, `operator` | who asks |
//! | `faults`, `staged` | what goes wrong, at random and one behind the other |
//! | `forcing` | one node is forced to go on alone |
//! | `ending` | all is healed, and has to be well |

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lockstep_journaler::storage::Simulated;

use super::checker::Checker;
use super::failure::Failure;
use super::model::Reply;
use super::network::Network;
use super::node::{Node, Request, Setup};
use super::plan::Plan;
use super::random::Random;
use super::tally::Tally;
use crate::ids::{Epoch, NodeId};
use crate::sites::Sites;

mod clients;
mod ending;
mod faults;
mod forcing;
mod operator;
mod staged;
mod starting;
mod stepping;
mod traffic;

use staged::Staging;

const MS: u64 = 1_000_000;
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

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
    Force,
    Mend,
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
    /// Another node was forced to go on without it, and it does not know.
    is_left: bool,
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
    /// How often an operator has forced a node to go on.
    epoch: Epoch,
    /// Requests that are answered are done before this position.
    floor: u64,
    lost_for_ever: u64,
    is_healed: bool,
    staging: Staging,
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
            epoch: Epoch(0),
            founders: founders.clone(),
            floor: 0,
            lost_for_ever: 0,
            is_healed: false,
            staging: Staging::new(plan.seed),
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
        if plan.forces_at_ns > 0 {
            cluster.after(plan.forces_at_ns, Happening::Force);
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
        self.tally.quarantined = self.checker.quarantined();
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

    fn node(&self, id: NodeId) -> Option<&N> {
        self.processes.get(&id)?.node.as_ref()
    }

    fn replica(&self, id: NodeId) -> Option<&crate::replica::Replica<Simulated>> {
        self.node(id).map(Node::replica)
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let replica = self.replica(*id);
            replica.is_some_and(|replica| replica.is_ready_to_lead())
        };
        self.alive().into_iter().find(leads)
    }
}
