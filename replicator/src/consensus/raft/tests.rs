//! Each surprise of the crate, by name.

use lockstep_journaler::{FrameDraft, FrameKind, Position, Tail};

use super::*;
use crate::consensus::{Effects, NewEntry, Origin, Outgoing, Row};
use crate::members::Members;

/// A node with its frames in memory, and messages kept.
struct Bench {
    consensus: Consensus,
    owner: Owner,
}

#[derive(Default)]
struct Owner {
    headers: Vec<FrameHeader>,
    arrived: Vec<(FrameHeader, Option<Change>)>,
    changes: std::collections::BTreeMap<u64, Change>,
    sent: Vec<Outgoing>,
    remembered: Vec<(u64, Option<NodeId>)>,
    members: Vec<(u64, Members)>,
    reads: Vec<(u64, u64)>,
    is_silent: bool,
}

impl Effects for Owner {
    type Fault = String;

    fn remember(&mut self, term: Term, vote: Option<NodeId>) -> Result<(), String> {
        self.remembered.push((term.0, vote));
        Ok(())
    }

    fn append(&mut self, entry: NewEntry) -> Result<Row, String> {
        let keep = usize::try_from(entry.before.index).unwrap();
        self.headers.truncate(keep);
        let arrived = self
            .arrived
            .iter()
            .find(|(header, _)| (header.index, header.term) == (entry.index, entry.term));
        let header = match arrived {
            Some((header, change)) => {
                if let Some(change) = change {
                    self.changes.insert(entry.index, *change);
                }
                *header
            }
            None => {
                assert_ne!(entry.origin, Origin::Frame, "a frame comes with its entry");
                let kind = match entry.origin {
                    Origin::LeaveJoint => FrameKind::LeaveJoint,
                    Origin::NoOp | Origin::Frame => FrameKind::NoOp,
                };
                header_behind(&entry.before, entry.index, entry.term, kind, 0)
            }
        };
        self.headers.push(header);
        Ok(Row::of(&header))
    }

    fn send(&mut self, message: Outgoing) {
        if !self.is_silent {
            self.sent.push(message);
        }
    }

    fn members(&mut self, applied: u64, members: &Members) -> Result<(), String> {
        self.members.push((applied, members.clone()));
        Ok(())
    }

    fn change_at(&mut self, index: u64) -> Result<Option<Change>, String> {
        Ok(self.changes.get(&index).copied())
    }

    fn may_read(&mut self, token: u64, index: u64) {
        self.reads.push((token, index));
    }

    fn restart_behind(&mut self, index: u64, term: u64) -> Result<Tail, String> {
        Ok(Tail {
            index,
            term,
            ..Tail::default()
        })
    }
}

fn header_behind(before: &Tail, index: u64, term: u64, kind: FrameKind, count: u32) -> FrameHeader {
    let draft = FrameDraft {
        index,
        term: Term(term),
        kind: kind as u8,
        ..FrameDraft::default()
    };
    let at = before.reached.position;
    FrameHeader::seal(&draft, at, count, [&[], &[]], before.chain)
}

impl Bench {
    fn new(node: u16, voters: &[u16]) -> Bench {
        let voters: Vec<NodeId> = voters.iter().map(|&id| NodeId(id)).collect();
        let index = LogIndex::new(Tail::default(), 0, 0, 0, Members::of_voters(&voters));
        Bench::of(node, index)
    }

    fn of(node: u16, index: LogIndex) -> Bench {
        Bench {
            consensus: Consensus::new(NodeId(node), index, Settings::default()),
            owner: Owner::default(),
        }
    }

    fn drain(&mut self) {
        self.consensus.drain(&mut self.owner).unwrap();
    }

    fn sync(&mut self) {
        self.drain();
        let mark = self.consensus.handed_out();
        self.consensus.durable(mark);
        self.drain();
    }

    fn tail(&self) -> Tail {
        let index = self.consensus.index();
        index.tail_at(index.last()).unwrap()
    }

    fn propose(&mut self) -> Result<u64, NotNow> {
        let (index, term) = self.consensus.next()?;
        let header = header_behind(&self.tail(), index, term.0, FrameKind::Events, 3);
        self.owner.arrived.push((header, None));
        self.consensus.propose(&header)?;
        self.drain();
        Ok(index)
    }

