//! The clients' side of a node: requests become events at the door, answers find their way back.
//!
//! ```text
//!   sockets ─► gateway ─► event of a session ─► door        (busy, refused, not the leader: at once)
//!              gateway ◄─ reply ◄─ outputs, outcome ◄─ answers
//! ```
//!
//! # Invariants
//!
//! * `FR1` No event of session 0 comes in here: who acts for the engine or as an operator of the
//!   application does not do it as a client.
//! * `FR3` An operator's change is answered when a majority of the voters behind it knows that it is
//!   committed, and has so applied it: whoever turns off what was removed leaves a cluster that agrees
//!   on its members.
//! * `FR2` Only kinds that the logic knows come in, in the newest version.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use lockstep_journaler::Position;
use lockstep_journaler::storage::Storage;
use lockstep_replicator::client::codec::{BODY_BYTES_MAX, ReplyHead};
use lockstep_replicator::client::{
    Admit, Asked, ClientId, Gateway, GatewaySettings, Leadership, Principal, code as clients,
};
use lockstep_replicator::consensus::Role;
use lockstep_replicator::transport::Waiting;
use lockstep_replicator::{Change, Gating, NodeId, OfferError};

use super::administration::{Action, Administration};
use super::answers::{Asker, Done};
use super::driver::DriverOptions;
use super::member::Refused;
use super::node::ClusterNode;
use crate::error::Result;
use crate::event::{Kinds, SYSTEM_KINDS, Slot};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::runtime::clock::Clock;
use crate::system::{Membership, SessionClose, SessionOpen, VersionSwitch, code};

/// Clients at once, unless told.
const CONNECTIONS_MAX: usize = 1024;

/// Bytes that wait for one client before it is cut off.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Answers' memory that is kept to be used again, and the most bytes of one.
const SPARES_MAX: usize = 4096;
const SPARE_BYTES_MAX: usize = 4096;

/// A client greets within so long: with TLS over a slow line it is a few round trips.
const GREET_WITHIN: Duration = Duration::from_secs(5);

/// Frames that a learner may be behind when it gets a vote.
const LAG_MAX: u64 = 512;

/// See the module.
pub(crate) struct Front<L: Logic> {
    gateway: Gateway,
    /// By token, the oldest first: tokens are given in the order of positions, and answered in it.
    waiting: VecDeque<Waits>,
    /// The token of the first.
    first: u64,
    /// Memory of outputs that were sent, to be used again.
    spare: Vec<Vec<u8>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    peers: Vec<NodeId>,
    admin_answers: Vec<(ClientId, u32, u16, String)>,
    /// Changes that were done here, and wait for a majority to have done them (`FR3`).
    settling: Vec<Settling>,
    /// Who is to lead, by an operator's word that is in the log.
    handing: Vec<(ClientId, u32, NodeId)>,
    logic: std::marker::PhantomData<fn() -> L>,
}

/// A change of an operator that is in the log and applied here.
struct Settling {
    client: ClientId,
    number: u32,
    position: Position,
    /// Of the members, if it is one of those.
    change: Option<Change>,
}

struct Waits {
    whom: Whom,
    outputs: Vec<u8>,
    count: u16,
}

enum Whom {
    /// A session is to be opened.
    Open { route: u64 },
    /// A request of a session.
    Request { session: u64, number: u32 },
    /// A change by an operator; of the members, if it is one of those.
    Admin {
        client: ClientId,
        number: u32,
        change: Option<Change>,
    },
    /// The word that another node is to lead.
    Transfer {
        client: ClientId,
        number: u32,
        to: NodeId,
    },
    /// Nobody asks for it.
    Nobody,
}

impl<L: Logic> Front<L> {
    pub(crate) fn open(options: &DriverOptions) -> Result<Self> {
        let replica = &options.node.replica;
        let clients = &options.clients;
        let own = clients.addresses.get(&replica.node).copied();
        let listen = clients.listen.or(own);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let most = match clients.connections_max {
            0 => CONNECTIONS_MAX,
            most => most,
        };
        let settings = GatewaySettings {
            node: replica.node,
            cluster: replica.cluster,
            listen: listen.unwrap_or(any),
            security: options.security.clone(),
            tokens: clients.tokens.clone(),
            admins: clients.admins.clone(),
            event_size: L::In::schema().event_size,
            window_max: options.node.config.session_replies,
            connections_max: most,
            waiting_bytes_max: WAITING_BYTES_MAX,
            greet_within: GREET_WITHIN,
        };
        let boot = Clock::System.now_ns().unwrap_or(0) ^ u64::from(std::process::id());
        Ok(Self {
            gateway: Gateway::open(settings, boot)?,
            waiting: VecDeque::new(),
            first: 0,
            spare: Vec::new(),
            addresses: clients.addresses.clone(),
            peers: options.peers.keys().copied().collect(),
            admin_answers: Vec::new(),
            settling: Vec::new(),
            handing: Vec::new(),
            logic: std::marker::PhantomData,
        })
    }

