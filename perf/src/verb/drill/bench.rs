//! The cluster of a drill, where it stands, and what goes wrong with it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lockstep_engine::GateAt;
use lockstep_perf::exit::Refusal;

use super::apart::{self, Apart};
use super::disk::{Mount, fill};
use super::load;
use super::members::{Guest, KEEPER};
use super::processes::{self, Cluster, Process, free_address, wait};
use super::proxy::Link;
use super::{Args, Cut, What};

/// How long a leader is paused or cut off: far longer than an election.
const AWAY: Duration = Duration::from_secs(2);

/// How long a disk is full once another node leads.
const FULL: Duration = Duration::from_secs(1);

pub(super) const NODES: u16 = 3;

/// Most nodes that a drill adds.
const GUESTS_MAX: u32 = 200;

/// Ports of nodes that have an address of their own.
const NODE_PORT: u16 = 7100;
const CLIENT_PORT: u16 = 7200;

/// Ports of those that are added, which all live in one namespace: each has two of its own.
const GUEST_PORT: u16 = 10_000;

/// The cluster, and what can be cut between its nodes.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) cluster: Cluster,
    cut: Cut,
    /// Who is paused, if somebody is.
    paused: Option<usize>,
    wires: Wires,
    /// Nodes that will be added, and where the logs of those are that were, and left.
    pub(super) guests: VecDeque<Guest>,
    pub(super) gone: Vec<PathBuf>,
    /// Runs in which a node came by a snapshot.
    pub(super) by_snapshot: usize,
    /// Small file systems of the nodes; they go when everything else has.
    _mounts: Vec<Mount>,
}

/// What joins the nodes.
#[derive(Debug)]
enum Wires {
    /// Loopback, with links of our own where something is to be cut: from the node that dials to the one
    /// that is dialed.
    Links(BTreeMap<(u16, u16), Link>),
    /// Namespaces; whose cable is out, and who does not reach whom.
    Apart {
        apart: Apart,
        unplugged: Vec<u16>,
        deaf: Vec<(u16, u16)>,
    },
}

impl Bench {
    pub(super) fn new(args: &Args, home: &Path, apart: Option<Apart>) -> anyhow::Result<Self> {
        let all = NODES + guests(args)?;
        let mut addresses = Vec::new();
        let mut clients = Vec::new();
        for node in 1..=all {
            let (address, client) = match apart {
                Some(_) => sockets(node),
                None => (free_address()?, free_address()?),
            };
            addresses.push(address);
            clients.push(client);
        }
        let mut links = BTreeMap::new();
        let mut processes = VecDeque::new();
        let mut mounts = Vec::new();
        for own in 1..=all {
            if args.what == What::DiskFull {
                mounts.push(Mount::at(&home.join(format!("node{own}")))?);
            }
            let mut text = settings(args, own);
            if apart.is_some() {
                text.push_str("plaintext = true\n");
            }
            for peer in 1..=all {
                let real = addresses[usize::from(peer - 1)];
                // Through a link, where links are to be cut or long.
                let wants_link = args.what == What::Partition || !args.delay.is_zero();
                let are_founders = own.max(peer) <= NODES;
                let address = if apart.is_none() && wants_link && are_founders && own != peer {
                    let link = Link::open(real, args.delay)?;
                    let address = link.address;
                    links.insert((own, peer), link);
                    address
                } else {
                    real
                };
                let client = clients[usize::from(peer - 1)];
                write!(
                    text,
                    "[[peer]]\nnode = {peer}\naddress = \"{address}\"\nclient = \"{client}\"\n"
                )?;
                if peer > NODES {
                    text.push_str("founder = false\n");
                }
            }
            text.push_str(&engine(args, own));
            let space = apart.as_ref();
            let space = space.and_then(|apart| apart.space(own.min(NODES + 1)));
            processes.push_back(Process::new(own, home, &text, space)?);
        }
        let founders = usize::from(NODES);
        let guests = processes.split_off(founders);
        let guests = guests.into_iter().zip(clients.split_off(founders));
        if let Some(apart) = apart.as_ref().filter(|_| args.loss > 0) {
            apart.lose(args.loss).map_err(|error| {
                Refusal::environment(
                    format!("no packets can be lost here: {error:#}"),
                    "a kernel with sch_netem has it; --delay needs none",
                )
            })?;
        }
        Ok(Self {
            cluster: Cluster {
                processes: processes.into(),
                clients,
                // What comes within a quarter of a second: counters are written fifty times in one.
                lag_max: u64::from(args.rate()) / 4 + 64,
                is_ending: false,
            },
            cut: args.cut,
            paused: None,
            wires: match apart {
                None => Wires::Links(links),
                Some(apart) => Wires::Apart {
                    apart,
                    unplugged: Vec::new(),
                    deaf: Vec::new(),
                },
            },
            guests: guests
                .map(|(process, client)| Guest { process, client })
                .collect(),
            gone: Vec::new(),
            by_snapshot: 0,
            _mounts: mounts,
        })
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let processes = self.cluster.processes.iter();
        processes.map(|process| process.directory.clone()).collect()
    }

