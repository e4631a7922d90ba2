//! A session is used by the name that opened it, over whatever connection, under whatever leader.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_engine::cluster::{Driver, DriverOptions};
use lockstep_replicator::ClusterId;
use lockstep_replicator::client::codec::{Greeting, Packet, PacketKind, Packets, ReplyHead};
use lockstep_replicator::client::{Client, ClientOptions, code};

use crate::bank::{Bank, deposit};
use crate::driver::{PATIENCE, alone, free_address};

fn token(name: &str) -> String {
    format!("{name}'s")
}

/// A connection of its own, without a client behind it.
struct Raw {
    stream: TcpStream,
    packets: Packets,
}

impl Raw {
    fn greeted(address: SocketAddr, name: &str) -> Self {
        let greeting = Greeting {
            cluster: "alone".parse::<ClusterId>().unwrap().bytes(),
            principal: name.to_owned(),
            token: token(name),
            event_size: 64,
        };
        let mut out = Vec::new();
        Packet::bare(PacketKind::Hello, 0, 0, 0).encode(&mut out, &[&greeting.encode()]);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&out).unwrap();
        let mut own = Self {
            stream,
            packets: Packets::default(),
        };
        assert_eq!(own.next().0, PacketKind::Welcome);
        own
    }

    /// What is answered to a request for one more cent: the kind, `b`, and whether it is a repetition.
    fn ask(&mut self, session: u64, number: u32) -> (PacketKind, u64, bool) {
        let event = deposit(7, 1);
        let mut out = Vec::new();
        let body = bytemuck::bytes_of(&event);
        Packet::bare(PacketKind::Request, number, session, 0).encode(&mut out, &[body]);
        self.stream.write_all(&out).unwrap();
        // Ends: a door that has just opened, or not, says so for a moment.
        loop {
            match self.next() {
                (PacketKind::Busy | PacketKind::NotLeader, ..) => {
                    self.stream.write_all(&out).unwrap();
                }
                answer => return answer,
            }
        }
    }

    fn next(&mut self) -> (PacketKind, u64, bool) {
        // Ends: with a packet, or with the patience.
        loop {
            if let Some(packet) = self.packets.next().unwrap() {
                let is_repeated = packet.kind == PacketKind::Reply
                    && ReplyHead::decode(packet.body).unwrap().0.is_repeated;
                return (packet.kind, packet.b, is_repeated);
            }
            let mut bytes = [0; 4096];
            let length = self.stream.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "the node closed the connection without a word");
            self.packets.push(&bytes[..length]);
        }
    }
}

/// Runs a node for these names while `with` does.
fn running(options: &DriverOptions, with: impl FnOnce()) {
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let driver = Driver::open(options, vec![deposit(7, 1000)], Bank::default).unwrap();
    let run = move || driver.run(|| asked.load(Ordering::Relaxed));
    let thread = std::thread::Builder::new().spawn(run).unwrap();
    with();
    is_over.store(true, Ordering::Relaxed);
    thread.join().unwrap().unwrap();
}

#[test]
fn ow1_a_session_is_used_by_its_own_principal_also_behind_a_restart() {
    for has_back_thread in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut options = alone(directory.path(), address, has_back_thread);
        for name in ["desk", "other"] {
            options.clients.tokens.insert(name.to_owned(), token(name));
        }
        let mut session = 0;
        running(&options, || {
            let own = ClientOptions {
                principal: "desk".to_owned(),
                token: token("desk"),
                ..ClientOptions::new("alone".parse().unwrap(), 64)
            };
            let mut desk = Client::new(&[address.to_string()], &own).unwrap();
            let event = deposit(7, 1);
            let reply = desk.call(bytemuck::bytes_of(&event), PATIENCE).unwrap();
            assert_eq!(reply.code, 0);
            session = desk.session().unwrap();
            // Neither the answer that is kept, nor another request; and it goes on undisturbed.
            for number in [1, 2] {
                let told = Raw::greeted(address, "other").ask(session, number);
                let refused = (PacketKind::Refused, u64::from(code::SESSION), false);
                assert_eq!(told, refused, "request {number}");
            }
            let reply = desk.call(bytemuck::bytes_of(&event), PATIENCE).unwrap();
            assert_eq!((reply.code, reply.number), (0, 2));
        });
        running(&options, || {
            // This leader did not open it: the state says whose it is.
            let told = Raw::greeted(address, "other").ask(session, 3);
            let refused = (PacketKind::Refused, u64::from(code::SESSION), false);
            assert_eq!(told, refused);
            let mut desk = Raw::greeted(address, "desk");
            let (kind, _, is_repeated) = desk.ask(session, 2);
            assert_eq!((kind, is_repeated), (PacketKind::Reply, true));
            let (kind, _, is_repeated) = desk.ask(session, 3);
            assert_eq!((kind, is_repeated), (PacketKind::Reply, false));
            // OW2
            let told = Raw::greeted(address, "other").ask(session + 1_000, 1);
            assert_eq!(told.0, PacketKind::Refused);
        });
    }
}
