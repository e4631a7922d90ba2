//! A gateway and real clients on loopback, in one thread; its owner is a model of the engine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::super::library::{Client, ClientOptions, admin};
use super::super::machine::ClientError;
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// What the engine does with sessions and requests, in small.
#[derive(Default)]
struct Model {
    log: Vec<(u64, u32, Vec<u8>)>,
    last: BTreeMap<u64, u32>,
    position: u64,
    room: usize,
    waiting: Vec<(Waits, u64)>,
    admin: Vec<(ClientId, u32, bool, String)>,
}

enum Waits {
    Open(u64),
    Request(u64, u32, bool),
}

impl Model {
    fn ask(&mut self, asked: Asked<'_>) -> Admit {
        if self.waiting.len() >= self.room {
            return Admit::Busy;
        }
        match asked {
            Asked::Open { route } => {
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
        waiting_bytes_max: 1 << 20,
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
    gateway.prepare(&mut waiting);
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
    let mut model = Model {
        room: 3,
        ..Model::default()
    };
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
    let mut model = Model {
        room: 100,
        ..Model::default()
    };
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
        first.prepare(&mut waiting);
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
    let mut model = Model {
        room: 10,
        ..Model::default()
    };
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
    let mut model = Model {
        room: 10,
        ..Model::default()
    };
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
    let mut model = Model {
        room: usize::MAX,
        ..Model::default()
    };
    let mut rude = TcpStream::connect(gateway.address().unwrap()).unwrap();
    rude.set_nonblocking(true).unwrap();
    let greeting = Greeting {
        cluster: *b"paris\0\0\0\0\0\0\0\0\0\0\0",
        principal: String::new(),
        token: String::new(),
        event_size: 0,
    };
    let mut bytes = Vec::new();
    Packet::bare(PacketKind::Hello, 0, 0, 0).encode(&mut bytes, &[&greeting.encode()]);
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
    let mut model = Model {
        room: 10,
        ..Model::default()
    };
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
