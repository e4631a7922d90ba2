//! Whose a session is that was opened over another connection, or under another leader: the state knows.
//!
//! A client that comes back asks within its session. Who has opened it stands in the state, with the logic, maybe on
//! another thread: so the logic is asked between two events, and the client waits meanwhile. Nothing of it is in
//! the log: what is not let in is not written.
//!
//! # Invariants
//!
//! * `OW1` A session that was opened in somebody's proved name is used by that name alone. One without a name is used
//!   by whoever knows its number, as ever.
//! * `OW2` A number that the log has not come to is no session: who asks for it cannot have it when it is one.

use std::sync::mpsc::{Receiver, TryRecvError};

use lockstep_journaler::Position;
use lockstep_journaler::storage::Storage;
use lockstep_replicator::client::{
    Admit, ClientId, Gateway, Identity, Principal as Client, code as clients,
};

use super::node::ClusterNode;
use crate::logic::Logic;
use crate::principal::Principal;
use crate::system::code;

/// See the module: who waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    asked: Vec<Asking>,
}

#[derive(Debug)]
struct Asking {
    client: ClientId,
    session: u64,
    /// Who the client is.
    principal: Principal,
    /// Whose the session is; none's, if it is not open.
    owner: Receiver<Option<Principal>>,
}

/// The name of a client, as far as it was proved (`PR1`).
pub(crate) fn proved(client: &Client) -> Principal {
    match client.identity {
        Identity::Nobody => Principal::NOBODY,
        Identity::Certificate | Identity::Token => Principal::of(&client.name),
    }
}

impl Owners {
    /// Asks whose it is, for a client that would use it.
    pub(crate) fn ask<L: Logic, S: Storage>(
        &mut self,
        node: &ClusterNode<L, S>,
        client: ClientId,
        session: u64,
        principal: &Client,
    ) -> Admit {
        // OW2: a session's number is behind the position of the event that opened it, which was committed.
        let end = node.replica().tail().reached.position;
        if session == 0 || session > end.0 {
            return Admit::Refused(code::SESSION_UNKNOWN);
        }
        let look = node.look(Position(session), move |core| {
            let session = core.requests().session(session)?;
            Some(session.principal)
        });
        if let Ok(owner) = look {
            self.asked.push(Asking {
                client,
                session,
                principal: proved(principal),
                owner,
            });
        }
        Admit::Busy
    }

    /// Tells the gateway what is known now.
    pub(crate) fn tell(&mut self, gateway: &mut Gateway) {
        self.asked.retain(|one| {
            let owner = match one.owner.try_recv() {
                Ok(owner) => owner,
                Err(TryRecvError::Empty) => return true,
                // The node has ended, or is opened again, and leads no more: its clients go elsewhere.
                Err(TryRecvError::Disconnected) => return false,
            };
            // What is not open the log refuses.
            let owner = owner.unwrap_or_default();
            let may = owner.is_nobody() || owner == one.principal;
            let told = if may { Ok(()) } else { Err(clients::SESSION) };
            if !may {
                tracing::warn!(session = one.session, client = ?one.principal, ?owner, "a session is another's");
            }
            gateway.told_whose(one.client, one.session, told);
            false
        });
    }

    /// Nobody waits any more.
    pub(crate) fn forget(&mut self) {
        self.asked.clear();
    }

    /// Whether somebody waits.
    pub(crate) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }
}
