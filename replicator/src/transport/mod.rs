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
//! * `T5` A peer that is heard on one connection is there: another that was dialed a while ago, and has not
//!   greeted, was dialed in vain, and is dialed anew.

mod dialing;
mod ending;
mod error;
mod greeting;
mod incoming;
mod link;
mod listening;
mod queue;
mod settings;
mod stream;
mod sys;
mod waker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use error::{TransportError, Unreachable};
pub use incoming::Incoming;
pub use settings::{Security, Settings};
pub(crate) use stream::{Stream, is_early};
pub use sys::Waiting;
pub use waker::{Sleeper, Waker, waker};

pub(crate) use listening::{Accepted, Listening};
pub(crate) use sys::{connect, tune};

use crate::ids::NodeId;
use crate::wire::{Connection, Head, Kind, Message, RefuseCode};
use ending::Verdict;
use link::{Link, Stage};

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
    /// How often an attempt was given up since the peer was heard (`T5`).
    hurried: u32,
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
        let heard = link.peer.filter(|_| into.len() > before);
        self.links.insert(id, link);
        if let Some((node, _)) = heard {
            self.hurry(node);
        }
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
