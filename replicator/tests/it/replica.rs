//! One node, or three, by hand.

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{Background, Options};
use lockstep_replicator::consensus::Role;
use lockstep_replicator::replica::{Mutation, StartError};
use lockstep_replicator::simulation::DiskLog;
use lockstep_replicator::simulation::model::EVENTS;
use lockstep_replicator::wire::{Kind, Message};
use lockstep_replicator::{Fatal, NodeId, Outbox, Policy, ReceiveError, Replica, ReplicaOptions};

fn journal() -> Options {
    let mut options = Options::new(&EVENTS).with_segment_bytes(64 << 10);
    options.background = Background::Stepped;
    options
}

fn options(node: u16) -> ReplicaOptions {
    let founders = [NodeId(1), NodeId(2), NodeId(3)];
    ReplicaOptions::new("paris".parse().unwrap(), NodeId(node), &founders)
}

type Sent = Vec<(NodeId, Message)>;

struct Trio {
    nodes: Vec<Replica<Simulated>>,
    disks: Vec<Simulated>,
    now_ns: u64,
}

impl Trio {
    fn new(change: impl Fn(&mut ReplicaOptions)) -> Trio {
        let disks: Vec<Simulated> = (1..=3).map(Simulated::new).collect();
        let nodes = (1..=3).zip(&disks).map(|(node, disk)| {
            let mut options = options(node);
            change(&mut options);
            Replica::create(disk.clone(), &journal(), &options)
                .unwrap()
                .0
        });
        Trio {
            nodes: nodes.collect(),
            disks,
            now_ns: 0,
        }
    }

    /// A turn of each, and everything that they say delivered.
    fn turn(&mut self) {
        self.now_ns += 10_000_000;
        let mut sent = Sent::new();
        for node in &mut self.nodes {
            node.turn(self.now_ns, &mut sent).unwrap();
        }
        self.deliver(&sent);
    }

    /// A turn of these, and what they say to one another delivered, as far as it `arrives`.
    fn turn_of(&mut self, those: &[usize], arrives: impl Fn(&Message) -> bool) {
        self.now_ns += 10_000_000;
        let mut sent = Sent::new();
        for &node in those {
            self.nodes[node].turn(self.now_ns, &mut sent).unwrap();
        }
        sent.retain(|(to, message)| those.contains(&(usize::from(to.0) - 1)) && arrives(message));
        self.deliver(&sent);
    }

    fn deliver(&mut self, sent: &Sent) {
        for (to, message) in sent {
            let node = &mut self.nodes[usize::from(to.0) - 1];
            let _ = node.receive(message);
        }
    }

    fn elect(&mut self) -> usize {
        for _ in 0..100 {
            self.turn();
            let leader = self.nodes.iter().position(Replica::is_ready_to_lead);
            if let Some(leader) = leader {
                return leader;
            }
        }
        panic!("nobody was elected in a hundred ticks");
    }
}

/// Lets the leader send one frame to a follower, and looks when the answer leaves, and whether the
/// follower's synced bytes have the frame then.
fn answers_on_disk(change: impl Fn(&mut ReplicaOptions)) -> Vec<bool> {
    let mut trio = Trio::new(change);
    let leader = trio.elect();
    let follower = (leader + 1) % 3;
    let to = NodeId(u16::try_from(follower).unwrap() + 1);
    trio.nodes[leader].offer([&[7; 64], &[]], 1).unwrap();
    let index = trio.nodes[leader].view().last;
    let (mut sent, now_ns) = (Sent::new(), trio.now_ns);
    trio.nodes[leader].begin(now_ns, &mut sent).unwrap();
    sent.retain(|(node, message)| *node == to && !message.frames().is_empty());
    assert_eq!(
        sent.len(),
        1,
        "RP2: the frame leaves before the leader's own write"
    );
    trio.deliver(&sent);

    let mut seen = Vec::new();
    let mut look = |said: &Sent| {
        let promises =
            |message: &Message| message.head.kind == Kind::Accepted && message.head.index >= index;
        if said.iter().any(|(_, message)| promises(message)) {
            let mut disk = DiskLog::default();
            disk.look(&trio.disks[follower]);
            seen.push(disk.frame(index).is_some());
        }
    };
    let mut said = Sent::new();
    trio.nodes[follower].begin(now_ns, &mut said).unwrap();
    look(&said);
    said.clear();
    trio.nodes[follower].persist(&mut said).unwrap();
    look(&said);
    seen
}

