//! Sockets between nodes: three connections for each peer, and nothing that ever waits.
//!
//! ```text
//!            ┌──────────── log ────────────┐   appends down, answers back
//!   node 1 ◄─┼────────── control ──────────┼─ node 2      the higher number dials
//!            └──────────── bulk ───────────┘   snapshots, segments
//! ```
//!
//! Who starts dials the higher numbers too, once: they may have dialed it in vain, and wait for their next
//! attempt. Afterwards a connection that is lost is made anew by the higher number alone.
//!
//! One thread owns a [`Transport`]. It queues with [`send`](Transport::send), writes with
//! [`flush`](Transport::flush), and takes what came with [`poll`](Transport::poll). A message is given
//! to a socket as the pieces that it is made of: the frames of an append are the same memory for all
//! peers. A peer that does not read makes its queue full, which is told as [`Unreachable`]; the
//! consensus then probes it, and it is served from the journal later. Nothing else waits for it.
//!
//! Each connection begins with a hello of both sides. What does not fit is refused by name, with a
//! line on both sides. Plain text is for loopback, or for who asks for it by name.
//!
//! # Invariants
//!
//! * `T1` No call waits for a peer; [`poll`](Transport::poll) waits as long as it is told to.
//! * `T2` Nothing is taken from a socket, and nothing put into it, before both hellos fit.
//! * `T3` At most one socket for each peer and connection is in use: a newer one replaces it.
//! * `T4` Each loss is told once as [`Incoming::Lost`], and each fresh connection as
//!   [`Incoming::Connected`] before the first message from it.

mod link;
mod listening;
mod queue;
mod stream;
mod sys;
mod waker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

pub(crate) use stream::{Stream, is_early};
pub use sys::Waiting;
pub use waker::{Sleeper, Waker, waker};

pub(crate) use listening::{Accepted, Listening};
pub(crate) use sys::{connect, tune};

use crate::ids::NodeId;
use crate::tls::{Tls, is_named, node_name};
use crate::wire::{Body, Connection, Head, Hello, Kind, Limits, Message, RefuseCode};
use link::{Broken, Link, Stage};

/// The first attempt to dial again comes after so long, and each further one after twice as long.
const RETRY_NS: u64 = 20_000_000;

/// And no later than after so long.
const RETRY_NS_MAX: u64 = 500_000_000;

/// Sockets that have not greeted: more are closed at once.
const STRANGERS_MAX: usize = 64;

/// What a node needs to talk with its peers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// What must be equal on all nodes, and what else a hello says; `to` and `connection` are filled in.
    pub hello: Hello,
    /// Where peers reach this node; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The others, and where they are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// With certificates, or without.
    pub security: Security,
    /// Most bytes that wait for one connection.
    pub queue_bytes_max: usize,
    /// A peer that acknowledges nothing for so long is lost.
    pub dead_after: Duration,
    /// A greeting must be over within so long.
    pub greet_within: Duration,
}

/// How connections are secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all, and only on loopback.
    Loopback,
    /// Not at all, because somebody asked for it by name.
    Plaintext,
    /// TLS 1.3 with certificates on both sides.
    Tls(Tls),
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message.
    Message {
        /// Who sent it.
        from: NodeId,
        /// On which connection.
        connection: Connection,
        /// What.
        message: Message,
    },
    /// A connection is there, and both hellos fit.
    Connected {
        /// With whom.
        node: NodeId,
        /// Which.
        connection: Connection,
        /// The peer's term, and the last index and term of its log.
        head: Head,
        /// What else it says.
        hello: Box<Hello>,
    },
    /// A connection is gone: what was under way may be lost.
    Lost {
        /// With whom.
        node: NodeId,
        /// Which.
        connection: Connection,
        /// Why, in one line.
        why: String,
    },
    /// One side will not talk with the other.
    Refused {
        /// With whom, if it said so.
        node: Option<NodeId>,
        /// Why, if it was a reason with a number.
        code: Option<RefuseCode>,
        /// One line for the log.
        line: String,
    },
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// There is no connection.
    #[error("no connection to node {0}")]
    NotConnected(NodeId),
    /// The peer does not read what waits already.
    #[error("node {0} is too slow: its queue is full")]
    QueueFull(NodeId),
}

