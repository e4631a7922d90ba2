//! What a client goes by, without sockets and without a clock: what was asked, where to ask it, and
//! what to do when nobody answers.
//!
//! ```text
//!         dialing           connected            welcome             opened
//!   Away ─────────► Dialing ──────────► Greeting ─────────► Opening ─────────► Ready
//!    ▲                 │                    │                  │                 │
//!    └── lost, not leader, no answer in time ──────────────────┴─────────────────┘    requests keep their numbers
//! ```
//!
//! # Invariants
//!
//! * `M1` `unanswered` are the requests from the first without an answer that was given to the caller
//!   on, in order, without a hole; the first of them has the number `first`.
//! * `M2` On one connection requests are sent in the order of their numbers; after *busy* to one of
//!   them, that one and all behind it are sent again.
//! * `M3` A node that was silent for as long as an answer may take is passed over for a while, also
//!   where another names it as the leader: a process that hangs, or is cut off, takes connections
//!   and says nothing, and those that have not noticed yet name it. Where all were silent, they are
//!   asked in turn.
//! * `M4` No number is used twice in a session: one whose numbers are used up is closed when all of
//!   them are answered, and another one begins with 1.

use std::collections::VecDeque;

use thiserror::Error;

use super::SESSION_UNKNOWN;
use super::codec::{GREETING_BYTES, Greeting, Packet, PacketError, PacketKind, Packets, ReplyHead};
use crate::ids::ClusterId;

/// What a client goes by.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who it is.
    pub principal: String,
    /// What only it and the nodes know.
    pub token: String,
    /// Bytes of an event slot.
    pub event_size: u32,
    /// Most requests in flight; the node may allow fewer.
    pub window: u32,
    /// A request without an answer for so long: the next node is asked.
    pub answer_within_ns: u64,
    /// A node that cannot be reached, or is busy, is asked again after so long, at first.
    pub retry_ns: u64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Of the session.
    pub session: u64,
    /// Of the request.
    pub number: u32,
    /// Where it is in the log.
    pub position: u64,
    /// 0, or the code of the refusal.
    pub code: u16,
    /// It had been answered before: this is the first answer again, without its outputs.
    pub is_repeated: bool,
    /// The outputs were more than one answer takes, 64 KiB: they are left out, not lost. The log and
    /// whoever subscribes to outputs have them.
    pub is_cut: bool,
    /// Bytes of each output.
    pub output_size: u16,
    /// What the logic said, one behind the other.
    pub outputs: Vec<u8>,
    /// When it was given to the machine.
    pub asked_ns: u64,
}

/// As many requests are in flight as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{in_flight} requests are in flight, which is the window: take an answer first")]
pub struct Full {
    /// How many.
    pub in_flight: u32,
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is nowhere to ask.
    #[error("no address of a node was given")]
    NoAddress,
    /// A node will not talk with this client.
    #[error("{address} refuses this client: {text} (code {code:#06x})")]
    Refused {
        /// Whose answer.
        address: String,
        /// Its number.
        code: u16,
        /// What it means.
        text: String,
    },
    /// A node speaks something else.
    #[error("{address}: {source}")]
    Packet {
        /// Which.
        address: String,
        /// What is wrong.
        source: PacketError,
    },
    /// The session is gone: what was in flight may have been done or not.
    #[error(
        "session {session} is not known any more: it has expired; what was in flight since request {number} may have been done or not"
    )]
    SessionGone {
        /// Which.
        session: u64,
        /// The first request without an answer.
        number: u32,
    },
    /// Nobody answered in time.
    #[error("no node answered within {millis} ms; asked: {addresses}; the last attempt: {last}")]
    NoAnswer {
        /// How the last attempt ended.
        last: String,
        /// How long was waited.
        millis: u64,
        /// Who was asked.
        addresses: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The system cannot wait for a socket.
    #[error("waiting for a socket failed: {0}")]
    Wait(std::io::Error),
}

/// The last number of a session; the one behind it can still be counted.
const NUMBER_MAX: u32 = u32::MAX - 1;

/// How often the time for an answer a silent node is passed over: longer than an election.
const SILENT_TIMES: u64 = 4;

/// The longest wait before a node is asked again.
const RETRY_NS_MAX: u64 = 500_000_000;

