//! The whole system: clients over loopback, a node with the exchange as its logic, its disk, and a
//! replica; on as many CPUs as the machine has, the client's among them.
//!
//! ```text
//! cargo bench -p lockstep-perf --bench cluster
//! cargo bench -p lockstep-perf --bench cluster -- --rounds 5 --seconds 2 --only alone
//! ```
//!
//! In each round, one behind the other: the floors (a sync of as many bytes as one order makes, a round
//! trip of as many bytes as one order and its answer have, both ends blocking), then one order in flight,
//! then 8 connections × 256. Nodes are processes of the program; an order is answered behind the
//! sync of every voter. In the end the log of each node is read: each answered request is there once, where
//! its answer said, or the bench fails.

#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use lockstep_exchange::event::{
    Event, FLAG_SELF_TRADE_SHIFT, NewOrder, SelfTrade, SessionOpen, Side, TimeInForce,
};
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{From, Reader};
use lockstep_replicator::client::{Client, ClientOptions, admin};
use lockstep_replicator::transport::Waiting;

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Instruments and accounts of a new exchange.
const INSTRUMENTS: u32 = 4;
const ACCOUNTS: u32 = 64;

/// What an order has in the journal's file: whole pages.
const SYNC_BYTES: usize = 4096;

/// An order on the wire, and its answer with one output.
const REQUEST_BYTES: usize = 96;
const ANSWER_BYTES: usize = 104;