#[test]
fn r1_an_answer_leaves_when_descriptor_and_events_are_on_the_disk() {
    assert_eq!(answers_on_disk(|_| {}), [true]);
}

/// A node's sockets: what leaves, and whether this node's disk has the frame at `index` then.
struct Port {
    disk: Simulated,
    index: u64,
    queued: Sent,
    left: Vec<(Message, bool)>,
}

impl Port {
    fn of(trio: &Trio, node: usize, index: u64) -> Port {
        Port {
            disk: trio.disks[node].clone(),
            index,
            queued: Sent::new(),
            left: Vec::new(),
        }
    }
}

impl Outbox for Port {
    fn send(&mut self, to: NodeId, message: Message) {
        self.queued.push((to, message));
    }

    fn leave(&mut self) {
        let mut disk = DiskLog::default();
        disk.look(&self.disk);
        let is_durable = disk.frame(self.index).is_some();
        let left = self.queued.drain(..);
        self.left
            .extend(left.map(|(_, message)| (message, is_durable)));
    }
}

#[test]
fn rp4_frames_leave_before_the_disk_works_and_answers_as_soon_as_it_has() {
    let mut trio = Trio::new(|_| {});
    let leader = trio.elect();
    let follower = (leader + 1) % 3;
    let to = NodeId(u16::try_from(follower).unwrap() + 1);
    trio.nodes[leader].offer([&[7; 64], &[]], 1).unwrap();
    let index = trio.nodes[leader].view().last;

    let mut port = Port::of(&trio, leader, index);
    trio.nodes[leader].turn(trio.now_ns, &mut port).unwrap();
    assert!(port.queued.is_empty(), "nothing stays behind a turn");
    let mut frames = port
        .left
        .iter()
        .filter(|(sent, _)| !sent.frames().is_empty());
    let (frame, was_durable) = frames.next().expect("an append");
    assert!(!was_durable, "RP2: it leaves before the leader's own write");
    assert!(trio.nodes[leader].durable().0 > 0);

    trio.deliver(&vec![(to, frame.clone())]);
    let mut port = Port::of(&trio, follower, index);
    trio.nodes[follower].turn(trio.now_ns, &mut port).unwrap();
    assert!(port.queued.is_empty(), "nothing stays behind a turn");
    let mut answers = port
        .left
        .iter()
        .filter(|(sent, _)| sent.head.kind == Kind::Accepted && sent.head.index >= index);
    assert!(matches!(answers.next(), Some((_, true))), "RP1, RP4");
}

#[test]
fn r1_an_answer_before_the_sync_would_be_seen() {
    let seen = answers_on_disk(|options| options.mutation = Some(Mutation::AcknowledgeBeforeSync));
    assert_eq!(seen.first(), Some(&false));
}

#[test]
fn in_memory_an_answer_does_not_wait_for_the_sync_of_its_frame() {
    // It leaves within `persist`, so the disk has it by the time that we look: it is one answer all the same.
    assert_eq!(
        answers_on_disk(|options| options.policy = Policy::Memory).len(),
        1
    );
}

/// Under a promise of memory the leader commits with the word of one follower, whose power goes before its
/// sync and takes all that was not synced; the third node has heard nothing. Leader, follower, third.
fn with_one_that_forgot(is_first: bool, mutation: Option<Mutation>) -> (Trio, [usize; 3]) {
    let change = |options: &mut ReplicaOptions| {
        (options.policy, options.boot) = (Policy::DiskAndMemory, 1);
        options.mutation = mutation;
    };
    let mut trio = Trio::new(change);
    let leads = |node: &Replica<Simulated>| node.view().role == Role::Leader;
    let leader = if is_first {
        // No frame arrives: what the follower forgets is the first that it ever had.
        (0..100).find_map(|_| {
            trio.turn_of(&[0, 1, 2], |message| message.frames().is_empty());
            trio.nodes.iter().position(leads)
        })
    } else {
        let leader = trio.elect();
        trio.turn();
        trio.nodes[leader].offer([&[7; 64], &[]], 1).unwrap();
        Some(leader)
    };
    let leader = leader.expect("somebody is elected within a hundred ticks");
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = u16::try_from(follower).unwrap() + 1;
    trio.nodes[leader].reconnected(NodeId(id));
    for _ in 0..20 {
        let mut sent = Sent::new();
        trio.now_ns += 10_000_000;
        trio.nodes[leader].turn(trio.now_ns, &mut sent).unwrap();
        sent.retain(|(to, _)| to.0 == id);
        trio.deliver(&sent);
        let mut said = Sent::new();
        let node = &mut trio.nodes[follower];
        node.begin(trio.now_ns, &mut said).unwrap();
        if node.has_unwritten() {
            trio.disks[follower].cut_power_after(1);
            assert!(node.persist(&mut said).is_err(), "the power goes");
            trio.deliver(&said);
            break;
        }
        node.persist(&mut said).unwrap();
        trio.deliver(&said);
    }
    let view = trio.nodes[leader].view();
    assert_eq!(view.committed, view.last, "with the word of one follower");
    let disk = trio.disks[follower].clone();
    disk.crash_keeping(|_| false);
    let mut after = options(id);
    change(&mut after);
    after.boot = 2;
    trio.nodes[follower] = Replica::open(disk, &journal(), &after).unwrap().0;
    assert!(trio.nodes[follower].index().last() < view.last);
    (trio, [leader, follower, third])
}