    fn propose_change(&mut self, change: Change) -> Result<bool, NotNow> {
        let (index, term) = self.consensus.next()?;
        let header = header_behind(&self.tail(), index, term.0, FrameKind::Membership, 1);
        let is_taken = self.consensus.propose_change(&header, change)?;
        self.owner.arrived.push((header, Some(change)));
        self.drain();
        Ok(is_taken)
    }

    fn receive(&mut self, message: &Outgoing, headers: &[FrameHeader], changes: &Owner) {
        for header in headers {
            let change = changes.changes.get(&header.index).copied();
            self.owner.arrived.push((*header, change));
        }
        let _ = self.consensus.step(&message.head, headers.iter());
        self.drain();
    }

    fn sent(&mut self, kind: Kind) -> Vec<Outgoing> {
        let all = self.owner.sent.iter();
        all.filter(|message| message.head.kind == kind)
            .copied()
            .collect()
    }
}

/// Delivers until nobody says anything; those listed sync.
fn pump(nodes: &mut [Bench], synced: &[u16]) {
    for _ in 0..100 {
        let mut is_quiet = true;
        for at in 0..nodes.len() {
            if synced.contains(&nodes[at].consensus.node.0) {
                nodes[at].sync();
            } else {
                nodes[at].drain();
            }
            for message in std::mem::take(&mut nodes[at].owner.sent) {
                is_quiet = false;
                let from = usize::try_from(message.head.index).unwrap();
                let count = usize::try_from(message.frames).unwrap();
                let headers = if message.head.kind == Kind::Append {
                    nodes[at].owner.headers[from..from + count].to_vec()
                } else {
                    Vec::new()
                };
                let changes = Owner {
                    changes: nodes[at].owner.changes.clone(),
                    ..Owner::default()
                };
                let to = nodes
                    .iter_mut()
                    .find(|node| node.consensus.node == message.to);
                if let Some(to) = to {
                    to.receive(&message, &headers, &changes);
                }
            }
        }
        if is_quiet {
            return;
        }
    }
    panic!("they talk for ever");
}

fn trio() -> Vec<Bench> {
    (1..=3).map(|node| Bench::new(node, &[1, 2, 3])).collect()
}

fn elected() -> Vec<Bench> {
    let mut nodes = trio();
    nodes[0].consensus.campaign();
    pump(&mut nodes, &[1, 2, 3]);
    assert_eq!(nodes[0].consensus.view().role, Role::Leader);
    nodes
}

#[test]
fn a_leader_without_its_disk_commits_by_the_others_and_hands_out_nothing() {
    let mut nodes = elected();
    let index = nodes[0].propose().unwrap();
    pump(&mut nodes, &[2, 3]);
    let view = nodes[0].consensus.view();
    assert_eq!((view.committed, view.durable), (index, index - 1));
    nodes[0].sync();
    assert_eq!(nodes[0].consensus.view().durable, index);
}

#[test]
fn c2_an_answer_waits_for_the_disk_and_a_heartbeats_answer_with_it() {
    let mut nodes = elected();
    nodes[0].propose().unwrap();
    let append = nodes[0].sent(Kind::Append)[0];
    let header = *nodes[0].owner.headers.last().unwrap();
    let to = append.to;
    let follower = nodes
        .iter_mut()
        .find(|node| node.consensus.node == to)
        .unwrap();
    follower.receive(&append, &[header], &Owner::default());
    let heartbeat = Head {
        term: append.head.term,
        ..Head::new(Kind::Heartbeat, NodeId(1))
    };
    follower.consensus.step(&heartbeat, [].iter()).unwrap();
    follower.drain();
    assert!(follower.owner.sent.is_empty(), "nothing before the sync");
    follower.sync();
    assert_eq!(follower.sent(Kind::Accepted).len(), 1);
    assert_eq!(follower.sent(Kind::HeartbeatAnswer).len(), 1);
}

#[test]
fn of_several_answers_to_one_peer_the_last_is_enough() {
    let mut nodes = elected();
    let follower_id = NodeId(2);
    for _ in 0..3 {
        nodes[0].propose().unwrap();
        let appends = nodes[0].sent(Kind::Append);
        let headers = nodes[0].owner.headers.clone();
        nodes[0].owner.sent.clear();
        for append in appends.iter().filter(|append| append.to == follower_id) {
            let from = usize::try_from(append.head.index).unwrap();
            let count = usize::try_from(append.frames).unwrap();
            nodes[1].receive(append, &headers[from..from + count], &Owner::default());
        }
    }
    nodes[1].sync();
    let answers = nodes[1].sent(Kind::Accepted);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].head.index, nodes[0].consensus.last());
}