struct Arguments {
    rounds: usize,
    seconds: f64,
    only: Option<String>,
    wait: String,
    /// Further lines of the nodes' files.
    node: String,
    /// Further lines of the nodes' `[engine]`.
    engine: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments {
        rounds: argument("--rounds").map_or(Ok(5), |text| text.parse())?,
        seconds: argument("--seconds").map_or(Ok(1.0), |text| text.parse())?,
        only: argument("--only"),
        wait: argument("--wait").unwrap_or_else(|| "park".to_owned()),
        node: argument("--node").unwrap_or_default().replace(';', "\n"),
        engine: argument("--engine").unwrap_or_default().replace(';', "\n"),
    };
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster-bench");
    println!(
        "{} rounds, {} s each; nodes wait by {:?}; {} CPUs for all of it",
        arguments.rounds,
        arguments.seconds,
        arguments.wait,
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!(
        "{:<12} {:<22} {:>26} {:>26} {:>20}  goal",
        "nodes", "work", "ours", "sync + round trip", "ratio"
    );
    for (name, voters) in [("alone", 1), ("replica", 2), ("three", 3)] {
        let is_asked = arguments.only.as_ref().is_none_or(|only| only == name);
        // Three are not in the goals: they are measured when asked for.
        if is_asked && (voters < 3 || arguments.only.is_some()) {
            measure(name, voters, &arguments, &home)?;
        }
    }
    // What cannot be removed is the next run's.
    let _left = std::fs::remove_dir_all(&home);
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.by_ref().find(|argument| argument == name)?;
    arguments.next()
}

fn measure(name: &str, voters: u16, arguments: &Arguments, home: &Path) -> anyhow::Result<()> {
    let _old = std::fs::remove_dir_all(home);
    std::fs::create_dir_all(home)?;
    let nodes = Nodes::start(voters, arguments, home)?;
    let mut single = Traders::connect(&nodes.clients, 1, 1)?;
    let mut many = Traders::connect(&nodes.clients, 8, 256)?;
    let mut floor = Floor::open(home)?;
    let (mut p50, mut p90, mut bare, mut syncs, mut trips) =
        (vec![], vec![], vec![], vec![], vec![]);
    let (mut rates, mut full_p50) = (vec![], vec![]);
    let span = Duration::from_secs_f64(arguments.seconds);
    single.run(span / 4)?;
    many.run(span / 4)?;
    for _ in 0..arguments.rounds {
        let (sync, trip) = (floor.sync(span / 4)?, floor.trip(span / 4)?);
        syncs.push(sync);
        trips.push(trip);
        bare.push(sync + trip);
        let mut one = single.run(span)?;
        p50.push(at(&mut one.responses_us, 50));
        p90.push(at(&mut one.responses_us, 90));
        let mut full = many.run(span)?;
        rates.push(full.rate / 1e3);
        full_p50.push(at(&mut full.responses_us, 50));
    }
    let told = [&single, &many].map(Traders::told);
    if voters == 3 {
        transfers(&nodes, arguments.rounds)?;
    }
    let trades: u64 = told.iter().flatten().map(|one| one.answered).sum();
    nodes.end()?;
    for number in 1..=voters {
        check(&home.join(format!("node{number}")), told.iter().flatten())?;
    }
    let ratios: Vec<f64> = p50
        .iter()
        .zip(&bare)
        .map(|(ours, bare)| ours / bare)
        .collect();
    let goal = if voters == 1 {
        "≤ 1.3"
    } else {
        "p50 ≤ 600 µs"
    };
    let of = |all: &[f64], unit| spread(all, unit);
    println!(
        "{name:<12} {:<22} {:>26} {:>26} {:>20}  {goal}",
        "one in flight, p50",
        of(&p50, " µs"),
        of(&bare, " µs"),
        of(&ratios, "")
    );
    println!(
        "{name:<12} {:<22} {:>26} {:>26} {:>20}",
        "one in flight, p90",
        of(&p90, " µs"),
        format!("sync {}", of(&syncs, "")),
        format!("trip {}", of(&trips, ""))
    );
    let goal = if voters == 1 {
        "≥ 1000 k/s"
    } else {
        "≥ 600 k/s"
    };
    println!(
        "{name:<12} {:<22} {:>26} {:>26} {:>20}  {goal}",
        "8 × 256 in flight",
        of(&rates, " k/s"),
        "",
        ""
    );
    println!(
        "{name:<12} {:<22} {:>26}   {trades} orders answered, none lost, none twice",
        "8 × 256, p50",
        of(&full_p50, " µs"),
    );
    Ok(())
}

/// Hands leadership over, again and again, under one client with one order in flight: the longest silence
/// that it hears.
fn transfers(nodes: &Nodes, rounds: usize) -> anyhow::Result<()> {
    let mut traders = Traders::connect(&nodes.clients, 1, 1)?;
    let mut silences = Vec::new();
    for _ in 0..rounds * 4 {
        traders.run(SETTLE)?;
        let leader = traders.all[0].client.address().to_owned();
        let at = nodes.clients.iter().position(|one| *one == leader);
        let next = (at.context("an unknown leader")? + 1) % nodes.clients.len() + 1;
        let options = ClientOptions::new("bench".parse()?, 64);
        let word = format!("transfer {next}");
        let asked = std::thread::spawn(move || admin(&leader, &options, &word, false, PATIENCE));
        let span = traders.run(SETTLE)?;
        let (code, answer) = asked.join().expect("it does not panic")?;
        ensure!(code == 0, "no transfer: {answer}");
        silences.push(span.silence_us / 1e3);
    }
    println!(
        "{:<12} {:<22} {:>26} {:>26} {:>20}  ≤ 10 ms",
        "three",
        "transfer, silence",
        spread(&silences, " ms"),
        "",
        ""
    );
    Ok(())
}

/// How long a client trades before and behind a transfer.
const SETTLE: Duration = Duration::from_millis(250);

/// Processes of the program.
struct Nodes {
    children: Vec<Child>,
    clients: Vec<String>,
    home: PathBuf,
}

impl Nodes {
    fn start(voters: u16, arguments: &Arguments, home: &Path) -> anyhow::Result<Nodes> {
        let mut peers = String::new();
        let mut clients = Vec::new();
        for number in 1..=voters {
            let (address, client) = (free_address()?, free_address()?);
            write!(
                peers,
                "[[peer]]\nnode = {number}\naddress = \"{address}\"\nclient = \"{client}\"\n"
            )?;
            clients.push(client);
        }
        let mut nodes = Nodes {
            children: Vec::new(),
            clients,
            home: home.to_owned(),
        };
        for number in 1..=voters {
            let file = home.join(format!("node{number}.toml"));
            let text = format!(
                "cluster = \"bench\"\nnode = {number}\ndirectory = \"node{number}\"\n{}\n{peers}\
                 [engine]\nallow_volatile = true\nwait = \"{}\"\nsession_replies = 256\n{}\n",
                arguments.node, arguments.wait, arguments.engine
            );
            std::fs::write(&file, text)?;
            let log = std::fs::File::create(home.join(format!("node{number}.log")))?;
            let child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
                .args(["run", "--node"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("cannot start a node")?;
            nodes.children.push(child);
        }
        Ok(nodes)
    }

    /// Asks all to end, and waits for them.
    fn end(mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            let id = child.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status()?;
            ensure!(sent.success(), "cannot end a node");
        }
        for (at, child) in self.children.iter_mut().enumerate() {
            let status = child.wait()?;
            let log = self.home.join(format!("node{}.log", at + 1));
            let words = std::fs::read_to_string(log).unwrap_or_default();
            ensure!(
                status.success(),
                "node {} ended with {status}: {words}",
                at + 1
            );
        }
        self.children.clear();
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            // After an error nobody has a use for it.
            let _gone = (child.kill(), child.wait());
        }
    }
}

fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// Clients on this thread, each with one account and one order at a time in each book.
struct Traders {
    all: Vec<Trader>,
    waiting: Waiting,
}

struct Trader {
    client: Client,
    account: u32,
    asked: u64,
    asked_ns: VecDeque<u64>,
    /// Where each request was done, by number.
    positions: Vec<u64>,
    refused: u64,
}

/// What one client was told in all.
struct Told {
    session: u64,
    answered: u64,
    positions: Vec<u64>,
}

/// What one span of work came to.
struct Span {
    responses_us: Vec<f64>,
    rate: f64,
    /// The longest time without an answer.
    silence_us: f64,
}

impl Traders {
    fn connect(addresses: &[String], clients: u32, window: u32) -> anyhow::Result<Traders> {
        let mut options = ClientOptions::new("bench".parse()?, 64);
        options.window = window;
        options.answer_within = Duration::from_secs(5);
        let mut all = Vec::new();
        for _ in 0..clients {
            let mut client =
                Client::connect(addresses, &options, PATIENCE).context("no client gets in")?;
            let session = client.session().unwrap_or(0);
            let account = u32::try_from(session % u64::from(ACCOUNTS))?;
            let act_for = SessionOpen {
                account,
                ..SessionOpen::default()
            };
            let event = Event::new(0, 0, 0, &act_for);
            let reply = client.call(bytemuck::bytes_of(&event), PATIENCE)?;
            ensure!(reply.code == 0, "the session may not trade: {}", reply.code);
            all.push(Trader {
                client,
                account,
                asked: 0,
                asked_ns: VecDeque::new(),
                positions: vec![reply.position],
                refused: 0,
            });
        }
        Ok(Traders {
            all,
            waiting: Waiting::default(),
        })
    }

