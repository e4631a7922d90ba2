//! Messages on their way, and the connections that carry them.

use lockstep_journaler::frame::{FrameHeader, HEADER_BYTES};
use lockstep_journaler::{FrameDraft, Position, Term};

use super::super::model::EVENT_BYTES;
use super::super::network::{Fate, Network};
use super::super::node::Node;
use super::{Cluster, Happening, MS, Outcome};
use crate::consensus::StepError;
use crate::ids::{Epoch, NodeId};
use crate::policy::Policy;
use crate::replica::{Mutation, ReceiveError};
use crate::wire::{Body, Decoder, HEAD_BYTES, Head, Kind, Limits, Message, SharedFrame};

impl<N: Node> Cluster<N> {
    pub(super) fn send_all(&mut self, from: NodeId, out: Vec<(NodeId, Message)>) {
        for (to, message) in out {
            let message = self.perhaps_changed(message);
            let kind = message.head.kind;
            let fate =
                self.network
                    .send((from, to), kind, self.now_ns, &self.plan, &mut self.random);
            self.trace(|| format!("{from} -> {to}  {:?} {fate:?}", message.head));
            match fate {
                Fate::Lost => self.tally.dropped += 1,
                Fate::Breaks => self.reset(from, to),
                Fate::Arrives(times, life) => {
                    self.tally.doubled += u64::from(times.len() > 1);
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    for at_ns in times {
                        let bytes = self.perhaps_flipped(bytes.clone());
                        self.at(
                            at_ns,
                            Happening::Deliver {
                                from,
                                to,
                                life,
                                bytes,
                            },
                        );
                    }
                }
            }
        }
    }

    /// A piece of a snapshot may be read wrongly, and be sent with a CRC that holds.
    fn perhaps_changed(&mut self, message: Message) -> Message {
        let Body::Bytes(bytes) = &message.body else {
            return message;
        };
        if self.is_healed || !self.random.chance(100) {
            return message;
        }
        self.tally.changed_pieces += 1;
        let mut bytes = (**bytes).clone();
        let at = usize::try_from(self.random.below(bytes.len() as u64)).unwrap_or(0);
        bytes[at] ^= 1 << self.random.below(8);
        Message::piece(message.head, message.head.a, bytes)
    }

    fn perhaps_flipped(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if !self.is_healed && self.random.below(100_000) < self.plan.flipped {
            let at = usize::try_from(self.random.below(bytes.len() as u64)).unwrap_or(0);
            bytes[at] ^= 1 << self.random.below(8);
            self.tally.flipped += 1;
        }
        bytes
    }

    pub(super) fn reset(&mut self, a: NodeId, b: NodeId) {
        if self.network.reset(Network::pair(a, b)) {
            self.tally.resets += 1;
            self.trace(|| format!("the log connection of {a} and {b} is lost"));
        }
        let delay = self.random.between(1, 30) * MS;
        self.after(delay, Happening::Connect(a, b));
    }

    pub(super) fn reconnect_all(&mut self) {
        let alive = self.alive();
        for &a in &alive {
            for &b in &alive {
                if a < b && !self.network.is_up((a, b)) {
                    let delay = self.random.between(1, 20) * MS;
                    self.after(delay, Happening::Connect(a, b));
                }
            }
        }
    }

    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) -> Outcome {
        let pair = Network::pair(a, b);
        let runs = |id| {
            let process = self.processes.get(id);
            process.is_some_and(|process| process.node.is_some())
        };
        // As they greet each other.
        let epoch = |id: &NodeId| self.processes.get(id).map(|one| one.setup.replica.epoch);
        if epoch(&a) != epoch(&b) {
            return Ok(());
        }
        if !runs(&a) || !runs(&b) || self.network.is_up(pair) || !self.network.can_connect(pair) {
            return Ok(());
        }
        self.network.connect(pair);
        for (one, other) in [(a, b), (b, a)] {
            let hello = self.replica(other).map(|replica| replica.hello());
            let (Some(hello), Some(process)) = (hello, self.processes.get_mut(&one)) else {
                continue;
            };
            if let Some(node) = &mut process.node {
                node.replica_mut().reconnected(other);
                let judged = node.replica_mut().judge(&hello);
                if let Err(error) = judged {
                    return Err(self.failure(format!("node {one} refuses {other}: {error}")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        life: u64,
        bytes: Vec<u8>,
    ) -> Outcome {
        if !self.network.arrives(from, to, life) {
            self.tally.dropped += 1;
            return Ok(());
        }
        let again = Happening::Deliver {
            from,
            to,
            life,
            bytes: bytes.clone(),
        };
        if !self.is_running(to, 0, again) {
            return Ok(());
        }
        let mut decoder = Decoder::new(Limits {
            event_size: EVENT_BYTES,
            frame_bytes_max: 4096,
            message_bytes_max: 1 << 16,
        });
        decoder.push(&bytes);
        let message = match decoder.next() {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => match self.believed(&bytes) {
                Some(message) => message,
                // Not what was sent: whoever decodes closes the connection.
                None => {
                    if life != 0 {
                        self.reset(from, to);
                    }
                    return Ok(());
                }
            },
        };
        self.tally.delivered += 1;
        self.stage_a_torn_cut(to, &message);
        let Some(process) = self.processes.get_mut(&to) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        match node.receive(&message) {
            Ok(()) => {}
            Err(ReceiveError::Fatal(fatal)) => return self.stopped(to, &fatal.to_string()),
            Err(ReceiveError::Step(StepError::Stale { .. } | StepError::Kind { .. })) => {}
            Err(ReceiveError::Step(StepError::Lost { .. }))
                if self.plan.policy != Policy::Disks => {}
            Err(ReceiveError::Barred) => {}
            Err(ReceiveError::Epoch { .. }) if self.epoch > Epoch(0) => {
                self.tally.of_another_epoch += 1;
            }
            Err(error) => {
                return Err(self.failure(format!("node {to} refuses a message: {error}")));
            }
        }
        self.look(to)?;
        self.begin(to)
    }

    /// What a node without CRC and chain would have taken.
    fn believed(&self, bytes: &[u8]) -> Option<Message> {
        if self.plan.mutation != Some(Mutation::NoChain) {
            return None;
        }
        let head = Head::decode(bytes.get(..HEAD_BYTES)?.try_into().ok()?).ok()?;
        if head.kind != Kind::Append {
            return None;
        }
        let mut frames = Vec::new();
        let mut rest = &bytes[HEAD_BYTES..];
        // Ends: each turn takes a header away.
        while !rest.is_empty() {
            let header: FrameHeader = bytemuck::pod_read_unaligned(rest.get(..HEADER_BYTES)?);
            let length = usize::try_from(header.body_bytes(64)).ok()?;
            let body = [rest.get(HEADER_BYTES..HEADER_BYTES + length)?, &[][..]];
            let draft = FrameDraft {
                time_ns: header.time_ns,
                term: Term(header.term),
                index: header.index,
                commit: Position(header.commit),
                schema_version: header.schema_version,
                kind: header.kind,
                flags: header.flags,
            };
            let at = Position(header.first_position);
            let sealed = FrameHeader::seal(&draft, at, header.count, body, header.chain);
            frames.push(SharedFrame::new(sealed, body));
            rest = &rest[HEADER_BYTES + length..];
        }
        Some(Message::append(head, frames))
    }
}