/// Why there is no transport.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The port cannot be had.
    #[error(
        "{address}: cannot listen there: {source}; is another node, or another program, on that port?"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Plain text outside of loopback.
    #[error(
        "{address} is not on loopback, and there are no certificates: give `[tls]`, or say `plaintext = true` where the network is trusted"
    )]
    PlaintextOutside {
        /// Whose.
        address: SocketAddr,
    },
    /// Waiting failed.
    #[error("waiting for sockets failed: {0}")]
    Wait(io::Error),
}

/// What waits and what went, for counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that were queued.
    pub sent: u64,
    /// Messages that came.
    pub received: u64,
    /// Messages that were not taken, since a queue was full.
    pub overflowed: u64,
    /// Connections that were lost.
    pub lost: u64,
    /// Bytes that wait in all queues.
    pub waiting_bytes: u64,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    lines: [Line; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// The socket in use, or being dialed.
    link: Option<u64>,
    is_up: bool,
    retry_at_ns: u64,
    failures: u32,
    /// It was dialed, or has come by itself: a higher number is not dialed any more.
    has_knocked: bool,
}

/// The sockets of one node.
#[derive(Debug)]
pub struct Transport {
    settings: Settings,
    listener: Listening,
    peers: BTreeMap<NodeId, Peer>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    /// Our hello's head: moves with the log.
    status: Head,
    waiting: Waiting,
    /// What the last `prepare` waits for: a socket, or the listener.
    waited: Vec<(usize, Option<u64>)>,
    traffic: Traffic,
    now_ns: u64,
    /// What happened outside of `poll`, told by the next one.
    told: Vec<Incoming>,
}

impl Settings {
    /// Defaults for a node on loopback: 8 MiB for a queue, 2 s until a silent peer is lost, 1 s to greet.
    #[must_use]
    pub fn on_loopback(node: NodeId, hello: Hello, listen: SocketAddr) -> Settings {
        Settings {
            node,
            hello,
            listen,
            peers: BTreeMap::new(),
            security: Security::Loopback,
            queue_bytes_max: 8 << 20,
            dead_after: Duration::from_secs(2),
            greet_within: Duration::from_secs(1),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            event_size: self.hello.event_size,
            frame_bytes_max: self.hello.frame_bytes_max,
            message_bytes_max: self.hello.message_bytes_max,
        }
    }

    fn is_allowed(&self, address: SocketAddr) -> Result<(), TransportError> {
        if matches!(self.security, Security::Loopback) && !address.ip().is_loopback() {
            return Err(TransportError::PlaintextOutside { address });
        }
        Ok(())
    }
}

