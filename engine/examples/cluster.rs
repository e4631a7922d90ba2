//! An auction on three nodes in one process: events of a size of their own, timers, outputs, reads, a client.
//!
//! ```text
//! cargo run --release -p lockstep-engine --example cluster -- ./auction
//! ```
//!
//! Each node is a thread here; in a deployment it is a process with the same lines. Run again, it goes on.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep_engine::bytemuck::{self, Pod, Zeroable};
use lockstep_engine::cluster::{ClientsOptions, Driver, DriverOptions, NodeOptions, request};
use lockstep_engine::prelude::*;
use lockstep_engine::replicator::client::{Client, ClientOptions};
use lockstep_engine::replicator::transport::Security;
use lockstep_engine::replicator::{NodeId, ReplicaOptions};

/// 24 bytes of header and 200 of body: each event of this application takes that many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[bytemuck(crate = "lockstep_engine::bytemuck")]
struct Wide {
    header: [u64; 3],
    body: [u64; 25],
}
impl Slot for Wide {}

#[derive(Body)]
#[body(kind = 1, version = 1, slot = Wide)]
#[repr(C)]
struct Bid {
    item: u64,
    bidder: u64,
    #[body(decimal = 2)]
    cents: i64,
}

#[derive(Body)]
#[body(kind = 2, version = 1, slot = Wide)]
#[repr(C)]
struct Note {
    item: u64,
    #[body(chars)]
    text: [u8; 192],
}

