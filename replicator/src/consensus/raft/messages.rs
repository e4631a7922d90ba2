//! Messages between peers, as the crate has them and as the wire has them.

use lockstep_journaler::FrameHeader;
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Message, MessageType};

use super::Consensus;
use super::store::entry_of;
use crate::consensus::{Outgoing, StepError};
use crate::ids::NodeId;
use crate::wire::{Head, Kind};

impl Consensus {
    pub(super) fn message(&self, kind: MessageType, head: &Head) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.to = self.node.number();
        message.from = head.from.number();
        message.term = head.term;
        message.index = head.index;
        message.log_term = head.log_term;
        message.commit = head.commit;
        message
    }

    pub(super) fn incoming<'a>(
        &self,
        head: &Head,
        frames: impl Iterator<Item = &'a FrameHeader>,
    ) -> Result<Message, StepError> {
        let vote = |kind, is_refused| {
            let mut message = self.message(kind, head);
            message.reject = is_refused;
            message.commit_term = head.a;
            message.priority = head.b.cast_signed();
            message
        };
        let message = match head.kind {
            Kind::Append => {
                let mut message = self.message(MessageType::MsgAppend, head);
                message.set_entries(frames.map(entry_of).collect::<Vec<_>>().into());
                message
            }
            Kind::Accepted => self.message(MessageType::MsgAppendResponse, head),
            Kind::Rejected => {
                let mut message = self.message(MessageType::MsgAppendResponse, head);
                message.reject = true;
                (message.reject_hint, message.request_snapshot) = (head.a, head.b);
                message
            }
            Kind::Vote => vote(MessageType::MsgRequestVote, false),
            Kind::VoteInTransfer => {
                let mut message = vote(MessageType::MsgRequestVote, false);
                message.context = CAMPAIGN_TRANSFER.to_vec().into();
                message
            }
            Kind::VoteGranted => vote(MessageType::MsgRequestVoteResponse, false),
            Kind::VoteRefused => vote(MessageType::MsgRequestVoteResponse, true),
            Kind::PreVote => vote(MessageType::MsgRequestPreVote, false),
            Kind::PreVoteGranted => vote(MessageType::MsgRequestPreVoteResponse, false),
            Kind::PreVoteRefused => vote(MessageType::MsgRequestPreVoteResponse, true),
            Kind::Heartbeat => with_token(self.message(MessageType::MsgHeartbeat, head), head),
            Kind::HeartbeatAnswer => {
                with_token(self.message(MessageType::MsgHeartbeatResponse, head), head)
            }
            Kind::TimeoutNow => self.message(MessageType::MsgTimeoutNow, head),
            Kind::Snapshot
            | Kind::Beacon
            | Kind::Panic
            | Kind::Hello
            | Kind::Refuse
            | Kind::Fetch
            | Kind::Piece => {
                return Err(StepError::Kind {
                    kind: head.kind.name(),
                });
            }
        };
        Ok(message)
    }

    pub(super) fn outgoing(&self, message: &Message) -> Option<Outgoing> {
        let is_refused = message.reject;
        let kind = match (message.get_msg_type(), is_refused) {
            (MessageType::MsgAppend, _) => Kind::Append,
            (MessageType::MsgAppendResponse, false) => Kind::Accepted,
            (MessageType::MsgAppendResponse, true) => Kind::Rejected,
            (MessageType::MsgRequestVote, _) if message.context == CAMPAIGN_TRANSFER => {
                Kind::VoteInTransfer
            }
            (MessageType::MsgRequestVote, _) => Kind::Vote,
            (MessageType::MsgRequestVoteResponse, false) => Kind::VoteGranted,
            (MessageType::MsgRequestVoteResponse, true) => Kind::VoteRefused,
            (MessageType::MsgRequestPreVote, _) => Kind::PreVote,
            (MessageType::MsgRequestPreVoteResponse, false) => Kind::PreVoteGranted,
            (MessageType::MsgRequestPreVoteResponse, true) => Kind::PreVoteRefused,
            (MessageType::MsgHeartbeat, _) => Kind::Heartbeat,
            (MessageType::MsgHeartbeatResponse, _) => Kind::HeartbeatAnswer,
            (MessageType::MsgSnapshot, _) => Kind::Snapshot,
            (MessageType::MsgTimeoutNow, _) => Kind::TimeoutNow,
            // What a follower would forward, and what is never sent.
            (
                MessageType::MsgPropose
                | MessageType::MsgReadIndex
                | MessageType::MsgReadIndexResp
                | MessageType::MsgTransferLeader
                | MessageType::MsgHup
                | MessageType::MsgBeat
                | MessageType::MsgUnreachable
                | MessageType::MsgSnapStatus
                | MessageType::MsgCheckQuorum,
                _,
            ) => return None,
        };
        let (a, b) = match kind {
            Kind::Rejected => (message.reject_hint, message.request_snapshot),
            Kind::Heartbeat | Kind::HeartbeatAnswer => token_of(&message.context),
            Kind::Append | Kind::Snapshot | Kind::Accepted => (0, 0),
            _ => (message.commit_term, message.priority.cast_unsigned()),
        };
        let meta = message.get_snapshot().get_metadata();
        let (index, log_term) = if kind == Kind::Snapshot {
            (meta.index, meta.term)
        } else {
            (message.index, message.log_term)
        };
        Some(Outgoing {
            to: NodeId::of(message.to)?,
            head: Head {
                term: message.term,
                index,
                log_term,
                commit: message.commit,
                a,
                b,
                ..Head::new(kind, self.node)
            },
            frames: message.entries.len() as u64,
        })
    }
}

fn with_token(mut message: Message, head: &Head) -> Message {
    if (head.a, head.b) != (0, 0) {
        let mut context = head.a.to_le_bytes().to_vec();
        context.extend_from_slice(&head.b.to_le_bytes());
        message.context = context.into();
    }
    message
}

fn token_of(context: &[u8]) -> (u64, u64) {
    let word = |at: usize| {
        let bytes = context
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (word(0), word(8))
}
