//! A frame committed by two nodes over loopback, each with its disk: behind both syncs, beside raw calls.
//!
//! ```text
//! cargo bench -p lockstep-replicator --bench commit
//! cargo bench -p lockstep-replicator --bench commit -- --rounds 5 --trips 500
//! ```
//!
//! A frame of 256 events of 64 bytes. In each round, one behind the other: a raw write and sync of the
//! same pages; a raw round trip whose other end writes and syncs them before it answers; the same with a
//! write and sync at this end meanwhile; and ours, from the offer to the commit of a frame that is durable
//! here. All of them block, and write into files of zeros on the same file system, none of whose pages is
//! in the cache. Nodes that have just been opened zero the segments that come next, and take fresh memory
//! for each frame that they keep: nothing is measured before that is over.

#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep_journaler::Options;
use lockstep_journaler::storage::Disk;
use lockstep_replicator::consensus::Role;
use lockstep_replicator::transport::{Incoming, Transport, Waiting};
use lockstep_replicator::wire::{Connection, HEAD_BYTES, Message};
use lockstep_replicator::{NodeId, Outbox, Replica, ReplicaOptions};

mod common;

use common::{argument, nowhere, settings, spread};

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Event {
    time: u64,
    words: [u64; 7],
}

lockstep_journaler::schema! {
    EVENTS: "bench.events" version 1 for Event, one kind;
    header { time: time; words: plain; }
    0 = "event" as Event {}
}

/// Bytes of events in a frame, and what it takes of the file: whole pages.
const FRAME_BYTES: usize = 16 << 10;
const PAGES_BYTES: usize = 20 << 10;

const PAGE: usize = 4096;

#[cfg(target_os = "linux")]
const PAST_THE_CACHE: libc::c_int = libc::O_DIRECT;
#[cfg(not(target_os = "linux"))]
const PAST_THE_CACHE: libc::c_int = 0;

/// Zeros that a raw file begins with, and is overwritten in: as long as a segment.
const PREPARED: u64 = 256 << 20;

fn main() {
    let rounds = argument("--rounds", 5);
    let trips = argument("--trips", 300);
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commit-bench");
    let _old = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).expect("a directory");
    let mut raw = Raw::open(&home);
    let mut ours = Ours::open(&home);
    let mut p50: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        p50[0].push(measure(trips, || raw.sync()));
        p50[1].push(measure(trips, || raw.trip(false)));
        p50[2].push(measure(trips, || raw.trip(true)));
        p50[3].push(measure(trips, || ours.commit()));
    }
    drop(ours);
    let names = [
        "raw: write and sync",
        "raw: there, write and sync, back",
        "raw: the same, and a sync here",
        "ours: offered to committed",
    ];
    println!(
        "16 KiB, {rounds} rounds of {trips} in turns; p50 in microseconds, median [least..most] of the rounds"
    );
    for (name, times) in names.iter().zip(&p50) {
        println!("{name:<34} {}", text(times.clone(), 0));
    }
    let to = |row: usize, floor: &dyn Fn(usize) -> f64| {
        let ratios = p50[row].iter().enumerate();
        text(ratios.map(|(round, time)| time / floor(round)).collect(), 2)
    };
    let greater = |at: usize| p50[0][at].max(p50[1][at]);
    println!(
        "ours of the greater of the first two {}, goal 1.2; raw with a sync at both ends of it {}",
        to(3, &greater),
        to(2, &greater)
    );
    println!(
        "ours of raw with a sync at both ends {}",
        to(3, &|at| p50[2][at])
    );
    // What cannot be removed is the next run's.
    let _left = std::fs::remove_dir_all(&home);
}

/// The middle of so many times, µs.
fn measure(trips: usize, mut trip: impl FnMut()) -> f64 {
    for _ in 0..trips / 10 {
        trip();
    }
    let timed = |_| {
        let started = Instant::now();
        trip();
        started.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..trips).map(timed).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn text(all: Vec<f64>, digits: usize) -> String {
    let [middle, least, most] = spread(all);
    format!("{middle:.digits$} [{least:.digits$}..{most:.digits$}]")
}

/// Bare calls.
struct Raw {
    pages: Pages,
    stream: TcpStream,
}

struct Pages {
    file: File,
    written: u64,
}

impl Pages {
    /// Zeroed as segments are, past the page cache: both write pages that are not there yet.
    fn open(path: &Path) -> Pages {
        const CHUNK: usize = 1 << 20;
        let room = vec![0; CHUNK + PAGE];
        let zeros = &room[room.as_ptr().align_offset(PAGE)..][..CHUNK];
        let mut zeroed = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(PAST_THE_CACHE)
            .open(path)
            .expect("a file");
        for _ in 0..PREPARED / CHUNK as u64 {
            zeroed.write_all(zeros).expect("room on the disk");
        }
        zeroed.sync_all().expect("a disk that syncs");
        let file = File::options().write(true).open(path).expect("it is there");
        Pages { file, written: 0 }
    }

    fn put(&mut self) {
        let pages = [7; PAGES_BYTES];
        let last = PREPARED / PAGES_BYTES as u64;
        let at = self.written % last * PAGES_BYTES as u64;
        self.file.write_all_at(&pages, at).expect("room");
        self.file.sync_data().expect("a disk that syncs");
        self.written += 1;
    }
}

impl Raw {
    fn open(home: &Path) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
        let (mut other, _) = listener.accept().expect("loopback");
        stream.set_nodelay(true).expect("TCP");
        other.set_nodelay(true).expect("TCP");
        let mut theirs = Pages::open(&home.join("raw-there"));
        std::thread::spawn(move || {
            let mut frame = [0; HEAD_BYTES + FRAME_BYTES];
            // Ends: the bench ends its side.
            while other.read_exact(&mut frame).is_ok() {
                theirs.put();
                if other.write_all(&frame[..HEAD_BYTES]).is_err() {
                    return;
                }
            }
        });
        Raw {
            pages: Pages::open(&home.join("raw-here")),
            stream,
        }
    }

    fn sync(&mut self) {
        self.pages.put();
    }

    fn trip(&mut self, is_synced_here: bool) {
        let frame = [7; HEAD_BYTES + FRAME_BYTES];
        self.stream.write_all(&frame).expect("loopback");
        if is_synced_here {
            self.pages.put();
        }
        let mut answer = [0; HEAD_BYTES];
        self.stream.read_exact(&mut answer).expect("loopback");
    }
}

