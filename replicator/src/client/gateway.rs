//! The node's side of its clients: who is connected, which session answers where, and "busy" before
//! anything is written.
//!
//! The gateway knows sockets and packets; whether an event is taken decides its owner, by the answer
//! to [`Asked`]. It keeps no event: one that is not taken is answered "busy" at once, and so is all
//! behind it in the same session, until the client asks for that one again. So a session's requests
//! come into the log in the order of their numbers, without a hole.
//!
//! # Invariants
//!
//! * `G1` Nothing is asked of the owner before a client has greeted and is believed.
//! * `G2` After "busy" to a request, no later one of its session is asked of the owner before that one.
//! * `G3` A client that does not read is cut off; it never holds the owner.
//! * `G4` A reply goes to the connection that asked last for its session, or nowhere; only that
//!   connection closes the session.
//! * `G5` Who does not greet in time, or does not take what it is told in the end, is cut off: a
//!   connection that does nothing costs one place for `greet_within`.
//! * `G6` What is known of a session here goes with its connection, or when the session is no more.
//! * `G7` Where the system gives no more sockets, one place is left to operators: who has it may do what
//!   an operator does and nothing else, and has it for `greet_within` at most.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::codec::{BODY_BYTES_MAX, Greeting, Packet, PacketKind, Packets, ReplyHead};
use super::{SESSION_UNKNOWN, code};
use crate::ids::{ClusterId, NodeId};
use crate::tls::{client_name, is_named};
use crate::transport::{
    Accepted, Listening, Security, Stream, TransportError, Waiting, is_early, tune,
};

/// What a node needs to talk with clients.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// This node.
    pub node: NodeId,
    /// Of this node.
    pub cluster: ClusterId,
    /// Where clients reach this node; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With certificates, or without.
    pub security: Security,
    /// Names and their tokens. Empty: whoever comes is believed.
    pub tokens: BTreeMap<String, String>,
    /// Names that may do what an operator may. Empty: every client that is believed.
    pub admins: BTreeSet<String>,
    /// Bytes of an event slot.
    pub event_size: u32,
    /// Most requests of one session in flight: not more than the replies that are kept.
    pub window_max: u32,
    /// Most clients at once.
    pub connections_max: usize,
    /// Most bytes that wait for one client: one that does not read is cut off.
    pub waiting_bytes_max: usize,
    /// A greeting must be over within so long, and so must the last words to a client.
    pub greet_within: Duration,
}

/// A connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What a client asks of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Open a session: answered with [`Gateway::opened`], by this number.
    Open {
        /// Stands in the event as its tag, and comes back in the output.
        route: u64,
    },
    /// Close one; nothing is answered.
    Close {
        /// Which.
        session: u64,
    },
    /// Write an event: answered with [`Gateway::reply`].
    Request {
        /// Of which session.
        session: u64,
        /// Of the request.
        number: u32,
        /// The event, as the client made it: session, number and time are to be set.
        slot: &'a [u8],
    },
    /// What an operator wants: answered with [`Gateway::admin_answer`].
    Admin {
        /// Who.
        client: ClientId,
        /// To be given back.
        number: u32,
        /// Only say what would happen.
        is_dry: bool,
        /// In words.
        command: &'a str,
        /// Who asks, for the audit.
        principal: &'a Principal,
    },
}

/// Who a client is, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As it says.
    pub name: String,
    /// Why that is believed.
    pub identity: Identity,
    /// Where it comes from.
    pub address: IpAddr,
}

/// How a node knows who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Its certificate has that name.
    Certificate,
    /// It has the token of that name.
    Token,
    /// It does not know: whoever comes is let in.
    Nobody,
}

/// What the owner says to what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// It is taken, and is answered later.
    Taken,
    /// There is no room: nothing was written.
    Busy,
    /// It makes no sense, by this code.
    Refused(u16),
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This node, and its door is open.
    Here,
    /// Another, or nobody yet.
    Elsewhere {
        /// Who, if it is known.
        leader: Option<NodeId>,
        /// Where its clients' port is; empty if it is not known.
        address: String,
    },
}

/// What went over the gateway, for counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayTraffic {
    /// Requests that were taken.
    pub taken: u64,
    /// Replies that were given to a connection.
    pub replied: u64,
    /// Answers "busy".
    pub busy: u64,
    /// Answers "not leader".
    pub redirected: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Clients that were cut off, since they did not read or spoke nonsense.
    pub cut: u64,
    /// Times that the system gave no socket for one who came.
    pub without_socket: u64,
    /// Connections.
    pub connections: u64,
}

