//! What the gates in front of the outputs are worth in a cluster: nodes over loopback, each with its own journal, and a
//! logic that takes so long for each event.
//!
//! ```text
//! cargo bench -p lockstep-engine --bench gates -- [--nodes 3] [--rounds 5] [--seconds 1] [--micros 0,50,200]
//! ```
//!
//! Both gates take turns within each round. First one request is in flight, then 64 are; nodes, their logics and the
//! client share the CPUs that there are. A number is the median of the rounds, with the least and the most of them.
//! `LOCKSTEP_BENCH_DIR` says on which disk.

#![expect(clippy::print_stdout, reason = "a bench talks to a person")]

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_engine::Config;
use lockstep_engine::cluster::{ClientsOptions, Driver, DriverOptions, NodeOptions};
use lockstep_engine::prelude::*;
use lockstep_replicator::client::{Client, ClientOptions};
use lockstep_replicator::transport::Security;
use lockstep_replicator::{NodeId, ReplicaOptions};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the logic takes for an event.
static MICROS: AtomicU64 = AtomicU64::new(0);

bodies! {
    Ask, kind 1, version 1: { amount: u64 }
    Reply, kind 101, version 1: { total: u64 }
}

#[derive(Default)]
struct Slow {
    total: u64,
}
snapshot!(Slow { total });

impl Logic for Slow {
    type In = Ask;
    type Out = Reply;

