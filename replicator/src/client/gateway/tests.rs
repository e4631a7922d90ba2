//! A gateway and real clients on loopback, in one thread; its owner is a model of the engine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::greeting::is_equal;
use super::*;
use crate::client::codec::{Greeting, ReplyHead};
use crate::client::{Client, ClientError, ClientOptions, SESSION_UNKNOWN, admin};

mod held;
mod quotas;
mod sockets;
mod whose;

const LIMIT: Duration = Duration::from_secs(120);

/// What the engine does with sessions and requests, in small.
#[derive(Default)]
struct Model {
    log: Vec<(u64, u32, Vec<u8>)>,
    last: BTreeMap<u64, u32>,
    position: u64,
    room: usize,
    now_ns: u64,
    waiting: Vec<(Waits, u64)>,
    admin: Vec<(ClientId, u32, bool, String)>,
    /// What it says about sessions that a connection did not open; `None`: all are everybody's.
    whose: Option<Admit>,
    asked_whose: Vec<(ClientId, u64)>,
}

enum Waits {
    Open(u64),
    Request(u64, u32, bool),
}

impl Model {
    fn with_room(room: usize) -> Model {
        Model {
            room,
            ..Model::default()
        }
    }

    fn ask(&mut self, asked: Asked<'_>) -> Admit {
        if let Asked::Whose {
            client, session, ..
        } = asked
        {
            let Some(whose) = self.whose else {
                return Admit::Taken;
            };
            self.asked_whose.push((client, session));
            return whose;
        }
        if self.waiting.len() >= self.room {
            return Admit::Busy;
        }
        match asked {
            Asked::Whose { .. } => unreachable!("it is answered above"),
            Asked::Open { route, .. } => {
                self.waiting.push((Waits::Open(route), self.position));
                self.last.insert(self.position + 1, 0);
            }
            Asked::Close { session } => {
                self.last.remove(&session);
            }
            Asked::Request {
                session,
                number,
                slot,
            } => {
                let last = self.last.get_mut(&session).unwrap();
                assert!(number <= *last + 1, "G2: {number} after {last}");
                let is_fresh = number == *last + 1;
                if is_fresh {
                    *last = number;
                    self.log.push((session, number, slot.to_vec()));
                }
                let waits = Waits::Request(session, number, !is_fresh);
                self.waiting.push((waits, self.position));
            }
            Asked::Admin {
                client,
                number,
                is_dry,
                command,
                ..
            } => {
                self.admin
                    .push((client, number, is_dry, command.to_owned()));
                return Admit::Taken;
            }
        }
        self.position += 1;
        Admit::Taken
    }

    fn answer(&mut self, gateway: &mut Gateway) {
        for (waits, position) in self.waiting.drain(..) {
            match waits {
                Waits::Open(route) => gateway.opened(route, position + 1, position),
                Waits::Request(session, number, is_repeated) => {
                    let head = ReplyHead {
                        code: 0,
                        is_repeated,
                        is_cut: false,
                        outputs: 1,
                        output_size: 4,
                    };
                    gateway.reply(session, number, position, head, &number.to_le_bytes());
                }
            }
        }
        for (client, number, is_dry, command) in self.admin.drain(..) {
            gateway.admin_answer(client, number, 0, &format!("{command} {is_dry}"));
        }
    }
}

fn settings() -> GatewaySettings {
    GatewaySettings {
        node: NodeId(1),
        cluster: "paris".parse().unwrap(),
        listen: "127.0.0.1:0".parse().unwrap(),
        security: Security::Loopback,
        tokens: BTreeMap::new(),
        admins: BTreeSet::new(),
        event_size: 16,
        window_max: 8,
        connections_max: 16,
        requests_per_principal: 0,
        waiting_bytes_max: 1 << 20,
        greet_within: Duration::from_nanos(100),
    }
}

fn gateway(settings: GatewaySettings) -> Gateway {
    let mut gateway = Gateway::open(settings, 7).unwrap();
    gateway.lead(Leadership::Here);
    gateway
}

