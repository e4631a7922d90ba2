//! A node with threads and sockets, and a client: answers, an end in order, an end by name.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_engine::cluster::history::{Outcome, What, history};
use lockstep_engine::cluster::{
    Action, Administration, ClientsOptions, Driver, DriverOptions, NodeOptions, force_single,
};
use lockstep_engine::prelude::*;
use lockstep_engine::principal::SessionOpenAs;
use lockstep_engine::system::Membership;
use lockstep_engine::system::code::SESSIONS_OF_PRINCIPAL;
use lockstep_engine::{Config, Result};
use lockstep_replicator::client::codec::{Greeting, Packet, PacketKind, Packets};
use lockstep_replicator::client::{Client, ClientError, ClientOptions, admin};
use lockstep_replicator::transport::Security;
use lockstep_replicator::wire::{Decoder, Kind, Limits};
use lockstep_replicator::{ClusterId, Epoch, NodeId, ReplicaOptions};

use crate::bank::{Balance, Bank, Bomb, deposit};

/// Longer than the slowest machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

struct Running {
    client: String,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

/// A node that is a cluster of its own.
pub(crate) fn alone(
    directory: &std::path::Path,
    client: SocketAddr,
    has_back_thread: bool,
) -> DriverOptions {
    let me = NodeId(1);
    let mut node = NodeOptions::new(ReplicaOptions::new("alone".parse().unwrap(), me, &[me]));
    node.config = Config {
        slots: 256,
        output_slots: 256,
        segment_bytes: 1 << 20,
        allow_volatile: true,
        wait: Wait::Park,
        ..Config::default()
    };
    DriverOptions {
        node,
        directory: directory.to_owned(),
        listen: free_address(),
        peers: BTreeMap::new(),
        clients: ClientsOptions {
            addresses: BTreeMap::from([(me, client)]),
            ..ClientsOptions::default()
        },
        security: Security::Loopback,
        has_back_thread,
    }
}

/// The same, running on a thread.
fn start(directory: &std::path::Path, has_back_thread: bool) -> Running {
    let client = free_address();
    let options = alone(directory, client, has_back_thread);
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let driver = Driver::open(&options, vec![deposit(7, 1000)], Bank::default).unwrap();
    let run = move || driver.run(|| asked.load(Ordering::Relaxed));
    Running {
        client: client.to_string(),
        is_over,
        thread: std::thread::Builder::new().spawn(run).unwrap(),
    }
}

impl Running {
    fn client(&self) -> Client {
        let options = ClientOptions::new("alone".parse().unwrap(), 64);
        Client::connect(std::slice::from_ref(&self.client), &options, PATIENCE).unwrap()
    }

