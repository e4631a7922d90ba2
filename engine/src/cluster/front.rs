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
//! * `FR4` A node that is about to lead lets its clients wait, and the one that hands over names it at once;
//!   neither for longer than an election takes.

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
use lockstep_replicator::{Change, NodeId};

use super::answers::{Asker, Done};
use super::member::Refused;
use super::node::ClusterNode;
use super::operators::{Administered, administer, is_settled, not_taken, transferring};
use super::options::DriverOptions;
use super::owners::{Owners, proved};
use crate::error::Result;
use crate::event::{Kinds, SYSTEM_KINDS, Slot};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::principal::SessionOpenAs;
use crate::runtime::clock::Clock;
use crate::system::{SessionClose, SessionOpen, code};

/// Clients at once, unless told.
const CONNECTIONS_MAX: usize = 1024;

/// Bytes that wait for one client before it is cut off.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Answers' memory that is kept to be used again, and the most bytes of one.
const SPARES_MAX: usize = 4096;
const SPARE_BYTES_MAX: usize = 4096;

/// A client greets within so long: with TLS over a slow line it is a few round trips.
const GREET_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether the logic has said whose a session is.
const LOOK_FOR_OWNERS: Duration = Duration::from_micros(100);

/// Ticks for which clients wait for a node that is about to lead: the longest election.
const SOON_TICKS: u64 = 20;

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
    /// What the gateway was told last.
    shown: Shown,
    /// Whom this node hands over to, until somebody leads.
    heir: Option<NodeId>,
    /// Since when it is about to lead.
    soon_since_ns: Option<u64>,
    /// How long that may be (`FR4`).
    soon_ns_max: u64,
    admin_answers: Vec<(ClientId, u32, u16, String)>,
    /// Changes that were done here, and wait for a majority to have done them (`FR3`).
    settling: Vec<Settling>,
    /// Who is to lead, by an operator's word that is in the log.
    handing: Vec<(ClientId, u32, NodeId)>,
    /// Whose sessions are, that come back.
    owners: Owners,
    logic: std::marker::PhantomData<fn() -> L>,
}