    pub(crate) fn prepare(&mut self, now_ns: u64, waiting: &mut Waiting) -> Duration {
        self.gateway.prepare(now_ns, waiting)
    }

    /// Takes what clients ask; whether anything was let in.
    pub(crate) fn let_in<S: Storage>(
        &mut self,
        ready: &Waiting,
        node: &mut ClusterNode<L, S>,
    ) -> bool {
        let Self {
            gateway,
            waiting,
            first,
            spare,
            peers,
            admin_answers,
            ..
        } = self;
        let mut any = false;
        gateway.take(ready, |asked| {
            let token = *first + waiting.len() as u64;
            let mut by = None;
            let (event, whom) = match asked {
                Asked::Open { route } => (
                    EventOf::<L>::event(&SessionOpen { tag: route }),
                    Whom::Open { route },
                ),
                Asked::Close { session } => {
                    (EventOf::<L>::event(&SessionClose { session }), Whom::Nobody)
                }
                Asked::Request {
                    session,
                    number,
                    slot,
                } => match event_of::<L>(session, number, slot) {
                    Ok(event) => (event, Whom::Request { session, number }),
                    Err(code) => return Admit::Refused(code),
                },
                Asked::Admin {
                    client,
                    number,
                    is_dry,
                    command,
                    principal,
                } => {
                    if command != "status" {
                        tracing::info!(?principal, command, is_dry, "an operator asks");
                    }
                    match administer::<L, S>(node, peers, principal, command, is_dry) {
                        Administered::Answer(code, text) => {
                            admin_answers.push((client, number, code, text));
                            return Admit::Taken;
                        }
                        Administered::Event(asked, event) => {
                            by = Some(asked);
                            let change = Change::read_from(bytemuck::bytes_of(&event));
                            let whom = Whom::Admin {
                                client,
                                number,
                                change,
                            };
                            (event, whom)
                        }
                        Administered::Transfer(asked, to) => (
                            EventOf::<L>::event(&asked),
                            Whom::Transfer { client, number, to },
                        ),
                    }
                }
            };
            let let_in = match &by {
                Some(asked) => node.let_in_asked(token, asked, &event),
                None => node.let_in(token, &event),
            };
            match let_in {
                Ok(_) => {
                    any = true;
                    waiting.push_back(Waits {
                        whom,
                        outputs: spare.pop().unwrap_or_default(),
                        count: 0,
                    });
                    Admit::Taken
                }
                // The door has just closed: the client asks again, and is sent to who leads.
                Err(Refused::Busy | Refused::NotLeading { .. }) => Admit::Busy,
            }
        });
        if let Some(line) = self.gateway.take_notice() {
            tracing::error!(line, "clients are kept out");
        }
        for (client, number, code, text) in self.admin_answers.drain(..) {
            self.gateway.admin_answer(client, number, code, &text);
        }
        any
    }

    /// Tells the gateway who leads.
    pub(crate) fn show_role<S: Storage>(&mut self, node: &ClusterNode<L, S>) {
        if node.is_open() {
            self.gateway.lead(Leadership::Here);
            return;
        }
        let replica = node.replica();
        let me = replica.options().node;
        let leader = replica.view().leader.filter(|leader| *leader != me);
        let address = leader.and_then(|leader| self.addresses.get(&leader));
        self.gateway.lead(Leadership::Elsewhere {
            leader,
            address: address.map_or(String::new(), ToString::to_string),
        });
    }