    fn end(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_client_is_answered_with_what_came_of_it_and_again_behind_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    for (round, has_back_thread) in [(1, true), (2, false)] {
        let running = start(directory.path(), has_back_thread);
        let mut client = running.client();
        let reply = client
            .call(bytemuck::bytes_of(&deposit(7, 5)), PATIENCE)
            .unwrap();
        assert_eq!((reply.code, reply.outputs.len()), (0, 64));
        let output: Event64 = bytemuck::pod_read_unaligned(&reply.outputs);
        // The log began with a deposit of 1000, once.
        let expected = Balance {
            account: 7,
            cents: 1000 + 5 * round,
        };
        assert_eq!(*output.body_as::<Balance>(), expected);
        assert_eq!(output.output().position, reply.position);
        let refused = client
            .call(bytemuck::bytes_of(&deposit(7, 0)), PATIENCE)
            .unwrap();
        assert_eq!(refused.code, crate::bank::ZERO_AMOUNT);
        drop(client);
        running.end().unwrap();
    }
}

#[test]
fn ad1_who_asked_for_a_change_stands_in_the_log_right_in_front_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let client = free_address();
    let mut options = alone(directory.path(), client, false);
    options.peers.insert(NodeId(2), free_address());
    options.clients.admins.insert("ops".to_owned());
    options
        .clients
        .tokens
        .insert("ops".to_owned(), "secret".to_owned());
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let driver = Driver::open(&options, vec![deposit(7, 1000)], Bank::default).unwrap();
    let run = move || driver.run(|| asked.load(Ordering::Relaxed));
    let running = std::thread::Builder::new().spawn(run).unwrap();
    let ops = ClientOptions {
        principal: "ops".to_owned(),
        token: "secret".to_owned(),
        ..ClientOptions::new("alone".parse().unwrap(), 64)
    };
    let address = client.to_string();
    let ask = |command: &str| admin(&address, &ops, command, false, PATIENCE).unwrap();
    let started = std::time::Instant::now();
    let answer = loop {
        let (code, answer) = ask("add 2");
        if code == 0 {
            break answer;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
    };
    assert_eq!(
        ask("transfer 2").0,
        1,
        "a learner cannot lead, and nothing is written of it"
    );
    is_over.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
    let storage = lockstep_journaler::storage::Disk::at(directory.path()).unwrap();
    let catalog = lockstep_journaler::tools::Catalog::of_journal(&storage).unwrap();
    let mut events: Vec<(u64, Event64)> = Vec::new();
    let start = lockstep_journaler::tools::frames::Start::First;
    lockstep_journaler::tools::frames::each_frame(&storage, &catalog, start, &mut |frame| {
        for (position, event) in frame.events() {
            events.push((position.0, bytemuck::pod_read_unaligned(event)));
        }
        Ok(true)
    })
    .unwrap();
    let at = |kind| {
        let of_kind = events
            .iter()
            .filter(|(_, event)| event.header().kind == kind);
        of_kind.collect::<Vec<_>>()
    };
    let [(position, event)] = at(Administration::KIND)[..] else {
        panic!("one change was asked for");
    };
    let asked = event.body_as::<Administration>();
    assert_eq!(asked.principal[..4], *b"ops\0");
    assert_eq!((asked.action, asked.identity, asked.node), (1, 2, 2));
    let [(change, _)] = at(Membership::KIND)[..] else {
        panic!("one change was made");
    };
    assert_eq!(*change, position + 1);
    assert_eq!(answer, format!("{{\"position\":{change}}}"));
    // HI1, with the end of this node's quorum: the other one never came.
    options.node.replica.epoch = Epoch(1);
    let forced = force_single::<Bank>(directory.path(), &options.node).unwrap();
    let (entries, _) = history(&storage, Position(0)).unwrap();
    let words: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry.what {
            What::Asked { asked, outcome } => {
                Some((entry.position.0, asked.action(), asked.argument, outcome))
            }
            _ => None,
        })
        .collect();
    let done = |position| Outcome::Done {
        position: Position(position),
    };
    let last = forced.position.0;
    assert_eq!(
        words,
        [
            (*position, Some(Action::Add), 0, done(*change)),
            (last, Some(Action::ForceSingle), 1, done(last)),
        ]
    );
    // It leads alone, behind that word.
    let mut driver = Driver::open(&options, Vec::new(), Bank::default).unwrap();
    while !driver.node().unwrap().is_open() {
        driver.turn().unwrap();
    }
    assert!(driver.node().unwrap().applied().0 > last);
}

#[test]
fn dr6_the_first_greeting_says_how_far_the_log_goes() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = alone(directory.path(), free_address(), false);
    let mut driver = Driver::open(&options, vec![deposit(7, 1000)], Bank::default).unwrap();
    while driver.node().unwrap().applied().0 == 0 {
        driver.turn().unwrap();
    }
    drop(driver);
    // Somebody who listens in the place of a peer.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let peer = listener.local_addr().unwrap();
    options.peers.insert(NodeId(2), peer);
    let mut driver = Driver::open(&options, Vec::new(), Bank::default).unwrap();
    let started = std::time::Instant::now();
    let mut decoder = Decoder::new(Limits::for_events_of(64));
    let mut greeted = None;
    let head = loop {
        assert!(started.elapsed() < PATIENCE, "it does not greet");
        driver.turn().unwrap();
        greeted = greeted.or_else(|| listener.accept().ok());
        let Some((stream, _)) = &mut greeted else {
            continue;
        };
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap_or(0);
        decoder.push(&bytes[..length]);
        if let Some(message) = decoder.next().unwrap() {
            break message.head;
        }
    };
    assert_eq!(head.kind, Kind::Hello);
    assert!(head.index > 0 && head.term > 0, "{head:?}");
}

/// Sends two commands at once, over one connection; the answers, by their numbers.
fn ask_twice(address: &str, command: &str) -> [(u64, String); 2] {
    let mut out = Vec::new();
    let greeting = Greeting {
        cluster: "alone".parse::<ClusterId>().unwrap().bytes(),
        principal: String::new(),
        token: String::new(),
        event_size: 0,
    };
    Packet::bare(PacketKind::Hello, 0, 0, 0).encode(&mut out, &[&greeting.encode()]);
    for number in [1, 2] {
        Packet::bare(PacketKind::Admin, number, 0, 0).encode(&mut out, &[command.as_bytes()]);
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&out).unwrap();
    let mut packets = Packets::default();
    let mut answers = BTreeMap::new();
    // Ends: with two answers, or with the patience.
    while answers.len() < 2 {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "the node closed the connection");
        packets.push(&bytes[..length]);
        while let Some(packet) = packets.next().unwrap() {
            if packet.kind == PacketKind::AdminAnswer {
                let text = packet.text().unwrap().to_owned();
                answers.insert(packet.number, (packet.a, text));
            }
        }
    }
    [1, 2].map(|number| answers.remove(&number).unwrap())
}