/// Who leads, as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Here,
    Soon,
    Elsewhere(Option<NodeId>),
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
            requests_per_principal: clients.requests_per_principal,
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
            shown: Shown::Elsewhere(None),
            heir: None,
            soon_since_ns: None,
            soon_ns_max: replica.tick_ns * SOON_TICKS,
            admin_answers: Vec::new(),
            settling: Vec::new(),
            handing: Vec::new(),
            owners: Owners::default(),
            logic: std::marker::PhantomData,
        })
    }

    pub(crate) fn prepare(&mut self, now_ns: u64, waiting: &mut Waiting) -> Duration {
        let most = self.gateway.prepare(now_ns, waiting);
        if self.owners.are_asked() {
            most.min(LOOK_FOR_OWNERS)
        } else {
            most
        }
    }

    /// Whether somebody waits for the logic to say whose a session is.
    pub(crate) fn asks_logic(&self) -> bool {
        self.owners.are_asked()
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
            owners,
            ..
        } = self;
        owners.tell(gateway);
        let mut any = false;
        gateway.take(ready, |asked| {
            let token = *first + waiting.len() as u64;
            let mut by = None;
            let (event, whom) = match asked {
                Asked::Open { route, principal } => {
                    let is_known = node.knows_principals();
                    let event = opening::<L>(route, principal, is_known);
                    (event, Whom::Open { route })
                }
                Asked::Close { session } => {
                    (EventOf::<L>::event(&SessionClose { session }), Whom::Nobody)
                }
                Asked::Whose {
                    client,
                    session,
                    principal,
                } => return owners.ask(node, client, session, principal),
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
                        tracing::info!(%principal, command, is_dry, "an operator asks");
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

    /// Tells the gateway who leads, when that has changed; and it tells those who wait.
    pub(crate) fn show_role<S: Storage>(&mut self, now_ns: u64, node: &ClusterNode<L, S>) {
        let shown = self.look(now_ns, node);
        if shown == self.shown {
            return;
        }
        self.shown = shown;
        // Who waits for an answer is let go, and asks again, here or elsewhere.
        self.owners.forget();
        self.gateway.lead(match shown {
            Shown::Here => Leadership::Here,
            Shown::Soon => Leadership::Soon,
            Shown::Elsewhere(leader) => {
                let address = leader.and_then(|leader| self.addresses.get(&leader));
                Leadership::Elsewhere {
                    leader,
                    address: address.map_or(String::new(), ToString::to_string),
                }
            }
        });
        self.gateway.flush();
    }

    fn look<S: Storage>(&mut self, now_ns: u64, node: &ClusterNode<L, S>) -> Shown {
        let replica = node.replica();
        let (view, me) = (replica.view(), replica.options().node);
        self.heir = match (view.handing_over, view.role) {
            (Some(heir), _) => Some(heir),
            // It still leads, and hands over no more; or an election has failed.
            (None, Role::Leader | Role::PreCandidate | Role::Candidate) => None,
            (None, Role::Follower) => self.heir.filter(|_| view.leader.is_none()),
        };
        let is_soon = match view.role {
            Role::Leader => !node.is_open(),
            // A majority has said that it would vote, or a leader wants it to.
            Role::Candidate => true,
            Role::Follower | Role::PreCandidate => false,
        };
        let since_ns = *self.soon_since_ns.get_or_insert(now_ns);
        self.soon_since_ns = is_soon.then_some(since_ns);
        if node.is_open() {
            Shown::Here
        } else if is_soon && now_ns.saturating_sub(since_ns) < self.soon_ns_max {
            Shown::Soon
        } else {
            Shown::Elsewhere(view.leader.filter(|leader| *leader != me).or(self.heir))
        }
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
            let (code, text) = if let Some(why) = not_taken(node, one.change, one.position) {
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

/// The event that opens a session: with a name, where one was proved and every member knows such events (`PR1`).
fn opening<L: Logic>(tag: u64, principal: &Principal, is_known: bool) -> EventOf<L> {
    let name = proved(principal);
    if is_known && !name.is_nobody() {
        EventOf::<L>::event(&SessionOpenAs::new(tag, name))
    } else {
        EventOf::<L>::event(&SessionOpen { tag })
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

#[cfg(test)]
mod tests {
    use lockstep_replicator::client::Identity;

    use super::*;
    use crate::event::{Body, Event64};
    use crate::logic::Context;
    use crate::outputs::Outputs;

    crate::bodies! {
        Add, kind 1, version 1: { amount: u64 }
        Sum, kind 101, version 1: { sum: u64 }
    }
    #[derive(Default)]
    struct Adder {
        sum: u64,
    }
    crate::snapshot!(Adder { sum });
    impl Logic for Adder {
        type In = Add;
        type Out = Sum;
        fn apply(&mut self, add: &Add, _: &Context, _: &mut Outputs<'_, Sum>) {
            self.sum += add.amount;
        }
    }

    #[test]
    fn pr1_sy3_only_a_name_that_was_proved_opens_a_session_and_only_where_all_know_such_events() {
        let opened = |identity, is_known| -> (u16, Option<String>) {
            let principal = Principal {
                name: "desk".to_owned(),
                identity,
                address: std::net::Ipv4Addr::LOCALHOST.into(),
            };
            let event: Event64 = opening::<Adder>(7, &principal, is_known);
            let named = SessionOpenAs::in_body(event.body()).unwrap();
            assert_eq!(named.tag, 7);
            let name = named.principal().name().map(str::to_owned);
            (event.header().kind, name)
        };
        let desk = Some("desk".to_owned());
        for identity in [Identity::Certificate, Identity::Token] {
            assert_eq!(opened(identity, true), (SessionOpenAs::KIND, desk.clone()));
            assert_eq!(opened(identity, false), (SessionOpen::KIND, None));
        }
        assert_eq!(opened(Identity::Nobody, true), (SessionOpen::KIND, None));
    }
}