fn options() -> ClientOptions {
    ClientOptions::new("paris".parse().unwrap(), 16)
}

fn client(gateways: &[&Gateway], options: &ClientOptions) -> Client {
    let addresses: Vec<String> = gateways
        .iter()
        .map(|gateway| gateway.address().unwrap().to_string())
        .collect();
    Client::new(&addresses, options).unwrap()
}

/// One turn of everything.
fn turn(
    gateway: &mut Gateway,
    model: &mut Model,
    clients: &mut [Client],
) -> Result<(), ClientError> {
    let mut waiting = Waiting::default();
    gateway.prepare(model.now_ns, &mut waiting);
    waiting.wait(Duration::from_millis(1)).unwrap();
    gateway.take(&waiting, |asked| model.ask(asked));
    for client in clients {
        client.turn(Duration::from_millis(1))?;
    }
    Ok(())
}

fn until(
    gateway: &mut Gateway,
    model: &mut Model,
    clients: &mut [Client],
    mut is_done: impl FnMut(&mut [Client], &Model) -> bool,
) -> Result<(), ClientError> {
    let started = Instant::now();
    while !is_done(clients, model) {
        assert!(started.elapsed() < LIMIT, "it never came");
        turn(gateway, model, clients)?;
        model.answer(gateway);
    }
    Ok(())
}

#[test]
fn c1_c2_g2_every_request_is_taken_once_and_answered_in_order_also_when_often_busy() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(3);
    let mut clients = [
        client(&[&gateway], &options()),
        client(&[&gateway], &options()),
    ];
    let mut asked = [0_u64; 2];
    let mut answers: [Vec<u32>; 2] = Default::default();
    until(&mut gateway, &mut model, &mut clients, |clients, _| {
        for (at, client) in clients.iter_mut().enumerate() {
            while asked[at] < 200 && client.ask(&asked[at].to_le_bytes().repeat(2)).is_ok() {
                asked[at] += 1;
            }
            while let Some(reply) = client.reply() {
                assert_eq!(reply.outputs, reply.number.to_le_bytes());
                answers[at].push(reply.number);
            }
        }
        answers.iter().all(|answers| answers.len() == 200)
    })
    .unwrap();
    for answers in &answers {
        assert_eq!(*answers, (1..=200).collect::<Vec<u32>>());
    }
    assert_eq!(model.log.len(), 400);
    for client in &clients {
        let session = client.session().unwrap();
        let ours = model.log.iter().filter(|(of, _, _)| *of == session);
        for (at, (_, number, slot)) in ours.enumerate() {
            assert_eq!(*number as usize, at + 1);
            assert_eq!(*slot, (at as u64).to_le_bytes().repeat(2));
        }
    }
    assert!(
        gateway.traffic().busy > 0,
        "the room was too small on purpose"
    );
}

#[test]
fn who_does_not_lead_sends_clients_to_who_does_and_they_keep_their_session() {
    let mut first = gateway(settings());
    let mut second = gateway(settings());
    let mut model = Model::with_room(100);
    let mut clients = [client(&[&first, &second], &options())];
    clients[0].ask(&[1; 16]).unwrap();
    let mut answers = Vec::new();
    until(&mut first, &mut model, &mut clients, |clients, _| {
        answers.extend(clients[0].reply());
        answers.len() == 1
    })
    .unwrap();
    // The second takes over while a request is written, and its answer never comes.
    clients[0].ask(&[2; 16]).unwrap();
    while model.log.len() < 2 {
        turn(&mut first, &mut model, &mut clients).unwrap();
    }
    model.waiting.clear();
    let session = clients[0].session();
    first.lead(Leadership::Elsewhere {
        leader: Some(NodeId(2)),
        address: second.address().unwrap().to_string(),
    });
    let mut waiting = Waiting::default();
    until(&mut second, &mut model, &mut clients, |clients, _| {
        // The first must have turns too, to say where the leader is.
        waiting.clear();
        first.prepare(0, &mut waiting);
        waiting.wait(Duration::ZERO).unwrap();
        first.take(&waiting, |_| panic!("it does not lead"));
        answers.extend(clients[0].reply());
        answers.len() == 2
    })
    .unwrap();
    assert!(answers[1].is_repeated, "the first answer, given again");
    assert_eq!(answers[1].number, 2);
    assert_eq!(clients[0].session(), session);
    assert_eq!(model.log.len(), 2, "applied once");
    assert!(clients[0].counters().redirected >= 1);
}

