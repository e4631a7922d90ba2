//! Sessions: which connection each answers on, what of it is in flight, and "busy" before anything is written.
//!
//! # Invariants
//!
//! `G2`, `G4`, `G6` and `G10` of the gateway.

use super::accounts::Account;
use super::{Admit, Asked, ClientId, Gateway, Leadership};
use crate::client::codec::{
    BODY_BYTES_MAX, Packet, PacketKind, Packets, REPLY_HEAD_BYTES, ReplyHead,
};
use crate::client::{SESSION_UNKNOWN, code};

/// Where a session answers, and what of it is in flight.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) client: u64,
    pub(super) in_flight: u32,
    /// Of its principal: whoever asked last for it.
    pub(super) account: Account,
    /// The request that was answered "busy" and must come first (`G2`).
    pub(super) blocked_at: Option<u32>,
    /// It goes with the last answer (`G6`).
    pub(super) is_closing: bool,
}

/// What is known of the session that the next packet is of.
pub(super) enum Whose {
    /// It is none, or its client may use it.
    Fine,
    /// The owner will say.
    Asked,
    /// The connection ends.
    Anothers,
}

impl Gateway {
    /// Whether what this connection asks next is of a session that it may use (`G10`).
    pub(super) fn whose(
        &mut self,
        id: u64,
        packets: &Packets,
        ask: &mut impl FnMut(Asked<'_>) -> Admit,
    ) -> Whose {
        let Some((PacketKind::Request | PacketKind::Close, session)) = packets.next_head() else {
            return Whose::Fine;
        };
        let Some(connected) = self.clients.get_mut(&id) else {
            return Whose::Fine;
        };
        if connected.sessions.contains(&session) || self.leadership != Leadership::Here {
            return Whose::Fine;
        }
        // G1, G7: who may ask nothing is told so by the packet.
        let principal = connected.principal.as_ref();
        let Some(principal) = principal.filter(|_| self.last != Some(id)) else {
            return Whose::Fine;
        };
        let client = ClientId(id);
        match ask(Asked::Whose {
            client,
            session,
            principal,
        }) {
            Admit::Taken => {
                connected.may_use(session);
                Whose::Fine
            }
            Admit::Busy => Whose::Asked,
            Admit::Refused(code) => {
                self.refuse(id, 0, session, code, code::meaning(code));
                self.end(id);
                Whose::Anothers
            }
        }
    }

    /// What came of [`Asked::Whose`]: it may use the session, or the connection ends with this code (`G10`).
    pub fn told_whose(&mut self, client: ClientId, session: u64, told: Result<(), u16>) {
        let id = client.0;
        let Some(connected) = self.clients.get_mut(&id) else {
            return;
        };
        match told {
            Ok(()) => {
                connected.may_use(session);
                connected.has_more |= std::mem::take(&mut connected.is_held);
            }
            Err(code) => {
                self.refuse(id, 0, session, code, code::meaning(code));
                self.end(id);
            }
        }
    }

    /// The session that was asked for is open.
    pub fn opened(&mut self, route: u64, session: u64, position: u64) {
        let Some((client, number)) = self.opening.remove(&route) else {
            return;
        };
        let account = self.account_of(client);
        if let Some(connected) = self.clients.get_mut(&client) {
            connected.may_use(session);
        }
        self.sessions.insert(
            session,
            Route {
                client,
                account,
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
        if route.in_flight > 0 {
            // QT1
            route.in_flight -= 1;
            self.accounts.less(route.account, 1);
        }
        let client = route.client;
        let is_over = route.is_closing || head.code == SESSION_UNKNOWN;
        if is_over && route.in_flight == 0 {
            // G6
            self.sessions.remove(&session);
        }
        self.traffic.replied += 1;
        let packet = Packet::bare(PacketKind::Reply, number, session, position);
        let fits = outputs.len() + REPLY_HEAD_BYTES <= BODY_BYTES_MAX;
        let outputs = if fits { outputs } else { &[] };
        let head = ReplyHead {
            outputs: if fits { head.outputs } else { 0 },
            is_cut: head.is_cut || !fits,
            ..head
        };
        self.send(client, &packet, &[&head.encode(), outputs]);
    }

    fn account_of(&self, id: u64) -> Account {
        self.clients.get(&id).and_then(|client| client.account)
    }

    pub(super) fn open_session(
        &mut self,
        id: u64,
        number: u32,
        ask: &mut impl FnMut(Asked<'_>) -> Admit,
    ) {
        if self.leadership != Leadership::Here {
            self.redirect(id, number, 0);
            return;
        }
        let client = self.clients.get(&id);
        let Some(principal) = client.and_then(|client| client.principal.as_ref()) else {
            return;
        };
        let route = self.salt ^ self.next;
        self.next += 1;
        match ask(Asked::Open { route, principal }) {
            Admit::Taken => {
                self.opening.insert(route, (id, number));
            }
            Admit::Busy => self.busy(id, number, 0),
            Admit::Refused(code) => self.refuse(id, number, 0, code, code::meaning(code)),
        }
    }

    pub(super) fn close_session(
        &mut self,
        id: u64,
        session: u64,
        ask: &mut impl FnMut(Asked<'_>) -> Admit,
    ) {
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

    pub(super) fn request(
        &mut self,
        id: u64,
        packet: &Packet<'_>,
        ask: &mut impl FnMut(Asked<'_>) -> Admit,
    ) {
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
        let account = self.account_of(id);
        let route = self.sessions.entry(session).or_default();
        if route.client != id {
            // The client has come back on another connection: what was in flight on the old one is
            // asked again here.
            self.accounts.less(route.account, route.in_flight);
            *route = Route {
                client: id,
                account,
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
        if self.accounts.is_full(account) {
            // G9; G2: what is behind it would leave a hole.
            route.blocked_at = Some(number);
            self.refuse(id, number, session, code::QUOTA, code::meaning(code::QUOTA));
            return;
        }
        let slot = packet.body;
        match ask(Asked::Request {
            session,
            number,
            slot,
        }) {
            Admit::Taken => {
                self.accounts.more(account);
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
}