#[test]
fn fr3_a_change_that_the_agreement_does_not_take_is_answered_as_refused() {
    let directory = tempfile::tempdir().unwrap();
    let client = free_address();
    let mut options = alone(directory.path(), client, false);
    options.peers.insert(NodeId(2), free_address());
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let driver = Driver::open(&options, Vec::new(), Bank::default).unwrap();
    let run = move || driver.run(|| asked.load(Ordering::Relaxed));
    let running = std::thread::Builder::new().spawn(run).unwrap();
    let address = client.to_string();
    let nobody = ClientOptions::new("alone".parse().unwrap(), 64);
    let started = std::time::Instant::now();
    // Ends: when the node leads, or with the patience.
    while !admin(&address, &nobody, "status", false, PATIENCE)
        .is_ok_and(|(_, status)| status.contains("\"is_open\":true"))
    {
        assert!(started.elapsed() < PATIENCE, "it does not lead");
    }
    // Both make sense when they are let in; when the second one's turn comes, node 2 is a member.
    let [first, second] = ask_twice(&address, "add 2");
    assert_eq!(first.0, 0, "{first:?}");
    assert!(first.1.starts_with("{\"position\":"), "{first:?}");
    let is_clear = second.1.contains("it is a member already");
    assert!(second.0 == 1 && is_clear, "{second:?}");
    assert!(
        second.1.contains("in the log at position"),
        "it raced: {second:?}"
    );
    is_over.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
}

#[test]
fn pr1_the_name_that_a_token_proves_opens_the_session_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut options = alone(directory.path(), address, false);
    for name in ["desk", "other"] {
        let token = format!("{name}'s");
        options.clients.tokens.insert(name.to_owned(), token);
    }
    options.node.config.sessions_per_principal = 1;
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let driver = Driver::open(&options, vec![deposit(7, 1000)], Bank::default).unwrap();
    let run = move || driver.run(|| asked.load(Ordering::Relaxed));
    let running = std::thread::Builder::new().spawn(run).unwrap();
    let client = |name: &str| {
        let options = ClientOptions {
            principal: name.to_owned(),
            token: format!("{name}'s"),
            ..ClientOptions::new("alone".parse().unwrap(), 64)
        };
        Client::new(&[address.to_string()], &options).unwrap()
    };
    let call = |client: &mut Client| client.call(bytemuck::bytes_of(&deposit(7, 1)), PATIENCE);
    let (mut first, mut other) = (client("desk"), client("other"));
    assert_eq!(call(&mut first).unwrap().code, 0);
    assert_eq!(call(&mut other).unwrap().code, 0);
    let refused = call(&mut client("desk")).unwrap_err();
    let is_quota =
        matches!(refused, ClientError::Refused { code, .. } if code == SESSIONS_OF_PRINCIPAL);
    assert!(is_quota, "{refused}");
    // What is closed does not count.
    assert!(first.close(PATIENCE).unwrap());
    assert_eq!(call(&mut client("desk")).unwrap().code, 0);
    is_over.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
    let storage = lockstep_journaler::storage::Disk::at(directory.path()).unwrap();
    let catalog = lockstep_journaler::tools::Catalog::of_journal(&storage).unwrap();
    let mut names = Vec::new();
    let start = lockstep_journaler::tools::frames::Start::First;
    lockstep_journaler::tools::frames::each_frame(&storage, &catalog, start, &mut |frame| {
        for (_, event) in frame.events() {
            let event: Event64 = bytemuck::pod_read_unaligned(event);
            if event.header().kind == SessionOpenAs::KIND {
                let principal = event.body_as::<SessionOpenAs>().principal();
                names.push(principal.name().unwrap().to_owned());
            }
        }
        Ok(true)
    })
    .unwrap();
    assert_eq!(names, ["desk", "other", "desk", "desk"]);
}

#[test]
fn dr4_a_logic_that_panics_ends_the_node_by_name() {
    for has_back_thread in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let running = start(directory.path(), has_back_thread);
        let mut client = running.client();
        let bomb = Event64::event(&Bomb {
            account: 1,
            is_armed_in_validate: 0,
        });
        // Nobody is going to answer it.
        client.ask(bytemuck::bytes_of(&bomb)).unwrap();
        while !running.thread.is_finished() {
            let _lost = client.turn(Duration::from_millis(1));
        }
        let error = running.thread.join().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("logic: ") && error.contains("a bomb in apply"),
            "{error}"
        );
    }
}

#[test]
fn a_node_with_nothing_to_do_sleeps_with_one_thread_and_with_two() {
    for has_back_thread in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let options = alone(directory.path(), free_address(), has_back_thread);
        let mut driver = Driver::open(&options, Vec::new(), Bank::default).unwrap();
        while !driver.node().unwrap().is_open() {
            driver.turn().unwrap();
        }
        // A turn waits half a tick, 5 ms, unless a tick is due or something is left from the beginning;
        // one that finds a socket ready each time takes microseconds.
        let started = std::time::Instant::now();
        for _ in 0..200 {
            driver.turn().unwrap();
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(100), "200 turns in {took:?}");
    }
}
