//! Two transports on loopback, polled in turns by one thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_journaler::{FrameDraft, FrameHeader, Position, Term};

use super::dialing::RETRY_NS_MAX;
use super::*;
use crate::ids::Epoch;
use crate::tls::{Tls, TlsFiles, node_name};
use crate::wire::{Hello, Limits, SharedFrame};

/// Nothing here takes so long unless it never comes.
const LIMIT: Duration = Duration::from_secs(20);

struct Node {
    transport: Transport,
    came: Vec<Incoming>,
}

fn hello() -> Hello {
    let cluster = "paris".parse().unwrap();
    Hello {
        fingerprint: 7,
        ..Hello::new(cluster, NodeId(1), Limits::for_events_of(64))
    }
}

fn settings(node: u16) -> Settings {
    Settings::on_loopback(NodeId(node), hello(), "127.0.0.1:0".parse().unwrap())
}

/// Node 1, and node 2 which dials it.
fn two(change: impl Fn(&mut Settings)) -> [Node; 2] {
    let mut first = settings(1);
    first
        .peers
        .insert(NodeId(2), "127.0.0.1:9".parse().unwrap());
    change(&mut first);
    let first = Transport::open(first).unwrap();
    let mut second = settings(2);
    second.peers.insert(NodeId(1), first.address().unwrap());
    change(&mut second);
    let second = Transport::open(second).unwrap();
    [first, second].map(|transport| Node {
        transport,
        came: Vec::new(),
    })
}

fn turn(nodes: &mut [Node], started: Instant) {
    let now = nanos(started.elapsed()) + 1;
    for node in nodes {
        node.transport
            .poll(now, Duration::from_millis(1), &mut node.came)
            .unwrap();
    }
}

fn until(nodes: &mut [Node], mut is_done: impl FnMut(&mut [Node]) -> bool) {
    let started = Instant::now();
    while !is_done(nodes) {
        assert!(
            started.elapsed() < LIMIT,
            "it never came: {:?}",
            came(nodes)
        );
        turn(nodes, started);
    }
}

fn came(nodes: &[Node]) -> Vec<&Vec<Incoming>> {
    nodes.iter().map(|node| &node.came).collect()
}

fn connect_all(nodes: &mut [Node]) {
    until(nodes, |nodes| {
        Connection::ALL.iter().all(|connection| {
            nodes[0].transport.is_connected(NodeId(2), *connection)
                && nodes[1].transport.is_connected(NodeId(1), *connection)
        })
    });
}

fn append(from: u16, index: u64, events: u32) -> Message {
    let draft = FrameDraft {
        term: Term(1),
        index: index + 1,
        ..FrameDraft::default()
    };
    let body = vec![9; events as usize * 64];
    let body: [&[u8]; 2] = [&body, &[]];
    let header = FrameHeader::seal(&draft, Position(index), events, body, 0);
    let head = Head {
        index,
        term: 1,
        ..Head::new(Kind::Append, NodeId(from))
    };
    Message::append(head, vec![SharedFrame::new(header, body)])
}

fn messages(node: &Node) -> Vec<(Connection, Message)> {
    let messages = node.came.iter().filter_map(|incoming| match incoming {
        Incoming::Message {
            connection,
            message,
            ..
        } => Some((*connection, message.clone())),
        _ => None,
    });
    messages.collect()
}

fn refusals(node: &Node) -> Vec<(Option<RefuseCode>, String)> {
    let refusals = node.came.iter().filter_map(|incoming| match incoming {
        Incoming::Refused { code, line, .. } => Some((*code, line.clone())),
        _ => None,
    });
    refusals.collect()
}

