//! Clients: exactly once for whoever asks twice, and an answer to everything.
//!
//! A client opens a *session* by a committed event; its number is that event's position plus one.
//! Its requests are numbered from 1, each carries one event, and up to a *window* of them are in
//! flight. The last replies of each session are part of the replicated state: whoever asks again,
//! at whichever node, gets the first answer.
//!
//! ```text
//!   client                         node
//!     hello      ───────────────►         who, which cluster
//!                ◄───────────────  welcome      this node, the leader's address
//!     open       ───────────────►  an event; committed
//!                ◄───────────────  opened       session
//!     request 1  ───────────────►
//!     request 2  ───────────────►
//!                ◄───────────────  reply 1      position, code, outputs
//!                ◄───────────────  busy 2       nothing was written: ask again
//!                ◄───────────────  not leader   the address of who is
//! ```
//!
//! [`codec`] is the bytes, [`Machine`] what a client goes by, without sockets; [`Client`] is the
//! library, [`Gateway`] the node's side. Every byte is in `docs/FORMATS.md`.
//!
//! # Invariants
//!
//! * `C1` A request keeps its number until it is answered, over any number of connections.
//! * `C2` Requests of a session are sent in the order of their numbers, and replies given in it.
//! * `C3` Every request is answered, or its connection ends.

pub mod codec;
mod error;
mod gateway;
mod library;
mod machine;

pub use error::{ClientError, Full};
pub use gateway::{
    Admit, Asked, ClientId, Gateway, GatewaySettings, GatewayTraffic, Identity, Leadership,
    Principal,
};
pub use library::{Client, ClientOptions, admin};
pub use machine::{Machine, MachineOptions, Reply};

/// The session is not known: it was closed, or has expired. The engine's number for it.
const SESSION_UNKNOWN: u16 = 0xff01;

/// Why a node refuses a client, beside the codes of the engine (from `0xff00` on) and of the logic.
/// The numbers are for ever.
pub mod code {
    /// It means another cluster.
    pub const CLUSTER: u16 = 0xfe01;
    /// Its name, token or certificate is not believed.
    pub const PRINCIPAL: u16 = 0xfe02;
    /// Its events have another size.
    pub const EVENT_SIZE: u16 = 0xfe03;
    /// It did not greet first.
    pub const NO_HELLO: u16 = 0xfe04;
    /// It may not do what an operator may.
    pub const NOT_ADMIN: u16 = 0xfe05;
    /// As many clients are connected as may be.
    pub const TOO_MANY: u16 = 0xfe06;
    /// The packet makes no sense here.
    pub const MALFORMED: u16 = 0xfe07;
    /// The node has no socket more than this one, which is left to operators.
    pub const NO_SOCKET: u16 = 0xfe08;
    /// As many requests of its name are in flight as may be.
    pub const QUOTA: u16 = 0xfe09;
    /// The session was opened by a client of another name.
    pub const SESSION: u16 = 0xfe0a;

    /// What a code means, and what to do.
    #[must_use]
    pub const fn meaning(code: u16) -> &'static str {
        match code {
            CLUSTER => "another cluster: check the name of the cluster and the addresses",
            PRINCIPAL => {
                "name, token or certificate are not believed: check `[clients]` of the node's file"
            }
            EVENT_SIZE => "events of another size: use the program of this application",
            NO_HELLO => "the first packet must be a hello",
            NOT_ADMIN => "only an operator may do that: check `clients.admins` of the node's file",
            TOO_MANY => "as many clients are connected as may be: raise `clients.connections_max`",
            QUOTA => {
                "as many requests of this client are in flight as may be: wait for answers, or raise `clients.requests_per_principal`"
            }
            SESSION => "the session is of a client of another name: open one, and use no other",
            MALFORMED => "the packet makes no sense here",
            NO_SOCKET => {
                "the node has no sockets left but one for operators: raise its limit of open files (`ulimit -n`)"
            }
            _ => "refused",
        }
    }
}