/// A client without sockets.
#[derive(Debug)]
pub struct Machine {
    options: MachineOptions,
    addresses: Vec<String>,
    current: usize,
    /// The leader's, as the last node said, where it is not among `addresses`.
    redirect: Option<String>,
    state: State,
    packets: Packets,
    out: Vec<u8>,
    session: Option<u64>,
    window: u32,
    first: u32,
    unanswered: VecDeque<Pending>,
    /// Memory of requests that were answered, to be used again.
    spare: Vec<Vec<u8>>,
    /// How many of `unanswered` were sent on this connection.
    sent: usize,
    /// Nothing is asked before.
    not_before_ns: u64,
    /// How often in a row it did not work.
    failures: u32,
    heard_ns: u64,
    /// Nodes that were silent, and until when they are passed over (`M3`).
    silent: Vec<(String, u64)>,
    counters: Counters,
}

/// What happened to a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were lost, or given up since nobody answered.
    pub lost: u64,
    /// Times that a node named another as the leader.
    pub redirected: u64,
    /// Answers "busy".
    pub busy: u64,
    /// Requests that were sent more than once.
    pub repeated: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Dialing,
    Greeting,
    Opening,
    Ready,
}

#[derive(Debug)]
struct Pending {
    slot: Vec<u8>,
    asked_ns: u64,
    sent_ns: u64,
    times_sent: u32,
    reply: Option<Reply>,
}