#[test]
fn who_starts_is_not_waited_for_until_the_next_attempt_of_a_higher_number() {
    let address = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let mut second = settings(2);
    second.peers.insert(NodeId(1), address);
    let second = Transport::open(second).unwrap();
    let second_address = second.address().unwrap();
    let mut nodes = vec![Node {
        transport: second,
        came: Vec::new(),
    }];
    // It has dialed in vain, and its clock stands still from here on: it will not dial again.
    let now = RETRY_NS_MAX;
    let started = Instant::now();
    let is_refused = |node: &Node| {
        let peer = &node.transport.peers[&NodeId(1)];
        let mut lines = peer.lines.iter();
        lines.all(|line| line.link.is_none() && line.failures > 0)
    };
    while !is_refused(&nodes[0]) {
        assert!(started.elapsed() < LIMIT, "it never fails");
        let Node { transport, came } = &mut nodes[0];
        transport.poll(now, Duration::from_millis(1), came).unwrap();
    }
    let mut first = settings(1);
    first.peers.insert(NodeId(2), second_address);
    nodes.insert(
        0,
        Node {
            transport: Transport::open(first).unwrap(),
            came: Vec::new(),
        },
    );
    let is_connected = |nodes: &[Node]| {
        Connection::ALL.iter().all(|connection| {
            nodes[0].transport.is_connected(NodeId(2), *connection)
                && nodes[1].transport.is_connected(NodeId(1), *connection)
        })
    };
    while !is_connected(&nodes) {
        assert!(started.elapsed() < LIMIT, "it waits for the higher number");
        for Node { transport, came } in &mut nodes {
            transport.poll(now, Duration::from_millis(1), came).unwrap();
        }
    }
    // Once is enough: what is lost from here on the higher number makes anew.
    nodes[0].transport.disconnect(NodeId(2), "for the test");
    let [first, ..] = nodes.as_mut_slice() else {
        panic!("there are two");
    };
    let later = now + 10 * RETRY_NS_MAX;
    first
        .transport
        .poll(later, Duration::from_millis(1), &mut first.came)
        .unwrap();
    let lines = &first.transport.peers[&NodeId(2)].lines;
    assert!(lines.iter().all(|line| line.link.is_none()));
}

#[test]
fn two_that_dial_each_other_at_once_are_connected_and_stay_so() {
    let mut first = Transport::open(settings(1)).unwrap();
    let mut second = settings(2);
    second.peers.insert(NodeId(1), first.address().unwrap());
    let second = Transport::open(second).unwrap();
    let peers = BTreeMap::from([(NodeId(2), second.address().unwrap())]);
    first.set_peers(&peers).unwrap();
    let mut nodes = [first, second].map(|transport| Node {
        transport,
        came: Vec::new(),
    });
    connect_all(&mut nodes);
    // Nothing is under way any more that would end what there is.
    let mut turns = 0;
    until(&mut nodes, |_| {
        turns += 1;
        turns > 20
    });
    let lost = nodes.iter().map(|node| node.transport.traffic().lost);
    assert_eq!(lost.sum::<u64>(), 0);
}

#[test]
fn t4_three_connections_carry_what_is_theirs_both_ways() {
    let mut nodes = two(|_| {});
    connect_all(&mut nodes);
    let vote = Message::bare(Head::new(Kind::Vote, NodeId(2)));
    let piece = Message::piece(Head::new(Kind::Piece, NodeId(1)), 4, vec![1; 100_000]);
    nodes[0]
        .transport
        .send(NodeId(2), append(1, 5, 256))
        .unwrap();
    nodes[0].transport.send(NodeId(2), piece.clone()).unwrap();
    nodes[1].transport.send(NodeId(1), vote.clone()).unwrap();
    until(&mut nodes, |nodes| {
        messages(&nodes[0]).len() == 1 && messages(&nodes[1]).len() == 2
    });
    assert_eq!(messages(&nodes[0]), [(Connection::Control, vote)]);
    let at_second = messages(&nodes[1]);
    assert!(at_second.contains(&(Connection::Log, append(1, 5, 256))));
    assert!(at_second.contains(&(Connection::Bulk, piece)));
    for node in &nodes {
        let first = &node.came[0];
        assert!(matches!(first, Incoming::Connected { .. }), "{first:?}");
    }
    assert_eq!(nodes[0].transport.traffic().sent, 2);
}

#[test]
fn what_does_not_fit_is_refused_with_a_line_on_both_sides() {
    type Change = fn(&mut Settings);
    let cases: [(RefuseCode, Change); 5] = [
        (RefuseCode::Cluster, |s| {
            s.hello.cluster = "rome".parse().unwrap();
        }),
        (RefuseCode::Fingerprint, |s| s.hello.fingerprint = 8),
        (RefuseCode::Sizes, |s| s.hello.event_size = 128),
        (RefuseCode::Logic, |s| {
            s.hello.logic_min = 2;
            s.hello.logic_max = 2;
        }),
        (RefuseCode::Member, |s| s.node = NodeId(3)),
    ];
    for (code, change) in cases {
        let mut nodes = two(|settings| {
            if settings.node == NodeId(2) {
                change(settings);
            }
        });
        until(&mut nodes, |nodes| {
            nodes.iter().all(|node| !refusals(node).is_empty())
        });
        for node in &nodes {
            let (found, line) = &refusals(node)[0];
            assert_eq!(*found, Some(code), "{line}");
            assert!(line.contains(code.meaning()) && !line.contains('\n'));
        }
        assert!(!nodes[0].transport.is_connected(NodeId(2), Connection::Log));
        let unreachable = nodes[1].transport.send(NodeId(1), append(2, 0, 1));
        assert_eq!(unreachable, Err(Unreachable::NotConnected(NodeId(1))));
    }
}

