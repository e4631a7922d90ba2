//! What operators ask of a node: looked at, said in words, or made an event behind who asked for it.
//!
//! # Invariants
//!
//! * `OP1` What makes no sense now is refused here, with its reason, and nothing of it gets into the log.
//! * `OP2` A dry run says what would be done, and changes nothing.

use lockstep_journaler::Position;
use lockstep_journaler::storage::Storage;
use lockstep_replicator::client::Principal;
use lockstep_replicator::consensus::Role;
use lockstep_replicator::{Change, Gating, NodeId, OfferError};

use super::administration::{Action, Administration};
use super::node::ClusterNode;
use crate::event::Slot;
use crate::logic::{EventOf, Logic};
use crate::system::{Membership, VersionSwitch};

/// Frames that a learner may be behind when it gets a vote.
const LAG_MAX: u64 = 512;

/// What comes of an operator's command: an answer, or an event that is to be let in.
pub(crate) enum Administered<E> {
    Answer(u16, String),
    /// Who asked, and the event behind that.
    Event(Administration, E),
    /// Who asked; behind that another node is to lead.
    Transfer(Administration, NodeId),
}

/// What comes of this command.
pub(crate) fn administer<L: Logic, S: Storage>(
    node: &mut ClusterNode<L, S>,
    peers: &[NodeId],
    principal: &Principal,
    command: &str,
    is_dry: bool,
) -> Administered<EventOf<L>> {
    let refused = |why: String| Administered::Answer(1, why);
    let mut words = command.split_whitespace();
    let verb = words.next().unwrap_or("");
    if let Some(version) = command.strip_prefix("switch-version ") {
        return switch_version(node, principal, version, is_dry);
    }
    let whom = words.next().map(str::parse::<NodeId>);
    let change = match (verb, whom) {
        ("status", _) => return Administered::Answer(0, status(node)),
        ("transfer", Some(Ok(to))) => {
            if !node.is_open() {
                return refused(not_here(node));
            }
            if node.replica().options().node == to {
                return refused(format!("node {to} leads already"));
            }
            if !node.replica().members().is_voter(to) {
                return refused(OfferError::NoVoter { node: to }.to_string());
            }
            if node.replica().is_passive_peer(to) {
                return refused(OfferError::Passive { node: to }.to_string());
            }
            if is_dry {
                return Administered::Answer(0, format!("{{\"would_transfer_to\":{to}}}"));
            }
            // SY3
            if let Some(old) = node.too_old_for_administration() {
                tracing::warn!(
                    node = old.0,
                    "a transfer without a word in the log of who asked for it: that node's build does not know such events"
                );
                return match node.transfer_to(to) {
                    Ok(()) => Administered::Answer(0, transferring(to)),
                    Err(error) => refused(error.to_string()),
                };
            }
            let asked = Administration::of(principal, Action::Transfer).about(to);
            return Administered::Transfer(asked, to);
        }
        ("activate", Some(Ok(whom))) => return activate(node, whom, is_dry),
        ("degrade", None) => return go_by(node, principal, Gating::Degraded, is_dry),
        ("gate", None) => return go_by(node, principal, Gating::Sites, is_dry),
        ("add", Some(Ok(node))) => Change::AddLearner(node),
        ("promote", Some(Ok(node))) => Change::Promote(node),
        ("remove", Some(Ok(node))) => Change::Remove(node),
        (_, Some(Err(error))) => return refused(format!("{command}: {error}")),
        _ => {
            return refused(format!(
                "{command}: not known; status, add N, promote N, remove N, transfer N, activate N, degrade, gate and switch-version N are"
            ));
        }
    };
    if !node.is_open() {
        return refused(not_here(node));
    }
    if let Err(why) = node.replica().members().check(change) {
        return refused(format!("{change}: {why}"));
    }
    if let Change::AddLearner(new) = change
        && !peers.contains(&new)
    {
        return refused(format!(
            "node {new} has no [[peer]] in this node's file: add it there on every node first"
        ));
    }
    if let Some(why) = not_now(node, change) {
        return refused(format!("{change}: {why}"));
    }
    if let Err(error) = node.replica().check_change(change) {
        return refused(error.to_string());
    }
    if is_dry {
        return Administered::Answer(0, format!("{{\"would\":\"{change}\"}}"));
    }
    let mut event = EventOf::<L>::event(&Membership::default());
    change.write_to(bytemuck::bytes_of_mut(&mut event));
    let action = match change {
        Change::AddLearner(_) => Action::Add,
        Change::Remove(_) => Action::Remove,
        Change::Alone(_) => Action::ForceSingle,
        // No word replaces a node in one step.
        Change::Promote(_) | Change::Replace { .. } => Action::Promote,
    };
    let asked = Administration::of(principal, action).about(change.node());
    Administered::Event(asked, event)
}

pub(crate) fn transferring(to: NodeId) -> String {
    format!("{{\"transferring_to\":{to}}}")
}