#[test]
fn in_memory_who_forgot_does_not_vote_until_a_leader_has_brought_it_up_to_date() {
    for is_first in [false, true] {
        let (mut trio, [leader, follower, third]) = with_one_that_forgot(is_first, None);
        for _ in 0..100 {
            trio.turn_of(&[follower, third], |_| true);
            let leads = [follower, third].map(|node| trio.nodes[node].view().role == Role::Leader);
            assert_eq!(leads, [false, false], "{is_first}");
        }
        let last = trio.nodes[leader].view().last;
        let hello = trio.nodes[leader].hello();
        trio.nodes[follower].judge(&hello).unwrap();
        for peer in [follower, third] {
            let hello = trio.nodes[peer].hello();
            trio.nodes[leader].judge(&hello).unwrap();
            trio.nodes[leader].reconnected(hello.from);
        }
        let is_level = |trio: &Trio| {
            let has = |node: &Replica<Simulated>| node.view().committed >= last;
            trio.nodes.iter().all(has) && !trio.nodes[follower].is_barred()
        };
        for _ in 0..200 {
            if !is_level(&trio) {
                trio.turn();
            }
        }
        assert!(is_level(&trio), "{is_first}");
    }
}

#[test]
fn in_memory_a_vote_after_forgetting_would_lose_what_was_answered() {
    let mutation = Some(Mutation::VoteAfterForgetting);
    let (mut trio, [leader, follower, third]) = with_one_that_forgot(false, mutation);
    let committed = trio.nodes[leader].view().committed;
    let expected = trio.nodes[leader].index().chain_at(committed);
    let is_elected = (0..100).any(|_| {
        trio.turn_of(&[follower, third], |_| true);
        let nodes = [&trio.nodes[follower], &trio.nodes[third]];
        let leads = |node: &&&Replica<Simulated>| node.view().role == Role::Leader;
        let elected = nodes.iter().find(leads);
        elected.is_some_and(|node| node.index().chain_at(committed) != expected)
    });
    assert!(is_elected, "the mutation is harmless");
}

#[test]
fn r6_a_node_that_lost_what_it_acknowledged_is_refused() {
    let mut trio = Trio::new(|_| {});
    let leader = trio.elect();
    trio.nodes[leader].offer([&[7; 64], &[]], 1).unwrap();
    for _ in 0..3 {
        trio.turn();
    }
    let follower = (leader + 1) % 3;
    let hello = trio.nodes[follower].hello();
    assert!(trio.nodes[leader].judge(&hello).is_ok());
    let mut short = hello;
    short.index -= 1;
    let error = trio.nodes[leader].judge(&short).unwrap_err();
    assert!(
        error.to_string().contains("lost what it had acknowledged"),
        "{error}"
    );
}