#[derive(Kinds)]
#[kinds(schema = "auction.events", version = 1, slot = Wide)]
enum Asked<'a> {
    Bid(&'a Bid),
    Note(&'a Note),
}

bodies! {
    Leads, kind 101, version 1: { item: u64, bidder: u64, cents: i64 }
    Sold, kind 102, version 1: { item: u64, bidder: u64, cents: i64 }
}

#[derive(Kinds)]
#[kinds(schema = "auction.outputs", version = 1)]
enum Said<'a> {
    Leads(&'a Leads),
    Sold(&'a Sold),
}

/// An item is sold so long after its first bid, by the time of the log.
const OPEN_NS: u64 = 200_000_000;

#[derive(Default)]
struct Auction {
    /// Of each item who leads, and with how much.
    bids: DetMap<u64, (u64, i64)>,
    closing: Timers<u64>,
    sold: u64,
    notes: u64,
}
snapshot!(Auction {
    bids,
    closing,
    sold,
    notes
});

impl Logic for Auction {
    type In = Asked<'static>;
    type Out = Said<'static>;

    fn validate(&self, asked: Asked<'_>, _: &Context) -> Result<(), Reject> {
        match asked {
            Asked::Bid(bid) => match self.bids.get(&bid.item) {
                Some((_, best)) if *best >= bid.cents => Err(Reject::new(1, "too low")),
                _ => Ok(()),
            },
            Asked::Note(_) => Ok(()),
        }
    }

    fn apply(&mut self, asked: Asked<'_>, context: &Context, out: &mut Outputs<'_, Self::Out>) {
        match asked {
            Asked::Bid(&Bid {
                item,
                bidder,
                cents,
            }) => {
                if self.bids.get(&item).is_none() {
                    self.closing.set(context.time() + OPEN_NS, item);
                }
                *self.bids.entry(item) = (bidder, cents);
                out.emit(Leads {
                    item,
                    bidder,
                    cents,
                });
            }
            Asked::Note(_) => self.notes += 1,
        }
    }

    // A tick of the log, by `tick_ms`, or any event: the log's time has come so far.
    fn tick(&mut self, context: &Context, out: &mut Outputs<'_, Self::Out>) {
        while let Some(item) = self.closing.due(context.time()) {
            if let Some((bidder, cents)) = self.bids.remove(&item) {
                self.sold += 1;
                out.emit(Sold {
                    item,
                    bidder,
                    cents,
                });
            }
        }
    }
}

/// Where three nodes are reached: by each other, and by clients.
struct Places {
    ids: [NodeId; 3],
    peers: BTreeMap<NodeId, SocketAddr>,
    clients: BTreeMap<NodeId, SocketAddr>,
}

/// What each node is started with; only `node` and what is its own differ.
fn options(places: &Places, node: NodeId, home: &Path) -> Result<DriverOptions, Box<dyn Error>> {
    let replica = ReplicaOptions::new("auction".parse()?, node, &places.ids);
    let mut own = NodeOptions::new(replica);
    own.config.tick_ms = 10;
    own.config.segment_bytes = 1 << 20;
    let mut peers = places.peers.clone();
    peers.remove(&node);
    Ok(DriverOptions {
        node: own,
        directory: home.join(format!("node{node}")),
        listen: places.peers[&node],
        peers,
        clients: ClientsOptions {
            addresses: places.clients.clone(),
            ..ClientsOptions::default()
        },
        security: Security::Loopback,
        has_back_thread: false,
    })
}

/// A node until it is told to end: turns, and now and then a look at its state.
fn run(options: &DriverOptions, is_over: &AtomicBool) -> lockstep_engine::Result<u64> {
    let mut driver = Driver::<Auction>::open(options, Vec::new(), Auction::default)?;
    // ORDERING: Acquire, pairs with the Release of who ends it.
    while !is_over.load(Ordering::Acquire) {
        driver.turn()?;
    }
    let (_, sold) = driver.read(|auction| auction.sold)?;
    driver.end()?;
    Ok(sold)
}

fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "./auction".to_owned());
    let home = PathBuf::from(home);
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let mut places = Places {
        ids,
        peers: BTreeMap::new(),
        clients: BTreeMap::new(),
    };
    for node in ids {
        places.peers.insert(node, free()?);
        places.clients.insert(node, free()?);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut nodes = Vec::new();
    for node in ids {
        let (options, is_over) = (options(&places, node, &home)?, Arc::clone(&is_over));
        nodes.push(std::thread::spawn(move || run(&options, &is_over)));
    }
    trade(&places)?;
    // ORDERING: Release, pairs with the Acquire in `run`.
    is_over.store(true, Ordering::Release);
    for node in nodes {
        let sold = node.join().map_err(|_| "a node panicked")??;
        report(&format!("a node has sold {sold}"));
    }
    Ok(())
}

/// A client of the cluster: whoever leads answers, each request is done once.
fn trade(places: &Places) -> Result<(), Box<dyn Error>> {
    let within = Duration::from_secs(30);
    let addresses: Vec<String> = places.clients.values().map(ToString::to_string).collect();
    let options = ClientOptions::new("auction".parse()?, u32::try_from(size_of::<Wide>())?);
    let mut client = Client::connect(&addresses, &options, within)?;
    let mut ask = |event: Wide| client.call(bytemuck::bytes_of(&event), within);
    // Session and number are the client's to write.
    let item = u64::from(std::process::id());
    for cents in [900, 800] {
        let reply = ask(request(
            0,
            0,
            &Bid {
                item,
                bidder: 7,
                cents,
            },
        ))?;
        for bytes in reply.outputs.chunks_exact(usize::from(reply.output_size)) {
            let output: Event64 = bytemuck::pod_read_unaligned(bytes);
            report(&format!(
                "position {}: {:?}",
                reply.position,
                Said::view(&output)
            ));
        }
        if reply.code != 0 {
            report(&format!(
                "position {}: refused, code {}",
                reply.position, reply.code
            ));
        }
    }
    let mut note = Note {
        item,
        ..Note::default()
    };
    note.text[..5].copy_from_slice(b"hello");
    ask(request(0, 0, &note))?;
    // The item is sold by a tick behind its time: notes go on until then.
    let started = Instant::now();
    while started.elapsed() < Duration::from_nanos(2 * OPEN_NS) {
        ask(request(0, 0, &note))?;
    }
    client.close(within)?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what an example is for")]
fn report(line: &str) {
    println!("{line}");
}