    /// Trades as fast as is answered, so long, and until everything is answered.
    fn run(&mut self, span: Duration) -> anyhow::Result<Span> {
        let started = Instant::now();
        let mut responses_us = Vec::new();
        let mut in_time = 0_u64;
        let (mut last, mut silence) = (started, Duration::ZERO);
        loop {
            let is_over = started.elapsed() >= span;
            let mut in_flight = 0;
            for one in &mut self.all {
                let now = one.client.now_ns();
                // Ends: the window is full.
                while !is_over && one.ask(now) {}
                in_flight += one.client.in_flight();
            }
            if in_flight == 0 {
                break;
            }
            ensure!(started.elapsed() < span + PATIENCE, "no answers come");
            self.waiting.clear();
            let mut most = Duration::from_millis(100);
            for one in &mut self.all {
                most = most.min(one.client.prepare(&mut self.waiting));
            }
            self.waiting.wait(most)?;
            let before = responses_us.len();
            for one in &mut self.all {
                one.client.take(&self.waiting)?;
                one.take(&mut responses_us)?;
            }
            if responses_us.len() > before {
                let now = Instant::now();
                silence = silence.max(now - last);
                last = now;
            }
            if started.elapsed() <= span {
                in_time += (responses_us.len() - before) as u64;
            }
        }
        Ok(Span {
            responses_us,
            rate: in_time as f64 / span.as_secs_f64(),
            silence_us: silence.as_secs_f64() * 1e6,
        })
    }

    fn told(&self) -> Vec<Told> {
        let told = |one: &Trader| Told {
            session: one.client.session().unwrap_or(0),
            answered: one.positions.len() as u64,
            positions: one.positions.clone(),
        };
        self.all.iter().map(told).collect()
    }
}

impl Trader {
    /// Asks for its next order; `false`: as many are in flight as may be.
    fn ask(&mut self, now_ns: u64) -> bool {
        let number = self.asked;
        let is_sell = (number / u64::from(INSTRUMENTS)).is_multiple_of(2);
        let side = if is_sell { Side::Sell } else { Side::Buy };
        let order = NewOrder {
            price: 100,
            quantity: 1,
            instrument: u32::try_from(number % u64::from(INSTRUMENTS)).unwrap_or(0),
            account: self.account,
            flags: (SelfTrade::CancelOldest as u8) << FLAG_SELF_TRADE_SHIFT,
            order: self.client.session().unwrap_or(0) << 32 | number,
            ..NewOrder::limit(side, TimeInForce::GoodTillCancel)
        };
        let event = Event::new(0, 0, 0, &order);
        if self.client.ask(bytemuck::bytes_of(&event)).is_err() {
            return false;
        }
        self.asked += 1;
        self.asked_ns.push_back(now_ns);
        true
    }