/// The clients of one node.
#[derive(Debug)]
pub struct Gateway {
    settings: GatewaySettings,
    listener: Listening,
    /// Who has the place that is kept (`G7`).
    last: Option<u64>,
    clients: BTreeMap<u64, Connected>,
    sessions: BTreeMap<u64, Route>,
    /// Sessions that are about to be opened: who waits for which.
    opening: BTreeMap<u64, (u64, u32)>,
    next: u64,
    /// Makes the tags of this process's sessions differ from those of any other.
    salt: u64,
    leadership: Leadership,
    waited: Vec<(usize, Option<u64>)>,
    traffic: GatewayTraffic,
    /// As the last `prepare` said.
    now_ns: u64,
}

#[derive(Debug)]
struct Connected {
    stream: Stream,
    packets: Packets,
    out: Vec<u8>,
    written: usize,
    address: IpAddr,
    principal: Option<Principal>,
    /// What is asked is answered no more; the connection ends when all is written.
    is_ending: bool,
    /// Packets wait that no socket will report.
    has_more: bool,
    /// Until then it must have greeted, or be gone (`G5`).
    deadline_ns: u64,
}

/// Where a session answers, and what of it is in flight.
#[derive(Debug, Default)]
struct Route {
    client: u64,
    in_flight: u32,
    /// The request that was answered "busy" and must come first (`G2`).
    blocked_at: Option<u32>,
    /// It goes with the last answer (`G6`).
    is_closing: bool,
}

/// Packets that one turn takes from one client, so that the others have their turn too.
const PACKETS_PER_TURN: usize = 1_024;

/// Connections beyond `connections_max` that are told so; more are closed without a word.
const REFUSED_AT_ONCE_MAX: usize = 64;

