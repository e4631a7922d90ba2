//! Why a client waits, and why it cannot go on.

use thiserror::Error;

use super::codec::PacketError;

/// As many requests are in flight as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{in_flight} requests are in flight, which is the window: take an answer first")]
pub struct Full {
    /// How many.
    pub in_flight: u32,
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is nowhere to ask.
    #[error("no address of a node was given")]
    NoAddress,
    /// A node will not talk with this client.
    #[error("{address} refuses this client: {text} (code {code:#06x})")]
    Refused {
        /// Whose answer.
        address: String,
        /// Its number.
        code: u16,
        /// What it means.
        text: String,
    },
    /// A node speaks something else.
    #[error("{address}: {source}")]
    Packet {
        /// Which.
        address: String,
        /// What is wrong.
        source: PacketError,
    },
    /// The session is gone: what was in flight may have been done or not.
    #[error(
        "session {session} is not known any more: it has expired; what was in flight since request {number} may have been done or not"
    )]
    SessionGone {
        /// Which.
        session: u64,
        /// The first request without an answer.
        number: u32,
    },
    /// Nobody answered in time.
    #[error("no node answered within {millis} ms; asked: {addresses}; the last attempt: {last}")]
    NoAnswer {
        /// How the last attempt ended.
        last: String,
        /// How long was waited.
        millis: u64,
        /// Who was asked.
        addresses: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The system cannot wait for a socket.
    #[error("waiting for a socket failed: {0}")]
    Wait(std::io::Error),
}
