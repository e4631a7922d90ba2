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
//! * `M4` No number is used twice in a session: one whose numbers are used up is closed when all of
//!   them are answered, and another one begins with 1.

use std::collections::VecDeque;

use nodes::RETRY_NS_MAX;

use super::SESSION_UNKNOWN;
use super::codec::{GREETING_BYTES, Greeting, Packet, PacketError, PacketKind, Packets, ReplyHead};
use super::error::{ClientError, Full};
use crate::ids::ClusterId;

mod nodes;

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

/// The last number of a session; the one behind it can still be counted.
const NUMBER_MAX: u32 = u32::MAX - 1;

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
    /// Since when it has not worked (`M5`).
    unserved_since_ns: Option<u64>,
    /// Since when it is ready.
    ready_ns: u64,
    heard_ns: u64,
    /// Nodes that were asked a moment ago, and when (`M5`).
    asked: Vec<(String, u64)>,
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
            unserved_since_ns: None,
            ready_ns: 0,
            heard_ns: 0,
            asked: Vec::new(),
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

    /// A connection to [`address`](Self::address) is being made.
    pub fn dialing(&mut self, now_ns: u64) {
        self.state = State::Dialing;
        self.heard_ns = now_ns;
        self.remember_asked(now_ns);
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
        self.ready_ns = now_ns;
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
        self.unserved_since_ns = None;
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
mod tests;