#[test]
fn other_founders_are_refused_with_a_line_on_both_sides_and_silence_is_not() {
    for (first, second, is_refused) in [(7, 8, true), (7, 7, false), (7, 0, false), (0, 8, false)] {
        let mut nodes = two(|_| {});
        for (node, founders) in nodes.iter_mut().zip([first, second]) {
            node.transport.set_log(Head {
                a: founders,
                ..Head::new(Kind::Hello, NodeId(1))
            });
        }
        if !is_refused {
            connect_all(&mut nodes);
            continue;
        }
        until(&mut nodes, |nodes| {
            nodes.iter().all(|node| !refusals(node).is_empty())
        });
        for node in &nodes {
            let (code, line) = &refusals(node)[0];
            assert_eq!(*code, Some(RefuseCode::Founders), "{line}");
        }
    }
}

#[test]
fn a_node_of_a_lower_epoch_is_fenced_off_at_the_door_and_later() {
    let mut nodes = two(|_| {});
    let forced = Head {
        epoch: Epoch(2),
        ..Head::new(Kind::Hello, NodeId(1))
    };
    connect_all(&mut nodes);
    nodes[0].transport.set_log(forced);
    nodes[1]
        .transport
        .send(NodeId(1), Message::bare(Head::new(Kind::Vote, NodeId(2))))
        .unwrap();
    until(&mut nodes, |nodes| {
        refusals(&nodes[1])
            .iter()
            .filter(|(code, _)| *code == Some(RefuseCode::Epoch))
            .count()
            >= 2
    });
    assert!(messages(&nodes[0]).is_empty());
}

#[test]
fn who_speaks_something_else_is_cut_off() {
    let mut nodes = two(|_| {});
    let mut stranger = TcpStream::connect(nodes[0].transport.address().unwrap()).unwrap();
    let request = [b"GET / HTTP/1.1\r\n".as_slice(), &[b'a'; 100]].concat();
    stranger.write_all(&request).unwrap();
    until(&mut nodes[..1], |nodes| !refusals(&nodes[0]).is_empty());
    let (_, line) = &refusals(&nodes[0])[0];
    assert!(line.contains("does not speak lockstep"), "{line}");
    assert!(matches!(stranger.read(&mut [0; 9]), Ok(0) | Err(_)));
}

#[test]
fn t1_a_peer_that_does_not_read_is_unreachable_and_nobody_waits() {
    let mut nodes = two(|settings| settings.queue_bytes_max = 1 << 20);
    connect_all(&mut nodes);
    let mut taken = 0;
    // The kernel's buffers take some, the queue the rest; neither is endless.
    let full = loop {
        match nodes[0].transport.send(NodeId(2), append(1, taken, 256)) {
            Ok(()) => taken += 1,
            Err(full) => break full,
        }
        nodes[0].transport.flush();
        assert!(taken < 100_000, "the queue has an end");
    };
    assert_eq!(full, Unreachable::QueueFull(NodeId(2)));
    assert!(nodes[0].transport.traffic().waiting_bytes <= 1 << 20);
    // Others are served meanwhile.
    nodes[0]
        .transport
        .send(
            NodeId(2),
            Message::bare(Head::new(Kind::Heartbeat, NodeId(1))),
        )
        .unwrap();
    until(&mut nodes, |nodes| {
        messages(&nodes[1]).len() as u64 == taken + 1
    });
    nodes[0].transport.send(NodeId(2), append(1, 0, 1)).unwrap();
    let all = messages(&nodes[1]);
    let in_order = all
        .iter()
        .filter(|(connection, _)| *connection == Connection::Log)
        .enumerate();
    for (at, (_, message)) in in_order {
        assert_eq!(message.head.index, at as u64);
    }
}

#[test]
fn t3_t4_a_peer_that_comes_back_is_told_as_lost_and_connected() {
    let [mut first, second] = two(|_| {});
    let settings = second.transport.settings.clone();
    let mut nodes = [first, second];
    connect_all(&mut nodes);
    let [a, b] = nodes;
    first = a;
    drop(b);
    first.came.clear();
    let again = Node {
        transport: Transport::open(settings).unwrap(),
        came: Vec::new(),
    };
    let mut nodes = [first, again];
    until(&mut nodes, |nodes| {
        nodes[0]
            .came
            .iter()
            .filter(|incoming| matches!(incoming, Incoming::Connected { .. }))
            .count()
            == 3
    });
    let lost = nodes[0]
        .came
        .iter()
        .filter(|incoming| matches!(incoming, Incoming::Lost { .. }));
    assert_eq!(lost.count(), 3);
}