/// Why an operator has to ask elsewhere, or later.
fn not_here<L: Logic, S: Storage>(node: &ClusterNode<L, S>) -> String {
    let replica = node.replica();
    let me = replica.options().node;
    match replica.view().leader.filter(|leader| *leader != me) {
        Some(leader) => format!("node {me} does not lead: ask node {leader}"),
        None => "nobody leads, as far as this node knows: start the voters that are off, and ask again in a second".to_owned(),
    }
}

/// A passive node gets a logic. It is that node's own matter, and no event: where it is wanted most there may be
/// nobody who could put one into the log.
fn activate<L: Logic, S: Storage>(
    node: &mut ClusterNode<L, S>,
    whom: NodeId,
    is_dry: bool,
) -> Administered<EventOf<L>> {
    let me = node.replica().options().node;
    if whom != me {
        let why = format!("activate {whom}: this is node {me}, ask node {whom} itself");
        return Administered::Answer(1, why);
    }
    let (done, word) = if is_dry {
        (node.check_asleep(), "would_activate")
    } else {
        (node.activate(), "activating")
    };
    match done {
        Ok(()) => {
            let text = format!(
                "{{\"{word}\":{me},\"committed\":{}}}",
                node.replica().committed()
            );
            Administered::Answer(0, text)
        }
        Err(error) => Administered::Answer(1, error.to_string()),
    }
}

/// Every node goes to another version of the logic's rules, at one position.
fn switch_version<L: Logic, S: Storage>(
    node: &ClusterNode<L, S>,
    principal: &Principal,
    version: &str,
    is_dry: bool,
) -> Administered<EventOf<L>> {
    let Ok(version) = version.trim().parse::<u32>() else {
        return Administered::Answer(1, format!("{version}: a version is a number"));
    };
    if let Err(error) = node.check_version(version) {
        return Administered::Answer(1, error.to_string());
    }
    if is_dry {
        let now = node.version();
        let text = format!("{{\"version\":{now},\"would_switch_to\":{version}}}");
        return Administered::Answer(0, text);
    }
    let asked = Administration::of(principal, Action::SwitchVersion).with(version);
    let switch = VersionSwitch { version, spare: 0 };
    Administered::Event(asked, EventOf::<L>::event(&switch))
}

/// An operator's word on the other site. It counts here at once, and follows into the log as soon as there
/// is room: while nothing is committed there may be none.
fn go_by<L: Logic, S: Storage>(
    node: &mut ClusterNode<L, S>,
    principal: &Principal,
    word: Gating,
    is_dry: bool,
) -> Administered<EventOf<L>> {
    let replica = node.replica();
    let held = replica.frames_held_by_site();
    if is_dry {
        if replica.view().role != Role::Leader {
            return Administered::Answer(1, not_here(node));
        }
        if let Err(error) = replica.check_word(word) {
            return Administered::Answer(1, error.to_string());
        }
        let now = replica.gating().map_or("none", Gating::name);
        let would = word.name();
        let text = format!("{{\"gate\":\"{now}\",\"would\":\"{would}\",\"held_by_site\":{held}}}");
        return Administered::Answer(0, text);
    }
    let action = match word {
        Gating::Degraded => Action::Degrade,
        Gating::Sites => Action::Gate,
    };
    match node.go_by(word, &Administration::of(principal, action)) {
        Ok(()) => {
            tracing::warn!(gate = word.name(), held, "by an operator's word");
            let text = format!("{{\"gate\":\"{}\",\"held_by_site\":{held}}}", word.name());
            Administered::Answer(0, text)
        }
        Err(error) => Administered::Answer(1, error.to_string()),
    }
}

/// Whether the voters that are left without this one could go on at once.
fn leaves_a_majority<L: Logic, S: Storage>(node: &ClusterNode<L, S>, gone: NodeId) -> bool {
    let replica = node.replica();
    let voters = replica.members().voters.iter();
    let left: Vec<NodeId> = voters.copied().filter(|id| *id != gone).collect();
    let is_there = |id: &NodeId| {
        let mut peers = replica.peers();
        *id == replica.options().node || peers.any(|peer| peer.node == *id && peer.is_active)
    };
    left.iter().filter(|id| is_there(id)).count() > left.len() / 2
}

/// Why the agreement did not take a change of the members that is in the log: it made sense when it was let in,
/// and no more when its turn came. There it is an event like any other, which changes nothing.
pub(crate) fn not_taken<L: Logic, S: Storage>(
    node: &ClusterNode<L, S>,
    change: Option<Change>,
    position: Position,
) -> Option<String> {
    let change = change?;
    let replica = node.replica();
    let index = replica.index().index_reaching(Position(position.0 + 1));
    // Where the log is given up already, it was taken long ago.
    let row = replica.index().row(index)?;
    if row.changes_members() {
        return None;
    }
    let why = replica.members().check(change).err();
    let why = why
        .or_else(|| not_now(node, change))
        .unwrap_or("another change was under way: look at `cluster status`, and ask again");
    Some(format!(
        "{change}: {why}; it is in the log at position {position} and changes nothing there"
    ))
}

