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
//! * `G8` While this node is about to lead, sessions and requests wait with their clients, unread: at most
//!   one turn's bytes of each are here. They go on, or elsewhere, when it is settled.
//! * `G9` Of one principal no more is in flight than it may have: what is over that is refused, by a code of its
//!   own, and not written.
//! * `G10` Nothing of a session is asked for a connection before the owner said that its client may use it: neither
//!   its requests nor its answers are another's. What the owner said counts as long as it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use accounts::Accounts;
use connected::Connected;
use sessions::Route;

use super::code;
use super::codec::{BODY_BYTES_MAX, Packet, PacketKind};
use crate::ids::{ClusterId, NodeId};
use crate::transport::{Accepted, Listening, Security, Stream, TransportError, Waiting, tune};

mod accounts;
mod asked;
mod connected;
mod greeting;
mod sessions;

pub use asked::{Admit, Asked, ClientId, Identity, Leadership, Principal};

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
    /// Most requests in flight of one principal whose name was proved, over all its sessions; 0: no limit.
    pub requests_per_principal: u32,
    /// Most bytes that wait for one client: one that does not read is cut off.
    pub waiting_bytes_max: usize,
    /// A greeting must be over within so long, and so must the last words to a client.
    pub greet_within: Duration,
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
    /// What is in flight of each principal, where that has a limit.
    accounts: Accounts,
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
            listener,
            last: None,
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            accounts: Accounts::new(settings.requests_per_principal),
            opening: BTreeMap::new(),
            next: 1,
            leadership: Leadership::Elsewhere {
                leader: None,
                address: String::new(),
            },
            waited: Vec::new(),
            traffic: GatewayTraffic::default(),
            now_ns: 0,
            settings,
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
        for client in self.clients.values_mut() {
            client.has_more |= std::mem::take(&mut client.is_held);
            // G10: what was said of a log that may be cut back counts for as long as that leadership.
            client.sessions.clear();
        }
        if matches!(self.leadership, Leadership::Here | Leadership::Soon) {
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
        self.accounts.clear();
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
            // G8: what is there already is not waited for, so the caller sleeps.
            let wants_read = !client.is_held;
            let number = waiting.add(client.stream.fd(), wants_read, client.wants_write());
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
            let client = self.clients.get(&id);
            let (has_more, is_held) =
                client.map_or((false, false), |client| (client.has_more, client.is_held));
            if is_held && waiting.is_readable(*number) {
                // G8: it was not waited for, so what it reports is its end.
                self.remove(id);
            } else if has_more || waiting.is_readable(*number) {
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
        let accounts = &mut self.accounts;
        self.sessions.retain(|_, route| {
            let stays = route.client != id;
            if !stays {
                // QT1
                accounts.less(route.account, route.in_flight);
            }
            stays
        });
        self.opening.retain(|_, (client, _)| *client != id);
    }
}

#[cfg(test)]
mod tests;