    /// Answers the operators whose change a majority has applied (`FR3`).
    pub(crate) fn settle<S: Storage>(&mut self, node: &mut ClusterNode<L, S>) {
        for (client, number, to) in std::mem::take(&mut self.handing) {
            match node.transfer_to(to) {
                Ok(()) => self.answer_admin(client, number, 0, &transferring(to)),
                Err(error) => self.answer_admin(client, number, 1, &error.to_string()),
            }
        }
        if self.settling.is_empty() {
            return;
        }
        let still_leads = node.replica().view().role == Role::Leader;
        let mut settling = std::mem::take(&mut self.settling);
        settling.retain(|one| {
            let position = one.position;
            let (code, text) = if let Some(why) = not_taken(node, one) {
                (1, why)
            } else if is_settled(node, position) {
                (0, format!("{{\"position\":{position}}}"))
            } else if still_leads {
                return true;
            } else {
                let text = format!(
                    "the change is in the log at position {position}, and this node leads no more: look at `cluster status`"
                );
                (1, text)
            };
            self.answer_admin(one.client, one.number, code, &text);
            false
        });
        self.settling = settling;
    }

    /// Writes what is left to say.
    pub(crate) fn end(&mut self) {
        self.gateway.flush();
    }

    fn pop(&mut self, token: u64) -> Option<Waits> {
        // AN1: answers come in the order of tokens, each once.
        debug_assert!(
            token == self.first,
            "AN1: {token} is answered before {}",
            self.first
        );
        let waits = self.waiting.pop_front()?;
        self.first += 1;
        Some(waits)
    }

    fn forget(&mut self, mut waits: Waits) {
        // A rare answer of many outputs is given back: its memory is not kept for the common ones.
        if self.spare.len() < SPARES_MAX && waits.outputs.capacity() <= SPARE_BYTES_MAX {
            waits.outputs.clear();
            self.spare.push(waits.outputs);
        }
    }

    fn answer_admin(&mut self, client: ClientId, number: u32, code: u16, text: &str) {
        self.gateway.admin_answer(client, number, code, text);
    }
}

impl<L: Logic> Asker<OutputOf<L>> for Front<L> {
    fn output(&mut self, token: u64, output: &OutputOf<L>) {
        // What the engine itself says is in the answer.
        if output.output().kind >= SYSTEM_KINDS {
            return;
        }
        let at = usize::try_from(token - self.first).unwrap_or(usize::MAX);
        // Behind what one answer takes nothing is kept: the gateway leaves all out, and says so.
        let fits = |waits: &&mut Waits| waits.outputs.len() <= BODY_BYTES_MAX;
        if let Some(waits) = self.waiting.get_mut(at).filter(fits) {
            waits.outputs.extend_from_slice(bytemuck::bytes_of(output));
            waits.count = waits.count.saturating_add(1);
        }
    }

    fn done(&mut self, token: u64, done: Done) {
        let Some(waits) = self.pop(token) else { return };
        match waits.whom {
            Whom::Open { route } if done.code == 0 => {
                let position = done.position.0;
                self.gateway.opened(route, position + 1, position);
            }
            Whom::Open { route } => {
                let meaning = code::meaning(done.code);
                self.gateway.open_refused(route, done.code, meaning);
            }
            Whom::Request { session, number } => {
                let size = size_of::<OutputOf<L>>();
                let head = ReplyHead {
                    code: done.code,
                    is_repeated: done.first.is_some(),
                    is_cut: false,
                    outputs: waits.count,
                    output_size: u16::try_from(size).unwrap_or(u16::MAX),
                };
                let position = done.first.unwrap_or(done.position).0;
                self.gateway
                    .reply(session, number, position, head, &waits.outputs);
            }
            Whom::Transfer { client, number, to } => self.handing.push((client, number, to)),
            Whom::Admin { client, number, .. } if done.code != 0 => {
                self.answer_admin(client, number, 1, code::meaning(done.code));
            }
            Whom::Admin {
                client,
                number,
                change,
            } => {
                self.settling.push(Settling {
                    client,
                    number,
                    position: done.position,
                    change,
                });
            }
            Whom::Nobody => {}
        }
        self.forget(waits);
    }

    fn not_led(&mut self, token: u64) {
        let Some(waits) = self.pop(token) else { return };
        // Sessions hear who leads as soon as the gateway knows.
        if let Whom::Admin { client, number, .. } | Whom::Transfer { client, number, .. } =
            waits.whom
        {
            self.answer_admin(client, number, 1, "this node does not lead any more");
        }
        self.forget(waits);
    }

    fn unknown(&mut self, token: u64) {
        self.not_led(token);
    }
}