/// Whether a majority of the voters knows that this event is committed.
pub(crate) fn is_settled<L: Logic, S: Storage>(
    node: &ClusterNode<L, S>,
    position: Position,
) -> bool {
    let replica = node.replica();
    let (me, members) = (replica.options().node, replica.members());
    let index = replica.index().index_reaching(Position(position.0 + 1));
    let others = replica
        .peers()
        .filter(|peer| peer.node != me && members.is_voter(peer.node) && peer.committed >= index);
    let is_here = members.is_voter(me) && replica.committed() > position;
    others.count() + usize::from(is_here) > members.voters.len() / 2
}

/// Why the agreement would refuse a change that makes sense by itself.
fn not_now<L: Logic, S: Storage>(node: &ClusterNode<L, S>, change: Change) -> Option<&'static str> {
    let replica = node.replica();
    let last = replica.view().last;
    let is_close = |id: NodeId| {
        let mut peers = replica.peers();
        peers.any(|peer| peer.node == id && peer.is_active && peer.matched + LAG_MAX >= last)
    };
    match change {
        Change::Remove(id) if id == replica.options().node => {
            Some("it leads: transfer to another node first")
        }
        Change::Remove(id) if !leaves_a_majority(node, id) => Some(
            "of the voters that would be left, too few are there to go on: start those that are off first",
        ),
        Change::Promote(id) if !is_close(id) => Some("it lags: wait until it has caught up"),
        _ => None,
    }
}

/// A text of any origin, as JSON has it: what would have to be escaped is left out.
fn quoted(text: &str) -> String {
    let plain = text.chars().map(|one| match one {
        '"' | '\\' => '\'',
        one if one.is_control() => ' ',
        one => one,
    });
    format!("\"{}\"", plain.collect::<String>())
}

/// The node at a glance, as one JSON object.
fn status<L: Logic, S: Storage>(node: &ClusterNode<L, S>) -> String {
    let replica = node.replica();
    let (view, options, members) = (replica.view(), replica.options(), replica.members());
    let list = |nodes: &[NodeId]| {
        let all: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        format!("[{}]", all.join(","))
    };
    let peers: Vec<String> = replica
        .peers()
        .map(|peer| {
            let lag = replica.lag_of(&peer);
            // A leader that has heard nothing of a node since it leads does not know how far that is.
            let is_known = peer.is_active || peer.matched > 0;
            let or_null = |is_known: bool, number: u64| {
                if is_known {
                    number.to_string()
                } else {
                    "null".to_owned()
                }
            };
            let site = options.sites.of(peer.node);
            format!(
                "{{\"node\":{},\"acknowledged\":{},\"is_active\":{},\"is_learner\":{},\"is_passive\":{},\"site\":{},\
                 \"lag_events\":{},\"lag_ms\":{}}}",
                peer.node,
                peer.matched,
                peer.is_active,
                peer.is_learner,
                if peer.node == options.node {
                    node.is_passive()
                } else {
                    replica.is_passive_peer(peer.node)
                },
                site.map_or("null".to_owned(), |site| format!("\"{site}\"")),
                or_null(is_known, lag.events),
                // Nothing of the log has no time.
                or_null(peer.matched > 0, lag.time_ns / 1_000_000)
            )
        })
        .collect();
    format!(
        "{{\"cluster\":\"{}\",\"node\":{},\"role\":\"{}\",\"is_open\":{},\"passive\":{},\"activation\":{},\"activation_failed\":{},\"version\":{},\"versions\":[{},{}],\"term\":{},\"epoch\":{},\"leader\":{},\"ack\":\"{}\",\"gate\":\"{}\",\"held_by_site\":{},\
         \"voters\":{},\"learners\":{},\"last_index\":{},\"committed\":{},\"durable\":{},\"applied\":{},\"agreed\":{},\"disputed\":{},\"stands_at\":{},\"waiting\":{},\
         \"peers\":[{}]}}",
        options.cluster,
        options.node,
        format!("{:?}", view.role).to_lowercase(),
        node.is_open(),
        node.is_passive(),
        node.activation().map_or("null".to_owned(), quoted),
        node.activation_failed().map_or("null".to_owned(), quoted),
        node.version(),
        L::VERSIONS.start(),
        L::VERSIONS.end(),
        view.term,
        options.epoch,
        view.leader
            .map_or("null".to_owned(), |leader| leader.to_string()),
        replica.ack(),
        replica.gating().map_or("none", Gating::name),
        replica.frames_held_by_site(),
        list(&members.voters),
        list(&members.learners),
        view.last,
        replica.committed(),
        replica.durable(),
        node.applied(),
        replica.agreed_state().map_or(0, |agreed| agreed.position),
        replica
            .disputed_state()
            .map_or("null".to_owned(), |at| at.to_string()),
        node.stands_at()
            .map_or("null".to_owned(), |at| at.to_string()),
        node.waiting(),
        peers.join(",")
    )
}