    fn take(&mut self, responses_us: &mut Vec<f64>) -> anyhow::Result<()> {
        let now = self.client.now_ns();
        // Ends: each turn takes one of finitely many.
        while let Some(reply) = self.client.reply() {
            let expected = self.positions.len() as u64 + 1;
            ensure!(
                u64::from(reply.number) == expected,
                "request {expected} is due, {} is answered",
                reply.number
            );
            self.positions.push(reply.position);
            self.refused += u64::from(reply.code != 0);
            let asked = self.asked_ns.pop_front().context("nothing was asked")?;
            responses_us.push(now.saturating_sub(asked) as f64 / 1e3);
        }
        Ok(())
    }
}

/// Reads a log: each request that was answered is in it once, where the answer said.
fn check<'t>(directory: &Path, told: impl Iterator<Item = &'t Told>) -> anyhow::Result<()> {
    let mut left: std::collections::BTreeMap<u64, (usize, &Told)> =
        told.map(|one| (one.session, (0, one))).collect();
    let mut reader = Reader::open(Disk::at(directory)?, From::Oldest)?;
    // Ends: with the log.
    while let Some(frame) = reader.next_frame()? {
        let first = frame.header().first_position;
        for (position, event) in (first..).zip(frame.body().chunks_exact(64)) {
            let event: Event = bytemuck::pod_read_unaligned(event);
            let Some((next, told)) = left.get_mut(&event.header.session) else {
                continue;
            };
            let expected = told.positions.get(*next).copied();
            *next += 1;
            if event.header.request as usize != *next || expected != Some(position) {
                bail!(
                    "{}: position {position} has request {} of session {}, where {expected:?} was told for {next}",
                    directory.display(),
                    event.header.request,
                    told.session
                );
            }
        }
    }
    for (next, told) in left.values() {
        ensure!(
            *next == told.positions.len(),
            "{}: {next} of {} requests of session {} are in the log",
            directory.display(),
            told.positions.len(),
            told.session
        );
    }
    Ok(())
}

/// What the machine can do at best with the same bytes.
struct Floor {
    file: std::fs::File,
    written: u64,
    stream: TcpStream,
}

/// Bytes that are written full of zeros before, as the journal's are.
const PREPARED: u64 = 64 << 20;

impl Floor {
    fn open(home: &Path) -> anyhow::Result<Floor> {
        let mut file = std::fs::File::create(home.join("floor"))?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..PREPARED >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut other, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        other.set_nodelay(true)?;
        std::thread::spawn(move || {
            let (mut request, answer) = ([0; REQUEST_BYTES], [7; ANSWER_BYTES]);
            // Ends: the bench ends its side.
            while other.read_exact(&mut request).is_ok() && other.write_all(&answer).is_ok() {}
        });
        Ok(Floor {
            file,
            written: 0,
            stream,
        })
    }

    /// p50 of a write and its sync, µs.
    fn sync(&mut self, span: Duration) -> anyhow::Result<f64> {
        use std::os::unix::fs::FileExt as _;
        let page = [7; SYNC_BYTES];
        repeat(span, || {
            self.file.write_all_at(&page, self.written % PREPARED)?;
            self.written += SYNC_BYTES as u64;
            Ok(self.file.sync_data()?)
        })
    }

    /// p50 of a round trip, µs.
    fn trip(&mut self, span: Duration) -> anyhow::Result<f64> {
        repeat(span, || {
            self.stream.write_all(&[1; REQUEST_BYTES])?;
            Ok(self.stream.read_exact(&mut [0; ANSWER_BYTES])?)
        })
    }
}

fn repeat(span: Duration, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < span {
        let began = Instant::now();
        once()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(at(&mut times, 50))
}

fn at(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Median, least and most.
fn spread(all: &[f64], unit: &str) -> String {
    let mut all = all.to_vec();
    let digits = if all.iter().all(|one| *one < 10.0) {
        2
    } else {
        0
    };
    format!(
        "{:.digits$}{unit} [{:.digits$}..{:.digits$}]",
        at(&mut all, 50),
        at(&mut all, 0),
        at(&mut all, 100)
    )
}