    /// One run of what goes wrong: since when, and how long until all is well again.
    pub(super) fn trouble(&mut self, what: What, run: u32) -> anyhow::Result<(f64, Duration)> {
        let leader = match what {
            What::Restart => usize::try_from(run).unwrap_or(0) % usize::from(NODES),
            What::Lag | What::Grow => self.one_that_gives_up_leads()?,
            What::All | What::Kill | What::Pause | What::Partition | What::DiskFull => {
                self.leader()?
            }
        };
        let started = processes::now();
        let from = load::since_start(started);
        match what {
            What::Kill | What::All => {
                self.cluster.processes[leader].kill()?;
                self.another_leads(leader)?;
                self.cluster.processes[leader].start()?;
            }
            What::Pause => {
                self.cluster.processes[leader].signal("-STOP")?;
                self.paused = Some(leader);
                wait(AWAY)?;
                self.go_on()?;
            }
            What::Partition => {
                self.part(leader, run)?;
                wait(AWAY)?;
                self.mend()?;
            }
            What::DiskFull => {
                let ballast = self.cluster.processes[leader].directory.join("ballast");
                fill(&ballast)?;
                let others = self.another_leads(leader).and_then(|()| wait(FULL));
                std::fs::remove_file(&ballast)?;
                others?;
            }
            What::Restart => {
                self.cluster.processes[leader].end()?;
                self.cluster.until("a leader among the others", |cluster| {
                    cluster.leader().is_some()
                })?;
                self.cluster.processes[leader].start()?;
            }
            What::Lag => self.lag(leader)?,
            What::Grow => self.grow()?,
        }
        self.cluster.until("a whole cluster", Cluster::is_whole)?;
        Ok((from, started.elapsed()))
    }

    /// Parts the leader from the others, or from one of them, each in turn.
    fn part(&mut self, leader: usize, run: u32) -> anyhow::Result<()> {
        let own = self.cluster.processes[leader].number;
        let others: Vec<u16> = (1..=NODES).filter(|node| *node != own).collect();
        let is_odd = !run.is_multiple_of(2);
        let one = others[usize::from(is_odd)];
        let mut pairs = Vec::new();
        match self.cut {
            // A machine that is off the network: its clients do not reach it either, where it is one.
            Cut::Full => {
                if let Wires::Apart {
                    apart, unplugged, ..
                } = &mut self.wires
                {
                    apart.plug(own, false)?;
                    unplugged.push(own);
                    return Ok(());
                }
                pairs.extend(
                    others
                        .iter()
                        .flat_map(|other| [(own, *other), (*other, own)]),
                );
            }
            // In turn: what it sends is lost, or what the others send to it.
            Cut::OneWay if is_odd => pairs.extend(others.iter().map(|other| (*other, own))),
            Cut::OneWay => pairs.extend(others.iter().map(|other| (own, *other))),
            // The third node sees both.
            Cut::Bridge => pairs.extend([(own, one), (one, own)]),
        }
        match &mut self.wires {
            Wires::Apart { apart, deaf, .. } => {
                for (from, to) in pairs {
                    apart.hear(from, to, false)?;
                    deaf.push((from, to));
                }
            }
            Wires::Links(links) => {
                for ((dials, dialed), link) in links {
                    let there = pairs.contains(&(*dials, *dialed));
                    let back = pairs.contains(&(*dialed, *dials));
                    if there || back {
                        link.cut(there, back);
                    }
                }
            }
        }
        Ok(())
    }

