//! How connections end: refused by name, cut off for damage, replaced, or lost (`T3`, `T4`).

use std::io;

use super::link::{Broken, Link, Stage};
use super::{Incoming, Transport, nanos};
use crate::ids::NodeId;
use crate::wire::{Connection, Head, Kind, Message, RefuseCode};

/// What becomes of a link after a message.
pub(super) enum Verdict {
    Stays,
    Refuse(RefuseCode, u64),
    Ends(String),
}

impl Transport {
    /// The other side will not talk with us: the same line here as there.
    pub(super) fn refused(&mut self, link: &Link, head: &Head) -> Verdict {
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

    pub(super) fn refuse_link(&mut self, id: u64, code: RefuseCode, right: u64) {
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

    pub(super) fn broken(&mut self, id: u64, error: &Broken) {
        let is_unknown = self.links.get(&id).is_some_and(|link| link.peer.is_none());
        let is_damage = matches!(error, Broken::Wire(_));
        let is_tls =
            matches!(error, Broken::Io(error) if error.kind() == io::ErrorKind::InvalidData);
        if is_damage || is_tls {
            let link = self.links.get(&id);
            let node = link.and_then(|link| link.peer);
            let from = link.and_then(|link| link.stream.socket().peer_addr().ok());
            let whom = match (node, from) {
                (Some((node, connection)), _) => format!("node {node} ({connection})"),
                (None, Some(from)) => format!("a peer from {}", from.ip()),
                (None, None) => "a peer".to_owned(),
            };
            let line = format!("{whom} is cut off: {error}");
            self.told_refused(node.map(|(node, _)| node), None, line);
        }
        if is_unknown {
            self.links.remove(&id);
            return;
        }
        self.lose(id, &error.to_string());
    }

    /// A newer socket takes the place of an older one (`T3`).
    pub(super) fn replace(&mut self, node: NodeId, connection: Connection, by: u64) {
        let older = self.line(node, connection).and_then(|line| line.link);
        if let Some(older) = older
            && older != by
        {
            self.lose(older, "the peer has connected anew");
        }
    }

    /// Ends a link at once.
    pub(super) fn lose(&mut self, id: u64, why: &str) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        link.stream.finish();
        if let Some((node, connection)) = link.peer {
            self.unlink(id, node, connection, link.stage == Stage::Up, why);
        }
    }

    /// The line has no socket any more; if it was in use, that is told (`T4`).
    pub(super) fn unlink(
        &mut self,
        id: u64,
        node: NodeId,
        connection: Connection,
        was_up: bool,
        why: &str,
    ) {
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

    pub(super) fn told_refused(
        &mut self,
        node: Option<NodeId>,
        code: Option<RefuseCode>,
        line: String,
    ) {
        self.told.push(Incoming::Refused { node, code, line });
    }
}
