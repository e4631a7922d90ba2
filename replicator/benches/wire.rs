//! A frame over loopback and its answer back, without a sync: raw TCP beside our transport, in turns.
//!
//! ```text
//! cargo bench -p lockstep-replicator --bench wire
//! cargo bench -p lockstep-replicator --bench wire -- --rounds 5 --trips 2000
//! ```
//!
//! Both ways carry the same bytes: a head of 64 bytes and a frame with so many bytes of events there,
//! a head of 64 bytes back. Raw writes and reads them with blocking sockets; so does the second raw row
//! without blocking, which is what a thread that never waits can do at best. Ours cuts nothing, but
//! encodes, decodes and checks both CRCs. Two threads; each spins where it does not block, as ours does:
//! ours is compared with both. The ratios are medians over the rounds, of the p50 of each.

#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep_journaler::{FrameDraft, FrameHeader, Position, Term};
use lockstep_replicator::NodeId;
use lockstep_replicator::transport::{Incoming, Transport};
use lockstep_replicator::wire::{Connection, HEAD_BYTES, Head, Kind, Message, SharedFrame};

mod common;

use common::{argument, nowhere, settings, spread};

/// Bytes of events in a frame.
const SIZES: [usize; 3] = [64, 16 << 10, 64 << 10];

fn main() {
    let rounds = argument("--rounds", 7);
    let trips = argument("--trips", 1_000);
    println!("round trips in microseconds over loopback, {rounds} rounds of {trips} in turns");
    println!(
        "{:>9}  {:<14} {:>8} {:>8} {:>8} {:>12} {:>12}",
        "events", "way", "p50", "p90", "p99", "to blocking", "to spinning"
    );
    for size in SIZES {
        let mut times: [Vec<Vec<f64>>; 3] = Default::default();
        for _ in 0..rounds {
            // Each way is opened anew, so that no thread of another one spins beside it.
            let mut raw = Raw::open(size, false);
            times[0].push(measure(trips, || raw.trip()));
            drop(raw);
            let mut eager = Raw::open(size, true);
            times[1].push(measure(trips, || eager.trip()));
            drop(eager);
            let mut ours = Ours::open(size);
            times[2].push(measure(trips, || ours.trip()));
        }
        for (way, name) in ["raw, blocking", "raw, spinning", "ours"]
            .iter()
            .enumerate()
        {
            tell(size, name, &times[way], [&times[0], &times[1]]);
        }
    }
}

fn measure(trips: usize, mut trip: impl FnMut()) -> Vec<f64> {
    for _ in 0..trips / 10 {
        trip();
    }
    let mut times = Vec::with_capacity(trips);
    for _ in 0..trips {
        let started = Instant::now();
        trip();
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

fn at(times: &[f64], percent: usize) -> f64 {
    times[(times.len() - 1) * percent / 100]
}

fn tell(size: usize, name: &str, rounds: &[Vec<f64>], raw: [&Vec<Vec<f64>>; 2]) {
    let middle = |percent| {
        let [middle, ..] = spread(rounds.iter().map(|times| at(times, percent)).collect());
        middle
    };
    let ratio = |raw: &Vec<Vec<f64>>| {
        let rounds = rounds.iter().zip(raw);
        let ratios = rounds.map(|(ours, raw)| at(ours, 50) / at(raw, 50));
        let [middle, ..] = spread(ratios.collect());
        middle
    };
    println!(
        "{size:>7} B  {name:<14} {:>8.1} {:>8.1} {:>8.1} {:>12.2} {:>12.2}",
        middle(50),
        middle(90),
        middle(99),
        ratio(raw[0]),
        ratio(raw[1]),
    );
}

fn append(size: usize) -> Message {
    let draft = FrameDraft {
        term: Term(1),
        index: 1,
        ..FrameDraft::default()
    };
    let events = vec![7; size];
    let body: [&[u8]; 2] = [&events, &[]];
    let count = u32::try_from(size / 64).expect("a small frame");
    let header = FrameHeader::seal(&draft, Position(0), count, body, 0);
    let head = Head::new(Kind::Append, NodeId(1));
    Message::append(head, vec![SharedFrame::new(header, body)])
}

/// The same bytes over a socket.
struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
    other: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The other side reads the end, and ends.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(other) = self.other.take() {
            let _ = other.join();
        }
    }
}

