//! The hellos of both sides: who may talk with whom (`T2`).

use super::dialing::RETRY_NS;
use super::ending::Verdict;
use super::link::{Link, Stage};
use super::{Incoming, Line, Security, Transport};
use crate::ids::NodeId;
use crate::tls::{is_named, node_name};
use crate::wire::{Body, Connection, Head, Hello, Message, RefuseCode};

impl Transport {
    /// The other side's first message (`T2`).
    pub(super) fn greeted(
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
                hurried: 0,
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

    /// Two that dial each other at the same time would each end the other's socket: the higher number's
    /// stays, if it is connected.
    pub(super) fn is_greeted_already(&self, node: NodeId, connection: Connection) -> bool {
        let own = self.line(node, connection).and_then(|line| line.link);
        let own = own.and_then(|own| self.links.get(&own));
        node < self.settings.node
            && own.is_some_and(|own| own.is_dialed && own.stage == Stage::Greeting)
    }

    /// Whether we talk with who says this of itself.
    pub(super) fn check(
        &self,
        link: &Link,
        head: &Head,
        hello: &Hello,
    ) -> Result<(), (RefuseCode, u64)> {
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
        // Who says nothing of them has other members by now, or is a build from before they were said.
        if head.a != self.status.a && head.a != 0 && self.status.a != 0 {
            return Err((RefuseCode::Founders, self.status.a));
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

    pub(super) fn hello(&self, to: NodeId, connection: Connection) -> Message {
        Message::hello(
            self.status,
            Hello {
                to,
                connection,
                ..self.settings.hello
            },
        )
    }
}
