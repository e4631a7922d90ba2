//! How connections begin: dialed by the higher number, accepted by the lower, in time or not at all. Who
//! starts dials all, once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::link::{Link, Stage};
use super::{Accepted, Security, Stream, Transport, connect, nanos, tune};
use crate::ids::NodeId;
use crate::tls::node_name;
use crate::wire::Connection;

/// The first attempt to dial again comes after so long, and each further one after twice as long.
pub(super) const RETRY_NS: u64 = 20_000_000;

/// And no later than after so long.
pub(super) const RETRY_NS_MAX: u64 = 500_000_000;

/// An attempt is given up so soon where the peer is heard meanwhile, and each further one behind twice as long:
/// some peers are far.
const HURRY_NS: u64 = 100_000_000;

/// Sockets that have not greeted: more are closed at once.
const STRANGERS_MAX: usize = 64;

impl Transport {
    /// How long until something is due.
    pub(super) fn until_next(&self, now_ns: u64) -> Duration {
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

    pub(super) fn dial_due(&mut self, now_ns: u64) {
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

    pub(super) fn dial(&mut self, node: NodeId, connection: Connection, now_ns: u64) {
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
        link.begun_ns = now_ns;
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

    pub(super) fn dial_stream(&self, address: SocketAddr, node: NodeId) -> io::Result<Stream> {
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

    /// This peer is heard: what it was dialed for may have been lost in a network that is whole again, and the
    /// system would ask anew behind a second (`T5`).
    pub(super) fn hurry(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        for line in &mut peer.lines {
            let link = line.link.and_then(|link| self.links.get_mut(&link));
            let Some(link) = link.filter(|link| link.is_dialed && link.stage != Stage::Up) else {
                continue;
            };
            let by_ns = link
                .begun_ns
                .saturating_add(HURRY_NS << line.hurried.min(4));
            if by_ns < link.deadline_ns {
                link.deadline_ns = by_ns;
                line.hurried = line.hurried.saturating_add(1);
            }
        }
    }

    /// Says when the line is dialed next if it fails now: sooner for a first failure, and never for
    /// all at once.
    pub(super) fn retry_later(&mut self, node: NodeId, connection: Connection, now_ns: u64) {
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

    pub(super) fn accept(&mut self, now_ns: u64) {
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

    pub(super) fn end_late(&mut self, now_ns: u64) {
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
}