#[test]
fn g1_only_who_is_believed_comes_in() {
    let mut with_tokens = settings();
    with_tokens.tokens.insert("a".into(), "secret".into());
    let cases: [(u16, &str, &str, u32); 4] = [
        (code::CLUSTER, "rome", "secret", 16),
        (code::PRINCIPAL, "paris", "wrong", 16),
        (code::PRINCIPAL, "paris", "", 16),
        (code::EVENT_SIZE, "paris", "secret", 24),
    ];
    let mut gateway = gateway(with_tokens);
    let mut model = Model::with_room(10);
    for (expected, cluster, token, event_size) in cases {
        let options = ClientOptions {
            principal: "a".into(),
            token: token.into(),
            ..ClientOptions::new(cluster.parse().unwrap(), event_size)
        };
        let mut clients = [client(&[&gateway], &options)];
        let error = until(&mut gateway, &mut model, &mut clients, |_, _| false).unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused { code, .. } if *code == expected),
            "{error}"
        );
    }
    let good = ClientOptions {
        principal: "a".into(),
        token: "secret".into(),
        ..options()
    };
    let mut clients = [client(&[&gateway], &good)];
    until(&mut gateway, &mut model, &mut clients, |clients, _| {
        clients[0].is_ready()
    })
    .unwrap();
    assert_eq!(model.last.len(), 1, "nobody else came to the owner");
}

#[test]
fn g1_nonsense_and_silence_do_no_harm() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(10);
    let address = gateway.address().unwrap();
    let mut nonsense = TcpStream::connect(address).unwrap();
    nonsense.write_all(&[b'x'; 100]).unwrap();
    let mut early = TcpStream::connect(address).unwrap();
    let mut bytes = Vec::new();
    Packet::bare(PacketKind::Open, 1, 0, 0).encode(&mut bytes, &[]);
    early.write_all(&bytes).unwrap();
    let _silent = TcpStream::connect(address).unwrap();
    let mut clients = [client(&[&gateway], &options())];
    until(&mut gateway, &mut model, &mut clients, |clients, _| {
        clients[0].is_ready()
    })
    .unwrap();
    // Both are cut off; only then may this thread wait for what they were told.
    let started = Instant::now();
    while gateway.traffic().cut + gateway.traffic().refused < 2 || gateway.traffic().connections > 2
    {
        assert!(started.elapsed() < LIMIT, "they were never cut off");
        turn(&mut gateway, &mut model, &mut []).unwrap();
    }
    let mut answer = Vec::new();
    early.read_to_end(&mut answer).unwrap();
    let (packet, _) = Packet::decode(&answer).unwrap().unwrap();
    assert_eq!(
        (packet.kind, packet.b),
        (PacketKind::Refused, u64::from(code::NO_HELLO))
    );
    assert!(matches!(nonsense.read(&mut [0; 8]), Ok(0) | Err(_)));
    assert_eq!(model.last.len(), 1);
}