    fn mend(&mut self) -> anyhow::Result<()> {
        match &mut self.wires {
            Wires::Links(links) => links.values().for_each(Link::mend),
            Wires::Apart {
                apart,
                unplugged,
                deaf,
            } => {
                for node in unplugged.drain(..) {
                    apart.plug(node, true)?;
                }
                for (from, to) in deaf.drain(..) {
                    apart.hear(from, to, true)?;
                }
            }
        }
        Ok(())
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        match self.paused.take() {
            Some(paused) => self.cluster.processes[paused].signal("-CONT"),
            None => Ok(()),
        }
    }

    /// Puts right what a run that was interrupted has left.
    pub(super) fn heal(&mut self) -> anyhow::Result<()> {
        self.cluster.is_ending = true;
        self.go_on()?;
        self.mend()?;
        self.send_guests_away()?;
        for process in &mut self.cluster.processes {
            if !process.is_running() {
                process.start()?;
            }
        }
        Ok(())
    }

    pub(super) fn leader(&mut self) -> anyhow::Result<usize> {
        self.cluster
            .until("a leader", |cluster| cluster.leader().is_some())?;
        self.cluster.leader().context("the leader has just gone")
    }

    fn another_leads(&mut self, old: usize) -> anyhow::Result<()> {
        self.cluster.until("another leader", |cluster| {
            cluster.leader().is_some_and(|leader| leader != old)
        })?;
        Ok(())
    }

    /// Closes every node, in order, once all of them have all of the log.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.cluster.is_ending = true;
        self.cluster
            .until("the same log everywhere", Cluster::is_at_rest)?;
        self.cluster.processes.iter_mut().try_for_each(Process::end)
    }
}

/// The head of a node's file.
fn settings(args: &Args, own: u16) -> String {
    format!(
        "cluster = \"drill\"\nnode = {own}\ndirectory = \"node{own}\"\ntick_ms = {}\n",
        args.tick_ms
    )
}

fn engine(args: &Args, own: u16) -> String {
    // Small segments where the disk is to be full, or the log given up: what is prepared ahead lasts a second.
    let segment_bytes = match args.what {
        What::DiskFull | What::Lag | What::Grow => 1 << 20,
        What::All | What::Kill | What::Pause | What::Partition | What::Restart => 4 << 20,
    };
    let mut text = format!(
        "[engine]\nsegment_bytes = {segment_bytes}\nslots = 16384\noutput_slots = 16384\n\
         session_replies = 256\nallow_volatile = true\nwait = \"park\"\n"
    );
    if args.gate == GateAt::Output {
        text.push_str("gate = \"output\"\n");
    }
    if args.what.gives_up() {
        let twice_a_second = args.rate() / 2;
        text += &format!("snapshot_every = {twice_a_second}\n");
    }
    if args.what.gives_up() && own != KEEPER {
        text.push_str("retention = \"snapshots\"\n");
    }
    text
}

/// How many nodes are added in the course of a drill: one in each run, each with a number of its own.
pub(super) fn guests(args: &Args) -> anyhow::Result<u16> {
    if args.what != What::Grow {
        return Ok(0);
    }
    if args.runs > GUESTS_MAX {
        return Err(Refusal::usage(
            format!("each run adds a node, and a cluster's files name {GUESTS_MAX} at most"),
            format!("--runs {GUESTS_MAX}, or fewer"),
        )
        .into());
    }
    Ok(u16::try_from(args.runs)?)
}

/// Namespaces that a drill wants: those that are added share one.
pub(super) fn spaces(args: &Args) -> u16 {
    NODES + u16::from(args.what == What::Grow)
}

/// Where a node in a namespace is reached, by nodes and by clients.
fn sockets(node: u16) -> (SocketAddr, SocketAddr) {
    match node.checked_sub(NODES + 1) {
        None => (
            apart::socket(node, NODE_PORT),
            apart::socket(node, CLIENT_PORT),
        ),
        Some(guest) => {
            let port = GUEST_PORT + 2 * guest;
            let at = |port| apart::socket(NODES + 1, port);
            (at(port), at(port + 1))
        }
    }
}