#[test]
fn r6_what_a_leader_of_a_higher_term_took_away_was_not_lost_unless_it_was_committed() {
    let mut trio = Trio::new(|_| {});
    let leader = trio.elect();
    trio.turn();
    let committed = trio.nodes[leader].view().committed;
    let follower = (leader + 1) % 3;
    // A frame that one follower has acknowledged, and the leader's own disk does not have yet.
    trio.nodes[leader].offer([&[7; 64], &[]], 1).unwrap();
    let (mut sent, mut said) = (Sent::new(), Sent::new());
    trio.nodes[leader].begin(trio.now_ns, &mut sent).unwrap();
    sent.retain(|(to, _)| usize::from(to.0) == follower + 1);
    trio.deliver(&sent);
    trio.nodes[follower].turn(trio.now_ns, &mut said).unwrap();
    trio.deliver(&said);
    assert_eq!(trio.nodes[leader].view().committed, committed);

    let hello = trio.nodes[follower].hello();
    assert!(hello.index > committed);
    let greeting = |term: u64, index: u64| lockstep_replicator::wire::Head {
        term,
        index,
        ..hello
    };
    let node = &mut trio.nodes[leader];
    assert!(node.judge(&greeting(hello.term, committed)).is_err());
    assert!(
        node.judge(&greeting(hello.term + 1, committed - 1))
            .is_err()
    );
    assert!(node.judge(&greeting(hello.term + 1, committed)).is_ok());
    // What it has no longer does not count any more, and what it still has does.
    assert!(node.judge(&greeting(hello.term, committed)).is_ok());
    assert!(node.judge(&greeting(hello.term, committed - 1)).is_err());
}

#[test]
fn r6_a_node_whose_disk_was_emptied_stops_by_name() {
    let mut trio = Trio::new(|_| {});
    let leader = trio.elect();
    let follower = (leader + 1) % 3;
    let id = u16::try_from(follower).unwrap() + 1;
    let empty = Simulated::new(9);
    let (fresh, _) = Replica::create(empty, &journal(), &options(id)).unwrap();
    trio.nodes[follower] = fresh;
    let mut stopped = None;
    for _ in 0..5 {
        trio.now_ns += 10_000_000;
        let mut sent = Sent::new();
        trio.nodes[leader].turn(trio.now_ns, &mut sent).unwrap();
        for (to, message) in &sent {
            if to.0 == id {
                let received = trio.nodes[follower].receive(message);
                stopped = stopped.or(received.err());
            }
        }
    }
    assert!(
        matches!(stopped, Some(ReceiveError::Fatal(Fatal::Lost(_)))),
        "{stopped:?}"
    );
}

#[test]
fn frames_of_a_dead_leader_are_cut_back_for_the_next_ones() {
    let mut trio = Trio::new(|_| {});
    let leader = trio.elect();
    // It writes what nobody else hears of, and goes silent.
    trio.nodes[leader].offer([&[1; 64], &[]], 1).unwrap();
    let now_ns = trio.now_ns;
    trio.nodes[leader].turn(now_ns, &mut Sent::new()).unwrap();
    let silent = NodeId(u16::try_from(leader).unwrap() + 1);
    let mut next = None;
    for _ in 0..100 {
        trio.now_ns += 10_000_000;
        let mut sent = Sent::new();
        for (at, node) in trio.nodes.iter_mut().enumerate() {
            if at != leader {
                node.turn(trio.now_ns, &mut sent).unwrap();
            }
        }
        sent.retain(|(to, _)| *to != silent);
        trio.deliver(&sent);
        let leads =
            |(at, node): (usize, &Replica<Simulated>)| at != leader && node.is_ready_to_lead();
        next = trio.nodes.iter().enumerate().position(leads);
        if next.is_some() {
            break;
        }
    }
    let next = next.expect("two of three elect");
    trio.nodes[next].offer([&[2; 64], &[]], 1).unwrap();
    for _ in 0..10 {
        trio.turn();
    }
    assert_eq!(trio.nodes[leader].view().role, Role::Follower);
    assert_eq!(trio.nodes[leader].cuts(), 1);
    assert_eq!(trio.nodes[leader].tail(), trio.nodes[next].tail(), "R2");
    assert_eq!(trio.nodes[leader].committed(), trio.nodes[next].committed());
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_by_name() {
    let disk = Simulated::new(1);
    let (node, _) = Replica::create(disk.clone(), &journal(), &options(1)).unwrap();
    node.close().unwrap();
    let other_node = Replica::open(disk.clone(), &journal(), &options(2)).unwrap_err();
    assert!(
        matches!(other_node, StartError::OtherNode { .. }),
        "{other_node}"
    );
    let mut london = options(1);
    london.cluster = "london".parse().unwrap();
    let other_cluster = Replica::open(disk.clone(), &journal(), &london).unwrap_err();
    assert!(
        matches!(other_cluster, StartError::OtherCluster { .. }),
        "{other_cluster}"
    );
    assert!(Replica::open(disk, &journal(), &options(1)).is_ok());
    assert!(Replica::open(Simulated::new(2), &journal(), &options(1)).is_err());
}