#[test]
fn t5_a_peer_that_is_heard_is_dialed_anew_where_it_was_dialed_in_vain() {
    let mut nodes = two(|_| {});
    connect_all(&mut nodes);
    let there = nodes[0].transport.address().unwrap();
    // Takes connections, and says nothing.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = |address| [(NodeId(1), address)].into();
    let transport = &mut nodes[1].transport;
    transport
        .set_peers(&to(nobody.local_addr().unwrap()))
        .unwrap();
    let log = transport.line(NodeId(1), Connection::Log).unwrap().link;
    transport.lose(log.unwrap(), "the network is cut");
    // The times are the test's own, from here on.
    let cut_ns = nanos(LIMIT) * 2;
    let poll = |nodes: &mut [Node], behind_ms: u64| {
        let now_ns = cut_ns + behind_ms * 1_000_000;
        for node in nodes {
            let wait = Duration::from_millis(1);
            node.transport.poll(now_ns, wait, &mut node.came).unwrap();
        }
    };
    let hears = |nodes: &mut [Node], behind_ms: u64| {
        nodes[1].came.clear();
        let heartbeat = Message::bare(Head::new(Kind::Heartbeat, NodeId(1)));
        nodes[0].transport.send(NodeId(2), heartbeat).unwrap();
        let started = Instant::now();
        while messages(&nodes[1]).is_empty() {
            assert!(started.elapsed() < LIMIT);
            poll(nodes, behind_ms);
        }
    };
    poll(&mut nodes, 0);
    let dialed = |nodes: &[Node]| {
        nodes[1]
            .transport
            .line(NodeId(1), Connection::Log)
            .unwrap()
            .link
    };
    let in_vain = dialed(&nodes);
    assert!(in_vain.is_some() && in_vain != log);
    nodes[1].transport.set_peers(&to(there)).unwrap();
    hears(&mut nodes, 50);
    poll(&mut nodes, 50);
    assert_eq!(dialed(&nodes), in_vain, "it may be far");
    hears(&mut nodes, 150);
    let started = Instant::now();
    // Long before a greeting is late.
    while !nodes[1].transport.is_connected(NodeId(1), Connection::Log) {
        assert!(started.elapsed() < LIMIT, "it is not dialed anew");
        poll(&mut nodes, 150);
    }
}

#[test]
fn a_node_that_is_no_member_any_more_is_disconnected() {
    let mut nodes = two(|_| {});
    connect_all(&mut nodes);
    nodes[0].transport.set_peers(&BTreeMap::new()).unwrap();
    until(&mut nodes, |nodes| {
        refusals(&nodes[1])
            .iter()
            .any(|(code, _)| *code == Some(RefuseCode::Member))
    });
    assert!(!nodes[0].transport.is_connected(NodeId(2), Connection::Log));
}

#[test]
fn plain_text_stays_on_loopback_unless_asked_for() {
    let mut outside = settings(1);
    outside.listen = "0.0.0.0:0".parse().unwrap();
    let error = Transport::open(outside.clone()).unwrap_err();
    assert!(matches!(error, TransportError::PlaintextOutside { .. }));
    outside.security = Security::Plaintext;
    assert!(Transport::open(outside).is_ok());
    let mut peer_outside = settings(1);
    peer_outside
        .peers
        .insert(NodeId(2), "192.0.2.1:7000".parse().unwrap());
    assert!(Transport::open(peer_outside).is_err());
}

#[test]
fn a_waker_ends_the_waiting() {
    let (waker, mut sleeper) = waker().unwrap();
    let mut node = Transport::open(settings(1)).unwrap();
    waker.clone().wake();
    let started = Instant::now();
    let mut came = Vec::new();
    let mut waiting = Waiting::default();
    let mut turn = |sleeper: &Sleeper, most: Duration| {
        waiting.clear();
        let timeout = node.prepare(1, &mut waiting).min(most);
        let woken = waiting.add(sleeper.as_fd(), true, false);
        waiting.wait(timeout).unwrap();
        node.take(1, &waiting, &mut came);
        waiting.is_readable(woken)
    };
    assert!(turn(&sleeper, LIMIT));
    assert!(started.elapsed() < LIMIT / 2);
    sleeper.clear();
    assert!(!turn(&sleeper, Duration::ZERO));
    assert!(came.is_empty());
}

