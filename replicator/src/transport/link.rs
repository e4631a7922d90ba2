//! One socket between two nodes: its bytes in, its bytes out, and how far the greeting has come.

use std::io;

use super::queue::Queue;
use super::stream::{Stream, is_early};
use crate::ids::NodeId;
use crate::wire::{Connection, Decoder, Limits, Message, WireError};

/// Bytes that one turn takes from a socket, so that a busy peer does not keep the others waiting.
const TURN_BYTES: usize = 2 << 20;

/// How far a socket has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Dialed; not connected yet.
    Dialing,
    /// Connected; the other side's hello has not come.
    Greeting,
    /// Both have greeted.
    Up,
    /// A refusal is under way; nothing is read any more.
    Closing,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) decoder: Decoder,
    pub(crate) queue: Queue,
    pub(crate) stage: Stage,
    /// Whom we dialed, or who has greeted us.
    pub(crate) peer: Option<(NodeId, Connection)>,
    /// Who it says it is.
    pub(crate) claimed: Option<NodeId>,
    pub(crate) is_dialed: bool,
    /// When it was dialed.
    pub(crate) begun_ns: u64,
    /// A greeting must be over by then, and a refusal gone.
    pub(crate) deadline_ns: u64,
    /// The last turn left bytes that no socket will report.
    pub(crate) has_more: bool,
    /// A message did not fit; nothing is taken until half of the queue is gone.
    pub(crate) is_full: bool,
    is_finished: bool,
}

/// Why a socket is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the peer closed the connection")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

impl Link {
    pub(crate) fn new(stream: Stream, limits: Limits, queue_bytes_max: usize) -> Link {
        Link {
            stream,
            decoder: Decoder::new(limits),
            queue: Queue::new(queue_bytes_max),
            stage: Stage::Greeting,
            peer: None,
            claimed: None,
            is_dialed: false,
            begun_ns: 0,
            deadline_ns: u64::MAX,
            has_more: false,
            is_full: false,
            is_finished: false,
        }
    }

    pub(crate) fn wants_read(&self) -> bool {
        self.stage != Stage::Dialing
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.stage == Stage::Dialing
            || self.stream.wants_write()
            || (!self.queue.is_empty() && !self.stream.is_greeting())
    }

    /// Takes a message, or gives it back: the peer is too slow.
    pub(crate) fn push(&mut self, message: Message, bytes_max: usize) -> Result<(), Message> {
        if self.is_full && self.queue.bytes() > bytes_max / 2 {
            return Err(message);
        }
        self.is_full = false;
        self.queue
            .push(message)
            .inspect_err(|_| self.is_full = true)
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self) -> Result<(), Broken> {
        if self.stage == Stage::Dialing {
            return Ok(());
        }
        self.stream.flush().or_else(early_is_well)?;
        self.queue.write_to(&mut self.stream)?;
        if self.stage == Stage::Closing && self.queue.is_empty() && !self.is_finished {
            self.is_finished = true;
            self.stream.finish();
        }
        Ok(())
    }

    /// Whether the dialed socket is connected now.
    pub(crate) fn finish_dialing(&mut self) -> Result<bool, Broken> {
        if let Some(error) = self.stream.socket().take_error()? {
            return Err(error.into());
        }
        match self.stream.socket().peer_addr() {
            Ok(_) => {
                self.stage = Stage::Greeting;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there, and gives each message to `take`, which may say that it is enough.
    pub(crate) fn read(
        &mut self,
        mut take: impl FnMut(&mut Link, Message) -> bool,
    ) -> Result<(), Broken> {
        let mut left = TURN_BYTES;
        self.has_more = false;
        // Ends: each turn takes from `left`, or comes to the end of what is there.
        while left > 0 {
            let room = self.decoder.room();
            let wanted = room.len();
            let count = match self.stream.read(room) {
                Ok(0) => return Err(Broken::Ended),
                Ok(count) => count,
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.stage == Stage::Closing {
                // Only the end is waited for: what comes is not kept.
                left = left.saturating_sub(count);
                continue;
            }
            self.decoder.filled(count);
            left = left.saturating_sub(count);
            while let Some(message) = self.decoder.next()? {
                if !take(self, message) {
                    return Ok(());
                }
            }
            if count < wanted && self.stream.certificate().is_none() {
                // A plain socket that filled less than the room is empty.
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }
}

fn early_is_well(error: io::Error) -> io::Result<()> {
    if is_early(&error) { Ok(()) } else { Err(error) }
}