#[test]
fn g3_a_client_that_does_not_read_is_cut_off() {
    let mut small = settings();
    small.waiting_bytes_max = 4 << 10;
    small.window_max = u32::MAX;
    let mut gateway = gateway(small);
    let mut model = Model::with_room(usize::MAX);
    let mut rude = TcpStream::connect(gateway.address().unwrap()).unwrap();
    rude.set_nonblocking(true).unwrap();
    let mut bytes = hello("");
    let admin = Packet::bare(PacketKind::Admin, 1, 0, 0);
    let words = [b'a'; 60_000];
    admin.encode(&mut bytes, &[&words]);
    let mut at = 0;
    let started = Instant::now();
    // It sends what makes long answers, and takes none of them.
    while gateway.traffic().cut == 0 {
        assert!(started.elapsed() < LIMIT, "it was never cut off");
        match rude.write(&bytes[at..]) {
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if at == bytes.len() {
            bytes.clear();
            admin.encode(&mut bytes, &[&words]);
            at = 0;
        }
        turn(&mut gateway, &mut model, &mut []).unwrap();
        model.answer(&mut gateway);
    }
    assert_eq!(gateway.traffic().cut, 1);
    assert_eq!(gateway.traffic().connections, 0);
}

#[test]
fn operators_are_answered_and_others_are_not() {
    let mut with_admins = settings();
    with_admins.admins.insert("ops".into());
    let mut gateway = gateway(with_admins);
    let address = gateway.address().unwrap().to_string();
    let asking = std::thread::spawn(move || {
        let ask = |principal: &str| {
            let options = ClientOptions {
                principal: principal.into(),
                ..options()
            };
            admin(&address, &options, "status", true, LIMIT)
        };
        (ask("ops"), ask("eve"))
    });
    let mut model = Model::with_room(10);
    until(&mut gateway, &mut model, &mut [], |_, _| {
        asking.is_finished()
    })
    .unwrap();
    let (allowed, refused) = asking.join().unwrap();
    assert_eq!(allowed.unwrap(), (0, "status true".to_owned()));
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            refused,
            ClientError::Refused {
                code: code::NOT_ADMIN,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn tokens_are_compared_whole() {
    assert!(is_equal(b"abc", b"abc"));
    assert!(!is_equal(b"abc", b"abd"));
    assert!(!is_equal(b"abc", b"ab"));
    assert!(!is_equal(b"", b"a"));
}

/// The first bytes of this client.
fn hello(principal: &str) -> Vec<u8> {
    let greeting = Greeting {
        cluster: *b"paris\0\0\0\0\0\0\0\0\0\0\0",
        principal: principal.into(),
        token: String::new(),
        event_size: 16,
    };
    let mut bytes = Vec::new();
    Packet::bare(PacketKind::Hello, 0, 0, 0).encode(&mut bytes, &[&greeting.encode()]);
    bytes
}

/// A socket that has greeted, without a client behind it.
fn greeted(gateway: &mut Gateway, model: &mut Model) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address().unwrap()).unwrap();
    socket.write_all(&hello("raw")).unwrap();
    let is_greeted = |gateway: &Gateway| {
        let mut clients = gateway.clients.values();
        clients.any(|client| {
            let principal = client.principal.as_ref();
            principal.is_some_and(|who| who.name == "raw" && who.identity == Identity::Nobody)
        })
    };
    turns_until(gateway, model, is_greeted);
    socket
}

fn turns_until(
    gateway: &mut Gateway,
    model: &mut Model,
    mut is_done: impl FnMut(&Gateway) -> bool,
) {
    let started = Instant::now();
    while !is_done(gateway) {
        assert!(started.elapsed() < LIMIT, "it never came");
        turn(gateway, model, &mut []).unwrap();
    }
}

#[test]
fn g5_who_says_nothing_goes_and_who_greeted_stays() {
    let mut gateway = gateway(settings());
    let mut model = Model::default();
    let polite = greeted(&mut gateway, &mut model);
    let silent = TcpStream::connect(gateway.address().unwrap()).unwrap();
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.clients.len() == 2
    });
    let mut waiting = Waiting::default();
    assert_eq!(gateway.prepare(40, &mut waiting).as_nanos(), 60);
    assert_eq!(gateway.clients.len(), 2);
    model.now_ns = 100;
    turn(&mut gateway, &mut model, &mut []).unwrap();
    let left: Vec<_> = gateway.clients.values().collect();
    assert!(left.len() == 1 && left[0].principal.is_some());
    assert_eq!(gateway.traffic().cut, 1);
    drop((polite, silent));
}