/// An authority, and what it signs.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        Authority { issuer, pem }
    }

    fn files(&self, directory: &Path, name: &str, alternative: String) -> TlsFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![alternative]).unwrap();
        parameters.serial_number = Some(serial_of(name));
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: &str| {
            let path = directory.join(format!("{name}.{kind}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            authority: write("authority", &self.pem),
            certificate: write("certificate", &certificate.pem()),
            key: write("key", &key.serialize_pem()),
            revoked: None,
        }
    }

    /// A list that revokes the certificate of this name.
    fn revokes(&self, directory: &Path, name: &str) -> PathBuf {
        let at = rcgen::date_time_ymd(2020, 1, 1);
        let list = rcgen::CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(2120, 1, 1),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: serial_of(name),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let path = directory.join(format!("without-{name}.crl"));
        let list = list.signed_by(&self.issuer).unwrap();
        std::fs::write(&path, list.pem().unwrap()).unwrap();
        path
    }
}

fn serial_of(name: &str) -> rcgen::SerialNumber {
    rcgen::SerialNumber::from_slice(name.as_bytes())
}

fn with_tls(name_of_second: &str, same_authority: bool) -> [Node; 2] {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let other = Authority::new();
    let cluster = "paris".parse().unwrap();
    let first = authority.files(directory.path(), "1", node_name(&cluster, NodeId(1)));
    let second = if same_authority { &authority } else { &other };
    let second = second.files(directory.path(), "2", name_of_second.to_owned());
    let first = Tls::read(&first).unwrap();
    let second = Tls::read(&second).unwrap();
    two(|settings| {
        settings.security = Security::Tls(if settings.node == NodeId(1) {
            first.clone()
        } else {
            second.clone()
        });
    })
}

#[test]
fn with_certificates_of_one_authority_all_comes_whole() {
    let mut nodes = with_tls("node-2.paris.lockstep", true);
    connect_all(&mut nodes);
    for index in 0..50 {
        nodes[0]
            .transport
            .send(NodeId(2), append(1, index, 1_024))
            .unwrap();
        nodes[1]
            .transport
            .send(NodeId(1), append(2, index, 1))
            .unwrap();
    }
    until(&mut nodes, |nodes| {
        nodes.iter().all(|node| messages(node).len() == 50)
    });
    for (index, (_, message)) in messages(&nodes[1]).into_iter().enumerate() {
        assert_eq!(message, append(1, index as u64, 1_024));
    }
}

#[test]
fn a_certificate_of_another_node_cluster_or_authority_is_refused() {
    for (name, same_authority) in [
        ("node-3.paris.lockstep", true),
        ("node-2.rome.lockstep", true),
        ("client-2.paris.lockstep", true),
        ("node-2.paris.lockstep", false),
    ] {
        let mut nodes = with_tls(name, same_authority);
        until(&mut nodes, |nodes| !refusals(&nodes[0]).is_empty());
        if same_authority {
            assert_eq!(refusals(&nodes[0])[0].0, Some(RefuseCode::Certificate));
        }
        assert!(!nodes[0].transport.is_connected(NodeId(2), Connection::Log));
        assert!(!nodes[1].transport.is_connected(NodeId(1), Connection::Log));
    }
}

#[test]
fn a_revoked_certificate_is_refused_by_who_dials_and_by_who_is_dialed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let cluster = "paris".parse().unwrap();
    let files = |node: u16| {
        let name = node_name(&cluster, NodeId(node));
        authority.files(directory.path(), &node.to_string(), name)
    };
    let (first, second) = (files(1), files(2));
    // Node 2 dials node 1.
    for (of_first, of_second) in [(None, Some("1")), (Some("2"), None), (None, None)] {
        let read = |files: &TlsFiles, revoked: Option<&str>| {
            let revoked = revoked.map(|name| authority.revokes(directory.path(), name));
            let files = TlsFiles {
                revoked,
                ..files.clone()
            };
            Tls::read(&files).unwrap()
        };
        let both = [read(&first, of_first), read(&second, of_second)];
        let mut nodes = two(|settings| {
            settings.security = Security::Tls(both[usize::from(settings.node.0) - 1].clone());
        });
        if of_first.is_none() && of_second.is_none() {
            connect_all(&mut nodes);
            continue;
        }
        let sees = usize::from(of_second.is_some());
        until(&mut nodes, |nodes| {
            let told = refusals(&nodes[sees]);
            told.iter().any(|(_, line)| line.contains("Revoked"))
        });
        assert!(!nodes[0].transport.is_connected(NodeId(2), Connection::Log));
        assert!(!nodes[1].transport.is_connected(NodeId(1), Connection::Log));
    }
}