/// The event that a client made, as one of its session (`FR1`, `FR2`).
fn event_of<L: Logic>(
    session: u64,
    number: u32,
    slot: &[u8],
) -> std::result::Result<EventOf<L>, u16> {
    if session == 0 {
        return Err(code::SESSION_UNKNOWN);
    }
    let mut event: EventOf<L> =
        bytemuck::try_pod_read_unaligned(slot).map_err(|_| clients::EVENT_SIZE)?;
    let header = event.header_mut();
    let is_known =
        header.kind < SYSTEM_KINDS && L::In::version_of(header.kind) == Some(header.version);
    if header.kind == 0 || !is_known {
        return Err(clients::MALFORMED);
    }
    header.time = 0;
    header.session = session;
    header.request = number;
    Ok(event)
}

/// What comes of an operator's command: an answer, or an event that is to be let in.
enum Administered<E> {
    Answer(u16, String),
    /// Who asked, and the event behind that.
    Event(Administration, E),
    /// Who asked; behind that another node is to lead.
    Transfer(Administration, NodeId),
}

fn administer<L: Logic, S: Storage>(
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
            if is_dry {
                let is_voter = node.replica().members().is_voter(to);
                let text = format!("{{\"would_transfer_to\":{to},\"is_voter\":{is_voter}}}");
                return Administered::Answer(u16::from(!is_voter), text);
            }
            if !node.is_open() {
                return refused(not_here(node));
            }
            if node.replica().options().node == to {
                return refused(format!("node {to} leads already"));
            }
            if !node.replica().members().is_voter(to) {
                return refused(OfferError::NoVoter { node: to }.to_string());
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
        ("degrade", None) => return go_by(node, principal, Gating::Degraded, is_dry),
        ("gate", None) => return go_by(node, principal, Gating::Sites, is_dry),
        ("add", Some(Ok(node))) => Change::AddLearner(node),
        ("promote", Some(Ok(node))) => Change::Promote(node),
        ("remove", Some(Ok(node))) => Change::Remove(node),
        (_, Some(Err(error))) => return refused(format!("{command}: {error}")),
        _ => {
            return refused(format!(
                "{command}: not known; status, add N, promote N, remove N, transfer N, degrade, gate and switch-version N are"
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
    if is_dry {
        return Administered::Answer(0, format!("{{\"would\":\"{change}\"}}"));
    }
    let mut event = EventOf::<L>::event(&Membership::default());
    change.write_to(bytemuck::bytes_of_mut(&mut event));
    let action = match change {
        Change::AddLearner(_) => Action::Add,
        Change::Remove(_) => Action::Remove,
        // No word replaces a node in one step.
        Change::Promote(_) | Change::Replace { .. } => Action::Promote,
    };
    let asked = Administration::of(principal, action).about(change.node());
    Administered::Event(asked, event)
}

fn transferring(to: NodeId) -> String {
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
        let now = replica.gating().map_or("none", Gating::name);
        let leads = replica.view().role == Role::Leader;
        let would = word.name();
        let text = format!(
            "{{\"gate\":\"{now}\",\"would\":\"{would}\",\"leads\":{leads},\"held_by_site\":{held}}}"
        );
        return Administered::Answer(u16::from(!leads || now == "none"), text);
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
fn not_taken<L: Logic, S: Storage>(node: &ClusterNode<L, S>, one: &Settling) -> Option<String> {
    let (change, position) = (one.change?, one.position);
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
fn is_settled<L: Logic, S: Storage>(node: &ClusterNode<L, S>, position: Position) -> bool {
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
            let site = options.sites.of(peer.node);
            format!(
                "{{\"node\":{},\"acknowledged\":{},\"is_active\":{},\"is_learner\":{},\"site\":{},\
                 \"lag_events\":{},\"lag_ms\":{}}}",
                peer.node,
                peer.matched,
                peer.is_active,
                peer.is_learner,
                site.map_or("null".to_owned(), |site| format!("\"{site}\"")),
                lag.events,
                lag.time_ns / 1_000_000
            )
        })
        .collect();
    format!(
        "{{\"cluster\":\"{}\",\"node\":{},\"role\":\"{}\",\"is_open\":{},\"version\":{},\"versions\":[{},{}],\"term\":{},\"epoch\":{},\"leader\":{},\"ack\":\"{}\",\"gate\":\"{}\",\"held_by_site\":{},\
         \"voters\":{},\"learners\":{},\"last_index\":{},\"committed\":{},\"durable\":{},\"applied\":{},\"agreed\":{},\"disputed\":{},\"waiting\":{},\
         \"peers\":[{}]}}",
        options.cluster,
        options.node,
        format!("{:?}", view.role).to_lowercase(),
        node.is_open(),
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
        node.waiting(),
        peers.join(",")
    )
}