impl Raw {
    fn open(size: usize, is_eager: bool) -> Raw {
        let mut bytes = Vec::new();
        append(size).encode(&mut bytes);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
        let (mut other, _) = listener.accept().expect("loopback");
        for socket in [&stream, &other] {
            socket.set_nodelay(true).expect("TCP");
            socket.set_nonblocking(is_eager).expect("TCP");
        }
        let length = bytes.len();
        let other = std::thread::spawn(move || {
            let mut came = vec![0; length];
            // Ends: the bench ends its side.
            while read(&mut other, &mut came) {
                write(&mut other, &came[..HEAD_BYTES]);
            }
        });
        Raw {
            stream,
            bytes,
            other: Some(other),
        }
    }

    fn trip(&mut self) {
        write(&mut self.stream, &self.bytes);
        assert!(read(&mut self.stream, &mut [0; HEAD_BYTES]));
    }
}

fn read(stream: &mut TcpStream, into: &mut [u8]) -> bool {
    let mut at = 0;
    while at < into.len() {
        match stream.read(&mut into[at..]) {
            Ok(0) => return false,
            Ok(count) => at += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(_) => return false,
        }
    }
    true
}

fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        match stream.write(&bytes[at..]) {
            Ok(count) => at += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(_) => return,
        }
    }
}

/// The same bytes over two transports.
struct Ours {
    transport: Transport,
    started: Instant,
    message: Message,
    came: Vec<Incoming>,
    is_over: Arc<AtomicBool>,
    other: Option<std::thread::JoinHandle<()>>,
}

impl Ours {
    fn open(size: usize) -> Ours {
        let first = Transport::open(settings(NodeId(1), (NodeId(2), nowhere(9))));
        let mut transport = first.expect("a port");
        let address = transport.address().expect("bound");
        let other = Transport::open(settings(NodeId(2), (NodeId(1), address)));
        let other = other.expect("a port");
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let other = std::thread::spawn(move || answer(other, &ends));
        let started = Instant::now();
        let mut came = Vec::new();
        while !transport.is_connected(NodeId(2), Connection::Log) {
            poll(&mut transport, started, &mut came);
        }
        Ours {
            transport,
            started,
            message: append(size),
            came,
            is_over,
            other: Some(other),
        }
    }

    fn trip(&mut self) {
        self.transport
            .send(NodeId(2), self.message.clone())
            .expect("connected");
        loop {
            self.came.clear();
            poll(&mut self.transport, self.started, &mut self.came);
            let is_answered = self.came.iter().any(|incoming| {
                matches!(incoming, Incoming::Message { message, .. } if message.head.kind == Kind::Accepted)
            });
            if is_answered {
                return;
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // ORDERING: Relaxed, nothing is read by way of the flag.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(other) = self.other.take() {
            // Its panic has told what was wrong.
            let _ = other.join();
        }
    }
}

fn answer(mut transport: Transport, is_over: &AtomicBool) {
    let started = Instant::now();
    let mut came = Vec::new();
    // ORDERING: Relaxed, nothing is read by way of the flag.
    while !is_over.load(Ordering::Relaxed) {
        came.clear();
        poll(&mut transport, started, &mut came);
        for incoming in &came {
            let Incoming::Message { from, message, .. } = incoming else {
                continue;
            };
            assert_eq!(message.frames().len(), 1);
            let accepted = Head {
                index: 1,
                ..Head::new(Kind::Accepted, NodeId(2))
            };
            transport
                .send(*from, Message::bare(accepted))
                .expect("connected");
            transport.flush();
        }
    }
}

fn poll(transport: &mut Transport, started: Instant, came: &mut Vec<Incoming>) {
    let now = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    transport
        .poll(now, Duration::ZERO, came)
        .expect("sockets can be waited for");
}