#[test]
fn a_single_voter_whose_disk_is_behind_does_not_campaign() {
    // Two voters; the other hands over its vote by leaving, while our disk is behind.
    let mut alone = Bench::new(1, &[1]);
    let frames = [header_behind(&Tail::default(), 1, 1, FrameKind::Events, 1)];
    let head = Head {
        term: 1,
        ..Head::new(Kind::Append, NodeId(2))
    };
    alone.owner.arrived.push((frames[0], None));
    alone.consensus.step(&head, frames.iter()).unwrap();
    alone.drain();
    for _ in 0..100 {
        alone.consensus.tick();
        alone.drain();
    }
    assert_eq!(alone.consensus.view().role, Role::Follower);
    alone.sync();
    for _ in 0..100 {
        alone.consensus.tick();
        alone.sync();
    }
    assert_eq!(alone.consensus.view().role, Role::Leader);
}

#[test]
fn r6_a_heartbeat_that_commits_beyond_our_log_is_a_loss_and_no_panic() {
    let mut node = Bench::new(2, &[1, 2, 3]);
    let head = Head {
        term: 3,
        commit: 7,
        ..Head::new(Kind::Heartbeat, NodeId(1))
    };
    let error = node.consensus.step(&head, [].iter()).unwrap_err();
    assert!(matches!(
        error,
        StepError::Lost {
            acknowledged: 7,
            last: 0,
            ..
        }
    ));
}

#[test]
fn a_node_that_may_not_campaign_is_ticked_and_votes() {
    let mut nodes = trio();
    for node in &mut nodes {
        node.consensus.may_campaign(false);
    }
    for _ in 0..500 {
        nodes.iter_mut().for_each(|node| node.consensus.tick());
        pump(&mut nodes, &[1, 2, 3]);
    }
    assert!(
        nodes
            .iter()
            .all(|node| node.consensus.view().role == Role::Follower)
    );
    nodes[2].consensus.may_campaign(true);
    for _ in 0..40 {
        nodes.iter_mut().for_each(|node| node.consensus.tick());
        pump(&mut nodes, &[1, 2, 3]);
    }
    assert_eq!(nodes[2].consensus.view().role, Role::Leader);
}

#[test]
fn c5_the_election_timeout_is_a_function_of_the_seed() {
    let ticks = |seed| {
        let members = Members::of_voters(&[NodeId(1), NodeId(2)]);
        let index = LogIndex::new(Tail::default(), 0, 0, 0, members);
        let settings = Settings {
            seed,
            ..Settings::default()
        };
        let mut consensus = Consensus::new(NodeId(1), index, settings);
        (1..100)
            .find(|_| {
                consensus.tick();
                consensus.view().role != Role::Follower
            })
            .unwrap()
    };
    let all: Vec<u32> = (0..50).map(ticks).collect();
    assert_eq!(all, (0..50).map(ticks).collect::<Vec<u32>>());
    assert!(all.iter().all(|ticks| (10..20).contains(ticks)), "{all:?}");
    assert!(all.iter().any(|&ticks| ticks != all[0]));
}

#[test]
fn a_second_change_is_refused_while_one_is_under_way() {
    let mut nodes = elected();
    assert!(
        nodes[0]
            .propose_change(Change::AddLearner(NodeId(4)))
            .unwrap()
    );
    let error = nodes[0]
        .propose_change(Change::AddLearner(NodeId(5)))
        .unwrap_err();
    assert_eq!(error, NotNow::Changing);
    pump(&mut nodes, &[1, 2, 3]);
    assert!(nodes[0].consensus.members().learners.contains(&NodeId(4)));
    assert!(nodes[0].propose_change(Change::Remove(NodeId(4))).unwrap());
}

#[test]
fn a_change_that_became_an_empty_entry_is_told() {
    let mut nodes = elected();
    nodes[0]
        .propose_change(Change::AddLearner(NodeId(4)))
        .unwrap();
    let (index, term) = nodes[0].consensus.next().unwrap();
    let header = header_behind(&nodes[0].tail(), index, term.0, FrameKind::Membership, 1);
    let taken = nodes[0]
        .consensus
        .change_unchecked(&header, Change::AddLearner(NodeId(5)));
    assert_eq!(taken, Ok(false));
}