    fn apply(&mut self, ask: &Ask, _: &Context, out: &mut Outputs<'_, Reply>) {
        let (started, took) = (Instant::now(), MICROS.load(Ordering::Relaxed));
        // Ends: with its time.
        while started.elapsed() < Duration::from_micros(took) {
            std::hint::spin_loop();
        }
        self.total = self.total.wrapping_add(ask.amount);
        out.emit(Reply { total: self.total });
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What one run gave.
struct Run {
    one_p50_us: f64,
    one_p90_us: f64,
    many_per_s: f64,
}

fn main() -> Outcome<()> {
    let nodes: u16 = argument("--nodes").map_or(Ok(3), |text| text.parse())?;
    let rounds: usize = argument("--rounds").map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = argument("--seconds").map_or(Ok(1.0), |text| text.parse())?;
    let micros = argument("--micros").unwrap_or_else(|| "0,50,200".to_owned());
    let span = Duration::from_secs_f64(seconds);
    println!(
        "{nodes} nodes, {rounds} rounds, {seconds} s each; {} CPUs for all of it",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!(
        "{:<10} {:<8} {:>24} {:>24} {:>26}",
        "logic", "gate", "one in flight, p50", "p90", "64 in flight"
    );
    for micros in micros.split(',') {
        MICROS.store(micros.parse()?, Ordering::Relaxed);
        let gates = [(GateAt::Logic, "logic"), (GateAt::Output, "output")];
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for ((gate, _), runs) in gates.iter().zip(&mut runs) {
                runs.push(run(nodes, *gate, span)?);
            }
        }
        for ((_, name), runs) in gates.iter().zip(&runs) {
            let of = |number: fn(&Run) -> f64, unit| spread(runs.iter().map(number), unit);
            println!(
                "{:<10} {name:<8} {:>24} {:>24} {:>26}",
                format!("{micros} µs"),
                of(|run| run.one_p50_us, " µs"),
                of(|run| run.one_p90_us, " µs"),
                of(|run| run.many_per_s, " /s"),
            );
        }
    }
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.by_ref().find(|argument| argument == name)?;
    arguments.next()
}

/// The median, and between which numbers it lies.
fn spread(numbers: impl Iterator<Item = f64>, unit: &str) -> String {
    let mut all: Vec<f64> = numbers.collect();
    all.sort_by(f64::total_cmp);
    let (least, most) = (all[0], all[all.len() - 1]);
    format!("{:.0} ({least:.0}-{most:.0}){unit}", all[all.len() / 2])
}

/// A cluster of its own, under load.
fn run(nodes: u16, gate: GateAt, span: Duration) -> Outcome<Run> {
    let home = match std::env::var_os("LOCKSTEP_BENCH_DIR") {
        Some(home) => tempfile::tempdir_in(PathBuf::from(home))?,
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
    };
    let nodes = Nodes::start(nodes, gate, home.path())?;
    let mut options = ClientOptions::new("bench".parse()?, 64);
    options.window = 64;
    let mut client = Client::connect(&nodes.clients, &options, PATIENCE)?;
    load(&mut client, 1, span / 4)?;
    let (one, _) = load(&mut client, 1, span)?;
    let (_, many_per_s) = load(&mut client, 64, span)?;
    drop(client);
    nodes.end()?;
    let at = |percent| Duration::from_nanos(one.value_at_percentile(percent)).as_secs_f64() * 1e6;
    Ok(Run {
        one_p50_us: at(50.0),
        one_p90_us: at(90.0),
        many_per_s,
    })
}

/// So many requests in flight, so long: times, and how many were answered in a second.
fn load(client: &mut Client, window: usize, span: Duration) -> Outcome<(Histogram<u64>, f64)> {
    let mut times = Histogram::new(3)?;
    let mut asked = VecDeque::new();
    let started = Instant::now();
    // Ends: when it is over, and all is answered.
    loop {
        let is_over = started.elapsed() >= span;
        let event = Event64::event(&Ask { amount: 1 });
        while !is_over && asked.len() < window {
            if client.ask(bytemuck::bytes_of(&event)).is_err() {
                break;
            }
            asked.push_back(Instant::now());
        }
        if asked.is_empty() && is_over {
            let rate = times.len() as f64 / started.elapsed().as_secs_f64();
            return Ok((times, rate));
        }
        client.turn(Duration::from_millis(100))?;
        while let Some(reply) = client.reply() {
            if reply.code != 0 {
                return Err(format!("request {} is refused: {}", reply.number, reply.code).into());
            }
            let asked = asked.pop_front().ok_or("nothing was asked")?;
            times.record(u64::try_from(asked.elapsed().as_nanos())?)?;
        }
        if started.elapsed() > span + PATIENCE {
            return Err("no answers come".into());
        }
    }
}

/// All nodes, in this process.
struct Nodes {
    clients: Vec<String>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<lockstep_engine::Result<()>>>,
}

impl Nodes {
    fn start(nodes: u16, gate: GateAt, home: &std::path::Path) -> Outcome<Self> {
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let addresses = || -> Outcome<BTreeMap<NodeId, SocketAddr>> {
            let with = |id: &NodeId| Ok((*id, free_address()?));
            ids.iter().map(with).collect()
        };
        let (peers, clients) = (addresses()?, addresses()?);
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for id in &ids {
            let mut node = NodeOptions::new(ReplicaOptions::new("bench".parse()?, *id, &ids));
            node.config = Config {
                gate,
                allow_volatile: true,
                session_replies: 64,
                segment_bytes: 16 << 20,
                wait: Wait::Park,
                ..Config::default()
            };
            let mut others = peers.clone();
            others.remove(id);
            let options = DriverOptions {
                node,
                directory: home.join(format!("node{id}")),
                listen: peers[id],
                peers: others,
                clients: ClientsOptions {
                    addresses: clients.clone(),
                    ..ClientsOptions::default()
                },
                security: Security::Loopback,
                has_back_thread: true,
            };
            let driver = Driver::open(&options, Vec::new(), Slow::default)?;
            let asked = Arc::clone(&is_over);
            let run = move || driver.run(|| asked.load(Ordering::Relaxed));
            threads.push(std::thread::Builder::new().spawn(run)?);
        }
        let clients = clients.values().map(SocketAddr::to_string).collect();
        Ok(Self {
            clients,
            is_over,
            threads,
        })
    }

    fn end(self) -> Outcome<()> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a node panicked")??;
        }
        Ok(())
    }
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
