//! What agreement costs without network and without disk: three nodes in one thread.
//!
//! ```text
//!   events ─► cut (CRC, one copy) ─► propose ─► drain ─► two followers ─► answers ─► committed
//!   └────────────── leader, timed by itself ──┘                           └─ leader ─┘
//! ```
//!
//! `cargo bench -p lockstep-replicator --bench agree`, with `-- --quick` for a smoke run.

#![expect(unsafe_code, reason = "a counting allocator")]
#![expect(clippy::print_stdout, reason = "a benchmark's output")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockstep_journaler::{FrameDraft, FrameHeader, FrameKind, Tail, Term};
use lockstep_replicator::consensus::{
    Consensus, Effects, LogIndex, NewEntry, Outgoing, Role, Row, Settings,
};
use lockstep_replicator::wire::{Kind, SharedFrame};
use lockstep_replicator::{Change, Members, NodeId};

/// Counts what is allocated; what raft allocates for each frame is the one exception that is published.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: both calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed, a count for people.
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A node that keeps frames in memory.
struct Node {
    consensus: Consensus,
    memory: Memory,
}

#[derive(Default)]
struct Memory {
    tail: Tail,
    arrived: Option<SharedFrame>,
    newest: Option<SharedFrame>,
    out: Vec<Outgoing>,
}

impl Effects for Memory {
    type Fault = std::convert::Infallible;

    fn remember(&mut self, _term: Term, _vote: Option<NodeId>) -> Result<(), Self::Fault> {
        Ok(())
    }

    fn append(&mut self, entry: NewEntry) -> Result<Row, Self::Fault> {
        let arrived = self.arrived.take();
        let frame = arrived.unwrap_or_else(|| cut(&entry.before, entry.index, entry.term, &[]));
        self.tail = entry.before.behind(frame.header());
        let row = Row::of(frame.header());
        self.newest = Some(frame);
        Ok(row)
    }

    fn send(&mut self, message: Outgoing) {
        self.out.push(message);
    }

    fn members(&mut self, _applied: u64, _members: &Members) -> Result<(), Self::Fault> {
        Ok(())
    }

    fn change_at(&mut self, _index: u64) -> Result<Option<Change>, Self::Fault> {
        Ok(None)
    }

    fn may_read(&mut self, _token: u64, _index: u64) {}

    fn restart_behind(&mut self, _index: u64, _term: u64) -> Result<Tail, Self::Fault> {
        Ok(self.tail)
    }
}

fn cut(before: &Tail, index: u64, term: u64, events: &[u8]) -> SharedFrame {
    let kind = if events.is_empty() {
        FrameKind::NoOp
    } else {
        FrameKind::Events
    };
    let draft = FrameDraft {
        index,
        term: Term(term),
        kind: kind as u8,
        ..FrameDraft::default()
    };
    let count = u32::try_from(events.len() / 64).unwrap_or(0);
    let at = before.reached.position;
    let header = FrameHeader::seal(&draft, at, count, [events, &[]], before.chain);
    SharedFrame::new(header, [events, &[]])
}

impl Node {
    fn new(id: u16) -> Node {
        let members = Members::of_voters(&[NodeId(1), NodeId(2), NodeId(3)]);
        let index = LogIndex::new(Tail::default(), 0, 0, 0, members);
        Node {
            consensus: Consensus::new(NodeId(id), index, Settings::default()),
            memory: Memory::default(),
        }
    }

    fn sync(&mut self) {
        let Ok(()) = self.consensus.drain(&mut self.memory);
        self.consensus.durable(self.consensus.handed_out());
        let Ok(()) = self.consensus.drain(&mut self.memory);
    }
}

/// Delivers until nobody says anything; the time that node 0 takes is counted.
fn pump(nodes: &mut [Node], leader_time: &mut Duration) {
    loop {
        let mut is_quiet = true;
        for at in 0..nodes.len() {
            let started = Instant::now();
            nodes[at].sync();
            if at == 0 {
                *leader_time += started.elapsed();
            }
            for message in std::mem::take(&mut nodes[at].memory.out) {
                is_quiet = false;
                let frame = nodes[at].memory.newest.clone();
                let carries = message.head.kind == Kind::Append && message.frames > 0;
                let frame = frame.filter(|_| carries);
                let to = usize::from(message.to.0) - 1;
                let started = Instant::now();
                nodes[to].memory.arrived.clone_from(&frame);
                let headers = frame.iter().map(SharedFrame::header);
                let stepped = nodes[to].consensus.step(&message.head, headers);
                assert!(stepped.is_ok(), "members talk with members");
                if to == 0 {
                    *leader_time += started.elapsed();
                }
            }
        }
        if is_quiet {
            return;
        }
    }
}

fn main() {
    let is_quick = std::env::args().any(|word| word == "--quick" || word == "--test");
    let frames: u64 = if is_quick { 200 } else { 40_000 };
    println!(
        "three nodes in one thread, no network, no disk, one frame in flight; events of 64 bytes"
    );
    println!(
        "events/frame   leader ns/frame   leader events/s   all three ns/frame   allocations/frame"
    );
    for events in [1_usize, 16, 256, 1024] {
        let mut nodes: Vec<Node> = (1..=3).map(Node::new).collect();
        let mut leader_time = Duration::ZERO;
        nodes[0].consensus.campaign();
        pump(&mut nodes, &mut leader_time);
        assert_eq!(nodes[0].consensus.view().role, Role::Leader, "elected");
        let body = vec![7_u8; 64 * events];
        let mut best: Option<(f64, f64, f64)> = None;
        for _ in 0..3 {
            leader_time = Duration::ZERO;
            // ORDERING: Relaxed, a count for people.
            let allocated = ALLOCATIONS.load(Ordering::Relaxed);
            let started = Instant::now();
            for _ in 0..frames {
                let cutting = Instant::now();
                let (index, term) = nodes[0].consensus.next().expect("it leads");
                let frame = cut(&nodes[0].memory.tail, index, term.0, &body);
                nodes[0]
                    .consensus
                    .propose(frame.header())
                    .expect("it leads");
                nodes[0].memory.arrived = Some(frame);
                leader_time += cutting.elapsed();
                pump(&mut nodes, &mut leader_time);
            }
            let all = started.elapsed();
            // ORDERING: Relaxed, as above.
            let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
            let per = |time: Duration| time.as_nanos() as f64 / frames as f64;
            let round = (per(leader_time), per(all), allocated as f64 / frames as f64);
            if best.is_none_or(|best| round.0 < best.0) {
                best = Some(round);
            }
        }
        let (leader, all, allocated) = best.unwrap_or_default();
        println!(
            "{events:>12}   {leader:>15.0}   {:>15.0}   {all:>18.0}   {allocated:>17.1}",
            events as f64 * 1e9 / leader
        );
        assert_eq!(
            nodes[0].consensus.committed(),
            nodes[0].consensus.last(),
            "everything is committed"
        );
    }
}