#[test]
fn after_an_election_a_change_waits_for_the_no_op() {
    let mut nodes = trio();
    nodes[0].consensus.campaign();
    // The votes are in, the no-op is nobody's yet.
    nodes[0].sync();
    for at in [1, 2] {
        for message in std::mem::take(&mut nodes[0].owner.sent) {
            if message.to == nodes[at].consensus.node {
                nodes[at].receive(&message, &[], &Owner::default());
            }
        }
        nodes[at].sync();
        for message in std::mem::take(&mut nodes[at].owner.sent) {
            nodes[0].receive(&message, &[], &Owner::default());
        }
        nodes[0].consensus.campaign();
        nodes[0].sync();
    }
    pump(&mut nodes, &[1, 2, 3]);
    assert_eq!(nodes[0].consensus.view().role, Role::Leader);
    assert_eq!(nodes[0].owner.headers[0].kind, FrameKind::NoOp as u8, "C4");
    assert!(nodes[0].consensus.may_change().is_ok());
}

#[test]
fn c4_a_joint_change_ends_by_an_empty_frame_of_its_own() {
    let mut nodes = elected();
    nodes.push(Bench::new(4, &[1, 2, 3]));
    nodes[0]
        .propose_change(Change::AddLearner(NodeId(4)))
        .unwrap();
    pump(&mut nodes, &[1, 2, 3, 4]);
    let change = Change::Replace {
        gone: NodeId(3),
        by: NodeId(4),
    };
    assert!(nodes[0].propose_change(change).unwrap());
    for _ in 0..5 {
        nodes[0].consensus.tick();
        pump(&mut nodes, &[1, 2, 3, 4]);
    }
    let kinds: Vec<u8> = nodes[0]
        .owner
        .headers
        .iter()
        .map(|header| header.kind)
        .collect();
    assert_eq!(
        kinds.last(),
        Some(&(FrameKind::LeaveJoint as u8)),
        "{kinds:?}"
    );
    let members = nodes[0].consensus.members();
    assert_eq!(members.voters, [NodeId(1), NodeId(2), NodeId(4)]);
    assert!(!members.is_joint());
    assert_eq!(
        nodes[3].consensus.members(),
        members,
        "the newcomer says the same"
    );
}

#[test]
fn who_stands_back_campaigns_behind_all_others_and_campaigns_at_last() {
    let campaigns_at = |node: u16, stands_back: bool| {
        let mut bench = Bench::new(node, &[1, 2, 3]);
        bench.consensus.stand_back(stands_back);
        let campaigns = |_: &u32| {
            bench.consensus.tick();
            bench.sync();
            bench.consensus.view().role == Role::PreCandidate
        };
        (1..100).find(campaigns).unwrap()
    };
    let usual = 10..20;
    for node in 1..=3 {
        let at = campaigns_at(node, false);
        assert!(usual.contains(&at), "{at}");
        assert_eq!(campaigns_at(node, true), at + 10);
    }
}

#[test]
fn while_leadership_is_handed_over_nothing_is_proposed() {
    let mut nodes = elected();
    nodes[0].consensus.transfer_to(NodeId(2)).unwrap();
    assert_eq!(
        nodes[0].propose(),
        Err(NotNow::HandingOver { to: NodeId(2) })
    );
    pump(&mut nodes, &[1, 2, 3]);
    assert_eq!(
        nodes[1].consensus.view().role,
        Role::Leader,
        "without a tick"
    );
}

#[test]
fn frames_in_flight_do_not_merge_and_each_has_its_message() {
    let mut nodes = elected();
    let before = nodes[0].sent(Kind::Append).len();
    for _ in 0..20 {
        nodes[0].propose().unwrap();
    }
    let appends = nodes[0].sent(Kind::Append);
    assert_eq!(appends.len() - before, 40, "20 frames to 2 peers");
    assert!(appends.iter().all(|append| append.frames == 1));
}

#[test]
fn a_read_before_the_first_commit_of_the_term_is_refused_and_not_lost() {
    let mut nodes = trio();
    assert!(!nodes[0].consensus.read_index(1), "it does not lead");
    nodes[0].consensus.campaign();
    nodes[0].sync();
    assert!(!nodes[0].consensus.read_index(1));
    pump(&mut nodes, &[1, 2, 3]);
    assert!(nodes[0].consensus.read_index(7));
    pump(&mut nodes, &[1, 2, 3]);
    assert_eq!(nodes[0].owner.reads, [(7, nodes[0].consensus.committed())]);
}

#[test]
fn a_follower_forwards_nothing() {
    let mut nodes = elected();
    assert!(!nodes[1].consensus.read_index(7));
    assert!(nodes[1].consensus.transfer_to(NodeId(3)).is_err());
    assert!(nodes[1].propose().is_err());
    nodes[1].drain();
    assert!(nodes[1].owner.sent.is_empty());
}