impl Machine {
    /// A client that has not connected.
    ///
    /// # Errors
    ///
    /// There is no address.
    pub fn new(options: MachineOptions, addresses: &[String]) -> Result<Machine, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        Ok(Machine {
            window: options.window.max(1),
            options,
            addresses: addresses.to_vec(),
            current: 0,
            redirect: None,
            state: State::Away,
            packets: Packets::default(),
            out: Vec::new(),
            session: None,
            first: 1,
            unanswered: VecDeque::new(),
            spare: Vec::new(),
            sent: 0,
            not_before_ns: 0,
            failures: 0,
            heard_ns: 0,
            silent: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Asks for an event: the request's number. The slot's own session and number are the node's to fill.
    /// Behind the last number that a session has, the next one is asked in another session, from 1 on.
    ///
    /// # Errors
    ///
    /// The window is full, or what was asked in a session that is used up is not answered yet.
    pub fn ask(&mut self, slot: &[u8], now_ns: u64) -> Result<u32, Full> {
        let in_flight = self.in_flight();
        if in_flight >= self.window.min(NUMBER_MAX) {
            return Err(Full { in_flight });
        }
        if in_flight > NUMBER_MAX - self.first.min(NUMBER_MAX) || self.first > NUMBER_MAX {
            if in_flight > 0 {
                return Err(Full { in_flight });
            }
            self.begin_session_anew(now_ns);
        }
        let number = self.first + in_flight;
        let mut own = self.spare.pop().unwrap_or_default();
        own.clear();
        own.extend_from_slice(slot);
        self.unanswered.push_back(Pending {
            slot: own,
            asked_ns: now_ns,
            sent_ns: 0,
            times_sent: 0,
            reply: None,
        });
        Ok(number)
    }

    /// The next answer, in the order of the requests (`C2`).
    pub fn reply(&mut self) -> Option<Reply> {
        let reply = self.unanswered.front_mut()?.reply.take()?;
        // At most as many are kept as were ever in flight.
        self.spare
            .extend(self.unanswered.pop_front().map(|one| one.slot));
        self.first += 1;
        self.sent = self.sent.saturating_sub(1);
        Some(reply)
    }

    /// Requests without an answer that was taken.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.unanswered.len()).unwrap_or(u32::MAX)
    }

    /// The session, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// Whether requests are answered now, as far as one can know.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// What happened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where to connect now; `None` while connected, or too early.
    #[must_use]
    pub fn wants_connection(&self, now_ns: u64) -> Option<&str> {
        (self.state == State::Away && now_ns >= self.not_before_ns).then(|| self.address())
    }

    /// The node that is asked, or will be.
    #[must_use]
    pub fn address(&self) -> &str {
        match &self.redirect {
            Some(address) => address,
            None => &self.addresses[self.current],
        }
    }

    /// A connection to [`address`](Self::address) is being made.
    pub fn dialing(&mut self, now_ns: u64) {
        self.state = State::Dialing;
        self.heard_ns = now_ns;
    }

    /// The connection is there.
    pub fn connected(&mut self, now_ns: u64) {
        self.state = State::Greeting;
        self.packets = Packets::default();
        self.out.clear();
        self.sent = 0;
        self.heard_ns = now_ns;
        let greeting = Greeting {
            cluster: self.options.cluster.bytes(),
            principal: self.options.principal.clone(),
            token: self.options.token.clone(),
            event_size: self.options.event_size,
        };
        let greeting: [u8; GREETING_BYTES] = greeting.encode();
        let window = u64::from(self.options.window);
        let hello = Packet::bare(PacketKind::Hello, 0, 0, window);
        hello.encode(&mut self.out, &[&greeting]);
    }

    /// The connection is gone, or could not be made: the next node is asked.
    pub fn lost(&mut self, now_ns: u64) {
        if !matches!(self.state, State::Away | State::Dialing) {
            self.counters.lost += 1;
        }
        self.go_on(now_ns);
    }

    /// Says that the session is of no more use: what was asked is answered, nothing is asked behind it.
    /// `false`: it cannot be said now, and the session ends when it expires.
    pub fn close(&mut self) -> bool {
        let Some(session) = self.session.filter(|_| self.state == State::Ready) else {
            return false;
        };
        Packet::bare(PacketKind::Close, 0, session, 0).encode(&mut self.out, &[]);
        self.session = None;
        true
    }

    /// Looks at what is due; `true` if the connection is to be given up.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        if self.is_late(now_ns) {
            self.pass_over(now_ns);
            self.lost(now_ns);
            return true;
        }
        if self.state == State::Ready && now_ns >= self.not_before_ns {
            self.send_requests(now_ns);
        }
        false
    }

    /// When [`turn`](Self::turn) has something to do at the latest.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        match self.state {
            State::Away => self.not_before_ns,
            State::Dialing | State::Greeting | State::Opening => {
                self.heard_ns + self.options.answer_within_ns
            }
            State::Ready => {
                let late = self
                    .oldest_sent()
                    .map(|sent| sent + self.options.answer_within_ns);
                let waits = (self.sent < self.unanswered.len()).then_some(self.not_before_ns);
                late.into_iter().chain(waits).min().unwrap_or(u64::MAX)
            }
        }
    }

    /// What is to be written; whatever was written is taken off with [`written`](Self::written).
    #[must_use]
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// So many bytes of [`out`](Self::out) were written.
    pub fn written(&mut self, bytes: usize) {
        self.out.drain(..bytes);
    }

    /// Where the next bytes may be read to.
    pub fn room(&mut self) -> &mut [u8] {
        self.packets.room()
    }

    /// So many bytes were read into the room. `false`: the connection is to be given up, and the next
    /// node asked.
    ///
    /// # Errors
    ///
    /// The client cannot go on.
    pub fn filled(&mut self, bytes: usize, now_ns: u64) -> Result<bool, ClientError> {
        self.packets.filled(bytes);
        let mut packets = std::mem::take(&mut self.packets);
        let outcome = self.take_all(&mut packets, now_ns);
        if matches!(outcome, Ok(true)) {
            self.packets = packets;
        }
        outcome
    }

    fn take_all(&mut self, packets: &mut Packets, now_ns: u64) -> Result<bool, ClientError> {
        loop {
            match packets.next() {
                Ok(Some(packet)) => {
                    self.heard_ns = now_ns;
                    if !self.silent.is_empty() {
                        let own = self.address().to_owned();
                        self.silent.retain(|(address, _)| *address != own);
                    }
                    if !self.take(&packet, now_ns)? {
                        return Ok(false);
                    }
                }
                Ok(None) => return Ok(true),
                // A node that is cut off in the middle is not told from one that talks nonsense only by
                // the version: that one does not become better.
                Err(source @ (PacketError::Version { .. } | PacketError::Magic)) => {
                    return Err(ClientError::Packet {
                        address: self.address().to_owned(),
                        source,
                    });
                }
                Err(_) => {
                    self.lost(now_ns);
                    return Ok(false);
                }
            }
        }
    }

    fn take(&mut self, packet: &Packet<'_>, now_ns: u64) -> Result<bool, ClientError> {
        match packet.kind {
            PacketKind::Welcome => Ok(self.welcome(packet, now_ns)),
            PacketKind::Opened => {
                if self.state == State::Opening {
                    self.session = Some(packet.a);
                    self.ready(now_ns);
                }
                Ok(true)
            }
            PacketKind::Reply => {
                self.answered(packet)?;
                Ok(true)
            }
            PacketKind::Busy => {
                self.busy(packet.number, now_ns);
                Ok(true)
            }
            PacketKind::NotLeader => {
                let address = packet.text().unwrap_or("").to_owned();
                self.redirected(&address, now_ns);
                Ok(false)
            }
            PacketKind::Refused => Err(self.refused(packet)),
            // What an operator gets, and what only clients send, is nothing to a session.
            PacketKind::AdminAnswer
            | PacketKind::Hello
            | PacketKind::Open
            | PacketKind::Close
            | PacketKind::Request
            | PacketKind::Admin => Ok(true),
        }
    }

    fn welcome(&mut self, packet: &Packet<'_>, now_ns: u64) -> bool {
        let (node, leader) = (packet.a & 0xffff, packet.a >> 16 & 0xffff);
        if leader != 0 && leader != node {
            let address = packet.text().unwrap_or("").to_owned();
            self.redirected(&address, now_ns);
            return false;
        }
        let allowed = u32::try_from(packet.b).unwrap_or(u32::MAX).max(1);
        self.window = self.options.window.clamp(1, allowed);
        if self.session.is_some() {
            self.ready(now_ns);
            return true;
        }
        self.state = State::Opening;
        Packet::bare(PacketKind::Open, 1, 0, 0).encode(&mut self.out, &[]);
        true
    }

    /// Nothing is in flight, and the session has no number left (`M4`).
    fn begin_session_anew(&mut self, now_ns: u64) {
        let is_ready = self.state == State::Ready;
        // Where nobody can be told, it ends when it expires.
        let _is_said = self.close();
        self.session = None;
        self.first = 1;
        if is_ready {
            self.state = State::Opening;
            self.heard_ns = now_ns;
            Packet::bare(PacketKind::Open, 1, 0, 0).encode(&mut self.out, &[]);
        }
    }

    fn ready(&mut self, now_ns: u64) {
        self.state = State::Ready;
        self.not_before_ns = now_ns;
        self.send_requests(now_ns);
    }

    /// Sends what was not sent on this connection, in order (`M2`).
    fn send_requests(&mut self, now_ns: u64) {
        let session = self.session.unwrap_or(0);
        let most = usize::try_from(self.window).unwrap_or(usize::MAX);
        // Ends: each turn sends one of finitely many.
        while self.sent < self.unanswered.len().min(most) {
            let number = self.first + u32::try_from(self.sent).unwrap_or(u32::MAX);
            let pending = &mut self.unanswered[self.sent];
            self.sent += 1;
            if pending.reply.is_some() {
                continue;
            }
            pending.sent_ns = now_ns;
            pending.times_sent += 1;
            if pending.times_sent > 1 {
                self.counters.repeated += 1;
            }
            let request = Packet {
                body: &pending.slot,
                ..Packet::bare(PacketKind::Request, number, session, 0)
            };
            request.encode(&mut self.out, &[]);
        }
    }

    fn answered(&mut self, packet: &Packet<'_>) -> Result<(), ClientError> {
        let Some(session) = self.session.filter(|session| *session == packet.a) else {
            return Ok(());
        };
        let Some(at) = packet.number.checked_sub(self.first) else {
            return Ok(());
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let Ok((head, outputs)) = ReplyHead::decode(packet.body) else {
            return Ok(());
        };
        if head.code == SESSION_UNKNOWN {
            return Err(ClientError::SessionGone {
                session,
                number: self.first,
            });
        }
        let Some(pending) = self.unanswered.get_mut(at) else {
            return Ok(());
        };
        self.failures = 0;
        pending.reply.get_or_insert_with(|| Reply {
            session,
            number: packet.number,
            position: packet.b,
            code: head.code,
            is_repeated: head.is_repeated,
            is_cut: head.is_cut,
            output_size: head.output_size,
            outputs: outputs.to_vec(),
            asked_ns: pending.asked_ns,
        });
        Ok(())
    }

    /// Nothing was written: this request and all behind it are sent again, a little later (`M2`).
    fn busy(&mut self, number: u32, now_ns: u64) {
        self.counters.busy += 1;
        if self.state == State::Opening {
            // The session is opened anew, by the same way.
            self.go_on(now_ns);
            return;
        }
        let at = number.saturating_sub(self.first);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at < self.sent {
            self.sent = at;
            self.failures = self.failures.saturating_add(1);
            let wait = (self.options.retry_ns / 16) << self.failures.min(6);
            self.not_before_ns = now_ns.saturating_add(wait.min(RETRY_NS_MAX));
        }
    }

    fn redirected(&mut self, address: &str, now_ns: u64) {
        self.counters.redirected += 1;
        let is_known = !address.is_empty();
        let is_new = is_known && address != self.address() && !self.is_silent(address, now_ns);
        self.go_on(now_ns);
        if is_new {
            match self.addresses.iter().position(|known| known == address) {
                Some(known) => {
                    self.current = known;
                    self.redirect = None;
                }
                None => self.redirect = Some(address.to_owned()),
            }
            // A leader that is named is asked at once; two that name each other are not, for ever.
            if self.failures <= 4 {
                self.not_before_ns = now_ns;
            }
        }
    }

    fn refused(&self, packet: &Packet<'_>) -> ClientError {
        let code = u16::try_from(packet.b).unwrap_or(u16::MAX);
        if let Some(session) = self.session
            && code == SESSION_UNKNOWN
        {
            return ClientError::SessionGone {
                session,
                number: self.first,
            };
        }
        ClientError::Refused {
            address: self.address().to_owned(),
            code,
            text: packet.text().unwrap_or("").to_owned(),
        }
    }

    /// Away, and to the next address; after a while, which grows.
    fn go_on(&mut self, now_ns: u64) {
        self.state = State::Away;
        self.sent = 0;
        self.out.clear();
        self.redirect = None;
        self.current = self.next(now_ns);
        self.failures = self.failures.saturating_add(1);
        // The first round over all nodes does not wait: one of them may lead.
        let rounds = self.failures / u32::try_from(self.addresses.len()).unwrap_or(1).max(1);
        let wait = match rounds {
            0 => 0,
            rounds => self.options.retry_ns << (rounds - 1).min(6),
        };
        self.not_before_ns = now_ns.saturating_add(wait.min(RETRY_NS_MAX));
    }

    /// The next node that was not silent just now; where all were, the next (`M3`).
    fn next(&self, now_ns: u64) -> usize {
        let count = self.addresses.len();
        let mut others = (1..=count).map(|step| (self.current + step) % count);
        others
            .find(|at| !self.is_silent(&self.addresses[*at], now_ns))
            .unwrap_or((self.current + 1) % count)
    }

    fn is_silent(&self, address: &str, now_ns: u64) -> bool {
        let mut silent = self.silent.iter();
        silent.any(|(one, until)| one == address && now_ns < *until)
    }

    /// This node says nothing: for a while it is not asked again.
    fn pass_over(&mut self, now_ns: u64) {
        let own = self.address().to_owned();
        let until = now_ns.saturating_add(self.options.answer_within_ns * SILENT_TIMES);
        self.silent
            .retain(|(address, until)| *address != own && now_ns < *until);
        self.silent.push((own, until));
    }

    fn is_late(&self, now_ns: u64) -> bool {
        let since = match self.state {
            State::Away => return false,
            State::Dialing | State::Greeting | State::Opening => Some(self.heard_ns),
            State::Ready => self.oldest_sent(),
        };
        since.is_some_and(|since| now_ns >= since.saturating_add(self.options.answer_within_ns))
    }

    fn oldest_sent(&self) -> Option<u64> {
        self.unanswered
            .iter()
            .take(self.sent)
            .find(|pending| pending.reply.is_none())
            .map(|pending| pending.sent_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> MachineOptions {
        MachineOptions {
            cluster: "paris".parse().unwrap(),
            principal: "a".into(),
            token: String::new(),
            event_size: 8,
            window: 4,
            answer_within_ns: 1_000,
            retry_ns: 16,
        }
    }

    fn machine() -> Machine {
        let addresses = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()];
        Machine::new(options(), &addresses).unwrap()
    }

    /// What the machine wrote, as (kind, number, body).
    fn sent(machine: &mut Machine) -> Vec<(PacketKind, u32, Vec<u8>)> {
        let mut packets = Packets::default();
        packets.push(machine.out());
        let count = machine.out().len();
        machine.written(count);
        let mut all = Vec::new();
        while let Some(packet) = packets.next().unwrap() {
            all.push((packet.kind, packet.number, packet.body.to_vec()));
        }
        all
    }

    fn give(machine: &mut Machine, now: u64, packet: Packet<'_>) -> Result<bool, ClientError> {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes, &[]);
        machine.room()[..bytes.len()].copy_from_slice(&bytes);
        machine.filled(bytes.len(), now)
    }

    fn reply(session: u64, number: u32, position: u64) -> Vec<u8> {
        let head = ReplyHead {
            code: 0,
            is_repeated: false,
            is_cut: false,
            outputs: 0,
            output_size: 0,
        };
        let mut bytes = Vec::new();
        Packet::bare(PacketKind::Reply, number, session, position)
            .encode(&mut bytes, &[&head.encode()]);
        bytes
    }

    fn give_bytes(machine: &mut Machine, now: u64, bytes: &[u8]) -> bool {
        machine.room()[..bytes.len()].copy_from_slice(bytes);
        machine.filled(bytes.len(), now).unwrap()
    }

    fn make_ready(machine: &mut Machine, now: u64) {
        machine.connected(now);
        assert_eq!(sent(machine)[0].0, PacketKind::Hello);
        assert!(give(machine, now, Packet::bare(PacketKind::Welcome, 0, 1, 64)).unwrap());
        if machine.session().is_none() {
            assert_eq!(sent(machine)[0].0, PacketKind::Open);
            assert!(give(machine, now, Packet::bare(PacketKind::Opened, 1, 77, 76)).unwrap());
        }
        assert!(machine.is_ready());
    }

    #[test]
    fn c2_replies_come_in_order_whatever_order_they_come_in() {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        for slot in 1..=4_u8 {
            assert_eq!(machine.ask(&[slot; 8], 1), Ok(u32::from(slot)));
        }
        assert_eq!(machine.ask(&[5; 8], 1), Err(Full { in_flight: 4 }));
        assert!(!machine.turn(1));
        let numbers: Vec<u32> = sent(&mut machine).iter().map(|packet| packet.1).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        for number in [2, 1, 4] {
            assert!(give_bytes(
                &mut machine,
                2,
                &reply(77, number, u64::from(number) + 100)
            ));
        }
        assert_eq!(machine.reply().unwrap().number, 1);
        assert_eq!(machine.reply().unwrap().number, 2);
        assert_eq!(machine.reply(), None);
        // A reply of another session, of a request long answered, or never asked, is nothing.
        for (session, number) in [(78, 3), (77, 1), (77, 900)] {
            assert!(give_bytes(&mut machine, 2, &reply(session, number, 1)));
        }
        assert_eq!(machine.reply(), None);
        assert!(give_bytes(&mut machine, 2, &reply(77, 3, 103)));
        assert_eq!(machine.reply().unwrap().position, 103);
        assert_eq!(machine.reply().unwrap().position, 104);
        assert_eq!(machine.in_flight(), 0);
    }

    #[test]
    fn m4_a_session_whose_numbers_are_used_up_is_followed_by_another() {
        for is_connected in [true, false] {
            let mut machine = machine();
            make_ready(&mut machine, 0);
            machine.first = NUMBER_MAX - 1;
            assert_eq!(machine.ask(&[1; 8], 1), Ok(NUMBER_MAX - 1));
            assert_eq!(machine.ask(&[2; 8], 1), Ok(NUMBER_MAX));
            assert_eq!(machine.ask(&[3; 8], 1), Err(Full { in_flight: 2 }));
            machine.turn(1);
            sent(&mut machine);
            for number in [NUMBER_MAX - 1, NUMBER_MAX] {
                assert!(give_bytes(&mut machine, 2, &reply(77, number, 9)));
                assert_eq!(machine.reply().unwrap().number, number);
            }
            if !is_connected {
                machine.lost(3);
            }
            assert_eq!(machine.ask(&[3; 8], 3), Ok(1));
            assert_eq!(machine.session(), None);
            if is_connected {
                let kinds: Vec<PacketKind> = sent(&mut machine).iter().map(|one| one.0).collect();
                assert_eq!(kinds, [PacketKind::Close, PacketKind::Open]);
                assert!(!machine.turn(3));
                assert!(
                    sent(&mut machine).is_empty(),
                    "not in a session that is not open"
                );
            } else {
                machine.connected(4);
                let welcome = Packet::bare(PacketKind::Welcome, 0, 1, 64);
                assert!(give(&mut machine, 4, welcome).unwrap());
                assert_eq!(sent(&mut machine).last().unwrap().0, PacketKind::Open);
            }
            // What comes late of the old session is nothing to the new one.
            assert!(give_bytes(&mut machine, 5, &reply(77, 1, 9)));
            let opened = Packet::bare(PacketKind::Opened, 1, 99, 98);
            assert!(give(&mut machine, 5, opened).unwrap());
            assert_eq!(sent(&mut machine), [(PacketKind::Request, 1, vec![3; 8])]);
            assert!(give_bytes(&mut machine, 6, &reply(99, 1, 100)));
            let answer = machine.reply().unwrap();
            assert_eq!((answer.session, answer.number), (99, 1));
        }
    }

    #[test]
    fn c1_after_a_lost_connection_the_same_numbers_are_asked_at_the_next_node() {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        for slot in 1..=3_u8 {
            machine.ask(&[slot; 8], 1).unwrap();
        }
        machine.turn(1);
        sent(&mut machine);
        assert!(give_bytes(&mut machine, 2, &reply(77, 2, 9)));
        machine.lost(3);
        assert_eq!(machine.wants_connection(3), Some("b:1"));
        make_ready(&mut machine, 4);
        let again = sent(&mut machine);
        assert_eq!(
            again.iter().map(|packet| packet.1).collect::<Vec<_>>(),
            [1, 3],
            "2 has its answer"
        );
        assert_eq!(again[0].2, [1; 8]);
        assert_eq!(machine.counters().repeated, 2);
        assert_eq!(machine.session(), Some(77));
    }

    #[test]
    fn a_silent_node_is_given_up_and_all_are_tried_before_it_waits() {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        machine.ask(&[1; 8], 5).unwrap();
        assert!(!machine.turn(5));
        assert_eq!(machine.due_ns(), 1_005);
        assert!(!machine.turn(1_004));
        assert!(machine.turn(1_005), "no answer in time");
        assert_eq!(machine.wants_connection(1_005), Some("b:1"));
        machine.lost(1_005);
        assert_eq!(machine.wants_connection(1_005), Some("c:1"));
        machine.lost(1_005);
        assert_eq!(
            machine.wants_connection(1_005),
            None,
            "now it waits a little"
        );
        assert_eq!(
            machine.wants_connection(1_021),
            Some("b:1"),
            "a was silent, b only closed"
        );
    }

    #[test]
    fn m3_a_silent_node_is_passed_over_though_others_name_it() {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        machine.ask(&[1; 8], 0).unwrap();
        assert!(!machine.turn(0));
        assert!(machine.turn(1_000), "a hangs");
        assert_eq!(machine.wants_connection(1_000), Some("b:1"));
        machine.dialing(1_000);
        assert_eq!(machine.wants_connection(1_000), None, "one at a time");
        machine.connected(1_000);
        sent(&mut machine);
        let name = |machine: &mut Machine, now, address: &[u8]| {
            let welcome = Packet {
                body: address,
                ..Packet::bare(PacketKind::Welcome, 0, 2 | 1 << 16, 64)
            };
            assert!(!give(machine, now, welcome).unwrap());
        };
        // b has not noticed yet that a hangs.
        name(&mut machine, 1_001, b"a:1");
        assert_eq!(machine.address(), "c:1");
        let now = machine.due_ns().max(1_001);
        machine.dialing(now);
        assert_eq!(
            machine.due_ns(),
            now + 1_000,
            "nor for ever for a connection"
        );
        assert!(machine.turn(now + 1_000), "c is cut off");
        assert_eq!(machine.address(), "b:1", "the only one that speaks");
        // It speaks again, or enough time has passed: a is asked again.
        let late = now + 1_000 * SILENT_TIMES + 1_000;
        machine.connected(late);
        sent(&mut machine);
        name(&mut machine, late, b"a:1");
        assert_eq!(machine.address(), "a:1");
        // Where all were silent, they are asked in turn.
        for next in ["b:1", "c:1", "a:1", "b:1"] {
            let now = machine.due_ns().max(late);
            machine.dialing(now);
            assert!(machine.turn(now + 1_000));
            assert_eq!(machine.address(), next);
        }
    }

    #[test]
    fn m2_busy_sends_that_one_and_all_behind_it_again() {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        for slot in 1..=4_u8 {
            machine.ask(&[slot; 8], 1).unwrap();
        }
        machine.turn(1);
        sent(&mut machine);
        assert!(give_bytes(&mut machine, 2, &reply(77, 1, 9)));
        for number in [2, 3, 4] {
            let busy = Packet::bare(PacketKind::Busy, number, 77, 0);
            assert!(give(&mut machine, 2, busy).unwrap());
        }
        machine.turn(2);
        assert!(sent(&mut machine).is_empty(), "not at once");
        let due = machine.due_ns();
        assert!(due > 2);
        machine.turn(due);
        let numbers: Vec<u32> = sent(&mut machine).iter().map(|packet| packet.1).collect();
        assert_eq!(numbers, [2, 3, 4]);
    }

    #[test]
    fn who_does_not_lead_names_the_leader_who_is_asked_at_once() {
        let mut machine = machine();
        machine.connected(0);
        sent(&mut machine);
        let welcome = Packet {
            body: b"c:1",
            ..Packet::bare(PacketKind::Welcome, 0, 1 | 3 << 16, 64)
        };
        assert!(!give(&mut machine, 0, welcome).unwrap());
        assert_eq!(machine.wants_connection(0), Some("c:1"));
        make_ready(&mut machine, 0);
        let not_leader = Packet {
            body: b"d:9",
            ..Packet::bare(PacketKind::NotLeader, 1, 77, 4)
        };
        assert!(!give(&mut machine, 1, not_leader).unwrap());
        assert_eq!(
            machine.wants_connection(1),
            Some("d:9"),
            "it was not in the list"
        );
        machine.lost(1);
        let next = machine.address().to_owned();
        assert!(["a:1", "b:1", "c:1"].contains(&next.as_str()));
        // Two that name each other are not asked in a tight loop.
        let mut waited = false;
        for _ in 0..20 {
            let other = if machine.address() == "a:1" {
                "b:1"
            } else {
                "a:1"
            };
            let now = machine.due_ns().max(1);
            waited |= now > 1;
            machine.connected(now);
            let name = Packet {
                body: other.as_bytes(),
                ..Packet::bare(PacketKind::NotLeader, 1, 77, 4)
            };
            assert!(!give(&mut machine, now, name).unwrap());
        }
        assert!(waited);
    }

    #[test]
    fn what_cannot_become_better_is_an_error() {
        let mut machine = machine();
        machine.connected(0);
        let refused = Packet {
            body: b"no",
            ..Packet::bare(PacketKind::Refused, 0, 0, 0xfe02)
        };
        let error = give(&mut machine, 0, refused).unwrap_err();
        assert!(
            matches!(error, ClientError::Refused { code: 0xfe02, .. }),
            "{error}"
        );
        let mut machine = self::machine();
        make_ready(&mut machine, 0);
        machine.ask(&[0; 8], 0).unwrap();
        let head = ReplyHead {
            code: SESSION_UNKNOWN,
            is_repeated: false,
            is_cut: false,
            outputs: 0,
            output_size: 0,
        };
        let gone = Packet {
            body: &head.encode(),
            ..Packet::bare(PacketKind::Reply, 1, 77, 5)
        };
        let error = give(&mut machine, 0, gone).unwrap_err();
        assert!(matches!(
            error,
            ClientError::SessionGone {
                session: 77,
                number: 1
            }
        ));
        assert!(Machine::new(options(), &[]).is_err());
    }

    /// A cluster of one log that answers as the engine does: the number behind the last one is
    /// applied, one that was applied before is answered again.
    #[derive(Default)]
    struct Log {
        last: u32,
        applied: Vec<(u32, Vec<u8>)>,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens between client and node, each request is applied once, in order, and
        /// answered once, in order.
        #[test]
        fn c1_c2_c3_each_request_is_applied_and_answered_once(
            faults in proptest::collection::vec(0_u8..10, 1..400),
        ) {
            let mut machine = machine();
            let mut log = Log::default();
            let mut now = 0;
            let mut asked = 0_u32;
            let mut answers = Vec::new();
            let mut blocked: Option<u32> = None;
            let mut faults = faults.into_iter().chain(std::iter::repeat(9));
            for _ in 0..5_000 {
                if answers.len() == 40 {
                    break;
                }
                if asked < 40 && machine.ask(&asked.to_le_bytes().repeat(2), now).is_ok() {
                    asked += 1;
                }
                now = now.max(machine.due_ns().min(now + 100));
                machine.turn(now);
                if machine.wants_connection(now).is_some() {
                    machine.connected(now);
                    blocked = None;
                }
                for (kind, number, body) in sent(&mut machine) {
                    let fault = faults.next().unwrap();
                    let mut out = Vec::new();
                    match kind {
                        PacketKind::Hello => {
                            Packet::bare(PacketKind::Welcome, 0, 1, 64).encode(&mut out, &[]);
                        }
                        PacketKind::Open => {
                            Packet::bare(PacketKind::Opened, number, 77, 1).encode(&mut out, &[]);
                        }
                        _ if fault == 0 => {
                            // Lost before it was written.
                            machine.lost(now);
                            break;
                        }
                        _ if fault == 1 || blocked.is_some_and(|at| number > at) => {
                            blocked = Some(blocked.map_or(number, |at| at.min(number)));
                            Packet::bare(PacketKind::Busy, number, 77, 0).encode(&mut out, &[]);
                        }
                        _ => {
                            blocked = None;
                            if number == log.last + 1 {
                                log.last = number;
                                log.applied.push((number, body));
                            }
                            prop_assert!(number <= log.last, "a gap: {} after {}", number, log.last);
                            if fault == 2 {
                                // Written, and the answer is lost.
                                machine.lost(now);
                                break;
                            }
                            out = reply(77, number, u64::from(number));
                        }
                    }
                    prop_assert!(give_bytes(&mut machine, now, &out));
                }
                while let Some(reply) = machine.reply() {
                    answers.push(reply.number);
                }
            }
            prop_assert_eq!(answers, (1..=40).collect::<Vec<u32>>());
            for (at, (number, body)) in log.applied.iter().enumerate() {
                prop_assert_eq!(*number as usize, at + 1);
                prop_assert_eq!(body, &u32::try_from(at).unwrap().to_le_bytes().repeat(2));
            }
            prop_assert_eq!(log.applied.len(), 40);
        }
    }
}
