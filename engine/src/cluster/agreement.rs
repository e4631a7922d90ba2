//! What the ring needs of the agreement between nodes: the log as it stands, and a place to offer frames.

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Position, Reader, Tail};
use lockstep_replicator::consensus::Role;
use lockstep_replicator::replica::Mutation;
use lockstep_replicator::{NodeId, OfferError, Replica};

use crate::error::Error;
use crate::system::Beacon;

/// Where this node and its log stand at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The term in which this node leads, if it does. A ring ends when it changes.
    pub(crate) leading: Option<u64>,
    /// Who leads, as far as is known here.
    pub(crate) leader: Option<NodeId>,
    /// Everything before it is committed by the quorum, and in our log.
    pub(crate) committed: Position,
    /// Everything before it is durable here.
    pub(crate) durable: Position,
    /// How often the end of the log was cut back.
    pub(crate) cuts: u64,
}

/// A frame cannot be taken at the moment; its events stay where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotNow;

/// The log of a cluster, as one of its nodes has it.
pub(crate) trait Agreement {
    type Storage: Storage;

    fn stand(&self) -> Stand;

    /// Where the log ends, whatever of it is durable or committed.
    fn tail(&self) -> Tail;

    /// Reads what is durable here.
    fn reader(&self, from: From) -> Result<Reader<Self::Storage>, Error>;

    /// Offers the events of one frame to the others; the position that the first one got.
    fn offer(&mut self, body: [&[u8]; 2], time_ns: u64) -> Result<Position, NotNow>;

    /// The newest beacon that a majority of the voters agrees on, and this node with it.
    fn agreed_state(&self) -> Option<Beacon>;

    /// The event in front of which the logic of a majority of the voters stands, and this node's with it.
    fn agreed_panic(&self) -> Option<Position>;

    /// As [`offer`](Self::offer) for a change of members, one event.
    fn offer_change(&mut self, event: &[u8], time_ns: u64) -> Result<Position, NotNow>;

    /// A fault that is planted: a deposed leader keeps the state that its logic made ahead of the promises.
    fn keeps_what_did_not_commit(&self) -> bool {
        false
    }
}

impl<S: Storage> Agreement for Replica<S> {
    type Storage = S;

    fn stand(&self) -> Stand {
        let view = self.view();
        Stand {
            leading: (view.role == Role::Leader).then_some(view.term),
            leader: view.leader,
            committed: self.committed(),
            durable: self.durable(),
            cuts: self.cuts(),
        }
    }

    fn tail(&self) -> Tail {
        *Replica::tail(self)
    }

    fn reader(&self, from: From) -> Result<Reader<S>, Error> {
        Ok(Replica::reader(self, from)?)
    }

    fn offer(&mut self, body: [&[u8]; 2], time_ns: u64) -> Result<Position, NotNow> {
        // What is fatal the next turn says as well.
        Replica::offer(self, body, time_ns).map_err(|_| NotNow)
    }

    fn agreed_state(&self) -> Option<Beacon> {
        let agreed = Replica::agreed_state(self)?;
        Some(Beacon {
            position: agreed.position,
            hash: agreed.hash,
        })
    }

    fn agreed_panic(&self) -> Option<Position> {
        Replica::agreed_panic(self)
    }

    fn keeps_what_did_not_commit(&self) -> bool {
        self.options().mutation == Some(Mutation::KeepsAStateThatDidNotCommit)
    }

    fn offer_change(&mut self, event: &[u8], time_ns: u64) -> Result<Position, NotNow> {
        match Replica::offer_change(self, event, time_ns) {
            Ok(position) => Ok(position),
            Err(OfferError::NotNow(_) | OfferError::Fatal(_)) => Err(NotNow),
            Err(error) => {
                // It has its place in the ring and so in the log; there it changes nothing.
                tracing::warn!(%error, "a change of members is refused");
                Agreement::offer(self, [event, &[]], time_ns)
            }
        }
    }
}