/// Two nodes; the one here leads.
struct Ours {
    here: Node,
    is_over: Arc<AtomicBool>,
    other: Option<std::thread::JoinHandle<()>>,
}

struct Node {
    replica: Replica<Disk>,
    transport: Transport,
    waiting: Waiting,
    incoming: Vec<Incoming>,
    started: Instant,
}

struct Post<'a>(&'a mut Transport);

impl Outbox for Post<'_> {
    fn send(&mut self, to: NodeId, message: Message) {
        // The consensus asks again where it matters.
        let _lost = self.0.send(to, message);
    }

    fn leave(&mut self) {
        self.0.flush();
    }
}

impl Ours {
    fn open(home: &Path) -> Ours {
        let mut here = Node::open(home, 1, (NodeId(2), nowhere(9)));
        let address = here.transport.address().expect("bound");
        let mut there = Node::open(home, 2, (NodeId(1), address));
        // The one here is to lead.
        there.replica.may_campaign(false);
        let is_over = Arc::new(AtomicBool::new(false));
        let is_prepared = Arc::new(AtomicBool::new(false));
        let (ends, tells) = (Arc::clone(&is_over), Arc::clone(&is_prepared));
        let other = std::thread::spawn(move || {
            // ORDERING: Relaxed, nothing is read by way of the flag.
            while !ends.load(Ordering::Relaxed) {
                there.turn();
                // ORDERING: Relaxed, as above.
                tells.store(there.is_prepared(), Ordering::Relaxed);
            }
        });
        // ORDERING: Relaxed, as above.
        let are_prepared = |here: &Node| here.is_prepared() && is_prepared.load(Ordering::Relaxed);
        while !here.replica.is_ready_to_lead() || !are_prepared(&here) {
            here.turn();
        }
        assert_eq!(here.replica.view().role, Role::Leader);
        let kept = here.replica.options().recent_bytes_max / FRAME_BYTES;
        let mut ours = Ours {
            here,
            is_over,
            other: Some(other),
        };
        for _ in 0..=kept {
            ours.commit();
        }
        ours
    }

    fn commit(&mut self) {
        let replica = &mut self.here.replica;
        let events = [7; FRAME_BYTES];
        let position = replica.offer([&events, &[]], 0).expect("it leads");
        let end = position.0 + (FRAME_BYTES / size_of::<Event>()) as u64;
        // Ends: by the commit, or by a failure of either node.
        while self.here.replica.committed().0 < end || self.here.replica.durable().0 < end {
            self.here.turn();
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // ORDERING: Relaxed, nothing is read by way of the flag.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(other) = self.other.take() {
            // Its panic has told what was wrong.
            let _ended = other.join();
        }
    }
}

impl Node {
    fn open(home: &Path, number: u16, peer: (NodeId, SocketAddr)) -> Node {
        let directory = home.join(format!("node{number}"));
        let disk = Disk::create(&directory).expect("a directory");
        let options = ReplicaOptions::new(
            "bench".parse().expect("a name"),
            NodeId(number),
            &[NodeId(1), NodeId(2)],
        );
        let opened = Replica::create(disk, &Options::new(&EVENTS), &options);
        let (replica, _) = opened.expect("a fresh directory");
        Node {
            replica,
            transport: Transport::open(settings(NodeId(number), peer)).expect("a port"),
            waiting: Waiting::default(),
            incoming: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Whether the segments that come next are there.
    fn is_prepared(&self) -> bool {
        self.replica.journal().health().spares >= Options::new(&EVENTS).spares as usize
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// One turn, as a node's thread makes it.
    fn turn(&mut self) {
        let now = self.now_ns();
        let mut post = Post(&mut self.transport);
        self.replica
            .turn(now, &mut post)
            .expect("a disk that writes");
        self.waiting.clear();
        let most = self.transport.prepare(now, &mut self.waiting);
        let most = most.min(Duration::from_millis(5));
        self.waiting.wait(most).expect("sockets can be waited for");
        let now = self.now_ns();
        self.transport.take(now, &self.waiting, &mut self.incoming);
        for incoming in self.incoming.drain(..) {
            match incoming {
                Incoming::Message { message, .. } => {
                    // Late, or a vote that is not given.
                    let _refused = self.replica.receive(&message);
                }
                Incoming::Connected {
                    node,
                    connection: Connection::Log,
                    ..
                } => self.replica.reconnected(node),
                _ => {}
            }
        }
    }
}
