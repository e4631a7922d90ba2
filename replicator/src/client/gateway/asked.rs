//! What the gateway asks of its owner, and what it is told.

use std::fmt;
use std::net::IpAddr;

use crate::ids::NodeId;

/// A connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What a client asks of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Open a session: answered with [`Gateway::opened`](super::Gateway::opened), by this number.
    Open {
        /// Stands in the event as its tag, and comes back in the output.
        route: u64,
        /// Who asks.
        principal: &'a Principal,
    },
    /// Close one; nothing is answered.
    Close {
        /// Which.
        session: u64,
    },
    /// May this client use this session: asked in front of its first request, or its end, on a connection that did
    /// not open it. Taken: it may. Refused: the connection ends with that. Busy: it waits, unread, until
    /// [`Gateway::told_whose`](super::Gateway::told_whose).
    Whose {
        /// Who.
        client: ClientId,
        /// Which.
        session: u64,
        /// Who that is.
        principal: &'a Principal,
    },
    /// Write an event: answered with [`Gateway::reply`](super::Gateway::reply).
    Request {
        /// Of which session.
        session: u64,
        /// Of the request.
        number: u32,
        /// The event, as the client made it: session, number and time are to be set.
        slot: &'a [u8],
    },
    /// What an operator wants: answered with [`Gateway::admin_answer`](super::Gateway::admin_answer).
    Admin {
        /// Who.
        client: ClientId,
        /// To be given back.
        number: u32,
        /// Only say what would happen.
        is_dry: bool,
        /// In words.
        command: &'a str,
        /// Who asks, for the audit.
        principal: &'a Principal,
    },
}

/// Who a client is, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As it says.
    pub name: String,
    /// Why that is believed.
    pub identity: Identity,
    /// Where it comes from.
    pub address: IpAddr,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.identity {
            Identity::Certificate => "by certificate",
            Identity::Token => "by token",
            Identity::Nobody => "unauthenticated",
        };
        write!(f, "{} ({why}, from {})", self.name, self.address)
    }
}

/// How a node knows who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Its certificate has that name.
    Certificate,
    /// It has the token of that name.
    Token,
    /// It does not know: whoever comes is let in.
    Nobody,
}

/// What the owner says to what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// It is taken, and is answered later.
    Taken,
    /// There is no room: nothing was written.
    Busy,
    /// It makes no sense, by this code.
    Refused(u16),
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This node, and its door is open.
    Here,
    /// This node in a moment, or not: whoever asks waits for it (`G8`).
    Soon,
    /// Another, or nobody yet.
    Elsewhere {
        /// Who, if it is known.
        leader: Option<NodeId>,
        /// Where its clients' port is; empty if it is not known.
        address: String,
    },
}