impl Transport {
    /// Listens; the peers are dialed by the next [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// The port cannot be had, or plain text would leave this machine without having been asked for.
    pub fn open(settings: Settings) -> Result<Transport, TransportError> {
        settings.is_allowed(settings.listen)?;
        for address in settings.peers.values() {
            settings.is_allowed(*address)?;
        }
        let address = settings.listen;
        let listener = Listening::at(address, false)
            .map_err(|source| TransportError::Listen { address, source })?;
        let mut transport = Transport {
            listener,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            status: Head::new(Kind::Hello, settings.node),
            waiting: Waiting::default(),
            waited: Vec::new(),
            traffic: Traffic::default(),
            now_ns: 0,
            told: Vec::new(),
            settings,
        };
        let peers = transport.settings.peers.clone();
        transport.set_peers(&peers)?;
        Ok(transport)
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    /// The members have changed: connections to those that are gone end.
    ///
    /// # Errors
    ///
    /// Plain text would leave this machine without having been asked for; nothing has changed.
    pub fn set_peers(
        &mut self,
        peers: &BTreeMap<NodeId, SocketAddr>,
    ) -> Result<(), TransportError> {
        for address in peers.values() {
            self.settings.is_allowed(*address)?;
        }
        let gone: Vec<NodeId> = self
            .peers
            .keys()
            .filter(|node| !peers.contains_key(node))
            .copied()
            .collect();
        for node in gone {
            self.disconnect(node, "it is no member any more");
            self.peers.remove(&node);
        }
        for (node, address) in peers {
            if *node == self.settings.node {
                continue;
            }
            let peer = self.peers.entry(*node).or_insert(Peer {
                address: *address,
                lines: [Line::default(); 3],
            });
            peer.address = *address;
        }
        Ok(())
    }

    /// What the next hello says of this node's log; a lower epoch than this is refused from here on.
    pub fn set_log(&mut self, status: Head) {
        self.status = Head {
            kind: Kind::Hello,
            from: self.settings.node,
            ..status
        };
    }

    /// Whether there is such a connection.
    #[must_use]
    pub fn is_connected(&self, node: NodeId, connection: Connection) -> bool {
        self.line(node, connection).is_some_and(|line| line.is_up)
    }

    /// Queues a message, on the connection of its kind. It is written by the next
    /// [`flush`](Self::flush) or [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// The peer is not there, or too slow; the message is gone.
    pub fn send(&mut self, to: NodeId, message: Message) -> Result<(), Unreachable> {
        let connection = connection_of(message.head.kind);
        let line = self.line(to, connection).filter(|line| line.is_up);
        let link = line.and_then(|line| line.link);
        let Some(link) = link.and_then(|link| self.links.get_mut(&link)) else {
            return Err(Unreachable::NotConnected(to));
        };
        if link.push(message, self.settings.queue_bytes_max).is_err() {
            self.traffic.overflowed += 1;
            return Err(Unreachable::QueueFull(to));
        }
        self.traffic.sent += 1;
        Ok(())
    }

    /// Writes what the sockets take: before the thread goes into a sync.
    pub fn flush(&mut self) {
        let ids: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.wants_write())
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.write(id);
        }
    }

    /// Ends all connections with a node: it has said what it must not, or is no member.
    pub fn refuse(&mut self, node: NodeId, code: RefuseCode) {
        for link in self.links_of(node) {
            self.refuse_link(link, code, 0);
        }
    }

    /// Ends all connections with a node, without a word.
    pub fn disconnect(&mut self, node: NodeId, why: &str) {
        for link in self.links_of(node) {
            self.lose(link, why);
        }
    }

    /// What waits and what went.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let waiting = self.links.values().map(|link| link.queue.bytes() as u64);
        Traffic {
            waiting_bytes: waiting.sum(),
            ..self.traffic
        }
    }

    /// Dials, accepts, writes, and reads what has come into `into`. Waits at most `timeout` for
    /// something to happen; nought does not wait. Who waits for other sockets too calls
    /// [`prepare`](Self::prepare) and [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// The system cannot wait for sockets. A peer's failure is no error, but [`Incoming::Lost`].
    pub fn poll(
        &mut self,
        now_ns: u64,
        timeout: Duration,
        into: &mut Vec<Incoming>,
    ) -> Result<(), TransportError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        let most = self.prepare(now_ns, &mut waiting);
        let waited = waiting.wait(timeout.min(most));
        if waited.is_ok() {
            self.take(now_ns, &waiting, into);
        }
        self.waiting = waiting;
        waited.map(drop).map_err(TransportError::Wait)
    }

    /// The first half of a turn: dials and writes, and says which sockets to wait for, and how long
    /// at most.
    pub fn prepare(&mut self, now_ns: u64, waiting: &mut Waiting) -> Duration {
        self.now_ns = now_ns;
        self.flush();
        self.end_late(now_ns);
        self.dial_due(now_ns);
        self.waited.clear();
        if let Some(listener) = self.listener.wait(now_ns, waiting) {
            self.waited.push((listener, None));
        }
        for (id, link) in &self.links {
            let fd = link.stream.fd();
            let number = waiting.add(fd, link.wants_read(), link.wants_write());
            self.waited.push((number, Some(*id)));
        }
        if self.told.is_empty() && !self.links.values().any(|link| link.has_more) {
            self.until_next(now_ns)
        } else {
            Duration::ZERO
        }
    }

    /// The second half of a turn, after the waiting: accepts, and reads what has come into `into`.
    pub fn take(&mut self, now_ns: u64, waiting: &Waiting, into: &mut Vec<Incoming>) {
        self.now_ns = now_ns;
        into.append(&mut self.told);
        let waited = std::mem::take(&mut self.waited);
        for (number, id) in &waited {
            let Some(id) = *id else {
                continue;
            };
            if waiting.is_writable(*number) {
                self.write_ready(id, now_ns);
            }
            let has_more = self.links.get(&id).is_some_and(|link| link.has_more);
            if has_more || waiting.is_readable(*number) {
                self.read(id, now_ns, into);
            }
        }
        let knocked = waited
            .iter()
            .any(|(number, id)| id.is_none() && waiting.is_readable(*number));
        if knocked {
            self.accept(now_ns);
        }
        self.waited = waited;
        into.append(&mut self.told);
    }

    /// How long until something is due.
    fn until_next(&self, now_ns: u64) -> Duration {
        let dial = self
            .peers
            .iter()
            .filter(|(node, _)| **node < self.settings.node)
            .flat_map(|(_, peer)| peer.lines.iter())
            .filter(|line| line.link.is_none())
            .map(|line| line.retry_at_ns);
        let late = self.links.values().map(|link| link.deadline_ns);
        let next = dial.chain(late).min().unwrap_or(u64::MAX);
        let next = Duration::from_nanos(next.saturating_sub(now_ns));
        match self.listener.rests_for(now_ns) {
            Duration::ZERO => next,
            rest => next.min(rest),
        }
    }

    fn dial_due(&mut self, now_ns: u64) {
        let own = self.settings.node;
        let due: Vec<(NodeId, Connection)> = self
            .peers
            .iter()
            .flat_map(|(node, peer)| {
                Connection::ALL
                    .into_iter()
                    .filter(|connection| {
                        let line = peer.lines[*connection as usize];
                        let is_ours = *node < own || !line.has_knocked;
                        is_ours && line.link.is_none() && line.retry_at_ns <= now_ns
                    })
                    .map(|connection| (*node, connection))
            })
            .collect();
        for (node, connection) in due {
            self.dial(node, connection, now_ns);
        }
    }

    fn dial(&mut self, node: NodeId, connection: Connection, now_ns: u64) {
        let Some(address) = self.peers.get(&node).map(|peer| peer.address) else {
            return;
        };
        // Failing now or later is the same to those who wait.
        let Ok(stream) = self.dial_stream(address, node) else {
            self.retry_later(node, connection, now_ns);
            return;
        };
        let mut link = Link::new(
            stream,
            self.settings.limits(),
            self.settings.queue_bytes_max,
        );
        link.stage = Stage::Dialing;
        link.is_dialed = true;
        link.peer = Some((node, connection));
        link.deadline_ns = now_ns.saturating_add(nanos(self.settings.greet_within));
        // An empty queue takes it (Q1).
        let _ = link.queue.push(self.hello(node, connection));
        let id = self.add(link);
        if let Some(line) = self.line_mut(node, connection) {
            line.link = Some(id);
            line.is_up = false;
        }
        self.retry_later(node, connection, now_ns);
    }

    fn dial_stream(&self, address: SocketAddr, node: NodeId) -> io::Result<Stream> {
        let socket = connect(address)?;
        tune(&socket, self.settings.dead_after)?;
        match &self.settings.security {
            Security::Loopback | Security::Plaintext => Ok(Stream::plain(socket)),
            Security::Tls(tls) => {
                let name = node_name(&self.settings.hello.cluster, node);
                let tls = tls.dial(&name).map_err(io::Error::other)?;
                Ok(Stream::tls(socket, tls))
            }
        }
    }

    /// Says when the line is dialed next if it fails now: sooner for a first failure, and never for
    /// all at once.
    fn retry_later(&mut self, node: NodeId, connection: Connection, now_ns: u64) {
        let spread =
            u64::from(self.settings.node.0) * 7 + u64::from(node.0) * 3 + connection as u64;
        let Some(line) = self.line_mut(node, connection) else {
            return;
        };
        let wait = (RETRY_NS << line.failures.min(8)).min(RETRY_NS_MAX);
        line.failures = line.failures.saturating_add(1);
        line.has_knocked = true;
        line.retry_at_ns = now_ns
            .saturating_add(wait)
            .saturating_add((spread % 8) * 1_000_000);
    }

    fn accept(&mut self, now_ns: u64) {
        // Ends: the kernel's list of those who wait does, or the listener rests.
        while let Some(Accepted { socket, .. }) = self.listener.accept(now_ns) {
            let strangers = self.links.values().filter(|link| link.peer.is_none());
            if strangers.count() >= STRANGERS_MAX {
                continue;
            }
            // One that cannot be tuned is broken already.
            if tune(&socket, self.settings.dead_after).is_err() {
                continue;
            }
            let stream = match &self.settings.security {
                Security::Loopback | Security::Plaintext => Stream::plain(socket),
                Security::Tls(tls) => match tls.accept() {
                    Ok(tls) => Stream::tls(socket, tls),
                    Err(error) => {
                        self.told_refused(None, None, format!("TLS cannot begin: {error}"));
                        continue;
                    }
                },
            };
            let mut link = Link::new(
                stream,
                self.settings.limits(),
                self.settings.queue_bytes_max,
            );
            link.deadline_ns = now_ns.saturating_add(nanos(self.settings.greet_within));
            self.add(link);
        }
        if let Some(line) = self.listener.take_notice() {
            self.told_refused(None, None, line);
        }
    }

    fn end_late(&mut self, now_ns: u64) {
        let late: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.deadline_ns <= now_ns)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.lose(id, "it did not greet in time");
        }
    }

    fn write_ready(&mut self, id: u64, now_ns: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.stage == Stage::Dialing {
            match link.finish_dialing() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let why = error.to_string();
                    self.lose(id, &why);
                    return;
                }
            }
            link.deadline_ns = now_ns.saturating_add(nanos(self.settings.greet_within));
        }
        self.write(id);
    }

    fn write(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if let Err(error) = link.write() {
            let why = error.to_string();
            self.lose(id, &why);
        }
    }

    fn read(&mut self, id: u64, now_ns: u64, into: &mut Vec<Incoming>) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        let before = into.len();
        let mut verdict = Verdict::Stays;
        let result = link.read(|link, message| {
            verdict = self.accept_message(id, link, message, now_ns, into);
            matches!(verdict, Verdict::Stays)
        });
        self.traffic.received += (into.len() - before) as u64;
        self.links.insert(id, link);
        match (verdict, result) {
            (Verdict::Refuse(code, right), _) => self.refuse_link(id, code, right),
            (Verdict::Ends(line), _) => self.lose(id, &line),
            (Verdict::Stays, Err(error)) => self.broken(id, &error),
            (Verdict::Stays, Ok(())) => self.write(id),
        }
    }

    /// Takes one message of a link, which is out of the list meanwhile.
    fn accept_message(
        &mut self,
        id: u64,
        link: &mut Link,
        message: Message,
        now_ns: u64,
        into: &mut Vec<Incoming>,
    ) -> Verdict {
        link.claimed = Some(message.head.from);
        if message.head.kind == Kind::Refuse {
            return self.refused(link, &message.head);
        }
        match (link.stage, link.peer) {
            (Stage::Up, Some((from, connection))) => {
                if message.head.from != from {
                    return Verdict::Refuse(RefuseCode::Node, u64::from(from.0));
                }
                if message.head.epoch < self.status.epoch {
                    return Verdict::Refuse(RefuseCode::Epoch, u64::from(self.status.epoch.0));
                }
                into.push(Incoming::Message {
                    from,
                    connection,
                    message,
                });
                Verdict::Stays
            }
            _ => self.greeted(id, link, message, now_ns, into),
        }
    }

    /// The other side's first message (`T2`).
    fn greeted(
        &mut self,
        id: u64,
        link: &mut Link,
        message: Message,
        now_ns: u64,
        into: &mut Vec<Incoming>,
    ) -> Verdict {
        let Message {
            head,
            body: Body::Hello(hello),
        } = message
        else {
            return Verdict::Refuse(RefuseCode::NoHello, 0);
        };
        if let Err((code, right)) = self.check(link, &head, &hello) {
            return Verdict::Refuse(code, right);
        }
        let (node, connection) = (head.from, hello.connection);
        if !link.is_dialed && self.is_greeted_already(node, connection) {
            return Verdict::Ends(format!("{node} is dialed already"));
        }
        if !link.is_dialed {
            self.replace(node, connection, id);
            // Room for one message there always is (Q1).
            let _ = link.queue.push(self.hello(node, connection));
        }
        link.peer = Some((node, connection));
        link.stage = Stage::Up;
        link.deadline_ns = u64::MAX;
        if let Some(line) = self.line_mut(node, connection) {
            *line = Line {
                link: Some(id),
                is_up: true,
                retry_at_ns: now_ns.saturating_add(RETRY_NS),
                failures: 0,
                has_knocked: true,
            };
        }
        into.append(&mut self.told);
        into.push(Incoming::Connected {
            node,
            connection,
            head,
            hello,
        });
        Verdict::Stays
    }

    /// Whether we talk with who says this of itself.
    fn check(&self, link: &Link, head: &Head, hello: &Hello) -> Result<(), (RefuseCode, u64)> {
        let ours = &self.settings.hello;
        if let Some(code) = ours.refuses(hello) {
            let right = match code {
                RefuseCode::Fingerprint => ours.fingerprint,
                RefuseCode::Logic => u64::from(ours.logic_max),
                _ => 0,
            };
            return Err((code, right));
        }
        let own = self.settings.node;
        if hello.to != own {
            return Err((RefuseCode::Node, u64::from(own.0)));
        }
        if let Some((node, connection)) = link.peer {
            if head.from != node {
                return Err((RefuseCode::Node, u64::from(node.0)));
            }
            if hello.connection != connection {
                return Err((RefuseCode::NoHello, 0));
            }
        }
        if head.from == own || !self.peers.contains_key(&head.from) {
            return Err((RefuseCode::Member, 0));
        }
        if head.epoch < self.status.epoch {
            return Err((RefuseCode::Epoch, u64::from(self.status.epoch.0)));
        }
        if let Security::Tls(_) = self.settings.security {
            let name = node_name(&ours.cluster, head.from);
            let shown = link.stream.certificate();
            if !shown.is_some_and(|shown| is_named(&shown, &name)) {
                return Err((RefuseCode::Certificate, 0));
            }
        }
        Ok(())
    }

    /// The other side will not talk with us: the same line here as there.
    fn refused(&mut self, link: &Link, head: &Head) -> Verdict {
        let code = RefuseCode::of_code(head.a);
        let meaning = code.map_or(
            "a reason that this build does not know",
            RefuseCode::meaning,
        );
        let line = format!("node {} refuses this node: {meaning}", head.from);
        self.told_refused(Some(head.from), code, line.clone());
        if let Some((node, connection)) = link.peer
            && let Some(line) = self.line_mut(node, connection)
        {
            // What must be mended by a person is not tried every 20 ms.
            line.failures = line.failures.max(8);
        }
        Verdict::Ends(line)
    }

    fn refuse_link(&mut self, id: u64, code: RefuseCode, right: u64) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        let node = link.claimed;
        let whom = node.map_or_else(|| "a peer".to_owned(), |node| format!("node {node}"));
        self.told_refused(
            node,
            Some(code),
            format!("{whom} is refused: {}", code.meaning()),
        );
        let was = link.peer.take();
        let was_up = link.stage == Stage::Up;
        let head = Head {
            a: code as u64,
            b: right,
            ..Head {
                kind: Kind::Refuse,
                ..self.status
            }
        };
        // A queue without room means a peer that does not read: then it ends without a word.
        let _ = link.queue.push(Message::bare(head));
        link.stage = Stage::Closing;
        link.deadline_ns = self
            .now_ns
            .saturating_add(nanos(self.settings.greet_within));
        // The rest is written, or not, until then.
        let _ = link.write();
        if let Some((node, connection)) = was {
            self.unlink(id, node, connection, was_up, code.meaning());
            if let Some(line) = self.line_mut(node, connection) {
                line.failures = line.failures.max(8);
            }
        }
        self.links.insert(id, link);
    }

    fn broken(&mut self, id: u64, error: &Broken) {
        let is_unknown = self.links.get(&id).is_some_and(|link| link.peer.is_none());
        let is_damage = matches!(error, Broken::Wire(_));
        let is_tls =
            matches!(error, Broken::Io(error) if error.kind() == io::ErrorKind::InvalidData);
        if is_damage || is_tls {
            let node = self.links.get(&id).and_then(|link| link.peer);
            let whom = node.map_or_else(
                || "a peer".to_owned(),
                |(node, connection)| format!("node {node} ({connection})"),
            );
            let line = format!("{whom} is cut off: {error}");
            self.told_refused(node.map(|(node, _)| node), None, line);
        }
        if is_unknown {
            self.links.remove(&id);
            return;
        }
        self.lose(id, &error.to_string());
    }

    /// Two that dial each other at the same time would each end the other's socket: the higher number's
    /// stays, if it is connected.
    fn is_greeted_already(&self, node: NodeId, connection: Connection) -> bool {
        let own = self.line(node, connection).and_then(|line| line.link);
        let own = own.and_then(|own| self.links.get(&own));
        node < self.settings.node
            && own.is_some_and(|own| own.is_dialed && own.stage == Stage::Greeting)
    }

    /// A newer socket takes the place of an older one (`T3`).
    fn replace(&mut self, node: NodeId, connection: Connection, by: u64) {
        let older = self.line(node, connection).and_then(|line| line.link);
        if let Some(older) = older
            && older != by
        {
            self.lose(older, "the peer has connected anew");
        }
    }

    /// Ends a link at once.
    fn lose(&mut self, id: u64, why: &str) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        link.stream.finish();
        if let Some((node, connection)) = link.peer {
            self.unlink(id, node, connection, link.stage == Stage::Up, why);
        }
    }

    /// The line has no socket any more; if it was in use, that is told (`T4`).
    fn unlink(&mut self, id: u64, node: NodeId, connection: Connection, was_up: bool, why: &str) {
        if let Some(line) = self.line_mut(node, connection)
            && line.link == Some(id)
        {
            line.link = None;
            line.is_up = false;
        }
        if was_up {
            self.traffic.lost += 1;
            self.told.push(Incoming::Lost {
                node,
                connection,
                why: why.to_owned(),
            });
        }
    }

    fn told_refused(&mut self, node: Option<NodeId>, code: Option<RefuseCode>, line: String) {
        self.told.push(Incoming::Refused { node, code, line });
    }

    fn hello(&self, to: NodeId, connection: Connection) -> Message {
        Message::hello(
            self.status,
            Hello {
                to,
                connection,
                ..self.settings.hello
            },
        )
    }

    fn add(&mut self, link: Link) -> u64 {
        let id = self.next_link;
        self.next_link += 1;
        self.links.insert(id, link);
        id
    }

    fn links_of(&self, node: NodeId) -> Vec<u64> {
        let lines = self.peers.get(&node).map(|peer| peer.lines);
        lines
            .iter()
            .flatten()
            .filter_map(|line| line.link)
            .collect()
    }

    fn line(&self, node: NodeId, connection: Connection) -> Option<&Line> {
        self.peers
            .get(&node)
            .map(|peer| &peer.lines[connection as usize])
    }

    fn line_mut(&mut self, node: NodeId, connection: Connection) -> Option<&mut Line> {
        self.peers
            .get_mut(&node)
            .map(|peer| &mut peer.lines[connection as usize])
    }
}

/// What becomes of a link after a message.
enum Verdict {
    Stays,
    Refuse(RefuseCode, u64),
    Ends(String),
}

/// On which connection a kind travels.
#[must_use]
pub const fn connection_of(kind: Kind) -> Connection {
    match kind {
        Kind::Append | Kind::Accepted | Kind::Rejected => Connection::Log,
        Kind::Fetch | Kind::Piece => Connection::Bulk,
        Kind::Vote
        | Kind::VoteInTransfer
        | Kind::VoteGranted
        | Kind::VoteRefused
        | Kind::PreVote
        | Kind::PreVoteGranted
        | Kind::PreVoteRefused
        | Kind::Heartbeat
        | Kind::HeartbeatAnswer
        | Kind::Snapshot
        | Kind::TimeoutNow
        | Kind::Beacon
        | Kind::Panic
        | Kind::Hello
        | Kind::Refuse => Connection::Control,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