#[test]
fn a_lost_append_is_sent_again_after_the_connection_is_made_anew() {
    let mut nodes = elected();
    nodes[0].propose().unwrap();
    nodes[0].owner.sent.clear(); // lost with the connection
    nodes[0].propose().unwrap();
    nodes[0].owner.sent.clear();
    nodes[0].consensus.unreachable(NodeId(2));
    nodes[0].consensus.unreachable(NodeId(3));
    for _ in 0..3 {
        nodes[0].consensus.tick();
        pump(&mut nodes, &[1, 2, 3]);
    }
    let last = nodes[0].consensus.last();
    assert!(nodes.iter().all(|node| node.consensus.committed() == last));
}

#[test]
fn c3_term_and_vote_are_remembered_before_the_vote_is_asked_for() {
    let mut nodes = trio();
    nodes[0].consensus.campaign();
    pump(&mut nodes, &[1, 2, 3]);
    assert_eq!(nodes[0].owner.remembered, [(1, Some(NodeId(1)))]);
    assert_eq!(nodes[1].owner.remembered, [(1, Some(NodeId(1)))]);
}

#[test]
fn a_commit_can_move_by_a_vote_and_the_message_carries_it() {
    let nodes = &mut elected();
    let index = nodes[0].propose().unwrap();
    pump(nodes, &[1, 2, 3]);
    nodes[1].consensus.campaign();
    nodes[1].drain();
    nodes[1].sync();
    let asked = nodes[1].sent(Kind::PreVote);
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].head.commit, asked[0].head.a), (index, 1));
}

#[test]
fn mb2_a_restart_behind_the_change_does_not_apply_it_again() {
    let mut nodes = elected();
    nodes[0]
        .propose_change(Change::AddLearner(NodeId(4)))
        .unwrap();
    pump(&mut nodes, &[1, 2, 3]);
    let (applied, members) = nodes[0].owner.members.last().cloned().unwrap();
    let mut index = LogIndex::new(Tail::default(), 1, 1, applied, members.clone());
    for (at, header) in (1..).zip(&nodes[0].owner.headers) {
        index.put(at, Row::of(header));
    }
    index.know_committed(applied);
    let mut again = Bench::of(1, index);
    again.sync();
    assert_eq!(again.consensus.members(), &members);
    assert!(again.owner.members.is_empty(), "nothing is applied twice");
}

#[test]
fn a_follower_answers_a_gap_with_a_hint_and_catches_up() {
    let mut nodes = elected();
    let mut lagging = nodes.remove(2);
    for _ in 0..5 {
        nodes[0].propose().unwrap();
        pump(&mut nodes, &[1, 2]);
    }
    lagging.owner.sent.clear();
    nodes.push(lagging);
    nodes[0].consensus.unreachable(NodeId(3));
    for _ in 0..3 {
        nodes[0].consensus.tick();
        pump(&mut nodes, &[1, 2, 3]);
    }
    assert_eq!(nodes[2].consensus.committed(), nodes[0].consensus.last());
    assert_eq!(nodes[2].owner.headers, nodes[0].owner.headers, "R2");
}

#[test]
fn an_isolated_leader_steps_down() {
    let mut nodes = elected();
    for _ in 0..25 {
        nodes[0].consensus.tick();
        nodes[0].sync();
    }
    assert_eq!(nodes[0].consensus.view().role, Role::Follower);
}

#[test]
fn positions_of_the_bench_are_dense() {
    let mut nodes = elected();
    nodes[0].propose().unwrap();
    let index = nodes[0].consensus.index();
    assert_eq!(index.position_behind(index.last()), Some(Position(3)));
}

#[test]
fn a_leader_that_was_removed_hands_over() {
    // Found by seed 155: the change was proposed by another, and committed by the one that it removes.
    let mut nodes = elected();
    nodes[0].propose_change(Change::Remove(NodeId(1))).unwrap();
    pump(&mut nodes, &[1, 2, 3]);
    assert!(!nodes[0].consensus.members().contains(NodeId(1)));
    for _ in 0..5 {
        nodes[0].consensus.tick();
        pump(&mut nodes, &[1, 2, 3]);
    }
    let leads = |node: &Bench| node.consensus.view().role == Role::Leader;
    assert!(!leads(&nodes[0]) && nodes[1..].iter().any(leads));
}