impl Gateway {
    /// Listens. `boot` is another number at every start.
    ///
    /// # Errors
    ///
    /// The port cannot be had, or plain text would leave this machine without having been asked for.
    pub fn open(settings: GatewaySettings, boot: u64) -> Result<Gateway, TransportError> {
        let address = settings.listen;
        if matches!(settings.security, Security::Loopback) && !address.ip().is_loopback() {
            return Err(TransportError::PlaintextOutside { address });
        }
        let listener = Listening::at(address, true)
            .map_err(|source| TransportError::Listen { address, source })?;
        Ok(Gateway {
            salt: boot << 32 ^ u64::from(settings.node.0) << 48,
            settings,
            listener,
            last: None,
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            opening: BTreeMap::new(),
            next: 1,
            leadership: Leadership::Elsewhere {
                leader: None,
                address: String::new(),
            },
            waited: Vec::new(),
            traffic: GatewayTraffic::default(),
            now_ns: 0,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    /// Who leads from here on. Whoever waits for an answer is told where to ask, if it is not here:
    /// what was not written is asked there, and what was written is answered there as it was here.
    pub fn lead(&mut self, leadership: Leadership) {
        if self.leadership == leadership {
            return;
        }
        self.leadership = leadership;
        if self.leadership == Leadership::Here {
            return;
        }
        let waiting: Vec<(u64, u32, u64)> = self
            .sessions
            .iter()
            .filter(|(_, route)| route.in_flight > 0)
            .map(|(session, route)| (route.client, 0, *session))
            .chain(
                self.opening
                    .values()
                    .map(|(client, number)| (*client, *number, 0)),
            )
            .collect();
        self.sessions.clear();
        self.opening.clear();
        for (client, number, session) in waiting {
            self.redirect(client, number, session);
        }
    }

    /// The first half of a turn: writes, and says which sockets to wait for, and how long at most.
    pub fn prepare(&mut self, now_ns: u64, waiting: &mut Waiting) -> Duration {
        self.now_ns = now_ns;
        self.flush();
        let next_ns = self.end_late();
        self.waited.clear();
        self.keep_place();
        let mut most = Duration::from_nanos(next_ns.saturating_sub(now_ns));
        match self.listener.wait(now_ns, waiting) {
            Some(listener) => self.waited.push((listener, None)),
            None => most = most.min(self.listener.rests_for(now_ns)),
        }
        for (id, client) in &self.clients {
            let number = waiting.add(client.stream.fd(), true, client.wants_write());
            self.waited.push((number, Some(*id)));
            if client.has_more {
                most = Duration::ZERO;
            }
        }
        most
    }

    /// What an operator has to know of the port, once.
    pub fn take_notice(&mut self) -> Option<String> {
        self.listener.take_notice()
    }

    /// `G7`
    fn keep_place(&mut self) {
        self.last = self.last.filter(|id| self.clients.contains_key(id));
        if self.last.is_none() {
            self.listener.keep_place();
        }
    }

    /// Cuts off who is late (`G5`); when the next one is.
    fn end_late(&mut self) -> u64 {
        let is_late = |client: &Connected| client.deadline_ns <= self.now_ns;
        let late: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| is_late(client))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.traffic.cut += 1;
            self.remove(id);
        }
        let deadlines = self.clients.values().map(|client| client.deadline_ns);
        deadlines.min().unwrap_or(u64::MAX)
    }

    fn deadline_ns(&self) -> u64 {
        let within = u64::try_from(self.settings.greet_within.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.saturating_add(within)
    }

    /// The second half, after the waiting: accepts, reads, and asks the owner.
    pub fn take(&mut self, waiting: &Waiting, mut ask: impl FnMut(Asked<'_>) -> Admit) {
        let waited = std::mem::take(&mut self.waited);
        for (number, id) in &waited {
            let Some(id) = *id else {
                continue;
            };
            if waiting.is_writable(*number) {
                self.write(id);
            }
            let has_more = self.clients.get(&id).is_some_and(|client| client.has_more);
            if has_more || waiting.is_readable(*number) {
                self.read(id, &mut ask);
            }
        }
        let knocked = waited
            .iter()
            .any(|(number, id)| id.is_none() && waiting.is_readable(*number));
        if knocked {
            self.accept();
        }
        self.waited = waited;
    }

    /// Writes what waits.
    pub fn flush(&mut self) {
        let ids: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.wants_write())
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.write(id);
        }
    }

    /// The session that was asked for is open.
    pub fn opened(&mut self, route: u64, session: u64, position: u64) {
        let Some((client, number)) = self.opening.remove(&route) else {
            return;
        };
        self.sessions.insert(
            session,
            Route {
                client,
                ..Route::default()
            },
        );
        self.send(
            client,
            &Packet::bare(PacketKind::Opened, number, session, position),
            &[],
        );
    }

    /// The session that was asked for was refused, by the engine's code.
    pub fn open_refused(&mut self, route: u64, code: u16, meaning: &str) {
        if let Some((client, number)) = self.opening.remove(&route) {
            self.refuse(client, number, 0, code, meaning);
        }
    }

    /// What came of a request: to whoever asked last for its session (`G4`).
    pub fn reply(
        &mut self,
        session: u64,
        number: u32,
        position: u64,
        head: ReplyHead,
        outputs: &[u8],
    ) {
        let Some(route) = self.sessions.get_mut(&session) else {
            return;
        };
        route.in_flight = route.in_flight.saturating_sub(1);
        let client = route.client;
        let is_over = route.is_closing || head.code == SESSION_UNKNOWN;
        if is_over && route.in_flight == 0 {
            // G6
            self.sessions.remove(&session);
        }
        self.traffic.replied += 1;
        let packet = Packet::bare(PacketKind::Reply, number, session, position);
        let fits = outputs.len() + super::codec::REPLY_HEAD_BYTES <= BODY_BYTES_MAX;
        let outputs = if fits { outputs } else { &[] };
        let head = ReplyHead {
            outputs: if fits { head.outputs } else { 0 },
            is_cut: head.is_cut || !fits,
            ..head
        };
        self.send(client, &packet, &[&head.encode(), outputs]);
    }

    /// What came of what an operator wanted.
    pub fn admin_answer(&mut self, client: ClientId, number: u32, code: u16, answer: &str) {
        let mut end = answer.len().min(BODY_BYTES_MAX);
        // Ends: 0 is a boundary.
        while !answer.is_char_boundary(end) {
            end -= 1;
        }
        let packet = Packet::bare(PacketKind::AdminAnswer, number, u64::from(code), 0);
        self.send(client.0, &packet, &[&answer.as_bytes()[..end]]);
    }

    /// What went over it.
    #[must_use]
    pub fn traffic(&self) -> GatewayTraffic {
        GatewayTraffic {
            connections: self.clients.len() as u64,
            without_socket: self.listener.failures(),
            ..self.traffic
        }
    }

    fn accept(&mut self) {
        // Ends: the kernel's list of those who wait does, or the listener rests.
        while let Some(accepted) = self.listener.accept(self.now_ns) {
            let Accepted {
                socket,
                address,
                is_last,
            } = accepted;
            let most = self.settings.connections_max;
            if self.clients.len() >= most.saturating_add(REFUSED_AT_ONCE_MAX) {
                self.traffic.refused += 1;
                continue;
            }
            // One that cannot be tuned is broken already.
            if tune(&socket, Duration::from_secs(10)).is_err() {
                continue;
            }
            let stream = match &self.settings.security {
                Security::Loopback | Security::Plaintext => Stream::plain(socket),
                Security::Tls(tls) => match tls.accept() {
                    Ok(tls) => Stream::tls(socket, tls),
                    Err(_) => continue,
                },
            };
            let id = self.next;
            self.next += 1;
            let client = Connected::new(stream, address, self.deadline_ns());
            self.clients.insert(id, client);
            self.last = if is_last { Some(id) } else { self.last };
            if self.clients.len() > most {
                self.refuse(id, 0, 0, code::TOO_MANY, code::meaning(code::TOO_MANY));
                self.end(id);
            }
        }
    }

    fn read(&mut self, id: u64, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut packets = std::mem::take(&mut client.packets);
        let mut left = PACKETS_PER_TURN;
        let mut is_alive = true;
        let mut is_drained = false;
        let mut may_have_more = true;
        // Ends: each turn takes from `left`, or comes to the end of what is there.
        while is_alive && left > 0 {
            match packets.next() {
                Ok(Some(packet)) => {
                    left -= 1;
                    self.take_packet(id, &packet, ask);
                    is_alive = self
                        .clients
                        .get(&id)
                        .is_some_and(|client| !client.is_ending);
                }
                Ok(None) if !may_have_more => {
                    is_drained = true;
                    break;
                }
                Ok(None) => match self.fill(id, &mut packets) {
                    Filled::Some => {}
                    Filled::Last => may_have_more = false,
                    Filled::None => {
                        is_drained = true;
                        break;
                    }
                    Filled::Ended => {
                        self.remove(id);
                        return;
                    }
                },
                Err(_) => {
                    self.traffic.cut += 1;
                    self.remove(id);
                    return;
                }
            }
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.has_more = !is_drained && is_alive;
            client.packets = packets;
        }
    }

    fn fill(&mut self, id: u64, packets: &mut Packets) -> Filled {
        let Some(client) = self.clients.get_mut(&id) else {
            return Filled::Ended;
        };
        let room = packets.room();
        let most = room.len();
        match client.stream.read(room) {
            Ok(0) => Filled::Ended,
            Ok(count) => {
                packets.filled(count);
                if count < most && client.stream.tells_its_end() {
                    Filled::Last
                } else {
                    Filled::Some
                }
            }
            Err(error) if is_early(&error) => Filled::None,
            Err(_) => Filled::Ended,
        }
    }

    fn take_packet(
        &mut self,
        id: u64,
        packet: &Packet<'_>,
        ask: &mut impl FnMut(Asked<'_>) -> Admit,
    ) {
        let Some(client) = self.clients.get(&id).filter(|client| !client.is_ending) else {
            return;
        };
        if client.principal.is_none() {
            self.greet(id, packet);
            return;
        }
        if self.last == Some(id) && packet.kind != PacketKind::Admin {
            let (number, meaning) = (packet.number, code::meaning(code::NO_SOCKET));
            self.refuse(id, number, 0, code::NO_SOCKET, meaning);
            self.end(id);
            return;
        }
        match packet.kind {
            PacketKind::Request => self.request(id, packet, ask),
            PacketKind::Open => self.open_session(id, packet.number, ask),
            PacketKind::Close => self.close_session(id, packet.a, ask),
            PacketKind::Admin => self.admin(id, packet, ask),
            PacketKind::Hello
            | PacketKind::Welcome
            | PacketKind::Opened
            | PacketKind::Reply
            | PacketKind::Busy
            | PacketKind::NotLeader
            | PacketKind::Refused
            | PacketKind::AdminAnswer => {
                self.refuse(
                    id,
                    packet.number,
                    0,
                    code::MALFORMED,
                    code::meaning(code::MALFORMED),
                );
                self.end(id);
            }
        }
    }

    /// The first packet: who is it, and is it believed (`G1`).
    fn greet(&mut self, id: u64, packet: &Packet<'_>) {
        match self.judge(id, packet) {
            Ok(principal) => {
                let (leader, address) = match &self.leadership {
                    Leadership::Here => (self.settings.node.0, ""),
                    Leadership::Elsewhere { leader, address } => {
                        (leader.map_or(0, |leader| leader.0), address.as_str())
                    }
                };
                let nodes = u64::from(self.settings.node.0) | u64::from(leader) << 16;
                let window = u64::from(self.settings.window_max);
                let welcome = Packet::bare(PacketKind::Welcome, 0, nodes, window);
                let address = address.to_owned();
                let is_last = self.last == Some(id);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.principal = Some(principal);
                    // G7
                    if !is_last {
                        client.deadline_ns = u64::MAX;
                    }
                }
                self.send(id, &welcome, &[address.as_bytes()]);
            }
            Err(code) => {
                self.refuse(id, 0, 0, code, code::meaning(code));
                self.end(id);
            }
        }
    }

    fn judge(&self, id: u64, packet: &Packet<'_>) -> Result<Principal, u16> {
        if packet.kind != PacketKind::Hello {
            return Err(code::NO_HELLO);
        }
        let greeting = Greeting::decode(packet.body).map_err(|_| code::MALFORMED)?;
        if greeting.cluster != self.settings.cluster.bytes() {
            return Err(code::CLUSTER);
        }
        if greeting.event_size != 0 && greeting.event_size != self.settings.event_size {
            return Err(code::EVENT_SIZE);
        }
        let tokens = &self.settings.tokens;
        let known = tokens
            .get(&greeting.principal)
            .is_some_and(|token| is_equal(token.as_bytes(), greeting.token.as_bytes()));
        if !tokens.is_empty() && !known {
            return Err(code::PRINCIPAL);
        }
        if let Security::Tls(_) = self.settings.security {
            let name = client_name(&self.settings.cluster, &greeting.principal);
            let shown = self
                .clients
                .get(&id)
                .and_then(|client| client.stream.certificate());
            if !shown.is_some_and(|shown| is_named(&shown, &name)) {
                return Err(code::PRINCIPAL);
            }
        }
        let identity = match self.settings.security {
            Security::Tls(_) => Identity::Certificate,
            Security::Loopback | Security::Plaintext if !tokens.is_empty() => Identity::Token,
            Security::Loopback | Security::Plaintext => Identity::Nobody,
        };
        let client = self.clients.get(&id).ok_or(code::NO_HELLO)?;
        Ok(Principal {
            name: greeting.principal,
            identity,
            address: client.address,
        })
    }

    fn open_session(&mut self, id: u64, number: u32, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        if self.leadership != Leadership::Here {
            self.redirect(id, number, 0);
            return;
        }
        let route = self.salt ^ self.next;
        self.next += 1;
        match ask(Asked::Open { route }) {
            Admit::Taken => {
                self.opening.insert(route, (id, number));
            }
            Admit::Busy => self.busy(id, number, 0),
            Admit::Refused(code) => self.refuse(id, number, 0, code, code::meaning(code)),
        }
    }

    fn close_session(&mut self, id: u64, session: u64, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        let route = self.sessions.get_mut(&session);
        let is_others = route.as_ref().is_some_and(|route| route.client != id);
        if self.leadership != Leadership::Here || is_others {
            return;
        }
        // Without room it stays until it expires: nobody waits for an answer.
        if ask(Asked::Close { session }) != Admit::Taken {
            return;
        }
        let Some(route) = route else { return };
        route.is_closing = true;
        if route.in_flight == 0 {
            // G6
            self.sessions.remove(&session);
        }
    }

    fn request(&mut self, id: u64, packet: &Packet<'_>, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        let (session, number) = (packet.a, packet.number);
        if self.leadership != Leadership::Here {
            self.redirect(id, number, session);
            return;
        }
        if packet.body.len() as u64 != u64::from(self.settings.event_size) {
            self.refuse(
                id,
                number,
                session,
                code::EVENT_SIZE,
                code::meaning(code::EVENT_SIZE),
            );
            return;
        }
        let route = self.sessions.entry(session).or_default();
        if route.client != id {
            // The client has come back on another connection: what was in flight on the old one is
            // asked again here.
            *route = Route {
                client: id,
                ..Route::default()
            };
        }
        if route.blocked_at.is_some_and(|at| number > at)
            || route.in_flight >= self.settings.window_max
        {
            let at = route.blocked_at.map_or(number, |at| at.min(number));
            route.blocked_at = Some(at);
            self.busy(id, number, session);
            return;
        }
        let slot = packet.body;
        match ask(Asked::Request {
            session,
            number,
            slot,
        }) {
            Admit::Taken => {
                route.in_flight += 1;
                route.blocked_at = None;
                self.traffic.taken += 1;
            }
            Admit::Busy => {
                route.blocked_at = Some(number);
                self.busy(id, number, session);
            }
            Admit::Refused(code) => self.refuse(id, number, session, code, code::meaning(code)),
        }
    }

    fn admin(&mut self, id: u64, packet: &Packet<'_>, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        let client = self.clients.get(&id);
        let Some(principal) = client.and_then(|client| client.principal.as_ref()) else {
            return;
        };
        let admins = &self.settings.admins;
        let refused = if !admins.is_empty() && !admins.contains(&principal.name) {
            Some(code::NOT_ADMIN)
        } else {
            match packet.text() {
                Ok(command) => {
                    let asked = Asked::Admin {
                        client: ClientId(id),
                        number: packet.number,
                        is_dry: packet.a & 1 == 1,
                        command,
                        principal,
                    };
                    match ask(asked) {
                        Admit::Taken => None,
                        Admit::Busy => {
                            self.busy(id, packet.number, 0);
                            None
                        }
                        Admit::Refused(code) => Some(code),
                    }
                }
                Err(_) => Some(code::MALFORMED),
            }
        };
        if let Some(code) = refused {
            self.refuse(id, packet.number, 0, code, code::meaning(code));
        }
    }

    fn busy(&mut self, id: u64, number: u32, session: u64) {
        self.traffic.busy += 1;
        self.send(id, &Packet::bare(PacketKind::Busy, number, session, 0), &[]);
    }

    fn redirect(&mut self, id: u64, number: u32, session: u64) {
        let Leadership::Elsewhere { leader, address } = &self.leadership else {
            return;
        };
        let leader = u64::from(leader.map_or(0, |leader| leader.0));
        let address = address.clone();
        self.traffic.redirected += 1;
        let packet = Packet::bare(PacketKind::NotLeader, number, session, leader);
        self.send(id, &packet, &[address.as_bytes()]);
    }

    fn refuse(&mut self, id: u64, number: u32, session: u64, code: u16, meaning: &str) {
        self.traffic.refused += 1;
        let packet = Packet::bare(PacketKind::Refused, number, session, u64::from(code));
        self.send(id, &packet, &[meaning.as_bytes()]);
    }

    fn send(&mut self, id: u64, packet: &Packet<'_>, pieces: &[&[u8]]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        packet.encode(&mut client.out, pieces);
        if client.out.len() - client.written > self.settings.waiting_bytes_max {
            // G3
            self.traffic.cut += 1;
            self.remove(id);
        }
    }

    fn end(&mut self, id: u64) {
        let deadline_ns = self.deadline_ns();
        if let Some(client) = self.clients.get_mut(&id) {
            client.is_ending = true;
            client.deadline_ns = deadline_ns;
        }
        self.write(id);
    }

    fn write(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if client.write().is_err() {
            self.remove(id);
            return;
        }
        if client.is_ending && !client.wants_write() {
            client.stream.finish();
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        self.clients.remove(&id);
        self.sessions.retain(|_, route| route.client != id);
        self.opening.retain(|_, (client, _)| *client != id);
    }
}

enum Filled {
    Some,
    /// All that the socket had: what comes later it reports.
    Last,
    None,
    Ended,
}

impl Connected {
    fn new(stream: Stream, address: IpAddr, deadline_ns: u64) -> Connected {
        Connected {
            stream,
            packets: Packets::default(),
            out: Vec::new(),
            written: 0,
            address,
            principal: None,
            is_ending: false,
            has_more: false,
            deadline_ns,
        }
    }

    fn wants_write(&self) -> bool {
        self.stream.wants_write() || self.written < self.out.len()
    }

    fn write(&mut self) -> io::Result<()> {
        self.stream
            .flush()
            .or_else(|error| if is_early(&error) { Ok(()) } else { Err(error) })?;
        // Ends: each turn writes at least a byte.
        while self.written < self.out.len() {
            match self
                .stream
                .write(&[IoSlice::new(&self.out[self.written..])])
            {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > 64 << 10 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

/// Compares without telling by its duration where the first difference is.
fn is_equal(ours: &[u8], theirs: &[u8]) -> bool {
    let differences = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
    ours.len() == theirs.len() && differences == 0
}

#[cfg(test)]
mod tests;