#[test]
fn g5_beyond_the_most_clients_a_few_are_told_and_the_others_closed() {
    let mut few = settings();
    few.connections_max = 1;
    let mut gateway = gateway(few);
    let mut model = Model::default();
    let _first = greeted(&mut gateway, &mut model);
    let mut late = TcpStream::connect(gateway.address().unwrap()).unwrap();
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.traffic().refused == 1
    });
    let mut told = Vec::new();
    late.read_to_end(&mut told).unwrap();
    let (packet, _) = Packet::decode(&told).unwrap().unwrap();
    assert_eq!(packet.b, u64::from(code::TOO_MANY));
    assert_eq!(gateway.clients.len(), 1);
}

#[test]
fn g6_sessions_that_are_no_more_are_forgotten() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(100);
    let mut socket = greeted(&mut gateway, &mut model);
    // Sessions that nobody has opened: each is asked of the owner, who does not know it.
    let mut bytes = Vec::new();
    for session in 1_000..1_050 {
        let request = Packet {
            body: &[0; 16],
            ..Packet::bare(PacketKind::Request, 1, session, 0)
        };
        request.encode(&mut bytes, &[]);
        model.last.insert(session, 0);
    }
    socket.write_all(&bytes).unwrap();
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.traffic().taken == 50
    });
    assert_eq!(gateway.sessions.len(), 50);
    let head = ReplyHead {
        code: SESSION_UNKNOWN,
        is_repeated: false,
        is_cut: false,
        outputs: 0,
        output_size: 0,
    };
    for session in 1_000..1_050 {
        gateway.reply(session, 1, 7, head, &[]);
    }
    assert!(gateway.sessions.is_empty());
}

#[test]
fn g4_a_client_closes_its_own_session_and_no_other() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(100);
    let mut clients = [client(&[&gateway], &options())];
    let mut answers = 0;
    clients[0].ask(&[1; 16]).unwrap();
    until(&mut gateway, &mut model, &mut clients, |clients, _| {
        answers += usize::from(clients[0].reply().is_some());
        answers == 1
    })
    .unwrap();
    let session = clients[0].session().unwrap();
    let mut other = greeted(&mut gateway, &mut model);
    let mut bytes = Vec::new();
    Packet::bare(PacketKind::Close, 1, session, 0).encode(&mut bytes, &[]);
    // What is answered tells that the close before it was taken.
    Packet::bare(PacketKind::Open, 1, 0, 0).encode(&mut bytes, &[]);
    other.write_all(&bytes).unwrap();
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.opening.len() == 1
    });
    assert!(model.last.contains_key(&session), "it is another's");
    let [own] = clients;
    let closing = std::thread::spawn(move || own.close(LIMIT));
    let is_gone = |gateway: &Gateway| !gateway.sessions.contains_key(&session);
    turns_until(&mut gateway, &mut model, is_gone);
    assert!(!model.last.contains_key(&session));
    assert!(closing.join().unwrap().unwrap(), "it was said");
}

#[test]
fn outputs_that_do_not_fit_are_left_out_and_that_is_said() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(100);
    let mut clients = [client(&[&gateway], &options())];
    clients[0].ask(&[1; 16]).unwrap();
    let started = Instant::now();
    while model.log.is_empty() {
        assert!(started.elapsed() < LIMIT, "it never came");
        turn(&mut gateway, &mut model, &mut clients).unwrap();
        if model.log.is_empty() {
            model.answer(&mut gateway);
        }
    }
    let head = ReplyHead {
        code: 0,
        is_repeated: false,
        is_cut: false,
        outputs: 1_024,
        output_size: 64,
    };
    let session = clients[0].session().unwrap();
    gateway.reply(session, 1, 5, head, &[0; 64 << 10]);
    let mut reply = None;
    while reply.is_none() {
        assert!(started.elapsed() < LIMIT, "it never came");
        turn(&mut gateway, &mut model, &mut clients).unwrap();
        reply = clients[0].reply();
    }
    let reply = reply.unwrap();
    assert!(reply.is_cut && reply.outputs.is_empty());
}
